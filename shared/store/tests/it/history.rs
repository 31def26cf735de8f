//! What the ledger asks about the past.

use std::collections::BTreeMap;

use model::{Content, History, Identity, Seen};
use store::{EventRow, State, testing::TestStore};

use crate::rows::{event, micros};

#[tokio::test]
async fn counted_rows_are_found_by_identity() {
    let test = TestStore::create().await;
    let attributes = BTreeMap::new();
    let a = event("a", "2024-01-01T00:00:00Z", &attributes);
    let rows = [
        a,
        EventRow {
            time: micros("2024-02-01T00:00:00Z"),
            ..a
        },
        EventRow {
            state: State::Conflict,
            content: Content(2),
            ..a
        },
        EventRow {
            state: State::Invalid,
            ..event("b", "2024-01-01T00:00:00Z", &attributes)
        },
        event("gone", "2024-01-01T00:00:00Z", &attributes),
    ];
    test.store.insert_events(&rows).await.unwrap();
    let again = [
        EventRow { stored_at: 2, ..a },
        EventRow {
            stored_at: 2,
            is_deleted: true,
            ..rows[4]
        },
    ];
    test.store.insert_events(&again).await.unwrap();

    let of = |id| Identity::of("test", id);
    let found = test
        .store
        .seen(&[of("a"), of("b"), of("gone"), of("never")])
        .await
        .unwrap();
    let seen = |time: &str| Seen {
        time: micros(time),
        ingested_at: micros("2024-01-01T00:00:00Z"),
        content: Content(1),
    };
    let mut of_a = found[&of("a")].clone();
    of_a.sort_by_key(|seen| seen.time);
    assert_eq!(
        of_a,
        [seen("2024-01-01T00:00:00Z"), seen("2024-02-01T00:00:00Z")]
    );
    assert_eq!(found[&of("b")], [seen("2024-01-01T00:00:00Z")]);
    assert_eq!(found.len(), 2);
    assert!(test.store.seen(&[]).await.unwrap().is_empty());
    test.remove().await;
}

#[tokio::test]
async fn counted_rows_are_read_in_the_order_of_storing() {
    let test = TestStore::create().await;
    let attributes = BTreeMap::new();
    let ids: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let rows: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(place, id)| EventRow {
            stored_at: 100 - place as i64,
            ingested_at: 1000 + place as i64,
            state: if place == 49 {
                State::Conflict
            } else {
                State::Valid
            },
            ..event(id, "2024-01-01T00:00:00Z", &attributes)
        })
        .collect();
    test.store.insert_events(&rows).await.unwrap();
    let page = test.store.seen_after(60, 1010).await.unwrap();
    let ingested: Vec<_> = page.rows.iter().map(|(_, seen)| seen.ingested_at).collect();
    assert_eq!(ingested, (1010..1040).rev().collect::<Vec<_>>());
    assert_eq!(page.next, None);
    test.remove().await;
}
