//! Topics, created where they are absent and never altered where they are not.

use std::{collections::BTreeMap, time::Duration};

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
    let replication = config.replication.map_or(-1, i32::from);
    let names: Vec<_> = names
        .iter()
        .map(|name| (name, settings(config, name)))
        .collect();
    let topics: Vec<_> = names
        .iter()
        .map(|(name, settings)| {
            let replication = TopicReplication::Fixed(replication);
            let topic = NewTopic::new(name, config.partitions.into(), replication);
            (settings.iter()).fold(topic, |topic, (key, value)| topic.set(key, value))
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

/// Returns how the topic called `name` differs from what is Kafka's default.
fn settings<'a>(config: &'a KafkaConfig, name: &String) -> BTreeMap<&'a str, String> {
    let is_dead = [&config.dead_topic, &config.ingest_dead_topic].contains(&name);
    let max_bytes = if is_dead {
        MAX_DEAD_BYTES
    } else {
        MAX_RECORD_BYTES
    };
    let mut settings = BTreeMap::from([
        ("retention.ms", config.retention.as_millis().to_string()),
        ("max.message.bytes", max_bytes.to_string()),
    ]);
    // With Kafka's default, acks=all is the leader's disk alone while the others are away. Of two
    // replicas, neither could ever be away.
    if config
        .replication
        .is_some_and(|replication| replication >= 3)
    {
        settings.insert("min.insync.replicas", "2".to_owned());
    }
    let own = config.topic_settings.iter();
    settings.extend(own.map(|(key, value)| (key.as_str(), value.clone())));
    settings
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_confirmed_is_on_two_of_three_disks() {
        let in_sync = |replication| {
            let mut config = KafkaConfig::new(vec!["kafka:9092".to_owned()]);
            config.replication = replication;
            settings(&config, &config.topic).remove("min.insync.replicas")
        };
        assert_eq!([None, Some(1), Some(2)].map(in_sync), [None, None, None]);
        let two = Some("2".to_owned());
        assert_eq!([Some(3), Some(5)].map(in_sync), [two.clone(), two]);
    }

    #[test]
    fn a_setting_of_its_own_goes_over_ours() {
        let mut config = KafkaConfig::new(vec!["kafka:9092".to_owned()]);
        let max_bytes = |config: &KafkaConfig, name: &String| {
            settings(config, name).remove("max.message.bytes").unwrap()
        };
        assert_eq!(max_bytes(&config, &config.topic), "2097152");
        assert_eq!(max_bytes(&config, &config.dead_topic), "2162688");
        let own = ("max.message.bytes".to_owned(), "1000".to_owned());
        config.topic_settings.extend([own]);
        assert_eq!(max_bytes(&config, &config.dead_topic), "1000");
    }
}
