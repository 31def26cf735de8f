//! CloudEvents in Kafka records, and records into the words of metering.
//!
//! Written in binary mode: attributes in headers `ce_*`, the content type in
//! `content-type`, data as the value, and as the key the event's identity, so that
//! one partition orders its deliveries. Read in binary and structured mode. Nothing
//! here connects to Kafka.

use std::{borrow::Cow, collections::BTreeMap};

use cloudevents::Data;
use jiff::Timestamp;
use model::{Identity, UsageEvent};
use rdkafka::message::{Header, OwnedHeaders};

use crate::{
    CloudEvent, DecodeError,
    attributes::{Attributes, Checked, INGESTED_AT, OF_KNATIVE, Value},
    http::{gather_text, is_structured},
    original::{ORIGINAL, is_raw, seal},
    syntax::parse_time,
};

const PREFIX: &str = "ce_";
const CONTENT_TYPE: &str = "content-type";

/// What a header costs beside its bytes.
pub(crate) const HEADER_OVERHEAD: usize = 16;

/// A record as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition.
    pub key: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The value; `None` is Kafka's null.
    pub value: Option<Vec<u8>>,
}

/// A record that is no CloudEvent, as it was read, for the dead letter topic.
#[derive(Debug)]
pub struct DeadRecord {
    /// Partition that it was read from.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// What is wrong with it.
    pub reason: DecodeError,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    // Kept as librdkafka holds them: their names need not be UTF-8.
    pub(crate) headers: Option<OwnedHeaders>,
    // Of the headers, as `drain` counts them.
    pub(crate) header_bytes: usize,
}

impl DeadRecord {
    /// Returns `record`, read at this place, with what is wrong with it.
    pub fn new(partition: i32, offset: i64, reason: DecodeError, record: Record) -> Self {
        let size = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let mut header_bytes = 0;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            header_bytes += HEADER_OVERHEAD + key.len() + size(value);
            headers = headers.insert(Header {
                key,
                value: value.as_ref(),
            });
        }
        Self {
            partition,
            offset,
            reason,
            key: record.key,
            value: record.value,
            headers: Some(headers),
            header_bytes,
        }
    }

    /// Returns the value.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Returns the bytes of key, headers and value.
    pub(crate) fn size(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + self.header_bytes + len(&self.value)
    }
}

/// Encodes an event in binary mode.
pub fn encode(event: &CloudEvent) -> Record {
    let mut headers = Vec::with_capacity(10);
    each_header(event, |name, text| {
        headers.push((name.to_owned(), Some(text.as_bytes().to_vec())));
    });
    Record {
        key: Some(event.identity().0.to_vec()),
        headers,
        value: event.data().map(<[u8]>::to_vec),
    }
}

/// Calls `each` with the name and the value of every header of `event`.
pub(crate) fn each_header(event: &CloudEvent, mut each: impl FnMut(&str, &str)) {
    event.each_attribute(|name, text| each(&header(name), text));
}

/// Returns the name of the header of an attribute.
fn header(name: &str) -> Cow<'static, str> {
    Cow::Borrowed(match name {
        // The names that nearly every event has need no string put together.
        "specversion" => "ce_specversion",
        "id" => "ce_id",
        "source" => "ce_source",
        "type" => "ce_type",
        "subject" => "ce_subject",
        "time" => "ce_time",
        INGESTED_AT => "ce_ingestedat",
        "datacontenttype" => CONTENT_TYPE,
        _ => return Cow::Owned(format!("{PREFIX}{name}")),
    })
}

/// Decodes a record, in binary or structured mode.
///
/// `recorded_at` is the record's own time. It stands in where nobody says when the event
/// was ingested, and that for the event's time where it has none.
pub fn decode<'a>(
    headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    value: Option<&'a [u8]>,
    recorded_at: Timestamp,
) -> Result<UsageEvent, DecodeError> {
    let (attributes, data) = gather(headers, value)?;
    Ok(usage_event(
        attributes.original()?.check()?,
        data,
        recorded_at,
    ))
}

/// Decodes a record, in binary or structured mode, to pass the event on as it is there.
pub fn decode_event<'a>(
    headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    value: Option<&'a [u8]>,
) -> Result<CloudEvent, DecodeError> {
    let (attributes, data) = gather(headers, value)?;
    Ok(CloudEvent::from_checked(attributes.check()?, data))
}

/// Decodes a record of an event that ingest accepted, to pass it on as ingest made it, whatever
/// became of it on the way there.
pub(crate) fn decode_accepted<'a>(
    headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    value: Option<&'a [u8]>,
) -> Result<CloudEvent, DecodeError> {
    let (attributes, data) = gather(headers, value)?;
    Ok(CloudEvent::from_checked(
        attributes.original()?.check()?,
        data,
    ))
}

