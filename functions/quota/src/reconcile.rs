//! Reconciling: what the stream passed over is debited, what Valkey lost is told again.
//!
//! The watermark is an instant of ClickHouse's clock: every row that was inserted before it was
//! told to every open account. Rows are read from somewhat before it, since a row has the time at
//! which its INSERT began and is seen when that ends.
//!
//! Killed anywhere, the watermark has not passed what was not told. Two runs at once do the same
//! work twice, which changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use ledger::{Account, Registry, Standing};
use model::Credits;
use store::{Snapshot, Subjects};
use tokio::{
    sync::{Mutex, OnceCell},
    time::Instant,
};

use crate::{
    books::{Books, BooksError, TOLD_AT_A_TIME, Told, first_open_day, limit_of, start_of},
    thresholds::{Level, Thresholds},
};

/// Longer than an INSERT takes ([`store::StoreConfig::insert_timeout`]), in microseconds.
const OVERLAP: i64 = 180_000_000;

/// Days for which a day that is past waits for process: longer than Kafka keeps what it is behind
/// with, there is nothing to wait for.
const PATIENCE: i64 = 7;

/// How long a run goes on, less than a request may take. The next one goes on from there.
const BUDGET: Duration = Duration::from_secs(40);

/// Keeps accounts and books equal. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reconcile {
    books: Books,
    registry: Registry,
    thresholds: Thresholds,
    running: Arc<Mutex<()>>,
    // Set once the tables are there.
    migrated: Arc<OnceCell<()>>,
}

impl Reconcile {
    pub(crate) fn new(books: Books, registry: Registry, thresholds: Thresholds) -> Self {
        Self {
            books,
            registry,
            thresholds,
            running: Arc::default(),
            migrated: Arc::default(),
        }
    }

    /// Brings the tables to this version, unless that was done before.
    pub(crate) async fn prepare(&self) -> Result<(), BooksError> {
        let migrate = || async { Ok(self.books.store.migrate().await?) };
        self.migrated.get_or_try_init(migrate).await.map(drop)
    }

    /// Tells every account what it lacks, and takes a snapshot of all. Returns at once while
    /// another run of this instance is at it.
    pub(crate) async fn run(&self) -> Result<(), BooksError> {
        let Ok(_running) = self.running.try_lock() else {
            return Ok(());
        };
        let until = Instant::now() + BUDGET;
        self.prepare().await?;
        // The stream passes over whatever a registry that lost its data cannot judge.
        self.registry.restore(&self.books.store).await?;
        let granted = self.granted().await?;
        let (subjects, nobodies) = self.subjects(&granted).await?;
        // What the stream debited to those who have no account, which would grow for ever.
        let names: Vec<_> = nobodies.iter().map(String::as_str).collect();
        self.books.accounts.forget_all(&names).await?;
        // An account that cannot be told now is told by the next run: the others do not wait.
        let told = self.tell_lost(&subjects, until).await;
        self.catch_up(&nobodies, until).await?;
        let accounts = self.accounts(&subjects).await?;
        self.seal_past_days(&accounts).await?;
        self.renew_limits(&accounts, &granted).await?;
        let levels = accounts.into_iter();
        let levels = levels.map(|(subject, account)| (subject, Level::from(&account)));
        self.thresholds.announce(levels.collect()).await;
        self.snapshot(&subjects).await?;
        told
    }

    /// Forgets accounts, but for their holds, and tells them from zero; all of them if none is
    /// named. Until an account is open again, nothing is known of it. Returns whether all are:
    /// the next runs of reconcile tell those for which there was no time.
    pub(crate) async fn rebuild(&self, subjects: Vec<String>) -> Result<bool, BooksError> {
        let until = Instant::now() + BUDGET;
        self.prepare().await?;
        let subjects = if subjects.is_empty() {
            let granted = self.granted().await?;
            self.subjects(&granted).await?.0
        } else {
            subjects
        };
        self.books.accounts.forget_all(&names(&subjects)).await?;
        for some in subjects.chunks(TOLD_AT_A_TIME) {
            if Instant::now() >= until {
                return Ok(false);
            }
            self.books.tell(some).await?;
        }
        Ok(true)
    }

    /// Everyone who was ever granted something.
    async fn granted(&self) -> Result<BTreeSet<String>, BooksError> {
        let subjects = self.books.store.granted_subjects().await?;
        Ok(subjects.into_iter().collect())
    }

    /// Everyone who is to have an account, and everyone else who used what has a price.
    async fn subjects(
        &self,
        granted: &BTreeSet<String>,
    ) -> Result<(Vec<String>, HashSet<String>), BooksError> {
        let rules = self.books.rules();
        let meters: Vec<_> = rules.prices.meters().collect();
        let used = self.books.store.subjects_of(&meters).await?;
        let mut subjects = granted.clone();
        subjects.extend(used);
        subjects.extend(rules.policies.named().map(str::to_owned));
        let (somebody, nobodies): (Vec<_>, Vec<_>) = subjects
            .into_iter()
            .partition(|subject| limit_of(&rules, subject, granted.contains(subject)).is_some());
        Ok((somebody, nobodies.into_iter().collect()))
    }

