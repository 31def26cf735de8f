//! Records that Lambda's event source mapping brings.

use std::time::Duration;

use axum::Router;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use stream::{BatchLimits, Consumer};

use crate::support::{Service, kafka, post};

const EVENTS: &str = "/events";

const DEADLINE: Duration = Duration::from_secs(60);

fn on_lambda() -> Service {
    Service::with(|config| config.kafka = Some(kafka(&config.group)))
}

/// A record as Lambda shows it: base64, and headers as signed bytes.
fn record(topic: &str, offset: i64, headers: &[(&str, &str)], value: &str) -> Value {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            let bytes: Vec<_> = value.bytes().map(u8::cast_signed).collect();
            json!({ *name: bytes })
        })
        .collect();
    json!({
        "topic": topic, "partition": 1, "offset": offset,
        "timestamp": 1_769_854_830_000_i64, "timestampType": "CREATE_TIME",
        "key": BASE64_STANDARD.encode("key"), "value": BASE64_STANDARD.encode(value),
        "headers": headers,
    })
}

fn call(topic: &str, offset: i64, id: &str, ms: u32) -> Value {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", "/gw"),
        ("ce_type", "call"),
        ("ce_subject", "münchen"),
        ("ce_ingestedat", "2026-01-31T10:20:31.000001Z"),
        ("content-type", "application/json"),
    ];
    record(topic, offset, &headers, &format!("{{\"ms\":{ms}}}"))
}

fn event(topic: &str, records: Vec<Value>) -> String {
    let place = format!("{topic}-1");
    json!({
        "eventSource": "aws:kafka",
        "eventSourceArn": "arn:aws:kafka:eu-central-1:1:cluster/c/1",
        "bootstrapServers": "b-1:9092",
        "records": { place: records },
    })
    .to_string()
}

async fn invoke(router: &Router, event: String) -> u16 {
    post(router, EVENTS, &[], event).await.status.as_u16()
}

#[tokio::test]
async fn a_batch_is_counted_as_one_and_its_dead_are_buried() {
    let process = on_lambda();
    let topic = process.name().to_owned();
    let mut records: Vec<_> = (0..50)
        .map(|offset| call(&topic, offset, &offset.to_string(), 2))
        .collect();
    records.push(record(&topic, 50, &[("x", "y")], "junk"));
    records.push(call(&topic, 51, "1", 2));
    let batch = event(&topic, records);
    assert_eq!(invoke(&process.router, batch.clone()).await, 204);
    assert_eq!(process.blocks().await, 1);
    // It comes again where an answer was lost.
    assert_eq!(invoke(&process.router, batch).await, 204);
    assert_eq!(process.totals().await, ["50", "100"]);
    let subjects = process
        .store
        .texts("SELECT DISTINCT subject FROM usage_current")
        .await;
    assert_eq!(subjects, ["münchen"]);

    let mut dead = process.config.kafka.clone().unwrap();
    dead.topic = dead.dead_topic.clone();
    let mut graves = Consumer::connect(&dead, process.name()).unwrap();
    let buried = graves.next_batch(BatchLimits::default()).await.unwrap();
    assert_eq!(buried.dead[0].value(), Some(&b"junk"[..]));
    graves.close().await;
    process.remove().await;
}

#[tokio::test]
async fn a_batch_of_six_megabytes_is_taken() {
    let process = on_lambda();
    let topic = process.name().to_owned();
    let padding = "x".repeat(1 << 20);
    let large = |offset: i64| {
        let mut large = call(&topic, offset, &offset.to_string(), 1);
        let value = format!("{{\"ms\":1,\"padding\":\"{padding}\"}}");
        large["value"] = BASE64_STANDARD.encode(value).into();
        large
    };
    let batch = event(&topic, (0..4).map(large).collect());
    assert!(batch.len() > 5 << 20);
    assert_eq!(invoke(&process.router, batch).await, 204);
    assert_eq!(process.totals().await, ["4", "4"]);
    process.remove().await;
}

