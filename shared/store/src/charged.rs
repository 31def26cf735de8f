//! Usage that has a price: whole rows of late, or counted by what decides the price.
//!
//! What counts is what FINAL reads. It is asked of no more rows than needed: the keys of the
//! rows in question are found in the table first, with its indexes, and those keys are then
//! read with FINAL, so that whichever version of a row was found, the one that stands is read.

use std::{collections::BTreeMap, ops::Range};

use clickhouse::{Row, query::Query};
use model::{Decimal, Identity, PriceSpan};
use serde::Deserialize;

use crate::{connection::Store, error::StoreError, subjects::Subjects, times::END_OF_TIME};

/// Rows of one meter that cost the same: equal in all that decides a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// Who used something.
    pub subject: String,
    /// The day on which ingest took the events, in days since 1970.
    pub day: i64,
    /// The value of each row.
    pub value: Decimal,
    /// The value of the dimension that chooses the price; empty where there is none.
    pub group: String,
    /// How many rows.
    pub rows: u64,
}

/// What one event adds to one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PricedRow {
    /// Who used something.
    pub subject: String,
    /// Which event it is of.
    pub identity: Identity,
    /// The meter's slug.
    pub meter: String,
    /// Where it is counted, in microseconds since 1970.
    pub time: i64,
    /// The value.
    pub value: Decimal,
    /// The dimensions' values, by name.
    pub groups: BTreeMap<String, String>,
    /// When ingest took the event, in microseconds since 1970.
    pub ingested_at: i64,
}

#[derive(Row, Deserialize)]
struct CountAnswer {
    rows: u64,
}

#[derive(Row, Deserialize)]
struct DayAnswer {
    subject: String,
    day: i64,
}

#[derive(Row, Deserialize)]
struct ChargedAnswer {
    subject: String,
    day: i64,
    amount: String,
    chosen: String,
    rows: u64,
}

#[derive(Row, Deserialize)]
struct PricedAnswer {
    subject: String,
    identity: [u8; 16],
    meter: String,
    at: i64,
    amount: String,
    groups: Vec<(String, String)>,
    ingested: i64,
}

/// Terms on a time's column, of the parameters that [`bound`] sets.
fn within(column: &str) -> String {
    format!(
        "{column} >= fromUnixTimestamp64Micro({{from:Int64}}, 'UTC') \
         AND {column} < fromUnixTimestamp64Micro({{to:Int64}}, 'UTC')"
    )
}

fn bound(query: Query, times: &Range<i64>) -> Query {
    query.param("from", times.start).param("to", times.end)
}

impl Store {
    /// Returns the rows of the span's meter and times whose events ingest took at `ingested`
    /// (microseconds since 1970, the end excluded), counted by subject, ingest day, value and
    /// group: few, however many events there are.
    pub async fn charged(
        &self,
        span: &PriceSpan<'_>,
        ingested: Range<i64>,
        subjects: Subjects<'_>,
    ) -> Result<Vec<Charged>, StoreError> {
        const WHAT: &str = "count what is charged";
        let chosen = match span.group_by {
            Some(_) => "groups[{group:String}]",
            None => "''",
        };
        let by_ingest = within("ingested_at");
        let mut charged = Vec::new();
        for of_subjects in subjects.terms() {
            let rows = format!(
                "meter = {{meter:String}} AND {of_subjects} \
                 AND time >= fromUnixTimestamp64Micro({{begins:Int64}}, 'UTC') \
                 AND time < fromUnixTimestamp64Micro({{ends:Int64}}, 'UTC') \
                 AND {by_ingest}"
            );
            let sql = format!(
                "WITH (SELECT (min(time), max(time)) FROM usage WHERE {rows}) AS times \
                 SELECT subject, intDiv(toUnixTimestamp64Micro(ingested_at), 86400000000) AS day, \
                    toString(value) AS amount, {chosen} AS chosen, count() AS rows \
                 FROM usage FINAL \
                 WHERE {rows} AND time >= times.1 AND time <= times.2 \
                 GROUP BY subject, day, value, chosen \
                 ORDER BY subject, day, value, chosen"
            );
            let mut query = bound(self.ask(&sql), &ingested)
                .param("meter", span.meter)
                // Beyond the years that are counted there are no times to compare with.
                .param("begins", span.from.clamp(0, END_OF_TIME))
                .param("ends", span.until.clamp(0, END_OF_TIME));
            if let Some(group) = span.group_by {
                query = query.param("group", group);
            }
            for answer in self.rows::<ChargedAnswer>(WHAT, query).await? {
                charged.push(answer.charged(WHAT)?);
            }
        }
        Ok(charged)
    }

    /// Returns the rows of these meters and subjects whose events ingest took at `ingested`
    /// (microseconds since 1970, the end excluded). The rows of one event come one after the
    /// other: they are sorted by subject, then identity.
    pub async fn priced_rows(
        &self,
        meters: &[&str],
        ingested: Range<i64>,
        subjects: Subjects<'_>,
    ) -> Result<Vec<PricedRow>, StoreError> {
        let mut rows = Vec::new();
        for of_subjects in subjects.terms() {
            let found = format!("{} AND {of_subjects}", within("ingested_at"));
            // FINAL reads by the sorting key alone, in which the event's own time is.
            let times = format!(
                "WITH (SELECT (min(time), max(time)) FROM usage \
                 WHERE meter IN {{meters:Array(String)}} AND {found}) AS times"
            );
            let stands = format!("{found} AND time >= times.1 AND time <= times.2");
            let mut some = self.standing(&times, meters, &stands, &ingested).await?;
            rows.append(&mut some);
        }
        Ok(rows)
    }

