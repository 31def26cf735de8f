//! nginx from Debian's package, as `knative/gateways/nginx.conf` has it: a spent TPP is refused
//! there and let in after a top-up.

use std::net::{Ipv4Addr, SocketAddr};

use axum::{Router, extract::Request};
use serde_json::Value;
use tests::{
    nginx::{Addresses, Nginx},
    stack::Stack,
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::till::{Seen, Till, call};
use crate::support::METERS;

/// The line of nginx.conf that lets calls pass while quota is away, and the one beside it.
const OPEN: [(&str, &str); 2] = [
    ("            error_page 500 = @unavailable;\n", ""),
    ("# error_page 500 = @bank;", "error_page 500 = @bank;"),
];

/// A bank that says what it was asked.
async fn bank() -> (SocketAddr, JoinHandle<()>) {
    let echo = async |request: Request| format!("{} {}", request.method(), request.uri());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().fallback(echo);
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (address, serving)
}

async fn start(bank: SocketAddr, till: &Till, changes: &[(&str, &str)]) -> Nginx {
    let addresses = Addresses {
        bank,
        quota: till.url.strip_prefix("http://").unwrap().parse().unwrap(),
        quota_host: "quota.open-banking.svc.cluster.local".to_owned(),
        listen: None,
    };
    let folder = std::env::temp_dir().join(format!("nginx-{}", uuid::Uuid::new_v4().simple()));
    Nginx::start(&folder, &addresses, changes).await.unwrap()
}

/// Posts a call of `subject` through nginx.
async fn through(nginx: &Nginx, subject: &str) -> Seen {
    let url = format!("{}/v1/accounts?a=b", nginx.url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    Seen::of(client.post(url).header("x-tpp-id", subject).body("body")).await
}

#[tokio::test]
async fn a_spent_tpp_is_refused_at_nginx_and_let_in_after_a_top_up() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    let (bank, serving) = bank().await;
    let nginx = start(bank, &till, &[]).await;

    assert_eq!(through(&nginx, "tpp-1").await.line(), "402 unknown -");
    till.grant("tpp-1", "a", "2").await;
    let answer = through(&nginx, "tpp-1").await;
    assert_eq!(answer.line(), "200 ok 2");
    assert_eq!(answer.body, "POST /v1/accounts?a=b");

    let calls = ["1", "2"].map(|id| call(id, "tpp-1", 0));
    stack.post_events(&calls).await.unwrap();
    till.wait_for_balance("tpp-1", "0").await;
    let refused = through(&nginx, "tpp-1").await;
    assert_eq!(refused.line(), "402 spent 0");
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(problem["status"], 402, "{problem}");
    assert_eq!(problem["extensions"]["subject"], "tpp-1", "{problem}");
    // No name becomes a part of the path to another's account.
    for forged in ["tpp-1/../tpp-2", "tpp-1?x", ""] {
        assert_eq!(through(&nginx, forged).await.status, 401, "{forged:?}");
    }

    till.grant("tpp-1", "b", "1").await;
    assert_eq!(through(&nginx, "tpp-1").await.line(), "200 ok 1");
    till.stop().await;
    assert_eq!(through(&nginx, "tpp-1").await.status, 503, "quota is away");
    serving.abort();
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn nginx_is_open_or_closed_while_valkey_or_quota_is_away() {
    let stack = Stack::start(METERS).await.unwrap();
    let (bank, serving) = bank().await;
    let nowhere = ("OPENMETER_VALKEY_URL", "redis://127.0.0.1:1");
    for (when_away, changes, valkey_away, quota_away) in [
        ("closed", &[][..], "503 unavailable -", 503),
        ("open", &OPEN[..], "200 unavailable -", 200),
    ] {
        let settings = [nowhere, ("OPENMETER_QUOTA_WHEN_AWAY", when_away)];
        let till = Till::start_with(&stack, &settings).await;
        let nginx = start(bank, &till, changes).await;
        assert_eq!(through(&nginx, "tpp-1").await.line(), valkey_away);
        till.stop().await;
        assert_eq!(through(&nginx, "tpp-1").await.status, quota_away);
    }
    serving.abort();
    stack.stop().await.unwrap();
}
