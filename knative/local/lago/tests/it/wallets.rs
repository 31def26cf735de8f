//! Wallets and their transactions.

use std::time::Duration;

use lago_stand_in::Settings;
use serde_json::{Value, json};

use crate::support::{Lago, event, lago, lago_with};

async fn with_customer() -> Lago {
    let lago = lago().await;
    lago.sells().await;
    lago
}

async fn transaction(lago: &Lago, wallet: &str, field: &str, credits: &str) -> Value {
    let body = json!({ "wallet_transaction": { "wallet_id": wallet, field: credits } });
    let made = lago.post("/wallet_transactions", &body).await.ok();
    made["wallet_transactions"][0].clone()
}

// Wallets: money in cents, credits as decimal text, at a rate of money a credit.
#[tokio::test]
async fn a_wallet_holds_credits_at_a_rate() {
    let lago = with_customer().await;
    let wallet = json!({ "wallet": {
        "external_customer_id": "bank", "currency": "EUR", "rate_amount": "0.03",
        "granted_credits": "100", "name": "W", "priority": 3,
    }});
    let made = lago.post("/wallets", &wallet).await.ok()["wallet"].clone();
    assert_eq!(made["status"], "active");
    assert_eq!(made["rate_amount"], "0.03");
    assert_eq!(
        (&made["balance_cents"], &made["credits_balance"]),
        (&json!(300), &json!("100.0"))
    );
    assert_eq!(made["priority"], 3);
    for path in [
        "/wallets?external_customer_id=bank",
        "/customers/bank/wallets",
    ] {
        assert_eq!(
            lago.get(path).await.ok()["wallets"],
            json!([made]),
            "{path}"
        );
    }
    let bad = json!({ "wallet": {
        "external_customer_id": "bank", "rate_amount": "0", "voided_credits": "1",
    }});
    let details = lago.post("/wallets", &bad).await.details();
    assert_eq!(
        details,
        json!({
            "currency": ["value_is_mandatory"], "rate_amount": ["value_is_invalid"],
            "voided_credits": ["value_is_invalid"],
        })
    );
}

// Wallet transactions: granted credits are settled at once; paid ones stay pending until paid.
#[tokio::test]
async fn paid_credits_wait_until_they_are_paid() {
    let lago = with_customer().await;
    let id = lago.wallet("10").await;
    let paid = transaction(&lago, &id, "paid_credits", "5").await;
    assert_eq!(paid["status"], "pending");
    assert_eq!(paid["transaction_status"], "purchased");
    assert_eq!(lago.wallet_now(&id).await["credits_balance"], "10.0");
    let settle = format!(
        "/wallet_transactions/{}/settle",
        paid["lago_id"].as_str().unwrap()
    );
    let settled = lago.order(&settle, &json!({})).await.ok();
    assert_eq!(settled["wallet_transaction"]["status"], "settled");
    assert_eq!(lago.wallet_now(&id).await["credits_balance"], "15.0");
    assert_eq!(lago.order(&settle, &json!({})).await.status, 405);
    let failing = transaction(&lago, &id, "paid_credits", "7").await;
    let fail = format!(
        "/wallet_transactions/{}/fail",
        failing["lago_id"].as_str().unwrap()
    );
    lago.order(&fail, &json!({})).await.ok();
    assert_eq!(lago.wallet_now(&id).await["balance_cents"], 1500);
    let kinds: Vec<_> = lago
        .transactions(&id)
        .await
        .iter()
        .map(|one| {
            (
                one["status"].clone(),
                one["transaction_type"].clone(),
                one["amount"].clone(),
            )
        })
        .collect();
    let row = |status: &str, amount: &str| (json!(status), json!("inbound"), json!(amount));
    assert_eq!(
        kinds,
        [
            row("failed", "7.0"),
            row("settled", "5.0"),
            row("settled", "10.0")
        ]
    );
}

