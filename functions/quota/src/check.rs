//! May this subject make a call? One round trip to Valkey says so.
//!
//! An account of which Valkey does not know all is told on the spot, once for all who ask. For what
//! takes too long they get what is configured for a Valkey that is away.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use ledger::{Accounts, Check, LedgerError, Standing};
use model::Credits;
use runtime::Setting;
use tokio::{sync::oneshot, time::timeout};

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
    /// Another amount is held under this name.
    Conflict,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Spent => "spent",
            Self::Unlimited => "unlimited",
            Self::Unknown => "unknown",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
        }
    }
}

/// What Valkey is asked about an account.
#[derive(Clone, Copy)]
enum Question<'a> {
    Check(Credits),
    Hold {
        hold: &'a str,
        amount: Credits,
        ends: Duration,
    },
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
    /// Who waits for which account.
    waiting: HashMap<String, Vec<oneshot::Sender<Option<Told>>>>,
    is_telling: bool,
    nobodies: HashMap<String, Instant>,
}

impl Lost {
    fn remember_nobody(&mut self, subject: String) {
        let now = Instant::now();
        if self.nobodies.len() >= MOST_NOBODIES {
            self.nobodies
                .retain(|_, since| now.duration_since(*since) < NOBODY_FOR);
        }
        if self.nobodies.len() < MOST_NOBODIES {
            self.nobodies.insert(subject, now);
        }
    }
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
        self.settle(subject, Question::Check(cost)).await
    }

    /// Checks several, in one round trip where all are known.
    pub(crate) async fn check_all(&self, wanted: &[(&str, Credits)]) -> Vec<Answer> {
        let Some(checks) = self.ask(self.accounts.check_all(wanted)).await else {
            return wanted.iter().map(|_| count(self.unavailable())).collect();
        };
        // All that are lost are told together, in the time that one may take.
        let answers = wanted.iter().zip(checks);
        let answers = answers
            .map(|((subject, cost), check)| self.check_lost(subject, *cost, known(check)))
            .collect::<Vec<_>>();
        futures::future::join_all(answers).await
    }

    async fn check_lost(&self, subject: &str, cost: Credits, known: Option<Answer>) -> Answer {
        match known {
            Some(answer) => count(answer),
            None => self.check(subject, cost).await,
        }
    }

    /// Places a hold, under the same conditions.
    pub(crate) async fn hold(
        &self,
        subject: &str,
        hold: &str,
        amount: Credits,
        ends: Duration,
    ) -> Answer {
        let question = Question::Hold { hold, amount, ends };
        self.settle(subject, question).await
    }

    /// Ends a hold, if there is one.
    pub(crate) async fn cancel_hold(&self, subject: &str, hold: &str) -> Result<(), LedgerError> {
        self.accounts.cancel_hold(subject, hold).await.map(drop)
    }

    /// Asks, and asks again once an account that was lost is told.
    async fn settle(&self, subject: &str, question: Question<'_>) -> Answer {
        let mut is_told = false;
        let answer = loop {
            let check = match self.ask(self.put(subject, question)).await {
                None => break self.unavailable(),
                Some(None) => break CONFLICT,
                Some(Some(check)) => check,
            };
            match known(check) {
                Some(answer) => break answer,
                None if is_told => break self.unavailable(),
                None => {}
            }
            match timeout(TELLING, self.tell(subject)).await {
                Ok(Some(Told::Open)) => is_told = true,
                Ok(Some(Told::Nobody)) => break NOBODY,
                Ok(Some(Told::Again) | None) | Err(_) => break self.unavailable(),
            }
        };
        count(answer)
    }

    /// Puts a question to Valkey; `None`: what it would change is there, and otherwise.
    async fn put(
        &self,
        subject: &str,
        question: Question<'_>,
    ) -> Result<Option<Check>, LedgerError> {
        let check = match question {
            Question::Check(cost) => self.accounts.check(subject, cost).await,
            Question::Hold { hold, amount, ends } => {
                self.accounts.hold(subject, hold, amount, ends).await
            }
        };
        match check {
            Err(LedgerError::Conflict(_)) => Ok(None),
            check => check.map(Some),
        }
    }

    /// Has an account told, with all others that are asked for by then; `None` if it cannot be.
    /// It goes on when nobody waits any more.
    pub(crate) async fn tell(&self, subject: &str) -> Option<Told> {
        let (answer, answered) = oneshot::channel();
        {
            let mut lost = self.lost();
            let since = lost.nobodies.get(subject);
            if since.is_some_and(|since| since.elapsed() < NOBODY_FOR) {
                return Some(Told::Nobody);
            }
            let waiting = lost.waiting.entry(subject.to_owned());
            waiting.or_default().push(answer);
            if !lost.is_telling {
                lost.is_telling = true;
                tokio::spawn(self.clone().tell_waiting());
            }
        }
        answered.await.ok().flatten()
    }

    /// Tells whoever is waited for, until nobody is.
    async fn tell_waiting(self) {
        loop {
            let waiting = {
                let mut lost = self.lost();
                lost.is_telling = !lost.waiting.is_empty();
                std::mem::take(&mut lost.waiting)
            };
            if waiting.is_empty() {
                return;
            }
            let (subjects, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            // Whatever happens, they can be told again.
            let told = AssertUnwindSafe(self.tell_now(&subjects)).catch_unwind();
            let told = told.await.ok().flatten().unwrap_or_default();
            let told = told.into_iter().map(Some).chain(std::iter::repeat(None));
            for ((subject, answers), told) in subjects.into_iter().zip(answers).zip(told) {
                if told == Some(Told::Nobody) {
                    self.lost().remember_nobody(subject);
                }
                for answer in answers {
                    // Whoever is gone asks again.
                    answer.send(told).ok();
                }
            }
        }
    }

    /// Has it looked for again at once, since it was granted something.
    pub(crate) fn is_somebody(&self, subject: &str) {
        self.lost().nobodies.remove(subject);
    }

    async fn tell_now(&self, subjects: &[String]) -> Option<Vec<Told>> {
        let told = match self.reconcile.prepare().await {
            Ok(()) => self.books.tell(subjects).await,
            Err(error) => Err(error),
        };
        let accounts = subjects.len();
        match told {
            Ok(told) => Some(told),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, accounts, "accounts are not told");
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

/// What is held under this name is another amount.
const CONFLICT: Answer = Answer {
    allowed: false,
    status: Status::Conflict,
    remaining: None,
};

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
