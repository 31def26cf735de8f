//! The list of dead letters, read straight from Kafka while its reader waits.

use std::{fmt, sync::Arc, time::Instant};

use axum::http::StatusCode;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use runtime::Problem;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};
use stream::{Cause, Cursor, DeadLetter, KafkaConfig, ReadError};
use tokio::sync::Semaphore;

use crate::{
    mistakes::Mistakes,
    params::{named_values, unknown},
};

/// The largest page.
const LARGEST_PAGE: usize = 1000;

/// How much of a letter's data is shown, and of a text in it.
const SHOWN: usize = 1024;

/// How many lists are read at a time. Each is a client of Kafka with threads of its own.
const AT_A_TIME: usize = 4;

/// Seconds after which a list that could not be read may be asked for again.
const RETRY_AFTER: u64 = 1;

/// Where dead letters are, if that was said.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetters {
    letters: Option<stream::DeadLetters>,
    readers: Arc<Semaphore>,
}

/// Some of the list, newest first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    items: Vec<Listed>,
    /// What to give as `cursor` for older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl DeadLetters {
    pub(crate) fn new(kafka: Option<KafkaConfig>) -> Self {
        Self {
            letters: kafka.map(stream::DeadLetters::new),
            readers: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// Returns the page that the parameters ask for.
    pub(crate) async fn page(&self, query: Option<&str>) -> Result<Page, Problem> {
        let (limit, cursor) = parameters(query)?;
        let letters = self.letters.clone().ok_or_else(|| {
            let detail = format!("{} is not set here", KafkaConfig::BROKER);
            Problem::new(StatusCode::NOT_IMPLEMENTED).with_detail(detail)
        })?;
        let _reading = self.readers.try_acquire().map_err(|_| {
            let detail = "too many lists of dead letters are being read";
            Problem::too_many_requests(detail).retry_after(RETRY_AFTER)
        })?;
        let begun = Instant::now();
        let of = letters.clone();
        let show =
            move |letter: &DeadLetter, replayed| Listed::new(of.topic(letter.of), letter, replayed);
        let page = letters.page(limit, cursor, show).await;
        metrics::histogram!("openmeter_query_latency_seconds", "question" => "dead_letters")
            .record(begun.elapsed().as_secs_f64());
        let page = page.map_err(|error| problem(&error))?;
        Ok(Page {
            items: page.letters,
            next_cursor: page.next.map(|next| next.to_string()),
        })
    }
}

fn parameters(query: Option<&str>) -> Result<(usize, Option<Cursor>), Problem> {
    let mut mistakes = Mistakes::default();
    let mut by_name = named_values(query);
    let mut one = |name: &str, mistakes: &mut Mistakes| {
        let values = by_name.remove(name).unwrap_or_default();
        mistakes.one(name, &values)
    };
    let limit = match one("limit", &mut mistakes).map(|text| text.parse()) {
        None => 100,
        Some(Ok(limit)) if (1..=LARGEST_PAGE).contains(&limit) => limit,
        Some(_) => {
            let wrong = format!("must be a whole number from 1 to {LARGEST_PAGE}");
            mistakes.add("limit", wrong);
            0
        }
    };
    let cursor = one("cursor", &mut mistakes).and_then(|text| {
        text.parse()
            .map_err(|error: stream::NoCursor| mistakes.add("cursor", error.to_string()))
            .ok()
    });
    for name in by_name.keys() {
        mistakes.add(name, unknown(name));
    }
    mistakes.into_result((limit, cursor))
}

fn problem(error: &ReadError) -> Problem {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    if error.is_retryable() {
        tracing::warn!(%error, cause, "dead letters cannot be read now");
        Problem::unavailable(error.to_string()).retry_after(RETRY_AFTER)
    } else {
        tracing::error!(%error, cause, "dead letters cannot be read");
        Problem::internal()
    }
}

/// A letter of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    time: Timestamp,
    event: Option<Event>,
    cause: Shown,
    #[serde(flatten)]
    data: Data,
    /// Bytes of the whole value, of which `data` is the beginning.
    size: usize,
    replay: State,
}

