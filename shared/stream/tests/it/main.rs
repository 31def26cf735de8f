//! The codec from outside, and producer and consumer on a real Kafka.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail, and clippy sees only test functions as tests"
)]

mod hops;
mod http;
mod kafka;
mod laws;
mod live;
mod subscription;
