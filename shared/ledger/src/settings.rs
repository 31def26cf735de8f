//! What is read from an environment of Valkey and of the registry, once for every function.

use std::time::Duration;

use model::WantedSetting;

use crate::{LedgerConfig, RegistryConfig};

const MINUTE: Duration = Duration::from_secs(60);

impl LedgerConfig {
    /// The one variable that must be set. It may hold a password.
    pub const URL: &'static str = "OPENMETER_VALKEY_URL";
    /// What it is.
    pub const URL_DESCRIPTION: &'static str = "Valkey, redis://[user:password@]host:port";

    /// Returns the configuration that `ask` finds, or `None` without a `url`; all variables are
    /// asked for either way. `duration` reads one.
    pub fn read(
        url: Option<String>,
        duration: impl Fn(&str) -> Result<Duration, String>,
        mut ask: impl FnMut(WantedSetting<'_>),
    ) -> Option<Self> {
        let mut prefix = "om".to_owned();
        let mut timeout = Duration::from_secs(10);
        ask(WantedSetting {
            name: "OPENMETER_VALKEY_PREFIX",
            description: "what our keys in Valkey begin with (om)",
            secret: false,
            read: &mut |text| {
                prefix = text.to_owned();
                Ok(())
            },
        });
        ask(WantedSetting {
            name: "OPENMETER_VALKEY_TIMEOUT",
            description: "how long Valkey may take to answer (10s)",
            secret: false,
            read: &mut |text| duration(text).map(|read| timeout = read),
        });
        Some(Self {
            url: url?,
            prefix,
            timeout,
        })
    }
}

impl RegistryConfig {
    /// Returns the configuration that `ask` finds; what it does not find keeps its default.
    pub fn read(
        duration: impl Fn(&str) -> Result<Duration, String>,
        mut ask: impl FnMut(WantedSetting<'_>),
    ) -> Self {
        let mut config = Self {
            window: 24 * 60 * MINUTE,
            lag: 6 * 60 * MINUTE,
        };
        ask(WantedSetting {
            name: "OPENMETER_DEDUP_WINDOW",
            description: "how long after its first delivery a repeat is known (24h)",
            secret: false,
            read: &mut |text| match duration(text)? {
                short if short < MINUTE => Err("must be a minute at least".to_owned()),
                window => {
                    config.window = window;
                    Ok(())
                }
            },
        });
        ask(WantedSetting {
            name: "OPENMETER_DEDUP_LAG",
            description: "how far behind ingest the registry is asked; beyond, ClickHouse (6h)",
            secret: false,
            read: &mut |text| duration(text).map(|read| config.lag = read),
        });
        config
    }
}
