//! ClickHouse: the schema of metering and every SQL statement.
//!
//! Layout:
//! - [`StoreConfig`], [`Address`], [`Database`]: where the store is
//! - [`Store`]: a cheap handle; [`Store::migrate`] makes the schema
//! - [`EventRow`], [`UsageRecord`]: what is inserted
//! - [`model::History`], implemented by [`Store`]: what was counted before
//! - [`Store::usage`], [`Store::subjects`], [`Store::group_values`]: what a meter says
//! - [`Store::events`], [`EventFilter`], [`StoredEvent`]: the events as they were kept
//! - [`Store::charged`], [`Store::priced_rows`]: usage by what decides its price; [`Subjects`]
//! - [`Grant`], [`Snapshot`]: credits that were given, and how accounts stood
//!
//! The only crate that names `clickhouse`. It decides nothing about events: which
//! one is counted, and as what, was decided before it is written here.

mod address;
mod charged;
mod connection;
mod credits;
mod error;
mod events;
mod insert;
mod offsets;
mod row_binary;
mod schema;
mod seen;
mod subjects;
#[cfg(feature = "testing")]
pub mod testing;
mod times;
mod usage;

pub use address::{Address, AddressError, Database};
pub use charged::{Charged, PricedRow};
pub use connection::{Store, StoreConfig};
pub use credits::{Grant, Snapshot};
pub use error::StoreError;
pub use events::{EventFilter, StoredEvent};
pub use insert::{EventRow, State, UsageRecord};
pub use subjects::Subjects;
