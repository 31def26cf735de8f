//! The rows of events of which something was inserted, and who used something.

use model::Identity;
use store::{Subjects, testing::TestStore};

use crate::charged::{ALWAYS, Row, insert, listed, row};

#[tokio::test]
async fn a_key_that_was_inserted_since_is_read_as_it_stands() {
    let test = TestStore::create().await;
    let store = &test.store;
    let rows = |since: i64| async move {
        let rows = store
            .priced_rows_inserted(&["calls"], since..i64::MAX)
            .await;
        listed(&rows.unwrap())
    };
    let kept = row("calls", "kept", "1", "2024-01-02T00:00:00Z");
    let taken = row("calls", "taken", "2", "2024-01-02T00:00:00Z");
    let untouched = row("calls", "untouched", "3", "2024-01-02T00:00:00Z");
    let newest = Row {
        stored_at: 5,
        value: "5",
        ..kept.clone()
    };
    insert(store, &[newest, taken.clone(), untouched]).await;
    let since = store.clock().await.unwrap();
    assert!(rows(since).await.is_empty());

    // The version that stands was inserted before.
    insert(store, std::slice::from_ref(&kept)).await;
    assert_eq!(rows(since).await, ["kept calls 5"]);
    // Taken away since: there is no row any more.
    insert(
        store,
        &[Row {
            stored_at: 2,
            is_deleted: true,
            ..taken.clone()
        }],
    )
    .await;
    assert_eq!(rows(since).await, ["kept calls 5"]);
    // Of an old month, and taken away before it was inserted.
    let late = row("calls", "late", "4", "2021-01-01T00:00:00Z");
    insert(
        store,
        &[
            late,
            Row {
                stored_at: 1,
                ..taken
            },
        ],
    )
    .await;
    assert_eq!(rows(since).await, ["kept calls 5", "late calls 1"]);
    // Another event wins the identity: what it says is part of the key.
    insert(
        store,
        &[Row {
            stored_at: 9,
            is_deleted: true,
            ..kept.clone()
        }],
    )
    .await;
    insert(
        store,
        &[Row {
            content: 2,
            value: "7",
            ..kept
        }],
    )
    .await;
    assert_eq!(rows(since).await, ["kept calls 7", "late calls 1"]);

    let until = store.clock().await.unwrap();
    let before = store
        .priced_rows_inserted(&["calls"], 0..since)
        .await
        .unwrap();
    assert_eq!(listed(&before), ["untouched calls 1"]);
    assert!(rows(until).await.is_empty());
    test.remove().await;
}

#[tokio::test]
async fn the_rows_of_an_event_come_together_whichever_was_inserted() {
    let test = TestStore::create().await;
    let store = &test.store;
    let time = "2024-01-02T00:00:00Z";
    let event = |id: &str| ["calls", "bytes", "free"].map(|meter| row(meter, "a", id, time));
    insert(store, &[event("1"), event("2"), event("3")].concat()).await;
    let since = store.clock().await.unwrap();
    // One row alone, as when a meter was added later.
    insert(store, &event("2")[..1]).await;
    let meters = ["calls", "bytes"];
    let rows = store
        .priced_rows_inserted(&meters, since..i64::MAX)
        .await
        .unwrap();
    assert_eq!(listed(&rows), ["a bytes 1", "a calls 1"]);
    assert!(
        rows.iter()
            .all(|row| row.identity == Identity::of("test", "2"))
    );

    let rows = store
        .priced_rows(&meters, ALWAYS, Subjects::All)
        .await
        .unwrap();
    assert_eq!(rows.len(), 6);
    let events: Vec<_> = rows.chunk_by(|a, b| a.identity == b.identity).collect();
    assert_eq!(events.len(), 3);

    // A row of a meter that has no price is no reason to read the event.
    insert(store, &event("3")[2..]).await;
    let rows = store
        .priced_rows_inserted(&meters, since..i64::MAX)
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
    let none = store
        .priced_rows_inserted(&[], since..i64::MAX)
        .await
        .unwrap();
    assert!(none.is_empty());
    test.remove().await;
}

#[tokio::test]
async fn who_used_a_meter_is_listed_once() {
    let test = TestStore::create().await;
    let time = "2024-01-02T00:00:00Z";
    insert(
        &test.store,
        &[
            row("calls", "b", "1", time),
            row("bytes", "b", "1", time),
            row("bytes", "a", "2", time),
            row("free", "c", "3", time),
        ],
    )
    .await;
    for (meters, expected) in [
        (vec!["calls", "bytes"], vec!["a", "b"]),
        (vec!["calls"], vec!["b"]),
        (vec![], vec![]),
    ] {
        assert_eq!(test.store.subjects_of(&meters).await.unwrap(), expected);
    }
    test.remove().await;
}