// Wallet transactions: voided credits go out, as far as there are some.
#[tokio::test]
async fn voided_credits_go_out_and_not_below_nothing() {
    let lago = with_customer().await;
    let id = lago.wallet("10").await;
    let voided = transaction(&lago, &id, "voided_credits", "4.5").await;
    assert_eq!(voided["transaction_type"], "outbound");
    assert_eq!(voided["transaction_status"], "voided");
    assert_eq!(voided["credit_amount"], "4.5");
    assert_eq!(lago.wallet_now(&id).await["balance_cents"], 550);
    for (field, credits, details) in [
        (
            "voided_credits",
            "6",
            json!({ "voided_credits": ["insufficient_credits"] }),
        ),
        (
            "granted_credits",
            "x",
            json!({ "granted_credits": ["invalid_granted_credits", "invalid_amount"] }),
        ),
    ] {
        let body = json!({ "wallet_transaction": { "wallet_id": id, field: credits } });
        assert_eq!(
            lago.post("/wallet_transactions", &body).await.details(),
            details
        );
    }
    assert_eq!(lago.wallet_now(&id).await["balance_cents"], 550);
}

// Wallet transactions have no idempotency key: an equal request is another top-up.
#[tokio::test]
async fn a_repeated_top_up_counts_twice() {
    let lago = with_customer().await;
    let id = lago.wallet("0").await;
    transaction(&lago, &id, "granted_credits", "5").await;
    transaction(&lago, &id, "granted_credits", "5").await;
    assert_eq!(lago.wallet_now(&id).await["credits_balance"], "10.0");
}

// Wallets: DELETE terminates, and so does the expiry; what is left stays and pays nothing.
#[tokio::test]
async fn a_terminated_wallet_keeps_what_is_left() {
    let lago = with_customer().await;
    let id = lago.wallet("10").await;
    lago.delete(&format!("/wallets/{id}")).await.ok();
    let wallet = lago.wallet_now(&id).await;
    assert_eq!(
        (&wallet["status"], &wallet["credits_balance"]),
        (&json!("terminated"), &json!("10.0"))
    );
    let body = json!({ "wallet_transaction": { "wallet_id": id, "granted_credits": "1" } });
    let details = lago.post("/wallet_transactions", &body).await.details();
    assert_eq!(details, json!({ "wallet_id": ["wallet_is_terminated"] }));

    let id = lago.wallet("10").await;
    let clock = lago
        .ask(reqwest::Method::GET, "/stand-in/clock", None)
        .await
        .ok();
    let expiry = json!({ "wallet": { "expiration_at": clock["now"] } });
    lago.put(&format!("/wallets/{id}"), &expiry).await.ok();
    lago.stand_in.advance(Duration::from_secs(1));
    assert_eq!(lago.wallet_now(&id).await["status"], "terminated");
}

async fn ongoing(premium: bool) -> (Lago, String) {
    let lago = lago_with(Settings {
        premium,
        ..Settings::for_test()
    })
    .await;
    lago.sells().await;
    let id = lago.wallet("10").await;
    lago.batch(&[event("a", "api_calls", "100", 0)]).await.ok();
    lago.stand_in.advance(Duration::from_secs(300));
    (lago, id)
}

// Wallets: without a licence usage never moves the ongoing balance, only top-ups do.
#[tokio::test]
async fn without_a_licence_ongoing_figures_do_not_follow_usage() {
    let (lago, id) = ongoing(false).await;
    assert_eq!(lago.wallet_now(&id).await["ongoing_balance_cents"], 1000);
    transaction(&lago, &id, "granted_credits", "1").await;
    let wallet = lago.wallet_now(&id).await;
    assert_eq!(wallet["ongoing_balance_cents"], 1100);
    assert_eq!(wallet["credits_ongoing_usage_balance"], "0.0");
}

// Wallets: with one they follow every five minutes; the settled balance does not.
#[tokio::test]
async fn with_a_licence_ongoing_figures_follow_late() {
    let (lago, id) = ongoing(true).await;
    let figures = async || {
        let wallet = lago.wallet_now(&id).await;
        [
            "ongoing_balance_cents",
            "ongoing_usage_balance_cents",
            "balance_cents",
        ]
        .map(|name| wallet[name].as_i64().unwrap())
    };
    assert_eq!(figures().await, [800, 200, 1000]);
    lago.batch(&[event("b", "api_calls", "500", 0)]).await.ok();
    assert_eq!(figures().await, [800, 200, 1000]);
    lago.stand_in.advance(Duration::from_secs(300));
    assert_eq!(figures().await, [-200, 1200, 1000]);
    assert_eq!(
        lago.wallet_now(&id).await["credits_ongoing_balance"],
        "-2.0"
    );
}
