//! Topics, created where they are absent and never altered where they are not.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::runtime::Handle;

use crate::{
    KafkaConfig, KafkaFault,
    client::{self, MAX_DEAD_BYTES, MAX_RECORD_BYTES},
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a topic is not there.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// Kafka did not answer; it may, later.
    #[error("kafka did not answer")]
    Unavailable(#[source] KafkaFault),
    /// Kafka refused to create it.
    #[error("kafka refused to create topic {topic}: {reason}")]
    Refused {
        /// Which topic.
        topic: String,
        /// Kafka's word for why.
        reason: String,
    },
}

impl TopicError {
    /// Returns whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        // A refusal too is often one for a while: too few brokers yet for the replicas.
        true
    }
}

/// Creates the topics called `names` where they are absent. Those that `config` has for the dead
/// take larger records than the others.
///
/// It has a thread of its own, as a client that ends blocks the one that it is on. Begun, it
/// ends within seconds, also when nobody waits for it any more.
pub async fn create_topics(config: &KafkaConfig, names: &[&str]) -> Result<(), TopicError> {
    let config = config.clone();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let runtime = Handle::current();
    let create = move || runtime.block_on(create(&config, &names));
    let created = tokio::task::spawn_blocking(create).await;
    created.unwrap_or_else(|_| Err(TopicError::Unavailable(KafkaFault(KafkaError::Canceled))))
}

async fn create(config: &KafkaConfig, names: &[String]) -> Result<(), TopicError> {
    let unavailable = |error| TopicError::Unavailable(KafkaFault(error));
    let admin: AdminClient<DefaultClientContext> =
        client::settings(config).create().map_err(unavailable)?;
    let retention = config.retention.as_millis().to_string();
    let (max_bytes, max_dead_bytes) = (MAX_RECORD_BYTES.to_string(), MAX_DEAD_BYTES.to_string());
    let replication = config.replication.map_or(-1, i32::from);
    let topics: Vec<_> = names
        .iter()
        .map(|name| {
            let max_bytes = if [&config.dead_topic, &config.ingest_dead_topic].contains(&name) {
                &max_dead_bytes
            } else {
                &max_bytes
            };
            NewTopic::new(
                name,
                config.partitions.into(),
                TopicReplication::Fixed(replication),
            )
            .set("retention.ms", &retention)
            .set("max.message.bytes", max_bytes)
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT));
    let results = admin
        .create_topics(&topics, &options)
        .await
        .map_err(unavailable)?;
    for result in results {
        match result {
            Ok(topic) => tracing::info!(topic, "topic created"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) if is_forbidden(code) => check_exists(&admin, topic, code)?,
            Err((_, code)) if is_transient(code) => {
                return Err(unavailable(KafkaError::AdminOp(code)));
            }
            Err((topic, code)) => return Err(refused(topic, code)),
        }
    }
    Ok(())
}

fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

fn is_transient(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::NotController
    )
}

fn refused(topic: String, code: RDKafkaErrorCode) -> TopicError {
    TopicError::Refused {
        topic,
        reason: code.to_string(),
    }
}

/// Whoever may not create topics may still find that somebody did. All topics are listed: asking
/// for one by name would have a lenient broker create it, with its defaults.
fn check_exists(
    admin: &AdminClient<DefaultClientContext>,
    topic: String,
    code: RDKafkaErrorCode,
) -> Result<(), TopicError> {
    let metadata = admin
        .inner()
        .fetch_metadata(None, TIMEOUT)
        .map_err(|error| TopicError::Unavailable(KafkaFault(error)))?;
    if metadata.topics().iter().any(|known| known.name() == topic) {
        return Ok(());
    }
    Err(refused(topic, code))
}
