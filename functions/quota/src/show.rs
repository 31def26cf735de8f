//! One account, as people look at it: what is left, how fast it goes, and when it is gone.

use jiff::Timestamp;
use ledger::{Account, Standing};
use model::Credits;
use serde::Serialize;
use store::Subjects;

use crate::{
    books::{Books, BooksError, Told},
    check::{Checker, Status},
};

/// What the burn rate is taken over, in microseconds: the last hour.
const BURN_OVER: i64 = 3_600_000_000;

const HOUR_SECONDS: i128 = 3600;

/// An account. Amounts are decimal texts, in credits.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    subject: String,
    status: &'static str,
    /// Granted less debited.
    balance: String,
    /// Set aside by holds that have not ended.
    held: String,
    /// How far below zero the balance may go; null: without end.
    limit: Option<String>,
    /// What may still be spent; null: without end.
    remaining: Option<String>,
    /// The balance after the last top-up.
    balance_after_top_up: String,
    /// Null while ClickHouse cannot be asked.
    burn_rate: Option<BurnRate>,
}

/// How fast credits go.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BurnRate {
    /// What was used of what ingest took within the last hour.
    credits_per_hour: String,
    /// When nothing remains at that rate; null where that is never, or has been.
    empty_at: Option<Timestamp>,
}

/// Returns an account, or `None` where there is none.
pub(crate) async fn show(
    books: &Books,
    checker: &Checker,
    subject: &str,
) -> Result<Option<Shown>, BooksError> {
    let mut account = read(books, subject).await?;
    if account.is_none() {
        if checker.tell(subject).await == Some(Told::Nobody) {
            return Ok(None);
        }
        account = read(books, subject).await?;
    }
    let account = account.ok_or(BooksError::Untold)?;
    let remaining = remaining(&account);
    let burnt = match burnt(books, subject).await {
        Ok(burnt) => Some(burnt),
        Err(error) => {
            let error = anyhow::Error::from(error);
            tracing::warn!(error = format!("{error:#}"), subject, "no burn rate");
            None
        }
    };
    let status = match account.standing {
        Standing::Ok => Status::Ok,
        Standing::Spent => Status::Spent,
        Standing::Unlimited => Status::Unlimited,
        Standing::Unknown => Status::Unknown,
    };
    Ok(Some(Shown {
        subject: subject.to_owned(),
        status: status.word(),
        balance: account.balance.to_string(),
        held: account.held.to_string(),
        limit: account.limit.map(|limit| limit.to_string()),
        remaining: remaining.map(|remaining| remaining.to_string()),
        balance_after_top_up: account.base.to_string(),
        burn_rate: burnt.map(|burnt| BurnRate {
            credits_per_hour: burnt.to_string(),
            empty_at: remaining.and_then(|remaining| empty_at(remaining, burnt, Timestamp::now())),
        }),
    }))
}

async fn read(books: &Books, subject: &str) -> Result<Option<Account>, BooksError> {
    let accounts = books.accounts.accounts(&[subject]).await?;
    let account = accounts.into_iter().next();
    Ok(account.filter(|account| account.standing != Standing::Unknown))
}

/// What may still be spent; `None`: without end.
fn remaining(account: &Account) -> Option<Credits> {
    let free = account.balance.micros() - account.held.micros();
    let remaining = free.checked_add(account.limit?.micros())?;
    Credits::from_micros(remaining)
}

/// What was used of what ingest took within the last hour.
async fn burnt(books: &Books, subject: &str) -> Result<Credits, BooksError> {
    let now = books.store.clock().await?;
    let rules = books.rules();
    let subjects = [subject.to_owned()];
    let totals = books
        .totals(
            &rules.prices,
            now - BURN_OVER..i64::MAX,
            Subjects::These(&subjects),
        )
        .await?;
    let sum = totals
        .into_values()
        .try_fold(Credits::ZERO, Credits::checked_plus);
    Ok(sum.unwrap_or(Credits::MAX))
}

/// Returns when nothing remains, at so many credits an hour.
fn empty_at(remaining: Credits, per_hour: Credits, now: Timestamp) -> Option<Timestamp> {
    let (remaining, per_hour) = (
        i128::from(remaining.micros()),
        i128::from(per_hour.micros()),
    );
    if remaining <= 0 || per_hour <= 0 {
        return None;
    }
    let seconds = i64::try_from(remaining * HOUR_SECONDS / per_hour).ok()?;
    Timestamp::from_second(now.as_second().checked_add(seconds)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_empty_when_the_rate_has_used_what_remains() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (remaining, per_hour, seconds) in [
            ("10", "10", Some(3600)),
            ("5", "10", Some(1800)),
            ("1", "3", Some(1200)),
            ("0", "10", None),
            ("-1", "10", None),
            ("10", "0", None),
            ("10", "-1", None),
            // Later than any instant.
            ("9007199254", "0.000001", None),
        ] {
            let at = empty_at(remaining.parse().unwrap(), per_hour.parse().unwrap(), now);
            let expected =
                seconds.map(|seconds| Timestamp::from_second(1_000_000 + seconds).unwrap());
            assert_eq!(at, expected, "{remaining} at {per_hour} an hour");
        }
    }
}
