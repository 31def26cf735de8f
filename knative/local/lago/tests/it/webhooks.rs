//! Webhooks: what is sent, how it is signed, and how often.

use aws_lc_rs::{hmac, signature};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use lago_stand_in::{Fault, FaultKind, InvoiceOrder, Settings};
use serde_json::{Value, json};

use crate::support::{Lago, Received, Receiver, event, lago};

async fn receiving(algorithm: &str) -> (Lago, Receiver) {
    let lago = lago().await;
    lago.sells().await;
    let receiver = Receiver::of(&lago, algorithm).await;
    (lago, receiver)
}

/// Renames a wallet: the change that sends exactly one webhook.
async fn rename(lago: &Lago, wallet: &str, name: &str) {
    let change = json!({ "wallet": { "name": name } });
    lago.put(&format!("/wallets/{wallet}"), &change).await.ok();
}

fn names(got: &[Received]) -> Vec<String> {
    got.iter()
        .map(|one| one.body()["wallet"]["name"].as_str().unwrap().to_owned())
        .collect()
}

// Webhooks, table of types: what each movement of a wallet sends.
#[tokio::test]
async fn each_movement_is_told_with_the_object_under_its_type() {
    let (lago, receiver) = receiving("hmac").await;
    let id = lago.wallet("10").await;
    let created = [
        "wallet.created",
        "wallet.updated",
        "wallet_transaction.created",
    ];
    assert_eq!(receiver.types(&lago).await, created);

    let body = json!({ "wallet_transaction": { "wallet_id": id, "paid_credits": "1" } });
    let paid = lago.post("/wallet_transactions", &body).await.ok();
    let got = receiver.take(&lago).await;
    assert_eq!(got.len(), 1);
    let body = got[0].body();
    assert_eq!(body["webhook_type"], "wallet_transaction.created");
    assert_eq!(body["object_type"], "wallet_transaction");
    assert!(body["organization_id"].is_string());
    assert_eq!(body["wallet_transaction"]["status"], "pending");
    assert_eq!(body["wallet_transaction"]["wallet"]["lago_id"], json!(id));

    let paid = paid["wallet_transactions"][0]["lago_id"].as_str().unwrap();
    lago.order(&format!("/wallet_transactions/{paid}/settle"), &json!({}))
        .await
        .ok();
    let got = receiver.take(&lago).await;
    assert_eq!(got.len(), 2);
    for one in got {
        let body = one.body();
        let wallet = match body["webhook_type"].as_str().unwrap() {
            "wallet.updated" => &body["wallet"],
            "wallet_transaction.updated" => &body["wallet_transaction"]["wallet"],
            other => panic!("{other}"),
        };
        assert_eq!(wallet["credits_balance"], "11.0");
    }

    lago.batch(&[event("a", "api_calls", "10000", 0)])
        .await
        .ok();
    assert!(receiver.types(&lago).await.is_empty());
    let order = InvoiceOrder {
        external_subscription_id: "tpp".to_owned(),
        ..InvoiceOrder::default()
    };
    lago.stand_in.invoice(&order).unwrap();
    let invoiced = [
        "invoice.created",
        "wallet.depleted_ongoing_balance",
        "wallet.updated",
        "wallet_transaction.created",
    ];
    assert_eq!(receiver.types(&lago).await, invoiced);
    lago.delete(&format!("/wallets/{id}")).await.ok();
    assert_eq!(receiver.types(&lago).await, ["wallet.terminated"]);
}

// Webhooks, hmac: padded base64 of HMAC-SHA256 over the exact body; the other headers.
#[tokio::test]
async fn an_hmac_is_of_the_exact_body() {
    let (lago, receiver) = receiving("hmac").await;
    lago.wallet("0").await;
    let got = receiver.take(&lago).await.remove(0);
    assert_eq!(got.header("x-lago-signature-algorithm"), "hmac");
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("x-lago-unique-key").len(), 36);
    let key = hmac::Key::new(hmac::HMAC_SHA256, Settings::default().hmac_key.as_bytes());
    let tag = BASE64_STANDARD
        .decode(got.header("x-lago-signature"))
        .unwrap();
    hmac::verify(&key, got.text.as_bytes(), &tag).unwrap();
}

// Webhooks, jwt: RS256, the claim `data` is the body's text, the key is base64 of a PEM.
#[tokio::test]
async fn a_jwt_holds_the_body_and_is_signed_with_the_published_key() {
    let (lago, receiver) = receiving("jwt").await;
    lago.wallet("0").await;
    let got = receiver.take(&lago).await.remove(0);
    assert_eq!(got.header("x-lago-signature-algorithm"), "jwt");
    let token = got.header("x-lago-signature");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let part = |text: &str| -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    let (header, claims) = signed.split_once('.').unwrap();
    assert_eq!(part(header)["alg"], "RS256");
    let claims = part(claims);
    assert_eq!(claims["data"], json!(got.text));
    assert_eq!(claims["iss"], json!(lago.stand_in.url()));
    assert_eq!(claims["exp"], Value::Null);

    let published = lago.get("/webhooks/json_public_key").await.ok();
    let text = published["webhook"]["public_key"].as_str().unwrap();
    assert!(text.contains('\n'));
    let pem = BASE64_STANDARD.decode(text.replace('\n', "")).unwrap();
    let pem = String::from_utf8(pem).unwrap();
    let der: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = BASE64_STANDARD.decode(der).unwrap();
    let key = signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der);
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    key.verify(signed.as_bytes(), &signature).unwrap();
}

