//! What is accepted is in the topic, and what is not is not.

use axum::http::StatusCode;

use crate::support::{BATCH, BINARY, STRUCTURED, Service, object};

#[tokio::test]
async fn what_is_accepted_is_in_the_topic_byte_for_byte() {
    let ingest = Service::start("bytes").await;
    let data = "{\"n\": 12345678901234567890.123456789,\t\"n\":1e2}";
    let mut headers = BINARY.to_vec();
    headers.extend([
        ("content-type", "application/json; charset=utf-8"),
        ("ce-subject", "a%20b"),
        ("ce-time", "2026-01-31T10:20:30.123456789+01:00"),
        ("ce-ingestedat", "1999-01-01T00:00:00Z"),
        ("ce-partitionkey", "tpp-7"),
    ]);
    let answer = ingest.post("/", &headers, data).await;
    assert_eq!(
        (answer.status, answer.body.len()),
        (StatusCode::ACCEPTED, 0)
    );

    let [event] = &ingest.topic(1).await[..] else {
        panic!("one event")
    };
    assert_eq!(event.data.as_deref(), Some(data.as_bytes()));
    assert_eq!(event.subject.as_deref(), Some("a b"));
    assert_eq!(event.time.to_string(), "2026-01-31T09:20:30.123456789Z");
    assert!(event.ingested_at > "2026-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(event.attributes["partitionkey"], "tpp-7");
    assert_eq!(
        event.attributes["datacontenttype"],
        "application/json; charset=utf-8"
    );
}

#[tokio::test]
async fn a_batch_is_accepted_whole_and_its_time_filled_in() {
    let ingest = Service::start("batch").await;
    let time = r#","time":"2026-01-31T10:20:30Z""#;
    let events: Vec<_> = (0..1000)
        .map(|id| {
            object(
                &id.to_string(),
                if id == 0 {
                    time
                } else {
                    r#","data":{"a": 1.0}"#
                },
            )
        })
        .collect();
    let answer = ingest
        .post("/", &[BATCH], format!("[{}]", events.join(",")))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let mut events = ingest.topic(1000).await;
    events.sort_by_key(|event| event.id.parse::<usize>().unwrap());
    assert!(
        events.is_sorted_by(|one, next| one.ingested_at < next.ingested_at),
        "of two alike one is the first"
    );
    assert_eq!(events[0].time.to_string(), "2026-01-31T10:20:30Z");
    for event in &events[1..] {
        assert_eq!(event.time, event.ingested_at);
        assert_eq!(event.data.as_deref(), Some(&br#"{"a": 1.0}"#[..]));
    }
}

#[tokio::test]
async fn nothing_of_a_batch_with_one_bad_event_is_in_the_topic() {
    let ingest = Service::start("half").await;
    let half = format!(
        "[{},{},{}]",
        object("1", ""),
        object("2", r#","time":"noon""#),
        object("3", "")
    );
    for path in ["/", "/api/v1/events"] {
        assert_eq!(
            ingest.post(path, &[BATCH], half.clone()).await.status,
            StatusCode::BAD_REQUEST
        );
    }
    // Partitions are in order, and this one's key puts an event behind each of the others.
    let last = ingest.post("/", &[STRUCTURED], object("last", "")).await;
    assert_eq!(last.status, StatusCode::ACCEPTED);
    let ids: Vec<_> = ingest
        .topic(1)
        .await
        .into_iter()
        .map(|event| event.id)
        .collect();
    assert_eq!(ids, ["last"]);
}

#[tokio::test]
async fn metrics_tell_what_was_taken() {
    let ingest = Service::start("metrics").await;
    ingest.post("/", &[STRUCTURED], object("1", "")).await;
    ingest.post("/", &[STRUCTURED], "{").await;
    let metrics = ingest.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        "openmeter_events_ingested_total ",
        "openmeter_ingest_rejected_total{reason=\"invalid\"} ",
        "openmeter_ingest_produce_seconds_count ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn what_no_header_brings_through_is_in_the_topic_as_it_was() {
    let ingest = Service::start("original").await;
    let mut headers = BINARY.to_vec();
    headers[1].1 = "100%25";
    headers.extend([
        ("ce-subject", "%E6%97%A5%E6%9C%AC"),
        // Nobody but ingest says what was there at first.
        ("ce-originalattributes", "eyJpZCI6Im90aGVyIn0"),
        ("ce-knativekafkaoffset", "7"),
    ]);
    let answer = ingest.post("/", &headers, "").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let [event] = &ingest.topic(1).await[..] else {
        panic!("one event")
    };
    assert_eq!(event.id, "100%");
    assert_eq!(event.subject.as_deref(), Some("日本"));
    assert!(event.attributes.is_empty(), "{:?}", event.attributes);
}

#[tokio::test]
async fn attributes_that_no_request_could_hold_are_refused() {
    let ingest = Service::start("attributes").await;
    let long = "x".repeat(16 << 10);
    let event = object("1", &format!(r#","tenant":"{long}""#));
    for path in ["/", "/api/v1/events"] {
        let answer = ingest.post(path, &[STRUCTURED], event.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let problem = answer.problem();
        let error = &problem["extensions"]["validationErrors"][0];
        assert_eq!(error["field"], "tenant", "{problem}");
    }
}
