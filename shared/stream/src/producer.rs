//! Sends events to Kafka and answers when they are durable.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    metadata::MetadataTopic,
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{
    CloudEvent, KafkaConfig, KafkaFault, Record,
    client::{self, MAX_RECORD_BYTES},
    kafka::each_header,
};

/// What a record costs beside its bytes: librdkafka's own structures and headers.
pub(crate) const RECORD_OVERHEAD: usize = 1024;

/// How many records are queued before other requests get a turn on this thread.
const TURN: usize = 512;

/// Why events are not known to be durable. Some of them may be: sending all again is
/// harmless, since their identities stay.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// More is under way than the budget allows.
    #[error("too much is under way to kafka")]
    Busy,
    /// Kafka did not confirm in time.
    #[error("kafka did not confirm in time")]
    Unavailable(#[source] KafkaFault),
    /// A record is larger than Kafka takes.
    #[error("a record is larger than kafka takes")]
    TooLarge,
    /// The client cannot be made: a setting is wrong.
    #[error("the kafka client cannot be made")]
    Connect(#[source] KafkaFault),
}

impl ProduceError {
    /// Returns whether sending the same again can succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy | Self::Unavailable(_) => true,
            Self::TooLarge | Self::Connect(_) => false,
        }
    }
}

/// A handle to one connection to Kafka; a clone is the same connection.
#[derive(Clone)]
pub struct Producer {
    client: ThreadedProducer<Context>,
    topic: Arc<str>,
    // Bytes that may be under way. librdkafka has a limit of its own, but reaching it fails a
    // batch half way: only a call that is larger than the whole budget can.
    budget: Arc<Semaphore>,
    budget_bytes: usize,
}

impl Producer {
    /// Returns a producer for the topic of `config` that has at most `budget_bytes` under
    /// way. It connects by itself: a Kafka that is away is no error here.
    pub fn connect(config: &KafkaConfig, budget_bytes: usize) -> Result<Self, ProduceError> {
        Self::connect_to(&config.topic, config, budget_bytes, MAX_RECORD_BYTES)
    }

    /// Returns a producer for any topic, and for records of up to `record_bytes`.
    pub fn connect_to(
        topic: &str,
        config: &KafkaConfig,
        budget_bytes: usize,
        record_bytes: usize,
    ) -> Result<Self, ProduceError> {
        let budget_bytes = budget_bytes.clamp(1, u32::MAX as usize >> 1);
        let mut settings = client::settings(config);
        settings
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", config.linger.as_millis().to_string())
            .set(
                "message.timeout.ms",
                config.delivery_timeout.as_millis().to_string(),
            )
            .set("message.max.bytes", record_bytes.to_string())
            // Twice the budget, and no count: the budget says no before librdkafka does, but to a
            // call that alone has more bytes than all of this, as the budget lets one such pass.
            .set("queue.buffering.max.messages", "0")
            .set(
                "queue.buffering.max.kbytes",
                (budget_bytes / 512 + 4096).to_string(),
            );
        let client = ThreadedProducer::from_config_and_context(&settings, Context::default())
            .map_err(|error| ProduceError::Connect(KafkaFault(error)))?;
        Ok(Self {
            client,
            topic: topic.into(),
            budget: Arc::new(Semaphore::new(budget_bytes)),
            budget_bytes,
        })
    }

    /// Sends events and returns when all of them are durable.
    pub async fn send(&self, events: Vec<CloudEvent>) -> Result<(), ProduceError> {
        let bytes = events
            .iter()
            .map(|event| RECORD_OVERHEAD + event.size())
            .sum();
        let delivery = Delivery::of(events.len(), self.reserve(bytes)?);
        let mut queued = Ok(());
        for (index, event) in events.iter().enumerate() {
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let key = event.identity().0;
            let mut record = BaseRecord::with_opaque_to(&self.topic, delivery.clone())
                .key(&key[..])
                .headers(event_headers(event));
            record.payload = event.data();
            queued = self.queue(record);
            if queued.is_err() {
                break;
            }
        }
        // The records are copies; while Kafka is slow nothing else of the request stays.
        drop(events);
        queued?;
        delivery.done().await
    }

