//! What a KafkaSource makes of a record that is no CloudEvent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use stream::{
    CloudEvent, Record,
    http::{decode_one, into_request},
};

use super::plan::Name;

const TYPE: &str = "dev.knative.kafka.event";

/// How many of a record's headers become extensions. Sinks take 64 of those, and sources add some.
const MAX_HEADERS: usize = 40;
/// How many bytes any text may have. A bad byte becomes three, and all that is added must leave
/// the largest record a dead letter that its topic takes.
const MAX_TEXT: usize = 2 << 10;
/// The extension that counts the headers left out and the texts cut short.
const CUT: &str = "kafkacut";

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
    let mut cut = 0;
    if let Some(key) = &record.key {
        let key = shortened(text(key), &mut cut);
        event = event
            .with_extension("partitionkey", key.as_str())
            .with_extension("key", key);
    }
    let mut content_type = None;
    // The last of a name counts, as with a map.
    let mut headers = BTreeMap::new();
    for (header, value) in &record.headers {
        let value = text(value.as_deref().unwrap_or_default());
        if header.eq_ignore_ascii_case("content-type") && is_of_data(&value) {
            content_type = Some(value.to_lowercase());
            continue;
        }
        let letters = header.chars().map(|letter| letter.to_ascii_lowercase());
        let allowed = |letter: &char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let letters = shortened(letters.filter(allowed).collect(), &mut cut);
        if headers.len() < MAX_HEADERS || headers.contains_key(&letters) {
            headers.insert(letters, shortened(value, &mut cut));
        } else {
            cut += 1;
        }
    }
    for (letters, value) in headers {
        event = event.with_extension(&format!("kafkaheader{letters}"), value);
    }
    if cut > 0 {
        event = event.with_extension(CUT, cut.to_string());
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

fn shortened(mut text: String, cut: &mut usize) -> String {
    if text.len() > MAX_TEXT {
        let mut ends = (0..=MAX_TEXT).rev();
        let end = ends.find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or_default());
        *cut += 1;
    }
    text
}

/// Returns whether an event with data of this type is taken for what it is. A type of events has
/// the data taken for the event itself, and what is no media type is refused: the record would
/// be lost, as its dead letter is no better.
fn is_of_data(content_type: &str) -> bool {
    if content_type.len() > MAX_TEXT {
        return false;
    }
    let event = CloudEvent::new("1", "/", TYPE).with_data(content_type.to_lowercase(), []);
    into_request(event).is_ok_and(|(headers, body)| decode_one(&headers, &body).is_ok())
}

#[cfg(test)]
mod tests {
    use stream::{
        MAX_DEAD_BYTES,
        http::decode_passed_on,
        kafka::{decode_event, encode},
    };

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
    fn a_record_of_any_size_can_be_a_dead_letter() {
        let at = Place {
            topic: "in",
            partition: 0,
            offset: 0,
            recorded_at: Timestamp::UNIX_EPOCH,
        };
        let largest = MAX_DEAD_BYTES - (64 << 10);
        // Each byte of which becomes three.
        let bad = |len| vec![255; len];
        let header = |name: String, value: Vec<u8>| (format!("ce_{name}"), Some(value));
        let many = |count, value: Vec<u8>| -> Vec<_> {
            let header = |index| header(format!("x{index}"), value.clone());
            (0..count).map(header).collect()
        };
        let own = ["specversion", "id", "source", "type"];
        let own = own.map(|name| header(name.to_owned(), b"1.0".to_vec()));
        let event = [own.to_vec(), many(65, b"1".to_vec())].concat();
        let pairs = event
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()));
        let reason = decode_event(pairs, None).unwrap_err().to_string();
        assert!(reason.contains("64 extension"), "{reason}");

        let content_type = format!("text/plain; x={}", "x".repeat(5000));
        let content_type = ("content-type".to_owned(), Some(content_type.into_bytes()));
        for (key, headers, cut) in [
            (8, event, Some("29")),
            (1 << 20, many(65, bad(1)), Some("26")),
            (8, many(30_000, bad(1)), Some("29960")),
            (8, vec![header("n".repeat(70_000), bad(100_000))], Some("2")),
            (8, vec![content_type], Some("1")),
            (683, many(40, bad(683)), Some("41")),
            (682, many(40, bad(682)), None),
        ] {
            let mut record = Record {
                key: Some(bad(key)),
                headers,
                value: None,
            };
            record.value = Some(vec![0; largest - size(&record)]);
            let event = wrap(&("n".to_owned(), "s".to_owned()), at, record);
            assert_eq!(event.attribute(CUT).as_deref(), cut);
            let (headers, body) = into_request(event).unwrap();
            let dead = decode_passed_on(&headers, &body).unwrap();
            // With room for what a dead letter says of the failure.
            let room = 2 << 10;
            assert!(size(&encode(&dead)) + room <= MAX_DEAD_BYTES, "{cut:?}");
        }
    }

    fn size(record: &Record) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = record.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + len(value));
        headers.sum::<usize>() + len(&record.key) + len(&record.value)
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
