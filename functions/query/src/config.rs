//! The settings of `query`, from the environment.

use std::{path::PathBuf, str::FromStr, time::Duration};

use runtime::{ConfigError, Env, Secret};
use store::{Address, Database, Password, StoreConfig};

/// What `query` is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The meter definitions' file.
    pub meters: PathBuf,
    /// Where ClickHouse is.
    pub store: StoreConfig,
}

impl Config {
    /// Reads the settings, or lists every mistake in them.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let meters = env.required("OPENMETER_METERS", "path of the meter definitions (YAML)");
        let store = store_config(env);
        env.finish(|| {
            Some(Self {
                meters: meters?,
                store: store?,
            })
        })
    }
}

fn store_config(env: &Env) -> Option<StoreConfig> {
    let default = StoreConfig::default();
    let address = parsed::<Address>(
        env,
        "OPENMETER_CLICKHOUSE_ADDRESS",
        "127.0.0.1:8123",
        "ClickHouse's HTTP interface: a URL or host:port",
    );
    let database = parsed::<Database>(
        env,
        "OPENMETER_CLICKHOUSE_DATABASE",
        default.database.as_str(),
        "ClickHouse's database",
    );
    let user = env.or(
        "OPENMETER_CLICKHOUSE_USER",
        default.user,
        "ClickHouse's user",
    );
    let password: Option<Secret> = env.optional(
        "OPENMETER_CLICKHOUSE_PASSWORD",
        "the password of ClickHouse's user",
    );
    let query_timeout: Duration = env.or(
        "OPENMETER_QUERY_TIMEOUT",
        default.query_timeout,
        "how long ClickHouse may take to answer",
    );
    Some(StoreConfig {
        address: address?,
        database: database?,
        user,
        password: Password::new(password.map_or(String::new(), |secret| secret.expose().clone())),
        query_timeout,
        ..StoreConfig::default()
    })
}

fn parsed<T>(env: &Env, name: &'static str, default: &str, about: &'static str) -> Option<T>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let text = env.or(name, default.to_owned(), about);
    text.parse()
        .inspect_err(|wrong| env.mistake(name, format!("{wrong} (got {text:?})")))
        .ok()
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
}
