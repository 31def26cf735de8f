//! With Kafka away: senders are told to come back, and memory has its bounds.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use futures::{StreamExt as _, future::join_all, stream};
use ingest::Config;

use crate::support::{BINARY, STRUCTURED, Service, config, object};

/// More than others do to a worker, on a machine that has other work, but for now and then.
const HELD_UP: Duration = Duration::from_millis(50);

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

#[tokio::test]
async fn a_sender_that_stops_half_way_gives_its_place_back() {
    let mut config = away(16 << 20);
    config.limits.body_time = Duration::from_millis(500);
    let ingest = Service::with(config);
    let (all_read, was_read) = tokio::sync::oneshot::channel::<()>();
    let sent = stream::iter((0..145).map(|_| Ok::<_, io::Error>(vec![b'x'; 1 << 16])));
    // Asked for once the rest was read, and never there.
    let rest = stream::once(async move {
        drop(all_read);
        std::future::pending().await
    });
    let half = Body::from_stream(sent.chain(rest));
    let mut headers = BINARY.to_vec();
    headers.push(("content-length", "10000000"));
    let late = async {
        assert!(was_read.await.is_err(), "it is dropped, not sent to");
        ingest.post("/", &headers, vec![b'x'; 8 << 20]).await
    };
    let both = async { tokio::join!(ingest.post("/", &headers, half), late) };
    let (slow, meanwhile) = tokio::time::timeout(Duration::from_secs(5), both)
        .await
        .expect("an answer to the one that stopped");
    assert_eq!(slow.problem()["status"], 408);
    assert_eq!(meanwhile.problem()["status"], 429);
    let after = ingest.post("/", &headers, vec![b'x'; 8 << 20]).await;
    assert_eq!(after.problem()["status"], 413, "an event of 8 MiB, read");
}

#[tokio::test]
async fn a_probe_holds_up_nobody() {
    let ingest = Service::with(away(16 << 20));
    let probing = AtomicBool::new(true);
    let probes = async {
        for _ in 0..10 {
            // The kubelet does not wait for ever either.
            let probe = ingest.get("/readyz");
            drop(tokio::time::timeout(Duration::from_millis(120), probe).await);
        }
        probing.store(false, Ordering::Relaxed);
    };
    let others = async {
        let mut held_up = 0;
        while probing.load(Ordering::Relaxed) {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            held_up += usize::from(before.elapsed() > HELD_UP);
        }
        held_up
    };
    // This runtime has one worker.
    let ((), held_up) = tokio::join!(probes, others);
    assert!(held_up < 5, "held up {held_up} times by 10 probes");
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
