//! What a KafkaSource makes of a record that is no CloudEvent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use stream::{
    CloudEvent, Record,
    http::{decode_one, into_request},
};

use super::plan::Name;

const TYPE: &str = "dev.knative.kafka.event";

/// Where a record was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) recorded_at: Timestamp,
}

/// Wraps a record into an event whose identity is its place.
pub(super) fn wrap((namespace, name): &Name, at: Place<'_>, record: Record) -> CloudEvent {
    let Place {
        topic,
        partition,
        offset,
        recorded_at,
    } = at;
    let id = format!("partition:{partition}/offset:{offset}");
    let source = format!("/apis/v1/namespaces/{namespace}/kafkasources/{name}#{topic}");
    let mut event = CloudEvent::new(id, source, TYPE)
        .with_subject(format!("partition:{partition}#{offset}"))
        .with_time(recorded_at);
    if let Some(key) = &record.key {
        let key = text(key);
        event = event
            .with_extension("partitionkey", key.as_str())
            .with_extension("key", key);
    }
    let mut content_type = None;
    // The last of a name counts, as with a map.
    let mut headers = BTreeMap::new();
    for (header, value) in &record.headers {
        let value = text(value.as_deref().unwrap_or_default());
        let lowercase = value.to_lowercase();
        if header.eq_ignore_ascii_case("content-type") && is_of_data(&lowercase) {
            content_type = Some(lowercase);
        } else {
            let letters = header.chars().map(|letter| letter.to_ascii_lowercase());
            let allowed = |letter: &char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
            let letters: String = letters.filter(allowed).collect();
            headers.insert(format!("kafkaheader{letters}"), value);
        }
    }
    for (name, value) in headers {
        event = event.with_extension(&name, value);
    }
    match (content_type, record.value) {
        (Some(content_type), value) => event.with_data(content_type, value.unwrap_or_default()),
        (None, Some(value)) => event.with_bytes(value),
        (None, None) => event,
    }
}

/// Returns what an attribute can hold of a text.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.replace(char::is_control, "\u{FFFD}")
}

/// Returns whether an event with data of this type is taken for what it is. A type of events has
/// the data taken for the event itself, and what is no media type is refused: the record would
/// be lost, as its dead letter is no better.
fn is_of_data(content_type: &str) -> bool {
    let event = CloudEvent::new("1", "/", TYPE).with_data(content_type, []);
    into_request(event).is_ok_and(|(headers, body)| decode_one(&headers, &body).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_record_has_can_be_delivered() {
        let at = Place {
            topic: "in",
            partition: 0,
            offset: 0,
            recorded_at: Timestamp::UNIX_EPOCH,
        };
        for content_type in [
            "application/cloudevents+json",
            "Application/CloudEvents-Batch+JSON; charset=utf-8",
            "application/cloudevents+avro",
            "text/plain\r\nx: y",
            "t\u{e4}xt/plain",
            "text",
            "",
        ] {
            let record = Record {
                key: Some(vec![0, 7, 255]),
                headers: vec![
                    ("content-type".to_owned(), Some(content_type.into())),
                    ("trace".to_owned(), Some(vec![0, 1])),
                ],
                value: Some(b"{".to_vec()),
            };
            let event = wrap(&("n".to_owned(), "s".to_owned()), at, record);
            let kept = event.attribute("kafkaheadercontenttype").unwrap();
            assert_eq!(kept, text(content_type.as_bytes()));
            let (headers, body) = into_request(event.clone()).unwrap();
            assert_eq!(decode_one(&headers, &body).unwrap(), event);
        }
    }

    #[test]
    fn a_record_becomes_an_event_as_knative_makes_it() {
        let at = Place {
            topic: "in",
            partition: 3,
            offset: 42,
            recorded_at: "2026-01-31T10:20:30.5Z".parse().unwrap(),
        };
        let source = ("bank".to_owned(), "process".to_owned());
        let record = Record {
            key: Some(b"tenant-1".to_vec()),
            headers: vec![
                (
                    "Content-Type".to_owned(),
                    Some(b"Application/JSON".to_vec()),
                ),
                ("X-Trace_Id".to_owned(), Some(b"abc".to_vec())),
            ],
            value: Some(b"{ }".to_vec()),
        };
        let event = wrap(&source, at, record);
        for (name, value) in [
            ("type", "dev.knative.kafka.event"),
            ("id", "partition:3/offset:42"),
            ("source", "/apis/v1/namespaces/bank/kafkasources/process#in"),
            ("subject", "partition:3#42"),
            ("time", "2026-01-31T10:20:30.500Z"),
            ("datacontenttype", "application/json"),
            ("partitionkey", "tenant-1"),
            ("key", "tenant-1"),
            ("kafkaheaderxtraceid", "abc"),
        ] {
            assert_eq!(event.attribute(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(event.data(), Some(&b"{ }"[..]));

        let bare = wrap(&source, at, Record::default());
        for name in ["datacontenttype", "partitionkey", "key"] {
            assert_eq!(bare.attribute(name), None, "{name}");
        }
        assert_eq!(bare.data(), None);
    }
}
