//! A member of a consumer group that hands out records one by one, each to be finished by
//! itself: what a push delivery needs.
//!
//! A thread reads, commits and answers to rebalances, however long the work on a record takes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    CloudEvent, ConsumeError, DecodeError, KafkaConfig, KafkaFault, Record, client, drain, kafka,
    member::{Member, Partition},
};

/// How often the thread looks whether it is to end or to commit.
const NAP: Duration = Duration::from_millis(100);
/// How long it waits for room in a partition before it reads the others on. Pausing a partition
/// throws away what was read ahead, and librdkafka takes half a second to read it again.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it looks whether a partition that is paused has room again.
const SHORT_NAP: Duration = Duration::from_millis(2);
/// How often offsets are committed: what is finished since comes again after a crash.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How long Kafka may take to say where a group is.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a group begins that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record that is there.
    Earliest,
    /// With the next record.
    Latest,
}

/// A record that has arrived. Dropped without [`finish`](Self::finish), it comes again to
/// whoever reads the partition next.
#[derive(Debug)]
pub struct Arrival {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// When it was written.
    pub recorded_at: Timestamp,
    /// The event, or the record as it is.
    pub content: Result<CloudEvent, Box<Foreign>>,
    /// To be finished when the work on it is done.
    pub receipt: Receipt,
}

/// A record that is no event.
#[derive(Debug)]
pub struct Foreign {
    /// The record.
    pub record: Record,
    /// Why it is no event.
    pub reason: DecodeError,
}

/// The duty to finish a record.
pub struct Receipt {
    member: Arc<Member>,
    partition: Partition,
    offset: i64,
    epoch: u64,
}

impl Receipt {
    /// Says that the record needs no more work, and may be committed with all before it.
    pub fn finish(self) {
        self.member.finish(&self.partition, self.epoch, self.offset);
    }

    /// Returns whether its partition is still ours. If not, another member gets the record.
    pub fn is_ours(&self) -> bool {
        let partitions = self.member.partitions();
        let progress = partitions.get(&self.partition);
        progress.is_some_and(|progress| progress.epoch == self.epoch)
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// One member of a consumer group.
///
/// Dropped, it commits nothing more, as if the process had been killed: [`close`](Self::close) is
/// the orderly end.
pub struct Subscription {
    member: Arc<Member>,
    arrivals: UnboundedReceiver<Result<Arrival, ConsumeError>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<KafkaResult<()>>>,
}

impl Subscription {
    /// Joins `group` as `instance` and returns when it has its first assignment.
    ///
    /// An instance that comes back takes over its partitions at once, also when its last
    /// process was killed. New partitions, and those whose offsets are gone, are read from their
    /// beginning: where a group as a whole begins, [`fix_start`] says.
    pub async fn join(
        config: &KafkaConfig,
        group: &str,
        instance: &str,
        topics: &[&str],
    ) -> Result<Self, ConsumeError> {
        let connect = |error| ConsumeError::Connect(KafkaFault(error));
        let session = config.session_timeout.as_millis();
        let mut settings = settings(config, group);
        settings
            .set("group.instance.id", instance)
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session.to_string())
            .set(
                "heartbeat.interval.ms",
                (session / 4).clamp(1, 3000).to_string(),
            )
            .set("queued.min.messages", "2000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", (4 << 20).to_string())
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "100")
            .set("statistics.interval.ms", "1000");
        let client = BaseConsumer::from_config_and_context(&settings, Member::of(group));
        let client: BaseConsumer<Member> = client.map_err(connect)?;
        client.subscribe(topics).map_err(connect)?;
        let member = Arc::clone(client.context());
        let mut joined = member.joined.subscribe();
        let (sender, arrivals) = unbounded_channel();
        let stop = Arc::<AtomicBool>::default();
        let reader = Reader {
            client,
            sender,
            stop: Arc::clone(&stop),
            full: HashSet::new(),
        };
        let thread = thread::Builder::new()
            .name("kafka-subscription".to_owned())
            .spawn(move || reader.run())
            .map_err(|_| ConsumeError::Connect(KafkaFault(KafkaError::Canceled)))?;
        let subscription = Self {
            member,
            arrivals,
            stop,
            thread: Some(thread),
        };
        match joined.wait_for(|&joined| joined).await {
            Ok(_) => {}
            Err(_) => return Err(ConsumeError::Fatal(KafkaFault(KafkaError::Canceled))),
        }
        Ok(subscription)
    }

