//! What process is told by its environment.

use std::{path::PathBuf, time::Duration};

use ledger::{LedgerConfig, RegistryConfig};
use runtime::{ConfigError, Env, Secret, Trigger};
use store::StoreConfig;
use stream::{BatchLimits, KafkaConfig};

/// The settings of process.
#[derive(Clone)]
pub struct Config {
    pub(crate) meters: PathBuf,
    pub(crate) kafka: KafkaConfig,
    pub(crate) group: String,
    pub(crate) limits: BatchLimits,
    pub(crate) store: StoreConfig,
    pub(crate) ledger: LedgerConfig,
    pub(crate) registry: RegistryConfig,
}

impl Config {
    /// Reads the environment; all mistakes come together.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let meters = env.required("OPENMETER_METERS", "file with the meter definitions");
        let brokers = env.required(KafkaConfig::BROKER, KafkaConfig::BROKER_DESCRIPTION);
        let kafka = KafkaConfig::read(brokers, |wanted| env.give(wanted));
        if Trigger::from_env(env) != Trigger::Kafka {
            // Else it would be ready, and count nothing.
            env.mistake(
                "OPENMETER_TRIGGER",
                "must be kafka: events come by pull alone so far",
            );
        }
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
                "events in one batch at most, in pull mode",
            ),
            wait: env.or(
                "OPENMETER_BATCH_WAIT",
                Duration::from_millis(100),
                "how long a batch waits for more events",
            ),
            ..defaults
        };
        let store = StoreConfig::read(|wanted| env.give(wanted));
        let ledger = ledger(env);
        let window = env.or(
            "OPENMETER_DEDUP_WINDOW",
            Duration::from_secs(24 * 3600),
            "how long after its first delivery a repeat is known",
        );
        let lag = env.or(
            "OPENMETER_DEDUP_LAG",
            Duration::from_secs(6 * 3600),
            "how far behind ingest the registry is asked; beyond, ClickHouse",
        );
        if window < Duration::from_secs(60) {
            env.mistake("OPENMETER_DEDUP_WINDOW", "must be a minute at least");
        }
        env.finish(|| {
            Some(Self {
                meters: meters?,
                kafka: kafka?,
                group,
                limits,
                store,
                ledger: ledger?,
                registry: RegistryConfig { window, lag },
            })
        })
    }
}

fn ledger(env: &Env) -> Option<LedgerConfig> {
    let url: Option<Secret> = env.required(
        "OPENMETER_VALKEY_URL",
        "Valkey, redis://[user:password@]host:port",
    );
    let prefix = env.or(
        "OPENMETER_VALKEY_PREFIX",
        "om".to_owned(),
        "what our keys in Valkey begin with",
    );
    let timeout = env.or(
        "OPENMETER_VALKEY_TIMEOUT",
        Duration::from_secs(10),
        "how long Valkey may take to answer",
    );
    Some(LedgerConfig {
        url: url?.expose().clone(),
        prefix,
        timeout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_at_once() {
        let env = Env::from_pairs([
            ("OPENMETER_CLICKHOUSE_ADDRESS", "ftp://x"),
            ("OPENMETER_DEDUP_WINDOW", "soon"),
        ]);
        let error = Config::from_env(&env).map(drop).unwrap_err();
        let names: Vec<_> = error
            .mistakes()
            .iter()
            .map(|mistake| mistake.name.as_str())
            .collect();
        for name in [
            "OPENMETER_METERS",
            "OPENMETER_KAFKA_BROKER",
            "OPENMETER_TRIGGER",
            "OPENMETER_CLICKHOUSE_ADDRESS",
            "OPENMETER_VALKEY_URL",
            "OPENMETER_DEDUP_WINDOW",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
    }
}
