//! What is lost on the way comes back, and nothing is counted twice for it.

use serde_json::Value;
use tests::stack::Stack;

use crate::support::{METERS, call, forget, listed, totals};

fn calls(shift: usize) -> Vec<Value> {
    let time = |number: usize| format!("2024-01-15T10:{:02}:{:02}Z", number / 60 % 60, number % 60);
    (0..500)
        .map(|number| {
            call(
                &number.to_string(),
                &format!("tpp-{}", number % 7),
                &time(number + shift),
                number as u64,
            )
        })
        .collect()
}

#[tokio::test]
async fn a_registry_that_forgot_everything_counts_no_repeat() {
    let stack = Stack::start(METERS).await.unwrap();
    stack.post_events(&calls(0)).await.unwrap();
    stack.wait_until_counted(500).await.unwrap();
    let before = totals(&stack).await;
    forget(&stack).await;
    // The same calls with later times: only the identity tells that they are repeats.
    stack.post_events(&calls(60)).await.unwrap();
    stack.wait_until_counted(1000).await.unwrap();
    assert_eq!(totals(&stack).await, before);
    assert_eq!(before, ["500", "124750"]);
    let by_minute = stack
        .query("api_calls", &[("windowSize", "MINUTE")])
        .await
        .unwrap();
    assert_eq!(by_minute.len(), 9, "each at its first delivery's time");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_replay_of_the_whole_topic_changes_nothing() {
    let stack = Stack::start(METERS).await.unwrap();
    let mut sent = calls(0);
    sent.extend(calls(60).into_iter().take(100));
    sent.push(call("7", "tpp-1", "2024-01-15T11:00:00Z", 1_000_000));
    stack.post_events(&sent).await.unwrap();
    stack.wait_until_counted(601).await.unwrap();
    let (before, events) = (totals(&stack).await, listed(&stack).await);
    stack.replay().await.unwrap();
    assert_eq!(totals(&stack).await, before);
    assert_eq!(listed(&stack).await.len(), events.len());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn tables_that_were_lost_are_made_again_from_kafka() {
    let stack = Stack::start(METERS).await.unwrap();
    let mut sent = calls(0);
    sent.extend(calls(60));
    stack.post_events(&sent).await.unwrap();
    stack.wait_until_counted(1000).await.unwrap();
    let before = totals(&stack).await;
    for table in ["events", "usage"] {
        stack
            .clickhouse(&format!("TRUNCATE TABLE {table} SYNC"))
            .await
            .unwrap();
    }
    forget(&stack).await;
    assert_eq!(totals(&stack).await, ["none", "none"]);
    stack.replay().await.unwrap();
    assert_eq!(totals(&stack).await, before);
    stack.stop().await.unwrap();
}
