//! Thresholds: an event when a share of an account's credits is used.
//!
//! The event goes to the broker first and is remembered as announced after that. Killed in
//! between, it is sent again with the same id, which a consumer knows it by. A top-up begins anew.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ::stream::{
    CloudEvent,
    http::{self, EncodeError},
};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use ledger::{Account, Accounts, Debited, LedgerError};
use model::Credits;
use reqwest::Client;
use serde_json::json;
use url::Url;

/// The type of the events. Those that begin with `io.openmeter.` are never ingested.
const EVENT_TYPE: &str = "io.openmeter.quota.threshold";

/// The `source` of the events.
const SOURCE: &str = "/openmeter/quota";

/// How long the broker may take. A batch waits for it once.
const TIMEOUT: Duration = Duration::from_secs(2);

/// An account, as far as thresholds go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) balance: Credits,
    pub(crate) base: Credits,
    pub(crate) topups: i64,
    pub(crate) notified: i64,
}

impl From<Debited> for Level {
    fn from(debited: Debited) -> Self {
        Self {
            balance: debited.balance,
            base: debited.base,
            topups: debited.topups,
            notified: debited.notified,
        }
    }
}

impl From<&Account> for Level {
    fn from(account: &Account) -> Self {
        Self {
            balance: account.balance,
            base: account.base,
            topups: account.topups,
            notified: account.notified,
        }
    }
}

impl Level {
    /// Returns which of `percents` are used and were not announced.
    fn crossed(self, percents: &[i64]) -> Vec<i64> {
        let base = i128::from(self.base.micros());
        let used = base - i128::from(self.balance.micros());
        let is_crossed = |percent: &&i64| {
            **percent > self.notified && base > 0 && used * 100 >= base * i128::from(**percent)
        };
        percents.iter().filter(is_crossed).copied().collect()
    }
}

/// How long no batch tries a broker again that failed: [`crate::reconcile`] does.
const QUIET: Duration = Duration::from_secs(30);

/// Accounts that are announced at a time.
const AT_ONCE: usize = 16;

/// Announces thresholds. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Thresholds {
    percents: Arc<[i64]>,
    /// Where events go; `None`: nowhere.
    broker: Option<Url>,
    client: Client,
    accounts: Accounts,
    /// When the broker last failed. A cache: at worst a batch waits for it once more.
    failed: Arc<Mutex<Option<Instant>>>,
}

impl Thresholds {
    /// Announces `percents`, in rising order, to `broker`.
    pub(crate) fn new(percents: &[i64], broker: Option<Url>, accounts: Accounts) -> Self {
        Self {
            percents: percents.into(),
            broker,
            client: Client::new(),
            accounts,
            failed: Arc::default(),
        }
    }

    /// Announces what accounts crossed, unless the broker failed lately. Debits do not wait for a
    /// broker: what is not announced now is left to reconcile.
    pub(crate) async fn announce_lately_crossed(&self, levels: Vec<(String, Level)>) {
        let is_quiet = {
            let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.is_some_and(|failed| failed.elapsed() < QUIET)
        };
        if !is_quiet {
            self.announce(levels).await;
        }
    }

    /// Announces what accounts crossed, until the broker fails.
    pub(crate) async fn announce(&self, levels: Vec<(String, Level)>) {
        let Some(broker) = &self.broker else { return };
        let crossed = levels
            .into_iter()
            .filter(|(_, level)| !level.crossed(&self.percents).is_empty());
        let mut announcing = stream::iter(crossed)
            .map(async |(subject, level)| self.announce_all_of(broker, &subject, level).await)
            .buffer_unordered(AT_ONCE);
        let mut failed = None;
        while let (Some(announced), None) = (announcing.next().await, failed) {
            let Err(error) = announced else { continue };
            if matches!(error, AnnounceError::Broker(_)) {
                failed = Some(Instant::now());
            }
            metrics::counter!("openmeter_quota_thresholds_failed_total").increment(1);
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error, "a threshold is not announced yet");
        }
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    async fn announce_all_of(
        &self,
        broker: &Url,
        subject: &str,
        level: Level,
    ) -> Result<(), AnnounceError> {
        for percent in level.crossed(&self.percents) {
            self.announce_one(broker, subject, level, percent).await?;
            metrics::counter!("openmeter_quota_thresholds_total").increment(1);
        }
        Ok(())
    }

    async fn announce_one(
        &self,
        broker: &Url,
        subject: &str,
        level: Level,
        percent: i64,
    ) -> Result<(), AnnounceError> {
        let (headers, body) = http::into_request(event(subject, level, percent))?;
        let request = self.client.post(broker.clone()).timeout(TIMEOUT);
        let answer = request.headers(headers).body(body).send().await?;
        answer.error_for_status()?;
        self.accounts
            .notified(subject, level.topups, percent)
            .await?;
        Ok(())
    }
}

/// Why a threshold was not announced, or not remembered as announced.
#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error("the event cannot be encoded")]
    Encode(#[from] EncodeError),
    #[error("the broker did not take the event")]
    Broker(#[from] reqwest::Error),
    #[error("the account does not remember it")]
    Ledger(#[from] LedgerError),
}

fn event(subject: &str, level: Level, percent: i64) -> CloudEvent {
    // The same for the same crossing, however often it is sent.
    let id = format!("{subject}:{}:{percent}", level.topups);
    let data = json!({
        "subject": subject,
        "threshold": percent,
        "balance": level.balance.to_string(),
        "base": level.base.to_string(),
    });
    CloudEvent::new(id, SOURCE, EVENT_TYPE)
        .with_subject(subject)
        .with_time(Timestamp::now())
        .with_data("application/json", data.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_is_crossed_once_until_a_top_up() {
        let level = |balance: &str, base: &str, notified| Level {
            balance: balance.parse().unwrap(),
            base: base.parse().unwrap(),
            topups: 1,
            notified,
        };
        for (balance, base, notified, crossed) in [
            ("100", "100", 0, vec![]),
            ("50.000001", "100", 0, vec![]),
            ("50", "100", 0, vec![50]),
            ("20", "100", 50, vec![80]),
            ("19", "100", 80, vec![]),
            ("0", "100", 0, vec![50, 80, 100]),
            ("-900", "100", 80, vec![100]),
            // Never topped up: nothing is used of nothing.
            ("-5", "0", 0, vec![]),
            ("-5", "-3", 0, vec![]),
            ("-9007199254", "9007199254", 80, vec![100]),
        ] {
            let level = level(balance, base, notified);
            assert_eq!(
                level.crossed(&[50, 80, 100]),
                crossed,
                "{balance} of {base}"
            );
        }
    }
}
