//! CloudEvents in HTTP requests: binary, structured and batch mode.
//!
//! The decoders are our own. The SDK's take empty ids, do not decode percent
//! signs, parse JSON data and know no batch. They do no I/O: whoever reads the
//! request limits its body.

use std::borrow::Cow;

use bytes::Bytes;
use cloudevents::Data;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, InvalidHeaderValue, MaxSizeReached},
};
use jiff::Timestamp;
use model::UsageEvent;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use crate::{
    CloudEvent, DecodeError,
    attributes::{Attributes, INGESTED_AT, Value},
    json,
    kafka::usage_event,
    original::ORIGINAL,
    syntax::is_visible,
};

/// One event in JSON format.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// An array of events in JSON format.
pub const BATCH: &str = "application/cloudevents-batch+json";

const PREFIX: &str = "ce-";

/// The type of the event into which a KafkaSource wraps a record that is none.
pub(crate) const WRAPPED: &str = "dev.knative.kafka.event";

/// What CloudEvents has encoded in header values: white space, the quote, the percent
/// sign and everything that is not visible ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Why a request as a whole was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Neither `ce-` headers nor a content type of CloudEvents.
    #[error("the content type is not one of CloudEvents, and there are no ce- headers")]
    ContentType,
    /// One event is larger than the limit.
    #[error("{}the event has {size} bytes, more than {limit}", at(*.index))]
    TooLarge {
        /// Place in the batch.
        index: Option<usize>,
        /// Bytes of the event's data or JSON text.
        size: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// The body cannot be taken apart into events.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

fn at(index: Option<usize>) -> String {
    index.map_or_else(String::new, |index| format!("event {index}: "))
}

/// The events of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    /// Each judged by itself, so that every mistake in a batch can be named.
    pub each: Vec<Result<CloudEvent, DecodeError>>,
    /// Whether they came as a batch, where a mistake is told with its index.
    pub is_batch: bool,
}

impl Events {
    fn one(event: Result<CloudEvent, DecodeError>) -> Self {
        Self {
            each: vec![event],
            is_batch: false,
        }
    }
}

/// How a request says that it carries events.
enum Mode {
    Binary,
    Structured,
    Batch,
}

/// Decodes a request of a stranger, in whichever mode it is. No event may have more bytes than
/// `limit`.
pub fn decode(headers: &HeaderMap, body: &[u8], limit: usize) -> Result<Events, Refused> {
    match mode(headers).ok_or(Refused::ContentType)? {
        Mode::Binary => {
            check_size(None, body.len(), limit)?;
            let gathered = gather_binary(headers, body, |_| true);
            Ok(Events::one(gathered.and_then(admit)))
        }
        Mode::Structured => decode_object(body, limit),
        Mode::Batch => decode_array(body, limit),
    }
}

/// Decodes a request of a stranger that must carry exactly one event.
pub fn decode_one(headers: &HeaderMap, body: &[u8]) -> Result<CloudEvent, Refused> {
    Ok(admit(gather_one(headers, body, |_| true)?)?)
}

/// Decodes a request that passes on one event which was let in before, as dead letters are.
pub fn decode_passed_on(headers: &HeaderMap, body: &[u8]) -> Result<CloudEvent, Refused> {
    let (attributes, data) = gather_one(headers, body, |_| true)?;
    Ok(CloudEvent::from_checked(attributes.check()?, data))
}

/// Decodes what a KafkaSource delivers of a topic of accepted events, as [`crate::kafka::decode`]
/// does what it reads itself: `received_at` stands in for the record's time, which is not
/// delivered.
pub fn decode_record(
    headers: &HeaderMap,
    body: &[u8],
    received_at: Timestamp,
) -> Result<UsageEvent, Refused> {
    // What ingest kept comes through whatever became of the others, so they are not even read.
    let has = |name| {
        let mut names = headers.keys().map(HeaderName::as_str);
        names.any(|known| known.strip_prefix(PREFIX) == Some(name))
    };
    let is_kept = has(ORIGINAL) && has(INGESTED_AT);
    let wanted = |name: &str| !is_kept || [ORIGINAL, INGESTED_AT].contains(&name);
    let (attributes, data) = gather_one(headers, body, wanted)?;
    let checked = attributes.original()?.check()?;
    // A sender may give his own event this type, but then ingest took it, and says when.
    let is_accepted = checked
        .extensions
        .iter()
        .any(|(name, _)| name == INGESTED_AT);
    if checked.event_type == WRAPPED && !is_accepted {
        return Err(DecodeError::whole("is a Kafka record that holds no CloudEvent").into());
    }
    Ok(usage_event(checked, data, received_at))
}

