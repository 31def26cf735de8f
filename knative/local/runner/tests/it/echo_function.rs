//! A function for the tests of serving: does what the path says.

#![allow(
    clippy::unwrap_used,
    reason = "a test's own program: it dies of what it does not expect, and the test fails"
)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    routing::get,
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::sleep,
};

#[derive(Default)]
struct Echo {
    unready: AtomicBool,
    sick: AtomicBool,
    held: AtomicUsize,
    peak: AtomicUsize,
    release: Notify,
}

#[tokio::main]
async fn main() {
    let variable = |name| std::env::var(name).ok();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    if let Some(delay) = variable("START_MILLIS") {
        sleep(Duration::from_millis(delay.parse().unwrap())).await;
    }
    let ignores_sigterm = variable("IGNORE_SIGTERM").is_some();
    let port: u16 = variable("PORT").unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    println!("echo listens");
    axum::serve(listener, router())
        .with_graceful_shutdown(async move {
            terminate.recv().await;
            if ignores_sigterm {
                std::future::pending().await
            }
        })
        .await
        .unwrap();
}

fn router() -> Router {
    let health = |bad: bool| {
        if bad {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        }
    };
    Router::new()
        .route(
            "/readyz",
            get(async move |State(echo): State<Arc<Echo>>| health(echo.unready.load(SeqCst))),
        )
        .route(
            "/healthz",
            get(async move |State(echo): State<Arc<Echo>>| health(echo.sick.load(SeqCst))),
        )
        .route(
            "/unready",
            get(async |State(echo): State<Arc<Echo>>| echo.unready.store(true, SeqCst)),
        )
        .route(
            "/sick",
            get(async |State(echo): State<Arc<Echo>>| echo.sick.store(true, SeqCst)),
        )
        .route(
            "/env",
            get(async || Json(std::env::vars().collect::<BTreeMap<_, _>>())),
        )
        .route(
            "/args",
            get(async || Json(std::env::args().skip(1).collect::<Vec<_>>())),
        )
        .route("/pid", get(async || std::process::id().to_string()))
        .route("/exit", get(exit))
        .route(
            "/status/{code}",
            get(async |Path(code): Path<u16>| StatusCode::from_u16(code).unwrap()),
        )
        .route("/hold", get(hold))
        .route(
            "/held",
            get(async |State(echo): State<Arc<Echo>>| echo.held.load(SeqCst).to_string()),
        )
        .route(
            "/peak",
            get(async |State(echo): State<Arc<Echo>>| echo.peak.load(SeqCst).to_string()),
        )
        .route(
            "/release",
            get(async |State(echo): State<Arc<Echo>>| echo.release.notify_waiters()),
        )
        .route("/sleep/{millis}", get(nap))
        .route("/drip", get(drip))
        .fallback(tell)
        .with_state(Arc::default())
}

async fn exit() {
    std::process::exit(3)
}

/// Answers when somebody asks for `/release`.
async fn hold(State(echo): State<Arc<Echo>>) {
    let released = echo.release.notified();
    echo.held.fetch_add(1, SeqCst);
    released.await;
    echo.held.fetch_sub(1, SeqCst);
}

/// Counts how many sleep at once.
async fn nap(State(echo): State<Arc<Echo>>, Path(millis): Path<u64>) {
    let held = echo.held.fetch_add(1, SeqCst) + 1;
    echo.peak.fetch_max(held, SeqCst);
    sleep(Duration::from_millis(millis)).await;
    echo.held.fetch_sub(1, SeqCst);
}

/// An answer that begins and does not end.
async fn drip() -> Body {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"drip"))]);
    Body::from_stream(futures::StreamExt::chain(first, stream::pending()))
}

async fn tell(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let headers: BTreeMap<_, _> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    Json(json!({
        "method": method.as_str(),
        "uri": uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
        "size": body.len(),
    }))
}
