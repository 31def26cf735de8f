//! The events as they were kept: raw, with what became of each.

use std::{collections::BTreeMap, fmt};

use clickhouse::{Row, query::Query};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Visitor};

use crate::{
    connection::Store,
    error::StoreError,
    insert::State,
    times::{instant, micros_at_or_after},
};

/// The most events of one answer.
const MOST: u8 = 100;

/// Which events are asked for. The default asks for the latest 100 of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// A part of the id.
    pub id: Option<String>,
    /// The whole subject.
    pub subject: Option<String>,
    /// The whole type.
    pub event_type: Option<String>,
    /// Only events of this time or later.
    pub from: Option<Timestamp>,
    /// Only events before this time.
    pub to: Option<Timestamp>,
    /// Only events that ingest took at this time or later.
    pub ingested_from: Option<Timestamp>,
    /// Only events that ingest took before this time.
    pub ingested_to: Option<Timestamp>,
    /// How many at most; `None` for 100, which is also the most.
    pub limit: Option<u8>,
}

/// An event as it was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`.
    pub event_type: String,
    /// CloudEvents `subject`.
    pub subject: Option<String>,
    /// Where it is counted.
    pub time: Timestamp,
    /// The data's bytes as they were sent.
    pub data: Option<Vec<u8>>,
    /// The remaining attributes.
    pub attributes: BTreeMap<String, String>,
    /// What became of it.
    pub state: State,
    /// Why it is not valid.
    pub error: Option<String>,
    /// When ingest took it.
    pub ingested_at: Timestamp,
    /// When it was written.
    pub stored_at: Timestamp,
}

#[derive(Row, Deserialize)]
struct EventAnswer {
    id: String,
    source: String,
    event_type: String,
    subject: String,
    event_time: i64,
    data: Raw,
    attributes: Vec<(String, String)>,
    state_code: i8,
    error: String,
    ingested: i64,
    stored: i64,
}

/// A String of any bytes: serde takes a `Vec<u8>` for an Array(UInt8).
struct Raw(Vec<u8>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl Visitor<'_> for Visit {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Raw, E> {
                Ok(Raw(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Visit)
    }
}

impl Store {
    /// Returns the events that pass `filter`, latest time first.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<StoredEvent>, StoreError> {
        const WHAT: &str = "list events";
        let mut rows = self
            .rows::<EventAnswer>(WHAT, filter.question(self, Keys::OfRows))
            .await?;
        // Rows that were taken away may have stood in the place of others.
        if rows.len() < usize::from(filter.limit()) {
            rows = self
                .rows(WHAT, filter.question(self, Keys::OfEvents))
                .await?;
        }
        rows.into_iter().map(|row| row.event(WHAT)).collect()
    }
}

/// Where the keys of the newest events are looked for.
#[derive(Clone, Copy)]
enum Keys {
    /// In the table, from its end: it stops as soon as there are enough.
    OfRows,
    /// In the view: exact whatever was taken away, and read from end to end.
    OfEvents,
}

impl Keys {
    fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::OfRows => ("events", "is_deleted = 0"),
            Self::OfEvents => ("events_current", "1"),
        }
    }
}

impl EventFilter {
    fn limit(&self) -> u8 {
        self.limit.unwrap_or(MOST).min(MOST)
    }

    /// The keys of the newest events are found first, in the narrow columns; only those
    /// few events are then read whole.
    fn question(&self, store: &Store, keys: Keys) -> Query {
        let texts = [
            ("id", "position(id, {id:String}) > 0", &self.id),
            ("subject", "subject = {subject:String}", &self.subject),
            ("type", "type = {type:String}", &self.event_type),
        ];
        let times = [
            ("from", "time >=", self.from),
            ("to", "time <", self.to),
            ("ingested_from", "ingested_at >=", self.ingested_from),
            ("ingested_to", "ingested_at <", self.ingested_to),
        ];
        let text_terms = texts
            .iter()
            .filter(|(_, _, value)| value.is_some())
            .map(|(_, term, _)| (*term).to_owned());
        let time_terms =
            times
                .iter()
                .filter(|(_, _, value)| value.is_some())
                .map(|(name, term, _)| {
                    format!("{term} fromUnixTimestamp64Micro({{{name}:Int64}}, 'UTC')")
                });
        let (source, stands) = keys.source();
        let terms: Vec<_> = text_terms.chain(time_terms).collect();
        // Outside as well: the row that stands may not pass where an older one did.
        let filter = terms
            .iter()
            .map(|term| format!(" AND {term}"))
            .collect::<String>();
        let sql = format!(
            "SELECT id, source, type AS event_type, subject, \
                toUnixTimestamp64Micro(time) AS event_time, data, attributes, \
                toInt8(state) AS state_code, error, \
                toUnixTimestamp64Micro(ingested_at) AS ingested, \
                toUnixTimestamp64Micro(stored_at) AS stored \
             FROM events_current \
             WHERE (time, identity, content) IN ( \
                SELECT time, identity, content FROM {source} \
                WHERE {stands}{filter} \
                ORDER BY time DESC, identity, content \
                LIMIT 1 BY time, identity, content LIMIT {{limit:UInt8}}){filter} \
             ORDER BY time DESC, identity, content"
        );
        let mut query = store.ask(&sql);
        for (name, _, value) in texts {
            if let Some(value) = value {
                query = query.param(name, value);
            }
        }
        for (name, _, value) in times {
            if let Some(value) = value {
                query = query.param(name, micros_at_or_after(value));
            }
        }
        query.param("limit", self.limit())
    }
}

impl EventAnswer {
    fn event(self, what: &'static str) -> Result<StoredEvent, StoreError> {
        let at = |micros| instant(micros).map_err(|error| StoreError::unreadable(what, error));
        let state = State::from_code(self.state_code)
            .ok_or_else(|| StoreError::unreadable(what, "an event of no known state"))?;
        Ok(StoredEvent {
            id: self.id,
            source: self.source,
            event_type: self.event_type,
            subject: Some(self.subject).filter(|subject| !subject.is_empty()),
            time: at(self.event_time)?,
            data: Some(self.data.0).filter(|data| !data.is_empty()),
            attributes: self.attributes.into_iter().collect(),
            state,
            error: Some(self.error).filter(|error| !error.is_empty()),
            ingested_at: at(self.ingested)?,
            stored_at: at(self.stored)?,
        })
    }
}
