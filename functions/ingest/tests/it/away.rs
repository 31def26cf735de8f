//! With Kafka away: senders are told to come back, and memory has its bounds.

use std::time::Duration;

use axum::body::Bytes;
use futures::future::join_all;
use ingest::Config;

use crate::support::{BINARY, STRUCTURED, Service, config, object};

/// Nobody listens there.
fn away(in_flight: usize) -> Config {
    let mut config = config("away");
    config.kafka.brokers = vec!["127.0.0.1:1".to_owned()];
    config.kafka.delivery_timeout = Duration::from_millis(500);
    config.limits.in_flight = in_flight;
    config
}

#[tokio::test]
async fn senders_are_told_to_come_back_later() {
    let ingest = Service::with(away(64 << 20));
    for path in ["/", "/api/v1/events"] {
        let answer = ingest.post(path, &[STRUCTURED], object("1", "")).await;
        assert_eq!(answer.problem()["status"], 503);
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(ingest.get("/readyz").await.status.as_u16(), 503);
    assert_eq!(ingest.get("/healthz").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_budget_that_is_used_up_is_429_and_memory_has_its_bounds() {
    let ingest = Service::with(away(16 << 20));
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let before = resident();
    let sent = (0..400).map(|_| ingest.post("/", &BINARY, body.clone()));
    let answers = join_all(sent).await;
    let grown = resident().saturating_sub(before);
    let count = |status: u16| {
        answers
            .iter()
            .filter(|answer| answer.status.as_u16() == status)
            .count()
    };
    assert_eq!(count(429) + count(503), 400);
    assert!((1..=16).contains(&count(503)), "{} were taken", count(503));
    let busy = answers
        .iter()
        .find(|answer| answer.status.as_u16() == 429)
        .unwrap();
    assert_eq!(busy.headers["retry-after"], "1");
    // 400 MiB were sent.
    assert!(grown < 128 << 20, "memory grew by {} MiB", grown >> 20);
    // What was given up is given back.
    assert_eq!(ingest.post("/", &BINARY, body).await.status.as_u16(), 503);
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
