//! The attributes of an event as they were found, and the rules that they keep.
//!
//! Every binding gathers into [`Attributes`], so that an event is judged alike
//! whichever way it came. Nothing here knows of headers, JSON or Kafka.

use std::borrow::Cow;

use jiff::Timestamp;
use url::Url;

use crate::DecodeError;

/// The extension in which ingest says when it took the event.
pub(crate) const INGESTED_AT: &str = "ingestedat";

/// Extensions that are added on an event's way. They are not counted: they must not make an
/// event into none. Knative's broker and KafkaSource say by theirs where they read the event.
const ADDED: [&str; 3] = [INGESTED_AT, "knativekafkapartition", "knativekafkaoffset"];

/// How many extensions an event may have beside [`ADDED`]. Each costs many times its letters,
/// here, in librdkafka and in the store, and a megabyte has room for 100,000. A KafkaSource makes
/// a header of each, and servers (hyper, Envoy) take 100 with those of the hops between.
const MAX_EXTENSIONS: usize = 64;

/// An attribute's value, typed as JSON types it.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Integer(i32),
    Boolean(bool),
}

impl Value<'_> {
    pub(crate) fn into_text(self) -> String {
        match self {
            Value::Text(text) => text.into_owned(),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(yes) => yes.to_string(),
        }
    }
}

/// Attributes as found, none judged but for its name.
#[derive(Default)]
pub(crate) struct Attributes<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    data_content_type: Option<Cow<'a, str>>,
    data_schema: Option<Cow<'a, str>>,
    extensions: Vec<(Cow<'a, str>, Value<'a>)>,
    // How many of them count.
    counted: usize,
}

/// Attributes that keep every rule of CloudEvents 1.0.
pub(crate) struct Checked<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) source: Cow<'a, str>,
    pub(crate) event_type: Cow<'a, str>,
    pub(crate) subject: Option<Cow<'a, str>>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) data_content_type: Option<Cow<'a, str>>,
    pub(crate) data_schema: Option<Url>,
    pub(crate) extensions: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Attributes<'a> {
    /// Adds an attribute. One that is there already is refused: which of the two
    /// is meant, nobody can say, and an identity must not be read two ways.
    pub(crate) fn insert(
        &mut self,
        name: Cow<'a, str>,
        value: Value<'a>,
    ) -> Result<(), DecodeError> {
        let slot = match name.as_ref() {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.data_content_type,
            "dataschema" => &mut self.data_schema,
            _ => return self.insert_extension(name, value),
        };
        let Value::Text(text) = value else {
            return Err(DecodeError::field(name.into_owned(), "must be a string"));
        };
        if slot.replace(text).is_some() {
            return Err(twice(name));
        }
        Ok(())
    }

    fn insert_extension(
        &mut self,
        name: Cow<'a, str>,
        value: Value<'a>,
    ) -> Result<(), DecodeError> {
        let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(is_lower) {
            return Err(DecodeError::field(
                name.into_owned(),
                "is no attribute name: only a to z and 0 to 9 are",
            ));
        }
        if name == "data" {
            return Err(DecodeError::field("data", "is no attribute"));
        }
        if self.extensions.iter().any(|(known, _)| *known == name) {
            return Err(twice(name));
        }
        if !ADDED.contains(&&*name) {
            self.counted += 1;
        }
        if self.counted > MAX_EXTENSIONS {
            let reason = format!("has more than {MAX_EXTENSIONS} extension attributes");
            return Err(DecodeError::whole(reason));
        }
        self.extensions.push((name, value));
        Ok(())
    }

    pub(crate) fn data_content_type(&self) -> Option<&str> {
        self.data_content_type.as_deref()
    }

    /// Judges all attributes; the first that breaks a rule is the error.
    pub(crate) fn check(self) -> Result<Checked<'a>, DecodeError> {
        match self.specversion.as_deref() {
            None => return Err(DecodeError::field("specversion", "is required")),
            Some("1.0") => {}
            Some(_) => return Err(DecodeError::field("specversion", "must be 1.0")),
        }
        let id = required("id", self.id)?;
        let source = required("source", self.source)?;
        if !is_uri_reference(&source) {
            return Err(DecodeError::field("source", "is not a URI reference"));
        }
        let event_type = required("type", self.event_type)?;
        let subject = match self.subject {
            Some(subject) => Some(required("subject", Some(subject))?),
            None => None,
        };
        let time = match self.time {
            Some(text) => Some(
                parse_time(&text)
                    .ok_or_else(|| DecodeError::field("time", "is not an RFC 3339 time"))?,
            ),
            None => None,
        };
        if self
            .data_content_type
            .as_deref()
            .is_some_and(|text| !is_media_type(text))
        {
            return Err(DecodeError::field("datacontenttype", "is not a media type"));
        }
        let data_schema = match self.data_schema {
            Some(text) => Some(
                Url::parse(&text)
                    .map_err(|_| DecodeError::field("dataschema", "is not an absolute URI"))?,
            ),
            None => None,
        };
        for (name, value) in &self.extensions {
            if matches!(value, Value::Text(text) if has_control(text)) {
                return Err(DecodeError::field(name.clone().into_owned(), CONTROL));
            }
        }
        Ok(Checked {
            id,
            source,
            event_type,
            subject,
            time,
            data_content_type: self.data_content_type,
            data_schema,
            extensions: self.extensions,
        })
    }
}

