//! Process on the real engines: events pushed one by one, pulled from Kafka and brought by
//! Lambda, and engines that are away.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail, and clippy sees only test functions as tests"
)]

mod apart;
mod away;
mod lambda;
mod push;
mod served;
mod support;
