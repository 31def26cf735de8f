//! Where records end that are counted nowhere, whatever is tried: the topic of the dead.

use stream::{DeadRecord, Graves, KafkaConfig, ProduceError};

/// Bytes of dead records that may be under way at a time.
const BUDGET: usize = 16 << 20;

/// Buries the dead of process.
#[derive(Clone)]
pub(crate) struct Dead(Graves);

impl Dead {
    pub(crate) fn connect(kafka: &KafkaConfig) -> Result<Self, ProduceError> {
        Graves::connect(kafka, BUDGET).map(Self)
    }

    /// Buries records of `topic`, and returns when all are durable.
    pub(crate) async fn bury(&self, topic: &str, records: &[DeadRecord]) -> anyhow::Result<()> {
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
        self.0.bury(topic, records).await?;
        metrics::counter!("openmeter_events_dead_total").increment(records.len() as u64);
        Ok(())
    }
}
