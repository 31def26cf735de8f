//! Our part in a consumer group: which partitions are ours, and how far behind they are.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext, Rebalance},
    error::KafkaError,
};
use serde::Deserialize;

use crate::client;

/// Knows which partitions are ours.
pub(crate) struct Group {
    topic: String,
    // Each with a number that changes whenever it is assigned anew.
    owned: Mutex<HashMap<i32, u64>>,
}

impl Group {
    pub(crate) fn of(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            owned: Mutex::default(),
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn owned(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn epoch(&self, partition: i32) -> u64 {
        self.owned().get(&partition).copied().unwrap_or_default()
    }
}

impl ClientContext for Group {
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
        let owned = self.owned();
        // Partitions of others are theirs to tell.
        for (_, partition, records) in statistics
            .lags()
            .filter(|&(topic, partition, _)| topic == self.topic && owned.contains_key(&partition))
        {
            lag(&self.topic, partition, records);
        }
    }
}

impl ConsumerContext for Group {
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

/// Returns a number that no assignment had before.
pub(crate) fn next_epoch() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
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
pub(crate) struct Statistics {
    topics: HashMap<String, TopicStatistics>,
}

impl Statistics {
    /// Returns topic, partition and how many records it is behind, of those where it is known.
    pub(crate) fn lags(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        let topics = self.topics.iter();
        let all = topics.flat_map(|(topic, statistics)| {
            let partitions = statistics.partitions.values();
            partitions.map(|of| (topic.as_str(), of.partition, of.consumer_lag))
        });
        all.filter(|&(.., lag)| lag >= 0)
    }
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
