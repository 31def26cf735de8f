//! What each door asks, and how it says no. None of these needs more than an ingest that
//! would accept.

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};

use crate::support::{BATCH, BINARY, JSON, STRUCTURED, Service, object};

#[tokio::test]
async fn openmeters_api_answers_as_openmeter_does() {
    let ingest = Service::start("api").await;
    let no_subject = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    let xml = object(
        "1",
        r#","datacontenttype":"application/xml","data":"<xml></xml>""#,
    );
    let charset = (
        "content-type",
        "application/cloudevents+json; charset=utf-8",
    );
    let two = format!("[{},{}]", object("1", ""), object("2", ""));
    for (content_type, body, status) in [
        (
            STRUCTURED,
            object("1", r#","data":{"duration_ms":"100"}"#),
            204,
        ),
        (
            STRUCTURED,
            object("1", r#","data":{"duration_ms":"NaN"}"#),
            204,
        ),
        (STRUCTURED, object("1", r#","data":null"#), 204),
        (STRUCTURED, object("1", ""), 204),
        (JSON, object("1", ""), 204),
        (JSON, two.clone(), 204),
        (BATCH, two, 204),
        (BATCH, "[]".to_owned(), 204),
        (charset, object("1", ""), 204),
        (JSON, "[]".to_owned(), 400),
        (STRUCTURED, "invalid".to_owned(), 400),
        (STRUCTURED, xml, 400),
        (STRUCTURED, object("1", r#","data":"text""#), 400),
        (STRUCTURED, object("1", r#","data":[1]"#), 400),
        (STRUCTURED, object("", ""), 400),
        (STRUCTURED, object("1", r#","time":"yesterday""#), 400),
        (STRUCTURED, no_subject.to_owned(), 400),
        (JSON, no_subject.to_owned(), 400),
        (("content-type", "text/plain"), object("1", ""), 400),
    ] {
        let answer = ingest
            .post("/api/v1/events", &[content_type], body.clone())
            .await;
        assert_eq!(answer.status.as_u16(), status, "{content_type:?} {body}");
        match status {
            204 => assert!(answer.body.is_empty()),
            _ => assert_eq!(answer.problem()["status"], 400),
        }
    }
    let empty = ingest.post("/api/v1/events", &[JSON], "[]").await;
    assert_eq!(empty.problem()["detail"], "no events found");
}

#[tokio::test]
async fn openmeters_api_takes_binary_mode_too() {
    let ingest = Service::start("binary").await;
    let mut headers = BINARY.to_vec();
    headers.push(JSON);
    assert_eq!(
        ingest
            .post("/api/v1/events", &headers, "{}")
            .await
            .status
            .as_u16(),
        400,
        "subject"
    );
    headers.push(("ce-subject", "c"));
    for (data, status) in [
        ("{}", 204),
        ("", 204),
        (" null ", 204),
        ("{oops", 400),
        ("7", 400),
    ] {
        let answer = ingest.post("/api/v1/events", &headers, data).await;
        assert_eq!(answer.status.as_u16(), status, "{data}");
    }
}

#[tokio::test]
async fn knatives_door_takes_whatever_is_an_event() {
    let ingest = Service::start("knative").await;
    let mut octets = BINARY.to_vec();
    octets.push(("content-type", "application/octet-stream"));
    let answer = ingest
        .post("/", &octets, Bytes::from_static(&[0, 0xff]))
        .await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (202, 0));
    let answer = ingest.post("/", &[BATCH], "[]").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (202, 0));
    for (headers, body, status) in [
        (&[JSON][..], object("1", ""), 415),
        (&[], String::new(), 415),
        (&[STRUCTURED], "{".to_owned(), 400),
        (&BINARY[1..], String::new(), 400),
    ] {
        let answer = ingest.post("/", headers, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?} {body}");
        assert_eq!(answer.problem()["status"], status);
    }
}

#[tokio::test]
async fn every_bad_event_is_named_up_to_twenty() {
    let ingest = Service::start("names").await;
    let bad = |id: usize| match id % 2 {
        0 => object(&id.to_string(), ""),
        _ => object(&id.to_string(), r#","time":"noon""#),
    };
    let events: Vec<_> = (0..50).map(bad).collect();
    let answer = ingest
        .post(
            "/api/v1/events",
            &[BATCH],
            format!("[{}]", events.join(",")),
        )
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let problem = answer.problem();
    assert_eq!(
        problem["detail"],
        "event 1: time is not an RFC 3339 time (and 24 more)"
    );
    let errors = problem["extensions"]["validationErrors"]
        .as_array()
        .unwrap();
    assert_eq!(errors.len(), 20);
    assert_eq!(errors[1]["index"], 3);
    assert_eq!(errors[1]["field"], "time");
    let one = format!("[{}]", object("1", r#","data":7"#));
    let problem = ingest.post("/api/v1/events", &[BATCH], one).await.problem();
    assert_eq!(
        problem["detail"],
        "event 0: data must be a JSON object or null"
    );
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_413() {
    let ingest = Service::start("large").await;
    let data = |bytes: usize| format!(r#","data":"{}""#, "x".repeat(bytes));
    let fits = object("1", &data((1 << 20) - 200));
    let large = object("1", &data(1 << 20));
    assert_eq!(
        ingest
            .post("/", &[STRUCTURED], fits.clone())
            .await
            .status
            .as_u16(),
        202
    );
    let too_large = ingest.post("/", &[STRUCTURED], large.clone()).await;
    assert_eq!(too_large.problem()["status"], 413);
    assert_eq!(
        ingest
            .post("/", &BINARY, "x".repeat((1 << 20) + 1))
            .await
            .status
            .as_u16(),
        413
    );
    let in_batch = ingest
        .post("/", &[BATCH], format!("[{fits},{large}]"))
        .await;
    assert_eq!(in_batch.status.as_u16(), 413);

    // The length that is claimed is believed, and one that is not is counted.
    let batch = format!("[{}]", vec![fits; 11].join(","));
    let claimed = [BATCH, ("content-length", "11000000")];
    assert_eq!(ingest.post("/", &claimed, "").await.status.as_u16(), 413);
    let pieces = batch.into_bytes();
    let pieces: Vec<_> = pieces
        .chunks(1 << 16)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect();
    let body = Body::from_stream(futures::stream::iter(pieces));
    assert_eq!(ingest.post("/", &[BATCH], body).await.status.as_u16(), 413);
}