/// Whose event it is.
#[derive(Debug, Serialize)]
struct Event {
    id: String,
    source: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

/// Why it is dead.
#[derive(Debug, Default, Serialize)]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
enum Data {
    #[serde(rename = "data")]
    Text(String),
    #[serde(rename = "data_base64")]
    Binary(String),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Pending,
    Done,
    /// It holds no whole CloudEvent.
    Impossible,
}

impl Listed {
    fn new(topic: &str, letter: &DeadLetter, is_replayed: bool) -> Self {
        let event = letter.event().ok();
        Self {
            topic: topic.into(),
            partition: letter.partition,
            offset: letter.offset,
            time: letter.time,
            cause: Shown::new(letter.cause()),
            data: Data::of(letter.value()),
            size: letter.value().len(),
            replay: match &event {
                None => State::Impossible,
                Some(_) if is_replayed => State::Done,
                Some(_) => State::Pending,
            },
            event: event.map(|event| Event {
                id: cut(event.id()).to_owned(),
                source: cut(event.source()).to_owned(),
                r#type: cut(event.event_type()).to_owned(),
                subject: event.subject().map(|subject| cut(subject).to_owned()),
            }),
        }
    }
}

impl Shown {
    fn new(cause: Cause) -> Self {
        let own = |text: String| cut(&text).to_owned();
        Self {
            destination: cause.destination.map(own),
            code: cause.code,
            message: cause.said.map(|said| message(&said)),
            record: cause.record.map(own),
        }
    }
}

impl Data {
    fn of(value: &[u8]) -> Self {
        match std::str::from_utf8(value) {
            Ok(text) => Self::Text(cut(text).to_owned()),
            Err(_) => Self::Binary(BASE64_STANDARD.encode(&value[..value.len().min(SHOWN)])),
        }
    }
}

/// Returns the beginning of a text that may have any length.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns what an answer said: a problem's detail or title, else all of it.
fn message(said: &[u8]) -> String {
    let mut problem = Words::default();
    // What is wrong with its end is no matter: Knative keeps 1,024 bytes of an answer.
    drop(Deserializer::deserialize_map(
        &mut serde_json::Deserializer::from_slice(said),
        &mut problem,
    ));
    let words = problem.detail.or(problem.title);
    let words = words.unwrap_or_else(|| String::from_utf8_lossy(said).into_owned());
    cut(&words).to_owned()
}

/// A problem's words (RFC 9457), as many as there are of them.
#[derive(Default)]
struct Words {
    title: Option<String>,
    detail: Option<String>,
}

impl<'de> Visitor<'de> for &mut Words {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a problem")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "title" => self.title = members.next_value::<Text>()?.0,
                "detail" => self.detail = members.next_value::<Text>()?.0,
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_problems_detail_also_if_its_end_is_missing() {
        for (said, shown) in [
            (&br#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"no id","x":1}"#[..], "no id"),
            (br#"{"title":"Bad Request","detail":"no id","extensions":{"val"#, "no id"),
            (br#"{"title":"Bad Request","detail":"no i"#, "Bad Request"),
            (br#"{"title":7}"#, r#"{"title":7}"#),
            (b"upstream connect error", "upstream connect error"),
            (b"\xff", "\u{fffd}"),
            (b"", ""),
        ] {
            assert_eq!(message(said), shown);
        }
    }

    #[test]
    fn data_is_cut_between_characters() {
        let long = "ab\u{e9}".repeat(1000);
        let Data::Text(shown) = Data::of(long.as_bytes()) else {
            panic!("it is text")
        };
        assert!(shown.len() <= SHOWN && long.starts_with(&shown));
        assert_eq!(Data::of(b"\xff"), Data::Binary("/w==".to_owned()));
    }

    #[test]
    fn every_mistake_is_named() {
        let problem = parameters(Some("limit=0&cursor=x&page=2")).unwrap_err();
        for name in ["limit", "cursor", "page"] {
            assert!(problem.detail().unwrap().contains(name), "{problem}");
        }
        assert_eq!(parameters(None).unwrap(), (100, None));
        assert!(parameters(Some("limit=1000&cursor=0.1.2")).is_ok());
    }

    #[tokio::test]
    async fn without_kafka_it_says_what_is_missing() {
        let problem = DeadLetters::new(None).page(None).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::NOT_IMPLEMENTED);
        assert!(problem.detail().unwrap().contains("OPENMETER_KAFKA_BROKER"));
    }
}
