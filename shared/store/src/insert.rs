//! Writing: one call is one INSERT of one block, stored when the call returns.
//!
//! A block written twice is the same rows twice, which readers see once: a call that
//! failed or timed out is simply made again, with the same rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{Content, Decimal, GroupBy, Identity};

use crate::{
    connection::{Store, within},
    error::StoreError,
    row_binary::Block,
};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It is counted by every meter that takes it.
    Valid,
    /// It is the one event of its identity, and a meter, or every one, cannot use it.
    Invalid,
    /// Another event has its identity: it is kept and adds to nothing.
    Conflict,
}

impl State {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Valid => 0,
            Self::Invalid => 1,
            Self::Conflict => 2,
        }
    }

    pub(crate) fn from_code(code: i8) -> Option<Self> {
        [Self::Valid, Self::Invalid, Self::Conflict]
            .into_iter()
            .find(|state| state.code() == code)
    }
}

/// A row of `events`: an event as it was accepted. Rows of equal time, identity and
/// content are one row; the one stored last is read.
#[derive(Clone, Copy, Debug)]
pub struct EventRow<'a> {
    /// Who it is.
    pub identity: Identity,
    /// Where it is counted, in microseconds since 1970: the time of the first delivery.
    pub time: i64,
    /// CloudEvents `id`.
    pub id: &'a str,
    /// CloudEvents `source`.
    pub source: &'a str,
    /// CloudEvents `type`.
    pub event_type: &'a str,
    /// CloudEvents `subject`; empty if absent.
    pub subject: &'a str,
    /// The data as it was sent; empty if absent.
    pub data: &'a [u8],
    /// The remaining attributes.
    pub attributes: &'a BTreeMap<String, String>,
    /// What became of it.
    pub state: State,
    /// Why it is not valid; empty if it is.
    pub error: &'a str,
    /// What it says.
    pub content: Content,
    /// The hash of the definitions that were applied ([`model::Catalog::definitions`]).
    pub definitions: u64,
    /// When ingest took it, in microseconds since 1970.
    pub ingested_at: i64,
    /// When it was written, in microseconds since 1970: the version of the row.
    pub stored_at: i64,
    /// Takes the row away instead of adding it.
    pub is_deleted: bool,
}

/// A row of `usage`: what one event adds to one meter. Rows of equal meter, subject,
/// time, identity and content are one row; the one stored last is read.
#[derive(Clone, Copy, Debug)]
pub struct UsageRecord<'a> {
    /// The meter's slug.
    pub meter: &'a str,
    /// Who used something.
    pub subject: &'a str,
    /// Where it is counted, in microseconds since 1970: the time of the event's row.
    pub time: i64,
    /// Which event it is of.
    pub identity: Identity,
    /// What the event says.
    pub content: Content,
    /// The value.
    pub value: Decimal,
    /// UNIQUE_COUNT's value as text; empty for all others.
    pub text: &'a str,
    /// The meter's dimensions.
    pub dimensions: &'a [GroupBy],
    /// Their values, in the same order.
    pub groups: &'a [String],
    /// The hash of the definitions that were applied.
    pub definitions: u64,
    /// When ingest took the event, in microseconds since 1970.
    pub ingested_at: i64,
    /// When it was written, in microseconds since 1970: the version of the row.
    pub stored_at: i64,
    /// Takes the row away instead of adding it.
    pub is_deleted: bool,
}

const EVENT_COLUMNS: [(&str, &str); 15] = [
    ("identity", "FixedString(16)"),
    ("time", "DateTime64(6, 'UTC')"),
    ("id", "String"),
    ("source", "LowCardinality(String)"),
    ("type", "LowCardinality(String)"),
    ("subject", "String"),
    ("data", "String"),
    ("attributes", "Map(LowCardinality(String), String)"),
    ("state", "Enum8('valid' = 0, 'invalid' = 1, 'conflict' = 2)"),
    ("error", "String"),
    ("content", "UInt64"),
    ("definitions", "UInt64"),
    ("ingested_at", "DateTime64(6, 'UTC')"),
    ("stored_at", "DateTime64(6, 'UTC')"),
    ("is_deleted", "UInt8"),
];

