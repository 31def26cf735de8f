//! Eventing on a real Kafka (OPENMETER_KAFKA_BROKER, by default 127.0.0.1:9092), against a
//! network that answers as each test says.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail, and clippy sees only test functions as tests"
)]

mod consumers;
mod deliveries;
mod doors;
mod kill;
mod members;
mod plan;
mod support;
