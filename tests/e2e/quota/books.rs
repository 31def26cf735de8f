//! Accounts and books: what was lost, late or repeated, and comes to the same balance.

use jiff::{SignedDuration, Timestamp};
use model::{Content, Identity};
use serde_json::json;
use store::UsageRecord;
use tests::stack::Stack;

use super::till::{Till, call};
use crate::support::{METERS, forget};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

#[tokio::test]
async fn what_valkey_lost_is_told_again_when_it_is_asked_for() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    for subject in ["tpp-1", "tpp-2"] {
        till.grant(subject, "a", "100").await;
    }
    let calls: Vec<_> = (0..30)
        .map(|n| call(&n.to_string(), ["tpp-1", "tpp-2"][n % 2], 1000 * n as u64))
        .collect();
    stack.post_events(&calls).await.unwrap();
    stack.wait_until_counted(30).await.unwrap();
    // 15 calls, and 0.0005 for each second of the even ones.
    till.wait_for_balance("tpp-1", "84.895").await;
    till.wait_for_balance("tpp-2", "84.8875").await;

    forget(&stack).await;
    assert_eq!(till.check("tpp-1").await.line(), "200 ok 84.895");
    assert_eq!(till.balance("tpp-2").await, "84.8875");
    // All of it again, before the registry is whole and after.
    stack.post_events(&calls).await.unwrap();
    stack.wait_until_counted(60).await.unwrap();
    stack
        .post_events(&[call("last", "tpp-1", 0)])
        .await
        .unwrap();
    stack.wait_until_counted(61).await.unwrap();
    till.reconcile().await;
    till.wait_for_balance("tpp-1", "83.895").await;
    assert_eq!(till.balance("tpp-2").await, "84.8875");

    let answer = till
        .send("POST", "/rebuild", &json!({"subjects": []}))
        .await;
    assert_eq!(answer.status, 204);
    assert_eq!(till.check("tpp-1").await.line(), "200 ok 83.895");
    assert_eq!(till.balance("tpp-2").await, "84.8875");
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_stream_cannot_judge_is_left_to_reconcile() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    till.grant("tpp-1", "a", "100").await;
    let now = Timestamp::now();
    let late = |id: &str, days: i64| {
        let time = now - SignedDuration::from_hours(24 * days);
        crate::support::call(id, "tpp-1", &time.to_string(), 0)
    };
    stack
        .post_events(&[late("a", 2), late("b", 40), call("c", "tpp-1", 0)])
        .await
        .unwrap();
    stack.wait_until_counted(3).await.unwrap();
    till.wait_for_balance("tpp-1", "99").await;
    till.reconcile().await;
    assert_eq!(till.balance("tpp-1").await, "97");
    // Sent again as they were, and once more with today's time, which makes them no new events.
    stack
        .post_events(&[late("a", 2), late("b", 40), call("a", "tpp-1", 0)])
        .await
        .unwrap();
    stack.wait_until_counted(6).await.unwrap();
    till.reconcile().await;
    assert_eq!(till.balance("tpp-1").await, "97");
    till.stop().await;
    stack.stop().await.unwrap();
}

/// A call that ingest took `days` ago and process stored now.
async fn store_call(stack: &Stack, id: u8, days: i64, is_deleted: bool) {
    store_calls(stack, id, days, "1", is_deleted).await;
}

/// As if it were so many calls.
async fn store_calls(stack: &Stack, id: u8, days: i64, calls: &str, is_deleted: bool) {
    let now = Timestamp::now().as_microsecond();
    let identity = Identity([id; 16]);
    let row = UsageRecord {
        meter: "api_calls",
        subject: "tpp-1",
        time: 1_700_000_000_000_000,
        identity,
        content: Content(1),
        value: calls.parse().unwrap(),
        text: "",
        dimensions: &[],
        groups: &[],
        definitions: 1,
        ingested_at: now - days * DAY,
        stored_at: now,
        is_deleted,
    };
    stack.store().insert_usage(&[row]).await.unwrap();
}

