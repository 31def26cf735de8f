//! The attributes of an event as they were found, and the rules that they keep.
//!
//! Every binding gathers into [`Attributes`], so that an event is judged alike
//! whichever way it came. Nothing here knows of headers, JSON or Kafka.

use std::borrow::Cow;

use jiff::Timestamp;
use url::Url;

use crate::{
    DecodeError,
    original::{ORIGINAL, unseal},
    syntax::{
        has_control, is_media_type, is_plain_media_type, is_uri_like, is_uri_reference, parse_time,
    },
};

/// The extension in which ingest says when it took the event.
pub(crate) const INGESTED_AT: &str = "ingestedat";

/// The extensions that Knative adds to an event: where it read it, and why nobody took it. They
/// are no part of the event: who reads the record himself does not see them.
pub(crate) const OF_KNATIVE: [&str; 5] = [
    "knativekafkapartition",
    "knativekafkaoffset",
    "knativeerrordest",
    "knativeerrorcode",
    "knativeerrordata",
];

/// How many bytes the attributes of an event may have together, names and values. Each is a
/// header where it is pushed, once more so in [`ORIGINAL`], up to 2.7 times as long, and Envoy takes
/// 60 KiB of headers, with those of the hops between.
const MAX_BYTES: usize = 15 << 10;

/// How long something is at most that is added on an event's way.
const MAX_ADDED_BYTES: usize = 2 << 10;

/// How many extensions an event may have beside those added. Each costs many times its letters,
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
        if !is_added(&name) {
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

    /// Returns the attributes as ingest took them, if it says so: those found may be what became
    /// of them on their way. What ingest said is kept among them.
    pub(crate) fn original(self) -> Result<Self, DecodeError> {
        let is_accepted = self.extensions.iter().any(|(name, _)| name == INGESTED_AT);
        let sealed = self.extensions.iter().find(|(name, _)| name == ORIGINAL);
        let (true, Some((_, sealed))) = (is_accepted, sealed) else {
            return Ok(self);
        };
        let sealed = sealed.clone().into_text();
        let attributes =
            unseal(&sealed).ok_or_else(|| DecodeError::field(ORIGINAL, "holds no attributes"))?;
        let mut original = Attributes::default();
        for (name, text) in attributes {
            original.insert(name.into(), Value::Text(text.into()))?;
        }
        original.insert(ORIGINAL.into(), Value::Text(sealed.into()))?;
        Ok(original)
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
        if !is_uri_like(&source) {
            return Err(no_uri_reference());
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
            return Err(no_media_type());
        }
        let data_schema = match self.data_schema {
            Some(text) => Some(Url::parse(&text).map_err(|_| no_absolute_uri())?),
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

impl Checked<'_> {
    /// Judges by what is only asked of strangers: that all on the event's way can read it, and
    /// every header can hold it. What was let in before must not be refused for that.
    pub(crate) fn admit(self) -> Result<Self, DecodeError> {
        if !is_uri_reference(&self.source) {
            return Err(no_uri_reference());
        }
        let content_type = self.data_content_type.as_deref();
        if content_type.is_some_and(|text| !is_plain_media_type(text)) {
            return Err(no_media_type());
        }
        let schema = self.data_schema.as_ref();
        if schema.is_some_and(|url| !is_uri_reference(url.as_str())) {
            return Err(no_absolute_uri());
        }
        self.admit_size()
    }

    fn admit_size(self) -> Result<Self, DecodeError> {
        let own = [
            ("id", Some(&*self.id)),
            ("source", Some(&*self.source)),
            ("type", Some(&*self.event_type)),
            ("subject", self.subject.as_deref()),
            ("datacontenttype", self.data_content_type.as_deref()),
            ("dataschema", self.data_schema.as_ref().map(Url::as_str)),
        ];
        let own = own
            .into_iter()
            .filter_map(|(name, text)| Some((name, text?)));
        let extensions = self.extensions.iter().map(|(name, value)| match value {
            Value::Text(text) => (&**name, &**text),
            // Of a few letters, whatever they are.
            Value::Integer(_) | Value::Boolean(_) => (&**name, ""),
        });
        let counted = own
            .chain(extensions)
            .filter(|(name, text)| !is_added(name) || text.len() > MAX_ADDED_BYTES);
        let mut total = 0;
        let mut largest = ("", 0);
        for (name, text) in counted {
            let bytes = name.len() + text.len();
            total += bytes;
            if bytes > largest.1 {
                largest = (name, bytes);
            }
        }
        if total > MAX_BYTES {
            let reason = format!(
                "is the largest of attributes that have {total} bytes together, more than {MAX_BYTES}"
            );
            return Err(DecodeError::field(largest.0.to_owned(), reason));
        }
        Ok(self)
    }
}

fn is_added(name: &str) -> bool {
    name == INGESTED_AT || name == ORIGINAL || OF_KNATIVE.contains(&name)
}

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

fn no_uri_reference() -> DecodeError {
    DecodeError::field("source", "is not a URI reference")
}

fn no_absolute_uri() -> DecodeError {
    DecodeError::field("dataschema", "is not an absolute URI")
}

fn no_media_type() -> DecodeError {
    DecodeError::field("datacontenttype", "is not a media type")
}
