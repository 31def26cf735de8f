//! The topic of the dead: records that are no CloudEvents, with where they were and what is
//! wrong in headers.
//!
//! A burial must not fail for good, since its partition waits for it. So a record that is
//! larger than the topic takes is cut, and says so.

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
};

use crate::{
    DeadRecord, KafkaConfig, ProduceError, Producer,
    client::MAX_DEAD_BYTES,
    producer::{Delivery, RECORD_OVERHEAD},
};

/// What a burial adds at most: the reason, the topic's name and numbers.
const PLACE_BYTES: usize = 4 << 10;

/// Beyond it the headers of a record that is cut are left out, and its key is cut as well.
const KEPT_BYTES: usize = 64 << 10;

/// How large a grave may be, tried in this order. A topic that somebody else made may take
/// less than ours does: by default a megabyte. The last has nothing but the place.
const GRAVES: [usize; 3] = [MAX_DEAD_BYTES, 1_000_000, 0];

/// Buries records in the topic of the dead.
#[derive(Clone, Debug)]
pub struct Graves {
    producer: Producer,
}

impl Graves {
    /// Returns graves in the dead topic of `config`, with at most `budget_bytes` under way. It
    /// connects by itself: a Kafka that is away is no error here.
    pub fn connect(config: &KafkaConfig, budget_bytes: usize) -> Result<Self, ProduceError> {
        let topic = &config.dead_topic;
        let producer = Producer::connect_to(topic, config, budget_bytes, MAX_DEAD_BYTES)?;
        Ok(Self { producer })
    }

    /// Buries records of the topic `read_from`, and returns when all are durable.
    ///
    /// What has more bytes than a topic takes is cut: its value first, then headers and key.
    /// The header `openmeter-dead-truncated` then has the size that it had. After an error some
    /// of the records may be buried, and are buried again by the same call.
    pub async fn bury(&self, read_from: &str, records: &[DeadRecord]) -> Result<(), ProduceError> {
        let mut rest = records;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(self.fitting(rest));
            match self.bury_together(read_from, chunk, GRAVES[0]).await {
                // Of which one it is said, nobody knows: they may have shared a batch.
                Err(ProduceError::TooLarge) => {
                    for record in chunk {
                        self.bury_alone(read_from, record).await?;
                    }
                }
                buried => buried?,
            }
            rest = later;
        }
        Ok(())
    }

    /// Returns how many of the first records are under way together: one at least.
    fn fitting(&self, records: &[DeadRecord]) -> usize {
        let mut left = self.producer.budget_bytes();
        let fit = records.iter().take_while(|record| {
            let size = grave_size(record);
            let fits = size <= left;
            left = left.saturating_sub(size);
            fits
        });
        fit.count().max(1)
    }

    async fn bury_alone(&self, read_from: &str, record: &DeadRecord) -> Result<(), ProduceError> {
        let record = std::slice::from_ref(record);
        let mut buried = Err(ProduceError::TooLarge);
        for grave in GRAVES {
            buried = self.bury_together(read_from, record, grave).await;
            if !matches!(buried, Err(ProduceError::TooLarge)) {
                break;
            }
        }
        buried
    }

    async fn bury_together(
        &self,
        read_from: &str,
        records: &[DeadRecord],
        grave: usize,
    ) -> Result<(), ProduceError> {
        let size = records.iter().map(grave_size).sum();
        let permit = self.producer.reserve_when_free(size).await?;
        let delivery = Delivery::of(records.len(), permit);
        for record in records {
            let remains = Remains::of(record, grave);
            let mut message = BaseRecord::with_opaque_to(self.producer.topic(), delivery.clone())
                .headers(headers(record, &remains, read_from));
            message.key = remains.key;
            message.payload = remains.value;
            self.producer.queue(message)?;
        }
        delivery.done().await
    }
}

/// What a record takes of the budget: no grave is larger than the first.
fn grave_size(record: &DeadRecord) -> usize {
    RECORD_OVERHEAD + PLACE_BYTES + record.size().min(MAX_DEAD_BYTES)
}

/// What is buried of a record.
#[derive(Debug, PartialEq, Eq)]
struct Remains<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    has_headers: bool,
    is_whole: bool,
}

impl<'a> Remains<'a> {
    /// Returns what fits into a grave.
    fn of(record: &'a DeadRecord, grave: usize) -> Self {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let room = grave.saturating_sub(PLACE_BYTES);
        if record.size() <= room {
            return Self {
                key,
                value,
                has_headers: true,
                is_whole: true,
            };
        }
        let kept = room.min(KEPT_BYTES);
        let key = key.map(|key| cut(key, kept));
        let key_len = key.map_or(0, <[u8]>::len);
        let has_headers = key_len + record.header_bytes <= kept;
        let header_bytes = if has_headers { record.header_bytes } else { 0 };
        Self {
            key,
            value: value.map(|value| cut(value, room.saturating_sub(key_len + header_bytes))),
            has_headers,
            is_whole: false,
        }
    }
}

fn cut(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

fn headers(record: &DeadRecord, remains: &Remains<'_>, read_from: &str) -> OwnedHeaders {
    let kept = record.headers.clone().filter(|_| remains.has_headers);
    let truncated = (!remains.is_whole).then(|| record.size().to_string());
    let place = [
        ("openmeter-dead-reason", Some(record.reason.to_string())),
        ("openmeter-dead-topic", Some(read_from.to_owned())),
        (
            "openmeter-dead-partition",
            Some(record.partition.to_string()),
        ),
        ("openmeter-dead-offset", Some(record.offset.to_string())),
        ("openmeter-dead-truncated", truncated),
    ];
    let said = place
        .iter()
        .filter_map(|(key, value)| value.as_ref().map(|value| (*key, value)));
    said.fold(kept.unwrap_or_default(), |headers, (key, value)| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DecodeError;

    #[test]
    fn what_does_not_fit_is_cut_to_what_fits() {
        for (key, header_bytes, value) in [
            (0, 0, 0),
            (10, 200, 1000),
            (10, 200, 8 << 20),
            (10, 3 << 20, 8 << 20),
            (3 << 20, 10, 0),
            (70 << 10, 70 << 10, 3 << 20),
            (0, 3 << 20, 0),
        ] {
            let record = DeadRecord {
                partition: 0,
                offset: 0,
                reason: DecodeError::whole("is dead"),
                key: Some(vec![b'k'; key]),
                value: Some(vec![b'v'; value]),
                headers: None,
                header_bytes,
            };
            for grave in GRAVES {
                let remains = Remains::of(&record, grave);
                let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
                let headers = if remains.has_headers { header_bytes } else { 0 };
                let size = len(remains.key) + headers + len(remains.value);
                assert!(
                    size <= grave.saturating_sub(PLACE_BYTES),
                    "{size} in {grave}"
                );
                assert_eq!(remains.is_whole, size == record.size());
                if remains.is_whole {
                    assert!(remains.has_headers);
                } else if grave > 0 && value > grave {
                    // Nothing is left out for which there was room.
                    assert_eq!(size, grave - PLACE_BYTES);
                }
            }
        }
    }
}
