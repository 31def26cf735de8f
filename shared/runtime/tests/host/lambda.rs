//! A function as a process on Lambda, whose documented Runtime API is played by an axum server.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};

use crate::child::Child;

/// What the function said about an invocation.
#[derive(Debug, PartialEq)]
struct Said {
    kind: String,
    body: Value,
}

#[derive(Clone)]
struct Api {
    // A lock over an await is meant: Lambda gives out one invocation after the other.
    events: Arc<Mutex<mpsc::Receiver<Value>>>,
    said: mpsc::Sender<Said>,
}

async fn next(State(api): State<Api>) -> impl IntoResponse {
    let event = api.events.lock().await.recv().await;
    let event = event.expect("the test holds the sender");
    let arn = "arn:aws:lambda:eu-central-1:1:function:hello";
    let headers = [
        ("lambda-runtime-aws-request-id", "7"),
        ("lambda-runtime-deadline-ms", "4102444800000"),
        ("lambda-runtime-invoked-function-arn", arn),
        (
            "lambda-runtime-trace-id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        ),
    ];
    (
        headers.map(|(name, value)| (HeaderName::from_static(name), value)),
        Json(event),
    )
}

async fn said(
    State(api): State<Api>,
    Path((_, kind)): Path<(String, String)>,
    body: String,
) -> StatusCode {
    let body = serde_json::from_str(&body).unwrap();
    api.said.send(Said { kind, body }).await.unwrap();
    StatusCode::ACCEPTED
}

/// Starts the API and the function.
async fn start() -> (Child, mpsc::Sender<Value>, mpsc::Receiver<Said>) {
    let (events, receiver) = mpsc::channel(8);
    let (sender, answers) = mpsc::channel(8);
    let api = Api {
        events: Arc::new(Mutex::new(receiver)),
        said: sender,
    };
    let routes = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(said))
        .with_state(api);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(axum::serve(listener, routes).into_future());
    let child = Child::start([
        ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
        ("AWS_LAMBDA_FUNCTION_NAME", "hello"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
    ]);
    (child, events, answers)
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
    let (_child, events, mut answers) = start().await;
    events.send(http_event("GET", "/")).await.unwrap();
    let said = answers.recv().await.unwrap();
    assert_eq!(said.kind, "response");
    assert_eq!(said.body["statusCode"], 200);
    assert_eq!(said.body["body"], "hello world");
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_on_lambda_too() {
    let (_child, events, mut answers) = start().await;
    // `/events` is for Lambda's own events, not for whoever finds the function's URL.
    for (method, path) in [("GET", "/nothing"), ("POST", "/events")] {
        events.send(http_event(method, path)).await.unwrap();
        let said = answers.recv().await.unwrap();
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
    let (_child, events, mut answers) = start().await;
    events.send(kafka_batch("now")).await.unwrap();
    let said = answers.recv().await.unwrap();
    assert_eq!(said.kind, "response");
    assert_eq!(said.body, kafka_batch("now"));
}

#[tokio::test]
async fn a_kafka_batch_that_is_not_taken_fails_so_that_it_comes_again() {
    let (_child, events, mut answers) = start().await;
    events.send(kafka_batch("later")).await.unwrap();
    let said = answers.recv().await.unwrap();
    assert_eq!(said.kind, "error");
    assert_eq!(
        said.body["errorMessage"],
        "the event was answered with 503 Service Unavailable"
    );
    events.send(kafka_batch("now")).await.unwrap();
    assert_eq!(answers.recv().await.unwrap().kind, "response");
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
