//! A bank's API behind nginx: it does nothing but answer, and tells the broker of each call, as a
//! gateway's log shipper would.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
};
use jiff::Timestamp;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

/// What it says that each call took: what a call costs is to be known beforehand.
const LATENCY_MS: u32 = 45;

/// The API, served until this is dropped.
pub(super) struct Bank {
    pub(super) address: SocketAddr,
    calls: Calls,
    _serving: JoinSet<()>,
}

/// The calls' events as they were posted, a JSON text each.
type Calls = Arc<Mutex<Vec<String>>>;

#[derive(Clone)]
struct Broker {
    http: reqwest::Client,
    url: String,
    calls: Calls,
}

impl Bank {
    /// Serves on a free port, and posts events to the broker's URL.
    pub(super) async fn start(http: reqwest::Client, broker: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, calls) = (listener.local_addr()?, Calls::default());
        let broker = Broker {
            http,
            url: broker,
            calls: calls.clone(),
        };
        let app = Router::new().fallback(call).with_state(broker);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // Without it nginx answers 502, which whoever calls reports.
            axum::serve(listener, app).await.unwrap_or_default();
        });
        Ok(Self {
            address,
            calls,
            _serving: serving,
        })
    }

    /// Returns the events of all calls so far.
    pub(super) fn calls(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.clone()
    }
}

/// Answers once the broker has the call's event.
async fn call(
    State(broker): State<Broker>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<String, (StatusCode, String)> {
    let tpp = headers.get("x-tpp-id").and_then(|tpp| tpp.to_str().ok());
    let event = json!({
        "specversion": "1.0",
        "type": "api.call",
        "source": "nginx",
        "id": uuid::Uuid::new_v4().to_string(),
        "time": Timestamp::now(),
        "subject": tpp,
        "data": {
            "endpoint": uri.path(),
            "method": method.as_str(),
            "status_code": 200,
            "response_time_ms": LATENCY_MS,
        },
    });
    let event = event.to_string();
    let request = broker.http.post(&broker.url);
    let request = request.header("content-type", "application/cloudevents+json");
    let posted = request.body(event.clone()).send().await;
    posted
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| (StatusCode::BAD_GATEWAY, format!("no event: {error}\n")))?;
    let mut calls = broker.calls.lock().unwrap_or_else(PoisonError::into_inner);
    calls.push(event);
    Ok("{\"accounts\": []}\n".to_owned())
}
