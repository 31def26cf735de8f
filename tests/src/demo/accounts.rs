//! Prepaid accounts: what is granted before the traffic, and what must be left of it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::Credits;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;
use url::Url;

use super::rows::{Key, Numbers, Rows, is_same};

/// What the run's administrator shows.
pub(super) const ADMIN_TOKEN: &str = "local-admin";

/// The table of the comparison.
pub(super) const TABLE: &str = "credits left by subject";

/// The number of its rows.
pub(super) const VALUE: &str = "value";

/// What one who does not run dry is granted, in credits.
const PLENTY: &str = "10000000";
/// Of those whom `quota-rules.yaml` lets go below zero, one is granted nothing at all, and the
/// other is soon beyond its overdraft: what was used is debited even so.
const UNLIMITED: &str = "tpp-00002";
const OVERDRAWN: (&str, &str) = ("tpp-00003", "10");

/// Reconcile debits what quota left to it every minute; more than two of those.
const SETTLED_WITHIN: Duration = Duration::from_secs(150);
const PATIENCE: Duration = Duration::from_secs(60);
/// For each account that is shown ClickHouse is asked for its burn rate.
const AT_A_TIME: usize = 8;
const LOOK: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(250);

/// Grants credits and asks for balances.
pub(super) struct Accounts {
    http: reqwest::Client,
    api: String,
    granted: BTreeMap<String, Credits>,
}

impl Accounts {
    /// Returns the accounts behind the base of the API, to none of which anything was granted.
    pub(super) fn new(http: reqwest::Client, api: String) -> Self {
        Self {
            http,
            api,
            granted: BTreeMap::new(),
        }
    }

