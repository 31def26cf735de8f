//! What the journeys share: the meters in force, events, and totals.

use serde_json::{Value, json};
use tests::stack::Stack;

/// The meters of every deployment.
pub(crate) const METERS: &str = include_str!("../../knative/base/meters.yaml");

/// A call of `/accounts`.
pub(crate) fn call(id: &str, subject: &str, time: &str, ms: impl Into<Value>) -> Value {
    json!({
        "specversion": "1.0", "type": "api.call", "source": "open-banking-api",
        "id": id, "subject": subject, "time": time,
        "data": {"endpoint": "/accounts", "method": "GET", "status_code": 200, "response_time_ms": ms.into()},
    })
}

/// The one value of a meter over all time, as it stands in the answer; "none" without a row.
pub(crate) async fn total(stack: &Stack, meter: &str) -> String {
    let rows = stack.query(meter, &[]).await.unwrap();
    assert!(rows.len() <= 1, "{rows:?}");
    rows.first()
        .map_or_else(|| "none".to_owned(), |row| row["value"].to_string())
}

/// `total` of calls and of latency.
pub(crate) async fn totals(stack: &Stack) -> [String; 2] {
    [
        total(stack, "api_calls").await,
        total(stack, "api_latency").await,
    ]
}

/// The newest 100 events as they are listed.
pub(crate) async fn listed(stack: &Stack) -> Vec<Value> {
    let answer = stack
        .get("/api/v1/events", &[], "application/json")
        .await
        .unwrap()
        .accepted()
        .unwrap();
    let Value::Array(events) = answer.json().unwrap() else {
        panic!("{answer}")
    };
    events
}

/// Makes Valkey forget all that this stack's registry knows.
pub(crate) async fn forget(stack: &Stack) {
    let url = std::env::var("OPENMETER_VALKEY_URL")
        .unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let forgotten = ledger::testing::forget(&url, &format!("{}:", stack.name())).await;
    assert!(
        forgotten.expect("a Valkey must run: make up") > 0,
        "there must be something to forget"
    );
}
