//! Where records end that a function cannot use, whatever is tried.

use stream::{DeadRecord, Graves, KafkaConfig, ProduceError};

use crate::Function;

/// Bytes of dead records that may be under way at a time.
const BUDGET: usize = 16 << 20;

/// What becomes of a record that is no CloudEvent, or that the function refuses.
///
/// Of the functions that read one topic one buries, so that a dead record is in the topic of
/// the dead, and in the metrics, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// It ends in the topic of the dead. Pushed, it is answered 400, and it is the KafkaSource
    /// that buries it.
    Bury,
    /// It is acknowledged like any other.
    PassOver,
}

/// Buries the dead of a function, or passes over them.
#[derive(Clone)]
pub(crate) struct Burials(Option<Graves>);

impl Burials {
    pub(crate) fn connect<F: Function>(kafka: &KafkaConfig) -> Result<Self, ProduceError> {
        let graves = (F::DEAD == Dead::Bury).then(|| Graves::connect(kafka, BUDGET));
        graves.transpose().map(Self)
    }

    /// Makes the topics `read` and, if anything is ever buried, that of the dead.
    pub(crate) async fn create_topics(
        &self,
        kafka: &KafkaConfig,
        read: Option<&str>,
    ) -> anyhow::Result<()> {
        let dead = self.0.as_ref().map(|_| kafka.dead_topic.as_str());
        let topics: Vec<_> = read.into_iter().chain(dead).collect();
        if !topics.is_empty() {
            stream::create_topics(kafka, &topics).await?;
        }
        Ok(())
    }

    /// Buries records of `topic`, and returns when all are durable.
    pub(crate) async fn bury(&self, topic: &str, records: &[DeadRecord]) -> anyhow::Result<()> {
        let Some(graves) = &self.0 else {
            for record in records {
                tracing::debug!(
                    topic,
                    partition = record.partition,
                    offset = record.offset,
                    reason = %record.reason,
                    "a record is passed over"
                );
            }
            return Ok(());
        };
        if records.is_empty() {
            return Ok(());
        }
        for record in records {
            tracing::warn!(
                topic,
                partition = record.partition,
                offset = record.offset,
                reason = %record.reason,
                "a record cannot be counted"
            );
        }
        graves.bury(topic, records).await?;
        count_dead(records.len());
        Ok(())
    }
}

/// Counts records that can never be counted.
pub(crate) fn count_dead(records: usize) {
    metrics::counter!("openmeter_events_dead_total").increment(records as u64);
}