    /// Grants credits, and returns when they are there.
    pub(super) async fn grant(
        &mut self,
        subject: &str,
        amount: &str,
        key: &str,
    ) -> anyhow::Result<()> {
        let credits: Credits = amount.parse().context("read what to grant")?;
        let url = self.url(&[subject, "grants"])?;
        let grant = json!({ "amount": amount, "note": "of the demo" }).to_string();
        let began = Instant::now();
        loop {
            let request = self.http.post(url.clone()).bearer_auth(ADMIN_TOKEN);
            let request = request.header("idempotency-key", key);
            let request = request.header("content-type", "application/json");
            let answer = request.body(grant.clone()).send().await;
            let why = match answer {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) if answer.status().is_client_error() => {
                    bail!(
                        "{url} answered {}: {}",
                        answer.status(),
                        answer.text().await?
                    )
                }
                Ok(answer) => answer.status().to_string(),
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            };
            ensure!(
                began.elapsed() < PATIENCE,
                "nothing was granted for {PATIENCE:?}; the last answer: {why}"
            );
            sleep(POLL).await;
        }
        let sum = self.granted.entry(subject.to_owned()).or_default();
        *sum = sum.checked_plus(credits).context("add a grant up")?;
        Ok(())
    }

    /// Grants everyone of the traffic what it is to have.
    pub(super) async fn grant_all(
        &mut self,
        charges: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        for subject in charges.keys() {
            let amount = match subject.as_str() {
                UNLIMITED => continue,
                subject if self.granted.contains_key(subject) => continue,
                subject if subject == OVERDRAWN.0 => OVERDRAWN.1,
                _ => PLENTY,
            };
            self.grant(subject, amount, "demo").await?;
        }
        Ok(())
    }

    /// Returns what must be left: what was granted less what the oracle charges.
    pub(super) fn left(&self, charges: &BTreeMap<String, String>) -> anyhow::Result<Rows> {
        let mut rows = Rows::new();
        for (subject, charge) in charges {
            let charge: Credits = charge.parse().context("read a charge of the oracle")?;
            let granted = self.granted.get(subject).copied().unwrap_or_default();
            let left = Credits::from_micros(granted.micros() - charge.micros());
            let left = left.context("take a charge off")?;
            rows.insert(key(subject), value(left.to_string()));
        }
        Ok(rows)
    }

    /// Waits until each balance is the one that is `wanted` after reconcile has run too, and
    /// returns them as they are then, or at last.
    pub(super) async fn settled(
        &self,
        wanted: &Rows,
        seen: impl Fn(usize),
        has_reconciled: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<Rows> {
        let began = Instant::now();
        loop {
            // Before the look, so that it sees what reconcile may have done wrong.
            let is_over = has_reconciled().await?;
            let asked = wanted.keys().map(|key| async move {
                let balance = self.balance(&key.groups[0]).await?;
                anyhow::Ok(balance.map(|balance| (key.clone(), value(balance))))
            });
            let rows = stream::iter(asked).buffer_unordered(AT_A_TIME);
            let rows: Vec<_> = rows.try_collect().await?;
            let answered: Rows = rows.into_iter().flatten().collect();
            let is_equal = |(key, wanted): &(&Key, &Numbers)| {
                let answered = answered.get(*key).and_then(|row| row.get(VALUE));
                is_same(wanted.get(VALUE), answered)
            };
            let equal = wanted.iter().filter(is_equal).count();
            seen(equal);
            if (is_over && equal == wanted.len()) || began.elapsed() > SETTLED_WITHIN {
                return Ok(answered);
            }
            sleep(LOOK).await;
        }
    }

    /// Returns a balance in credits; nothing where there is no account, or none that can be
    /// looked at now.
    pub(super) async fn balance(&self, subject: &str) -> anyhow::Result<Option<String>> {
        #[derive(Deserialize)]
        struct Account {
            balance: String,
        }
        let url = self.url(&[subject])?;
        // Killed while it answers, quota is there again at the next question.
        let Ok(answer) = self.http.get(url.clone()).send().await else {
            return Ok(None);
        };
        let status = answer.status();
        if status == StatusCode::NOT_FOUND || status.is_server_error() {
            return Ok(None);
        }
        let text = answer.text().await?;
        ensure!(status.is_success(), "{url} answered {status}: {text}");
        let account: Account = serde_json::from_str(&text)
            .with_context(|| format!("read the account at {url}: {text}"))?;
        Ok(Some(account.balance))
    }

    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url: Url = format!("{}/api/v1/quota", self.api).parse()?;
        let segments = url.path_segments_mut();
        let mut segments = segments.map_err(|()| anyhow::anyhow!("the API has no paths"))?;
        segments.extend(path);
        drop(segments);
        Ok(url)
    }
}

fn key(subject: &str) -> Key {
    Key::new(TABLE, vec![subject.to_owned()])
}

fn value(text: String) -> Numbers {
    Numbers::from([(VALUE.to_owned(), text)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_was_granted_less_the_charge() {
        let mut accounts = Accounts::new(reqwest::Client::new(), String::new());
        let ten: Credits = "10".parse().unwrap();
        accounts.granted.insert("a".to_owned(), ten);
        let charges = [("a", "10.000001"), ("b", "0.5"), ("c", "0")];
        let charges = charges.map(|(subject, charge)| (subject.to_owned(), charge.to_owned()));
        let left = accounts.left(&charges.into()).unwrap();
        let left: Vec<_> = left.values().map(|row| row["value"].as_str()).collect();
        assert_eq!(left, ["-0.000001", "-0.5", "0"]);
        let too_much = BTreeMap::from([("a".to_owned(), "9007199254.740992".to_owned())]);
        assert!(accounts.left(&too_much).is_err());
    }

    #[test]
    fn a_subject_is_one_segment_of_the_path() {
        let accounts = Accounts::new(reqwest::Client::new(), "http://api:1".to_owned());
        let url = accounts.url(&["a/b?c", "grants"]).unwrap();
        assert_eq!(url.as_str(), "http://api:1/api/v1/quota/a%2Fb%3Fc/grants");
    }
}
