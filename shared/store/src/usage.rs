//! What a meter says: usage by window and group, and which subjects and groups there are.
//!
//! Sums are taken in Decimal(76, 19), for sum() over Decimal(38, 19) wraps; a mean is made
//! of sum and count in [`Total::mean`]; quantiles are values that occurred. No value is
//! ever a float: they travel as text.

use clickhouse::{Row, query::Query};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use model::{Aggregation, Decimal, Meter, MeterQuery, Total, UsageRow, Window, WindowSize};
use serde::Deserialize;

use crate::{
    connection::Store,
    error::StoreError,
    offsets::offset_sql,
    times::{END_OF_TIME, instant, micros_at_or_after},
};

const WHAT: &str = "query a meter";

/// The seconds since 1970 of a row's time, which is never before.
const SECOND: &str = "intDiv(toUnixTimestamp64Micro(time), 1000000)";

/// The day that local time reaches 2300 in zones ahead of UTC, in days since 1970: the one
/// day that not every version of ClickHouse can name.
const DAY_2300: i64 = 120_530;

#[derive(Row, Deserialize)]
struct Answer {
    row_subject: String,
    row_groups: Vec<String>,
    row_value: String,
    row_quantiles: Vec<String>,
    events: u64,
    first: i64,
    last: i64,
}

#[derive(Row, Deserialize)]
struct Bounds {
    events: u64,
    first: i64,
    last: i64,
}

#[derive(Row, Deserialize)]
struct Name {
    name: String,
}

impl Store {
    /// Returns the answer to `query`, by window, then subject, then groups.
    pub async fn usage(
        &self,
        meter: &Meter,
        query: &MeterQuery,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let scope = Scope::of(meter, query);
        let Some(window) = self.window_sql(&scope, query).await? else {
            return Ok(when_nothing(meter, query));
        };
        let question = scope.bind(self.ask(&usage_sql(meter, query, &scope, &window)));
        let answers = self.rows::<Answer>(WHAT, question).await?;
        let mut rows = answers
            .into_iter()
            .filter(|answer| answer.events > 0)
            .map(|answer| answer.row(meter.aggregation, query))
            .collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() {
            return Ok(when_nothing(meter, query));
        }
        rows.sort_by(|a, b| {
            let key = |row: &UsageRow| (row.window.start, row.window.end);
            key(a)
                .cmp(&key(b))
                .then_with(|| a.subject.cmp(&b.subject))
                .then_with(|| a.groups.cmp(&b.groups))
        });
        Ok(rows)
    }

