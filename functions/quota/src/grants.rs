//! Grants: credits that an administrator gives, each once for its idempotency key.
//!
//! Valkey settles what two calls with one key do to each other, ClickHouse keeps it. Killed in
//! between, nothing was answered, and the same call again completes it.

use jiff::Timestamp;
use ledger::{LedgerError, Standing};
use model::{Credits, micros};
use store::{Grant, Subjects};

use crate::{
    books::{Books, BooksError, Told},
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
    /// Somebody else tells the account at this moment.
    #[error("the account is being told")]
    Busy,
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
        let subjects = [subject.to_owned()];
        let accounts = self.books.accounts.accounts(&[subject]).await?;
        let is_whole = accounts
            .first()
            .is_some_and(|account| account.standing != Standing::Unknown);
        if !is_whole && self.checker.tell(subject).await == Some(Told::Again) {
            return Err(GrantError::Busy);
        }
        let known = self.books.store.grants(Subjects::These(&subjects), None);
        if let Some(known) = known.await?.into_iter().find(|grant| grant.id == id) {
            if known.amount != amount {
                return Err(GrantError::Conflict);
            }
            return Ok((known, false));
        }
        self.books.accounts.credit(subject, id, amount).await?;
        let grant = Grant {
            subject: subject.to_owned(),
            id: id.to_owned(),
            amount,
            note,
            granted_at: micros(Timestamp::now()),
        };
        self.books.store.insert_grant(&grant).await?;
        self.checker.is_somebody(subject);
        if !is_whole {
            // The first credits of an account open it. Where that fails now, the next check or
            // the next reconcile opens it.
            self.checker.tell(subject).await;
        }
        tracing::info!(subject, id, amount = %amount, "credits were granted");
        Ok((grant, true))
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
