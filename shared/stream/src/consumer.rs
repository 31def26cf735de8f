//! A member of a consumer group that takes records by the thousand.
//!
//! Records are decoded while they are drained, so that librdkafka's memory is free
//! before the batch is worked on. Offsets are committed by hand, after the work.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::UsageEvent;
use rdkafka::{
    Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::task::JoinHandle;

use crate::{
    DeadRecord, DecodeError, KafkaConfig, KafkaFault, client, drain::drain, group::Group,
    kafka::encode_usage,
};

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// At this many records.
    pub records: usize,
    /// At this many bytes of keys, headers and data, give or take one record.
    pub bytes: usize,
    /// This long after its first record.
    pub wait: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            records: 50_000,
            bytes: 64 << 20,
            wait: Duration::from_millis(200),
        }
    }
}

/// Records that were read together. Never empty, unless all its partitions went to
/// another consumer while it was read.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events, those of a partition in its order.
    pub events: Vec<UsageEvent>,
    /// The records that are no CloudEvents.
    pub dead: Vec<DeadRecord>,
    // Partition and offset of each event.
    pub(crate) places: Vec<(i32, i64)>,
    // Where each partition goes on, and the assignment under which it was read.
    pub(crate) positions: BTreeMap<i32, Position>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) next: i64,
    pub(crate) epoch: u64,
}

impl Batch {
    /// Returns how many records were read.
    pub fn len(&self) -> usize {
        self.events.len() + self.dead.len()
    }

    /// Returns the record of the event that was read at `index`, for the topic of the dead:
    /// its attributes and its data as they were, in binary mode.
    pub fn dead_record(&self, index: usize, event: &UsageEvent, reason: DecodeError) -> DeadRecord {
        let (partition, offset) = self.places[index];
        DeadRecord::new(partition, offset, reason, encode_usage(event))
    }

    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Kafka has the offsets.
    All,
    /// Some partitions are no longer ours. Their new owner reads the records again, which
    /// is harmless: identities are counted once.
    Rebalanced,
}

/// Why no records come, or no offsets go.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The client cannot be made: a setting is wrong.
    #[error("the kafka client cannot be made")]
    Connect(#[source] KafkaFault),
    /// Kafka did not say, or did not take, where a group begins; it may, later.
    #[error("kafka did not fix where the group begins")]
    Start(#[source] KafkaFault),
    /// The client has failed for good; only a new one helps.
    #[error("the kafka consumer has failed for good")]
    Fatal(#[source] KafkaFault),
    /// Kafka did not take the offsets; the same call can succeed later.
    #[error("kafka did not take the offsets")]
    Commit(#[source] KafkaFault),
}

impl ConsumeError {
    /// Returns whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Commit(_) | Self::Start(_))
    }
}

/// One member of a consumer group, on one topic.
pub struct Consumer {
    client: Arc<BaseConsumer<Group>>,
    // A drain whose caller went away; the next call gets its records.
    draining: Option<JoinHandle<Result<Batch, ConsumeError>>>,
    stop: Arc<AtomicBool>,
}

impl Consumer {
    /// Returns a member of `group` on the topic of `config`. It connects and joins by
    /// itself: a Kafka that is away is no error here.
    pub fn connect(config: &KafkaConfig, group: &str) -> Result<Self, ConsumeError> {
        Self::connect_to(config, group, &config.topic)
    }

    /// Returns a member of `group` on any topic.
    pub fn connect_to(
        config: &KafkaConfig,
        group: &str,
        topic: &str,
    ) -> Result<Self, ConsumeError> {
        let session = config.session_timeout.as_millis();
        let mut settings = client::settings(config);
        settings
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // The partitions that stay are read on while the others move.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session.to_string())
            .set(
                "heartbeat.interval.ms",
                (session / 4).clamp(1, 3000).to_string(),
            )
            // How long a batch may take to be written, with retries, before its partitions move.
            .set("max.poll.interval.ms", "600000")
            // A whole batch is fetched while the one before it is worked on.
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "65536")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", (4 << 20).to_string())
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "100")
            .set("statistics.interval.ms", "5000");
        let connect = |error| ConsumeError::Connect(KafkaFault(error));
        let context = Group::of(topic);
        let client = BaseConsumer::from_config_and_context(&settings, context).map_err(connect)?;
        client.subscribe(&[topic]).map_err(connect)?;
        Ok(Self {
            client: Arc::new(client),
            draining: None,
            stop: Arc::default(),
        })
    }

    /// Waits for records and returns those that are there, up to `limits`.
    ///
    /// It waits for the first one however long that takes. A call that is dropped loses
    /// nothing: the next one returns the batch that it had begun, under its limits.
    pub async fn next_batch(&mut self, limits: BatchLimits) -> Result<Batch, ConsumeError> {
        let draining = self.draining.get_or_insert_with(|| {
            let client = Arc::clone(&self.client);
            let stop = Arc::clone(&self.stop);
            tokio::task::spawn_blocking(move || drain(&client, limits, &stop))
        });
        let drained = draining.await;
        self.draining = None;
        drained.unwrap_or_else(|_| Err(ConsumeError::Fatal(KafkaFault(KafkaError::Canceled))))
    }

    /// Tells Kafka that the batch was worked on, and returns when it knows.
    pub async fn commit(&self, batch: &Batch) -> Result<Committed, ConsumeError> {
        let owned = self.client.context().owned().clone();
        let mut offsets = TopicPartitionList::new();
        let mut all = true;
        for (&partition, position) in &batch.positions {
            // The generation that we are in may commit for any partition, so Kafka would let us
            // set back one that another consumer has gone on with.
            if owned.get(&partition) != Some(&position.epoch) {
                all = false;
                continue;
            }
            let topic = self.client.context().topic();
            offsets
                .add_partition_offset(topic, partition, Offset::Offset(position.next))
                .map_err(|error| ConsumeError::Commit(KafkaFault(error)))?;
        }
        if offsets.count() > 0 {
            let client = Arc::clone(&self.client);
            let commit = move || client.commit(&offsets, CommitMode::Sync);
            let done = tokio::task::spawn_blocking(commit).await;
            match done.unwrap_or(Err(KafkaError::Canceled)) {
                Ok(()) => {}
                Err(error) if is_rebalance(&error) => all = false,
                Err(error) => return Err(ConsumeError::Commit(KafkaFault(error))),
            }
        }
        Ok(if all {
            Committed::All
        } else {
            Committed::Rebalanced
        })
    }

    /// Leaves the group, so that its partitions move at once.
    pub async fn close(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(draining) = self.draining.take()
            && let Err(error) = draining.await
        {
            tracing::warn!(%error, "kafka consumer's thread");
        }
        let client = Arc::clone(&self.client);
        drop(self);
        // Leaving waits for Kafka's answer, which must not block a thread that serves others.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(client)).await {
            tracing::warn!(%error, "kafka consumer's thread");
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // A drain that nobody waits for would keep the process from ending.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("topic", &self.client.context().topic())
            .finish_non_exhaustive()
    }
}

fn is_rebalance(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::AssignmentLost
        )
    )
}
