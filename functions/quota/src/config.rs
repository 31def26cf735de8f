//! What quota is told by its environment.

use std::{path::PathBuf, time::Duration};

use axum::http::HeaderName;
use delivery::Delivery;
use ledger::{LedgerConfig, RegistryConfig};
use runtime::{ConfigError, Env, Secret, Setting as _, Trigger};
use store::StoreConfig;
use stream::BatchLimits;
use url::Url;

use crate::check::WhenAway;

/// The settings of quota.
#[derive(Clone)]
pub struct Config {
    /// File with the meter definitions.
    pub meters: PathBuf,
    /// File with prices and policies.
    pub rules: PathBuf,
    /// How events come.
    pub delivery: Delivery,
    /// Where grants and usage are.
    pub store: StoreConfig,
    /// Where identities and accounts are.
    pub ledger: LedgerConfig,
    /// How far back identities are known.
    pub registry: RegistryConfig,
    /// How long Valkey may take to answer a check.
    pub check_timeout: Duration,
    /// What a check says while it cannot be known.
    pub when_away: WhenAway,
    /// The header that names the subject, for Envoy.
    pub subject_header: HeaderName,
    /// Percents of used credits that are announced, in rising order.
    pub thresholds: Vec<i64>,
    /// Where they are announced; `None`: nowhere.
    pub broker: Option<Url>,
    /// What those show who grant credits and place holds; `None`: nobody may.
    pub admin_token: Option<Secret>,
}

impl Config {
    /// Reads the environment; all mistakes come together.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let meters = env.required("OPENMETER_METERS", "file with the meter definitions");
        let rules = env.required("OPENMETER_QUOTA_RULES", "file with prices and policies");
        let trigger = Trigger::from_env(env);
        let kafka = delivery::kafka(env, trigger);
        let group = env.or(
            "OPENMETER_QUOTA_KAFKA_GROUP",
            "openmeter-quota-pull".to_owned(),
            "consumer group of quota in pull mode",
        );
        let limits = BatchLimits {
            // A pull that waits for a fuller batch has a TPP overdraw meanwhile.
            wait: env.or(
                "OPENMETER_QUOTA_BATCH_WAIT",
                Duration::from_millis(20),
                "how long a batch of quota waits for more events, in pull mode",
            ),
            ..BatchLimits::default()
        };
        let in_flight = delivery::in_flight(
            env,
            "OPENMETER_QUOTA_IN_FLIGHT",
            "bytes of events pushed to quota in memory; beyond it senders get 429",
        );
        let store = StoreConfig::read(|wanted| env.give(wanted));
        let url: Option<Secret> = env.required(LedgerConfig::URL, LedgerConfig::URL_DESCRIPTION);
        let url = url.map(|url| url.expose().clone());
        let ledger = LedgerConfig::read(url, Duration::parse, |wanted| env.give(wanted));
        let registry = RegistryConfig::read(Duration::parse, |wanted| env.give(wanted));
        let check_timeout = env.or(
            "OPENMETER_QUOTA_CHECK_TIMEOUT",
            Duration::from_millis(250),
            "how long Valkey may take to answer a check",
        );
        let when_away = env.or(
            "OPENMETER_QUOTA_WHEN_AWAY",
            WhenAway::Closed,
            "what a check says while Valkey is away: open or closed",
        );
        let subject_header = env.or(
            "OPENMETER_QUOTA_SUBJECT_HEADER",
            "x-tpp-id".to_owned(),
            "header that names the subject, for Envoy's ext_authz",
        );
        let subject_header = HeaderName::try_from(subject_header)
            .map_err(|error| env.mistake("OPENMETER_QUOTA_SUBJECT_HEADER", error.to_string()));
        let thresholds = thresholds(env);
        let broker = env.optional(
            "OPENMETER_BROKER_URL",
            "broker to which threshold events go; without it none are sent",
        );
        let admin_token = env.optional(
            "OPENMETER_ADMIN_TOKEN",
            "bearer token of those who grant credits and place holds; without it nobody may",
        );
        env.finish(|| {
            Some(Self {
                meters: meters?,
                rules: rules?,
                delivery: Delivery {
                    trigger,
                    kafka,
                    group,
                    limits,
                    in_flight,
                },
                store,
                ledger: ledger?,
                registry,
                check_timeout,
                when_away,
                subject_header: subject_header.ok()?,
                thresholds,
                broker,
                admin_token,
            })
        })
    }
}

fn thresholds(env: &Env) -> Vec<i64> {
    let mut percents = env.or(
        "OPENMETER_QUOTA_THRESHOLDS",
        vec![50, 80, 100],
        "percents of used credits that are announced",
    );
    if percents.iter().any(|percent| !(1..=1000).contains(percent)) {
        env.mistake("OPENMETER_QUOTA_THRESHOLDS", "must be from 1 to 1000 each");
    }
    percents.sort_unstable();
    percents.dedup();
    percents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_at_once() {
        let env = Env::from_pairs([
            ("OPENMETER_TRIGGER", "kafka"),
            ("OPENMETER_DEDUP_WINDOW", "soon"),
            ("OPENMETER_QUOTA_IN_FLIGHT", "1MiB"),
            ("OPENMETER_QUOTA_WHEN_AWAY", "ajar"),
            ("OPENMETER_QUOTA_SUBJECT_HEADER", "X TPP"),
            ("OPENMETER_QUOTA_THRESHOLDS", "50,0"),
            ("OPENMETER_BROKER_URL", "broker"),
        ]);
        let error = Config::from_env(&env).map(drop).unwrap_err();
        let names: Vec<_> = error
            .mistakes()
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        for name in [
            "OPENMETER_METERS",
            "OPENMETER_QUOTA_RULES",
            "OPENMETER_KAFKA_BROKER",
            "OPENMETER_QUOTA_IN_FLIGHT",
            "OPENMETER_VALKEY_URL",
            "OPENMETER_DEDUP_WINDOW",
            "OPENMETER_QUOTA_WHEN_AWAY",
            "OPENMETER_QUOTA_SUBJECT_HEADER",
            "OPENMETER_QUOTA_THRESHOLDS",
            "OPENMETER_BROKER_URL",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert_eq!(names.len(), 10);
    }

    #[test]
    fn push_needs_no_kafka_and_an_account_is_closed_by_default() {
        let env = Env::from_pairs([
            ("OPENMETER_METERS", "meters.yaml"),
            ("OPENMETER_QUOTA_RULES", "quota.yaml"),
            ("OPENMETER_VALKEY_URL", "redis://a"),
            ("OPENMETER_QUOTA_THRESHOLDS", "100,50,50"),
        ]);
        let config = Config::from_env(&env).unwrap();
        assert!(config.delivery.kafka.is_none() && config.admin_token.is_none());
        assert_eq!(config.when_away, WhenAway::Closed);
        assert_eq!(config.thresholds, [50, 100]);
    }
}
