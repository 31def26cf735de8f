//! `query` over its routes, with the real engine: OPENMETER_CLICKHOUSE_ADDRESS, or what
//! `make up` starts.

mod lists;
mod service;
mod usage;
