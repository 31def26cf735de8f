//! What process is told by its environment.

use std::{path::PathBuf, time::Duration};

use ledger::{LedgerConfig, RegistryConfig};
use runtime::{ConfigError, Env, Secret};
use store::{Address, Database, Password, StoreConfig};
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
        let kafka = KafkaConfig::read(
            env.required(KafkaConfig::BROKER, KafkaConfig::BROKER_DESCRIPTION),
            |variable| {
                env.optional_with(
                    variable.name,
                    variable.description,
                    variable.read,
                    variable.secret,
                );
            },
        );
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
        let store = store(env);
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
        env.finish(|| {
            Some(Self {
                meters: meters?,
                kafka: kafka?,
                group,
                limits,
                store: store?,
                ledger: ledger?,
                registry: RegistryConfig { window, lag },
            })
        })
    }
}

fn store(env: &Env) -> Option<StoreConfig> {
    let parse = |text: &str| text.parse::<Address>().map_err(|error| error.to_string());
    let address = env.optional_with(
        "OPENMETER_CLICKHOUSE_ADDRESS",
        "ClickHouse, a URL or host:port (127.0.0.1:8123)",
        parse,
        false,
    );
    let parse = |text: &str| text.parse::<Database>().map_err(|error| error.to_string());
    let database = env.optional_with(
        "OPENMETER_CLICKHOUSE_DATABASE",
        "database of our tables (openmeter)",
        parse,
        false,
    );
    let user = env.or(
        "OPENMETER_CLICKHOUSE_USER",
        "default".to_owned(),
        "ClickHouse user",
    );
    let password: Option<Secret> =
        env.optional("OPENMETER_CLICKHOUSE_PASSWORD", "the user's password");
    Some(StoreConfig {
        address: address.unwrap_or_default(),
        database: database.unwrap_or_default(),
        user,
        password: password
            .map(|password| Password::new(password.expose().as_str()))
            .unwrap_or_default(),
        ..StoreConfig::default()
    })
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
