//! Reads stretches of topics for whoever asks: no member of a group, and nothing is committed
//! unless told. It blocks: callers give it a thread.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::KafkaError,
    message::BorrowedMessage,
};

use crate::{KafkaConfig, KafkaFault, client};

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client cannot be made: a setting is wrong.
    #[error("the kafka client cannot be made")]
    Connect(#[source] KafkaFault),
    /// Kafka did not answer, or not with that; it may, later.
    #[error("kafka did not answer")]
    Unavailable(#[source] KafkaFault),
    /// Kafka answered, but there was more to read than there was time.
    #[error("kafka did not answer in time")]
    Slow,
}

impl ReadError {
    /// Returns whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Connect(_))
    }
}

fn unavailable(error: KafkaError) -> ReadError {
    ReadError::Unavailable(KafkaFault(error))
}

/// Offsets of a partition, the last one excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) partition: i32,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// A client that reads, and keeps offsets in the name of a group.
pub(crate) struct Reader(BaseConsumer);

impl Reader {
    pub(crate) fn connect(config: &KafkaConfig, group: &str) -> Result<Self, ReadError> {
        client::settings(config)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A stretch was asked for by its offsets: what retention took of it is passed over.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.wait.max.ms", "100")
            .create()
            .map(Self)
            .map_err(|error| ReadError::Connect(KafkaFault(error)))
    }

    /// Returns what each partition of a topic holds; nothing for a topic that is not there. All
    /// topics are listed: asking for one by name would have a lenient broker create it.
    pub(crate) fn holds(&self, topic: &str, until: Instant) -> Result<Vec<Stretch>, ReadError> {
        let metadata = self.0.fetch_metadata(None, left(until)?);
        let metadata = metadata.map_err(unavailable)?;
        let known = metadata.topics().iter().find(|known| known.name() == topic);
        let partitions = known.map_or(&[][..], |known| known.partitions());
        let stretch = |partition: i32| {
            let ends = self.0.fetch_watermarks(topic, partition, left(until)?);
            let (from, to) = ends.map_err(unavailable)?;
            Ok(Stretch {
                partition,
                from,
                to,
            })
        };
        partitions
            .iter()
            .map(|partition| stretch(partition.id()))
            .collect()
    }

    /// Returns how far the group has come in each of these partitions, where it has begun.
    pub(crate) fn committed(
        &self,
        topic: &str,
        partitions: &[Stretch],
        until: Instant,
    ) -> Result<BTreeMap<i32, i64>, ReadError> {
        let mut asked = TopicPartitionList::new();
        for stretch in partitions {
            asked.add_partition(topic, stretch.partition);
        }
        let committed = self.0.committed_offsets(asked, left(until)?);
        let committed = committed.map_err(unavailable)?;
        let known = committed.elements();
        let known = known.iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        Ok(known.collect())
    }

    /// Gives the records of these stretches to `each`, those of a partition in its order, until
    /// all were given or `each` breaks off.
    pub(crate) fn read(
        &self,
        topic: &str,
        stretches: &[Stretch],
        until: Instant,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut open: BTreeMap<i32, i64> = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for stretch in stretches.iter().filter(|stretch| stretch.from < stretch.to) {
            open.insert(stretch.partition, stretch.to);
            assignment
                .add_partition_offset(topic, stretch.partition, Offset::Offset(stretch.from))
                .map_err(unavailable)?;
        }
        if open.is_empty() {
            return Ok(());
        }
        self.0.assign(&assignment).map_err(unavailable)?;
        while !open.is_empty() {
            let message = match self.0.poll(left(until)?) {
                None => continue,
                // Offsets can lack records, the last ones too.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                    continue;
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(unavailable(error));
                }
                // librdkafka goes on by itself, until the time is up.
                Some(Err(_)) => continue,
                Some(Ok(message)) => message,
            };
            let (partition, offset) = (message.partition(), message.offset());
            let Some(&to) = open.get(&partition) else {
                continue;
            };
            if offset + 1 >= to {
                open.remove(&partition);
            }
            if offset < to && each(&message).is_break() {
                break;
            }
        }
        self.0.unassign().map_err(unavailable)
    }

    /// Keeps, in the name of the group, where a partition goes on.
    pub(crate) fn commit(&self, topic: &str, partition: i32, next: i64) -> Result<(), ReadError> {
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(topic, partition, Offset::Offset(next))
            .and_then(|()| self.0.commit(&offsets, CommitMode::Sync))
            .map_err(unavailable)
    }
}

fn left(until: Instant) -> Result<Duration, ReadError> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ReadError::Slow);
    }
    Ok(left)
}
