//! Credit accounts: what each subject was granted, what its usage cost, what it may still spend.
//!
//! `credits.lua` has the contract; this calls it. Every step may be taken again: a grant and a
//! debit count once for each of their keys, and a hold is one hold. What Valkey loses is told to it
//! again by whoever has it (grants and usage are in ClickHouse), and then the account is opened;
//! until then [`Accounts::check`] says that it knows nothing.
//!
//! What takes many accounts takes one round trip for them, more only for very many, and what is
//! refused of one does not hold up the others.

mod reply;
mod telling;

use std::time::Duration;

use model::{Credits, Identity};
use redis::{Cmd, Pipeline, Value};

use crate::connection::{Ledger, LedgerError};
pub use telling::{Seal, Telling};

/// The functions, and the version that they are.
const CODE: &str = include_str!("credits.lua");
const VERSION: i64 = 2;

/// Debits in one call, so that a call does not hold Valkey up for long.
const CALL: usize = 1000;

/// Arguments in one round trip, about: 100,000 debits. What an account is told after a loss may be
/// many times that, and would not be answered in time at once.
const ROUND_TRIP: usize = 300_000;

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
    /// What may still be spent, at most [`Credits::MAX`]: holds are taken off, an overdraft is
    /// added. Where there is no limit, the balance less holds.
    pub remaining: Credits,
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
    /// What it costs; less than zero gives credits back.
    pub amount: Credits,
    /// The hold that it ends, if it names one; also where it was debited before.
    pub hold: Option<String>,
}

/// What the events of one subject cost that ingest took on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayDebits {
    /// Whose events.
    pub subject: String,
    /// The day on which ingest took the winners, in days since 1970.
    pub day: i64,
    /// What each costs.
    pub debits: Vec<Debit>,
}

/// What became of one debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken off.
    Debited,
    /// It had been before.
    Before,
    /// Its day is sealed: [`Accounts::seal_all`] sets the day's total, this event in it.
    Sealed,
}

/// An account after debits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debited {
    /// Credits that were granted less what was debited.
    pub balance: Credits,
    /// The balance after the last top-up: what thresholds are percents of.
    pub base: Credits,
    /// How often it was topped up.
    pub topups: i64,
    /// The highest threshold announced since, in percent of `base`.
    pub notified: i64,
    /// One outcome for each debit, in order.
    pub outcomes: Vec<Outcome>,
}

