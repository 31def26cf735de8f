//! What a gateway is told.

use serde_json::{Value, json};
use tests::stack::Stack;

use super::till::{Till, call};
use crate::support::METERS;

#[tokio::test]
async fn a_tpp_is_let_in_until_its_credits_are_spent_and_again_after_a_top_up() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    assert_eq!(till.check("tpp-1").await.line(), "402 unknown -");
    assert_eq!(till.grant("tpp-1", "first", "3").await.status, 201);
    assert_eq!(till.check("tpp-1").await.line(), "200 ok 3");

    let calls: Vec<_> = (0..3).map(|n| call(&n.to_string(), "tpp-1", 0)).collect();
    stack.post_events(&calls).await.unwrap();
    till.wait_for_balance("tpp-1", "0").await;
    let refused = till.check("tpp-1").await;
    assert_eq!(refused.line(), "402 spent 0");
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(problem["status"], 402);
    assert_eq!(problem["extensions"]["status"], "spent");
    let nginx = till.get("/api/v1/quota/tpp-1/auth").await;
    assert_eq!(
        (nginx.line(), nginx.body),
        ("403 spent 0".to_owned(), String::new())
    );

    // The same calls again, and one that pretends to be one of them.
    stack.post_events(&calls).await.unwrap();
    let payment = json!({"endpoint": "/payments", "method": "POST", "response_time_ms": 1});
    let mut conflict = call("1", "tpp-1", 0);
    conflict["data"] = payment.clone();
    let mut dear = call("dear", "tpp-1", 0);
    dear["data"] = payment;
    stack.post_events(&[conflict, dear]).await.unwrap();
    // 5 for the payment; 0.0000005 is half a micro-credit, which goes to the even one.
    till.wait_for_balance("tpp-1", "-5").await;

    assert_eq!(till.grant("tpp-1", "second", "7.5").await.status, 201);
    assert_eq!(till.check("tpp-1").await.line(), "200 ok 2.5");
    assert_eq!(
        till.get("/api/v1/quota/tpp-1/auth").await.line(),
        "204 ok 2.5"
    );
    assert_eq!(
        till.get("/api/v1/quota/tpp-1/check?cost=2.5").await.line(),
        "200 ok 2.5"
    );
    assert_eq!(
        till.get("/api/v1/quota/tpp-1/check?cost=2.500001")
            .await
            .line(),
        "402 spent 2.5"
    );
    stack.wait_until_counted(8).await.unwrap();
    till.reconcile().await;
    assert_eq!(
        till.balance("tpp-1").await,
        "2.5",
        "reconcile finds nothing to add"
    );
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_grant_counts_once_for_its_key() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    for (key, amount, status, balance) in [
        ("a", "10", 201, "10"),
        ("a", "10.000000", 200, "10"),
        ("a", "11", 409, "10"),
        ("b", "0.5", 201, "10.5"),
        ("c", "-2", 201, "8.5"),
        ("d", "0", 400, "8.5"),
        ("d", "0.0000001", 400, "8.5"),
        ("d", "ten", 400, "8.5"),
        ("d", "9007199254.740991", 400, "8.5"),
        ("", "1", 400, "8.5"),
    ] {
        let answer = till.grant("tpp-1", key, amount).await;
        assert_eq!(answer.status, status, "{key} {amount}: {answer}");
        assert_eq!(till.balance("tpp-1").await, balance, "{key} {amount}");
    }
    let anonymous = reqwest::Client::new()
        .post(format!("{}/api/v1/quota/tpp-1/grants", till.url))
        .json(&json!({"amount": "1"}));
    assert_eq!(super::till::Seen::of(anonymous).await.status, 401);
    let anonymous = async |method: &str, path: &str, body: &Value| {
        let url = format!("{}{path}", till.url);
        let request = reqwest::Client::new().request(method.parse().unwrap(), url);
        super::till::Seen::of(request.json(body)).await.status
    };
    let amount = json!({"amount": "1"});
    for (method, path) in [
        ("GET", "/api/v1/quota/tpp-1/grants"),
        ("PUT", "/api/v1/quota/tpp-1/holds/h"),
        ("DELETE", "/api/v1/quota/tpp-1/holds/h"),
        ("POST", "/rebuild"),
    ] {
        assert_eq!(
            anonymous(method, path, &amount).await,
            401,
            "{method} {path}"
        );
    }
    for (body, field) in [
        (json!({"amount": 5}), "amount"),
        (json!({}), "amount"),
        (json!({"amount": "5", "note": "n".repeat(1001)}), "note"),
    ] {
        let refused = till.send("POST", "/api/v1/quota/tpp-1/grants", &body).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
        let named = refused.body.contains(field) || refused.body.contains("Idempotency-Key");
        assert!(named, "{}", refused.body);
    }
    let listed = till
        .send("GET", "/api/v1/quota/tpp-1/grants", &Value::Null)
        .await;
    let listed: Value = serde_json::from_str(&listed.body).unwrap();
    let ids: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["id"])
        .collect();
    assert_eq!(ids, ["a", "b", "c"]);
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_hold_sets_aside_what_a_call_will_cost_until_its_event_comes() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    till.grant("tpp-1", "a", "10").await;
    let hold = |name: &str, amount: &str, ends: &str| {
        let path = format!("/api/v1/quota/tpp-1/holds/{name}");
        let body = json!({"amount": amount, "expiresIn": ends});
        (path, body)
    };
    let (path, body) = hold("h1", "6", "PT1M");
    assert_eq!(till.send("PUT", &path, &body).await.line(), "200 ok 4");
    assert_eq!(
        till.send("PUT", &path, &body).await.line(),
        "200 ok 4",
        "held once"
    );
    let (path, body) = hold("h1", "7", "PT1M");
    assert_eq!(
        till.send("PUT", &path, &body).await.line(),
        "409 conflict -"
    );
    let (path, body) = hold("h2", "5", "PT1M");
    assert_eq!(till.send("PUT", &path, &body).await.line(), "402 spent 4");
    let (path, body) = hold("h3", "4", "PT1M");
    assert_eq!(till.send("PUT", &path, &body).await.line(), "200 ok 0");
    assert_eq!(till.check("tpp-1").await.line(), "402 spent 0");
    assert_eq!(till.send("DELETE", &path, &Value::Null).await.status, 204);
    assert_eq!(till.check("tpp-1").await.line(), "200 ok 4");

    // What the call really cost is taken off, and the hold is gone.
    let mut payment = call("1", "tpp-1", 0);
    payment["hold"] = json!("h1");
    stack.post_events(&[payment]).await.unwrap();
    till.wait_for_balance("tpp-1", "9").await;
    assert_eq!(till.check("tpp-1").await.line(), "200 ok 9");

    let (path, body) = hold("short", "9", "PT0.2S");
    assert_eq!(till.send("PUT", &path, &body).await.line(), "200 ok 0");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while till.check("tpp-1").await.line() != "200 ok 9" {
        assert!(
            std::time::Instant::now() < until,
            "the hold must end by itself"
        );
    }
    for ends in ["PT0S", "-PT1S", "PT0.0001S", "PT25H", "soon"] {
        let (path, body) = hold("bad", "1", ends);
        let refused = till.send("PUT", &path, &body).await;
        assert_eq!(refused.status, 400, "{ends}");
        assert!(refused.body.contains("expiresIn"), "{}", refused.body);
    }
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn policies_say_how_far_an_account_may_go() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    assert_eq!(till.check("overdrawn").await.line(), "200 ok 2");
    assert_eq!(till.check("internal").await.line(), "200 unlimited 0");
    let calls = ["overdrawn", "internal"].map(|subject| call(subject, subject, 0));
    stack.post_events(&calls).await.unwrap();
    till.wait_for_balance("overdrawn", "-1").await;
    till.wait_for_balance("internal", "-1").await;
    assert_eq!(till.check("overdrawn").await.line(), "200 ok 1");
    assert_eq!(till.check("internal").await.line(), "200 unlimited -1");

    let batch = json!({"checks": [
        {"subject": "overdrawn"}, {"subject": "overdrawn", "cost": "1.1"}, {"subject": "nobody"},
    ]});
    let answer = till.send("POST", "/api/v1/quota/check", &batch).await;
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        answer,
        json!({"checks": [
            {"subject": "overdrawn", "allowed": true, "status": "ok", "remaining": "1"},
            {"subject": "overdrawn", "allowed": false, "status": "spent", "remaining": "1"},
            {"subject": "nobody", "allowed": false, "status": "unknown"},
        ]})
    );
    let wrong = json!({"checks": [{"subject": "a"}, {"subject": "a", "cost": "-1"}]});
    let answer = till.send("POST", "/api/v1/quota/check", &wrong).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("checks[1].cost"), "{}", answer.body);

    let root = reqwest::Client::new().get(format!("{}/ext-authz/", till.url));
    let root = root.header("x-tpp-id", "overdrawn");
    assert_eq!(super::till::Seen::of(root).await.line(), "200 ok 1");
    let two = reqwest::Client::new().get(format!("{}/ext-authz/v1", till.url));
    let two = two
        .header("x-tpp-id", "overdrawn")
        .header("x-tpp-id", "internal");
    assert_eq!(super::till::Seen::of(two).await.line(), "401 - -");
    for subject in [String::new(), "s".repeat(1025)] {
        let refused = till.check(&subject).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert!(refused.body.contains("subject"), "{}", refused.body);
    }
    let envoy = |subject: Option<&'static str>| {
        let request =
            reqwest::Client::new().post(format!("{}/ext-authz/v1/accounts?x=y", till.url));
        match subject {
            Some(subject) => request.header("x-tpp-id", subject),
            None => request,
        }
    };
    for (subject, line) in [
        (Some("overdrawn"), "200 ok 1"),
        (Some("nobody"), "402 unknown -"),
        (None, "401 - -"),
    ] {
        assert_eq!(super::till::Seen::of(envoy(subject)).await.line(), line);
    }
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_said_while_valkey_is_away_is_configured() {
    let stack = Stack::start(METERS).await.unwrap();
    let nowhere = ("OPENMETER_VALKEY_URL", "redis://127.0.0.1:1");
    for (when_away, check, nginx) in [
        ("closed", "503 unavailable -", "403 unavailable -"),
        ("open", "200 unavailable -", "204 unavailable -"),
    ] {
        let settings = [nowhere, ("OPENMETER_QUOTA_WHEN_AWAY", when_away)];
        let till = Till::start_with(&stack, &settings).await;
        let asked = std::time::Instant::now();
        assert_eq!(till.check("tpp-1").await.line(), check);
        assert!(
            asked.elapsed() < std::time::Duration::from_secs(1),
            "a gateway waits"
        );
        assert_eq!(till.get("/api/v1/quota/tpp-1/auth").await.line(), nginx);
        assert_eq!(
            till.grant("tpp-1", "a", "1").await.status,
            503,
            "never accepted unkept"
        );
        till.stop().await;
    }
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn all_who_ask_for_an_account_that_was_lost_are_told() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    let subjects: Vec<_> = (0..40).map(|n| format!("tpp-{n}")).collect();
    for subject in &subjects {
        till.grant(subject, "a", "1").await;
    }
    crate::support::forget(&stack).await;
    let asked = std::time::Instant::now();
    let all = (0..30).map(|_| till.check("tpp-0"));
    for seen in futures::future::join_all(all).await {
        assert_eq!(seen.line(), "200 ok 1");
    }
    let checks: Vec<_> = subjects
        .iter()
        .map(|subject| json!({"subject": subject}))
        .collect();
    let batch = json!({"checks": checks});
    let answer = till.send("POST", "/api/v1/quota/check", &batch).await;
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    for check in answer["checks"].as_array().unwrap() {
        assert_eq!(check["status"], "ok", "{check}");
    }
    assert!(
        asked.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    till.stop().await;
    stack.stop().await.unwrap();
}
