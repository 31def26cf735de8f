//! The books: what ClickHouse knows of every account, told to Valkey.
//!
//! Grants and counted usage are in ClickHouse; an account in Valkey is what they come to. All
//! that is told here is told by key (a grant's, an event's, a day's), so telling it again, or
//! while debits flow, changes nothing. An account that lost its data is told whole and then
//! opened ([`Books::tell`]).
//!
//! Single debits are told of the last [`OPEN_DAYS`] ingest days. Of earlier ones only the day's
//! total is kept, which ClickHouse sums: a day is sealed, and sealed again when a late row comes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Range,
};

use ledger::{Accounts, DayDebits, Debit, JudgeError, LedgerError, Outcome, Seal};
use model::{Credits, Identity, PriceList, QuotaRules};
use runtime::Rules;
use store::{PricedRow, Store, StoreError, Subjects};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Ingest days of which single debits are kept: today and the day before.
const OPEN_DAYS: i64 = 2;

/// Accounts that are told at a time, for their rows are in memory together.
pub(crate) const TOLD_AT_A_TIME: usize = 50;

/// Returns the ingest day of an instant (microseconds since 1970), in days since 1970.
pub(crate) fn day_of(micros: i64) -> i64 {
    micros.div_euclid(DAY).max(0)
}

/// Returns the first instant of a day, in microseconds since 1970.
pub(crate) fn start_of(day: i64) -> i64 {
    day.saturating_mul(DAY)
}

/// Why the books could not be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BooksError {
    #[error("valkey could not be told")]
    Ledger(#[from] LedgerError),
    #[error("clickhouse could not be asked")]
    Store(#[from] StoreError),
    #[error("the registry could not be filled")]
    Registry(#[source] Box<JudgeError<StoreError>>),
}

impl From<JudgeError<StoreError>> for BooksError {
    fn from(error: JudgeError<StoreError>) -> Self {
        Self::Registry(Box::new(error))
    }
}

/// What became of an account that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is open.
    Open,
    /// Nobody granted it anything, no policy names it, and such are refused.
    Nobody,
    /// Valkey lost its data meanwhile, or another tells it too.
    Again,
}

/// A day of one account.
type SubjectDay = (String, i64);

/// Tells accounts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Books {
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    rules: Rules,
}

impl Books {
    pub(crate) fn new(store: Store, accounts: Accounts, rules: Rules) -> Self {
        Self {
            store,
            accounts,
            rules,
        }
    }

    /// Tells accounts all that there is to know of them, and opens them.
    pub(crate) async fn tell(&self, subjects: &[String]) -> Result<Vec<Told>, BooksError> {
        let mut told = Vec::with_capacity(subjects.len());
        for some in subjects.chunks(TOLD_AT_A_TIME) {
            told.append(&mut self.tell_some(some).await?);
        }
        Ok(told)
    }

    async fn tell_some(&self, subjects: &[String]) -> Result<Vec<Told>, BooksError> {
        let rules = self.rules.current();
        let names: Vec<_> = subjects.iter().map(String::as_str).collect();
        // Before anything is read: what is lost from now on is noticed when they are opened.
        let tellings = self.accounts.tell_all(&names).await?;
        let as_of = self.store.clock().await?;
        // Whatever is inserted after this instant, reconcile will read.
        self.accounts.begin_watermark(as_of).await?;
        let granted = self.tell_grants(Subjects::These(subjects), None).await?;
        let first_open = first_open_day(as_of);
        let mut days = BTreeMap::new();
        for subject in subjects {
            // Also of one that used nothing: no more debits of those days are to be taken.
            days.insert((subject.clone(), first_open - 1), Credits::ZERO);
        }
        let totals = self
            .totals(
                &rules.prices,
                0..start_of(first_open),
                Subjects::These(subjects),
            )
            .await?;
        days.extend(totals);
        self.seal(days, as_of).await?;
        let meters: Vec<_> = rules.prices.meters().collect();
        let rows = self
            .store
            .priced_rows(
                &meters,
                start_of(first_open)..i64::MAX,
                Subjects::These(subjects),
            )
            .await?;
        let sealed = self.tell_rows(&rules.prices, &rows).await?;
        self.seal_again(&sealed).await?;
        let opened: Vec<_> = names
            .iter()
            .map(|subject| limit_of(&rules, subject, granted.contains(*subject)))
            .collect();
        let openings: Vec<_> = (names.iter().zip(&opened).zip(&tellings))
            .filter_map(|((subject, limit), telling)| Some((*subject, (*limit)?, telling)))
            .collect();
        let mut answers = self.accounts.open_all(&openings).await?.into_iter();
        Ok(opened
            .iter()
            .map(|limit| match limit {
                None => Told::Nobody,
                Some(_) if answers.next().unwrap_or_default() => Told::Open,
                Some(_) => Told::Again,
            })
            .collect())
    }

    /// Tells grants, and returns who has any of these.
    pub(crate) async fn tell_grants(
        &self,
        subjects: Subjects<'_>,
        stored_since: Option<i64>,
    ) -> Result<HashSet<String>, BooksError> {
        let grants = self.store.grants(subjects, stored_since).await?;
        let credits: Vec<_> = grants
            .iter()
            .map(|grant| (grant.subject.as_str(), grant.id.as_str(), grant.amount))
            .collect();
        let credited = self.accounts.credit_all(&credits).await?;
        for (grant, credited) in grants.iter().zip(credited) {
            if let Err(error) = credited {
                failed(&grant.subject, "a grant is not credited", &error);
            }
        }
        Ok(grants.into_iter().map(|grant| grant.subject).collect())
    }

