//! Listing events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::Content;
use store::{EventFilter, EventRow, State, StoredEvent, testing::TestStore};

use crate::rows::{event, micros};

fn ids(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

#[tokio::test]
async fn an_event_comes_back_as_it_was_sent() {
    let test = TestStore::create().await;
    let attributes = BTreeMap::from([
        ("datacontenttype".to_owned(), "application/json".to_owned()),
        ("traceparent".to_owned(), "it's \\ \"1\"".to_owned()),
    ]);
    let sent = EventRow {
        data: b"{\"value\":\xff\x00 1.50}",
        state: State::Invalid,
        error: "invalid event: value cannot be NaN",
        ingested_at: micros("2024-01-01T00:00:00.000001Z"),
        stored_at: micros("2024-01-01T00:00:00.5Z"),
        ..event("a", "2023-12-31T00:00:00.123456Z", &attributes)
    };
    let bare = EventRow {
        subject: "",
        data: b"",
        ..event("b", "2023-12-30T00:00:00Z", &attributes)
    };
    test.store.insert_events(&[sent, bare]).await.unwrap();
    let found = test.store.events(&EventFilter::default()).await.unwrap();
    assert_eq!(
        found[0],
        StoredEvent {
            id: "a".into(),
            source: "test".into(),
            event_type: "t".into(),
            subject: Some("s".into()),
            time: "2023-12-31T00:00:00.123456Z".parse().unwrap(),
            data: Some(b"{\"value\":\xff\x00 1.50}".to_vec()),
            attributes: attributes.clone(),
            state: State::Invalid,
            error: Some("invalid event: value cannot be NaN".into()),
            ingested_at: "2024-01-01T00:00:00.000001Z".parse().unwrap(),
            stored_at: "2024-01-01T00:00:00.5Z".parse().unwrap(),
        }
    );
    assert_eq!((&found[1].subject, &found[1].data), (&None, &None));
    test.remove().await;
}

#[tokio::test]
async fn each_filter_keeps_what_it_names_latest_first() {
    let test = TestStore::create().await;
    let attributes = BTreeMap::new();
    let one = event("order-1%_", "2024-01-01T00:00:00Z", &attributes);
    let rows = [
        one,
        EventRow {
            subject: "streaming-subject-'2'",
            ..event("order-2", "2024-01-02T00:00:00Z", &attributes)
        },
        EventRow {
            event_type: "other",
            ingested_at: micros("2024-06-01T00:00:00Z"),
            ..event("x", "2024-01-03T00:00:00Z", &attributes)
        },
        EventRow {
            state: State::Conflict,
            error: "conflict: another event has this source and id",
            content: Content(2),
            ..one
        },
    ];
    test.store.insert_events(&rows).await.unwrap();
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    let all = EventFilter::default;
    for (filter, expected) in [
        (all(), vec!["x", "order-2", "order-1%_", "order-1%_"]),
        (
            EventFilter {
                id: Some("der-".into()),
                ..all()
            },
            vec!["order-2", "order-1%_", "order-1%_"],
        ),
        (
            EventFilter {
                id: Some("%_".into()),
                ..all()
            },
            vec!["order-1%_", "order-1%_"],
        ),
        (
            EventFilter {
                subject: Some("streaming-subject-'2'".into()),
                ..all()
            },
            vec!["order-2"],
        ),
        (
            EventFilter {
                event_type: Some("other".into()),
                ..all()
            },
            vec!["x"],
        ),
        (
            EventFilter {
                from: at("2024-01-02T00:00:00Z"),
                ..all()
            },
            vec!["x", "order-2"],
        ),
        (
            EventFilter {
                to: at("2024-01-02T00:00:00Z"),
                ..all()
            },
            vec!["order-1%_", "order-1%_"],
        ),
        (
            EventFilter {
                ingested_from: at("2024-02-01T00:00:00Z"),
                ..all()
            },
            vec!["x"],
        ),
        (
            EventFilter {
                ingested_to: at("2024-01-02T00:00:00Z"),
                ..all()
            },
            vec!["order-1%_", "order-1%_"],
        ),
        (
            EventFilter {
                limit: Some(1),
                ..all()
            },
            vec!["x"],
        ),
    ] {
        let found = test.store.events(&filter).await.unwrap();
        assert_eq!(ids(&found), expected, "{filter:?}");
    }
    let conflicts = test
        .store
        .events(&EventFilter {
            id: Some("order-1".into()),
            ..all()
        })
        .await
        .unwrap();
    assert_eq!(conflicts[0].state, State::Valid);
    assert_eq!(conflicts[1].state, State::Conflict);
    test.remove().await;
}

#[tokio::test]
async fn times_that_no_meter_can_use_are_kept_and_listed() {
    let test = TestStore::create().await;
    let attributes = BTreeMap::new();
    let times = [
        "9999-12-30T00:00:00Z",
        "2300-01-01T00:00:00Z",
        "1969-12-31T00:00:00Z",
        "0001-01-01T00:00:00Z",
    ];
    let rows = times.map(|time| event(time, time, &attributes));
    test.store.insert_events(&rows).await.unwrap();
    test.store.insert_events(&rows).await.unwrap();
    let found = test.store.events(&EventFilter::default()).await.unwrap();
    assert_eq!(ids(&found), times);
    let late = EventFilter {
        from: Some("2300-01-01T00:00:00Z".parse().unwrap()),
        ..EventFilter::default()
    };
    assert_eq!(ids(&test.store.events(&late).await.unwrap()), times[..2]);
    assert_eq!(found[3].time, "0001-01-01T00:00:00Z".parse().unwrap());
    test.remove().await;
}

#[tokio::test]
async fn a_list_is_full_whatever_was_taken_away() {
    let test = TestStore::create().await;
    let attributes = BTreeMap::new();
    let names: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let times: Vec<String> = names
        .iter()
        .map(|id| format!("2024-01-01T00:00:0{id}Z"))
        .collect();
    let rows: Vec<_> = names
        .iter()
        .zip(&times)
        .map(|(id, time)| event(id, time, &attributes))
        .collect();
    let gone: Vec<_> = rows[5..]
        .iter()
        .map(|row| EventRow {
            stored_at: 2,
            is_deleted: true,
            ..*row
        })
        .collect();
    test.store.insert_events(&rows).await.unwrap();
    test.store.insert_events(&gone).await.unwrap();
    let filter = EventFilter {
        limit: Some(3),
        ..EventFilter::default()
    };
    assert_eq!(
        ids(&test.store.events(&filter).await.unwrap()),
        ["4", "3", "2"]
    );
    test.remove().await;
}
