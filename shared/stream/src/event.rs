//! One CloudEvent between HTTP and Kafka.

use std::{collections::BTreeMap, fmt};

use chrono::{DateTime, SecondsFormat, Utc};
use cloudevents::{
    AttributesReader, AttributesWriter, Data, Event, EventBuilder, EventBuilderV10,
    event::ExtensionValue,
};
use jiff::Timestamp;
use model::{Identity, is_json_media_type};
use url::Url;

use crate::{
    attributes::{Checked, INGESTED_AT, OF_KNATIVE, Value},
    kafka,
    original::{ORIGINAL, is_raw, seal},
};

/// What an extension costs beside its bytes: a place in the SDK's map, and a header in
/// librdkafka.
const HEADER_OVERHEAD: usize = 128;

/// A CloudEvent: the SDK's type, with its data kept as bytes.
///
/// The SDK would parse JSON data and write it anew. Here data is what was sent,
/// byte for byte; in JSON format it is the text of the member `data`.
#[derive(Clone, PartialEq)]
pub struct CloudEvent(Event);

impl CloudEvent {
    /// Returns an event with the required attributes. They are judged by whoever
    /// decodes it: an empty one can be made, to see it refused.
    pub fn new(
        id: impl Into<String>,
        source: impl Into<String>,
        event_type: impl Into<String>,
    ) -> Self {
        // The SDK's builder refuses an empty source, its setter does not.
        let mut event = EventBuilderV10::new()
            .id(id)
            .source("-")
            .ty(event_type)
            .build()
            .expect("id, source and type are set");
        event.set_source(source);
        Self(event)
    }

    pub(crate) fn from_checked(checked: Checked<'_>, data: Option<Data>) -> Self {
        let mut event = EventBuilderV10::new()
            .id(checked.id)
            .source(checked.source)
            .ty(checked.event_type)
            .build()
            .expect("id, source and type are set, and source is not empty");
        event.set_subject(checked.subject);
        event.set_time(checked.time.and_then(to_chrono));
        event.set_datacontenttype(checked.data_content_type);
        event.set_dataschema(checked.data_schema);
        for (name, value) in checked.extensions {
            let value = match value {
                Value::Text(text) => ExtensionValue::String(text.into_owned()),
                Value::Integer(number) => ExtensionValue::Integer(number.into()),
                Value::Boolean(yes) => ExtensionValue::Boolean(yes),
            };
            event.set_extension(&name, value);
        }
        if let Some(data) = data {
            event.set_data_unchecked(data);
        }
        Self(event)
    }