    /// Tells what the events of these rows cost, and returns the days that are sealed: what they
    /// cost is to be summed anew.
    pub(crate) async fn tell_rows(
        &self,
        prices: &PriceList,
        rows: &[PricedRow],
    ) -> Result<BTreeSet<SubjectDay>, BooksError> {
        let mut events: BTreeMap<(&str, i64), BTreeMap<Identity, Credits>> = BTreeMap::new();
        for row in rows {
            let group = |name: &str| row.groups.get(name).map(String::as_str);
            let price = prices.price_of(&row.meter, row.value, row.time, group);
            // One that is too dear is left out, as by the stream.
            let Ok(Some(price)) = price else { continue };
            let day = events.entry((&row.subject, day_of(row.ingested_at)));
            let sum = day.or_default().entry(row.identity).or_default();
            *sum = sum.checked_plus(price).unwrap_or(*sum);
        }
        let debits: Vec<_> = events
            .into_iter()
            .map(|((subject, day), events)| DayDebits {
                subject: subject.to_owned(),
                day,
                debits: events
                    .into_iter()
                    .map(|(identity, amount)| Debit {
                        identity,
                        amount,
                        hold: None,
                    })
                    .collect(),
            })
            .collect();
        let mut sealed = BTreeSet::new();
        for (day, debited) in debits.iter().zip(self.accounts.debit_all(&debits).await?) {
            match debited {
                Ok(debited) if debited.outcomes.contains(&Outcome::Sealed) => {
                    sealed.insert((day.subject.clone(), day.day));
                }
                Ok(_) => {}
                Err(error) => failed(&day.subject, "an account is not debited", &error),
            }
        }
        Ok(sealed)
    }

    /// Sums these days anew and seals them with what they cost.
    pub(crate) async fn seal_again(&self, days: &BTreeSet<SubjectDay>) -> Result<(), BooksError> {
        let (Some(first), Some(last)) = (
            days.iter().map(|(_, day)| *day).min(),
            days.iter().map(|(_, day)| *day).max(),
        ) else {
            return Ok(());
        };
        let as_of = self.store.clock().await?;
        let rules = self.rules.current();
        let subjects: BTreeSet<_> = days.iter().map(|(subject, _)| subject.clone()).collect();
        let subjects: Vec<_> = subjects.into_iter().collect();
        let ingested = start_of(first)..start_of(last + 1);
        let mut totals = self
            .totals(&rules.prices, ingested, Subjects::These(&subjects))
            .await?;
        totals.retain(|day, _| days.contains(day));
        for day in days {
            // Its rows may all have been taken away.
            totals.entry(day.clone()).or_default();
        }
        self.seal(totals, as_of).await
    }

    /// Returns what the rows cost that ingest took in this time, by subject and ingest day.
    pub(crate) async fn totals(
        &self,
        prices: &PriceList,
        ingested: Range<i64>,
        subjects: Subjects<'_>,
    ) -> Result<BTreeMap<SubjectDay, Credits>, BooksError> {
        let mut totals: BTreeMap<SubjectDay, i128> = BTreeMap::new();
        for span in prices.spans() {
            let charged = self.store.charged(&span, ingested.clone(), subjects);
            for some in charged.await? {
                let Ok(price) = span.price(some.value, &some.group) else {
                    continue;
                };
                let sum = i128::from(price.micros()) * i128::from(some.rows);
                *totals.entry((some.subject, some.day)).or_default() += sum;
            }
        }
        let bounded = |sum: i128| i64::try_from(sum).ok().and_then(Credits::from_micros);
        Ok(totals
            .into_iter()
            .filter_map(|(day, sum)| match bounded(sum) {
                Some(total) => Some((day, total)),
                None => {
                    tracing::error!(
                        subject = day.0,
                        day = day.1,
                        "a day costs more than an account can hold: it is left out"
                    );
                    None
                }
            })
            .collect())
    }

    /// Seals days with what they cost, in their order.
    pub(crate) async fn seal(
        &self,
        totals: BTreeMap<SubjectDay, Credits>,
        as_of: i64,
    ) -> Result<(), BooksError> {
        let seals: Vec<_> = totals
            .into_iter()
            .map(|((subject, day), total)| Seal {
                subject,
                day,
                total,
                as_of,
            })
            .collect();
        for (seal, sealed) in seals.iter().zip(self.accounts.seal_all(&seals).await?) {
            if let Err(error) = sealed {
                failed(&seal.subject, "a day is not sealed", &error);
            }
        }
        Ok(())
    }

    pub(crate) fn rules(&self) -> std::sync::Arc<QuotaRules> {
        self.rules.current()
    }
}

/// Returns the first day of which single debits are kept, at `now` (microseconds since 1970).
pub(crate) fn first_open_day(now: i64) -> i64 {
    (day_of(now) - OPEN_DAYS + 1).max(0)
}

/// Returns how far below zero an account may go (`None` inside: without end); `None` when there
/// is to be no account.
pub(crate) fn limit_of(
    rules: &QuotaRules,
    subject: &str,
    is_granted: bool,
) -> Option<Option<Credits>> {
    let policies = &rules.policies;
    if is_granted || policies.names(subject) {
        Some(policies.of(subject).limit())
    } else {
        policies.unknown().map(|policy| policy.limit())
    }
}

/// One account that cannot be told must not hold up the others.
fn failed(subject: &str, what: &str, error: &LedgerError) {
    metrics::counter!("openmeter_quota_accounts_failed_total").increment(1);
    tracing::error!(%error, subject, "{what}");
}
