//! Grants: credits that an administrator gives, each once for its idempotency key.
//!
//! Valkey settles what two calls with one key do to each other; then ClickHouse keeps the grant,
//! and only then it is credited. Killed in between, nothing was answered, and the same call again
//! completes it, or reconcile does.

use jiff::Timestamp;
use ledger::{LedgerError, Standing};
use model::{Credits, micros};
use store::{Grant, Subjects};

use crate::{
    books::{Books, BooksError},
    check::Checker,
    reconcile::Reconcile,
};

/// Why credits were not granted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrantError {
    /// The key was used for another amount.
    #[error("this idempotency key was used with another amount")]
    Conflict,
    /// The balance would be beyond what is exact.
    #[error("the balance would pass {} credits", Credits::MAX)]
    TooMuch,
    /// Valkey or ClickHouse is away.
    #[error("the grant cannot be kept yet")]
    Away(#[source] BooksError),
}

impl<E: Into<BooksError>> From<E> for GrantError {
    fn from(error: E) -> Self {
        match error.into() {
            BooksError::Ledger(LedgerError::Conflict(_)) => Self::Conflict,
            BooksError::Ledger(LedgerError::Refused(_)) => Self::TooMuch,
            error => Self::Away(error),
        }
    }
}

/// Grants credits. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Grants {
    books: Books,
    checker: Checker,
    reconcile: Reconcile,
}

impl Grants {
    pub(crate) fn new(books: Books, checker: Checker, reconcile: Reconcile) -> Self {
        Self {
            books,
            checker,
            reconcile,
        }
    }

    /// Grants credits, and returns the grant and whether it is new. Durable when it returns.
    pub(crate) async fn grant(
        &self,
        subject: &str,
        id: &str,
        amount: Credits,
        note: String,
    ) -> Result<(Grant, bool), GrantError> {
        self.reconcile.prepare().await?;
        let Books {
            store, accounts, ..
        } = &self.books;
        // Two calls at once find nothing in ClickHouse, both.
        if !accounts.reserve_grant(subject, id, amount).await? {
            return Err(GrantError::Conflict);
        }
        let subjects = [subject.to_owned()];
        let known = store.grants(Subjects::These(&subjects), None).await?;
        let known = known.into_iter().find(|grant| grant.id == id);
        if known.as_ref().is_some_and(|known| known.amount != amount) {
            return Err(GrantError::Conflict);
        }
        let account = accounts.accounts(&[subject]).await?.into_iter().next();
        let account = account.filter(|account| account.standing != Standing::Unknown);
        let is_whole = account.is_some();
        let is_too_much =
            account.is_some_and(|account| account.balance.checked_plus(amount).is_none());
        if known.is_none() && is_too_much {
            return Err(GrantError::TooMuch);
        }
        let is_new = known.is_none();
        let grant = known.unwrap_or_else(|| Grant {
            subject: subject.to_owned(),
            id: id.to_owned(),
            amount,
            note,
            granted_at: micros(Timestamp::now()),
        });
        if is_new {
            store.insert_grant(&grant).await?;
        }
        self.checker.is_somebody(subject);
        if is_whole {
            accounts.credit(subject, id, amount).await?;
        } else {
            // Where that fails now, the next check or the next reconcile opens it.
            self.checker.tell(subject).await;
        }
        tracing::info!(subject, id, amount = %amount, "credits were granted");
        Ok((grant, is_new))
    }

    /// Returns what a subject was granted, the earliest first.
    pub(crate) async fn list(&self, subject: &str) -> Result<Vec<Grant>, BooksError> {
        self.reconcile.prepare().await?;
        let subjects = [subject.to_owned()];
        let mut grants = self
            .books
            .store
            .grants(Subjects::These(&subjects), None)
            .await?;
        grants.sort_by(|a, b| (a.granted_at, &a.id).cmp(&(b.granted_at, &b.id)));
        Ok(grants)
    }
}
