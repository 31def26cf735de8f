//! May this subject make a call? One round trip to Valkey says so.
//!
//! An account of which Valkey does not know all is told on the spot, once for all who ask; whoever
//! asks meanwhile gets what is configured for a Valkey that is away.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use ledger::{Accounts, Check, LedgerError, Standing};
use model::Credits;
use runtime::Setting;
use tokio::time::timeout;

use crate::{
    books::{Books, Told},
    reconcile::Reconcile,
};

/// How long a check waits for an account that is being told.
const TELLING: Duration = Duration::from_secs(1);

/// For how long a subject that has no account is not looked for again.
const NOBODY_FOR: Duration = Duration::from_secs(10);

/// Subjects without an account that are remembered at most.
const MOST_NOBODIES: usize = 10_000;

/// What a check says while it cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// The call may be made.
    Open,
    /// It may not.
    Closed,
}

impl Setting for WhenAway {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            _ => Err("is not open or closed".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
        .to_owned()
    }
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    pub(crate) status: Status,
    /// What may still be spent; `None` where it is not known.
    pub(crate) remaining: Option<Credits>,
}

/// Why, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Spent,
    Unlimited,
    /// There is no account.
    Unknown,
    /// It could not be found out.
    Unavailable,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Spent => "spent",
            Self::Unlimited => "unlimited",
            Self::Unknown => "unknown",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Answers checks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Checker {
    /// By a connection of its own: a batch of debits would have checks wait.
    accounts: Accounts,
    /// How long it is asked: a connection that is gone is tried for longer.
    limit: Duration,
    books: Books,
    reconcile: Reconcile,
    when_away: WhenAway,
    lost: Arc<Mutex<Lost>>,
}

/// What is known of subjects that Valkey does not know. It can be lost.
#[derive(Default)]
struct Lost {
    being_told: HashSet<String>,
    nobodies: HashMap<String, Instant>,
}

impl Checker {
    pub(crate) fn new(
        accounts: Accounts,
        limit: Duration,
        books: Books,
        reconcile: Reconcile,
        when_away: WhenAway,
    ) -> Self {
        Self {
            accounts,
            limit,
            books,
            reconcile,
            when_away,
            lost: Arc::default(),
        }
    }

    /// Returns whether `subject` may make a call that costs `cost`; 0 if that is not known.
    pub(crate) async fn check(&self, subject: &str, cost: Credits) -> Answer {
        self.settle(subject, || self.accounts.check(subject, cost))
            .await
    }

    /// Checks several, in one round trip where all are known.
    pub(crate) async fn check_all(&self, wanted: &[(&str, Credits)]) -> Vec<Answer> {
        let Some(checks) = self.ask(self.accounts.check_all(wanted)).await else {
            return wanted.iter().map(|_| count(self.unavailable())).collect();
        };
        let mut answers = Vec::with_capacity(checks.len());
        for ((subject, cost), check) in wanted.iter().zip(checks) {
            answers.push(match known(check) {
                Some(answer) => count(answer),
                None => self.check(subject, *cost).await,
            });
        }
        answers
    }

    /// Places a hold, under the same conditions.
    pub(crate) async fn hold(
        &self,
        subject: &str,
        hold: &str,
        amount: Credits,
        ends: Duration,
    ) -> Answer {
        self.settle(subject, || self.accounts.hold(subject, hold, amount, ends))
            .await
    }

    /// Ends a hold, if there is one.
    pub(crate) async fn cancel_hold(&self, subject: &str, hold: &str) -> Result<(), LedgerError> {
        self.accounts.cancel_hold(subject, hold).await.map(drop)
    }

    /// Asks, and asks again once an account that was lost is told.
    async fn settle<F>(&self, subject: &str, ask: impl Fn() -> F) -> Answer
    where
        F: Future<Output = Result<Check, LedgerError>>,
    {
        let mut is_told = false;
        let answer = loop {
            match self.ask(ask()).await.map(known) {
                Some(Some(answer)) => break answer,
                None => break self.unavailable(),
                Some(None) if is_told => break self.unavailable(),
                Some(None) => match timeout(TELLING, self.tell(subject)).await {
                    Ok(Some(Told::Open)) => is_told = true,
                    Ok(Some(Told::Nobody)) => break NOBODY,
                    Ok(Some(Told::Again) | None) | Err(_) => break self.unavailable(),
                },
            }
        };
        count(answer)
    }

    /// Has an account told, unless that is under way. It goes on when nobody waits any more.
    pub(crate) async fn tell(&self, subject: &str) -> Option<Told> {
        {
            let mut lost = self.lost();
            let since = lost.nobodies.get(subject);
            if since.is_some_and(|since| since.elapsed() < NOBODY_FOR) {
                return Some(Told::Nobody);
            }
            if !lost.being_told.insert(subject.to_owned()) {
                return None;
            }
        }
        let (checker, subject) = (self.clone(), subject.to_owned());
        let telling = tokio::spawn(async move {
            // Whatever happens, it can be told again.
            let told = AssertUnwindSafe(checker.tell_now(&subject)).catch_unwind();
            let told = told.await.ok().flatten();
            let mut lost = checker.lost();
            lost.being_told.remove(&subject);
            if told == Some(Told::Nobody) {
                if lost.nobodies.len() >= MOST_NOBODIES {
                    lost.nobodies.clear();
                }
                lost.nobodies.insert(subject, Instant::now());
            }
            told
        });
        telling.await.ok().flatten()
    }

    /// Has it looked for again at once, since it was granted something.
    pub(crate) fn is_somebody(&self, subject: &str) {
        self.lost().nobodies.remove(subject);
    }

    async fn tell_now(&self, subject: &str) -> Option<Told> {
        let subjects = [subject.to_owned()];
        let told = match self.reconcile.prepare().await {
            Ok(()) => self.books.tell(&subjects).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(told) => told.first().copied(),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    subject,
                    "an account is not told"
                );
                None
            }
        }
    }

    fn lost(&self) -> std::sync::MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what Valkey says, but not for long.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, LedgerError>>) -> Option<T> {
        // Each call of each TPP would have its line: how many there are is in the metrics.
        match timeout(self.limit, answer).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a check cannot be answered");
                None
            }
            Err(_) => {
                tracing::debug!("a check was not answered in time");
                None
            }
        }
    }

    fn unavailable(&self) -> Answer {
        Answer {
            allowed: self.when_away == WhenAway::Open,
            status: Status::Unavailable,
            remaining: None,
        }
    }
}

const NOBODY: Answer = Answer {
    allowed: false,
    status: Status::Unknown,
    remaining: None,
};

/// Returns what Valkey said, if it knows the account.
fn known(check: Check) -> Option<Answer> {
    let status = match check.standing {
        Standing::Ok => Status::Ok,
        Standing::Spent => Status::Spent,
        Standing::Unlimited => Status::Unlimited,
        Standing::Unknown => return None,
    };
    Some(Answer {
        allowed: check.allowed,
        status,
        remaining: Some(check.remaining),
    })
}

fn count(answer: Answer) -> Answer {
    metrics::counter!("openmeter_quota_checks_total", "status" => answer.status.word())
        .increment(1);
    answer
}
