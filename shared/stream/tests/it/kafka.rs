//! Records, and what becomes of them.

use jiff::Timestamp;
use model::UsageEvent;
use stream::{CloudEvent, DecodeError, Record, kafka};

fn recorded_at() -> Timestamp {
    "2026-01-31T10:20:30.5Z".parse().unwrap()
}

pub(crate) fn decode(record: &Record) -> Result<UsageEvent, DecodeError> {
    let headers = record
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()));
    kafka::decode(headers, record.value.as_deref(), recorded_at())
}

fn record(headers: &[(&str, Option<&[u8]>)], value: Option<&[u8]>) -> Record {
    Record {
        key: None,
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
            .collect(),
        value: value.map(<[u8]>::to_vec),
    }
}

const GOOD: [(&str, Option<&[u8]>); 4] = [
    ("ce_specversion", Some(b"1.0")),
    ("ce_id", Some(b"u-1")),
    ("ce_source", Some(b"/gw")),
    ("ce_type", Some(b"t")),
];

#[test]
fn attributes_are_headers_and_the_key_is_the_identity() {
    let event = CloudEvent::new("u-1", "/gw", "t")
        .with_subject("Euro €")
        .with_time("2026-01-31T10:20:30.123456789Z".parse().unwrap())
        .with_extension("partitionkey", "tpp-7")
        .with_data("application/json", "{}");
    let record = kafka::encode(&event);
    assert_eq!(record.key, Some(event.identity().0.to_vec()));
    assert_eq!(record.value.as_deref(), Some(&b"{}"[..]));
    let text = |name: &str| {
        let header = record.headers.iter().find(|(known, _)| known == name);
        header.map(|(_, value)| String::from_utf8(value.clone().unwrap()).unwrap())
    };
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", "u-1"),
        ("ce_source", "/gw"),
        ("ce_type", "t"),
        ("ce_subject", "Euro €"),
        ("ce_time", "2026-01-31T10:20:30.123456789Z"),
        ("ce_partitionkey", "tpp-7"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(text(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(text("ce_datacontenttype"), None);
    assert_eq!(kafka::encode(&CloudEvent::new("1", "s", "t")).value, None);
}

#[test]
fn what_nobody_said_of_time_the_record_says() {
    let mut headers = GOOD.to_vec();
    let bare = decode(&record(&headers, None)).unwrap();
    assert_eq!(
        (bare.time, bare.ingested_at),
        (recorded_at(), recorded_at())
    );
    headers.push(("ce_ingestedat", Some(b"2026-01-31T11:00:00.000001Z")));
    let stamped = decode(&record(&headers, None)).unwrap();
    assert_eq!(
        stamped.ingested_at.to_string(),
        "2026-01-31T11:00:00.000001Z"
    );
    assert_eq!(stamped.time, stamped.ingested_at);
    assert!(stamped.attributes.is_empty());
    headers.push(("ce_time", Some(b"2026-01-31T09:00:00+01:00")));
    assert_eq!(
        decode(&record(&headers, None)).unwrap().time.to_string(),
        "2026-01-31T08:00:00Z"
    );
    let mut foreign = GOOD.to_vec();
    foreign.push(("ce_ingestedat", Some(b"at noon")));
    let foreign = decode(&record(&foreign, None)).unwrap();
    assert_eq!(foreign.ingested_at, recorded_at());
    assert_eq!(foreign.attributes["ingestedat"], "at noon");
}

#[test]
fn null_headers_are_as_good_as_none() {
    let mut headers = GOOD.to_vec();
    headers.extend([("x", None), ("ce_subject", None), ("content-type", None)]);
    let event = decode(&record(&headers, Some(b"x"))).unwrap();
    assert_eq!(event.subject, None);
    assert_eq!(event.data.as_deref(), Some(&b"x"[..]));
}

#[test]
fn a_structured_record_is_an_event() {
    let headers = [(
        "Content-Type",
        Some(&b"application/cloudevents+json; charset=utf-8"[..]),
    )];
    let value =
        r#"{"specversion":"1.0","id":"u-1","source":"/gw","type":"t","data":{"a": 1},"n":7}"#;
    let event = decode(&record(&headers, Some(value.as_bytes()))).unwrap();
    assert_eq!(event.data.as_deref(), Some(&br#"{"a": 1}"#[..]));
    assert_eq!(event.attributes["n"], "7");
    for value in [None, Some(&b"\xff"[..]), Some(&b"{"[..])] {
        assert!(decode(&record(&headers, value)).is_err());
    }
}

#[test]
fn a_record_that_is_no_event_says_why() {
    for (more, field) in [
        (("ce_id", Some(&b"twice"[..])), "id"),
        (("ce_subject", Some(b"\xff\xfe")), "subject"),
        (("ce_my-ext", Some(b"x")), "my-ext"),
        (("ce_time", Some(b"noon")), "time"),
        (("content-type", Some(b"xyz")), "datacontenttype"),
        (("content-type", Some(b"\xff")), "datacontenttype"),
        (
            ("ce_datacontenttype", Some(b"text/plain")),
            "datacontenttype",
        ),
    ] {
        let mut headers = GOOD.to_vec();
        headers.push(more);
        let error = decode(&record(&headers, None)).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field), "{more:?}");
    }
    let error = decode(&record(&[], Some(b"{}"))).unwrap_err();
    assert_eq!(error.to_string(), "specversion is required");
}
