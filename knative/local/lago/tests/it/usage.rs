//! What is counted, and what is not.

use serde_json::{Value, json};

use crate::support::{event, lago};

// Billable metrics: N pre-aggregated units go to a sum_agg metric; count_agg counts events; a
// correction is a negative delta with a new transaction_id.
#[tokio::test]
async fn a_sum_takes_decimals_exactly_and_a_count_takes_events() {
    let lago = lago().await;
    lago.sells().await;
    let mut number = event("n", "api_calls", "", 4);
    number["properties"]["value"] = json!(0.25);
    lago.batch(&[
        event("a", "api_calls", "9007199254740993", 0),
        event("b", "api_calls", "0.0000000000000000001", 1),
        event("c", "api_calls", "-3", 2),
        number,
        event("l", "logins", "1000", 3),
    ])
    .await
    .ok();
    let rows = lago.stand_in.units();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.code.as_str(), row.units.as_str(), row.events))
        .collect();
    let sum = "9007199254740990.2500000000000000001";
    assert_eq!(found, [("api_calls", sum, 4), ("logins", "1.0", 1)]);
    assert!(
        rows.iter()
            .all(|row| row.open == row.units && row.missed == "0.0")
    );
}

// Events out of the subscription's life, of unknown codes or without a number are accepted and
// come to nothing; the hourly check lists codes and values.
#[tokio::test]
async fn what_comes_to_nothing_is_accepted_all_the_same() {
    let lago = lago().await;
    lago.sells().await;
    lago.subscribes(
        "short",
        "2026-01-10T00:00:00Z",
        Some("2026-01-10T00:01:00Z"),
    )
    .await;
    let of = |id: &str, subscription: &str, second: i64| {
        let mut event = event(id, "api_calls", "1", second);
        event["external_subscription_id"] = json!(subscription);
        event
    };
    let mut no_value = event("no value", "api_calls", "", 0);
    no_value["properties"] = json!({ "other": "1" });
    lago.batch(&[
        event("code", "nothing", "1", 0),
        event("free", "free", "1", 0),
        event("text", "api_calls", "many", 0),
        no_value,
        of("nobody", "nobody", 0),
        of("before", "short", -1),
        of("first", "short", 0),
        of("last", "short", 60),
        of("after", "short", 61),
    ])
    .await
    .ok();
    let body = lago
        .ask(reqwest::Method::GET, "/stand-in/units", None)
        .await
        .ok();
    assert_eq!(
        body["uncounted"],
        json!({
            "unknown_code": ["code"],
            "not_in_plan": ["free"],
            "bad_value": ["text", "no value"],
            "unknown_subscription": ["nobody"],
            "outside_subscription": ["before", "after"],
        })
    );
    assert_eq!(body["units"].as_array().unwrap().len(), 1);
    assert_eq!(body["units"][0]["external_subscription_id"], "short");
    assert_eq!(body["units"][0]["units"], "2.0");
}

// Subscriptions: only active ones are shown unless a status is asked for; after the end of one
// its id can be used again.
#[tokio::test]
async fn a_terminated_subscription_is_found_by_its_status_only() {
    let lago = lago().await;
    lago.sells().await;
    let shown = lago.get("/subscriptions/tpp").await.ok()["subscription"].clone();
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["started_at"], "2026-01-01T00:00:00.000Z");
    assert_eq!(
        shown["current_billing_period_started_at"],
        "2026-01-01T00:00:00Z"
    );
    lago.delete("/subscriptions/tpp").await.ok();
    assert_eq!(lago.get("/subscriptions/tpp").await.status, 404);
    let ended = lago.get("/subscriptions/tpp?status=terminated").await.ok();
    assert!(ended["subscription"]["terminated_at"].is_string());
    let count = async |query: &str| {
        let list = lago
            .get(&format!("/subscriptions?external_customer_id=bank{query}"))
            .await
            .ok();
        list["meta"]["total_count"].clone()
    };
    assert_eq!(count("").await, 0);
    assert_eq!(count("&status[]=terminated").await, 1);
    lago.subscribes("tpp", "2199-01-01T00:00:00Z", None).await;
    assert_eq!(lago.get("/subscriptions/tpp").await.status, 404);
    assert_eq!(count("&status[]=pending").await, 1);
}

// Reading usage back: current usage needs the subscription, and has units, events and money.
#[tokio::test]
async fn current_usage_is_what_no_invoice_has_yet() {
    let lago = lago().await;
    lago.sells().await;
    lago.batch(&[
        event("a", "api_calls", "10.5", 0),
        event("b", "logins", "1", 0),
    ])
    .await
    .ok();
    let details = lago.get("/customers/bank/current_usage").await.details();
    assert_eq!(
        details,
        json!({ "external_subscription_id": ["value_is_mandatory"] })
    );
    let path = "/customers/bank/current_usage?external_subscription_id=tpp";
    let usage = lago.get(path).await.ok()["customer_usage"].clone();
    assert_eq!(usage["from_datetime"], "2026-01-01T00:00:00Z");
    assert_eq!(usage["currency"], "EUR");
    assert_eq!(usage["total_amount_cents"], 21 + 50);
    assert_eq!(usage["charges_usage"][0]["units"], "10.5");
    assert_eq!(usage["charges_usage"][1]["events_count"], 1);
    assert_eq!(
        usage["charges_usage"][1]["billable_metric"]["code"],
        "logins"
    );
    assert_eq!(lago.get("/customers/x/current_usage").await.status, 404);
}

// Billable metrics: sum_agg needs a field_name, a code is there once.
#[tokio::test]
async fn a_metric_is_made_once_and_read_back() {
    let lago = lago().await;
    let metric = |kind: &str, field: Value| {
        json!({ "billable_metric": {
            "code": "m", "name": "M", "aggregation_type": kind, "field_name": field,
        }})
    };
    let answer = lago
        .post("/billable_metrics", &metric("sum_agg", Value::Null))
        .await;
    assert_eq!(
        answer.details(),
        json!({ "field_name": ["value_is_mandatory"] })
    );
    // Of Lago, but not of the stand-in.
    let answer = lago
        .post("/billable_metrics", &metric("max_agg", json!("v")))
        .await;
    assert_eq!(
        answer.details(),
        json!({ "aggregation_type": ["value_is_invalid"] })
    );
    let made = lago
        .post("/billable_metrics", &metric("sum_agg", json!("v")))
        .await
        .ok();
    assert_eq!(lago.get("/billable_metrics/m").await.ok(), made);
    let answer = lago
        .post("/billable_metrics", &metric("sum_agg", json!("v")))
        .await;
    assert_eq!(answer.details(), json!({ "code": ["value_already_exist"] }));
    lago.delete("/billable_metrics/m").await.ok();
    assert_eq!(lago.get("/billable_metrics/m").await.status, 404);
}