const USAGE_COLUMNS: [(&str, &str); 12] = [
    ("meter", "LowCardinality(String)"),
    ("subject", "String"),
    ("time", "DateTime64(6, 'UTC')"),
    ("identity", "FixedString(16)"),
    ("content", "UInt64"),
    ("value", "Decimal(38, 19)"),
    ("text", "String"),
    ("groups", "Map(LowCardinality(String), String)"),
    ("definitions", "UInt64"),
    ("ingested_at", "DateTime64(6, 'UTC')"),
    ("stored_at", "DateTime64(6, 'UTC')"),
    ("is_deleted", "UInt8"),
];

impl EventRow<'_> {
    fn write(&self, block: &mut Block) {
        block.fixed(self.identity.0);
        block.fixed(self.time.to_le_bytes());
        block.text(self.id);
        block.text(self.source);
        block.text(self.event_type);
        block.text(self.subject);
        block.string(self.data);
        block.map(
            self.attributes
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        block.fixed(self.state.code().to_le_bytes());
        block.text(self.error);
        block.fixed(self.content.0.to_le_bytes());
        block.fixed(self.definitions.to_le_bytes());
        block.fixed(self.ingested_at.to_le_bytes());
        block.fixed(self.stored_at.to_le_bytes());
        block.fixed([u8::from(self.is_deleted)]);
    }
}

impl UsageRecord<'_> {
    fn write(&self, block: &mut Block) {
        block.text(self.meter);
        block.text(self.subject);
        block.fixed(self.time.to_le_bytes());
        block.fixed(self.identity.0);
        block.fixed(self.content.0.to_le_bytes());
        block.fixed(self.value.mantissa().to_le_bytes());
        block.text(self.text);
        block.map(
            self.dimensions
                .iter()
                .map(|dimension| dimension.name.as_str())
                .zip(self.groups.iter().map(String::as_str)),
        );
        block.fixed(self.definitions.to_le_bytes());
        block.fixed(self.ingested_at.to_le_bytes());
        block.fixed(self.stored_at.to_le_bytes());
        block.fixed([u8::from(self.is_deleted)]);
    }
}

/// How much is compressed and sent at a time.
const CHUNK: usize = 1 << 20;

impl Store {
    /// Stores these rows of `events`, all of them or none that counts as stored.
    pub async fn insert_events(&self, rows: &[EventRow<'_>]) -> Result<(), StoreError> {
        self.insert(
            "insert events",
            "events",
            &EVENT_COLUMNS,
            rows,
            EventRow::write,
        )
        .await
    }

    /// Stores these rows of `usage`, all of them or none that counts as stored.
    pub async fn insert_usage(&self, rows: &[UsageRecord<'_>]) -> Result<(), StoreError> {
        self.insert(
            "insert usage",
            "usage",
            &USAGE_COLUMNS,
            rows,
            UsageRecord::write,
        )
        .await
    }

    pub(crate) async fn insert<R>(
        &self,
        what: &'static str,
        table: &str,
        columns: &[(&str, &str)],
        rows: &[R],
        write: impl Fn(&R, &mut Block),
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = columns
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        let sql = format!(
            "INSERT INTO {table} ({}) FORMAT RowBinaryWithNamesAndTypes",
            names.join(", ")
        );
        let limit = self.insert_timeout;
        let send = async {
            let mut insert = ONE_BLOCK.into_iter().fold(
                self.client.insert_formatted_with(sql),
                |insert, (name, value)| insert.with_setting(name, value),
            );
            insert = insert.with_setting("max_execution_time", limit.as_secs().max(1).to_string());
            let mut block = Block::new(columns, CHUNK + CHUNK / 4);
            for row in rows {
                write(row, &mut block);
                if block.len() >= CHUNK {
                    insert.send(Bytes::from(block.take())).await?;
                }
            }
            insert.send(Bytes::from(block.take())).await?;
            insert.end().await
        };
        within(what, limit, send).await
    }
}

/// One INSERT is one block, whatever its size, written before the answer.
const ONE_BLOCK: [(&str, &str); 9] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "0"),
    ("max_partitions_per_insert_block", "0"),
    ("max_insert_block_size", "10000000"),
    ("min_insert_block_size_rows", "10000000"),
    ("min_insert_block_size_bytes", "10000000000"),
    ("max_insert_threads", "1"),
    ("input_format_with_names_use_header", "1"),
    ("input_format_with_types_use_header", "1"),
];
