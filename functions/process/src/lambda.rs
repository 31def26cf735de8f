//! A batch of Kafka records from Lambda's event source mapping (MSK or one's own cluster).
//!
//! It is one batch, counted as pull counts its own. Whatever fails, Lambda brings all of it
//! again, so the answer waits for the rows and for the graves.

use anyhow::Context as _;
use aws_lambda_events::event::kafka::{KafkaEvent, KafkaRecord};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use stream::{DeadRecord, DecodeError, KafkaConfig, Record, kafka};

use crate::{Process, dead::Dead};

/// Counts the batches of Lambda. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lambda {
    pub(crate) process: Process,
    pub(crate) kafka: KafkaConfig,
    pub(crate) dead: Dead,
}

/// A record, and where it was read.
struct Read {
    topic: String,
    partition: i32,
    offset: i64,
    recorded_at: Timestamp,
    record: Record,
}

impl Lambda {
    /// Counts the records of an event source mapping's `event` and buries those that cannot be.
    pub(crate) async fn count(&self, event: &[u8]) -> anyhow::Result<()> {
        let event: KafkaEvent =
            serde_json::from_slice(event).context("this is no event of kafka")?;
        let mut partitions: Vec<_> = event.records.into_iter().collect();
        partitions.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut events = Vec::new();
        let mut of_events = Vec::new();
        let mut dead = Vec::new();
        for record in partitions.into_iter().flat_map(|(_, records)| records) {
            let read = Read::of(record)?;
            match read.decode() {
                Ok(event) => {
                    events.push(event);
                    of_events.push(Some(read));
                }
                Err(reason) => dead.push(read.dead(reason)),
            }
        }
        for unstorable in self.process.count(events).await? {
            let reason = DecodeError::whole(unstorable.to_string());
            dead.extend(
                of_events[unstorable.index]
                    .take()
                    .map(|read| read.dead(reason)),
            );
        }
        self.bury(dead).await
    }

    async fn bury(&self, dead: Vec<(String, DeadRecord)>) -> anyhow::Result<()> {
        if dead.is_empty() {
            return Ok(());
        }
        stream::create_topics(&self.kafka, &[&self.kafka.dead_topic]).await?;
        for (topic, record) in dead {
            self.dead.bury(&topic, &[record]).await?;
        }
        Ok(())
    }
}

impl Read {
    fn of(record: KafkaRecord) -> anyhow::Result<Self> {
        let bytes = |text: Option<String>| text.map(|text| BASE64_STANDARD.decode(text));
        let headers = record.headers.into_iter().flatten().map(|(name, value)| {
            // Java's bytes have a sign.
            let value = value.into_iter().map(i8::cast_unsigned).collect();
            (name, Some(value))
        });
        Ok(Self {
            topic: record.topic.unwrap_or_default(),
            partition: i32::try_from(record.partition)?,
            offset: record.offset,
            recorded_at: Timestamp::from_millisecond(record.timestamp.timestamp_millis())?,
            record: Record {
                key: bytes(record.key).transpose()?,
                value: bytes(record.value).transpose()?,
                headers: headers.collect(),
            },
        })
    }

    fn decode(&self) -> Result<model::UsageEvent, DecodeError> {
        let headers = self.record.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_deref()));
        kafka::decode(headers, self.record.value.as_deref(), self.recorded_at)
    }

    fn dead(self, reason: DecodeError) -> (String, DeadRecord) {
        let dead = DeadRecord::new(self.partition, self.offset, reason, self.record);
        (self.topic, dead)
    }
}