    /// Sends an event to any topic, under any key, and returns when it is durable.
    pub async fn send_to(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        event: &CloudEvent,
    ) -> Result<(), ProduceError> {
        let size = RECORD_OVERHEAD + key.map_or(0, <[u8]>::len) + event.size();
        let delivery = Delivery::of(1, self.reserve(size)?);
        let mut record =
            BaseRecord::with_opaque_to(topic, delivery.clone()).headers(event_headers(event));
        record.key = key;
        record.payload = event.data();
        self.queue(record)?;
        delivery.done().await
    }

    /// Sends one record as it is and returns when it is durable.
    pub async fn send_record(&self, topic: &str, record: &Record) -> Result<(), ProduceError> {
        let value = record.value.as_deref();
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = record.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + len(value)).sum();
        let permit =
            self.reserve(RECORD_OVERHEAD + len(&record.key) + headers + len(&record.value))?;
        let delivery = Delivery::of(1, permit);
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (name, value)| {
                headers.insert(Header {
                    key: name,
                    value: value.as_ref(),
                })
            });
        let mut message = BaseRecord::with_opaque_to(topic, delivery.clone()).headers(headers);
        message.key = record.key.as_deref();
        message.payload = value;
        self.queue(message)?;
        delivery.done().await
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// Asks Kafka whether it is there and has all these topics.
    pub async fn has_topics(
        &self,
        names: &[&str],
        timeout: Duration,
    ) -> Result<bool, ProduceError> {
        self.ask(names, timeout, |_| true).await
    }

    /// Asks Kafka whether it is there and has the topic, without an error, and whether a leader
    /// takes records for it. For one partition of many that has none, those records fail.
    pub async fn ping(&self, timeout: Duration) -> Result<(), ProduceError> {
        let takes = |topic: &MetadataTopic| {
            let mut partitions = topic.partitions().iter();
            topic.error().is_none() && partitions.any(|partition| partition.leader() >= 0)
        };
        if self.ask(&[&self.topic], timeout, takes).await? {
            return Ok(());
        }
        let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic);
        Err(ProduceError::Unavailable(KafkaFault(unknown)))
    }

    /// Asks Kafka whether it has all these topics, each as `is_fit` wants it. All that it has are
    /// listed: asking for one by name would have a lenient broker create it, with its defaults.
    async fn ask(
        &self,
        names: &[&str],
        timeout: Duration,
        is_fit: fn(&MetadataTopic) -> bool,
    ) -> Result<bool, ProduceError> {
        let producer = self.clone();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = producer.client.client().fetch_metadata(None, timeout)?;
            let mut topics = names.iter().map(|name| {
                let mut known = metadata.topics().iter();
                known.find(|topic| topic.name() == name)
            });
            Ok(topics.all(|topic| topic.is_some_and(is_fit)))
        });
        let answer = asked.await.unwrap_or(Err(KafkaError::Canceled));
        answer.map_err(|error| ProduceError::Unavailable(KafkaFault(error)))
    }

    /// Returns the error after which this client sends nothing any more, if there was one.
    /// Only a new process helps.
    pub fn fatal_error(&self) -> Option<String> {
        let (code, reason) = self.client.client().fatal_error()?;
        Some(format!("{code}: {reason}"))
    }

    /// Waits until everything under way is durable or given up.
    pub async fn flush(&self, timeout: Duration) -> Result<(), ProduceError> {
        let client = self.client.clone();
        match tokio::task::spawn_blocking(move || client.flush(timeout)).await {
            Ok(flushed) => flushed.map_err(|error| ProduceError::Unavailable(KafkaFault(error))),
            Err(_) => Err(canceled()),
        }
    }

    /// Takes the place of `bytes` in the budget. More than the whole budget takes all of it, so
    /// that even the largest batch gets its turn.
    fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ProduceError> {
        let budget = Arc::clone(&self.budget);
        budget
            .try_acquire_many_owned(self.permits(bytes))
            .map_err(|_| ProduceError::Busy)
    }

    /// Like `reserve`, but waits until there is room. A call's place is free a moment after its
    /// records are durable, which would be too late for a next one that does not wait.
    pub(crate) async fn reserve_when_free(
        &self,
        bytes: usize,
    ) -> Result<OwnedSemaphorePermit, ProduceError> {
        let budget = Arc::clone(&self.budget);
        let reserved = budget.acquire_many_owned(self.permits(bytes)).await;
        reserved.map_err(|_| ProduceError::Busy)
    }

    fn permits(&self, bytes: usize) -> u32 {
        // The budget is clamped to what fits.
        u32::try_from(bytes.min(self.budget_bytes)).unwrap_or(u32::MAX >> 1)
    }

    pub(crate) fn queue(
        &self,
        record: BaseRecord<'_, [u8], [u8], Arc<Delivery>>,
    ) -> Result<(), ProduceError> {
        self.client
            .send(record)
            .map_err(|(error, _)| produce_error(error))
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("topic", &self.topic)
            .field("budget_bytes", &self.budget_bytes)
            .field("free_bytes", &self.budget.available_permits())
            .finish_non_exhaustive()
    }
}

