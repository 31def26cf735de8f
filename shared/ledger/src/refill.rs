//! Fills a registry that lost its data from what the store remembers.
//!
//! Work is done inside the batch that noticed the loss, a few seconds at a time,
//! by one function at a time. Until it is done every batch asks the store, which
//! is slower and just as right.

use std::time::{Duration, Instant, SystemTime};

use model::History;
use redis::{Pipeline, Value};

use crate::{
    connection::LedgerError,
    registry::{BUCKETS, JudgeError, Registry, as_micros, micros},
};

/// How long one batch works on a refill.
const BUDGET: Duration = Duration::from_secs(5);

/// After this long a function that holds the refill is taken to be dead.
const LEASE: Duration = Duration::from_secs(60);

/// How far a refill got: the token that its buckets are marked with, and the
/// store's `stored_at` up to which rows are registered again.
struct Progress {
    token: String,
    cursor: i64,
}

impl Registry {
    /// Goes on with the refill, or begins it; returns at once if another function
    /// is at it.
    pub(crate) async fn refill<H: History>(&self, history: &H) -> Result<(), JudgeError<H::Error>> {
        let token = new_token();
        if !self.take_lease(&token).await? {
            return Ok(());
        }
        let done = self.refill_for(history, BUDGET).await;
        self.give_lease_back(&token).await?;
        done
    }

    async fn refill_for<H: History>(
        &self,
        history: &H,
        budget: Duration,
    ) -> Result<(), JudgeError<H::Error>> {
        let began = Instant::now();
        let ingested_from = micros(SystemTime::now()) - as_micros(self.kept());
        let mut progress = match self.progress().await? {
            Some(progress) => progress,
            None => self.begin().await?,
        };
        while began.elapsed() < budget {
            let page = history
                .seen_after(progress.cursor, ingested_from)
                .await
                .map_err(JudgeError::History)?;
            self.adopt(&page.rows).await?;
            let Some(next) = page.next else {
                // Rows that others write meanwhile are theirs to register: they
                // find no epoch, or another one, when they ask whether theirs stands.
                return Ok(self.finish(&progress.token).await?);
            };
            progress.cursor = next;
            self.save(&progress).await?;
        }
        Ok(())
    }

    async fn take_lease(&self, token: &str) -> Result<bool, LedgerError> {
        let mut set = redis::cmd("SET");
        set.arg(self.global_key("lease")).arg(token);
        set.arg("NX").arg("PX").arg(millis(LEASE));
        Ok(self.ledger.ask(&set).await? == Value::Okay)
    }

    async fn give_lease_back(&self, token: &str) -> Result<(), LedgerError> {
        let key = self.global_key("lease");
        let holder = self.ledger.ask(redis::cmd("GET").arg(&key)).await?;
        // Not atomic with the deletion. A lease that is lost in between costs a
        // refill that is done twice, and a refill done twice changes nothing.
        if holder == Value::BulkString(token.as_bytes().to_vec()) {
            self.ledger.ask(redis::cmd("DEL").arg(&key)).await?;
        }
        Ok(())
    }

    async fn progress(&self) -> Result<Option<Progress>, LedgerError> {
        let key = self.global_key("progress");
        let Value::BulkString(text) = self.ledger.ask(redis::cmd("GET").arg(key)).await? else {
            return Ok(None);
        };
        let read = |text: &[u8]| {
            let (token, cursor) = std::str::from_utf8(text).ok()?.split_once(' ')?;
            Some(Progress {
                token: token.to_owned(),
                cursor: cursor.parse().ok()?,
            })
        };
        Ok(read(&text))
    }

    async fn save(&self, progress: &Progress) -> Result<(), LedgerError> {
        let text = format!("{} {}", progress.token, progress.cursor);
        let mut set = redis::cmd("SET");
        set.arg(self.global_key("progress")).arg(text);
        self.ledger.ask(&set).await.map(drop)
    }

    async fn begin(&self) -> Result<Progress, LedgerError> {
        // An evicting server would lose again what it is told now.
        self.ledger.check().await?;
        let progress = Progress {
            token: new_token(),
            cursor: 0,
        };
        let mut calls = Pipeline::new();
        for bucket in 0..BUCKETS {
            calls
                .cmd("FCALL")
                .arg(self.ledger.function("om_begin_refill"))
                .arg(2)
                .arg(self.key(bucket, "refill"))
                .arg(self.key(bucket, "epoch"))
                .arg(self.kept_millis())
                .arg(&progress.token);
        }
        self.ledger.call(calls).await?;
        tracing::warn!("the identity registry is empty or incomplete: filling it from the store");
        Ok(progress)
    }

    /// Opens the buckets that lost nothing since the refill began. If one did,
    /// the next batch finds it closed and begins anew.
    async fn finish(&self, token: &str) -> Result<(), LedgerError> {
        let mut calls = Pipeline::new();
        for bucket in 0..BUCKETS {
            calls
                .cmd("FCALL")
                .arg(self.ledger.function("om_finish_refill"))
                .arg(2);
            calls
                .arg(self.key(bucket, "refill"))
                .arg(self.key(bucket, "epoch"))
                .arg(self.kept_millis())
                .arg(token);
        }
        calls.cmd("DEL").arg(self.global_key("progress"));
        let replies = self.ledger.call(calls).await?;
        let opened = replies
            .iter()
            .take(BUCKETS)
            .filter(|reply| **reply == Value::Int(1))
            .count();
        tracing::info!(opened, buckets = BUCKETS, "the identity registry is filled");
        Ok(())
    }

    fn global_key(&self, name: &str) -> String {
        format!("{}:refill:{name}", self.ledger.prefix())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Unique among functions that notice a loss at the same moment.
fn new_token() -> String {
    format!("{:x}-{:x}", micros(SystemTime::now()), std::process::id())
}
