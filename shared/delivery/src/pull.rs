//! Pull mode: a consumer group's member that takes batches of tens of thousands.
//!
//! Offsets are committed when a batch is written. Killed before that, it comes again, to this
//! process or another.

use std::{future::Future, time::Duration};

use model::Prepared;
use runtime::CancellationToken;
use stream::{Batch, BatchLimits, Consumer, DeadRecord, DecodeError, KafkaConfig};
use tokio::pin;

use crate::{
    Function,
    dead::Burials,
    function::{apply, count_retry},
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A batch on its way: ready to be written, not yet acknowledged.
struct InHand<A> {
    batch: Batch,
    prepared: Vec<Prepared>,
    asked: A,
}

/// Takes batches from a consumer group.
pub(crate) struct Pull<F> {
    pub(crate) function: F,
    pub(crate) kafka: KafkaConfig,
    pub(crate) group: String,
    pub(crate) limits: BatchLimits,
    pub(crate) burials: Burials,
    pub(crate) stop: CancellationToken,
}

/// Takes what the topic has and gets, until told to stop.
pub(crate) async fn pull<F: Function>(pull: Pull<F>) -> anyhow::Result<()> {
    let read = Some(pull.kafka.topic.as_str());
    let create = || pull.burials.create_topics(&pull.kafka, read);
    if pull.until_done("create the topics", create).await.is_none() {
        return Ok(());
    }
    let mut consumer = Consumer::connect(&pull.kafka, &pull.group)?;
    let ended = pull.run(&mut consumer).await;
    consumer.close().await;
    ended
}

impl<F: Function> Pull<F> {
    async fn run(&self, consumer: &mut Consumer) -> anyhow::Result<()> {
        // Readiness tells people; a consumer has nobody who would wait for it.
        let prepare = || async { Ok(self.function.prepare().await?) };
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

    /// Applies the meters and judges a batch; `None` when told to stop before that was done.
    async fn take(&self, mut batch: Batch) -> anyhow::Result<Option<InHand<F::Asked>>> {
        let prepared = apply(&self.function, std::mem::take(&mut batch.events)).await?;
        let judge = || async { Ok(self.function.judge(&prepared).await?) };
        let asked = self.until_done("judge a batch", judge).await;
        Ok(asked.map(|asked| InHand {
            batch,
            prepared,
            asked,
        }))
    }

    /// Writes a batch and buries its dead; `None` when told to stop before it was done.
    async fn write(&self, in_hand: &InHand<F::Asked>) -> Option<()> {
        let InHand {
            batch,
            prepared,
            asked,
        } = in_hand;
        let write = || async { Ok(self.function.write(prepared, asked).await?) };
        let refused = self.until_done("write a batch", write).await?;
        let refused: Vec<DeadRecord> = refused
            .into_iter()
            .map(|refused| {
                let event = &prepared[refused.index].event;
                batch.dead_record(refused.index, event, DecodeError::whole(refused.reason))
            })
            .collect();
        for records in [&batch.dead, &refused] {
            let bury = || self.burials.bury(&self.kafka.topic, records);
            self.until_done("bury dead records", bury).await?;
        }
        Some(())
    }

    /// Tries until it is done: whoever is away comes back, and nothing here is to be
    /// skipped. `None` when told to stop meanwhile.
    async fn until_done<T, A, Fut>(&self, what: &'static str, mut attempt: A) -> Option<T>
    where
        A: FnMut() -> Fut,
        Fut: Future<Output = anyhow::Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt().await {
                Ok(done) => return Some(done),
                Err(error) => {
                    count_retry::<F>(what);
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

#[cfg(test)]
mod tests {
    use std::{process, time::Instant};

    use stream::{CloudEvent, Graves, Producer, Record};

    use super::*;
    use crate::tally::Tally;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn kafka() -> KafkaConfig {
        let broker = std::env::var("OPENMETER_KAFKA_BROKER");
        let broker = broker.unwrap_or_else(|_| "127.0.0.1:9092".to_owned());
        let mut kafka = KafkaConfig::new(vec![broker]);
        kafka.topic = format!("delivery-{}", process::id());
        kafka.partitions = 1;
        kafka.retention = Duration::from_secs(600);
        kafka
    }

    /// Pulls until these are taken.
    async fn pull_until(tally: &Tally<false>, kafka: &KafkaConfig, taken: &[&str]) {
        let stop = CancellationToken::new();
        let pulling = tokio::spawn(pull(Pull {
            function: tally.clone(),
            burials: Burials::connect::<Tally<false>>(kafka).unwrap(),
            kafka: kafka.clone(),
            group: kafka.topic.clone(),
            limits: BatchLimits::default(),
            stop: stop.clone(),
        }));
        let began = Instant::now();
        while tally.taken() != taken {
            assert!(began.elapsed() < DEADLINE, "{:?}", tally.taken());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
        pulling.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn dead_records_that_are_passed_over_are_committed_with_the_others() {
        let kafka = kafka();
        stream::create_topics(&kafka, &[&kafka.topic])
            .await
            .unwrap();
        let producer = Producer::connect(&kafka, 1 << 20).unwrap();
        let send = async |id: &str, event_type: &str| {
            let mut event = CloudEvent::new(id, "s", event_type);
            event.stamp("2026-01-31T10:20:31Z".parse().unwrap());
            producer.send(vec![event]).await.unwrap();
        };
        // What graves write of no event is none.
        let mut graves = kafka.clone();
        graves.dead_topic = kafka.topic.clone();
        let junk = DeadRecord::new(0, 0, DecodeError::whole("junk"), Record::default());
        let graves = Graves::connect(&graves, 1 << 20).unwrap();
        graves.bury("elsewhere", &[junk]).await.unwrap();
        send("refused", "refused").await;
        send("a", "call").await;

        let tally = Tally::new();
        pull_until(&tally, &kafka, &["a"]).await;
        send("b", "call").await;
        pull_until(&tally, &kafka, &["a", "b"]).await;
    }
}
