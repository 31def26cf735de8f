//! What the operator or a test decides, once, at the start.

use std::{net::SocketAddr, str::FromStr};

use clap::{Args, ValueEnum};
use model::Decimal;

/// Which of Lago's two event stores is imitated: they differ in what is a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventStore {
    /// Unique by subscription and transaction_id; a duplicate is refused.
    Postgres,
    /// Unique by code, subscription, transaction_id and timestamp; a duplicate overwrites.
    Clickhouse,
}

/// Requests a second for each of hosted Lago's three groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// `POST /events` and `POST /events/batch`.
    pub ingestion: u32,
    /// `GET /customers/{id}/current_usage`.
    pub usage: u32,
    /// All else.
    pub other: u32,
}

impl RateLimits {
    /// What hosted Lago allows.
    pub const HOSTED: Self = Self {
        ingestion: 500,
        usage: 200,
        other: 50,
    };
}

impl FromStr for RateLimits {
    type Err = String;

    /// Reads `hosted`, or three numbers such as `500,200,50`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "hosted" {
            return Ok(Self::HOSTED);
        }
        let numbers: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[ingestion, usage, other]) => Ok(Self {
                ingestion,
                usage,
                other,
            }),
            _ => Err("it takes `hosted`, or three numbers such as 500,200,50".to_owned()),
        }
    }
}

/// Everything that can be set.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_LISTEN", default_value_t = Self::default().listen)]
    pub listen: SocketAddr,
    /// The one API key that is taken.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_API_KEY", default_value_t = Self::default().api_key)]
    pub api_key: String,
    /// What webhooks of an endpoint with signature_algo hmac are signed with.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_HMAC_KEY", default_value_t = Self::default().hmac_key)]
    pub hmac_key: String,
    /// Which of Lago's event stores is imitated.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_EVENT_STORE", value_enum, default_value_t = Self::default().event_store)]
    pub event_store: EventStore,
    /// Milliseconds until an accepted event can be read and is counted.
    #[arg(
        long,
        env = "OPENMETER_LAGO_STAND_IN_EVENTS_LAG_MS",
        default_value_t = 0
    )]
    pub events_lag_ms: u32,
    /// Most events in one batch.
    #[arg(long, env = "LAGO_EVENTS_BATCH_MAX_LENGTH", default_value_t = Self::default().batch_max)]
    pub batch_max: usize,
    /// Days between the end of a period and the end of its draft invoice.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_GRACE_DAYS", default_value_t = 0)]
    pub grace_days: u32,
    /// Percent of tax on every fee.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_TAXES_RATE", default_value_t = Decimal::ZERO)]
    pub taxes_rate: Decimal,
    /// With it the ongoing balances of wallets are refreshed every 5 minutes.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_PREMIUM")]
    pub premium: bool,
    /// Requests a second: `hosted`, or INGESTION,USAGE,OTHER; without it there is no limit.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_RATE_LIMITS")]
    pub rate_limits: Option<RateLimits>,
    /// Milliseconds that a receiver of webhooks has to answer.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_WEBHOOK_TIMEOUT_MS", default_value_t = Self::default().webhook_timeout_ms)]
    pub webhook_timeout_ms: u64,
    /// Milliseconds in a second of the waits between the attempts of a webhook.
    #[arg(long, env = "OPENMETER_LAGO_STAND_IN_WEBHOOK_SECOND_MS", default_value_t = Self::default().webhook_second_ms)]
    pub webhook_second_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            api_key: "lago-stand-in-key".to_owned(),
            hmac_key: "lago-stand-in-hmac-key".to_owned(),
            event_store: EventStore::Postgres,
            events_lag_ms: 0,
            batch_max: 100,
            grace_days: 0,
            taxes_rate: Decimal::ZERO,
            premium: false,
            rate_limits: None,
            webhook_timeout_ms: 30_000,
            webhook_second_ms: 1000,
        }
    }
}

impl Settings {
    /// The defaults for a test: a free port, and no real second between the attempts of a webhook.
    pub fn for_test() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            webhook_second_ms: 1,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limits_are_hosted_lagos_or_three_numbers() {
        let own = RateLimits {
            ingestion: 5,
            usage: 2,
            other: 1,
        };
        assert_eq!("hosted".parse(), Ok(RateLimits::HOSTED));
        assert_eq!("5,2,1".parse(), Ok(own));
        for wrong in ["", "5,2", "5,2,1,0", "many,2,1"] {
            assert!(wrong.parse::<RateLimits>().is_err(), "{wrong}");
        }
    }
}