    /// Returns how many rows, of whatever version, [`Store::priced_rows`] would look at.
    pub async fn count_rows(
        &self,
        meters: &[&str],
        ingested: Range<i64>,
        subjects: Subjects<'_>,
    ) -> Result<u64, StoreError> {
        let mut rows = 0;
        for of_subjects in subjects.terms() {
            let found = format!("{} AND {of_subjects}", within("ingested_at"));
            rows += self.count(meters, &found, &ingested).await?;
        }
        Ok(rows)
    }

    /// Returns how many rows, of whatever version, [`Store::priced_rows_inserted`] would look at.
    pub async fn count_rows_inserted(
        &self,
        meters: &[&str],
        inserted: Range<i64>,
    ) -> Result<u64, StoreError> {
        self.count(meters, &within("inserted_at"), &inserted).await
    }

    async fn count(
        &self,
        meters: &[&str],
        found: &str,
        times: &Range<i64>,
    ) -> Result<u64, StoreError> {
        const WHAT: &str = "count rows that have a price";
        let sql = format!(
            "SELECT count() AS rows FROM usage \
             WHERE meter IN {{meters:Array(String)}} AND {found}"
        );
        let query = bound(self.ask(&sql), times).param("meters", meters);
        let answer = self.rows::<CountAnswer>(WHAT, query).await?;
        Ok(answer.first().map(|answer| answer.rows).unwrap_or_default())
    }

    /// Returns the rows of these meters, as they stand now, of every event of which a row of
    /// any of these meters was inserted at `inserted` (microseconds since 1970, the server's
    /// clock, the end excluded); none of an event that was taken away. Sorted as
    /// [`Store::priced_rows`].
    ///
    /// A row has the time at which its INSERT began, and is seen when that ends.
    pub async fn priced_rows_inserted(
        &self,
        meters: &[&str],
        inserted: Range<i64>,
    ) -> Result<Vec<PricedRow>, StoreError> {
        let stands = format!(
            "(subject, time, identity, content) IN ( \
                SELECT subject, time, identity, content FROM usage \
                WHERE meter IN {{meters:Array(String)}} AND {})",
            within("inserted_at")
        );
        self.standing("", meters, &stands, &inserted).await
    }

    /// Returns the subjects and ingest days (since 1970) of which a row of any of these meters was
    /// taken away by what was inserted at `inserted`, as in [`Store::priced_rows_inserted`].
    pub async fn days_taken_from(
        &self,
        meters: &[&str],
        inserted: Range<i64>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = format!(
            "SELECT DISTINCT subject, \
                intDiv(toUnixTimestamp64Micro(ingested_at), 86400000000) AS day \
             FROM usage \
             WHERE meter IN {{meters:Array(String)}} AND is_deleted = 1 AND {}",
            within("inserted_at")
        );
        let query = bound(self.ask(&sql), &inserted).param("meters", meters);
        let rows = self.rows::<DayAnswer>("list days that rows were taken from", query);
        let days = rows.await?.into_iter().map(|row| (row.subject, row.day));
        Ok(days.collect())
    }

    /// Returns the rows that stand and pass `stands`.
    async fn standing(
        &self,
        with: &str,
        meters: &[&str],
        stands: &str,
        times: &Range<i64>,
    ) -> Result<Vec<PricedRow>, StoreError> {
        const WHAT: &str = "read rows that have a price";
        let sql = format!(
            "{with} SELECT subject, identity, meter, toUnixTimestamp64Micro(time) AS at, \
                toString(value) AS amount, groups, \
                toUnixTimestamp64Micro(ingested_at) AS ingested \
             FROM usage FINAL \
             WHERE meter IN {{meters:Array(String)}} AND {stands} \
             ORDER BY subject, identity, time, meter"
        );
        let query = bound(self.ask(&sql), times).param("meters", meters);
        let answers = self.rows::<PricedAnswer>(WHAT, query).await?;
        answers.into_iter().map(|answer| answer.row(WHAT)).collect()
    }

    /// Returns everyone who used one of these meters, sorted; also one of whom it turned out
    /// later that all of it is another's.
    pub async fn subjects_of(&self, meters: &[&str]) -> Result<Vec<String>, StoreError> {
        // Without FINAL, which would read every row of the table whole.
        let sql = "SELECT DISTINCT subject AS name FROM usage \
                   WHERE meter IN {meters:Array(String)} AND is_deleted = 0 ORDER BY name";
        let query = self.ask(sql).param("meters", meters);
        self.names("list who is charged", query).await
    }
}

fn value(amount: &str, what: &'static str) -> Result<Decimal, StoreError> {
    amount
        .parse()
        .map_err(|error: model::DecimalError| StoreError::unreadable(what, error))
}

impl ChargedAnswer {
    fn charged(self, what: &'static str) -> Result<Charged, StoreError> {
        Ok(Charged {
            value: value(&self.amount, what)?,
            subject: self.subject,
            day: self.day,
            group: self.chosen,
            rows: self.rows,
        })
    }
}

impl PricedAnswer {
    fn row(self, what: &'static str) -> Result<PricedRow, StoreError> {
        Ok(PricedRow {
            value: value(&self.amount, what)?,
            subject: self.subject,
            identity: Identity(self.identity),
            meter: self.meter,
            time: self.at,
            groups: self.groups.into_iter().collect(),
            ingested_at: self.ingested,
        })
    }
}