#[tokio::test]
async fn days_that_are_past_are_sums_and_take_late_rows_all_the_same() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    for id in 0..4 {
        store_call(&stack, id, i64::from(id), false).await;
    }
    till.grant("tpp-1", "a", "10").await;
    assert_eq!(till.balance("tpp-1").await, "6");
    store_call(&stack, 10, 5, false).await;
    store_call(&stack, 11, 0, false).await;
    till.reconcile().await;
    assert_eq!(till.balance("tpp-1").await, "4");
    // A winner that gave its place up, on a day that is past.
    store_call(&stack, 3, 3, true).await;
    till.reconcile().await;
    assert_eq!(till.balance("tpp-1").await, "5");
    till.send("POST", "/rebuild", &json!({"subjects": ["tpp-1"]}))
        .await;
    assert_eq!(till.balance("tpp-1").await, "5");
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn debits_and_checks_go_on_while_clickhouse_is_away() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    till.grant("tpp-1", "a", "2").await;
    till.stop().await;
    let nowhere = [("OPENMETER_CLICKHOUSE_ADDRESS", "127.0.0.1:1")];
    let till = Till::start_with(&stack, &nowhere).await;
    let calls = ["1", "2"].map(|id| call(id, "tpp-1", 0));
    stack.post_events(&calls).await.unwrap();
    till.wait_for_balance("tpp-1", "0").await;
    assert_eq!(till.check("tpp-1").await.line(), "402 spent 0");
    assert_eq!(till.check("nobody").await.line(), "503 unavailable -");
    assert_eq!(till.grant("tpp-1", "b", "1").await.status, 503);
    assert_eq!(
        till.balance("tpp-1").await,
        "0",
        "nothing is granted that is not kept"
    );
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn what_costs_more_than_an_account_can_hold_gives_no_credits_back() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    for id in 0..9 {
        store_calls(&stack, id, 5, "1000000000", false).await;
    }
    till.grant("tpp-1", "a", "100").await;
    assert_eq!(till.check("tpp-1").await.line(), "402 spent -8999999900");
    for id in 10..20 {
        store_calls(&stack, id, 5, "1000000000", false).await;
    }
    till.reconcile().await;
    assert_eq!(
        till.check("tpp-1").await.line(),
        "402 spent -9007199154.740991"
    );
    till.send("POST", "/rebuild", &json!({"subjects": ["tpp-1"]}))
        .await;
    assert_eq!(
        till.check("tpp-1").await.line(),
        "402 spent -9007199154.740991"
    );
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_granted_and_used_over_years_fits_by_turns() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    for (turn, day) in [(0_u8, 9), (1, 7), (2, 5)] {
        for id in 0..5 {
            store_calls(&stack, turn * 10 + id, day, "1000000000", false).await;
        }
        till.grant("tpp-1", &turn.to_string(), "5000000001").await;
        till.reconcile().await;
    }
    assert_eq!(till.balance("tpp-1").await, "3");
    forget(&stack).await;
    assert_eq!(till.check("tpp-1").await.line(), "200 ok 3");
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_policy_that_is_taken_away_is_in_force_no_more() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    stack
        .post_events(&[call("1", "internal", 0)])
        .await
        .unwrap();
    stack.wait_until_counted(1).await.unwrap();
    till.reconcile().await;
    assert_eq!(till.check("internal").await.line(), "200 unlimited -1");
    assert_eq!(till.check("overdrawn").await.line(), "200 ok 2");
    till.change_rules("    internal: unlimited\n", "");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while till.check("internal").await.line() != "402 unknown -" {
        assert!(
            std::time::Instant::now() < until,
            "{}",
            till.check("internal").await.line()
        );
        till.reconcile().await;
    }
    till.change_rules("{overdraft: 2}", "{overdraft: 7}");
    while till.check("overdrawn").await.line() != "200 ok 7" {
        assert!(
            std::time::Instant::now() < until,
            "{}",
            till.check("overdrawn").await.line()
        );
        till.reconcile().await;
    }
    till.stop().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn who_has_no_account_leaves_nothing_in_valkey() {
    let stack = Stack::start(METERS).await.unwrap();
    let till = Till::start(&stack).await;
    assert_eq!(till.check("invented").await.line(), "402 unknown -");
    let calls: Vec<_> = (0..5)
        .map(|n| call(&n.to_string(), "postpaid", 0))
        .collect();
    stack.post_events(&calls).await.unwrap();
    stack.wait_until_counted(5).await.unwrap();
    assert_eq!(till.check("postpaid").await.line(), "402 unknown -");
    let url = std::env::var("OPENMETER_VALKEY_URL");
    let url = url.unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    for subject in ["invented", "postpaid"] {
        let beginning = format!("{}:credits:{{{subject}}}", stack.name());
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            // What the stream debits meanwhile goes with the next run.
            till.reconcile().await;
            if ledger::testing::forget(&url, &beginning).await.unwrap() == 0 {
                break;
            }
            assert!(std::time::Instant::now() < until, "{subject} leaves keys");
        }
    }
    // What was used before is in the books of one that is granted something.
    till.grant("postpaid", "a", "7").await;
    assert_eq!(till.balance("postpaid").await, "2");
    till.stop().await;
    stack.stop().await.unwrap();
}
