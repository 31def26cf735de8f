//! The binary against the real library: the crate `clickhouse` unmodified,
//! plain HTTP, and what survives a kill.

mod client;
mod durability;
mod http;
mod inserts;
mod server;
