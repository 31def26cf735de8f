//! What the functions of `credits.lua` answer, read.

use model::Credits;
use redis::Value;

use super::{Account, Check, Debited, Outcome, Standing};
use crate::connection::LedgerError;

/// A reply with several members.
struct Reply(Vec<Value>, &'static str);

impl Reply {
    fn of(value: Value, function: &'static str) -> Result<Self, LedgerError> {
        match value {
            Value::Array(members) => Ok(Self(members, function)),
            _ => Err(LedgerError::Unexpected(function)),
        }
    }

    /// Reads a member, or says that the function never answers such.
    fn read<T>(&self, at: usize, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, LedgerError> {
        let value = self.0.get(at).and_then(read);
        value.ok_or(LedgerError::Unexpected(self.1))
    }

    fn integer(&self, at: usize) -> Result<i64, LedgerError> {
        self.read(at, integer)
    }

    fn credits(&self, at: usize) -> Result<Credits, LedgerError> {
        self.read(at, credits)
    }
}

/// A number; those that may be large are written as texts.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn credits(value: &Value) -> Option<Credits> {
    integer(value).and_then(Credits::from_micros)
}

/// Reads what may be an empty text, which stands for nothing.
fn optional<T>(read: impl FnOnce(&Value) -> Option<T>) -> impl FnOnce(&Value) -> Option<Option<T>> {
    |value| match value {
        Value::BulkString(text) if text.is_empty() => Some(None),
        value => read(value).map(Some),
    }
}

fn standing(value: &Value) -> Option<Standing> {
    let Value::BulkString(word) = value else {
        return None;
    };
    match &word[..] {
        b"ok" => Some(Standing::Ok),
        b"spent" => Some(Standing::Spent),
        b"unlimited" => Some(Standing::Unlimited),
        b"unknown" => Some(Standing::Unknown),
        _ => None,
    }
}

fn outcomes(value: &Value) -> Option<Vec<Outcome>> {
    let Value::Array(outcomes) = value else {
        return None;
    };
    let outcome = |value: &Value| match value {
        Value::Int(1) => Some(Outcome::Debited),
        Value::Int(0) => Some(Outcome::Before),
        Value::Int(-1) => Some(Outcome::Sealed),
        _ => None,
    };
    outcomes.iter().map(outcome).collect()
}

pub(super) fn check(value: Value, function: &'static str) -> Result<Check, LedgerError> {
    let reply = Reply::of(value, function)?;
    Ok(Check {
        allowed: reply.integer(0)? == 1,
        remaining: reply.credits(1)?,
        standing: reply.read(2, standing)?,
    })
}

pub(super) fn account(value: Value) -> Result<Account, LedgerError> {
    let reply = Reply::of(value, "om_account")?;
    Ok(Account {
        standing: reply.read(0, standing)?,
        balance: reply.credits(1)?,
        limit: reply.read(2, optional(credits))?,
        held: reply.credits(3)?,
        base: reply.credits(4)?,
        topups: reply.integer(5)?,
        notified: reply.integer(6)?,
        sealed: reply.read(7, optional(integer))?,
    })
}

pub(super) fn debited(value: Value) -> Result<Debited, LedgerError> {
    let reply = Reply::of(value, "om_debit")?;
    Ok(Debited {
        balance: reply.credits(0)?,
        base: reply.credits(1)?,
        topups: reply.integer(2)?,
        notified: reply.integer(3)?,
        outcomes: reply.read(4, outcomes)?,
    })
}

/// Whether something was changed: the only member, or the first one.
pub(super) fn changed(value: Value, function: &'static str) -> Result<bool, LedgerError> {
    let changed = match &value {
        Value::Array(members) => members.first().and_then(integer),
        value => integer(value),
    };
    match changed {
        Some(1) => Ok(true),
        Some(0) => Ok(false),
        _ => Err(LedgerError::Unexpected(function)),
    }
}