/// What an account says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// How it stands. [`Standing::Unknown`]: the other fields are not all there is.
    pub standing: Standing,
    /// Credits that were granted less what was debited; holds are not taken off.
    pub balance: Credits,
    /// How far below zero the balance may go; `None`: without end.
    pub limit: Option<Credits>,
    /// What is set aside by holds.
    pub held: Credits,
    /// The balance after the last top-up: what thresholds are percents of.
    pub base: Credits,
    /// How often it was topped up.
    pub topups: i64,
    /// The highest threshold announced since, in percent of `base`.
    pub notified: i64,
    /// The last sealed day, in days since 1970.
    pub sealed: Option<i64>,
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
        let version = self
            .call(version, |reply| match reply {
                Value::Int(version) => Ok(version),
                _ => Err(LedgerError::Unexpected("om_version")),
            })
            .await?;
        if version < VERSION {
            self.ledger.load(CODE).await?;
        }
        Ok(())
    }

    /// Returns whether `subject` may make a call that costs `cost`, which is not below zero; 0 if
    /// that is not known.
    pub async fn check(&self, subject: &str, cost: Credits) -> Result<Check, LedgerError> {
        let call = self.check_command(subject, cost);
        self.call(call, read_check).await
    }

    /// Returns what [`Self::check`] says of each subject and cost.
    pub async fn check_all(&self, wanted: &[(&str, Credits)]) -> Result<Vec<Check>, LedgerError> {
        let calls = wanted
            .iter()
            .map(|(subject, cost)| self.check_command(subject, *cost));
        self.call_all(calls, read_check).await
    }

    /// Returns what each account says of itself.
    pub async fn accounts(&self, subjects: &[&str]) -> Result<Vec<Account>, LedgerError> {
        let calls = subjects
            .iter()
            .map(|subject| self.command("FCALL_RO", "om_account", subject));
        self.call_all(calls, reply::account).await
    }

    /// Takes off what events cost, each once. An account that would pass [`Credits::MAX`] is its own
    /// [`LedgerError::Refused`]; the others are debited.
    ///
    /// Killed in between, or where an account is refused, some may be taken off and others not; the
    /// same debits again complete it. Without debits it tells how an account stands.
    pub async fn debit_all(
        &self,
        debits: &[DayDebits],
    ) -> Result<Vec<Result<Debited, LedgerError>>, LedgerError> {
        let calls = debits.iter().flat_map(|day| self.debit_commands(day));
        let replies = self.call_each(calls, reply::debited).await?;
        let mut replies = replies.into_iter();
        let join = |day: &DayDebits| {
            let own: Vec<_> = replies.by_ref().take(calls_of(day)).collect();
            join_debited(own, day.debits.len())
        };
        Ok(debits.iter().map(join).collect())
    }

    /// Adds credits once for each `grant`, an idempotency key, and returns whether it was the first
    /// time; [`LedgerError::Conflict`] when `grant` was used with another amount.
    pub async fn credit(
        &self,
        subject: &str,
        grant: &str,
        amount: Credits,
    ) -> Result<bool, LedgerError> {
        let call = self.credit_command(subject, grant, amount);
        self.call(call, read_credited).await
    }

    /// Does what [`Self::credit`] does with each subject, grant and amount.
    pub async fn credit_all(
        &self,
        grants: &[(&str, &str, Credits)],
    ) -> Result<Vec<Result<bool, LedgerError>>, LedgerError> {
        let calls = grants
            .iter()
            .map(|(subject, grant, amount)| self.credit_command(subject, grant, *amount));
        self.call_each(calls, read_credited).await
    }

    /// Reserves an idempotency key for a grant that is about to be kept, for ten minutes; `false`
    /// where it is reserved for another amount.
    pub async fn reserve_grant(
        &self,
        subject: &str,
        grant: &str,
        amount: Credits,
    ) -> Result<bool, LedgerError> {
        let amount = amount.micros().to_string();
        let mut set = redis::cmd("SET");
        set.arg(format!("{}:reserved:{grant}", self.key(subject)));
        set.arg(&amount).arg("NX").arg("GET").arg("PX").arg(600_000);
        match self.ledger.ask(&set).await? {
            Value::Nil => Ok(true),
            before => Ok(before == Value::BulkString(amount.into_bytes())),
        }
    }

    /// Sets `amount`, which is not below zero, aside until an event that names `hold` is debited, or
    /// `ends` is over. Held already, it is held once. A name is for one hold: another one under the
    /// same name ends when the event of the first is delivered again.
    pub async fn hold(
        &self,
        subject: &str,
        hold: &str,
        amount: Credits,
        ends: Duration,
    ) -> Result<Check, LedgerError> {
        let mut call = self.command("FCALL", "om_hold", subject);
        let millis = i64::try_from(ends.as_millis()).unwrap_or(i64::MAX);
        call.arg("place").arg(hold).arg(amount.micros()).arg(millis);
        self.call(call, |reply| reply::check(reply, "om_hold"))
            .await
    }

    /// Ends a hold, if there is one.
    pub async fn cancel_hold(&self, subject: &str, hold: &str) -> Result<Check, LedgerError> {
        let mut call = self.command("FCALL", "om_hold", subject);
        call.arg("cancel").arg(hold);
        self.call(call, |reply| reply::check(reply, "om_hold"))
            .await
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
        self.call(call, |reply| reply::changed(reply, "om_notified"))
            .await
    }

    fn check_command(&self, subject: &str, cost: Credits) -> Cmd {
        let mut call = self.command("FCALL_RO", "om_check", subject);
        call.arg(cost.micros());
        call
    }

    fn credit_command(&self, subject: &str, grant: &str, amount: Credits) -> Cmd {
        let mut call = self.command("FCALL", "om_credit", subject);
        call.arg(grant).arg(amount.micros());
        call
    }

    /// [`calls_of`] calls.
    fn debit_commands(&self, day: &DayDebits) -> impl Iterator<Item = Cmd> {
        let without = day.debits.is_empty().then_some(&[][..]);
        let parts = day.debits.chunks(CALL).chain(without);
        parts.map(|some| {
            let mut call = self.command("FCALL", "om_debit", &day.subject);
            call.arg(day.day);
            for debit in some {
                call.arg(&debit.identity.0[..])
                    .arg(debit.amount.micros())
                    .arg(debit.hold.as_deref().unwrap_or_default());
            }
            call
        })
    }

    fn command(&self, call: &str, function: &str, subject: &str) -> Cmd {
        let mut command = redis::cmd(call);
        command.arg(function).arg(1).arg(self.key(subject));
        command
    }

    /// The tag is the whole subject, for which it may hold no brace.
    fn key(&self, subject: &str) -> String {
        let subject = subject
            .replace('%', "%25")
            .replace('{', "%7B")
            .replace('}', "%7D");
        format!("{}:credits:{{{subject}}}", self.ledger.prefix())
    }

    async fn call<T>(
        &self,
        call: Cmd,
        read: impl FnMut(Value) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut answers = self.call_all([call], read).await?;
        answers.pop().ok_or(LedgerError::Unexpected("a call"))
    }

    /// One answer for each call; what is refused of one is an error.
    async fn call_all<T>(
        &self,
        calls: impl IntoIterator<Item = Cmd>,
        read: impl FnMut(Value) -> Result<T, LedgerError>,
    ) -> Result<Vec<T>, LedgerError> {
        self.call_each(calls, read).await?.into_iter().collect()
    }

    async fn call_each<T>(
        &self,
        calls: impl IntoIterator<Item = Cmd>,
        mut read: impl FnMut(Value) -> Result<T, LedgerError>,
    ) -> Result<Vec<Result<T, LedgerError>>, LedgerError> {
        let mut pipelines = vec![Pipeline::new()];
        let mut arguments = 0;
        for call in calls {
            arguments += call.args_iter().count();
            if let Some(last) = pipelines.last_mut() {
                last.add_command(call);
            }
            if arguments >= ROUND_TRIP {
                pipelines.push(Pipeline::new());
                arguments = 0;
            }
        }
        let mut answers = Vec::new();
        for pipeline in pipelines {
            let replies = self.ledger.call_each(pipeline, CODE).await?;
            answers.extend(replies.into_iter().map(|reply| reply.and_then(&mut read)));
        }
        Ok(answers)
    }
}

fn read_check(reply: Value) -> Result<Check, LedgerError> {
    reply::check(reply, "om_check")
}

fn read_credited(reply: Value) -> Result<bool, LedgerError> {
    reply::changed(reply, "om_credit")
}

/// At least one: without debits it tells how the account stands.
fn calls_of(day: &DayDebits) -> usize {
    day.debits.len().div_ceil(CALL).max(1)
}

/// What the calls for one day's debits come to: the last one's account, all outcomes.
fn join_debited(
    parts: Vec<Result<Debited, LedgerError>>,
    debits: usize,
) -> Result<Debited, LedgerError> {
    let mut outcomes = Vec::with_capacity(debits);
    let mut last = None;
    for part in parts {
        let mut part = part?;
        outcomes.append(&mut part.outcomes);
        last = Some(part);
    }
    match last {
        Some(last) if outcomes.len() == debits => Ok(Debited { outcomes, ..last }),
        _ => Err(LedgerError::Unexpected("om_debit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_has_the_version_that_is_asked_for() {
        assert!(CODE.contains(&format!("local VERSION = {VERSION}\n")));
    }
}