fn gather<'a>(
    headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    value: Option<&'a [u8]>,
) -> Result<(Attributes<'a>, Option<Data>), DecodeError> {
    let mut attributes = Attributes::default();
    let mut content_type = None;
    for (name, value) in headers {
        // A null header says nothing, in whichever mode.
        let Some(value) = value else { continue };
        if let Some(name) = name.strip_prefix(PREFIX) {
            if name == "datacontenttype" {
                let reason = "is the header content-type in binary mode";
                return Err(DecodeError::field("datacontenttype", reason));
            }
            let text = std::str::from_utf8(value)
                .map_err(|_| DecodeError::field(name.to_owned(), "is not UTF-8"))?;
            attributes.insert(name.into(), Value::Text(text.into()))?;
        } else if name.eq_ignore_ascii_case(CONTENT_TYPE) {
            let text = std::str::from_utf8(value)
                .map_err(|_| DecodeError::field("datacontenttype", "is not UTF-8"))?;
            if content_type.replace(text).is_some() {
                return Err(DecodeError::field("datacontenttype", "is given twice"));
            }
        }
    }
    if let Some(text) = content_type {
        if is_structured(text) {
            let text = std::str::from_utf8(value.unwrap_or_default())
                .map_err(|_| DecodeError::whole("is not JSON: not UTF-8"))?;
            return gather_text(text);
        }
        attributes.insert("datacontenttype".into(), Value::Text(text.into()))?;
    }
    let data = value.map(|value| Data::Binary(value.to_vec()));
    Ok((attributes, data))
}

/// Returns an event in the words of metering, whichever way it came. `received_at` stands in
/// where ingest did not say when it took it, and that for the time where it has none.
pub(crate) fn usage_event(
    checked: Checked<'_>,
    data: Option<Data>,
    received_at: Timestamp,
) -> UsageEvent {
    let mut attributes = BTreeMap::new();
    let mut ingested_at = received_at;
    if let Some(content_type) = checked.data_content_type {
        attributes.insert("datacontenttype".to_owned(), content_type.into_owned());
    }
    if let Some(schema) = checked.data_schema {
        attributes.insert("dataschema".to_owned(), schema.into());
    }
    for (name, value) in checked.extensions {
        if name == ORIGINAL || OF_KNATIVE.contains(&&*name) {
            continue;
        }
        if name == INGESTED_AT
            && let Value::Text(text) = &value
            && let Some(time) = parse_time(text)
        {
            ingested_at = time;
            continue;
        }
        attributes.insert(name.into_owned(), value.into_text());
    }
    UsageEvent {
        id: checked.id.into_owned(),
        source: checked.source.into_owned(),
        event_type: checked.event_type.into_owned(),
        subject: checked.subject.map(Into::into),
        time: checked.time.unwrap_or(ingested_at),
        ingested_at,
        // A request cannot tell data of no bytes from none, so nobody does.
        data: data.map(into_bytes).filter(|data| !data.is_empty()),
        attributes,
    }
}

pub(crate) fn into_bytes(data: Data) -> Vec<u8> {
    match data {
        Data::Binary(bytes) => bytes,
        Data::String(text) => text.into_bytes(),
        Data::Json(value) => value.to_string().into_bytes(),
    }
}

/// Encodes what was read, as [`encode`] does: the record that it may have come in.
pub(crate) fn encode_usage(event: &UsageEvent) -> Record {
    let mut attributes: BTreeMap<&str, Cow<'_, str>> = BTreeMap::new();
    for (name, text) in &event.attributes {
        attributes.insert(name, text.into());
    }
    // Also over a time kept beside one that no column can hold.
    attributes.insert("specversion", "1.0".into());
    attributes.insert("id", (&event.id).into());
    attributes.insert("source", (&event.source).into());
    attributes.insert("type", (&event.event_type).into());
    if let Some(subject) = &event.subject {
        attributes.insert("subject", subject.into());
    }
    attributes.insert("time", event.time.to_string().into());
    attributes.insert(INGESTED_AT, event.ingested_at.to_string().into());
    if !attributes.values().all(|text| is_raw(text)) {
        let sealed = seal(&attributes);
        attributes.insert(ORIGINAL, sealed.into());
    }
    let bytes = |text: Cow<'_, str>| text.into_owned().into_bytes();
    Record {
        key: Some(Identity::of(&event.source, &event.id).0.to_vec()),
        headers: attributes
            .into_iter()
            .map(|(name, text)| (header(name).into_owned(), Some(bytes(text))))
            .collect(),
        value: event.data.clone(),
    }
}
