//! Dead letters: records that were taken out of the way, to be looked at and sent again.
//!
//! There are two topics of them. That of the events holds records that `process` could not take,
//! buried by [`crate::Graves`] or written by the dead letter sink of a KafkaSource; that of
//! ingest holds events that a broker could not deliver to it. Whoever may post an event decides
//! what is in them, so nothing in a letter is trusted.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use rdkafka::{
    Message as _,
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
};

use crate::{
    CloudEvent, DecodeError, KafkaConfig, KafkaFault, ReadError,
    attributes::OF_KNATIVE,
    http,
    kafka::{decode_accepted, decode_event},
    reader::{Reader, Stretch},
};

/// The group whose offsets say what was replayed. It has no members.
const GROUP: &str = "openmeter-replay-dead-letters";

/// How long Kafka may take for a piece of a replay.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// When a piece of a replay is full: at this many records, or bytes.
const PIECE: (i64, usize) = (500, 16 << 20);

/// What the names of the headers begin with that [`crate::Graves`] add.
const GRAVE: &str = "openmeter-dead-";

/// Whose dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadTopic {
    /// Records of the topic of accepted events.
    Events,
    /// Events that were to go to ingest.
    Ingest,
}

impl DeadTopic {
    pub(crate) const ALL: [Self; 2] = [Self::Events, Self::Ingest];

    pub(crate) fn name(self, config: &KafkaConfig) -> &str {
        match self {
            Self::Events => &config.dead_topic,
            Self::Ingest => &config.ingest_dead_topic,
        }
    }
}

/// One dead letter, as it was read.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Whose it is.
    pub of: DeadTopic,
    /// Partition of the dead topic.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// When it was written there.
    pub time: Timestamp,
    // `None` if a name is not UTF-8, with which the binding cannot cope.
    headers: Option<Vec<(String, Option<Vec<u8>>)>>,
    value: Option<Vec<u8>>,
}

/// Why a letter is dead, as far as it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Where it was to go: a URL of Knative's.
    pub destination: Option<String>,
    /// The status of the answer.
    pub code: Option<u16>,
    /// The beginning of the answer's body, or our own reason.
    pub said: Option<Vec<u8>>,
    /// The record that it was, where we read it: `topic/partition/offset`.
    pub record: Option<String>,
}

impl DeadLetter {
    fn read(of: DeadTopic, message: &BorrowedMessage<'_>) -> Self {
        let headers = AssertUnwindSafe(|| {
            let headers = message.headers();
            let headers = headers.into_iter().flat_map(|headers| headers.iter());
            let own = headers.map(|it| (it.key.to_owned(), it.value.map(<[u8]>::to_vec)));
            own.collect::<Vec<_>>()
        });
        let time = message.timestamp().to_millis();
        Self {
            of,
            partition: message.partition(),
            offset: message.offset(),
            time: time
                .and_then(|time| Timestamp::from_millisecond(time).ok())
                .unwrap_or_default(),
            headers: catch_unwind(headers).ok(),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }

    /// Returns the record's value.
    pub fn value(&self) -> &[u8] {
        self.value.as_deref().unwrap_or_default()
    }

    /// Returns the event that it was, without what was added to it, or why it is none that can be
    /// sent again. An accepted event is what ingest made of it: stamped.
    pub fn event(&self) -> Result<CloudEvent, DecodeError> {
        let headers = self
            .headers
            .as_ref()
            .ok_or_else(|| DecodeError::whole("has a header whose name is not UTF-8"))?;
        if self.header("openmeter-dead-truncated").is_some() {
            return Err(DecodeError::whole("was cut"));
        }
        let kept = headers.iter().filter(|(name, _)| !is_added(name));
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_deref()));
        let value = self.value.as_deref();
        let mut event = match self.of {
            DeadTopic::Events => decode_accepted(kept, value)?,
            DeadTopic::Ingest => decode_event(kept, value)?,
        };
        event.remove_knatives();
        if self.of == DeadTopic::Events && event.attribute("ingestedat").is_none() {
            if event.event_type() == http::WRAPPED {
                return Err(DecodeError::whole(
                    "is a Kafka record that holds no CloudEvent",
                ));
            }
            // Somebody wrote it past ingest. The letter's own time stays the same however often
            // it is sent again, and so does what it is counted as.
            event.stamp(self.time);
        }
        Ok(event)
    }

    /// Returns why it is dead.
    pub fn cause(&self) -> Cause {
        let text = |name: &str| Some(String::from_utf8_lossy(self.header(name)?).into_owned());
        let place = |name: &str| text(&format!("{GRAVE}{name}"));
        if let Some(reason) = self.header("openmeter-dead-reason") {
            let record = [place("topic"), place("partition"), place("offset")];
            let record: Option<Vec<_>> = record.into_iter().collect();
            return Cause {
                said: Some(reason.to_vec()),
                record: record.map(|parts| parts.join("/")),
                ..Cause::default()
            };
        }
        let data = self.header("ce_knativeerrordata");
        Cause {
            destination: text("ce_knativeerrordest"),
            code: text("ce_knativeerrorcode").and_then(|code| code.parse().ok()),
            // Base64 by the book, but not everybody keeps it.
            said: data.map(|data| BASE64_STANDARD.decode(data).unwrap_or(data.to_vec())),
            record: None,
        }
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let headers = self.headers.as_ref()?;
        // Graves put theirs at the end, behind whatever a stranger wrote.
        let found = headers.iter().rev().find(|(known, _)| known == name)?;
        found.1.as_deref()
    }

    fn size(&self) -> usize {
        let headers = self.headers.iter().flatten();
        let headers = headers.map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        headers.sum::<usize>() + self.value().len()
    }
}

