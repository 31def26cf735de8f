//! What is wrong with something that claims to be a CloudEvent.

use std::{borrow::Cow, fmt};

/// How much is told of a name that may have any length.
const NAME_CHARS: usize = 40;

/// Why an event was refused: which one, which attribute, and what is wrong with it.
///
/// It never quotes the event, so it may be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Place in its batch, from 0; `None` outside a batch and for the batch as a whole.
    pub index: Option<usize>,
    /// Attribute that is wrong; `None` for the event as a whole.
    pub field: Option<Cow<'static, str>>,
    /// What is wrong, in words for the sender.
    pub reason: Cow<'static, str>,
}

impl DecodeError {
    /// Returns an error about an event, or a batch, as a whole.
    pub fn whole(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            index: None,
            field: None,
            reason: reason.into(),
        }
    }

    /// Returns an error about one attribute. A name that is not one of ours comes from outside
    /// and goes into an answer, a log line and a header: it is cut, and made printable.
    pub fn field(
        field: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            index: None,
            field: Some(match field.into() {
                Cow::Owned(name) => Cow::Owned(printable(&name)),
                ours => ours,
            }),
            reason: reason.into(),
        }
    }

    /// Says which event of a batch it is.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }
}

fn printable(name: &str) -> String {
    let shown = name.chars().take(NAME_CHARS);
    shown.flat_map(char::escape_default).collect()
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "event {index}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field} ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DecodeError {}

/// What Kafka's client says of its own failure. Its type stays in this crate.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct KafkaFault(pub(crate) rdkafka::error::KafkaError);
