//! Credit accounts: what each subject was granted, what its usage cost, what it may still spend.
//!
//! `credits.lua` has the contract; this calls it. Amounts are micro-credits throughout. Every
//! step may be taken again: a grant and a debit count once for each of their keys, and a hold is
//! one hold. What Valkey loses is told to it again by whoever has it (grants and usage are in
//! ClickHouse), and then the account is opened; until then [`Accounts::check`] says that it
//! knows nothing.

use std::time::Duration;

use model::Identity;
use redis::{Cmd, Pipeline, Value};

use crate::connection::{Ledger, LedgerError, is_function_missing};

/// The functions, and the contract's version that they are.
const CODE: &str = include_str!("credits.lua");
const VERSION: i64 = 1;

/// Debits in one call, so that a call does not hold Valkey up for long.
const CALL: usize = 1000;

/// Credit accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    ledger: Ledger,
}

/// What an account's credits allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Whether the call may be made.
    pub allowed: bool,
    /// What may still be spent, in micro-credits: holds are taken off, an overdraft is added.
    /// Where there is no limit, the balance without holds.
    pub remaining: i64,
    /// Why.
    pub standing: Standing,
}

/// How an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There are credits.
    Ok,
    /// There are none, or fewer than the call costs.
    Spent,
    /// They do not matter.
    Unlimited,
    /// There is no account, or Valkey was not told all of it since it started.
    Unknown,
}

/// What one event costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debit {
    /// Who it is: the registry's winner.
    pub identity: Identity,
    /// What it costs, in micro-credits; less than zero gives credits back.
    pub amount: i64,
    /// The hold that it ends, if it names one.
    pub hold: Option<String>,
}

/// What became of one debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken off.
    Debited,
    /// It had been before.
    Before,
    /// Its day is sealed: [`Accounts::seal`] sets the day's total, this event in it.
    Sealed,
}

/// An account after debits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debited {
    /// Credits that were granted less what was debited, in micro-credits.
    pub balance: i64,
    /// The balance after the last top-up: what thresholds are percents of.
    pub base: i64,
    /// How often it was topped up.
    pub topups: i64,
    /// The highest threshold announced since, in percent of `base`.
    pub notified: i64,
    /// One outcome for each debit, in order.
    pub outcomes: Vec<Outcome>,
}

impl Accounts {
    /// Returns the accounts that live in `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    /// Loads the functions, unless these or newer ones are there: during a rollout the newer ones
    /// stay, which know all that the older ones do.
    pub async fn prepare(&self) -> Result<(), LedgerError> {
        let mut version = redis::cmd("FCALL_RO");
        version.arg("om_version").arg(0);
        let loaded = match self.ledger.ask(&version).await {
            Err(LedgerError::Refused(error)) if is_function_missing(&error) => None,
            answer => Some(answer?),
        };
        match loaded {
            Some(Value::Int(version)) if version >= VERSION => Ok(()),
            _ => self.ledger.load(CODE).await,
        }
    }

    /// Returns whether `subject` may make a call that costs `cost`; 0 if that is not known.
    pub async fn check(&self, subject: &str, cost: i64) -> Result<Check, LedgerError> {
        let mut call = self.command("FCALL_RO", "om_check", subject);
        call.arg(cost);
        read_check(self.call(call).await?, "om_check")
    }

    /// Returns what [`Self::check`] says of each subject, in one round trip.
    pub async fn check_all(&self, subjects: &[&str]) -> Result<Vec<Check>, LedgerError> {
        let mut calls = Pipeline::new();
        for subject in subjects {
            calls.add_command(self.command("FCALL_RO", "om_check", subject));
        }
        let replies = self.call_all(&calls).await?;
        let read = |reply| read_check(reply, "om_check");
        replies.into_iter().map(read).collect()
    }

    /// Takes off what events of one day cost, each once. `day` is that on which ingest took the
    /// winner, in days since 1970.
    ///
    /// Killed in between, some may be taken off and others not; the same debits again complete it.
    pub async fn debit(
        &self,
        subject: &str,
        day: i64,
        debits: &[Debit],
    ) -> Result<Debited, LedgerError> {
        let mut calls = Pipeline::new();
        // At least one call: without debits it tells how the account stands.
        for some in debits
            .chunks(CALL)
            .chain(debits.is_empty().then_some(&[][..]))
        {
            let mut call = self.command("FCALL", "om_debit", subject);
            call.arg(day);
            for debit in some {
                call.arg(&debit.identity.0[..])
                    .arg(debit.amount)
                    .arg(debit.hold.as_deref().unwrap_or_default());
            }
            calls.add_command(call);
        }
        let mut outcomes = Vec::with_capacity(debits.len());
        let mut last = None;
        for reply in self.call_all(&calls).await? {
            let mut debited = read_debited(reply)?;
            outcomes.append(&mut debited.outcomes);
            last = Some(debited);
        }
        match last {
            Some(last) if outcomes.len() == debits.len() => Ok(Debited { outcomes, ..last }),
            _ => Err(LedgerError::Unexpected("om_debit")),
        }
    }

    /// Adds credits once for each `grant`, an idempotency key, and returns whether it was the first
    /// time; [`LedgerError::Conflict`] when `grant` was used with another amount.
    pub async fn credit(
        &self,
        subject: &str,
        grant: &str,
        amount: i64,
    ) -> Result<bool, LedgerError> {
        let mut call = self.command("FCALL", "om_credit", subject);
        call.arg(grant).arg(amount);
        let reply = Reply::of(self.call(call).await?, "om_credit")?;
        Ok(reply.integer(0)? == 1)
    }