    /// Returns the subjects that `meter` has usage of, sorted.
    pub async fn subjects(
        &self,
        meter: &str,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Vec<String>, StoreError> {
        let scope = Scope::in_time(meter, from, to);
        let sql = format!(
            "SELECT DISTINCT subject AS name FROM usage_current WHERE {} ORDER BY name",
            scope.terms.join(" AND ")
        );
        self.names("list subjects", scope.bind(self.ask(&sql)))
            .await
    }

    /// Returns the values that the dimension `key` of `meter` has, sorted.
    pub async fn group_values(
        &self,
        meter: &str,
        key: &str,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Vec<String>, StoreError> {
        let scope = Scope::in_time(meter, from, to);
        let sql = format!(
            "SELECT DISTINCT groups[{{key:String}}] AS name FROM usage_current WHERE {} \
             ORDER BY name",
            scope.terms.join(" AND ")
        );
        let question = scope.bind(self.ask(&sql)).param("key", key);
        self.names("list the values of a dimension", question).await
    }

    pub(crate) async fn names(
        &self,
        what: &'static str,
        query: Query,
    ) -> Result<Vec<String>, StoreError> {
        let rows = self.rows::<Name>(what, query).await?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }

    /// Returns an expression that is equal for rows of one window, and only for them;
    /// `None` when there are no rows.
    async fn window_sql(
        &self,
        scope: &Scope,
        query: &MeterQuery,
    ) -> Result<Option<WindowKey>, StoreError> {
        let Some(size) = query.window_size else {
            return Ok(Some(WindowKey::default()));
        };
        let limit = instant(END_OF_TIME).map_err(|error| StoreError::unreadable(WHAT, error))?;
        let (first, last) = match (query.from, query.to) {
            // An offset that never changes needs no bounds.
            _ if query.zone.following(Timestamp::UNIX_EPOCH).next().is_none() => {
                (Timestamp::UNIX_EPOCH, limit)
            }
            (Some(from), Some(to)) => (from.max(Timestamp::UNIX_EPOCH), to.min(limit)),
            _ => match self.bounds(scope).await? {
                Some(bounds) => bounds,
                None => return Ok(None),
            },
        };
        if first > last {
            return Ok(None);
        }
        Ok(Some(window_key(size, &query.zone, first, last)))
    }

    /// Returns the times of the first and the last row, so that only the changes of offset
    /// between them are looked at. Deleted rows may widen them, which does no harm.
    async fn bounds(&self, scope: &Scope) -> Result<Option<(Timestamp, Timestamp)>, StoreError> {
        let sql = format!(
            "SELECT count() AS events, toUnixTimestamp64Micro(min(time)) AS first, \
                toUnixTimestamp64Micro(max(time)) AS last \
             FROM usage WHERE {}",
            scope.terms.join(" AND ")
        );
        let rows = self
            .rows::<Bounds>(WHAT, scope.bind(self.ask(&sql)))
            .await?;
        let at = |micros| instant(micros).map_err(|error| StoreError::unreadable(WHAT, error));
        match rows.first() {
            Some(bounds) if bounds.events > 0 => Ok(Some((at(bounds.first)?, at(bounds.last)?))),
            _ => Ok(None),
        }
    }
}

/// COUNT and UNIQUE_COUNT say 0 of a stretch of time in which nothing happened; a value of
/// nothing has no row.
fn when_nothing(meter: &Meter, query: &MeterQuery) -> Vec<UsageRow> {
    let counts = matches!(
        meter.aggregation,
        Aggregation::Count | Aggregation::UniqueCount
    );
    let is_one_row = query.window_size.is_none() && !query.by_subject && query.group_by.is_empty();
    match (query.from, query.to) {
        (Some(start), Some(end)) if counts && is_one_row => vec![UsageRow {
            window: Window { start, end },
            value: Total::ZERO,
            quantiles: None,
            subject: None,
            groups: Vec::new(),
        }],
        _ => Vec::new(),
    }
}

fn usage_sql(meter: &Meter, query: &MeterQuery, scope: &Scope, window: &WindowKey) -> String {
    let value = match meter.aggregation {
        Aggregation::Count => "toString(count())",
        Aggregation::Sum | Aggregation::Avg => "toString(sum(toDecimal256(value, 19)))",
        Aggregation::Min => "toString(min(value))",
        Aggregation::Max => "toString(max(value))",
        Aggregation::UniqueCount => "toString(uniqExact(text))",
        Aggregation::Latest => "toString(argMax(value, (time, identity)))",
        Aggregation::Quantiles => "''",
    };
    let quantiles = match meter.aggregation {
        Aggregation::Quantiles => {
            "arrayMap(quantile -> toString(quantile), \
             quantilesExact(0.5, 0.9, 0.95, 0.99)(value))"
        }
        _ => "[]::Array(String)",
    };
    let subject = if query.by_subject { "subject" } else { "''" };
    let groups: Vec<_> = (0..query.group_by.len())
        .map(|place| format!("groups[{{group{place}:String}}]"))
        .collect();
    // Each on its own is grouped faster than the array of all.
    let keys: Vec<_> = [window.key.clone(), subject.to_owned()]
        .into_iter()
        .chain(groups.iter().cloned())
        .collect();
    let with = &window.with;
    format!(
        "{with} SELECT {subject} AS row_subject, [{groups}]::Array(String) AS row_groups, \
            {value} AS row_value, {quantiles} AS row_quantiles, count() AS events, \
            toUnixTimestamp64Micro(min(time)) AS first, \
            toUnixTimestamp64Micro(max(time)) AS last \
         FROM usage_current WHERE {terms} GROUP BY {keys}",
        groups = groups.join(", "),
        terms = scope.terms.join(" AND "),
        keys = keys.join(", "),
    )
}

/// SQL that tells the rows of one window from all others.
struct WindowKey {
    with: String,
    key: String,
}

impl Default for WindowKey {
    /// One window for all.
    fn default() -> Self {
        Self {
            with: String::new(),
            key: "0".to_owned(),
        }
    }
}

/// Local days and hours by plain arithmetic on the seconds: see [`crate::offsets`].
fn window_key(size: WindowSize, zone: &TimeZone, first: Timestamp, last: Timestamp) -> WindowKey {
    let offset = offset_sql(zone, "second", first, last);
    let start = |length: i64| format!("local_second - positiveModulo(local_second, {length})");
    let key = match size {
        WindowSize::Minute => format!("{} - zone_offset", start(60)),
        WindowSize::Hour => format!("{} - zone_offset", start(3600)),
        WindowSize::Day => start(86_400),
        WindowSize::Month => {
            let day = format!("intDiv({}, 86400)", start(86_400));
            format!("if({day} < {DAY_2300}, toRelativeMonthNum(toDate32(toInt32({day}))), 27601)")
        }
    };
    WindowKey {
        with: format!(
            "WITH {SECOND} AS second, {offset} AS zone_offset, \
             second + zone_offset AS local_second"
        ),
        key,
    }
}

/// Which rows are looked at: SQL terms, and the values that they name.
struct Scope {
    terms: Vec<String>,
    texts: Vec<(String, String)>,
    lists: Vec<(String, Vec<String>)>,
    numbers: Vec<(String, i64)>,
}

impl Scope {
    fn in_time(meter: &str, from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        let mut scope = Self {
            terms: vec!["meter = {meter:String}".to_owned()],
            texts: vec![("meter".to_owned(), meter.to_owned())],
            lists: Vec::new(),
            numbers: Vec::new(),
        };
        for (name, comparison, at) in [("from", ">=", from), ("to", "<", to)] {
            let Some(at) = at else { continue };
            // Beyond the years that are counted there are no rows, nor times to compare with.
            let micros = micros_at_or_after(at).clamp(0, END_OF_TIME);
            scope.terms.push(format!(
                "time {comparison} fromUnixTimestamp64Micro({{{name}:Int64}}, 'UTC')"
            ));
            scope.numbers.push((name.to_owned(), micros));
        }
        scope
    }

    fn of(meter: &Meter, query: &MeterQuery) -> Self {
        let mut scope = Self::in_time(&meter.slug, query.from, query.to);
        if !query.subjects.is_empty() {
            scope
                .terms
                .push("subject IN {subjects:Array(String)}".to_owned());
            scope
                .lists
                .push(("subjects".to_owned(), query.subjects.clone()));
        }
        for (place, (key, values)) in query.filters.iter().enumerate() {
            scope.terms.push(format!(
                "groups[{{filter{place}:String}}] IN {{values{place}:Array(String)}}"
            ));
            scope.texts.push((format!("filter{place}"), key.clone()));
            scope.lists.push((format!("values{place}"), values.clone()));
        }
        for (place, name) in query.group_by.iter().enumerate() {
            scope.texts.push((format!("group{place}"), name.clone()));
        }
        scope
    }

    fn bind(&self, query: Query) -> Query {
        let query = self
            .texts
            .iter()
            .fold(query, |query, (name, value)| query.param(name, value));
        let query = self
            .lists
            .iter()
            .fold(query, |query, (name, values)| query.param(name, values));
        self.numbers
            .iter()
            .fold(query, |query, (name, value)| query.param(name, *value))
    }
}

impl Answer {
    fn row(self, aggregation: Aggregation, query: &MeterQuery) -> Result<UsageRow, StoreError> {
        let window = self.window(query)?;
        let total = |text: &str| {
            text.parse::<Total>()
                .map_err(|error| StoreError::unreadable(WHAT, error))
        };
        let quantiles = match aggregation {
            Aggregation::Quantiles => Some(self.quantiles()?),
            _ => None,
        };
        let value = match (aggregation, quantiles) {
            (Aggregation::Avg, _) => total(&self.row_value)?
                .mean(self.events)
                .ok_or_else(|| StoreError::unreadable(WHAT, "a row of no events"))?,
            (_, Some([p50, ..])) => Total::from(p50),
            _ => total(&self.row_value)?,
        };
        Ok(UsageRow {
            window,
            value,
            quantiles,
            subject: query.by_subject.then_some(self.row_subject),
            groups: self.row_groups,
        })
    }

    fn quantiles(&self) -> Result<[Decimal; 4], StoreError> {
        let values = self
            .row_quantiles
            .iter()
            .map(|text| text.parse::<Decimal>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| StoreError::unreadable(WHAT, error))?;
        <[Decimal; 4]>::try_from(values)
            .map_err(|_| StoreError::unreadable(WHAT, "not four quantiles"))
    }

    fn window(&self, query: &MeterQuery) -> Result<Window, StoreError> {
        let at = |micros| instant(micros).map_err(|error| StoreError::unreadable(WHAT, error));
        let (first, last) = (at(self.first)?, at(self.last)?);
        Ok(match query.window_size {
            Some(size) => Window::holding(first, size, &query.zone),
            None => Window {
                start: query.from.unwrap_or_else(|| minute_of(first)),
                end: query
                    .to
                    .unwrap_or_else(|| minute_of(last) + SignedDuration::from_mins(1)),
            },
        })
    }
}

fn minute_of(at: Timestamp) -> Timestamp {
    Window::holding(at, WindowSize::Minute, &TimeZone::UTC).start
}
