//! What the tests of credit accounts share: one account at a time, in micro-credits.

use std::time::Duration;

use ledger::{
    Account, Accounts, Check, DayDebits, Debit, Debited, Ledger, LedgerConfig, LedgerError, Seal,
};
use model::{Credits, Identity};

use super::{now, url};

pub(crate) const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn micros(amount: i64) -> Credits {
    Credits::from_micros(amount).unwrap()
}

/// Accounts at `url`, whose keys begin with `prefix`.
pub(crate) fn accounts_at(url: &str, prefix: &str) -> Accounts {
    let config = LedgerConfig {
        url: url.to_owned(),
        prefix: prefix.to_owned(),
        timeout: Duration::from_secs(5),
    };
    Accounts::new(Ledger::new(&config).unwrap())
}

/// Accounts of their own on the shared Valkey, and what their keys begin with.
pub(crate) async fn accounts(test: &str) -> (Accounts, String) {
    let prefix = format!("test:{test}:{}:{:x}", std::process::id(), now());
    let accounts = accounts_at(&url(), &prefix);
    accounts
        .prepare()
        .await
        .expect("a Valkey must run: make up");
    (accounts, format!("{prefix}:"))
}

pub(crate) fn debit(id: &str, amount: i64) -> Debit {
    Debit {
        identity: Identity::of("gateway", id),
        amount: micros(amount),
        hold: None,
    }
}

pub(crate) fn day_debits(subject: &str, day: i64, debits: &[Debit]) -> DayDebits {
    DayDebits {
        subject: subject.to_owned(),
        day,
        debits: debits.to_vec(),
    }
}

pub(crate) async fn take(
    accounts: &Accounts,
    subject: &str,
    day: i64,
    debits: &[Debit],
) -> Result<Debited, LedgerError> {
    let days = [day_debits(subject, day, debits)];
    let mut debited = accounts.debit_all(&days).await.unwrap();
    debited.pop().unwrap()
}

pub(crate) async fn credit(accounts: &Accounts, subject: &str, grant: &str, amount: i64) -> bool {
    let credited = accounts.credit(subject, grant, micros(amount)).await;
    credited.unwrap()
}

pub(crate) async fn seal(
    accounts: &Accounts,
    subject: &str,
    day: i64,
    total: i64,
    as_of: i64,
    keep: bool,
) -> bool {
    let seal = Seal {
        subject: subject.to_owned(),
        day,
        total: micros(total),
        as_of,
        keep,
    };
    let mut sealed = accounts.seal_all(&[seal]).await.unwrap();
    sealed.pop().unwrap().unwrap()
}

/// Opens an account of which everything was told.
pub(crate) async fn open(accounts: &Accounts, subject: &str, limit: Option<i64>) {
    let telling = accounts.tell_all(&[subject]).await.unwrap();
    let opened = accounts
        .open_all(&[(subject, limit.map(micros), &telling[0])])
        .await;
    assert_eq!(opened.unwrap(), [true]);
}

pub(crate) async fn check(accounts: &Accounts, subject: &str, cost: i64) -> Check {
    accounts.check(subject, micros(cost)).await.unwrap()
}

pub(crate) async fn account(accounts: &Accounts, subject: &str) -> Account {
    let mut all = accounts.accounts(&[subject]).await.unwrap();
    all.pop().unwrap()
}