fn gather_one<'a>(
    headers: &'a HeaderMap,
    body: &'a [u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<(Attributes<'a>, Option<Data>), Refused> {
    match mode(headers).ok_or(Refused::ContentType)? {
        Mode::Binary => Ok(gather_binary(headers, body, wanted)?),
        Mode::Structured => Ok(gather_text(utf8(body)?)?),
        Mode::Batch => Err(DecodeError::whole("a batch is not accepted here").into()),
    }
}

/// Decodes a body of JSON that does not say what it is: an event, or an array of them.
pub fn decode_json(body: &[u8], limit: usize) -> Result<Events, Refused> {
    match json::first_byte(utf8(body)?) {
        Some(b'[') => decode_array(body, limit),
        _ => decode_object(body, limit),
    }
}

/// Returns whether headers carry a CloudEvent in binary mode, or try to.
pub fn is_binary(headers: &HeaderMap) -> bool {
    matches!(mode(headers), Some(Mode::Binary))
}

/// Encodes an event in binary mode: headers and body.
///
/// An extension whose name is not one that HTTP allows cannot be sent, which is the
/// error; an event that was decoded has none.
pub fn encode(event: &CloudEvent) -> Result<(HeaderMap, Vec<u8>), EncodeError> {
    Ok((
        encode_headers(event, encode_header)?,
        event.data().unwrap_or_default().to_vec(),
    ))
}

/// Encodes an event in binary mode, its data's bytes being the body.
pub fn into_request(event: CloudEvent) -> Result<(HeaderMap, Bytes), EncodeError> {
    Ok((
        encode_headers(&event, encode_header)?,
        event.into_data().into(),
    ))
}

/// Encodes an event as Knative's data plane passes one on: it decoded no percent signs when the
/// event came in, and adds none. Only what no header takes as it is, is encoded.
pub fn pass_on(event: CloudEvent) -> Result<(HeaderMap, Bytes), EncodeError> {
    let as_it_is = |name: &str, text: &str| {
        let is_taken = text.bytes().all(|byte| byte == b' ' || is_visible(byte));
        if is_taken && text.trim().len() == text.len() {
            Ok((header_name(name)?, HeaderValue::from_str(text)?))
        } else {
            encode_header(name, text)
        }
    };
    Ok((encode_headers(&event, as_it_is)?, event.into_data().into()))
}

type Header = (HeaderName, HeaderValue);

fn encode_headers(
    event: &CloudEvent,
    encode: impl Fn(&str, &str) -> Result<Header, EncodeError>,
) -> Result<HeaderMap, EncodeError> {
    let mut headers = HeaderMap::with_capacity(12);
    let mut failed = None;
    event.each_attribute(|name, text| {
        let header = match name {
            "datacontenttype" => HeaderValue::from_str(text)
                .map_err(EncodeError::from)
                .map(|value| (CONTENT_TYPE, value)),
            _ => encode(name, text),
        };
        let added = header.and_then(|(name, value)| Ok(headers.try_insert(name, value)?));
        if let Err(error) = added {
            failed.get_or_insert(error);
        }
    });
    failed.map_or(Ok(headers), Err)
}

