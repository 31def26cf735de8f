//! A function as a process on Lambda.

use serde_json::{Value, json};

use crate::{child::Child, runtime_api::RuntimeApi};

/// Starts the API and the function.
async fn start() -> (Child, RuntimeApi) {
    let api = RuntimeApi::start().await;
    let env = api.env("hello");
    let child = Child::start(env.each_ref().map(|(name, value)| (*name, value.as_str())));
    (child, api)
}

fn http_event(method: &str, path: &str) -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "hello.example"},
        "requestContext": {
            "accountId": "1",
            "apiId": "hello",
            "domainName": "hello.example",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "test",
            },
            "requestId": "r",
            "routeKey": "$default",
            "stage": "$default",
            "time": "24/Nov/2026:00:00:00 +0000",
            "timeEpoch": 1_795_478_400_000_u64,
        },
        "isBase64Encoded": false,
    })
}

fn kafka_batch(value: &str) -> Value {
    json!({
        "eventSource": "aws:kafka",
        "bootstrapServers": "b-1.example:9092",
        "records": {"openmeter.events-0": [{"topic": "openmeter.events", "value": value}]},
    })
}

#[tokio::test]
async fn an_http_event_reaches_the_route() {
    let (_child, mut api) = start().await;
    let said = api.invoke(http_event("GET", "/")).await;
    assert_eq!(said.kind, "response");
    assert_eq!(said.body["statusCode"], 200);
    assert_eq!(said.body["body"], "hello world");
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_on_lambda_too() {
    let (_child, mut api) = start().await;
    // `/events` is for Lambda's own events, not for whoever finds the function's URL.
    for (method, path) in [("GET", "/nothing"), ("POST", "/events")] {
        let said = api.invoke(http_event(method, path)).await;
        assert_eq!(said.kind, "response");
        assert_eq!(said.body["statusCode"], 404, "{path}");
        assert_eq!(
            said.body["headers"]["content-type"],
            "application/problem+json"
        );
    }
}

#[tokio::test]
async fn a_kafka_batch_reaches_the_route_for_events() {
    let (_child, mut api) = start().await;
    let said = api.invoke(kafka_batch("now")).await;
    assert_eq!(said.kind, "response");
    assert_eq!(said.body, kafka_batch("now"));
}

#[tokio::test]
async fn a_kafka_batch_that_is_not_taken_fails_so_that_it_comes_again() {
    let (_child, mut api) = start().await;
    let said = api.invoke(kafka_batch("later")).await;
    assert_eq!(said.kind, "error");
    assert_eq!(
        said.body["errorMessage"],
        "the event was answered with 503 Service Unavailable"
    );
    assert_eq!(api.invoke(kafka_batch("now")).await.kind, "response");
}

#[tokio::test]
async fn a_consumer_group_is_refused_on_lambda() {
    let child = Child::start([
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
        ("OPENMETER_TRIGGER", "kafka"),
    ]);
    let (code, log) = child.end().await;
    assert_eq!(code, Some(64));
    assert_eq!(log.last().unwrap()["variable"], "OPENMETER_TRIGGER");
}