/// The first second of the year 0, counted from 1970.
const YEAR_0: i128 = -62_167_219_200;

const CONTROL: &str = "must not contain control characters";

fn required<'a>(
    name: &'static str,
    value: Option<Cow<'a, str>>,
) -> Result<Cow<'a, str>, DecodeError> {
    match value {
        None => Err(DecodeError::field(name, "is required")),
        Some(text) if text.is_empty() => Err(DecodeError::field(name, "must not be empty")),
        Some(text) if has_control(&text) => Err(DecodeError::field(name, CONTROL)),
        Some(text) => Ok(text),
    }
}

fn twice(name: Cow<'_, str>) -> DecodeError {
    DecodeError::field(name.into_owned(), "is given twice")
}

fn has_control(text: &str) -> bool {
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte);
    !text.bytes().all(is_plain) && text.chars().any(char::is_control)
}

/// Refuses what no URI reference contains. Letters beyond ASCII are let through:
/// Knative's own SDK sends them, and they are unambiguous.
fn is_uri_reference(text: &str) -> bool {
    !text
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || r#"<>"{}|\^`"#.contains(c))
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    let both = essence.split_once('/');
    both.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype)) && !has_control(text)
}

/// Reads an RFC 3339 time and nothing that merely resembles one. Digits beyond
/// nanoseconds are dropped. In UTC, as it is written on, it must have a year of four digits
/// too: there an offset can lead out of them.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = bytes.get(..19)?;
    let fits = shape
        .iter()
        .zip(b"dddd-dd-ddTdd:dd:dd")
        .all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            other => byte.eq_ignore_ascii_case(other),
        });
    if !fits {
        return None;
    }
    let mut rest = &text[19..];
    let mut fraction = "";
    if let Some(digits) = rest.strip_prefix('.') {
        let len = digits.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return None;
        }
        (fraction, rest) = digits.split_at(len);
    }
    if !is_offset(rest) {
        return None;
    }
    let time: Timestamp = if fraction.len() <= 9 {
        text.parse().ok()?
    } else {
        let shorter = format!("{}.{}{rest}", &text[..19], &fraction[..9]);
        shorter.parse().ok()?
    };
    // The latest Timestamp is in the year 9999.
    (time.as_nanosecond() >= YEAR_0 * 1_000_000_000).then_some(time)
}

fn is_offset(text: &str) -> bool {
    let two = |digits: &[u8], limit: u8| {
        digits.iter().all(u8::is_ascii_digit)
            && (digits[0] - b'0') * 10 + (digits[1] - b'0') < limit
    };
    match text.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => two(&[*h1, *h2], 24) && two(&[*m1, *m2], 60),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rfc_3339_is_a_time() {
        for (text, same) in [
            ("2026-01-31T10:20:30Z", "2026-01-31T10:20:30Z"),
            ("2026-01-31t10:20:30z", "2026-01-31T10:20:30Z"),
            (
                "2026-01-31T10:20:30.123456789Z",
                "2026-01-31T10:20:30.123456789Z",
            ),
            (
                "2026-01-31T10:20:30.1234567891234Z",
                "2026-01-31T10:20:30.123456789Z",
            ),
            ("2026-01-31T10:20:30+01:00", "2026-01-31T09:20:30Z"),
            ("2026-01-31T10:20:30-00:00", "2026-01-31T10:20:30Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("0000-01-01T01:00:00+01:00", "0000-01-01T00:00:00Z"),
        ] {
            let expected: Timestamp = same.parse().unwrap();
            assert_eq!(parse_time(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T10:20:30",
            "2026-01-31 10:20:30Z",
            "2026-01-31T10:20:30+25:00",
            "2026-01-31T10:20:30+05",
            "2026-01-31T10:20:30+05:60",
            "2026-01-31T10:20:30.Z",
            "2026-01-31T10:20:30Z[UTC]",
            "2026-02-30T10:20:30Z",
            "2026-01-31T10:20:30é",
            "1769854830",
            "yesterday",
            // Another year in UTC, which four digits do not say.
            "0000-01-01T00:00:00+01:00",
            "0000-01-01T00:59:59.999999999+01:00",
            "9999-12-31T23:59:59-01:00",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_source_is_like_a_uri_reference() {
        for (source, fits) in [
            ("/gw/eu-1", true),
            ("my-app", true),
            ("#fragment", true),
            ("urn:uuid:1", true),
            ("https://example.com/a?b=c", true),
            ("münchen", true),
            ("/a b", false),
            ("a\u{a0}b", false),
            ("<a>", false),
            ("a\\b", false),
        ] {
            assert_eq!(is_uri_reference(source), fits, "{source}");
        }
    }
}