// Webhooks, delivery: three attempts in all with one unique key, then failed until it is sent by
// hand.
#[tokio::test]
async fn a_webhook_is_tried_three_times_with_one_key() {
    let (lago, receiver) = receiving("hmac").await;
    let id = lago.wallet("0").await;
    receiver.take(&lago).await;
    let keys = |got: &[Received]| {
        let keys = got
            .iter()
            .map(|one| one.header("x-lago-unique-key").to_owned());
        keys.collect::<Vec<_>>()
    };
    receiver.answers(&[500, 302]);
    rename(&lago, &id, "a").await;
    let got = keys(&receiver.take(&lago).await);
    assert!(got.len() == 3 && got[1..] == got[..2], "{got:?}");

    receiver.answers(&[500, 500, 500]);
    rename(&lago, &id, "b").await;
    let got = keys(&receiver.take(&lago).await);
    assert_eq!(got.len(), 3);
    let list = lago
        .ask(reqwest::Method::GET, "/stand-in/webhooks", None)
        .await
        .ok();
    let last = list["webhooks"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["status"], &last["attempts"]),
        (&json!("failed"), &json!(3))
    );
    lago.order(&format!("/webhooks/{}/resend", got[0]), &json!({}))
        .await
        .ok();
    assert_eq!(keys(&receiver.take(&lago).await), [got[0].clone()]);
}

// Webhooks, no ordering promise and no promise of delivery: each fault on demand.
#[tokio::test]
async fn webhooks_are_lost_doubled_disordered_and_forged_on_demand() {
    let (lago, receiver) = receiving("hmac").await;
    let id = lago.wallet("0").await;
    receiver.take(&lago).await;
    let order = |kind| lago.stand_in.fault(Fault::new(kind, "wallet.")).unwrap();

    order(FaultKind::DropWebhook);
    rename(&lago, &id, "lost").await;
    order(FaultKind::DuplicateWebhook);
    rename(&lago, &id, "twice").await;
    let got = receiver.take(&lago).await;
    assert_eq!(names(&got), ["twice", "twice"]);
    assert_eq!(
        got[0].header("x-lago-unique-key"),
        got[1].header("x-lago-unique-key")
    );

    order(FaultKind::HoldWebhook);
    rename(&lago, &id, "first").await;
    assert!(receiver.take(&lago).await.is_empty());
    rename(&lago, &id, "second").await;
    assert_eq!(names(&receiver.take(&lago).await), ["second", "first"]);
    order(FaultKind::HoldWebhook);
    rename(&lago, &id, "held").await;
    lago.order("/webhooks/release", &json!({})).await.ok();
    assert_eq!(names(&receiver.take(&lago).await), ["held"]);

    order(FaultKind::ForgeWebhook);
    rename(&lago, &id, "forged").await;
    let got = receiver.take(&lago).await.remove(0);
    let key = hmac::Key::new(hmac::HMAC_SHA256, Settings::default().hmac_key.as_bytes());
    let tag = BASE64_STANDARD
        .decode(got.header("x-lago-signature"))
        .unwrap();
    assert!(hmac::verify(&key, got.text.as_bytes(), &tag).is_err());
}

// Webhooks, endpoints: at most 10, a url once, jwt by default, and only the types asked for.
#[tokio::test]
async fn receivers_are_ten_at_most_and_get_what_they_asked_for() {
    let (lago, receiver) = receiving("hmac").await;
    let endpoint = |number: usize| {
        json!({ "webhook_endpoint": {
            "webhook_url": format!("http://127.0.0.1:9/{number}"), "event_types": [],
        }})
    };
    for number in 1..10 {
        let made = lago
            .post("/webhook_endpoints", &endpoint(number))
            .await
            .ok();
        assert_eq!(made["webhook_endpoint"]["signature_algo"], "jwt");
    }
    let details = lago
        .post("/webhook_endpoints", &endpoint(10))
        .await
        .details();
    assert_eq!(details, json!({ "base": ["exceeded_limit"] }));
    let details = lago
        .post("/webhook_endpoints", &endpoint(1))
        .await
        .details();
    assert_eq!(details["webhook_url"], json!(["value_already_exist"]));
    lago.wallet("0").await;
    assert_eq!(receiver.types(&lago).await, ["wallet.created"]);
    let list = lago
        .ask(reqwest::Method::GET, "/stand-in/webhooks", None)
        .await
        .ok();
    assert_eq!(list["meta"]["total_count"], 1);
    let made = lago.get("/webhook_endpoints").await.ok();
    let id = made["webhook_endpoints"][0]["lago_id"].as_str().unwrap();
    lago.delete(&format!("/webhook_endpoints/{id}")).await.ok();
    lago.wallet("0").await;
    assert!(receiver.types(&lago).await.is_empty());
}

// Webhooks, events.errors: transaction_ids by what was wrong with them, from the hourly check.
#[tokio::test]
async fn the_hourly_check_tells_about_events_that_came_to_nothing() {
    let (lago, receiver) = receiving("hmac").await;
    lago.order("/events_check", &json!({})).await.ok();
    assert!(receiver.types(&lago).await.is_empty());
    lago.batch(&[
        event("a", "nothing", "1", 0),
        event("b", "api_calls", "many", 0),
    ])
    .await
    .ok();
    lago.order("/events_check", &json!({})).await.ok();
    let body = receiver.take(&lago).await.remove(0).body();
    assert_eq!(body["webhook_type"], "events.errors");
    assert_eq!(body["events_errors"]["invalid_code"], json!(["a"]));
    assert_eq!(
        body["events_errors"]["missing_aggregation_property"],
        json!(["b"])
    );
}
