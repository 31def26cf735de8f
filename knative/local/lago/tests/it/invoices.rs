//! Invoices, and the credits that they take.

use std::time::Duration;

use lago_stand_in::{InvoiceOrder, Settings};
use serde_json::{Value, json};

use crate::support::{Lago, event, lago, lago_with};

async fn lago_with_grace(days: u32) -> Lago {
    let lago = lago_with(Settings {
        grace_days: days,
        ..Settings::for_test()
    })
    .await;
    lago.sells().await;
    lago
}

fn january() -> InvoiceOrder {
    InvoiceOrder {
        external_subscription_id: "tpp".to_owned(),
        until: Some("2026-02-01T00:00:00Z".to_owned()),
        ..InvoiceOrder::default()
    }
}

fn status(invoice: &Value) -> &str {
    invoice["status"].as_str().unwrap()
}

// Wallets: the settled balance moves by an invoice, through an outbound transaction.
#[tokio::test]
async fn a_final_invoice_takes_credits_by_an_outbound_transaction() {
    let lago = lago_with_grace(0).await;
    let id = lago.wallet("10").await;
    lago.batch(&[event("a", "api_calls", "120", 0)]).await.ok();
    assert_eq!(lago.wallet_now(&id).await["balance_cents"], 1000);
    let invoice = lago.stand_in.invoice(&january()).unwrap();
    assert_eq!(status(&invoice), "finalized");
    assert_eq!(invoice["prepaid_credit_amount_cents"], 240);
    assert_eq!(invoice["total_amount_cents"], 0);
    let wallet = lago.wallet_now(&id).await;
    assert_eq!(
        (&wallet["balance_cents"], &wallet["credits_balance"]),
        (&json!(760), &json!("7.6"))
    );
    assert_eq!(wallet["consumed_credits"], "2.4");
    let newest = lago.transactions(&id).await.remove(0);
    assert_eq!(newest["transaction_type"], "outbound");
    assert_eq!(newest["transaction_status"], "invoiced");
    assert_eq!(newest["status"], "settled");
    assert_eq!(newest["credit_amount"], "2.4");
    assert_eq!(newest["lago_invoice_id"], invoice["lago_id"]);
}

// Wallets: the wallet of priority 1 pays first; what no wallet has is left to pay.
#[tokio::test]
async fn wallets_pay_by_priority_and_a_terminated_one_not_at_all() {
    let lago = lago_with_grace(0).await;
    let gone = lago.wallet("100").await;
    lago.delete(&format!("/wallets/{gone}")).await.ok();
    let second = lago.wallet("3").await;
    let first = lago.wallet("1").await;
    let priority = json!({ "wallet": { "priority": 1 } });
    lago.put(&format!("/wallets/{first}"), &priority).await.ok();
    lago.batch(&[event("a", "api_calls", "150", 0)]).await.ok();
    let invoice = lago.stand_in.invoice(&january()).unwrap();
    assert_eq!(invoice["prepaid_credit_amount_cents"], 300);
    assert_eq!(lago.wallet_now(&first).await["balance_cents"], 0);
    assert_eq!(lago.wallet_now(&second).await["balance_cents"], 100);
    assert_eq!(lago.wallet_now(&gone).await["balance_cents"], 10_000);
    lago.batch(&[event("b", "api_calls", "150", 0)]).await.ok();
    assert_eq!(lago.stand_in.units()[0].missed, "150.0");
}

// Billable metrics, correction: late data counts only while the period's invoice is not final.
#[tokio::test]
async fn late_usage_is_in_a_draft_and_never_in_a_final_invoice() {
    let lago = lago_with_grace(3).await;
    let id = lago.wallet("10").await;
    lago.batch(&[event("a", "api_calls", "10", 0)]).await.ok();
    let draft = lago.stand_in.invoice(&january()).unwrap();
    assert_eq!(
        (status(&draft), &draft["fees_amount_cents"]),
        ("draft", &json!(20))
    );
    let path = format!("/invoices/{}", draft["lago_id"].as_str().unwrap());
    lago.batch(&[event("late", "api_calls", "5", 1)]).await.ok();
    let shown = lago.get(&path).await.ok()["invoice"].clone();
    assert_eq!(
        (status(&shown), &shown["fees_amount_cents"]),
        ("draft", &json!(30))
    );
    assert_eq!(lago.wallet_now(&id).await["balance_cents"], 1000);

    lago.stand_in.advance(Duration::from_secs(3 * 86_400));
    let shown = lago.get(&path).await.ok()["invoice"].clone();
    assert_eq!(
        (status(&shown), &shown["prepaid_credit_amount_cents"]),
        ("finalized", &json!(30))
    );
    assert_eq!(lago.wallet_now(&id).await["balance_cents"], 970);
    lago.batch(&[event("too late", "api_calls", "7", 2)])
        .await
        .ok();
    assert_eq!(
        lago.get(&path).await.ok()["invoice"]["fees_amount_cents"],
        30
    );
    // A correction goes into the open period.
    lago.batch(&[event("correction", "api_calls", "7", 30 * 86_400)])
        .await
        .ok();
    let row = lago.stand_in.units().remove(0);
    let row = [row.units, row.invoiced, row.open, row.missed];
    assert_eq!(row, ["29.0", "15.0", "7.0", "7.0"]);
}

