//! `query` over its routes, with the real engine: OPENMETER_CLICKHOUSE_ADDRESS, or what
//! `make up` starts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod lists;
mod service;
mod usage;