    /// Sets the subject: who used something.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.0.set_subject(Some(subject));
        self
    }

    /// Sets when it happened.
    #[must_use]
    pub fn with_time(mut self, time: Timestamp) -> Self {
        self.0.set_time(to_chrono(time));
        self
    }

    /// Sets an extension attribute.
    #[must_use]
    pub fn with_extension(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.set_extension(name, value.into());
        self
    }

    /// Sets the data and what it is.
    #[must_use]
    pub fn with_data(mut self, content_type: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        self.0.set_data(content_type, data.into());
        self
    }

    /// Sets data of which nobody says what it is.
    #[must_use]
    pub fn with_bytes(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.0.set_data_unchecked(data.into());
        self
    }

    /// Says when it was accepted: as extension `ingestedat`, whatever the sender
    /// wrote there, and as its time if it has none. Attributes that not every header brings
    /// through are kept beside as well; and what Knative added on the way here goes, since it
    /// will add the same again.
    pub fn stamp(&mut self, accepted_at: Timestamp) {
        self.0
            .set_extension(INGESTED_AT, format!("{accepted_at:.6}"));
        if self.0.time().is_none() {
            self.0.set_time(to_chrono(accepted_at));
        }
        self.remove_knatives();
        self.0.remove_extension(ORIGINAL);
        if !self.texts().all(is_raw) {
            let mut attributes = BTreeMap::new();
            self.each_attribute(|name, text| {
                attributes.insert(name.to_owned(), text.to_owned());
            });
            self.0.set_extension(ORIGINAL, seal(&attributes));
        }
    }

    /// Takes away what Knative added to it.
    pub(crate) fn remove_knatives(&mut self) {
        for name in OF_KNATIVE {
            self.0.remove_extension(name);
        }
    }

    /// Returns the id.
    pub fn id(&self) -> &str {
        self.0.id()
    }

    /// Returns the source.
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// Returns the identity: (source, id).
    pub fn identity(&self) -> Identity {
        Identity::of(self.source(), self.id())
    }

    /// Returns the type.
    pub fn event_type(&self) -> &str {
        self.0.ty()
    }

    /// Returns the subject.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject()
    }

    /// Returns the time.
    pub fn time(&self) -> Option<Timestamp> {
        self.0.time().and_then(to_jiff)
    }

    /// Returns what the data is, as the sender said. Data without it is JSON if it
    /// came in JSON format.
    pub fn data_content_type(&self) -> Option<&str> {
        self.0.datacontenttype()
    }

    /// Returns any attribute by its name, as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        let mut found = None;
        self.each_attribute(|known, text| {
            if known == name {
                found = Some(text.to_owned());
            }
        });
        found
    }

    /// Returns the data's bytes.
    pub fn data(&self) -> Option<&[u8]> {
        match self.0.data()? {
            Data::Binary(bytes) => Some(bytes),
            Data::String(text) => Some(text.as_bytes()),
            // `From<Event>` wrote such data as text; nothing here makes it.
            Data::Json(_) => None,
        }
    }

    /// Returns the data's bytes and nothing else; none at all are no bytes.
    pub fn into_data(mut self) -> Vec<u8> {
        let (_, _, data) = self.0.take_data();
        data.map(kafka::into_bytes).unwrap_or_default()
    }

    /// Returns the bytes that the event takes up in a record, but for its numbers and its time,
    /// and what its extensions cost beside.
    pub(crate) fn size(&self) -> usize {
        let extensions = self.0.iter_extensions();
        let names = extensions.map(|(name, _)| HEADER_OVERHEAD + name.len());
        self.texts().map(str::len).sum::<usize>()
            + names.sum::<usize>()
            + self.data().map_or(0, <[u8]>::len)
    }

    /// Returns the values that are text, which a time is not.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let own = [
            Some(self.id()),
            Some(self.source()),
            Some(self.event_type()),
            self.subject(),
            self.data_content_type(),
            self.0.dataschema().map(Url::as_str),
        ];
        let extensions = self.0.iter_extensions();
        let extensions = extensions.filter_map(|(_, value)| match value {
            ExtensionValue::String(text) => Some(&**text),
            ExtensionValue::Boolean(_) | ExtensionValue::Integer(_) => None,
        });
        own.into_iter().flatten().chain(extensions)
    }

    /// Calls `each` with every attribute as text, specversion first. JSON data whose type
    /// was left unsaid, as JSON format allows, is said to be JSON: elsewhere nobody
    /// would know.
    pub(crate) fn each_attribute(&self, mut each: impl FnMut(&str, &str)) {
        each("specversion", "1.0");
        each("id", self.id());
        each("source", self.source());
        each("type", self.event_type());
        if let Some(subject) = self.subject() {
            each("subject", subject);
        }
        if let Some(time) = self.0.time() {
            each("time", &time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        }
        match (self.0.datacontenttype(), self.0.data()) {
            (Some(content_type), _) => each("datacontenttype", content_type),
            (None, Some(Data::String(_))) => each("datacontenttype", "application/json"),
            _ => {}
        }
        if let Some(schema) = self.0.dataschema() {
            each("dataschema", schema.as_str());
        }
        for (name, value) in self.0.iter_extensions() {
            match value {
                ExtensionValue::String(text) => each(name, text),
                ExtensionValue::Boolean(yes) => each(name, if *yes { "true" } else { "false" }),
                ExtensionValue::Integer(number) => each(name, &number.to_string()),
            }
        }
    }

    /// Returns the SDK's event.
    pub fn into_inner(self) -> Event {
        self.0
    }
}

impl From<Event> for CloudEvent {
    fn from(mut event: Event) -> Self {
        if let Some(Data::Json(value)) = event.data() {
            let text = value.to_string();
            event.set_data_unchecked(text);
        } else if let Some(Data::String(text)) = event.data()
            && event
                .datacontenttype()
                .is_none_or(|content_type| !is_json_media_type(content_type))
        {
            // In the SDK a string is text, not the JSON text that it is here.
            let bytes = text.clone().into_bytes();
            event.set_data_unchecked(bytes);
        }
        Self(event)
    }
}

/// Shows whose event it is, never its data.
impl fmt::Debug for CloudEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudEvent")
            .field("id", &self.id())
            .field("source", &self.source())
            .field("type", &self.event_type())
            .field("data_len", &self.data().map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

/// `None` for a time outside the range that both can say, which no RFC 3339 text reaches.
fn to_chrono(time: Timestamp) -> Option<DateTime<Utc>> {
    let nanoseconds = time.as_nanosecond();
    let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?;
    let rest = u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?;
    DateTime::from_timestamp(seconds, rest)
}

fn to_jiff(time: &DateTime<Utc>) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(time.timestamp_subsec_nanos()).ok()?;
    Timestamp::new(time.timestamp(), nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_weighs_more_than_its_letters() {
        let none = CloudEvent::new("1", "s", "t");
        let before = none.size();
        let one = none.with_extension("a", "b").size();
        assert!(one - before >= 100, "{}", one - before);
    }
}
