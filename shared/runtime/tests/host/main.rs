//! The hosts from outside: a real socket, a real process, and a stand-in for Lambda's API.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows a test function when it sees one, but not what it calls"
)]

mod child;
mod http;
mod lambda;
mod metrics;
mod process;
mod runtime_api;
mod server;
