//! A member of a consumer group that takes records by the thousand.
//!
//! Records are decoded while they are drained, so that librdkafka's memory is free
//! before the batch is worked on. Offsets are committed by hand, after the work.

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::UsageEvent;
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedHeaders, BorrowedMessage, Headers as _},
};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::{DeadRecord, DecodeError, KafkaConfig, KafkaFault, client, kafka};

/// How often a consumer that waits looks whether it is to end.
const NAP: Duration = Duration::from_millis(100);

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// At this many records.
    pub records: usize,
    /// At this many bytes of data, give or take one record.
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
    // Where each partition goes on, and the assignment under which it was read.
    positions: BTreeMap<i32, Position>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    next: i64,
    epoch: u64,
}

impl Batch {
    /// Returns how many records were read.
    pub fn len(&self) -> usize {
        self.events.len() + self.dead.len()
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
        matches!(self, Self::Commit(_))
    }
}

/// One member of a consumer group, on one topic.
pub struct Consumer {
    client: Arc<BaseConsumer<Context>>,
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
        let context = Context {
            topic: topic.to_owned(),
            owned: Mutex::default(),
        };
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
            let topic = &self.client.context().topic;
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
            .field("topic", &self.client.context().topic)
            .finish_non_exhaustive()
    }
}

fn drain(
    client: &BaseConsumer<Context>,
    limits: BatchLimits,
    stop: &AtomicBool,
) -> Result<Batch, ConsumeError> {
    let mut batch = Batch::default();
    // The partition of each event, for the case that one moves while we read.
    let mut partitions: Vec<i32> = Vec::new();
    let mut bytes = 0;
    let mut until: Option<Instant> = None;
    let mut epoch_of = (-1, 0);
    loop {
        let left = until.map_or(NAP, |until| until.saturating_duration_since(Instant::now()));
        let is_over = until.is_some() && left.is_zero();
        if is_over || stop.load(Ordering::Relaxed) {
            break;
        }
        let message = match client.poll(left) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(error)) if is_fatal(client, &error) => {
                return Err(ConsumeError::Fatal(KafkaFault(error)));
            }
            // librdkafka goes on by itself; its context has logged it.
            Some(Err(_)) => continue,
        };
        until.get_or_insert_with(|| Instant::now() + limits.wait);
        let (partition, offset) = (message.partition(), message.offset());
        if epoch_of.0 != partition || batch.is_empty() {
            epoch_of = (partition, client.context().epoch(partition));
        }
        let position = Position {
            next: offset + 1,
            epoch: epoch_of.1,
        };
        batch.positions.insert(partition, position);
        bytes += message.payload_len();
        match decode(&message) {
            Ok(event) => {
                batch.events.push(event);
                partitions.push(partition);
            }
            Err(reason) => batch.dead.push(dead(&message, reason)),
        }
        if batch.len() >= limits.records || bytes >= limits.bytes {
            break;
        }
    }
    drop_lost(&mut batch, &partitions, &client.context().owned());
    Ok(batch)
}

/// Drops what was read of partitions that have moved meanwhile: their new owner reads it
/// from the last commit on.
fn drop_lost(batch: &mut Batch, partitions: &[i32], owned: &HashMap<i32, u64>) {
    let is_kept =
        |partition: i32, position: &Position| owned.get(&partition) == Some(&position.epoch);
    let lost = |positions: &BTreeMap<i32, Position>, partition: i32| {
        positions
            .get(&partition)
            .is_none_or(|position| !is_kept(partition, position))
    };
    if batch
        .positions
        .iter()
        .all(|(&partition, position)| is_kept(partition, position))
    {
        return;
    }
    let mut of_event = partitions.iter();
    let positions = &batch.positions;
    batch.events.retain(|_| {
        of_event
            .next()
            .is_some_and(|&partition| !lost(positions, partition))
    });
    batch
        .dead
        .retain(|record| !lost(positions, record.partition));
    batch
        .positions
        .retain(|&partition, position| is_kept(partition, position));
}

fn decode(message: &BorrowedMessage<'_>) -> Result<UsageEvent, DecodeError> {
    let recorded_at = message
        .timestamp()
        .to_millis()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or_else(Timestamp::now);
    let value = message.payload();
    let Some(headers) = message.headers() else {
        return kafka::decode([], value, recorded_at);
    };
    // The binding panics on a header whose name is not UTF-8, and anyone who may write to
    // the topic can send one.
    let decoded = AssertUnwindSafe(|| kafka::decode(pairs(headers), value, recorded_at));
    catch_unwind(decoded)
        .unwrap_or_else(|_| Err(DecodeError::whole("has a header whose name is not UTF-8")))
}

fn pairs(headers: &BorrowedHeaders) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    headers.iter().map(|header| (header.key, header.value))
}

fn dead(message: &BorrowedMessage<'_>, reason: DecodeError) -> DeadRecord {
    DeadRecord {
        partition: message.partition(),
        offset: message.offset(),
        reason,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: message.headers().map(BorrowedHeaders::detach),
    }
}

fn is_fatal(client: &BaseConsumer<Context>, error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || client.client().fatal_error().is_some()
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

/// Knows which partitions are ours.
struct Context {
    topic: String,
    // Each with a number that changes whenever it is assigned anew.
    owned: Mutex<HashMap<i32, u64>>,
}

impl Context {
    fn owned(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn epoch(&self, partition: i32) -> u64 {
        self.owned().get(&partition).copied().unwrap_or_default()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, topic = self.topic, "kafka consumer");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else {
            return;
        };
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let owned = self.owned();
        for partition in topic.partitions.values() {
            // -1 is "not known", and partitions of others are theirs to tell.
            if partition.consumer_lag >= 0 && owned.contains_key(&partition.partition) {
                lag(&self.topic, partition.partition, partition.consumer_lag);
            }
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (list, assigned) = match rebalance {
            Rebalance::Assign(list) => (list, true),
            Rebalance::Revoke(list) => (list, false),
            Rebalance::Error(_) => return,
        };
        let partitions: Vec<i32> = list
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        tracing::info!(
            topic = self.topic,
            ?partitions,
            assigned,
            "kafka partitions moved"
        );
        let mut owned = self.owned();
        for partition in partitions {
            if assigned {
                owned.insert(partition, next_epoch());
            } else {
                owned.remove(&partition);
                lag(&self.topic, partition, 0);
            }
        }
    }
}

fn next_epoch() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float, and 2^53 records behind is behind"
)]
fn lag(topic: &str, partition: i32, records: i64) {
    let labels = [
        ("topic", topic.to_owned()),
        ("partition", partition.to_string()),
    ];
    metrics::gauge!("openmeter_consumer_lag", &labels).set(records as f64);
}

/// What we read of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    partition: i32,
    consumer_lag: i64,
}
