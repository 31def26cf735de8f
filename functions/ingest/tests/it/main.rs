//! Ingest over HTTP, with a real Kafka (OPENMETER_KAFKA_BROKER, by default 127.0.0.1:9092) and
//! with one that is away.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail, and clippy sees only test functions as tests"
)]

mod accepted;
mod away;
mod door;
mod support;
