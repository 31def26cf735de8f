//! What becomes of an event's attributes on the way from ingest to process, by each way there is.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use model::UsageEvent;
use proptest::prelude::*;
use stream::{CloudEvent, Record, http, kafka};

use crate::kafka::decode;

const KEPT: &str = "originalattributes";

fn accepted(mut event: CloudEvent) -> Record {
    event.stamp("2026-01-31T10:20:30.000001Z".parse().unwrap());
    kafka::encode(&event)
}

/// A KafkaSource's requests as CloudEvents has them.
fn by_the_book(record: &Record) -> UsageEvent {
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_deref()));
    let event = kafka::decode_event(headers, record.value.as_deref()).unwrap();
    let placed = event.with_extension("knativekafkaoffset", "7");
    let (headers, body) = http::encode(&placed).unwrap();
    http::decode_record(&headers, &body, Timestamp::UNIX_EPOCH).unwrap()
}

/// A KafkaSource's headers as Knative's data plane writes them: values as they are, in Latin-1, a
/// question mark for each UTF-16 unit that is not in it. Who reads them trims them.
fn latin_1(record: &Record) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &record.headers {
        let name = name.replace("ce_", "ce-");
        let text = std::str::from_utf8(value.as_ref().unwrap()).unwrap();
        let units = text.encode_utf16();
        let bytes: Vec<u8> = units.map(|it| u8::try_from(it).unwrap_or(b'?')).collect();
        headers.insert(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(bytes.trim_ascii()).unwrap(),
        );
    }
    headers.insert("ce-knativekafkapartition", HeaderValue::from_static("0"));
    headers
}

fn by_knative(record: &Record) -> UsageEvent {
    let body = record.value.as_deref().unwrap_or_default();
    http::decode_record(&latin_1(record), body, Timestamp::UNIX_EPOCH).unwrap()
}

const TEXTS: [&str; 12] = [
    "100%", "%41", "A", "ü", "日本", "日木", "a b", " a ", "tpp-1\"x", "\"A\"", "\\", "😀",
];

