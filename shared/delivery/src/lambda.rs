//! A batch of Kafka records from Lambda's event source mapping (MSK or one's own cluster).
//!
//! It is one batch, taken as pull takes its own. Whatever fails, Lambda brings all of it
//! again, so the answer waits for the rows and for the graves. No record fails the others: what
//! it holds is a stranger's, and one that cannot be read is buried as it came, or passed over. If none can be,
//! it is Lambda that shows them otherwise than we know, and all must come again.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use model::UsageEvent;
use serde::Deserialize;
use serde_json::value::RawValue;
use stream::{DeadRecord, DecodeError, KafkaConfig, Record, kafka};

use crate::{Function, dead::Burials, function::take};

/// What is said of the place of a record that does not say it.
const NO_OFFSET: i64 = -1;

/// Takes the batches of Lambda. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lambda<F> {
    pub(crate) function: F,
    pub(crate) kafka: KafkaConfig,
    pub(crate) burials: Burials,
}

/// An event of Lambda's. What is of another source has no records, and must not pass for a
/// batch of none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invocation<'a> {
    #[serde(rename = "eventSource")]
    _source: Source,
    /// By `topic-partition`.
    #[serde(borrow)]
    records: BTreeMap<String, Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
enum Source {
    #[serde(rename = "aws:kafka")]
    Msk,
    #[serde(rename = "SelfManagedKafka", alias = "aws:SelfManagedKafka")]
    SelfManaged,
}

/// A record as Lambda shows it: base64, and headers as numbers: Java's bytes, which have a sign.
#[derive(Deserialize)]
struct Shown {
    offset: i64,
    timestamp: Option<i64>,
    key: Option<String>,
    value: Option<String>,
    headers: Option<Vec<HashMap<String, Option<Vec<i16>>>>>,
}

/// A record that was read.
struct Read {
    partition: i32,
    offset: i64,
    recorded_at: Timestamp,
    record: Record,
}

impl<F: Function> Lambda<F> {
    /// Takes the records of an event source mapping's `event` and buries those that cannot be
    /// taken.
    pub(crate) async fn take(&self, event: &[u8]) -> anyhow::Result<()> {
        let event: Invocation<'_> =
            serde_json::from_slice(event).context("this is no event of kafka")?;
        let mut events = Vec::new();
        let mut of_events = Vec::new();
        let mut dead: BTreeMap<&str, Vec<DeadRecord>> = BTreeMap::new();
        let mut can_read = event.records.values().all(Vec::is_empty);
        for (place, records) in &event.records {
            let (topic, partition) = place.rsplit_once('-').context("records of no partition")?;
            let partition = partition.parse().context("records of no partition")?;
            for raw in records {
                let Some(read) = Read::of(partition, raw.get()) else {
                    dead.entry(topic).or_default().push(unread(partition, raw));
                    continue;
                };
                can_read = true;
                match read.decode() {
                    Ok(event) => {
                        events.push(event);
                        of_events.push(Some((topic, read)));
                    }
                    Err(reason) => dead.entry(topic).or_default().push(read.dead(reason)),
                }
            }
        }
        anyhow::ensure!(can_read, "no record is shown as lambda shows records");
        for refused in take(&self.function, events).await? {
            if let Some((topic, read)) = of_events[refused.index].take() {
                let reason = DecodeError::whole(refused.reason);
                dead.entry(topic).or_default().push(read.dead(reason));
            }
        }
        self.bury(dead).await
    }

    async fn bury(&self, dead: BTreeMap<&str, Vec<DeadRecord>>) -> anyhow::Result<()> {
        if dead.is_empty() {
            return Ok(());
        }
        self.burials.create_topics(&self.kafka, None).await?;
        for (topic, records) in dead {
            self.burials.bury(topic, &records).await?;
        }
        Ok(())
    }
}

/// Returns what is buried of a record that cannot be read: all of it, as it came.
fn unread(partition: i32, raw: &RawValue) -> DeadRecord {
    let record = Record {
        key: None,
        headers: Vec::new(),
        value: Some(raw.get().as_bytes().to_vec()),
    };
    let reason = DecodeError::whole("cannot be read as a record of Lambda's");
    DeadRecord::new(partition, NO_OFFSET, reason, record)
}

impl Read {
    fn of(partition: i32, raw: &str) -> Option<Self> {
        let shown: Shown = serde_json::from_str(raw).ok()?;
        let bytes = |text: Option<String>| text.map(|text| BASE64_STANDARD.decode(text));
        let headers = shown.headers.into_iter().flatten().flatten();
        let headers = headers.map(|(name, value)| match value {
            Some(numbers) => Some((name, Some(unsigned(numbers)?))),
            None => Some((name, None)),
        });
        // As pull reads it: Kafka says -1 where there is none.
        let recorded_at = shown.timestamp.filter(|millis| *millis != -1);
        let recorded_at = recorded_at.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        Some(Self {
            partition,
            offset: shown.offset,
            recorded_at: recorded_at.unwrap_or_else(Timestamp::now),
            record: Record {
                key: bytes(shown.key).transpose().ok()?,
                value: bytes(shown.value).transpose().ok()?,
                headers: headers.collect::<Option<_>>()?,
            },
        })
    }

    fn decode(&self) -> Result<UsageEvent, DecodeError> {
        let headers = self.record.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_deref()));
        kafka::decode(headers, self.record.value.as_deref(), self.recorded_at)
    }

    fn dead(self, reason: DecodeError) -> DeadRecord {
        DeadRecord::new(self.partition, self.offset, reason, self.record)
    }
}

/// Returns bytes that were written with a sign or without one.
fn unsigned(numbers: Vec<i16>) -> Option<Vec<u8>> {
    let byte = |number: i16| match i8::try_from(number) {
        Ok(signed) => Some(signed.cast_unsigned()),
        Err(_) => u8::try_from(number).ok(),
    };
    numbers.into_iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_and_without_a_sign() {
        for (numbers, bytes) in [
            (vec![-61, -68], Some("ü".into())),
            (vec![195, 188], Some("ü".into())),
            (
                vec![-128, -1, 0, 127, 128, 255],
                Some(vec![128, 255, 0, 127, 128, 255]),
            ),
            (vec![-129], None),
            (vec![65, 256], None),
        ] {
            assert_eq!(unsigned(numbers.clone()), bytes, "{numbers:?}");
        }
    }
}
