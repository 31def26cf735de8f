//! One metered event, its identity and its content.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde_json::Value;

use crate::{decimal::write_canonical, json::parse_json};

/// An accepted CloudEvent in the words of metering.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageEvent {
    /// CloudEvents `id`, not empty.
    pub id: String,
    /// CloudEvents `source`, not empty.
    pub source: String,
    /// CloudEvents `type`: the event type that meters name.
    pub event_type: String,
    /// CloudEvents `subject`: who used something. No meter counts an event without it.
    pub subject: Option<String>,
    /// When the usage happened. A repeat is counted at its first delivery's time.
    pub time: Timestamp,
    /// When ingest accepted this delivery.
    pub ingested_at: Timestamp,
    /// The data's bytes as they were sent; `None` when the event has none.
    pub data: Option<Vec<u8>>,
    /// The remaining attributes (datacontenttype, dataschema, extensions) as text.
    pub attributes: BTreeMap<String, String>,
}

/// The data of an event, parsed once for content, values and groups.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// No data, or JSON `null`, which CloudEvents' JSON format cannot tell apart.
    Absent,
    /// JSON of any kind but `null`.
    Json(Value),
    /// Bytes that are not JSON, or claim not to be, or nest deeper than any data does.
    Opaque,
}

impl UsageEvent {
    /// Returns the parsed data.
    pub fn payload(&self) -> Payload {
        let Some(data) = &self.data else {
            return Payload::Absent;
        };
        if !self.is_json() {
            return Payload::Opaque;
        }
        match parse_json(data) {
            Some(Value::Null) => Payload::Absent,
            Some(value) => Payload::Json(value),
            None => Payload::Opaque,
        }
    }

    /// An absent content type means JSON, as in CloudEvents' JSON format.
    fn is_json(&self) -> bool {
        self.attributes
            .get("datacontenttype")
            .is_none_or(|content_type| is_json_media_type(content_type))
    }
}

/// Returns a time in microseconds since 1970, rounded down: what is kept of it.
pub fn micros(time: Timestamp) -> i64 {
    let micros = time.as_nanosecond().div_euclid(1000);
    // The years that a Timestamp can hold are far from the end of an i64.
    i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX })
}

/// Returns whether a media type means JSON: `application/json`, `text/json` or `*/*+json`,
/// whatever its parameters.
pub fn is_json_media_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
    subtype.eq_ignore_ascii_case("json")
        || subtype
            .rsplit_once('+')
            .is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"))
}

/// The identity of an event: (source, id), as CloudEvents defines it.
///
/// 128 bits of BLAKE3: ids come from outside, so the hash must not be one that
/// a sender can make collide, or one event could hide another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// Returns the identity of the event that `source` calls `id`.
    pub fn of(source: &str, id: &str) -> Self {
        let mut text = Vec::with_capacity(8 + source.len() + id.len());
        // The length keeps ("a-b", "c") and ("a", "b-c") apart.
        push_part(&mut text, source.as_bytes());
        text.extend_from_slice(id.as_bytes());
        Self(digest(&text))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an event says: a hash of type, subject and data.
///
/// Equal for deliveries that say the same, however they write it: key order,
/// white space and the spelling of numbers do not count, nor do time,
/// dataschema and extension attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Content(pub u64);

impl Content {
    /// Returns the content of `event`, whose parsed data is `payload`.
    pub fn of(event: &UsageEvent, payload: &Payload) -> Self {
        let mut text = Vec::with_capacity(256);
        push_part(&mut text, event.event_type.as_bytes());
        // A subject is never empty, so absent and empty need no telling apart.
        push_part(
            &mut text,
            event.subject.as_deref().unwrap_or_default().as_bytes(),
        );
        match payload {
            Payload::Absent => text.push(b'-'),
            Payload::Json(value) => {
                text.push(b'j');
                push_value(&mut text, value);
            }
            Payload::Opaque => {
                text.push(b'o');
                text.extend_from_slice(event.data.as_deref().unwrap_or_default());
            }
        }
        let [a, b, c, d, e, f, g, h, ..] = digest(&text);
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

fn digest(text: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(text).as_bytes()[..16]);
    short
}

fn push_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_le_bytes());
    out.extend_from_slice(part);
}