    /// Waits for the next record, however long that takes. A call that is dropped loses nothing.
    pub async fn next(&mut self) -> Result<Arrival, ConsumeError> {
        loop {
            match self.arrivals.recv().await {
                // Read before its partition went: whoever has it now gets the record too.
                Some(Ok(arrival)) if !arrival.receipt.is_ours() => {}
                Some(arrival) => return arrival,
                None => return Err(ConsumeError::Fatal(KafkaFault(KafkaError::Canceled))),
            }
        }
    }

    /// Returns what reads how many records are not finished.
    pub fn lag(&self) -> Lag {
        Lag(Arc::clone(&self.member))
    }

    /// Commits what is finished and ends.
    pub async fn close(mut self) -> Result<(), ConsumeError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.stop.store(true, Ordering::Relaxed);
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        let ended = ended.unwrap_or(Ok(Err(KafkaError::Canceled)));
        ended
            .unwrap_or(Err(KafkaError::Canceled))
            .map_err(|error| ConsumeError::Commit(KafkaFault(error)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Whoever closed it has taken the thread.
        if self.thread.is_some() {
            self.member.abandoned.store(true, Ordering::Relaxed);
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Reads how far a subscription is behind.
#[derive(Clone)]
pub struct Lag(Arc<Member>);

impl Lag {
    /// Returns how many records are not finished, known to the second; nothing until it is known.
    pub fn records(&self) -> Option<u64> {
        self.0.lag()
    }
}

/// Commits where `group` begins in each partition of `topics` for which it has no offset, so
/// that no record after this call is missed, whatever is killed when.
pub async fn fix_start(
    config: &KafkaConfig,
    group: &str,
    topics: &[&str],
    start: Start,
) -> Result<(), ConsumeError> {
    let settings = settings(config, group);
    let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
    let fix = move || {
        let client: BaseConsumer = settings.create()?;
        let mut offsets = TopicPartitionList::new();
        for topic in &topics {
            let metadata = client.fetch_metadata(Some(topic), TIMEOUT)?;
            let partitions = metadata.topics().first().map(|topic| topic.partitions());
            let partitions = partitions.filter(|partitions| !partitions.is_empty());
            // Passed over, they would be read from their beginning, whatever `start` says.
            let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
            for partition in partitions.ok_or(unknown)? {
                offsets.add_partition(topic, partition.id());
            }
        }
        let committed = client.committed_offsets(offsets, TIMEOUT)?;
        let mut begin = TopicPartitionList::new();
        for element in committed.elements() {
            element.error()?;
            if !matches!(element.offset(), Offset::Offset(_)) {
                let (topic, partition) = (element.topic(), element.partition());
                let (low, high) = client.fetch_watermarks(topic, partition, TIMEOUT)?;
                let offset = match start {
                    Start::Earliest => low,
                    Start::Latest => high,
                };
                begin.add_partition_offset(topic, partition, Offset::Offset(offset))?;
            }
        }
        if begin.count() > 0 {
            client.commit(&begin, CommitMode::Sync)?;
        }
        Ok(())
    };
    let fixed = tokio::task::spawn_blocking(fix).await;
    fixed
        .unwrap_or(Err(KafkaError::Canceled))
        .map_err(|error| ConsumeError::Start(KafkaFault(error)))
}

fn settings(config: &KafkaConfig, group: &str) -> ClientConfig {
    let mut settings = client::settings(config);
    settings
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed");
    settings
}

/// The thread's part.
struct Reader {
    client: BaseConsumer<Member>,
    sender: UnboundedSender<Result<Arrival, ConsumeError>>,
    stop: Arc<AtomicBool>,
    // Partitions of which no more is read for now.
    full: HashSet<Partition>,
}

impl Reader {
    fn run(mut self) -> KafkaResult<()> {
        let mut committed_at = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let nap = if self.full.is_empty() { NAP } else { SHORT_NAP };
            match self.client.poll(nap) {
                None => {}
                Some(Ok(message)) => {
                    let (arrival, is_full) = self.arrival(&message);
                    let partition = (Arc::clone(&arrival.topic), arrival.partition);
                    if self.sender.send(Ok(arrival)).is_err() {
                        return Ok(());
                    }
                    if is_full && !self.client.context().wait_for_room(&partition, PATIENCE) {
                        self.client.pause(&list([&partition]))?;
                        self.full.insert(partition);
                    }
                }
                Some(Err(error)) if drain::is_fatal(&self.client, &error) => {
                    let fatal = ConsumeError::Fatal(KafkaFault(error.clone()));
                    // Whoever does not listen any more hears it when it closes.
                    self.sender.send(Err(fatal)).ok();
                    return Err(error);
                }
                // librdkafka goes on by itself; its context has logged it.
                Some(Err(_)) => {}
            }
            self.read_on()?;
            if committed_at.elapsed() >= COMMIT_INTERVAL {
                committed_at = Instant::now();
                let member = Arc::clone(self.client.context());
                if let Err(error) = member.commit(&self.client, None, CommitMode::Async) {
                    tracing::warn!(%error, group = member.group(), "kafka did not take the offsets");
                }
            }
        }
        let member = Arc::clone(self.client.context());
        if member.abandoned.load(Ordering::Relaxed) {
            return Ok(());
        }
        member.commit(&self.client, None, CommitMode::Sync)
    }

    /// Reads on where there is room again.
    fn read_on(&mut self) -> KafkaResult<()> {
        if self.full.is_empty() {
            return Ok(());
        }
        let partitions = self.client.context().partitions();
        let room = self.full.extract_if(|partition| {
            // One that went too: librdkafka would have it still paused when it comes back.
            partitions
                .get(partition)
                .is_none_or(|progress| progress.has_room())
        });
        let room: Vec<Partition> = room.collect();
        drop(partitions);
        if room.is_empty() {
            return Ok(());
        }
        self.client.resume(&list(&room))
    }

    /// Returns the record, and whether its partition is full with it.
    fn arrival(&self, message: &BorrowedMessage<'_>) -> (Arrival, bool) {
        let member = self.client.context();
        let (partition, offset) = (message.partition(), message.offset());
        let bytes = message.payload_len() + message.key_len() + drain::header_bytes(message);
        let mut partitions = member.partitions();
        let topic = message.topic();
        let known = partitions
            .keys()
            .find(|(t, p)| **t == *topic && *p == partition);
        let key = known.cloned().unwrap_or_else(|| (topic.into(), partition));
        let mut epoch = 0;
        let mut is_full = false;
        if let Some(progress) = partitions.get_mut(&key) {
            progress.read(offset, bytes);
            (epoch, is_full) = (progress.epoch, progress.is_full());
        }
        drop(partitions);
        let millis = message.timestamp().to_millis();
        let recorded_at = millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        let arrival = Arrival {
            topic: Arc::clone(&key.0),
            partition,
            offset,
            recorded_at: recorded_at.unwrap_or_else(Timestamp::now),
            content: decode(message),
            receipt: Receipt {
                member: Arc::clone(member),
                partition: key,
                offset,
                epoch,
            },
        };
        (arrival, is_full)
    }
}

fn list<'a>(partitions: impl IntoIterator<Item = &'a Partition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

fn decode(message: &BorrowedMessage<'_>) -> Result<CloudEvent, Box<Foreign>> {
    let value = message.payload();
    let decoded = drain::named(message).and_then(|headers| kafka::decode_event(headers, value));
    decoded.map_err(|reason| {
        let owned = |(name, value): drain::Header<'_>| (name.to_owned(), value.map(<[u8]>::to_vec));
        let record = Record {
            key: message.key().map(<[u8]>::to_vec),
            headers: drain::headers(message).flatten().map(owned).collect(),
            value: value.map(<[u8]>::to_vec),
        };
        Box::new(Foreign { record, reason })
    })
}