fn event_headers(event: &CloudEvent) -> OwnedHeaders {
    // `insert` takes the headers and gives them back, which a closure cannot do with a place
    // that it borrows.
    let mut headers = Some(OwnedHeaders::new_with_capacity(10));
    each_header(event, |key, value| {
        headers = headers.take().map(|headers| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
    });
    headers.unwrap_or_default()
}

fn produce_error(error: KafkaError) -> ProduceError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => ProduceError::Busy,
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            ProduceError::TooLarge
        }
        _ => ProduceError::Unavailable(KafkaFault(error)),
    }
}

fn canceled() -> ProduceError {
    ProduceError::Unavailable(KafkaFault(KafkaError::Canceled))
}

/// What is known of the records of one call: how many are still under way.
///
/// One for all of them, so that a batch of thousands wakes its request once.
pub(crate) struct Delivery {
    left: AtomicUsize,
    failed: OnceLock<KafkaError>,
    done: Notify,
    // Given back when the last record is settled, also when nobody waits any more.
    _budget: OwnedSemaphorePermit,
}

impl Delivery {
    pub(crate) fn of(records: usize, budget: OwnedSemaphorePermit) -> Arc<Self> {
        let delivery = Self {
            left: AtomicUsize::new(records),
            failed: OnceLock::new(),
            done: Notify::new(),
            _budget: budget,
        };
        if records == 0 {
            delivery.done.notify_one();
        }
        Arc::new(delivery)
    }

    fn settle(&self, result: &DeliveryResult<'_>) {
        if let Err((error, _)) = result {
            // The first error stands for all; more than one would say the same.
            let _first = self.failed.set(error.clone());
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    pub(crate) async fn done(&self) -> Result<(), ProduceError> {
        self.done.notified().await;
        match self.failed.get() {
            Some(error) => Err(produce_error(error.clone())),
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct Context {
    // Only a change is logged: with Kafka away every request fails.
    failing: AtomicBool,
}

impl Context {
    fn note(&self, failed: Option<&KafkaError>) {
        if self.failing.load(Ordering::Relaxed) == failed.is_some() {
            return;
        }
        match (
            failed,
            self.failing.swap(failed.is_some(), Ordering::Relaxed),
        ) {
            (Some(error), false) => {
                tracing::warn!(%error, "records do not become durable; senders are told to retry");
            }
            (None, true) => tracing::info!("records become durable again"),
            _ => {}
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        self.note(result.as_ref().err().map(|(error, _)| error));
        delivery.settle(result);
    }
}
