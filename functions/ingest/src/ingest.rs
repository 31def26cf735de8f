//! What is accepted, and when: an event is stamped, and accepted once it is durable.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};
use metrics::{Counter, Histogram};
use model::is_json_media_type;
use stream::{
    CloudEvent, DecodeError, ProduceError, Producer,
    http::{Events, Refused},
};
use tokio::sync::Semaphore;

use crate::{
    Config, Limits,
    topics::{NoTopics, Topics},
};

/// How long Kafka may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How many mistakes of a batch are told.
const TOLD: usize = 20;

/// Where events come in, which decides what is asked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A broker's trigger: whatever is a CloudEvent.
    Knative,
    /// OpenMeter's API, which asks for a subject and for data that is a JSON object.
    OpenMeter,
}

/// Why events were not accepted. None of a request's events is then known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The request as a whole carries no events that we read.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Some events are wrong.
    #[error("{}", first(.errors, *.count))]
    Invalid {
        /// The first of them.
        errors: Vec<DecodeError>,
        /// How many there are.
        count: usize,
    },
    /// There is not a single event.
    #[error("no events found")]
    Empty,
    /// There is nothing yet that could hold them.
    #[error(transparent)]
    NoTopics(#[from] NoTopics),
    /// Kafka does not hold them.
    #[error(transparent)]
    Produce(#[from] ProduceError),
}

fn first(errors: &[DecodeError], count: usize) -> String {
    match (errors.first(), count) {
        (Some(error), 1) => error.to_string(),
        (Some(error), _) => format!("{error} (and {} more)", count - 1),
        (None, _) => "invalid".to_owned(),
    }
}

impl IngestError {
    /// Returns whether the same request can succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Produce(error) => error.is_retryable(),
            Self::NoTopics(_) => true,
            Self::Refused(_) | Self::Invalid { .. } | Self::Empty => false,
        }
    }
}

/// Accepts events. A clone is the same ingest.
#[derive(Clone, Debug)]
pub struct Ingest {
    producer: Producer,
    topics: Topics,
    limits: Limits,
    // Bytes of bodies that may be in memory.
    reading: Arc<Semaphore>,
    ingested: Counter,
    produce_seconds: Histogram,
}

impl Ingest {
    /// Returns an ingest that sends to the topic of `config`. A Kafka that is away is no
    /// error here: readiness says so. Must be called in a Tokio runtime, which looks for the topics
    /// meanwhile.
    pub fn connect(config: &Config) -> Result<Self, ProduceError> {
        // Handles to metrics are only good once there is a recorder.
        runtime::telemetry::install_recorder();
        metrics::describe_counter!("openmeter_events_ingested_total", "Total events ingested.");
        metrics::describe_counter!(
            "openmeter_ingest_rejected_total",
            "Requests that were not accepted, by reason."
        );
        metrics::describe_histogram!(
            "openmeter_ingest_produce_seconds",
            metrics::Unit::Seconds,
            "Time until Kafka held a request's events."
        );
        let producer = Producer::connect(&config.kafka, config.limits.in_flight)?;
        let topics = Topics::new(producer.clone(), config.kafka.clone());
        topics.begin();
        Ok(Self {
            producer,
            topics,
            limits: config.limits,
            reading: Arc::new(Semaphore::new(
                config.limits.in_flight.min(Semaphore::MAX_PERMITS),
            )),
            ingested: metrics::counter!("openmeter_events_ingested_total"),
            produce_seconds: metrics::histogram!("openmeter_ingest_produce_seconds"),
        })
    }

    /// Accepts all events of a request or none of them, and returns when all are durable. Whatever
    /// `held` is, it is dropped when the events are on their way and count in the producer's budget.
    pub(crate) async fn accept<T>(
        &self,
        events: Events,
        door: Door,
        held: T,
    ) -> Result<(), IngestError> {
        let mut events = judge(events, door)?;
        if events.is_empty() {
            return Ok(());
        }
        self.topics.there().await?;
        drop(held);
        let accepted_at = now();
        for (micros, event) in (0..).zip(&mut events) {
            // One later than the other, so that of two alike in a request one is the first.
            event.stamp(accepted_at + SignedDuration::from_micros(micros));
        }
        let count = events.len() as u64;
        let started = Instant::now();
        self.producer.send(events).await?;
        self.produce_seconds.record(started.elapsed());
        self.ingested.increment(count);
        Ok(())
    }

    /// Sends events once more that were accepted already, as they are.
    pub(crate) async fn send_again(&self, events: Vec<CloudEvent>) -> Result<(), IngestError> {
        self.topics.there().await?;
        Ok(self.producer.send(events).await?)
    }

    /// Returns whether events would be accepted: Kafka is there, and has the topics. They
    /// are created on the way, so that ingest starts before Kafka does.
    pub async fn ready(&self) -> anyhow::Result<()> {
        self.alive().map_err(anyhow::Error::msg)?;
        self.topics.there().await?;
        self.producer.ping(PING_TIMEOUT).await?;
        Ok(())
    }

    /// Returns whether the process can go on at all.
    pub fn alive(&self) -> Result<(), String> {
        self.producer.fatal_error().map_or(Ok(()), Err)
    }

    /// Waits until everything under way is durable or given up.
    pub async fn flush(&self, timeout: Duration) -> Result<(), ProduceError> {
        self.producer.flush(timeout).await
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn reading(&self) -> &Arc<Semaphore> {
        &self.reading
    }
}

/// Microseconds are what the store keeps: an event's time must not differ between
/// its record and its row.
fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(
        TimestampRound::new()
            .smallest(Unit::Microsecond)
            .mode(jiff::RoundMode::Trunc),
    )
    .unwrap_or(now)
}

/// Returns the events if all of them are right, else what is wrong with each.
fn judge(events: Events, door: Door) -> Result<Vec<CloudEvent>, IngestError> {
    let mut right = Vec::with_capacity(events.each.len());
    let mut errors = Vec::new();
    let mut count = 0;
    for (index, event) in events.each.into_iter().enumerate() {
        let judged = event.and_then(|event| match door {
            Door::Knative => Ok(event),
            Door::OpenMeter => judge_for_openmeter(event).map_err(|error| {
                if events.is_batch {
                    error.at(index)
                } else {
                    error
                }
            }),
        });
        match judged {
            Ok(event) => right.push(event),
            Err(error) => {
                count += 1;
                if errors.len() < TOLD {
                    errors.push(error);
                }
            }
        }
    }
    if count > 0 {
        return Err(IngestError::Invalid { errors, count });
    }
    Ok(right)
}

fn judge_for_openmeter(event: CloudEvent) -> Result<CloudEvent, DecodeError> {
    if event.subject().is_none() {
        return Err(DecodeError::field("subject", "is required"));
    }
    if event
        .data_content_type()
        .is_some_and(|content_type| !is_json_media_type(content_type))
    {
        return Err(DecodeError::field(
            "datacontenttype",
            "must be application/json",
        ));
    }
    if event.data().is_some_and(|data| !is_object_or_null(data)) {
        return Err(DecodeError::field("data", "must be a JSON object or null"));
    }
    Ok(event)
}

fn is_object_or_null(data: &[u8]) -> bool {
    use serde_json::value::RawValue;
    serde_json::from_slice::<&RawValue>(data)
        .is_ok_and(|value| value.get().starts_with('{') || value.get() == "null")
}
