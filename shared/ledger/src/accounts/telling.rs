//! How Valkey is told what ClickHouse knows of an account.
//!
//! [`Accounts::tell_all`], then all grants and debits in whatever order, then
//! [`Accounts::open_all`]. FLUSHALL keeps the server's run id, so that alone would not show that
//! what was told is gone again; the token of the telling does.

use model::Credits;
use redis::Value;

use super::{Accounts, reply};
use crate::connection::LedgerError;

/// That an account is being told. Whoever tells it at the same time has the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling(Vec<u8>);

/// What all events of a day cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Whose events.
    pub subject: String,
    /// The day on which ingest took them, in days since 1970.
    pub day: i64,
    /// What they cost.
    pub total: Credits,
    /// ClickHouse's clock before the total was read, in microseconds since 1970.
    pub as_of: i64,
    /// Changes nothing if it gave credits back.
    pub keep: bool,
}

impl Accounts {
    /// Begins to tell Valkey all of these accounts.
    pub async fn tell_all(&self, subjects: &[&str]) -> Result<Vec<Telling>, LedgerError> {
        let calls = subjects
            .iter()
            .map(|subject| self.command("FCALL", "om_tell", subject));
        let read = |reply| match reply {
            Value::BulkString(token) => Ok(Telling(token)),
            _ => Err(LedgerError::Unexpected("om_tell")),
        };
        self.call_all(calls, read).await
    }

    /// Says of each account that Valkey was told all of it since its telling began, and how far
    /// below zero its balance may go; `None`: without end. `false` and still unknown where Valkey
    /// lost the account meanwhile, or was made to forget it.
    pub async fn open_all(
        &self,
        accounts: &[(&str, Option<Credits>, &Telling)],
    ) -> Result<Vec<bool>, LedgerError> {
        let calls = accounts.iter().map(|(subject, limit, telling)| {
            let mut call = self.command("FCALL", "om_open", subject);
            call.arg(limit_text(*limit)).arg(&telling.0[..]);
            call
        });
        let read = |reply| reply::changed(reply, "om_open");
        self.call_all(calls, read).await
    }

    /// Changes how far below zero each account's balance may go; `None`: without end. `false`
    /// and unchanged where nothing is known of the account.
    pub async fn limit_all(
        &self,
        limits: &[(&str, Option<Credits>)],
    ) -> Result<Vec<bool>, LedgerError> {
        let calls = limits.iter().map(|(subject, limit)| {
            let mut call = self.command("FCALL", "om_limit", subject);
            call.arg(limit_text(*limit));
            call
        });
        let read = |reply| reply::changed(reply, "om_limit");
        self.call_all(calls, read).await
    }

    /// Sets what all events of each day cost, and takes no more debits of that day and earlier
    /// ones; an earlier one that was never sealed costs nothing. `false` and unchanged where a total
    /// that was read later is there, or by [`Seal::keep`]. An account that would
    /// pass [`Credits::MAX`] is its own [`LedgerError::Refused`].
    pub async fn seal_all(
        &self,
        seals: &[Seal],
    ) -> Result<Vec<Result<bool, LedgerError>>, LedgerError> {
        let calls = seals.iter().map(|seal| {
            let mut call = self.command("FCALL", "om_seal", &seal.subject);
            call.arg(seal.day).arg(seal.total.micros()).arg(seal.as_of);
            if seal.keep {
                call.arg("keep");
            }
            call
        });
        let read = |reply| reply::changed(reply, "om_seal");
        self.call_each(calls, read).await
    }

    /// Forgets all of these accounts but their holds: they are unknown, and can be told from zero.
    pub async fn forget_all(&self, subjects: &[&str]) -> Result<(), LedgerError> {
        let calls = subjects
            .iter()
            .map(|subject| self.command("FCALL", "om_forget", subject));
        self.call_all(calls, |_| Ok(())).await.map(drop)
    }

    /// Returns ClickHouse's clock, in microseconds since 1970, up to which all accounts were told
    /// what was inserted; `None` when that is lost.
    pub async fn watermark(&self) -> Result<Option<i64>, LedgerError> {
        let mut get = redis::cmd("GET");
        get.arg(self.watermark_key());
        match self.ledger.ask(&get).await? {
            Value::Nil => Ok(None),
            value => reply::integer(&value)
                .map(Some)
                .ok_or(LedgerError::Unexpected("GET")),
        }
    }

    /// Sets the watermark.
    pub async fn set_watermark(&self, at: i64) -> Result<(), LedgerError> {
        let mut set = redis::cmd("SET");
        set.arg(self.watermark_key()).arg(at);
        self.ledger.ask(&set).await.map(drop)
    }

    fn watermark_key(&self) -> String {
        format!("{}:credits-watermark", self.ledger.prefix())
    }
}

fn limit_text(limit: Option<Credits>) -> String {
    limit.map_or_else(String::new, |limit| limit.micros().to_string())
}