#[test]
fn an_event_is_the_same_by_push_and_by_pull() {
    let mut ids = std::collections::BTreeSet::new();
    for text in TEXTS {
        let event = CloudEvent::new(text, "/gw", text)
            .with_subject(text)
            .with_extension("tenant", text)
            .with_data("application/json", r#"{"a": 1}"#);
        let record = accepted(event);
        let pulled = decode(&record).unwrap();
        assert_eq!(pulled.subject.as_deref(), Some(text));
        assert_eq!(pulled.attributes["tenant"], text);
        let names: Vec<_> = pulled.attributes.keys().collect();
        assert_eq!(names, ["datacontenttype", "tenant"], "{text}");
        assert_eq!(by_the_book(&record), pulled, "{text}");
        assert_eq!(by_knative(&record), pulled, "{text}");
        ids.insert(model::Identity::of(&pulled.source, &pulled.id).0);
    }
    assert_eq!(ids.len(), TEXTS.len());
}

#[test]
fn a_source_is_the_same_by_push_and_by_pull() {
    for source in ["%41", "A", "ü", "日本", "日木", "//a/%7e?b#c"] {
        let record = accepted(CloudEvent::new("1", source, "t"));
        let pulled = decode(&record).unwrap();
        assert_eq!(pulled.source, source);
        assert_eq!(by_the_book(&record), pulled);
        assert_eq!(by_knative(&record), pulled);
    }
}

#[test]
fn plain_events_carry_nothing_more() {
    let event = CloudEvent::new("u-1", "/gw/eu-1?a=b", "api.request")
        .with_subject("tpp 1, \\ (eu)")
        .with_extension("empty", "")
        .with_data("application/json; charset=utf-8", "\"%ü\"");
    let record = accepted(event);
    assert!(record.headers.iter().all(|(name, _)| !name.contains(KEPT)));
    assert_eq!(by_knative(&record), decode(&record).unwrap());
}

#[test]
fn what_a_stranger_says_was_kept_is_not_believed() {
    let sealed = "eyJpZCI6Im90aGVyIn0";
    for subject in ["plain", "ü"] {
        let event = CloudEvent::new("mine", "/gw", "t")
            .with_subject(subject)
            .with_extension(KEPT, sealed)
            .with_extension("knativekafkaoffset", "1");
        let record = accepted(event);
        let pulled = decode(&record).unwrap();
        assert_eq!(pulled.id, "mine");
        assert!(pulled.attributes.is_empty());
        assert_eq!(by_knative(&record), pulled);
        let value = |name: &str| record.headers.iter().find(|(known, _)| known == name);
        assert_eq!(value("ce_knativekafkaoffset"), None);
        assert_ne!(
            value("ce_originalattributes").map(|(_, value)| value.as_deref()),
            Some(Some(sealed.as_bytes()))
        );
    }
    // Nor is what did not come from ingest, and nobody sees it.
    let foreign = CloudEvent::new("mine", "/gw", "t").with_extension(KEPT, sealed);
    let foreign = decode(&kafka::encode(&foreign)).unwrap();
    assert_eq!((foreign.id.as_str(), foreign.attributes.len()), ("mine", 0));
}

#[test]
fn what_was_kept_and_cannot_be_read_is_an_error() {
    let mut headers = latin_1(&accepted(CloudEvent::new("ü", "/gw", "t")));
    // Not base64, no JSON, no object, no text, and none of an event.
    for sealed in [
        "%",
        "x",
        "",
        "W10",
        "eyJpZCI6MX0",
        "e30",
        "eyJpZCI6ImEifQ",
        "eyJJRCI6ImEifQ",
    ] {
        headers.insert("ce-originalattributes", sealed.parse().unwrap());
        let error = http::decode_record(&headers, b"", Timestamp::UNIX_EPOCH);
        assert!(error.is_err(), "{sealed}: {error:?}");
        let event = CloudEvent::new("1", "/gw", "t")
            .with_extension("ingestedat", "2026-01-31T10:20:30Z")
            .with_extension(KEPT, sealed);
        assert!(decode(&kafka::encode(&event)).is_err(), "{sealed}");
    }
}

/// How many bytes attributes have together at most.
const LIMIT: usize = 15 << 10;

/// An event of JSON whose attributes have so many bytes.
fn sized(field: &str, bytes: usize) -> String {
    let mut names = vec!["id", "source", "type", "subject", "tenant"];
    names.retain(|name| *name != field);
    let others: Vec<_> = names
        .iter()
        .map(|name| format!("\"{name}\":\"x\""))
        .collect();
    let taken: usize = names.iter().map(|name| name.len() + 1).sum();
    let rest = "x".repeat(bytes - taken - field.len());
    format!(
        r#"{{"specversion":"1.0",{},"{field}":"{rest}"}}"#,
        others.join(",")
    )
}

fn structured() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(http::STRUCTURED));
    headers
}

#[test]
fn attributes_have_15_kib_together() {
    for field in ["id", "source", "type", "subject", "tenant"] {
        let fits = sized(field, LIMIT);
        let event = http::decode_one(&structured(), fits.as_bytes()).unwrap();
        let (headers, body) = http::encode(&event).unwrap();
        http::decode(&headers, &body, LIMIT).unwrap().each[0]
            .as_ref()
            .unwrap();

        let over = sized(field, LIMIT + 1);
        let events = http::decode_json(format!("[{fits},{over}]").as_bytes(), 1 << 20).unwrap();
        assert!(events.each[0].is_ok());
        let error = events.each[1].as_ref().unwrap_err();
        assert_eq!(
            (error.index, error.field.as_deref()),
            (Some(1), Some(field))
        );
        let refused = http::decode_one(&structured(), over.as_bytes()).unwrap_err();
        assert!(
            refused.to_string().contains("15361 bytes together"),
            "{refused}"
        );

        // What was let in before is let through.
        let event = http::decode_passed_on(&structured(), over.as_bytes()).unwrap();
        decode(&kafka::encode(&event)).unwrap();
        let (headers, body) = http::encode(&event).unwrap();
        assert!(http::decode(&headers, &body, LIMIT).unwrap().each[0].is_err());
        http::decode_record(&headers, &body, Timestamp::UNIX_EPOCH).unwrap();
    }
}