fn is_added(header: &str) -> bool {
    header.starts_with(GRAVE)
        || header
            .strip_prefix("ce_")
            .is_some_and(|name| OF_KNATIVE.contains(&name))
}

/// The dead letters in Kafka. Each call has a connection of its own: they are asked for seldom.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    pub(crate) config: Arc<KafkaConfig>,
}

impl DeadLetters {
    /// Returns those of both topics of `config`. Nothing is connected yet.
    pub fn new(config: KafkaConfig) -> Self {
        Self {
            config: Arc::new(config),
        }
    }

    /// Returns the name of a topic.
    pub fn topic(&self, of: DeadTopic) -> &str {
        of.name(&self.config)
    }

    /// Begins a replay of those that were not replayed before, or of all that there are now.
    pub async fn replay(&self, all: bool) -> Result<Replay, ReadError> {
        let config = Arc::clone(&self.config);
        let begin = move || {
            let reader = Reader::connect(&config, GROUP)?;
            let mut left = Vec::new();
            for of in DeadTopic::ALL {
                let unread = unread(&reader, of.name(&config), until(PIECE_WITHIN))?;
                left.extend(unread.into_iter().map(|(mut stretch, replayed)| {
                    if !all {
                        stretch.from = stretch.from.max(replayed);
                    }
                    (of, stretch)
                }));
            }
            left.retain(|(_, stretch)| stretch.from < stretch.to);
            // Taken from the end.
            left.reverse();
            Ok(Replay {
                reader: Arc::new(reader),
                config,
                left,
            })
        };
        blocking(begin).await
    }
}

/// Returns what a topic holds, and from where on each partition was not replayed.
pub(crate) fn unread(
    reader: &Reader,
    topic: &str,
    until: Instant,
) -> Result<Vec<(Stretch, i64)>, ReadError> {
    let held = reader.holds(topic, until)?;
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let replayed = reader.committed(topic, &held, until)?;
    let of = |stretch: Stretch| (stretch, replayed.get(&stretch.partition).copied());
    Ok(held
        .into_iter()
        .map(of)
        .map(|(stretch, replayed)| (stretch, replayed.unwrap_or(0)))
        .collect())
}

pub(crate) fn connect(config: &KafkaConfig) -> Result<Reader, ReadError> {
    Reader::connect(config, GROUP)
}

pub(crate) fn until(within: Duration) -> Instant {
    Instant::now() + within
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(ReadError::Unavailable(KafkaFault(
        KafkaError::Canceled,
    ))))
}

/// Dead letters that are being sent again, a piece at a time.
pub struct Replay {
    reader: Arc<Reader>,
    config: Arc<KafkaConfig>,
    left: Vec<(DeadTopic, Stretch)>,
}

/// Letters of one partition, in its order.
#[derive(Debug)]
pub struct Piece {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    of: DeadTopic,
    partition: i32,
    next: i64,
}

