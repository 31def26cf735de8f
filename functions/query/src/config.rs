//! The settings of `query`, from the environment.

use std::path::PathBuf;

use runtime::{ConfigError, Env};
use store::StoreConfig;
use stream::KafkaConfig;

/// What `query` is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The meter definitions' file.
    pub meters: PathBuf,
    /// Where ClickHouse is.
    pub store: StoreConfig,
    /// Where the dead letters are; without it nobody can list them.
    pub kafka: Option<KafkaConfig>,
}

impl Config {
    /// Reads the settings, or lists every mistake in them.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let meters = env.required("OPENMETER_METERS", "path of the meter definitions (YAML)");
        let mut store = StoreConfig::read(|wanted| env.give(wanted));
        store.query_timeout = env.or(
            "OPENMETER_QUERY_TIMEOUT",
            store.query_timeout,
            "how long ClickHouse may take to answer",
        );
        let brokers = env.optional(KafkaConfig::BROKER, KafkaConfig::BROKER_DESCRIPTION);
        let kafka = KafkaConfig::read(brokers, |wanted| env.give(wanted));
        env.finish(|| {
            Some(Self {
                meters: meters?,
                store,
                kafka,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_native_address_is_read_as_http() {
        let env = Env::from_pairs([
            ("OPENMETER_METERS", "/etc/openmeter/meters.yaml"),
            (
                "OPENMETER_CLICKHOUSE_ADDRESS",
                "clickhouse.databases.svc:9000",
            ),
        ]);
        let config = Config::from_env(&env).unwrap();
        assert_eq!(
            config.store.address.url().as_str(),
            "http://clickhouse.databases.svc:8123/"
        );
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let env = Env::from_pairs([
            ("OPENMETER_CLICKHOUSE_ADDRESS", "ftp://x"),
            ("OPENMETER_CLICKHOUSE_DATABASE", "a-b"),
            ("OPENMETER_QUERY_TIMEOUT", "30"),
        ]);
        assert_eq!(Config::from_env(&env).unwrap_err().mistakes().len(), 4);
    }

    #[test]
    fn a_password_in_the_wrong_place_is_not_repeated() {
        let env = Env::from_pairs([("OPENMETER_CLICKHOUSE_ADDRESS", "http://bob:hunter2@ch:8123")]);
        let error = Config::from_env(&env).unwrap_err().to_string();
        assert!(error.contains("must not carry user"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
