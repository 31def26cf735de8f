//! Events in ClickHouse's store.

use std::time::Duration;

use lago_stand_in::{EventStore, Fault, FaultKind, Settings};
use serde_json::{Value, json};

use crate::support::{Lago, event, lago, lago_with};

async fn clickhouse(events_lag_ms: u32) -> Lago {
    let lago = lago_with(Settings {
        event_store: EventStore::Clickhouse,
        events_lag_ms,
        ..Settings::for_test()
    })
    .await;
    lago.sells().await;
    lago
}

fn units(lago: &Lago) -> String {
    lago.stand_in
        .units()
        .first()
        .map_or_else(String::new, |row| row.units.clone())
}

// Idempotency, ClickHouse store: an equal pair of transaction_id and timestamp overwrites and
// answers 200; another timestamp counts twice.
#[tokio::test]
async fn equal_id_and_time_overwrite_and_another_time_counts_twice() {
    let lago = clickhouse(0).await;
    lago.batch(&[event("a", "api_calls", "3", 0)]).await.ok();
    lago.batch(&[
        event("a", "api_calls", "3", 0),
        event("a", "api_calls", "3", 0),
    ])
    .await
    .ok();
    assert_eq!(units(&lago), "3.0");
    lago.post(
        "/events",
        &json!({ "event": event("a", "api_calls", "5", 0) }),
    )
    .await
    .ok();
    assert_eq!(units(&lago), "5.0");
    lago.batch(&[event("a", "api_calls", "5", 1)]).await.ok();
    assert_eq!(units(&lago), "10.0");
}

// POST /events: on the ClickHouse store lago_id and created_at are null.
#[tokio::test]
async fn what_the_store_has_not_is_null() {
    let lago = clickhouse(0).await;
    let taken = lago
        .post(
            "/events",
            &json!({ "event": event("a", "api_calls", "1", 0) }),
        )
        .await
        .ok();
    assert_eq!(taken["event"]["lago_id"], Value::Null);
    assert_eq!(taken["event"]["created_at"], Value::Null);
    assert_eq!(taken["event"]["transaction_id"], "a");
}

// POST /events: 200 means stored or queued; what is queued is seen later.
#[tokio::test]
async fn an_accepted_event_can_be_invisible_for_a_while() {
    let lago = clickhouse(60_000).await;
    lago.batch(&[event("a", "api_calls", "1", 0)]).await.ok();
    assert_eq!(lago.get("/events/a").await.status, 404);
    lago.stand_in.advance(Duration::from_secs(60));
    assert_eq!(lago.get("/events/a").await.status, 200);
}

// POST /events/batch: a batch with a bad item is refused whole; what is lost behind the door is
// a fault, and only where events are queued one by one.
#[tokio::test]
async fn half_a_batch_happens_here_on_demand_and_never_in_postgres() {
    let half = Fault::new(FaultKind::HalfBatch, "POST /api/v1/events/batch");
    assert!(lago().await.stand_in.fault(half.clone()).is_err());
    let lago = clickhouse(0).await;
    lago.stand_in.fault(half).unwrap();
    let batch = [
        event("a", "api_calls", "1", 0),
        event("b", "api_calls", "1", 0),
    ];
    assert_eq!(lago.batch(&batch).await.status, 500);
    assert_eq!(units(&lago), "1.0");
    lago.batch(&batch).await.ok();
    assert_eq!(units(&lago), "2.0");
}
