//! Thresholds: what subscribers are told, and how often.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use serde_json::Value;
use tests::stack::Stack;
use tokio::{net::TcpListener, task::JoinHandle};

use super::till::{Till, call};
use crate::support::METERS;

/// A broker that remembers what it took.
#[derive(Clone, Default)]
struct Broker {
    is_away: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Broker {
    async fn start() -> (Self, String, JoinHandle<()>) {
        let broker = Self::default();
        let routes = Router::new()
            .route("/ns/usage", post(take))
            .with_state(broker.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/ns/usage", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (broker, url, serving)
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    async fn wait_for(&self, events: &[&str]) {
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while self.taken() != events {
            assert!(
                std::time::Instant::now() < until,
                "{:?}, not {events:?}",
                self.taken()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn take(State(broker): State<Broker>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if broker.is_away.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    assert_eq!(headers["ce-type"], "io.openmeter.quota.threshold");
    let data: Value = serde_json::from_slice(&body).unwrap();
    let id = headers["ce-id"].to_str().unwrap();
    let line = format!("{id} at {}", data["balance"].as_str().unwrap());
    broker.taken.lock().unwrap().push(line);
    StatusCode::ACCEPTED
}

#[tokio::test]
async fn a_broker_that_does_not_answer_holds_up_no_debit() {
    let stack = Stack::start(METERS).await.unwrap();
    // It takes connections, and nothing more.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/ns/usage", silent.local_addr().unwrap());
    let till = Till::start_with(&stack, &[("OPENMETER_BROKER_URL", &url)]).await;
    till.reconcile().await;
    let subjects: Vec<_> = (0..20).map(|n| format!("tpp-{n}")).collect();
    for subject in &subjects {
        till.grant(subject, "a", "2").await;
    }
    let began = std::time::Instant::now();
    for round in 0..2 {
        let calls = subjects
            .iter()
            .map(|subject| call(&format!("{subject}-{round}"), subject, 0));
        stack.post_events(&calls.collect::<Vec<_>>()).await.unwrap();
    }
    for subject in &subjects {
        till.wait_for_balance(subject, "0").await;
    }
    // Two seconds for the first batch that met it, and none after that.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_threshold_is_announced_once_until_a_top_up() {
    let stack = Stack::start(METERS).await.unwrap();
    let (broker, url, serving) = Broker::start().await;
    let till = Till::start_with(&stack, &[("OPENMETER_BROKER_URL", &url)]).await;
    till.reconcile().await;
    till.grant("tpp-1", "a", "10").await;
    let mut sent = 0;
    let mut spend = async |calls: u64, balance: &str| {
        for _ in 0..calls {
            sent += 1;
            stack
                .post_events(&[call(&sent.to_string(), "tpp-1", 0)])
                .await
                .unwrap();
        }
        till.wait_for_balance("tpp-1", balance).await;
    };
    spend(4, "6").await;
    assert_eq!(broker.taken(), Vec::<String>::new());
    spend(1, "5").await;
    broker.wait_for(&["tpp-1:1:50 at 5"]).await;
    // The broker is away when the next is crossed: it is told later, with what is then left.
    broker.is_away.store(true, Ordering::SeqCst);
    spend(3, "2").await;
    till.reconcile().await;
    assert_eq!(broker.taken().len(), 1);
    broker.is_away.store(false, Ordering::SeqCst);
    till.reconcile().await;
    broker
        .wait_for(&["tpp-1:1:50 at 5", "tpp-1:1:80 at 2"])
        .await;
    till.reconcile().await;
    till.grant("tpp-1", "b", "18").await;
    spend(10, "10").await;
    let all = ["tpp-1:1:50 at 5", "tpp-1:1:80 at 2", "tpp-1:2:50 at 10"];
    broker.wait_for(&all).await;
    till.reconcile().await;
    assert_eq!(broker.taken(), all);
    serving.abort();
    till.stop().await;
    stack.stop().await.unwrap();
}
