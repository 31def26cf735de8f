//! Faults on demand: what a client cannot tell apart from outside.

use std::time::Duration;

use lago_stand_in::{Fault, FaultKind, Settings};
use serde_json::{Value, json};

use crate::support::{Lago, event, lago};

const BATCH: &str = "POST /api/v1/events/batch";

async fn faulty(fault: Fault) -> Lago {
    let lago = lago().await;
    lago.stand_in.fault(fault).unwrap();
    lago
}

async fn is_stored(lago: &Lago) -> bool {
    lago.get("/events/a").await.status == 200
}

#[tokio::test]
async fn a_failure_comes_before_or_after_the_batch_is_stored() {
    for (kind, stored) in [(FaultKind::FailBefore, false), (FaultKind::FailAfter, true)] {
        let lago = faulty(Fault {
            status: 503,
            ..Fault::new(kind, BATCH)
        })
        .await;
        let batch = [event("a", "c", "1", 0)];
        assert_eq!(lago.batch(&batch).await.status, 503);
        assert_eq!(is_stored(&lago).await, stored);
        let again = lago.batch(&batch).await;
        assert_eq!(again.status, if stored { 422 } else { 200 });
    }
}

fn send_batch(lago: &Lago) -> reqwest::RequestBuilder {
    let url = format!("{}/api/v1/events/batch", lago.stand_in.url());
    let request = lago
        .client
        .post(url)
        .bearer_auth(Settings::default().api_key);
    request.json(&json!({ "events": [event("a", "c", "1", 0)] }))
}

#[tokio::test]
async fn a_timeout_comes_before_the_batch_is_stored() {
    let lago = faulty(Fault::new(FaultKind::HangBefore, BATCH)).await;
    let request = send_batch(&lago).timeout(Duration::from_millis(300));
    assert!(request.send().await.unwrap_err().is_timeout());
    assert!(!is_stored(&lago).await);
}

#[tokio::test]
async fn a_timeout_comes_after_the_batch_is_stored() {
    let lago = faulty(Fault::new(FaultKind::HangAfter, BATCH)).await;
    let sent = tokio::spawn(send_batch(&lago).send());
    while !is_stored(&lago).await {
        tokio::task::yield_now().await;
    }
    assert!(!sent.is_finished());
    sent.abort();
}

// Rate limits: 429 with the seconds until the reset.
#[tokio::test]
async fn a_429_says_when_to_come_again() {
    let lago = faulty(Fault {
        reset_seconds: 7,
        ..Fault::new(FaultKind::RateLimited, "")
    })
    .await;
    let answer = lago.batch(&[event("a", "c", "1", 0)]).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["x-ratelimit-reset"], "7");
    assert_eq!(answer.headers["x-ratelimit-remaining"], "0");
    assert!(!is_stored(&lago).await);
}

#[tokio::test]
async fn faults_are_ordered_over_http_and_everything_is_forgotten_at_a_reset() {
    let lago = lago().await;
    let fault = json!({ "kind": "fail_before", "on": BATCH, "after": 1, "status": 502 });
    lago.order("/faults", &fault).await.ok();
    let batch = |id: &str| [event(id, "c", "1", 0)];
    assert_eq!(lago.batch(&batch("a")).await.status, 200);
    assert_eq!(lago.batch(&batch("b")).await.status, 502);
    assert_eq!(lago.batch(&batch("b")).await.status, 200);
    assert_eq!(
        lago.order("/faults", &json!({ "kind": "earthquake" }))
            .await
            .status,
        400
    );
    let half = lago
        .order("/faults", &json!({ "kind": "half_batch" }))
        .await;
    assert_eq!(half.details(), json!({ "kind": ["value_is_invalid"] }));
    lago.order("/faults", &fault).await.ok();
    lago.order("/reset", &Value::Null).await.ok();
    assert_eq!(lago.get("/events").await.ok()["meta"]["total_count"], 0);
    let left = lago
        .ask(reqwest::Method::GET, "/stand-in/faults", None)
        .await
        .ok();
    assert_eq!(left, json!({ "faults": [] }));
}
