//! What process is told by its environment.

use std::{path::PathBuf, time::Duration};

use ledger::{LedgerConfig, RegistryConfig};
use runtime::{ConfigError, Env, Secret, Setting as _, Trigger};
use store::StoreConfig;
use stream::{BatchLimits, KafkaConfig};

/// The settings of process.
#[derive(Clone)]
pub struct Config {
    /// File with the meter definitions.
    pub meters: PathBuf,
    /// Whether events are pushed to us, or pulled by us.
    pub trigger: Trigger,
    /// Where we read records, or bury those that Lambda reads for us; `None` where a KafkaSource
    /// does both.
    pub kafka: Option<KafkaConfig>,
    /// Consumer group in pull mode.
    pub group: String,
    /// When a batch is full.
    pub limits: BatchLimits,
    /// Bytes of pushed events that may be in memory.
    pub in_flight: usize,
    /// Where rows go.
    pub store: StoreConfig,
    /// Where identities are registered.
    pub ledger: LedgerConfig,
    /// How far back they are known.
    pub registry: RegistryConfig,
}

impl Config {
    /// Reads the environment; all mistakes come together.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let meters = env.required("OPENMETER_METERS", "file with the meter definitions");
        let trigger = Trigger::from_env(env);
        let kafka = delivery::kafka(env, trigger);
        let group = env.or(
            "OPENMETER_KAFKA_GROUP",
            "openmeter-process-pull".to_owned(),
            "consumer group in pull mode",
        );
        let defaults = BatchLimits::default();
        let limits = BatchLimits {
            records: env.or(
                "OPENMETER_BATCH_EVENTS",
                defaults.records,
                "events in one batch at most",
            ),
            wait: env.or(
                "OPENMETER_BATCH_WAIT",
                Duration::from_millis(100),
                "how long a batch waits for more events, in pull mode",
            ),
            ..defaults
        };
        let in_flight = delivery::in_flight(
            env,
            "OPENMETER_PROCESS_IN_FLIGHT",
            "bytes of pushed events in memory; beyond it senders get 429",
        );
        let store = StoreConfig::read(|wanted| env.give(wanted));
        let url: Option<Secret> = env.required(LedgerConfig::URL, LedgerConfig::URL_DESCRIPTION);
        let url = url.map(|url| url.expose().clone());
        let ledger = LedgerConfig::read(url, Duration::parse, |wanted| env.give(wanted));
        let registry = RegistryConfig::read(Duration::parse, |wanted| env.give(wanted));
        env.finish(|| {
            Some(Self {
                meters: meters?,
                trigger,
                kafka,
                group,
                limits,
                in_flight,
                store,
                ledger: ledger?,
                registry,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(env: &[(&'static str, &'static str)]) -> Vec<String> {
        let env = Env::from_pairs(env.iter().copied());
        let error = Config::from_env(&env).map(drop).unwrap_err();
        let mistakes = error.mistakes().iter();
        mistakes.map(|mistake| mistake.name.clone()).collect()
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let wrong = [
            ("OPENMETER_TRIGGER", "kafka"),
            ("OPENMETER_CLICKHOUSE_ADDRESS", "ftp://x"),
            ("OPENMETER_DEDUP_WINDOW", "soon"),
            ("OPENMETER_PROCESS_IN_FLIGHT", "1MiB"),
        ];
        let expected = [
            "OPENMETER_METERS",
            "OPENMETER_KAFKA_BROKER",
            "OPENMETER_PROCESS_IN_FLIGHT",
            "OPENMETER_CLICKHOUSE_ADDRESS",
            "OPENMETER_VALKEY_URL",
            "OPENMETER_DEDUP_WINDOW",
        ];
        assert_eq!(mistakes(&wrong), expected);
    }

    #[test]
    fn push_needs_no_kafka() {
        assert_eq!(mistakes(&[]), ["OPENMETER_METERS", "OPENMETER_VALKEY_URL"]);
        let needed = [
            ("OPENMETER_METERS", "meters.yaml"),
            ("OPENMETER_VALKEY_URL", "redis://a"),
        ];
        let config = Config::from_env(&Env::from_pairs(needed)).unwrap();
        assert!(config.kafka.is_none() && config.trigger == Trigger::Http);
    }
}