    /// Sets `amount` aside until an event that names `hold` is debited, or `ends` is over. Held
    /// already, it is held once.
    pub async fn hold(
        &self,
        subject: &str,
        hold: &str,
        amount: i64,
        ends: Duration,
    ) -> Result<Check, LedgerError> {
        let mut call = self.command("FCALL", "om_hold", subject);
        let millis = i64::try_from(ends.as_millis()).unwrap_or(i64::MAX);
        call.arg("place").arg(hold).arg(amount).arg(millis);
        read_check(self.call(call).await?, "om_hold")
    }

    /// Ends a hold, if there is one.
    pub async fn cancel_hold(&self, subject: &str, hold: &str) -> Result<Check, LedgerError> {
        let mut call = self.command("FCALL", "om_hold", subject);
        call.arg("cancel").arg(hold);
        read_check(self.call(call).await?, "om_hold")
    }

    /// Says that Valkey was told all grants and debits of this account, and how far below zero its
    /// balance may go; `None`: without end.
    pub async fn open(&self, subject: &str, limit: Option<i64>) -> Result<i64, LedgerError> {
        let mut call = self.command("FCALL", "om_open", subject);
        call.arg(limit.map(|limit| limit.to_string()).unwrap_or_default());
        let reply = self.call(call).await?;
        read_amount(&reply).ok_or(LedgerError::Unexpected("om_open"))
    }

    /// Sets what all events of `day` cost, and takes no more debits of that day.
    pub async fn seal(&self, subject: &str, day: i64, total: i64) -> Result<i64, LedgerError> {
        let mut call = self.command("FCALL", "om_seal", subject);
        call.arg(day).arg(total);
        let reply = self.call(call).await?;
        read_amount(&reply).ok_or(LedgerError::Unexpected("om_seal"))
    }

    /// Remembers that a threshold was announced, unless the account was topped up meanwhile.
    pub async fn notified(
        &self,
        subject: &str,
        topups: i64,
        percent: i64,
    ) -> Result<bool, LedgerError> {
        let mut call = self.command("FCALL", "om_notified", subject);
        call.arg(topups).arg(percent);
        Ok(self.call(call).await? == Value::Int(1))
    }

    fn command(&self, command: &str, function: &str, subject: &str) -> Cmd {
        let mut call = redis::cmd(command);
        call.arg(function).arg(1).arg(self.key(subject));
        call
    }

    /// The tag is the whole subject, for which it may hold no brace.
    fn key(&self, subject: &str) -> String {
        let subject = subject
            .replace('%', "%25")
            .replace('{', "%7B")
            .replace('}', "%7D");
        format!("{}:credits:{{{subject}}}", self.ledger.prefix())
    }

    async fn call(&self, call: Cmd) -> Result<Value, LedgerError> {
        let mut calls = Pipeline::new();
        calls.add_command(call);
        let mut replies = self.call_all(&calls).await?;
        replies.pop().ok_or(LedgerError::Unexpected("a call"))
    }

    async fn call_all(&self, calls: &Pipeline) -> Result<Vec<Value>, LedgerError> {
        let load = async || self.prepare().await;
        self.ledger.call_loaded(calls, load).await
    }
}

/// A reply with several members.
struct Reply(Vec<Value>, &'static str);

impl Reply {
    fn of(value: Value, function: &'static str) -> Result<Self, LedgerError> {
        match value {
            Value::Array(members) => Ok(Self(members, function)),
            _ => Err(LedgerError::Unexpected(function)),
        }
    }

    fn integer(&self, at: usize) -> Result<i64, LedgerError> {
        let number = self.0.get(at).and_then(read_amount);
        number.ok_or(LedgerError::Unexpected(self.1))
    }
}

/// A number, which amounts are written as texts for.
fn read_amount(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn read_check(value: Value, function: &'static str) -> Result<Check, LedgerError> {
    let reply = Reply::of(value, function)?;
    let standing = match reply.0.get(2) {
        Some(Value::BulkString(word)) => standing(word),
        _ => None,
    };
    Ok(Check {
        allowed: reply.integer(0)? == 1,
        remaining: reply.integer(1)?,
        standing: standing.ok_or(LedgerError::Unexpected(function))?,
    })
}

fn standing(word: &[u8]) -> Option<Standing> {
    match word {
        b"ok" => Some(Standing::Ok),
        b"spent" => Some(Standing::Spent),
        b"unlimited" => Some(Standing::Unlimited),
        b"unknown" => Some(Standing::Unknown),
        _ => None,
    }
}

fn read_debited(value: Value) -> Result<Debited, LedgerError> {
    let reply = Reply::of(value, "om_debit")?;
    let outcomes = match reply.0.get(4) {
        Some(Value::Array(outcomes)) => outcomes.iter().map(outcome).collect(),
        _ => None,
    };
    Ok(Debited {
        balance: reply.integer(0)?,
        base: reply.integer(1)?,
        topups: reply.integer(2)?,
        notified: reply.integer(3)?,
        outcomes: outcomes.ok_or(LedgerError::Unexpected("om_debit"))?,
    })
}

fn outcome(value: &Value) -> Option<Outcome> {
    match value {
        Value::Int(1) => Some(Outcome::Debited),
        Value::Int(0) => Some(Outcome::Before),
        Value::Int(-1) => Some(Outcome::Sealed),
        _ => None,
    }
}
