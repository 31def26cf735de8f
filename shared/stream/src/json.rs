//! The JSON format of CloudEvents: one event, or the elements of a batch.
//!
//! `data` stays the text that it was; the rest is read by hand so that a member
//! given twice is seen.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cloudevents::Data;
use model::is_json_media_type;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    CloudEvent, DecodeError,
    attributes::{Attributes, Value},
};

/// Reads one event of JSON text. Its attributes are still to be judged.
pub(crate) fn gather(text: &str) -> Result<(Attributes<'_>, Option<Data>), DecodeError> {
    let members: Members<'_> = parse(text)?;
    let mut attributes = Attributes::default();
    let mut data = None;
    let mut data_base64 = None;
    for (name, value) in members.0 {
        let raw = value.get();
        match name.0.as_ref() {
            "data" | "data_base64" => {
                let slot = if name.0 == "data" {
                    &mut data
                } else {
                    &mut data_base64
                };
                if slot.replace(raw).is_some() {
                    return Err(DecodeError::field(name.0.into_owned(), "is given twice"));
                }
            }
            // Null means that the attribute is not set.
            _ if raw == "null" => {}
            _ => {
                let value = attribute(&name.0, raw)?;
                attributes.insert(name.0, value)?;
            }
        }
    }
    let data = match (not_null(data), not_null(data_base64)) {
        (Some(_), Some(_)) => {
            return Err(DecodeError::field(
                "data",
                "and data_base64 exclude each other",
            ));
        }
        (Some(raw), None) => Some(plain_data(raw, attributes.data_content_type())?),
        (None, Some(raw)) => Some(base64_data(raw)?),
        (None, None) => None,
    };
    Ok((attributes, data))
}

/// Writes one event as JSON text. Data that is JSON stays the text that it is; any other is
/// base64.
pub(crate) fn encode(event: &CloudEvent) -> Vec<u8> {
    let mut is_json = false;
    let mut attributes = BTreeMap::new();
    event.each_attribute(|name, text| {
        is_json |= name == "datacontenttype" && is_json_media_type(text);
        attributes.insert(name.to_owned(), text.to_owned());
    });
    let data = event.data();
    let json = data.filter(|_| is_json);
    let json = json.and_then(|data| serde_json::from_slice(data).ok());
    // Null would be no data.
    let json = json.filter(|json: &&RawValue| json.get() != "null");
    let written = Written {
        attributes,
        data: json,
        data_base64: data
            .filter(|_| json.is_none())
            .map(|data| STANDARD.encode(data)),
    };
    serde_json::to_vec(&written).expect("text has no reason to fail")
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    attributes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Reads the elements of a batch, each still as text.
pub(crate) fn elements(text: &str) -> Result<Vec<&str>, DecodeError> {
    if first_byte(text) != Some(b'[') {
        return Err(DecodeError::whole("the body is not a JSON array"));
    }
    let raw: Vec<&RawValue> = parse(text)?;
    Ok(raw.into_iter().map(RawValue::get).collect())
}

/// Returns the first byte that is not white space.
pub(crate) fn first_byte(text: &str) -> Option<u8> {
    text.bytes()
        .find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        DecodeError::whole(match error.classify() {
            serde_json::error::Category::Data => "is not a JSON object".into(),
            // serde_json's own words may quote the event.
            _ => format!("is not JSON (line {line}, column {column})"),
        })
    })
}

fn not_null(raw: Option<&str>) -> Option<&str> {
    // CloudEvents' own text leaves open whether null is data. Here it is not, as in OpenMeter.
    raw.filter(|raw| *raw != "null")
}

fn attribute<'a>(name: &str, raw: &'a str) -> Result<Value<'a>, DecodeError> {
    let wrong = |reason: &'static str| Err(DecodeError::field(name.to_owned(), reason));
    match raw.as_bytes().first() {
        Some(b'"') => match string(raw) {
            Some(text) => Ok(Value::Text(text)),
            None => wrong("is not valid Unicode"),
        },
        Some(b't') => Ok(Value::Boolean(true)),
        Some(b'f') => Ok(Value::Boolean(false)),
        Some(b'-' | b'0'..=b'9') => match raw.parse() {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => wrong("is a number that is no 32 bit integer"),
        },
        _ => wrong("must be a string, an integer or a boolean"),
    }
}

fn plain_data(raw: &str, content_type: Option<&str>) -> Result<Data, DecodeError> {
    if content_type.is_none_or(is_json_media_type) {
        return Ok(Data::String(raw.to_owned()));
    }
    if !raw.starts_with('"') {
        let reason = "must be a string, since datacontenttype is not JSON";
        return Err(DecodeError::field("data", reason));
    }
    match string(raw) {
        Some(text) => Ok(Data::Binary(text.into_owned().into_bytes())),
        None => Err(DecodeError::field("data", "is not valid Unicode")),
    }
}

fn base64_data(raw: &str) -> Result<Data, DecodeError> {
    let wrong = || DecodeError::field("data_base64", "is not a Base64 string");
    let text = string(raw)
        .filter(|_| raw.starts_with('"'))
        .ok_or_else(wrong)?;
    STANDARD
        .decode(text.as_bytes())
        .map(Data::Binary)
        .map_err(|_| wrong())
}

/// Reads a JSON string, which `raw` is known to be if it begins like one.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// The members of an object in their order, with repeats.
struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A member's name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