#[tokio::test]
async fn what_is_not_counted_is_an_error_so_that_it_comes_again() {
    let process = Service::with(|config| {
        config.kafka = Some(kafka(&config.group));
        config.store.address = "127.0.0.1:1".parse().unwrap();
    });
    let topic = process.name().to_owned();
    let batch = event(&topic, vec![call(&topic, 0, "1", 1)]);
    assert_eq!(invoke(&process.router, batch).await, 503);
    assert_eq!(invoke(&process.router, "{}{".to_owned()).await, 503);
    process.remove().await;
}

#[tokio::test]
async fn an_event_of_another_source_is_not_acknowledged() {
    let process = on_lambda();
    let sqs = json!({"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": "{}"}]});
    let bridge = json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}});
    let kinesis = json!({"eventSource": "aws:kinesis", "records": {}});
    let bare = json!({"eventSource": "aws:kafka"});
    let null = json!({"eventSource": "aws:kafka", "records": null});
    for other in [json!({}), sqs, bridge, kinesis, bare, null] {
        assert_eq!(
            invoke(&process.router, other.to_string()).await,
            503,
            "{other}"
        );
    }
    for kafka in ["aws:kafka", "SelfManagedKafka"] {
        let none = json!({"eventSource": kafka, "records": {}});
        assert_eq!(
            invoke(&process.router, none.to_string()).await,
            204,
            "{kafka}"
        );
    }
    process.remove().await;
}

#[tokio::test]
async fn records_of_which_none_can_be_read_come_again() {
    let process = on_lambda();
    let topic = process.name().to_owned();
    let mut strange = call(&topic, 0, "1", 2);
    strange["headers"] = json!({"ce_id": "1"});
    let strange = vec![strange, json!(7)];
    assert_eq!(invoke(&process.router, event(&topic, strange)).await, 503);
    assert_eq!(invoke(&process.router, event(&topic, vec![])).await, 204);
    process.remove().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_buried_and_the_others_count() {
    let process = on_lambda();
    let topic = process.name().to_owned();
    let with = |offset: i64, name: &str, value: Value| {
        let mut record = call(&topic, offset, &offset.to_string(), 2);
        record[name] = value;
        record
    };
    let mut null_header = call(&topic, 3, "3", 2);
    null_header["headers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"trace": null}));
    let records = vec![
        call(&topic, 0, "0", 2),
        with(1, "timestamp", json!(i64::MAX)),
        with(2, "timestamp", json!(-1)),
        null_header,
        // It has none, so it is no CloudEvent.
        with(4, "headers", Value::Null),
        with(5, "value", json!("no base64!")),
        with(6, "timestamp", json!("noon")),
        json!({"partition": "none"}),
        json!(7),
    ];
    assert_eq!(invoke(&process.router, event(&topic, records)).await, 204);
    assert_eq!(process.totals().await, ["4", "8"]);

    let mut dead = process.config.kafka.clone().unwrap();
    dead.topic = dead.dead_topic.clone();
    let mut graves = Consumer::connect(&dead, process.name()).unwrap();
    let mut values = Vec::new();
    while values.len() < 5 {
        let buried = graves.next_batch(BatchLimits::default());
        let buried = tokio::time::timeout(DEADLINE, buried)
            .await
            .expect("graves");
        let text = |record: &stream::DeadRecord| {
            String::from_utf8(record.value().unwrap().to_vec()).unwrap()
        };
        values.extend(buried.unwrap().dead.iter().map(text));
    }
    values.sort();
    graves.close().await;
    // What can be read is buried as the record that it was, the rest as Lambda shows it.
    assert_eq!(values[0], "7");
    assert!(values[1].contains("no base64!"), "{}", values[1]);
    assert!(values[2].contains("noon"), "{}", values[2]);
    assert_eq!(values[3..], ["{\"ms\":2}", "{\"partition\":\"none\"}"]);
    process.remove().await;
}
