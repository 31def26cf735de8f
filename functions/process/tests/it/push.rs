//! Events that are posted one by one, and counted together.

use ::stream::{CloudEvent, http};
use axum::body::{Body, Bytes};
use futures::{StreamExt as _, future::join_all, stream};

use crate::support::{Service, binary, call, post};

#[tokio::test]
async fn requests_in_flight_together_share_a_block() {
    let process = Service::start();
    let ids: Vec<_> = (0..200).map(|id| id.to_string()).collect();
    let answers = join_all(ids.iter().map(|id| process.call(id, 2))).await;
    for answer in &answers {
        assert_eq!(answer.status, 204);
        assert!(answer.body.is_empty(), "Knative takes a body for an event");
    }
    assert_eq!(process.totals().await, ["200", "400"]);
    let blocks = process.blocks().await;
    assert!(blocks <= 20, "{blocks} blocks for 200 events");
    process.remove().await;
}

#[tokio::test]
async fn an_event_that_comes_on_fifty_connections_to_two_instances_counts_once() {
    let process = Service::start();
    let other = process.another();
    for id in ["a", "b", "c"] {
        let mine = (0..25).map(|_| process.call(id, 7));
        let others = (0..25).map(|_| call(&other, id, 7));
        let (mine, others) = tokio::join!(join_all(mine), join_all(others));
        assert!(
            mine.iter()
                .chain(&others)
                .all(|answer| answer.status == 204)
        );
    }
    assert_eq!(process.totals().await, ["3", "21"]);
    process.remove().await;
}

#[tokio::test]
async fn structured_mode_is_taken_too() {
    let process = Service::start();
    let event = r#"{"specversion":"1.0","id":"1","source":"/gw","type":"call","subject":"tpp-1",
        "time":"2026-01-31T10:20:30Z","ingestedat":"2026-01-31T10:20:31Z","data":{"ms":5}}"#;
    let headers = [("content-type", "application/cloudevents+json")];
    assert_eq!(process.post(&headers, event).await.status, 204);
    // The same event, as a KafkaSource sends it.
    assert_eq!(process.call("1", 5).await.status, 204);
    assert_eq!(process.totals().await, ["1", "5"]);
    process.remove().await;
}

#[tokio::test]
async fn what_can_never_be_counted_is_400_and_says_why() {
    let process = Service::start();
    let wrapped = [
        ("ce-specversion", "1.0"),
        ("ce-id", "partition:0/offset:7"),
        ("ce-source", "/apis/v1/namespaces/n/kafkasources/s#t"),
        ("ce-type", "dev.knative.kafka.event"),
        ("ce-time", "2026-01-31T10:20:30Z"),
    ];
    let long = "x".repeat(5_000_000);
    let batch = [("content-type", "application/cloudevents-batch+json")];
    for (headers, body, reason) in [
        (&wrapped[..], "junk", "holds no CloudEvent"),
        (&wrapped[1..], "junk", "specversion is required"),
        (&[("content-type", "text/plain")], "junk", "content type"),
        (&[], "", "content type"),
        (&batch, "[]", "batch is not accepted"),
        (&binary("1", "call"), &long, "more than 4194304 bytes"),
    ] {
        let answer = process.post(headers, body.to_owned()).await;
        assert_eq!(answer.status, 400, "{headers:?}");
        assert!(answer.detail().contains(reason), "{}", answer.detail());
    }
    let endless = stream::repeat(Bytes::from(vec![b'x'; 1 << 16])).take(100);
    let endless = Body::from_stream(endless.map(Ok::<_, std::io::Error>));
    assert_eq!(
        process.post(&binary("1", "call"), endless).await.status,
        400
    );
    process.remove().await;
}

#[tokio::test]
async fn an_event_that_no_meter_takes_is_kept_whatever_its_type() {
    let process = Service::start();
    for event_type in ["other", "dev.knative.kafka.event"] {
        let answer = process.post(&binary(event_type, event_type), "{}").await;
        assert_eq!(answer.status, 204, "{event_type}");
    }
    let sql = "SELECT error FROM events_current ORDER BY error";
    assert_eq!(
        process.store.texts(sql).await,
        [
            "no meter found for event type: dev.knative.kafka.event",
            "no meter found for event type: other",
        ]
    );
    process.remove().await;
}

#[tokio::test]
async fn a_budget_that_is_used_up_is_429_and_comes_back() {
    let process = Service::with(|config| config.in_flight = 10_000);
    let ids: Vec<_> = (0..100).map(|id| id.to_string()).collect();
    let answers = join_all(ids.iter().map(|id| process.call(id, 1))).await;
    let taken = answers.iter().filter(|answer| answer.status == 204).count();
    let busy: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 429)
        .collect();
    assert_eq!(taken + busy.len(), 100);
    assert!(taken >= 1 && !busy.is_empty(), "{taken} were taken");
    assert!(
        busy.iter()
            .all(|answer| answer.headers["retry-after"] == "1")
    );
    assert_eq!(process.call("later", 1).await.status, 204);
    assert_eq!(process.totals().await[0], (taken + 1).to_string());
    process.remove().await;
}

#[tokio::test]
async fn a_client_that_goes_away_does_no_harm() {
    let process = Service::start();
    for id in ["a", "b", "c"] {
        // Dropped once it has been looked at: before, in or after its block.
        let mut posted = Box::pin(process.call(id, 3));
        assert!(futures::poll!(&mut posted).is_pending());
        drop(posted);
    }
    assert_eq!(process.call("d", 3).await.status, 204);
    // They come again.
    for id in ["a", "b", "c"] {
        assert_eq!(process.call(id, 3).await.status, 204);
    }
    assert_eq!(process.totals().await, ["4", "12"]);
    process.remove().await;
}

#[tokio::test]
async fn a_pushing_process_takes_no_records_of_lambda() {
    let process = Service::start();
    let answer = post(&process.router, "/events", &[], "{}").await;
    assert_eq!(answer.status, 404);
    std::fs::remove_file(&process.config.meters).unwrap();
}

#[tokio::test]
async fn events_that_a_header_mangles_are_counted_as_what_they_were() {
    let process = Service::start();
    // By Knative's data plane each two of them are one.
    let ids = ["日本", "日木", "%41", "A"];
    for id in ids {
        let mut event = CloudEvent::new(id, "/gw", "call")
            .with_subject(id)
            .with_time("2026-01-31T10:20:30Z".parse().unwrap())
            .with_data("application/json", r#"{"ms":2}"#);
        event.stamp("2026-01-31T10:20:31.000001Z".parse().unwrap());
        let (headers, _) = http::encode(&event).unwrap();
        let by_the_book: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let raw: String = id
            .chars()
            .map(|letter| if letter.is_ascii() { letter } else { '?' })
            .collect();
        let mangled: Vec<_> = by_the_book
            .iter()
            .map(|&(name, value)| match name {
                "ce-id" | "ce-subject" => (name, &*raw),
                _ => (name, value),
            })
            .collect();
        for headers in [mangled, by_the_book] {
            assert_eq!(process.post(&headers, r#"{"ms":2}"#).await.status, 204);
        }
    }
    assert_eq!(process.totals().await, ["4", "8"]);
    let sql = "SELECT subject FROM usage_current WHERE meter = 'calls' ORDER BY subject";
    let subjects = process.store.texts(sql).await;
    assert_eq!(subjects, ["%41", "A", "日木", "日本"]);
    process.remove().await;
}