/// Attributes that no HTTP headers can carry.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Its name cannot be part of a header's name.
    #[error("an attribute's name cannot be a header")]
    Name(#[from] http::header::InvalidHeaderName),
    /// Its value cannot be a header's value.
    #[error("an attribute's value cannot be a header")]
    Value(#[from] InvalidHeaderValue),
    /// There are too many.
    #[error("there are more attributes than headers can be")]
    Number(#[from] MaxSizeReached),
}

/// Encodes an event in structured mode: the body, whose type is [`STRUCTURED`].
pub fn encode_structured(event: &CloudEvent) -> Vec<u8> {
    json::encode(event)
}

/// Encodes one attribute in binary mode.
pub fn encode_header(name: &str, text: &str) -> Result<(HeaderName, HeaderValue), EncodeError> {
    let value: Cow<'_, str> = utf8_percent_encode(text, ENCODED).into();
    Ok((header_name(name)?, HeaderValue::from_str(&value)?))
}

fn header_name(attribute: &str) -> Result<HeaderName, EncodeError> {
    Ok(HeaderName::from_bytes(
        format!("{PREFIX}{attribute}").as_bytes(),
    )?)
}

fn mode(headers: &HeaderMap) -> Option<Mode> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    match essence {
        Some(essence) if essence.eq_ignore_ascii_case(STRUCTURED) => Some(Mode::Structured),
        Some(essence) if essence.eq_ignore_ascii_case(BATCH) => Some(Mode::Batch),
        // Another format of events: the headers are not the event.
        Some(essence) if is_events(essence) => None,
        _ => headers
            .keys()
            .any(|name| name.as_str().starts_with(PREFIX))
            .then_some(Mode::Binary),
    }
}

/// Returns whether a content type is that of one event in JSON format.
pub(crate) fn is_structured(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(STRUCTURED)
}

fn is_events(essence: &str) -> bool {
    let prefix = "application/cloudevents";
    essence
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn check_size(index: Option<usize>, size: usize, limit: usize) -> Result<(), Refused> {
    if size > limit {
        return Err(Refused::TooLarge { index, size, limit });
    }
    Ok(())
}

fn utf8(body: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(body).map_err(|_| DecodeError::whole("is not JSON: not UTF-8"))
}

fn decode_object(body: &[u8], limit: usize) -> Result<Events, Refused> {
    check_size(None, body.len(), limit)?;
    Ok(Events::one(gather_text(utf8(body)?).and_then(admit)))
}

fn decode_array(body: &[u8], limit: usize) -> Result<Events, Refused> {
    let elements = json::elements(utf8(body)?)?;
    let mut each = Vec::with_capacity(elements.len());
    for (index, text) in elements.into_iter().enumerate() {
        check_size(Some(index), text.len(), limit)?;
        let event = gather_text(text).and_then(admit);
        each.push(event.map_err(|error| error.at(index)));
    }
    Ok(Events {
        each,
        is_batch: true,
    })
}

/// Judges what a stranger sent.
fn admit((attributes, data): (Attributes<'_>, Option<Data>)) -> Result<CloudEvent, DecodeError> {
    Ok(CloudEvent::from_checked(attributes.check()?.admit()?, data))
}

/// Reads one event of JSON text.
pub(crate) fn gather_text(text: &str) -> Result<(Attributes<'_>, Option<Data>), DecodeError> {
    let (attributes, data) = json::gather(text)?;
    // In binary mode, as it is written on, such data would be taken for the event itself.
    if attributes.data_content_type().is_some_and(is_events) {
        let reason = "is an event's, and an event cannot be another's data";
        return Err(DecodeError::field("datacontenttype", reason));
    }
    Ok((attributes, data))
}

/// Reads those attributes that are wanted, and the data.
fn gather_binary<'a>(
    headers: &'a HeaderMap,
    body: &[u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<(Attributes<'a>, Option<Data>), DecodeError> {
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        if name == CONTENT_TYPE && wanted("datacontenttype") {
            let text = value
                .to_str()
                .map_err(|_| DecodeError::field("datacontenttype", "is not a media type"))?;
            attributes.insert("datacontenttype".into(), Value::Text(text.into()))?;
        } else if let Some(name) = name.as_str().strip_prefix(PREFIX)
            && wanted(name)
        {
            if name == "datacontenttype" {
                let reason = "is the header content-type in binary mode";
                return Err(DecodeError::field("datacontenttype", reason));
            }
            let text = decode_header(value.as_bytes())
                .ok_or_else(|| DecodeError::field(name.to_owned(), "is not UTF-8"))?;
            attributes.insert(name.into(), Value::Text(text))?;
        }
    }
    let data = (!body.is_empty()).then(|| Data::Binary(body.to_vec()));
    Ok((attributes, data))
}

/// Takes a header's value out of its quotes, then undoes percent signs, once.
///
/// A sign that no two hex digits follow stays: Knative sends values as they are.
fn decode_header(value: &[u8]) -> Option<Cow<'_, str>> {
    match unquote(value) {
        Some(unquoted) => {
            let decoded: Cow<'_, [u8]> = percent_decode(&unquoted).into();
            String::from_utf8(decoded.into_owned()).ok().map(Cow::Owned)
        }
        None => percent_decode(value).decode_utf8().ok(),
    }
}

/// Returns what a quoted string of RFC 9110 says, `None` for anything else.
fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => text.push(*bytes.next()?),
            _ => text.push(byte),
        }
    }
    Some(text)
}
