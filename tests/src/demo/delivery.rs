//! A line of the traffic, in the forms in which a gateway may send it.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use model::{Content, Identity};
use serde_json::value::RawValue;

/// One line: what is delivered once.
pub(super) struct Delivery {
    line: String,
    members: Option<BTreeMap<String, Box<RawValue>>>,
    claim: Option<(Identity, Says)>,
}

/// What answers depend on, if an event is counted: its content, and the hour of its `time`, than
/// which no window is finer that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Says {
    content: Content,
    hour: i64,
}

/// A request of binary mode: the attributes are headers, the data is the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binary {
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

const REQUIRED: [&str; 4] = ["id", "source", "type", "specversion"];

impl Delivery {
    pub(super) fn new(line: String) -> Self {
        let members = serde_json::from_str(&line).ok();
        let claim = claim(&line);
        Self {
            line,
            members,
            claim,
        }
    }

    /// Returns the line as it is: structured mode.
    pub(super) fn structured(&self) -> &str {
        &self.line
    }

    /// Returns whose count it asks for, and with what; nothing for what is no event.
    pub(super) fn claim(&self) -> Option<(Identity, Says)> {
        self.claim
    }

    /// Says whether it has the attributes of an event. What has not can be no part of a batch:
    /// a line that is no JSON would spoil the whole body.
    pub(super) fn is_event(&self) -> bool {
        REQUIRED
            .iter()
            .all(|name| self.text(name).is_some_and(|text| !text.is_empty()))
    }

    /// Returns it in binary mode, if its content can be said that way.
    pub(super) fn binary(&self) -> Option<Binary> {
        let members = self.members.as_ref().filter(|_| self.is_event())?;
        let mut binary = Binary {
            headers: Vec::new(),
            body: String::new(),
        };
        let mut media_type = "application/json".to_owned();
        for (name, value) in members {
            // null is absent, as the JSON format has it.
            match name.as_str() {
                _ if value.get() == "null" => {}
                "data" => value.get().clone_into(&mut binary.body),
                "data_base64" => return None,
                "datacontenttype" => media_type = self.text(name)?.into_owned(),
                _ => binary
                    .headers
                    .push((format!("ce-{name}"), header_value(&self.text(name)?))),
            }
        }
        if !binary.body.is_empty() {
            binary.headers.push(("content-type".to_owned(), media_type));
        }
        Some(binary)
    }

    fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = self.members.as_ref()?.get(name)?.get();
        serde_json::from_str::<String>(value).ok().map(Cow::Owned)
    }
}

fn claim(line: &str) -> Option<(Identity, Says)> {
    let media_type: &[u8] = b"application/cloudevents+json";
    let headers = [("content-type", Some(media_type))];
    let event =
        stream::kafka::decode(headers, Some(line.as_bytes()), Timestamp::UNIX_EPOCH).ok()?;
    let says = Says {
        content: Content::of(&event, &event.payload()),
        hour: event.time.as_second().div_euclid(3600),
    };
    Some((Identity::of(&event.source, &event.id), says))
}

/// Percent-encodes what the HTTP binding wants encoded: all but visible ASCII, `"` and `%`.
fn header_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => write!(value, "%{byte:02X}").unwrap_or_default(),
            0x21..=0x7e => value.push(byte.into()),
            _ => write!(value, "%{byte:02X}").unwrap_or_default(),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(line: &str) -> Delivery {
        Delivery::new(line.to_owned())
    }

    #[test]
    fn binary_mode_keeps_the_bytes_of_the_data() {
        let line = r#"{"specversion":"1.0","id":"a b","source":"s","type":"t","x":null,"data":{"v": 1.50,"p":"\/a"}}"#;
        let binary = delivery(line).binary().unwrap();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            binary.headers,
            [
                header("ce-id", "a%20b"),
                header("ce-source", "s"),
                header("ce-specversion", "1.0"),
                header("ce-type", "t"),
                header("content-type", "application/json"),
            ]
        );
        assert_eq!(binary.body, r#"{"v": 1.50,"p":"\/a"}"#);
    }

    #[test]
    fn what_headers_cannot_say_is_not_sent_in_binary_mode() {
        let event = r#""specversion":"1.0","id":"1","source":"s","type":"t""#;
        assert!(delivery(&format!("{{{event}}}")).binary().is_some());
        assert!(
            delivery(&format!(r#"{{{event},"data_base64":"e30="}}"#))
                .binary()
                .is_none()
        );
        assert!(
            delivery(&format!(r#"{{{event},"subject":{{}}}}"#))
                .binary()
                .is_none()
        );
        assert!(delivery(&format!("{{{event}")).binary().is_none());
    }

    #[test]
    fn a_line_without_its_attributes_is_no_event() {
        assert!(
            !delivery(r#"{"specversion":"1.0","id":12345,"source":"s","type":"t"}"#).is_event()
        );
        assert!(!delivery(r#"{"specversion":"1.0","id":"1","source":"","type":"t"}"#).is_event());
        assert!(!delivery(r#"{"spec"#).is_event());
    }

    #[test]
    fn what_differs_only_in_writing_or_within_an_hour_says_the_same() {
        let claim = |time: &str, rest: &str| {
            let attributes = r#""specversion":"1.0","id":"a","source":"s","type":"t""#;
            let line = format!(r#"{{{attributes},"time":"{time}",{rest}}}"#);
            delivery(&line).claim().unwrap()
        };
        let first = claim("2024-01-15T10:00:00Z", r#""data":{"v":1.5,"p":"/a"}"#);
        for (time, rest) in [
            ("2024-01-15T10:59:59.9Z", r#""data":{"v":1.5,"p":"/a"}"#),
            (
                "2024-01-15T11:30:00+01:00",
                r#""data":{"p":"\/\u0061","v":15e-1},"x":"y""#,
            ),
        ] {
            assert_eq!(claim(time, rest), first, "{time} {rest}");
        }
        for (time, rest) in [
            ("2024-01-15T11:00:00Z", r#""data":{"v":1.5,"p":"/a"}"#),
            ("2024-01-15T09:59:59Z", r#""data":{"v":1.5,"p":"/a"}"#),
            ("2024-01-15T10:00:00Z", r#""data":{"v":"1.5","p":"/a"}"#),
            (
                "2024-01-15T10:00:00Z",
                r#""data":{"v":1.5,"p":"/a"},"subject":"b""#,
            ),
        ] {
            let (identity, says) = claim(time, rest);
            assert_eq!(identity, first.0);
            assert_ne!(says, first.1, "{time} {rest}");
        }
        assert_eq!(delivery(r#"{"id":"a","source":"s"}"#).claim(), None);
    }
}