/// What ingest took before it asked for all of RFC 3986, and for headers that all can write.
#[test]
fn what_was_let_in_before_is_let_through() {
    for (field, value) in [
        ("source", "100%"),
        ("source", "1:2"),
        ("source", "urn:"),
        ("dataschema", "urn:a%"),
        ("datacontenttype", "text/plain; x=é"),
    ] {
        let source = if field == "source" { value } else { "/gw" };
        let other = if field == "source" { "subject" } else { field };
        let body = format!(
            r#"{{"specversion":"1.0","id":"1","type":"t","source":"{source}","{other}":"{value}"}}"#
        );
        let refused = http::decode(&structured(), body.as_bytes(), LIMIT).unwrap();
        let error = refused.each[0].as_ref().unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field), "{value}");

        let event = http::decode_passed_on(&structured(), body.as_bytes()).unwrap();
        let pulled = decode(&kafka::encode(&event)).unwrap();
        assert_eq!(pulled.source, source);
        if field != "source" {
            assert_eq!(pulled.attributes[field], value);
        }
        assert_eq!(decode(&accepted(event)).unwrap().source, source);
    }
}

#[test]
fn what_is_added_on_the_way_does_not_count_unless_it_is_no_such_thing() {
    let full = http::decode_one(&structured(), sized("id", LIMIT).as_bytes()).unwrap();
    for name in [
        "knativekafkapartition",
        "knativeerrordata",
        "ingestedat",
        KEPT,
    ] {
        for (bytes, fits) in [(2048, true), (2049, false)] {
            let event = full.clone().with_extension(name, "x".repeat(bytes));
            let (headers, body) = http::encode(&event).unwrap();
            assert_eq!(http::decode_one(&headers, &body).is_ok(), fits, "{name}");
        }
    }
}

#[test]
fn the_largest_event_fits_into_an_envoys_headers() {
    for letter in ["日", "\"", "%"] {
        let plain = sized("subject", LIMIT);
        let event = http::decode_one(&structured(), plain.as_bytes()).unwrap();
        // The other attributes and the subject's name take this of it.
        let room = LIMIT - "idsourcetypetenantxxxxsubject".len();
        let rest = "x".repeat(room % letter.len());
        let full = event.with_subject(letter.repeat(room / letter.len()) + &rest);
        let is_admitted = |event: &CloudEvent| {
            let (headers, body) = http::encode(event).unwrap();
            http::decode_one(&headers, &body).is_ok()
        };
        assert!(is_admitted(&full), "{letter}");
        assert!(
            !is_admitted(&full.clone().with_extension("a", "")),
            "{letter}"
        );
        let headers = latin_1(&accepted(full));
        let sizes = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4);
        let size: usize = sizes.sum();
        // With room for what the hops add.
        assert!(size < 56 << 10, "{letter}: {size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn any_event_is_the_same_by_push_and_by_pull(
        id in "[^\\pC]{1,8}",
        source in "/[a-z日é]{0,3}(%[0-9A-F]{2})?",
        subject in prop::option::of("[^\\pC]{1,8}|[ %\"\\\\a-c]{1,4}"),
        extensions in prop::collection::btree_map("x[a-z0-9]{0,4}", "[^\\pC]{0,4}|[ %\"a]{0,3}", 0..3),
        content_type in "( |)text/(plain|%41)(; a=\"b%20\"| |)",
        data in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut event = CloudEvent::new(&id, &source, "t").with_data(content_type, data);
        if let Some(subject) = &subject {
            event = event.with_subject(subject);
        }
        for (name, text) in extensions {
            event = event.with_extension(&name, text);
        }
        let record = accepted(event);
        let pulled = decode(&record).unwrap();
        prop_assert_eq!((&pulled.id, &pulled.source), (&id, &source));
        prop_assert_eq!(&pulled.subject, &subject);
        prop_assert_eq!(&by_the_book(&record), &pulled);
        prop_assert_eq!(&by_knative(&record), &pulled);
    }
}
