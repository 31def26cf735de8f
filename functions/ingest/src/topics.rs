//! The topics that ingest writes to, or that others write to in its place: there before the
//! first event is, with our partitions and not with those that a lenient broker would give them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _, Shared};
use stream::{KafkaConfig, ProduceError, Producer, TopicError};

/// How long Kafka may take to list its topics.
const LIST_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the topics are not known to be there. They may be, later.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoTopics {
    /// Kafka did not answer.
    #[error("kafka did not list its topics")]
    Unavailable(#[source] Arc<ProduceError>),
    /// It did, and they could not be created.
    #[error(transparent)]
    NotCreated(Arc<TopicError>),
    /// The attempt broke off.
    #[error("the attempt to create topics broke off")]
    Canceled,
}

type Attempt = Shared<BoxFuture<'static, Result<(), NoTopics>>>;

/// Knows whether the topics are there, and creates them where they are not.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    producer: Producer,
    kafka: Arc<KafkaConfig>,
    // The last attempt. One at a time, whoever waits for it or gave up waiting, and none any more
    // once one succeeded.
    attempt: Arc<Mutex<Option<Attempt>>>,
}

impl Topics {
    pub(crate) fn new(producer: Producer, kafka: KafkaConfig) -> Self {
        Self {
            producer,
            kafka: Arc::new(kafka),
            attempt: Arc::default(),
        }
    }

    /// Returns once the topics are there, which nearly always is at once.
    pub(crate) async fn there(&self) -> Result<(), NoTopics> {
        self.attempt().await
    }

    /// Begins to look, for whoever asks later.
    pub(crate) fn begin(&self) {
        drop(self.attempt());
    }

    fn attempt(&self) -> Attempt {
        let mut last = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(attempt) if !matches!(attempt.peek(), Some(Err(_))) => attempt.clone(),
            _ => {
                let (producer, kafka) = (self.producer.clone(), Arc::clone(&self.kafka));
                let ensured = tokio::spawn(async move { ensure(&producer, &kafka).await });
                let attempt = async { ensured.await.unwrap_or(Err(NoTopics::Canceled)) };
                last.insert(attempt.boxed().shared()).clone()
            }
        }
    }
}

/// Creates what is not there. Where all is there, the producer's own connection says so in a
/// moment; a client that could create them takes a tenth of a second to end.
async fn ensure(producer: &Producer, kafka: &KafkaConfig) -> Result<(), NoTopics> {
    let names = [&*kafka.topic, &kafka.dead_topic, &kafka.ingest_dead_topic];
    let has_all = producer.has_topics(&names, LIST_TIMEOUT).await;
    if has_all.map_err(|error| NoTopics::Unavailable(Arc::new(error)))? {
        return Ok(());
    }
    let created = stream::create_topics(kafka, &names).await;
    created.map_err(|error| NoTopics::NotCreated(Arc::new(error)))
}
