//! The schema, in steps that are applied once each, in order.
//!
//! Each step is one statement that does nothing where it was done before, so processes
//! that start together may all apply it. A step is never edited once released: a change
//! is a further step.

use std::collections::BTreeSet;

use clickhouse::Row;
use serde::Deserialize;

use crate::{connection::Store, error::StoreError};

/// (number, name, statement).
const STEPS: [(u32, &str, &str); 11] = [
    (1, "events", include_str!("schema/1_events.sql")),
    (2, "usage", include_str!("schema/2_usage.sql")),
    (
        3,
        "events_current",
        include_str!("schema/3_events_current.sql"),
    ),
    (
        4,
        "usage_current",
        include_str!("schema/4_usage_current.sql"),
    ),
    (
        5,
        "usage_inserted_at",
        include_str!("schema/5_usage_inserted_at.sql"),
    ),
    (6, "usage_before", include_str!("schema/6_usage_before.sql")),
    (
        7,
        "usage_inserted_index",
        include_str!("schema/7_usage_inserted_index.sql"),
    ),
    (
        8,
        "usage_inserted_indexed",
        include_str!("schema/8_usage_inserted_indexed.sql"),
    ),
    (
        9,
        "usage_inserted_now",
        include_str!("schema/9_usage_inserted_now.sql"),
    ),
    (10, "grants", include_str!("schema/10_grants.sql")),
    (11, "balances", include_str!("schema/11_balances.sql")),
];

/// Which steps were applied. The engine folds the rows of processes that started together.
const MIGRATIONS: &str = "
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version    UInt32,
    name       String,
    applied_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY version";

/// What ClickHouse says when our table of steps, or the database, is not there yet.
const NOT_THERE: [u32; 2] = [60, 81];

/// What ClickHouse says when another process makes the same thing at the same instant,
/// IF NOT EXISTS notwithstanding.
const ALREADY_THERE: [u32; 2] = [57, 82];

#[derive(Row, Deserialize)]
struct Applied {
    version: u32,
}

impl Store {
    /// Makes the database and its tables, or brings them to this version. Any number of
    /// processes may do so at once, and again.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        // One round trip where nothing is to be done: every start of a process waits for it.
        let applied = match self.applied().await {
            Err(error) if is_one_of(&error, &NOT_THERE) => self.begin().await?,
            applied => applied?,
        };
        for (version, name, statement) in STEPS {
            if applied.contains(&version) {
                continue;
            }
            self.apply(self.client.query_raw(statement)).await?;
            self.note(version, name).await?;
            tracing::info!(version, name, database = %self.database, "schema step applied");
        }
        let known = STEPS.len();
        if applied.last().is_some_and(|last| *last as usize > known) {
            tracing::warn!(known, "the schema is newer than this program");
        }
        Ok(())
    }

    /// Makes the database and the table of steps, and returns which were applied meanwhile.
    async fn begin(&self) -> Result<BTreeSet<u32>, StoreError> {
        let create = format!("CREATE DATABASE IF NOT EXISTS `{}`", self.database);
        self.apply(self.server.query_raw(&create)).await?;
        self.apply(self.client.query_raw(MIGRATIONS)).await?;
        self.applied().await
    }

    async fn apply(&self, statement: clickhouse::query::Query) -> Result<(), StoreError> {
        match self.execute("migrate", statement).await {
            Err(error) if is_one_of(&error, &ALREADY_THERE) => Ok(()),
            done => done,
        }
    }

    async fn applied(&self) -> Result<BTreeSet<u32>, StoreError> {
        let query = self.ask("SELECT DISTINCT version FROM schema_migrations");
        let rows = self
            .rows::<Applied>("read the schema's version", query)
            .await?;
        Ok(rows.into_iter().map(|row| row.version).collect())
    }

    async fn note(&self, version: u32, name: &str) -> Result<(), StoreError> {
        let query = self
            .client
            .query_raw(
                "INSERT INTO schema_migrations \
                 SELECT {version:UInt32}, {name:String}, now64(6, 'UTC')",
            )
            .with_setting("async_insert", "0")
            .param("version", version)
            .param("name", name);
        self.execute("note a schema step", query).await
    }
}

fn is_one_of(error: &StoreError, codes: &[u32]) -> bool {
    error.code().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_a_gap_and_can_be_repeated() {
        for (place, (version, name, statement)) in STEPS.iter().enumerate() {
            assert_eq!(*version as usize, place + 1, "{name}");
            // The others say again what is so, or change rows that are changed once.
            let is_repeatable = ["UPDATE", "MATERIALIZE INDEX", "MODIFY COLUMN"]
                .iter()
                .any(|words| statement.contains(words));
            let is_guarded = statement.contains("IF NOT EXISTS");
            assert!(is_guarded || is_repeatable, "{name}");
            assert!(!statement.contains(';'), "{name}: one statement a step");
        }
    }
}