/// Writes a JSON value so that equal values, and only they, give equal bytes.
fn push_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(b'z'),
        Value::Bool(false) => out.push(b'f'),
        Value::Bool(true) => out.push(b't'),
        Value::Number(number) => {
            out.push(b'n');
            write_canonical(out, number.as_str());
            out.push(b';');
        }
        Value::String(text) => {
            out.push(b's');
            push_part(out, text.as_bytes());
        }
        Value::Array(items) => {
            out.push(b'[');
            items.iter().for_each(|item| push_value(out, item));
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            // serde_json's map is sorted by key unless its feature preserve_order is
            // on; a test in this file fails if a dependency ever turns it on.
            for (name, member) in members {
                push_part(out, name.as_bytes());
                push_value(out, member);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(crate) fn event(data: &str) -> UsageEvent {
        UsageEvent {
            id: "1".to_owned(),
            source: "gateway".to_owned(),
            event_type: "api.call".to_owned(),
            subject: Some("tpp-1".to_owned()),
            time: "2024-01-15T10:30:00Z".parse().unwrap(),
            ingested_at: "2024-01-15T10:30:01Z".parse().unwrap(),
            data: Some(data.as_bytes().to_vec()),
            attributes: BTreeMap::new(),
        }
    }

    fn content(event: &UsageEvent) -> Content {
        Content::of(event, &event.payload())
    }

    #[test]
    fn an_identity_cannot_be_read_two_ways() {
        assert_ne!(Identity::of("a-b", "c"), Identity::of("a", "b-c"));
        assert_ne!(Identity::of("ab", "c"), Identity::of("a", "bc"));
        assert_eq!(Identity::of("a", "b"), Identity::of("a", "b"));
    }

    #[test]
    fn content_is_what_is_said_and_not_how() {
        let first = event(r#"{"ms": 45, "endpoint": "/accounts", "tags": [1, {"a": 0.50}]}"#);
        for same in [
            r#"{"endpoint":"/accounts","tags":[1.0,{"a":5e-1}],"ms":45.0}"#,
            r#"{"endpoint":"/acc\u006funts","tags":[10e-1,{"a":0.5}],"ms":4.5e1}"#,
        ] {
            assert_eq!(content(&event(same)), content(&first), "{same}");
        }
        for other in [
            r#"{"ms": "45", "endpoint": "/accounts", "tags": [1, {"a": 0.5}]}"#,
            r#"{"ms": 45, "endpoint": "/accounts", "tags": [{"a": 0.5}, 1]}"#,
            r#"{"ms": 45, "endpoint": "/accounts"}"#,
            r#"{"ms": 45.0000000000000000000000000001, "endpoint": "/accounts", "tags": [1, {"a": 0.5}]}"#,
        ] {
            assert_ne!(content(&event(other)), content(&first), "{other}");
        }
        let mut later = first.clone();
        later.time = "2024-01-16T10:30:00Z".parse().unwrap();
        later
            .attributes
            .insert("traceparent".to_owned(), "00-1".to_owned());
        assert_eq!(content(&later), content(&first));
        for change in [
            |event: &mut UsageEvent| event.subject = Some("tpp-2".to_owned()),
            |event: &mut UsageEvent| event.subject = None,
            |event: &mut UsageEvent| event.event_type = "api.call2".to_owned(),
            |event: &mut UsageEvent| event.data = None,
        ] {
            let mut changed = first.clone();
            change(&mut changed);
            assert_ne!(content(&changed), content(&first));
        }
    }

    #[test]
    fn null_is_no_data_and_broken_json_is_opaque() {
        assert_eq!(event("null").payload(), Payload::Absent);
        assert_eq!(event("{").payload(), Payload::Opaque);
        assert_eq!(event("[1]").payload(), Payload::Json(json!([1])));
        let mut xml = event("{}");
        xml.attributes
            .insert("datacontenttype".to_owned(), "application/xml".to_owned());
        assert_eq!(xml.payload(), Payload::Opaque);
        for (media_type, json) in [
            ("application/json; charset=utf-8", true),
            ("application/vnd.bank+JSON", true),
            ("text/json", true),
            ("text/plain", false),
            ("json", false),
        ] {
            assert_eq!(is_json_media_type(media_type), json, "{media_type}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_members_never_matters(
            members in prop::collection::btree_map("[a-z]{1,3}", -1000_i64..1000, 0..8),
        ) {
            let write = |members: &mut dyn Iterator<Item = (&String, &i64)>| {
                let text: Vec<_> = members.map(|(name, value)| format!("\"{name}\":{value}")).collect();
                event(&format!("{{{}}}", text.join(",")))
            };
            let forward = write(&mut members.iter());
            let backward = write(&mut members.iter().rev());
            prop_assert_eq!(content(&forward), content(&backward));
        }
    }
}
