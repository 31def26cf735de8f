//! The edges of what can be counted: times, values, and how much they can differ in one batch.

use serde_json::{Value, json};
use tests::stack::Stack;

use crate::support::{METERS, call, total, totals};

#[tokio::test]
async fn one_batch_can_touch_two_hundred_months() {
    let stack = Stack::start(METERS).await.unwrap();
    let month =
        |number: usize| format!("{}-{:02}-15T12:00:00Z", 2000 + number / 12, number % 12 + 1);
    let events: Vec<Value> = (0..200)
        .map(|number| call(&number.to_string(), "tpp-1", &month(number), 1))
        .collect();
    stack.post_events(&events).await.unwrap();
    stack.wait_until_counted(200).await.unwrap();
    assert_eq!(totals(&stack).await, ["200", "200"]);
    let rows = stack
        .query("api_calls", &[("windowSize", "MONTH")])
        .await
        .unwrap();
    assert_eq!(rows.len(), 200);
    assert_eq!(rows[199]["windowEnd"], "2016-09-01T00:00:00Z");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn the_first_and_the_last_instant_are_counted() {
    let stack = Stack::start(METERS).await.unwrap();
    let times = ["1970-01-01T00:00:00Z", "2299-12-31T23:59:59.999999Z"];
    let events: Vec<_> = times
        .iter()
        .map(|time| call(time, "tpp-1", time, 1))
        .collect();
    stack.post_events(&events).await.unwrap();
    stack.wait_until_counted(2).await.unwrap();
    let rows = stack
        .query(
            "api_calls",
            &[("windowSize", "DAY"), ("windowTimeZone", "Asia/Kolkata")],
        )
        .await
        .unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| format!("{} {}", row["windowStart"], row["windowEnd"]))
        .collect();
    assert_eq!(
        shown,
        [
            r#""1969-12-31T18:30:00Z" "1970-01-01T18:30:00Z""#,
            r#""2299-12-31T18:30:00Z" "2300-01-01T18:30:00Z""#,
        ]
    );
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn sums_beyond_every_single_value_keep_every_digit() {
    let stack = Stack::start(METERS).await.unwrap();
    let most = "9999999999999999999.9999999999999999999";
    let mut events: Vec<_> = (0..100)
        .map(|number| call(&number.to_string(), "tpp-1", "2024-01-15T10:30:00Z", most))
        .collect();
    events.push(call(
        "small",
        "tpp-1",
        "2024-01-15T10:30:00Z",
        "0.0000000000000000001",
    ));
    events.push(call(
        "minus",
        "tpp-2",
        "2024-01-15T10:30:00Z",
        json!("-0.1"),
    ));
    stack.post_events(&events).await.unwrap();
    stack.wait_until_counted(102).await.unwrap();
    assert_eq!(
        total(&stack, "api_latency").await,
        "999999999999999999999.8999999999999999901"
    );
    let minus = stack
        .query("api_latency", &[("subject", "tpp-2")])
        .await
        .unwrap();
    assert_eq!(minus[0]["value"].to_string(), "-0.1");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn names_are_data_and_never_code() {
    let stack = Stack::start(METERS).await.unwrap();
    let names = [
        "it's",
        "a\"b",
        "back\\slash",
        "'; DROP TABLE usage --",
        "ünïcode 🏦",
        "{x:String}",
        "?",
    ];
    for (number, name) in names.iter().enumerate() {
        let mut event = call(&number.to_string(), name, "2024-01-15T10:30:00Z", 1);
        event["data"]["endpoint"] = json!(name);
        stack.post_events(&[event]).await.unwrap();
    }
    stack.wait_until_counted(names.len() as u64).await.unwrap();
    for name in names {
        let asked = [
            ("subject", name),
            ("filterGroupBy[endpoint]", name),
            ("groupBy", "endpoint"),
        ];
        let rows = stack.query("api_calls", &asked).await.unwrap();
        assert_eq!(rows.len(), 1, "{name}");
        assert_eq!(
            (&rows[0]["subject"], &rows[0]["groupBy"]["endpoint"]),
            (&json!(name), &json!(name))
        );
    }
    stack.stop().await.unwrap();
}
