//! The binary against the real library: the crate `clickhouse` unmodified,
//! plain HTTP, and what survives a kill.

// The lint's exception for tests covers test functions, not what they call.
#![allow(clippy::unwrap_used)]

mod client;
mod durability;
mod http;
mod inserts;
mod server;
