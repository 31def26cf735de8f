//! Events that no meter can use are kept, shown with the reason, and in nobody's way.

use serde_json::{Value, json};
use tests::stack::Stack;

use crate::support::{METERS, call, listed, totals};

fn with(id: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut event = call(id, "tpp-1", "2024-01-15T10:30:00Z", 45);
    change(&mut event);
    event
}

#[tokio::test]
async fn each_kind_is_shown_with_its_reason() {
    let stack = Stack::start(METERS).await.unwrap();
    // (event, what is listed, whether the call itself counts)
    let kinds = [
        (
            with("no-meter", |event| event["type"] = json!("other")),
            "no meter found for event type: other",
            false,
        ),
        (
            with("no-subject", |event| {
                event.as_object_mut().unwrap().remove("subject");
            }),
            "subject is missing",
            false,
        ),
        (
            with("early", |event| {
                event["time"] = json!("1969-12-31T23:59:59Z")
            }),
            "time is outside",
            false,
        ),
        (
            with("far", |event| event["time"] = json!("2300-01-01T00:00:00Z")),
            "time is outside",
            false,
        ),
        (
            with("array", |event| event["data"] = json!([1])),
            "no JSON object",
            false,
        ),
        (
            with("no-data", |event| {
                event.as_object_mut().unwrap().remove("data");
            }),
            "missing value property",
            true,
        ),
        (
            with("missing", |event| event["data"] = json!({})),
            "missing value property",
            true,
        ),
        (
            with("null", |event| {
                event["data"]["response_time_ms"] = Value::Null
            }),
            "cannot be null",
            true,
        ),
        (
            with("text", |event| {
                event["data"]["response_time_ms"] = json!("fast")
            }),
            "cannot be parsed",
            true,
        ),
        (
            with("nan", |event| {
                event["data"]["response_time_ms"] = json!("NaN")
            }),
            "cannot be NaN",
            true,
        ),
        (
            with("large", |event| {
                event["data"]["response_time_ms"] = json!("1e19")
            }),
            "out of range",
            true,
        ),
        (
            with("fine", |event| {
                event["data"]["response_time_ms"] = json!("1e-20")
            }),
            "out of range",
            true,
        ),
    ];
    for (event, _, _) in &kinds {
        // Where the broker delivers: OpenMeter's own path refuses some of these.
        let request = stack.client().post(stack.ingest_url().clone());
        let request = request
            .header("content-type", "application/cloudevents+json")
            .body(event.to_string());
        let answer = tests::stack::Answer::to(request).await.unwrap();
        assert_eq!(answer.status, 202, "{event}: {answer}");
    }
    stack
        .post_events(&[call("good", "tpp-1", "2024-01-15T10:30:00Z", 45)])
        .await
        .unwrap();
    stack
        .wait_until_counted(kinds.len() as u64 + 1)
        .await
        .unwrap();

    let calls = 1 + kinds.iter().filter(|(_, _, counts)| *counts).count();
    assert_eq!(totals(&stack).await, [calls.to_string(), "45".to_owned()]);
    let events = listed(&stack).await;
    assert_eq!(events.len(), kinds.len() + 1);
    for (event, reason, _) in &kinds {
        let listed = events
            .iter()
            .find(|listed| listed["event"]["id"] == event["id"])
            .expect("it is listed");
        assert_eq!(listed["event"]["time"], event["time"], "{}", event["id"]);
        let shown = listed["validationError"].as_str().unwrap_or_default();
        assert!(shown.contains(reason), "{}: {shown}", event["id"]);
        assert_eq!(
            listed["event"].get("data"),
            event.get("data"),
            "{}",
            event["id"]
        );
    }
    let good = events
        .iter()
        .find(|listed| listed["event"]["id"] == "good")
        .unwrap();
    assert_eq!(good.get("validationError"), None);
    stack.stop().await.unwrap();
}
