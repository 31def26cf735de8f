//! An event is counted once, at its own time, whatever is sent.

use reqwest::header::CONTENT_TYPE;
use serde_json::json;
use tests::stack::{Answer, Stack};

use crate::support::{METERS, call, listed, total, totals};

const TIME: &str = "2024-01-15T10:30:00Z";

#[tokio::test]
async fn an_event_counts_once_in_each_way_of_sending_it() {
    let stack = Stack::start(METERS).await.unwrap();
    let event = call("1", "tpp-1", TIME, 45);
    let structured = stack
        .client()
        .post(stack.ingest_url().clone())
        .header(CONTENT_TYPE, "application/cloudevents+json");
    let answer = Answer::to(structured.body(event.to_string()))
        .await
        .unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    let binary = stack
        .client()
        .post(stack.ingest_url().clone())
        .header(CONTENT_TYPE, "application/json")
        .header("ce-specversion", "1.0")
        .header("ce-type", "api.call")
        .header("ce-source", "open-banking-api")
        .header("ce-id", "1")
        .header("ce-subject", "tpp-1")
        .header("ce-time", "2024-01-15T10:31:00Z")
        .body(
            r#"{"status_code":2e2,"method":"GET","response_time_ms":45.0,"endpoint":"/accounts"}"#,
        );
    assert_eq!(Answer::to(binary).await.unwrap().status, 202);
    let answer = stack
        .post(
            "application/cloudevents-batch+json",
            json!([event, event]).to_string(),
        )
        .await
        .unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    stack.wait_until_counted(4).await.unwrap();

    assert_eq!(totals(&stack).await, ["1", "45"]);
    let rows = stack
        .query("api_calls", &[("windowSize", "MINUTE")])
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["windowStart"], TIME, "at the first delivery's time");
    assert_eq!(listed(&stack).await.len(), 1);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn other_content_under_one_identity_is_kept_and_not_counted() {
    let stack = Stack::start(METERS).await.unwrap();
    let first = call("1", "tpp-1", TIME, 45);
    stack
        .post_events(&[
            first.clone(),
            call("1", "tpp-1", TIME, 46),
            call("1", "tpp-2", TIME, 45),
        ])
        .await
        .unwrap();
    let mut other_type = first;
    other_type["type"] = json!("other");
    stack.post_events(&[other_type]).await.unwrap();
    stack.wait_until_counted(4).await.unwrap();

    assert_eq!(totals(&stack).await, ["1", "45"]);
    let events = listed(&stack).await;
    let conflicts: Vec<_> = events
        .iter()
        .filter(|event| event["conflict"] == true)
        .collect();
    assert_eq!((events.len(), conflicts.len()), (4, 3), "{events:#?}");
    assert!(conflicts.iter().all(|event| {
        event["validationError"]
            .as_str()
            .unwrap()
            .starts_with("conflict")
    }));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn an_id_of_another_source_is_another_event() {
    let stack = Stack::start(METERS).await.unwrap();
    let mut events = Vec::new();
    for (source, id) in [("a-b", "c"), ("a", "b-c"), ("a", "c")] {
        let mut event = call(id, "tpp-1", TIME, 1);
        event["source"] = json!(source);
        events.push(event);
    }
    stack.post_events(&events).await.unwrap();
    stack.wait_until_counted(3).await.unwrap();
    assert_eq!(total(&stack, "api_calls").await, "3");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_late_event_lands_in_its_own_window() {
    let stack = Stack::start(METERS).await.unwrap();
    stack
        .post_events(&[call("now", "tpp-1", "2024-03-31T10:00:00Z", 1)])
        .await
        .unwrap();
    stack.wait_until_counted(1).await.unwrap();
    stack
        .post_events(&[call("late", "tpp-1", "2024-03-30T22:59:59.999999Z", 2)])
        .await
        .unwrap();
    stack.wait_until_counted(2).await.unwrap();
    let days = [("windowSize", "DAY"), ("windowTimeZone", "Europe/Berlin")];
    let rows = stack.query("api_latency", &days).await.unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            format!(
                "{} {} {}",
                row["windowStart"], row["windowEnd"], row["value"]
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            r#""2024-03-29T23:00:00Z" "2024-03-30T23:00:00Z" 2"#,
            r#""2024-03-30T23:00:00Z" "2024-03-31T22:00:00Z" 1"#,
        ]
    );
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_with_one_bad_event_leaves_nothing_behind() {
    let stack = Stack::start(METERS).await.unwrap();
    let mut bad = call("2", "tpp-1", TIME, 1);
    bad["time"] = json!("yesterday");
    let batch = json!([call("1", "tpp-1", TIME, 1), bad]).to_string();
    let answer = stack
        .post("application/cloudevents-batch+json", batch)
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (400, "application/problem+json")
    );
    let problem = answer.json().unwrap();
    let error = &problem["extensions"]["validationErrors"][0];
    assert_eq!(
        (&error["index"], &error["field"]),
        (&json!(1), &json!("time")),
        "{problem}"
    );
    stack
        .post_events(&[call("3", "tpp-1", TIME, 1)])
        .await
        .unwrap();
    stack.wait_until_counted(1).await.unwrap();
    assert_eq!(total(&stack, "api_calls").await, "1");
    stack.stop().await.unwrap();
}
