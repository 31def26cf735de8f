//! The settings of ingest.

use std::time::Duration;

use runtime::{ByteSize, ConfigError, Env};
use stream::KafkaConfig;

/// What ingest is told by its environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where events go.
    pub kafka: KafkaConfig,
    /// How much is taken.
    pub limits: Limits,
}

/// How many bytes are taken, how many may be in memory, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one event.
    pub event: usize,
    /// Of one request.
    pub request: usize,
    /// Of all bodies that are being read, and again of all events that are on their way
    /// to Kafka. Beyond it requests are told to come back later.
    pub in_flight: usize,
    /// How long a request's body may take, from its first byte to its last: what of it has
    /// come is in nobody else's budget.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event: 1 << 20,
            request: 10 << 20,
            in_flight: 64 << 20,
            body_time: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Reads the settings, or says everything that is wrong with them.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let brokers = env.required(KafkaConfig::BROKER, KafkaConfig::BROKER_DESCRIPTION);
        let kafka = KafkaConfig::read(brokers, |wanted| env.give(wanted));
        let in_flight = env.or(
            "OPENMETER_INGEST_IN_FLIGHT",
            ByteSize::mib(64),
            "bytes being read, and again bytes on their way to Kafka; beyond it senders get 429",
        );
        let limits = Limits {
            in_flight: in_flight.as_usize(),
            ..Limits::default()
        };
        if limits.in_flight < limits.request {
            env.mistake(
                "OPENMETER_INGEST_IN_FLIGHT",
                "must hold one request of 10MiB at least",
            );
        }
        env.finish(|| {
            Some(Self {
                kafka: kafka?,
                limits,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_all_that_must_be_set() {
        let config =
            Config::from_env(&Env::from_pairs([(KafkaConfig::BROKER, "a:1,b:2")])).unwrap();
        assert_eq!(config.kafka.brokers, ["a:1", "b:2"]);
        assert_eq!(config.kafka.topic, "openmeter.events");
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn every_mistake_is_reported_at_once_and_no_password() {
        let env = Env::from_pairs([
            ("OPENMETER_KAFKA_TOPIC", "no topic"),
            ("OPENMETER_KAFKA_PARTITIONS", "0"),
            ("OPENMETER_KAFKA_RETENTION", "long"),
            ("OPENMETER_KAFKA_SECURITY", "tls"),
            ("OPENMETER_KAFKA_SASL_PASSWORD", "hunter2"),
            ("OPENMETER_INGEST_IN_FLIGHT", "1MiB"),
        ]);
        let report = Config::from_env(&env).unwrap_err().to_string();
        for name in [
            "_BROKER",
            "_TOPIC",
            "_PARTITIONS",
            "_RETENTION",
            "_SECURITY",
            "_IN_FLIGHT",
        ] {
            assert!(report.contains(name), "{name} in {report}");
        }
        assert!(!report.contains("hunter2"));
    }

    #[test]
    fn settings_of_kafka_are_read() {
        let env = Env::from_pairs([
            (KafkaConfig::BROKER, "a:1"),
            ("OPENMETER_KAFKA_RETENTION", "3d"),
            ("OPENMETER_KAFKA_LINGER", "0ms"),
            ("OPENMETER_KAFKA_SECURITY", "SASL_SSL"),
            ("OPENMETER_KAFKA_SASL_MECHANISM", "scram-sha-512"),
            ("OPENMETER_KAFKA_SASL_PASSWORD", "hunter2"),
        ]);
        let kafka = Config::from_env(&env).unwrap().kafka;
        assert_eq!(kafka.retention, Duration::from_secs(3 * 86_400));
        assert_eq!(kafka.linger, Duration::ZERO);
        assert_eq!(
            kafka.sasl.as_ref().unwrap().mechanism.as_str(),
            "SCRAM-SHA-512"
        );
        assert!(!format!("{kafka:?}").contains("hunter2"));
    }
}
