//! The store on the real engine: OPENMETER_CLICKHOUSE_ADDRESS, or what `make up` starts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod aggregations;
mod charged;
mod credits;
mod events;
mod history;
mod inserted;
mod measure;
mod rows;
mod schema;
mod windows;
