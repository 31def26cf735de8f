//! The key, error bodies, lists, and the rate limit.

use lago_stand_in::{RateLimits, Settings};
use serde_json::json;

use crate::support::{answer, event, lago, lago_with};

// Base and auth: the second word of Authorization counts, whatever the first is; else 401.
#[tokio::test]
async fn the_key_is_the_second_word_of_the_header() {
    let lago = lago().await;
    let url = format!("{}/api/v1/customers", lago.stand_in.url());
    let key = Settings::default().api_key;
    for (header, status) in [
        (Some(format!("Bearer {key}")), 200),
        (Some(format!("Token {key}")), 200),
        (Some(key), 401),
        (Some("Bearer other".to_owned()), 401),
        (None, 401),
    ] {
        let mut request = lago.client.get(&url);
        if let Some(header) = &header {
            request = request.header("authorization", header);
        }
        let answer = answer(request).await;
        assert_eq!(answer.status, status, "{header:?}");
        if status == 401 {
            assert_eq!(
                answer.body,
                json!({ "status": 401, "error": "Unauthorized" })
            );
        }
    }
}

#[tokio::test]
async fn every_answer_says_that_this_is_not_lago() {
    let lago = lago().await;
    for path in ["/", "/api/v1/customers", "/stand-in/units", "/nowhere"] {
        let url = format!("{}{path}", lago.stand_in.url());
        let answer = answer(lago.client.get(url)).await;
        let what = answer.headers["x-lago-stand-in"].to_str().unwrap();
        assert!(
            what.starts_with("lago-stand-in ") && what.contains("not Lago"),
            "{path}: {what}"
        );
    }
}

// Error bodies: 400 for a missing root key, 404 with the resource's name, 405.
#[tokio::test]
async fn refusals_have_lagos_bodies() {
    let lago = lago().await;
    let answer = lago
        .post("/events", &json!({ "transaction_id": "a" }))
        .await;
    assert_eq!((answer.status, &answer.body["status"]), (400, &json!(400)));
    assert!(
        answer.body["error"]
            .as_str()
            .unwrap()
            .starts_with("BadRequest: ")
    );
    for (path, code) in [
        ("/customers/x", "customer_not_found"),
        ("/wallets/x", "wallet_not_found"),
        ("/wallets?external_customer_id=x", "customer_not_found"),
        ("/events/x", "event_not_found"),
        ("/subscriptions/x", "subscription_not_found"),
        ("/invoices/x", "invoice_not_found"),
    ] {
        let answer = lago.get(path).await;
        let expected = json!({ "status": 404, "error": "Not Found", "code": code });
        assert_eq!((answer.status, answer.body), (404, expected), "{path}");
    }
    let answer = lago.delete("/events/batch").await;
    assert_eq!(
        (answer.status, &answer.body["error"]),
        (405, &json!("Method Not Allowed"))
    );
}

// Base and auth: lists carry meta; 100 a page unless per_page says otherwise.
#[tokio::test]
async fn lists_come_in_pages() {
    let lago = lago().await;
    for number in 0..3 {
        let customer = json!({ "customer": { "external_id": format!("c{number}") } });
        lago.post("/customers", &customer).await.ok();
    }
    let list = lago.get("/customers?page=2&per_page=2").await.ok();
    assert_eq!(list["customers"][0]["external_id"], "c2");
    assert_eq!(
        list["meta"],
        json!({
            "current_page": 2, "next_page": null, "prev_page": 1,
            "total_pages": 2, "total_count": 3,
        })
    );
}

// Rate limits: 429 beyond the limit; three headers on every response; groups of their own.
#[tokio::test]
async fn beyond_the_rate_limit_there_is_429_with_its_reset() {
    let limits = RateLimits {
        ingestion: 1,
        usage: 1,
        other: 1000,
    };
    let lago = lago_with(Settings {
        rate_limits: Some(limits),
        ..Settings::for_test()
    })
    .await;
    // A second can end in between.
    let mut refused = false;
    for number in 0..100 {
        let answer = lago
            .batch(&[event(&format!("e{number}"), "c", "1", 0)])
            .await;
        assert_eq!(answer.headers["x-ratelimit-limit"], "1");
        assert_eq!(answer.headers["x-ratelimit-remaining"], "0");
        assert_eq!(answer.headers["x-ratelimit-reset"], "1");
        if answer.status == 429 {
            assert_eq!(
                answer.body,
                json!({ "status": 429, "error": "Too Many Requests" })
            );
            assert_eq!(lago.get(&format!("/events/e{number}")).await.status, 404);
            refused = true;
            break;
        }
    }
    assert!(refused);
    assert_eq!(
        lago.get("/events").await.headers["x-ratelimit-limit"],
        "1000"
    );
}

// Rate limits: the open-source API has none.
#[tokio::test]
async fn without_the_setting_nothing_is_limited() {
    let lago = lago().await;
    assert!(
        !lago
            .get("/events")
            .await
            .headers
            .contains_key("x-ratelimit-limit")
    );
}
