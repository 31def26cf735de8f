//! ClickHouse: the schema of metering and every SQL statement.
//!
//! Layout:
//! - [`StoreConfig`], [`Address`], [`Database`]: where the store is
//! - [`Store`]: a cheap handle; [`Store::migrate`] makes the schema
//! - [`EventRow`], [`UsageRecord`]: what is inserted
//! - [`model::History`], implemented by [`Store`]: what was counted before
//! - [`Store::usage`], [`Store::subjects`], [`Store::group_values`]: what a meter says
//! - [`Store::events`], [`EventFilter`], [`StoredEvent`]: the events as they were kept
//!
//! The only crate that names `clickhouse`. It decides nothing about events: which
//! one is counted, and as what, was decided before it is written here.

mod address;
mod connection;
mod error;
mod events;
mod insert;
mod offsets;
mod row_binary;
mod schema;
mod seen;
#[cfg(feature = "testing")]
pub mod testing;
mod times;
mod usage;

pub use address::{Address, AddressError, Database};
pub use connection::{Store, StoreConfig};
pub use error::StoreError;
pub use events::{EventFilter, StoredEvent};
pub use insert::{EventRow, State, UsageRecord};