impl Replay {
    /// Returns the next piece; `None` when all were given that were there at the beginning.
    pub async fn next(&mut self) -> Result<Option<Piece>, ReadError> {
        let Some((of, stretch)) = self.left.pop() else {
            return Ok(None);
        };
        let (reader, config) = (Arc::clone(&self.reader), Arc::clone(&self.config));
        let piece = blocking(move || read(&reader, &config, of, stretch)).await?;
        if piece.next < stretch.to {
            let from = piece.next;
            self.left.push((of, Stretch { from, ..stretch }));
        }
        Ok(Some(piece))
    }

    /// Says that all of a piece is durable where it went, or will never be. A replay that ends
    /// before is made again from here.
    pub async fn done(&self, piece: &Piece) -> Result<(), ReadError> {
        let (reader, config) = (Arc::clone(&self.reader), Arc::clone(&self.config));
        let (of, partition, next) = (piece.of, piece.partition, piece.next);
        blocking(move || reader.commit(of.name(&config), partition, next)).await
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

fn read(
    reader: &Reader,
    config: &KafkaConfig,
    of: DeadTopic,
    stretch: Stretch,
) -> Result<Piece, ReadError> {
    let (most, most_bytes) = PIECE;
    let to = stretch.to.min(stretch.from.saturating_add(most));
    let mut letters = Vec::new();
    let (mut bytes, mut next) = (0, to);
    let piece = [Stretch { to, ..stretch }];
    reader.read(of.name(config), &piece, until(PIECE_WITHIN), |message| {
        let letter = DeadLetter::read(of, message);
        bytes += letter.size();
        let is_full = bytes >= most_bytes;
        if is_full {
            next = letter.offset + 1;
        }
        letters.push(letter);
        match is_full {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Ok(Piece {
        letters,
        of,
        partition: stretch.partition,
        next,
    })
}

/// Reads letters for [`crate::dead_page`].
pub(crate) fn each_letter(
    reader: &Reader,
    (of, topic): (DeadTopic, &str),
    stretches: &[Stretch],
    until: Instant,
    mut each: impl FnMut(DeadLetter),
) -> Result<(), ReadError> {
    reader.read(topic, stretches, until, |message| {
        each(DeadLetter::read(of, message));
        ControlFlow::Continue(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka;

    #[test]
    fn an_accepted_event_is_what_it_was_however_its_letter_came() {
        let mut event = CloudEvent::new("日本", "/gw", "t").with_subject("100%");
        event.stamp(Timestamp::UNIX_EPOCH);
        let record = kafka::encode(&event);
        let mut headers = record.headers.clone();
        let id = headers.iter_mut().find(|(name, _)| name == "ce_id");
        id.unwrap().1 = Some(b"??".to_vec());
        headers.push(("ce_knativeerrorcode".to_owned(), Some(b"400".to_vec())));
        let letter = |of| DeadLetter {
            of,
            partition: 0,
            offset: 0,
            time: Timestamp::UNIX_EPOCH,
            headers: Some(headers.clone()),
            value: None,
        };
        let again = letter(DeadTopic::Events).event().unwrap();
        let sorted = |mut record: kafka::Record| {
            record.headers.sort();
            record
        };
        assert_eq!(sorted(kafka::encode(&again)), sorted(record));
        // What did not come to ingest yet may say what it likes.
        assert_eq!(letter(DeadTopic::Ingest).event().unwrap().id(), "??");
    }

    #[test]
    fn an_event_that_was_read_has_a_record_as_it_was_written() {
        for (id, of_stamp) in [("日本", 1), ("1", 0)] {
            let mut event = CloudEvent::new(id, "/gw", "t").with_data("text/plain", "a");
            event.stamp("2026-01-31T10:20:30.000001Z".parse().unwrap());
            let written = kafka::encode(&event);
            let read = |record: &kafka::Record| {
                let headers = record.headers.iter();
                let headers = headers.map(|(name, value)| (name.as_str(), value.as_deref()));
                kafka::decode(headers, record.value.as_deref(), Timestamp::UNIX_EPOCH).unwrap()
            };
            let again = kafka::encode_usage(&read(&written));
            assert_eq!(read(&again), read(&written));
            let stamps = |record: &kafka::Record| {
                let names = record.headers.iter().map(|(name, _)| name);
                names
                    .filter(|name| *name == "ce_originalattributes")
                    .count()
            };
            assert_eq!((stamps(&written), stamps(&again)), (of_stamp, of_stamp));
        }
    }
}