// Invoices: a draft can be finalised by Lago's own API, once.
#[tokio::test]
async fn a_draft_is_finalised_once() {
    let lago = lago_with_grace(3).await;
    let draft = lago.stand_in.invoice(&january()).unwrap();
    let path = format!("/invoices/{}/finalize", draft["lago_id"].as_str().unwrap());
    assert_eq!(
        status(&lago.put(&path, &json!({})).await.ok()["invoice"]),
        "finalized"
    );
    assert_eq!(lago.put(&path, &json!({})).await.status, 404);
}

// Invoices: one alone shows fees and periods, whose ends are their last second; lists do not.
#[tokio::test]
async fn a_period_ends_with_its_last_second() {
    let lago = lago_with_grace(0).await;
    let at = |id: &str, time: &str| {
        let mut event = event(id, "logins", "1", 0);
        event["timestamp"] = json!(time);
        event
    };
    // 2026-01-31T23:59:59.999Z and a millisecond later.
    lago.batch(&[at("in", "1769903999.999"), at("out", "1769904000")])
        .await
        .ok();
    let invoice = lago.stand_in.invoice(&january()).unwrap();
    assert_eq!(
        invoice["billing_periods"][0]["charges_from_datetime"],
        "2026-01-01T00:00:00Z"
    );
    assert_eq!(
        invoice["billing_periods"][0]["charges_to_datetime"],
        "2026-01-31T23:59:59Z"
    );
    assert_eq!(invoice["fees"][1]["item"]["code"], "logins");
    assert_eq!(invoice["fees"][1]["units"], "1.0");
    let list = lago
        .get("/invoices?external_customer_id=bank&status=finalized")
        .await
        .ok();
    assert_eq!(list["invoices"][0]["lago_id"], invoice["lago_id"]);
    assert_eq!(list["invoices"][0]["fees"], Value::Null);
    assert_eq!(list["invoices"][0]["billing_periods"], Value::Null);
    let path = "/customers/bank/current_usage?external_subscription_id=tpp";
    let usage = lago.get(path).await.ok()["customer_usage"].clone();
    assert_eq!(usage["from_datetime"], "2026-02-01T00:00:00Z");
    assert_eq!(usage["charges_usage"][1]["units"], "1.0");
}

// Wallets pay what is due, taxes included and coupons taken off: not our own price of it.
#[tokio::test]
async fn what_is_paid_has_taxes_and_coupons() {
    let lago = lago_with(Settings {
        taxes_rate: "20".parse().unwrap(),
        ..Settings::for_test()
    })
    .await;
    lago.sells().await;
    let id = lago.wallet("10").await;
    lago.batch(&[event("a", "api_calls", "100", 0)]).await.ok();
    let invoice = lago
        .stand_in
        .invoice(&InvoiceOrder {
            coupons_amount_cents: 50,
            ..january()
        })
        .unwrap();
    let cents = ["fees", "coupons", "taxes", "prepaid_credit"]
        .map(|name| invoice[format!("{name}_amount_cents")].as_i64().unwrap());
    assert_eq!(cents, [200, 50, 30, 180]);
    assert_eq!(lago.wallet_now(&id).await["balance_cents"], 820);
}

#[tokio::test]
async fn a_period_is_billed_once() {
    let lago = lago().await;
    lago.sells().await;
    lago.order("/invoices", &json!(january())).await.ok();
    assert!(lago.stand_in.invoice(&january()).is_err());
    let unknown = InvoiceOrder {
        external_subscription_id: "x".to_owned(),
        ..january()
    };
    assert!(lago.stand_in.invoice(&unknown).is_err());
    // A terminated subscription has a last invoice, to its end, and no more.
    lago.delete("/subscriptions/tpp").await.ok();
    let rest = InvoiceOrder {
        until: Some("2199-01-01".to_owned()),
        ..january()
    };
    lago.stand_in.invoice(&rest).unwrap();
    assert!(lago.stand_in.invoice(&rest).is_err());
}
