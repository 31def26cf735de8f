//! Pull mode: a consumer group's member that counts batches of tens of thousands.
//!
//! Offsets are committed when ClickHouse has the rows. Killed before that, the batch
//! comes again, to this process or another, and makes the same rows.

use std::{future::Future, time::Duration};

use ledger::Judged;
use runtime::CancellationToken;
use stream::{Batch, Consumer, Graves, KafkaConfig};
use tokio::pin;

use crate::{batch::Process, config::Config, prepare::Prepared};

/// Bytes of dead records that may be under way at a time.
const DEAD_BUDGET: usize = 16 << 20;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A batch on its way: ready to be written, not yet acknowledged.
struct InHand {
    batch: Batch,
    prepared: Vec<Prepared>,
    judged: Judged,
}

struct Pull {
    process: Process,
    config: Config,
    graves: Graves,
    stop: CancellationToken,
}

/// Counts what the topic has and gets, until `stop`.
pub(crate) async fn pull(
    process: Process,
    config: Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let graves = Graves::connect(&config.kafka, DEAD_BUDGET)?;
    let pull = Pull {
        process,
        config,
        graves,
        stop,
    };
    if pull
        .until_done("create the topics", || create_topics(&pull.config.kafka))
        .await
        .is_none()
    {
        return Ok(());
    }
    let mut consumer = Consumer::connect(&pull.config.kafka, &pull.config.group)?;
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
        let check = || async { Ok(self.process.registry().check().await?) };
        if self.until_done("use valkey", check).await.is_none() {
            return Ok(());
        }
        let migrate = || async { Ok(self.process.store().migrate().await?) };
        if self
            .until_done("migrate the tables", migrate)
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
                    batch = consumer.next_batch(self.config.limits) => match self.take(batch?).await? {
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
                batch = consumer.next_batch(self.config.limits) => {
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

    /// Applies the meters, on a thread of its own since it is the work of a core, and
    /// finds out who was first; `None` when told to stop before that was known.
    async fn take(&self, mut batch: Batch) -> anyhow::Result<Option<InHand>> {
        let catalog = self.process.meters().current();
        let events = std::mem::take(&mut batch.events);
        let prepare = move || -> Vec<_> {
            let prepare = |event| Prepared::new(&catalog, event);
            events.into_iter().map(prepare).collect()
        };
        let prepared = tokio::task::spawn_blocking(prepare).await?;
        let judge = || async { Ok(self.process.judge(&prepared).await?) };
        let judged = self.until_done("judge a batch", judge).await;
        Ok(judged.map(|judged| InHand {
            batch,
            prepared,
            judged,
        }))
    }

    /// Writes a batch and buries its dead; `None` when told to stop before it was done.
    async fn write(&self, in_hand: &InHand) -> Option<()> {
        let write = || async {
            Ok(self
                .process
                .write(&in_hand.prepared, &in_hand.judged)
                .await?)
        };
        self.until_done("write a batch", write).await?;
        self.until_done("bury dead records", || self.bury(&in_hand.batch))
            .await
    }

    async fn bury(&self, batch: &Batch) -> anyhow::Result<()> {
        let kafka = &self.config.kafka;
        if batch.dead.is_empty() {
            return Ok(());
        }
        for record in &batch.dead {
            tracing::warn!(
                partition = record.partition,
                offset = record.offset,
                reason = %record.reason,
                "a record is no CloudEvent"
            );
        }
        self.graves.bury(&kafka.topic, &batch.dead).await?;
        metrics::counter!("openmeter_events_dead_total").increment(batch.dead.len() as u64);
        Ok(())
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
