//! Pull mode: a consumer group's member that counts batches of tens of thousands.
//!
//! Offsets are committed when ClickHouse has the rows. Killed before that, the batch
//! comes again, to this process or another, and makes the same rows.

use std::{future::Future, time::Duration};

use runtime::CancellationToken;
use stream::{Batch, BatchLimits, Consumer, DeadRecord, DecodeError, KafkaConfig};
use tokio::pin;

use crate::{
    batch::{Asked, Process},
    dead::Dead,
    prepare::Prepared,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A batch on its way: ready to be written, not yet acknowledged.
struct InHand {
    batch: Batch,
    prepared: Vec<Prepared>,
    asked: Asked,
}

/// Takes batches from a consumer group and counts them.
pub(crate) struct Pull {
    pub(crate) process: Process,
    pub(crate) kafka: KafkaConfig,
    pub(crate) group: String,
    pub(crate) limits: BatchLimits,
    pub(crate) dead: Dead,
    pub(crate) stop: CancellationToken,
}

/// Counts what the topic has and gets, until told to stop.
pub(crate) async fn pull(pull: Pull) -> anyhow::Result<()> {
    if pull
        .until_done("create the topics", || create_topics(&pull.kafka))
        .await
        .is_none()
    {
        return Ok(());
    }
    let mut consumer = Consumer::connect(&pull.kafka, &pull.group)?;
    let ended = pull.run(&mut consumer).await;
    consumer.close().await;
    ended
}

async fn create_topics(kafka: &KafkaConfig) -> anyhow::Result<()> {
    Ok(stream::create_topics(kafka, &[&kafka.topic, &kafka.dead_topic]).await?)
}

impl Pull {
    async fn run(&self, consumer: &mut Consumer) -> anyhow::Result<()> {
        // Readiness tells people; a consumer has nobody who would wait for it.
        let prepare = || async { Ok(self.process.prepare().await?) };
        if self
            .until_done("use valkey and the tables", prepare)
            .await
            .is_none()
        {
            return Ok(());
        }
        let mut next = None;
        loop {
            let in_hand = match next.take() {
                Some(in_hand) => in_hand,
                None => tokio::select! {
                    () = self.stop.cancelled() => return Ok(()),
                    batch = consumer.next_batch(self.limits) => match self.take(batch?).await? {
                        Some(in_hand) => in_hand,
                        None => return Ok(()),
                    },
                },
            };
            let writing = self.write(&in_hand);
            pin!(writing);
            // The next batch is read, prepared and judged while this one is written; but
            // this one's offsets do not wait for a next one that may be long in coming.
            let written = tokio::select! {
                written = &mut writing => written,
                batch = consumer.next_batch(self.limits) => {
                    let (written, taken) = tokio::join!(writing, self.take(batch?));
                    next = taken?;
                    written
                }
            };
            if written.is_none() {
                return Ok(());
            }
            let commit = || async { Ok(consumer.commit(&in_hand.batch).await?) };
            let committed = self.until_done("commit offsets", commit).await;
            if committed.is_none() || self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Applies the meters and finds out who was first; `None` when told to stop before that
    /// was known.
    async fn take(&self, mut batch: Batch) -> anyhow::Result<Option<InHand>> {
        let prepared = self
            .process
            .apply(std::mem::take(&mut batch.events))
            .await?;
        let judge = || async { Ok(self.process.judge(&prepared).await?) };
        let asked = self.until_done("judge a batch", judge).await;
        Ok(asked.map(|asked| InHand {
            batch,
            prepared,
            asked,
        }))
    }

    /// Writes a batch and buries its dead; `None` when told to stop before it was done.
    async fn write(&self, in_hand: &InHand) -> Option<()> {
        let InHand {
            batch,
            prepared,
            asked,
        } = in_hand;
        let write = || async { Ok(self.process.write(prepared, asked).await?) };
        let unstorable = self.until_done("write a batch", write).await?;
        let unstorable: Vec<DeadRecord> = unstorable
            .into_iter()
            .map(|unstorable| {
                let event = &prepared[unstorable.index].event;
                let reason = DecodeError::whole(unstorable.to_string());
                batch.dead_record(unstorable.index, event, reason)
            })
            .collect();
        for records in [&batch.dead, &unstorable] {
            let bury = || self.dead.bury(&self.kafka.topic, records);
            self.until_done("bury dead records", bury).await?;
        }
        Some(())
    }

    /// Tries until it is done: whoever is away comes back, and nothing here is to be
    /// skipped. `None` when told to stop meanwhile.
    async fn until_done<T, F, Fut>(&self, what: &'static str, mut attempt: F) -> Option<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = anyhow::Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt().await {
                Ok(done) => return Some(done),
                Err(error) => {
                    metrics::counter!("openmeter_process_retries_total", "step" => what)
                        .increment(1);
                    tracing::warn!(error = format!("{error:#}"), "cannot {what} yet");
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }
}
