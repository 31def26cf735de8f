//! Events in Postgres's store, the default.

use lago_stand_in::Settings;
use serde_json::{Value, json};

use crate::support::{event, lago, lago_with};

fn already_there() -> Value {
    json!({ "transaction_id": ["value_already_exist"] })
}

// POST /events: 200, not 201; times as ISO with three decimals; the code and the subscription
// are not looked up.
#[tokio::test]
async fn an_event_is_taken_whatever_its_code_and_subscription() {
    let lago = lago().await;
    let sent = json!({ "event": {
        "transaction_id": "a/b c", "external_subscription_id": "nobody", "code": "unknown",
        "timestamp": "1768003200.123", "properties": { "value": "0.1234567890123456789" },
    }});
    let event = lago.post("/events", &sent).await.ok()["event"].clone();
    assert_eq!(event["timestamp"], "2026-01-10T00:00:00.123Z");
    assert_eq!(event["properties"]["value"], "0.1234567890123456789");
    assert!(event["lago_id"].is_string() && event["created_at"].is_string());
    assert_eq!(event["lago_customer_id"], Value::Null);
    // Read back by a url-encoded id.
    assert_eq!(lago.get("/events/a%2Fb%20c").await.ok()["event"], event);
}

// POST /events: the fields' rules.
#[tokio::test]
async fn a_bad_event_is_refused_field_by_field() {
    let lago = lago().await;
    for (change, details) in [
        (
            json!({ "transaction_id": null }),
            json!({ "transaction_id": ["value_is_mandatory"] }),
        ),
        (
            json!({ "code": "" }),
            json!({ "code": ["value_is_mandatory"] }),
        ),
        (
            json!({ "timestamp": "2026-01-10T00:00:00Z" }),
            json!({ "timestamp": ["invalid_format"] }),
        ),
    ] {
        let mut sent = event("a", "c", "1", 0);
        sent.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let answer = lago.post("/events", &json!({ "event": sent })).await;
        assert_eq!(answer.details(), details, "{change}");
    }
    // Milliseconds are not noticed: they land in a far year. No time is the time of receipt.
    let mut sent = event("ms", "c", "1", 0);
    sent["timestamp"] = json!(1_768_003_200_000_i64);
    let taken = lago.post("/events", &json!({ "event": sent })).await.ok();
    assert!(
        taken["event"]["timestamp"]
            .as_str()
            .unwrap()
            .starts_with("57995-10-17T")
    );
    sent = event("now", "c", "1", 0);
    sent["timestamp"] = Value::Null;
    let taken = lago.post("/events", &json!({ "event": sent })).await.ok();
    assert_eq!(taken["event"]["timestamp"], taken["event"]["created_at"]);
}

// POST /events/batch: empty, over the limit, and the order of the reply.
#[tokio::test]
async fn a_batch_has_one_event_at_least_and_a_hundred_at_most() {
    let lago = lago().await;
    assert_eq!(
        lago.batch(&[]).await.details(),
        json!({ "events": ["no_events"] })
    );
    let many: Vec<_> = (0..101)
        .map(|n| event(&format!("e{n}"), "c", "1", n))
        .collect();
    assert_eq!(
        lago.batch(&many).await.details(),
        json!({ "events": ["too_many_events"] })
    );
    let taken = lago.batch(&many[..100]).await.ok();
    let ids: Vec<_> = taken["events"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 100);
    assert!((0..100).all(|n| ids[n]["transaction_id"] == format!("e{n}")));
    let smaller = lago_with(Settings {
        batch_max: 2,
        ..Settings::for_test()
    })
    .await;
    let answer = smaller.batch(&many[..3]).await;
    assert_eq!(answer.details(), json!({ "events": ["too_many_events"] }));
}

// POST /events/batch: all or nothing, error_details by the item's index as text.
#[tokio::test]
async fn one_bad_item_and_nothing_of_the_batch_is_kept() {
    let lago = lago().await;
    let mut bad = event("b", "c", "1", 0);
    bad["timestamp"] = json!("yesterday");
    let answer = lago.batch(&[event("a", "c", "1", 0), bad]).await;
    assert_eq!(
        answer.details(),
        json!({ "1": { "timestamp": ["invalid_format"] } })
    );
    assert_eq!(lago.get("/events").await.ok()["meta"]["total_count"], 0);
}

// Idempotency, Postgres store: unique by subscription and transaction_id, single and batch.
#[tokio::test]
async fn a_duplicate_is_refused_whatever_its_time_and_content() {
    let lago = lago().await;
    let first = event("a", "c", "1", 0);
    lago.post("/events", &json!({ "event": first })).await.ok();
    let again = event("a", "d", "2", 60);
    let answer = lago.post("/events", &json!({ "event": again })).await;
    assert_eq!(answer.details(), already_there());
    let answer = lago
        .batch(&[
            event("b", "c", "1", 0),
            again.clone(),
            event("d", "c", "1", 0),
        ])
        .await;
    assert_eq!(answer.details(), json!({ "1": already_there() }));
    assert_eq!(lago.get("/events/b").await.status, 404);
    // The rest goes through; the stored event is the first.
    lago.batch(&[event("b", "c", "1", 0), event("d", "c", "1", 0)])
        .await
        .ok();
    assert_eq!(
        lago.get("/events/a").await.ok()["event"]["properties"]["value"],
        "1"
    );
    // On another subscription it is another event.
    let mut other = again;
    other["external_subscription_id"] = json!("other");
    lago.batch(&[other]).await.ok();
    assert_eq!(lago.get("/events").await.ok()["meta"]["total_count"], 4);
}

// POST /events/batch, Postgres store: the later copy in one batch fails, and so the batch.
#[tokio::test]
async fn a_duplicate_within_a_batch_is_the_later_one() {
    let lago = lago().await;
    let answer = lago
        .batch(&[event("a", "c", "1", 0), event("a", "c", "1", 0)])
        .await;
    assert_eq!(answer.details(), json!({ "1": already_there() }));
    assert_eq!(lago.get("/events/a").await.status, 404);
}

// Reading usage back: GET /events by subscription, code and times.
#[tokio::test]
async fn events_are_listed_by_subscription_code_and_time() {
    let lago = lago().await;
    let events = [
        event("a", "c", "1", 0),
        event("b", "c", "1", 10),
        event("c", "d", "1", 20),
        event("d", "c", "1", 30),
    ];
    lago.batch(&events).await.ok();
    let ids = async |query: &str| {
        let list = lago.get(&format!("/events?{query}")).await.ok();
        let ids = list["events"].as_array().unwrap().iter();
        ids.map(|one| one["transaction_id"].as_str().unwrap().to_owned())
            .collect::<String>()
    };
    assert_eq!(ids("external_subscription_id=tpp&code=c").await, "dba");
    let span = "timestamp_from=2026-01-10T00:00:10Z&timestamp_to=2026-01-10T00:00:20Z";
    assert_eq!(ids(span).await, "cb");
    assert_eq!(ids("external_subscription_id=x").await, "");
}
