//! With an engine away: nothing is acknowledged, and the answer comes in time.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::support::{Service, post};

/// Less than any delivery timeout.
const IN_TIME: Duration = Duration::from_secs(25);

async fn later(process: &Service) {
    let began = Instant::now();
    let ids: Vec<_> = (0..20).map(|id| id.to_string()).collect();
    for answer in join_all(ids.iter().map(|id| process.call(id, 1))).await {
        assert_eq!(answer.problem()["status"], 503);
        assert_eq!(answer.headers["retry-after"], "1");
    }
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
}

#[tokio::test]
async fn without_clickhouse_events_come_again_and_then_count_once() {
    let mut process = Service::with(|config| {
        config.store.address = "127.0.0.1:1".parse().unwrap();
    });
    later(&process).await;
    later(&process).await;
    process.config.store.address = process.store.config.address.clone();
    let back = process.another();
    let ids: Vec<_> = (0..20).map(|id| id.to_string()).collect();
    let again = join_all(ids.iter().map(|id| crate::support::call(&back, id, 1))).await;
    assert!(again.iter().all(|answer| answer.status == 204));
    assert_eq!(process.totals().await, ["20", "20"]);
    process.remove().await;
}

#[tokio::test]
async fn without_valkey_nothing_is_written() {
    let process = Service::with(|config| config.ledger.url = "redis://127.0.0.1:1".to_owned());
    later(&process).await;
    let ready = post(&process.router, "/healthz", &[], "").await;
    assert_eq!(ready.status, 405, "it answers, and is alive");
    process.remove().await;
}

#[tokio::test]
async fn an_engine_that_takes_connections_and_says_nothing_is_away_too() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let process = Service::with(|config| config.store.address = address.parse().unwrap());
    later(&process).await;
    process.remove().await;
}