    /// Tells the accounts that Valkey does not have whole.
    async fn tell_lost(&self, subjects: &[String], until: Instant) -> Result<(), BooksError> {
        let accounts = self.books.accounts.accounts(&names(subjects)).await?;
        let lost: Vec<_> = (subjects.iter().zip(accounts))
            .filter(|(_, account)| account.standing == Standing::Unknown)
            .map(|(subject, _)| subject.clone())
            .collect();
        let mut opened = 0;
        for some in lost.chunks(TOLD_AT_A_TIME) {
            if Instant::now() >= until {
                break;
            }
            let told = self.books.tell(some).await?;
            opened += told.iter().filter(|told| **told == Told::Open).count();
        }
        if !lost.is_empty() {
            tracing::info!(lost = lost.len(), opened, "accounts were told anew");
        }
        Ok(())
    }

    /// Tells what was inserted since the watermark, and moves it on.
    async fn catch_up(&self, nobodies: &HashSet<String>, until: Instant) -> Result<(), BooksError> {
        let Books {
            store, accounts, ..
        } = &self.books;
        let now = store.clock().await?;
        let watermark = accounts.watermark().await?;
        // Without one: what is older than the days that are open is in their seals.
        let watermark = watermark.unwrap_or_else(|| start_of(first_open_day(now)));
        // A clock that was put back would never reach a watermark that is ahead of it.
        let mut from = watermark.min(now).saturating_sub(OVERLAP);
        let new_grants = self.books.tell_grants(Subjects::All, Some(from));
        new_grants.await?;
        while from < now && Instant::now() < until {
            from = self.books.tell_inserted(from..now, nobodies).await?;
            accounts.set_watermark(from).await?;
        }
        Ok(())
    }

    async fn accounts(&self, subjects: &[String]) -> Result<Vec<(String, Account)>, BooksError> {
        let accounts = self.books.accounts.accounts(&names(subjects)).await?;
        Ok((subjects.iter().cloned().zip(accounts))
            .filter(|(_, account)| account.standing != Standing::Unknown)
            .collect())
    }

    /// Sums the days that are past and forgets their single debits.
    async fn seal_past_days(&self, accounts: &[(String, Account)]) -> Result<(), BooksError> {
        let now = self.books.store.clock().await?;
        let last = first_open_day(now) - 1;
        let is_behind = |account: &Account| account.sealed.is_none_or(|sealed| sealed < last);
        let behind = || accounts.iter().filter(|(_, account)| is_behind(account));
        let unsealed: Vec<_> = behind().map(|(subject, _)| subject.clone()).collect();
        // An account of which no day is sealed was never told, or told before there was a past.
        let sealed = behind().map(|(_, account)| account.sealed.unwrap_or(-1));
        let Some(first) = sealed.min() else {
            return Ok(());
        };
        let rules = self.books.rules();
        let past = start_of(first + 1)..start_of(last + 1);
        for some in unsealed.chunks(TOLD_AT_A_TIME) {
            let read = self.books.read_now().await?;
            let zero = |subject: &String| ((subject.clone(), last), Credits::ZERO);
            let mut days: BTreeMap<_, _> = some.iter().map(zero).collect();
            let of_some = Subjects::These(some);
            let totals = self.books.totals(&rules.prices, past.clone(), of_some);
            days.extend(totals.await?);
            // Where process is behind, ClickHouse knows less of a day than the stream did: its
            // debits stay until it has them, or never will.
            let (late, patient): (BTreeMap<_, _>, BTreeMap<_, _>) = days
                .into_iter()
                .partition(|((_, day), _)| *day <= last - PATIENCE);
            self.books.seal(&late, &read, false).await?;
            self.books.seal(&patient, &read, true).await?;
        }
        Ok(())
    }

    /// Has policies that were changed take effect.
    async fn renew_limits(
        &self,
        accounts: &[(String, Account)],
        granted: &BTreeSet<String>,
    ) -> Result<(), BooksError> {
        let rules = self.books.rules();
        let changed: Vec<_> = accounts
            .iter()
            .filter_map(|(subject, account)| {
                let limit = limit_of(&rules, subject, granted.contains(subject))?;
                (limit != account.limit).then_some((subject.as_str(), limit))
            })
            .collect();
        self.books.accounts.limit_all(&changed).await?;
        Ok(())
    }

    async fn snapshot(&self, subjects: &[String]) -> Result<(), BooksError> {
        let at = self.books.store.clock().await?;
        let accounts = self.accounts(subjects).await?;
        let rows: Vec<_> = accounts
            .into_iter()
            .map(|(subject, account)| Snapshot {
                subject,
                at,
                balance: account.balance,
                held: account.held,
                limit: account.limit,
            })
            .collect();
        Ok(self.books.store.insert_balances(&rows).await?)
    }
}

fn names(subjects: &[String]) -> Vec<&str> {
    subjects.iter().map(String::as_str).collect()
}
