//! Lambda's Runtime API as AWS documents it, played by an axum server: hands out invocations one
//! after the other and hears what came of each. The end-to-end tests have this file too.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};

/// What the function said about an invocation.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    /// `response` or `error`.
    pub(crate) kind: String,
    /// What it said.
    pub(crate) body: Value,
}

/// The API, from the side of Lambda.
pub(crate) struct RuntimeApi {
    address: SocketAddr,
    events: mpsc::Sender<Value>,
    said: mpsc::Receiver<(String, Said)>,
    invocations: usize,
}

#[derive(Clone)]
struct Api {
    // A lock over an await is meant: Lambda gives out one invocation after the other.
    events: Arc<Mutex<mpsc::Receiver<Value>>>,
    said: mpsc::Sender<(String, Said)>,
    given: Arc<AtomicUsize>,
}

impl RuntimeApi {
    pub(crate) async fn start() -> Self {
        let (events, receiver) = mpsc::channel(1);
        let (sender, said) = mpsc::channel(1);
        let api = Api {
            events: Arc::new(Mutex::new(receiver)),
            said: sender,
            given: Arc::default(),
        };
        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(hear))
            // An answer has up to 6 MB.
            .layer(axum::extract::DefaultBodyLimit::max(8 << 20))
            .with_state(api);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, routes).into_future());
        Self {
            address,
            events,
            said,
            invocations: 0,
        }
    }

    /// Returns what Lambda sets in the environment of a function, as far as it matters here.
    pub(crate) fn env(&self, function: &str) -> [(&'static str, String); 7] {
        [
            ("AWS_LAMBDA_RUNTIME_API", self.address.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", function.to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128".to_owned()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("_HANDLER", "bootstrap".to_owned()),
        ]
    }

    /// Invokes the function once, and returns what it said.
    pub(crate) async fn invoke(&mut self, event: Value) -> Said {
        self.events.send(event).await.unwrap();
        let (id, said) = self.said.recv().await.unwrap();
        self.invocations += 1;
        assert_eq!(id, request_id(self.invocations), "of this invocation");
        said
    }
}

fn request_id(invocation: usize) -> String {
    format!("8476a536-e9f4-11e8-9739-{invocation:012}")
}

async fn next(State(api): State<Api>) -> impl IntoResponse {
    let mut events = api.events.lock().await;
    let event = events.recv().await.expect("the test holds the sender");
    let id = request_id(api.given.fetch_add(1, Ordering::Relaxed) + 1);
    let arn = "arn:aws:lambda:eu-central-1:123456789012:function:f";
    let trace = "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1";
    let headers = [
        ("lambda-runtime-aws-request-id", id.as_str()),
        ("lambda-runtime-deadline-ms", "4102444800000"),
        ("lambda-runtime-invoked-function-arn", arn),
        ("lambda-runtime-trace-id", trace),
    ];
    let header = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value));
    let headers = headers
        .map(header)
        .map(|(name, value)| (name, value.unwrap()));
    (headers, Json(event))
}

async fn hear(
    State(api): State<Api>,
    Path((id, kind)): Path<(String, String)>,
    body: String,
) -> impl IntoResponse {
    let body = serde_json::from_str(&body).unwrap();
    api.said.send((id, Said { kind, body })).await.unwrap();
    (StatusCode::ACCEPTED, Json(json!({"status": "OK"})))
}
