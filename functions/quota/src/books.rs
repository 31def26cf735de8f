//! The books: what ClickHouse knows of every account, told to Valkey.
//!
//! Grants and counted usage are in ClickHouse; an account in Valkey is what they come to. All
//! that is told here is told by key (a grant's, an event's, a day's), so telling it again, or
//! while debits flow, changes nothing. An account that lost its data is told whole and then
//! opened ([`Books::tell`]).
//!
//! Single debits are told of the last [`OPEN_DAYS`] ingest days. Of earlier ones only the day's
//! total is kept, which ClickHouse sums: a day is sealed, and sealed again when a late row comes.

mod days;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Range,
};

use ledger::{Accounts, DayDebits, Debit, JudgeError, LedgerError, Outcome};
use model::{Credits, Identity, PriceList, QuotaRules};
use runtime::Rules;
use store::{PricedRow, Store, StoreError, Subjects};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Ingest days of which single debits are kept: today and the day before.
const OPEN_DAYS: i64 = 2;

/// Accounts that are told at a time.
pub(crate) const TOLD_AT_A_TIME: usize = 50;

/// Rows that are in memory at a time, about: those of one INSERT are not divided.
const ROWS_AT_A_TIME: u64 = 50_000;

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
    #[error("valkey lost the account, and it could not be told")]
    Untold,
    #[error("clickhouse was too slow: what it said is too old to be used")]
    Stale,
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
        // Who has any; they are read again once a loss would be noticed.
        let grants = self.store.grants(Subjects::These(subjects), None).await?;
        let granted: HashSet<_> = grants.iter().map(|grant| grant.subject.as_str()).collect();
        // Nothing is written of those who have no account: anybody may ask for anyone.
        let limits: Vec<_> = subjects
            .iter()
            .map(|subject| limit_of(&rules, subject, granted.contains(subject.as_str())))
            .collect();
        let somebody: Vec<_> = (subjects.iter().zip(&limits))
            .filter(|(_, limit)| limit.is_some())
            .map(|(subject, _)| subject.clone())
            .collect();
        let names: Vec<_> = somebody.iter().map(String::as_str).collect();
        // Before anything is told: what is lost from now on is noticed when they are opened.
        let tellings = self.accounts.tell_all(&names).await?;
        let refused = self.tell_all_of(&rules.prices, &somebody).await?;
        let openings: Vec<_> = (subjects.iter().zip(&limits))
            .filter_map(|(subject, limit)| Some((subject.as_str(), (*limit)?)))
            .zip(&tellings)
            .filter(|((subject, _), _)| !refused.contains(*subject))
            .map(|((subject, limit), telling)| (subject, limit, telling))
            .collect();
        let opened = self.accounts.open_all(&openings).await?;
        let opened: HashSet<_> = (openings.iter().zip(opened))
            .filter_map(|((subject, ..), is_open)| is_open.then_some(*subject))
            .collect();
        Ok(subjects
            .iter()
            .zip(limits)
            .map(|(subject, limit)| match limit {
                None => Told::Nobody,
                Some(_) if opened.contains(subject.as_str()) => Told::Open,
                Some(_) => Told::Again,
            })
            .collect())
    }

    /// Tells grants, the totals of days that are past, and single debits of those that are not.
    /// Returns whose could not all be told.
    async fn tell_all_of(
        &self,
        prices: &PriceList,
        subjects: &[String],
    ) -> Result<HashSet<String>, BooksError> {
        let read = self.read_now().await?;
        let first_open = first_open_day(read.as_of);
        // Also of one that used nothing: no more debits of those days are to be taken.
        let last = |subject: &String| ((subject.clone(), first_open - 1), Credits::ZERO);
        let mut days: BTreeMap<_, _> = subjects.iter().map(last).collect();
        let past = 0..start_of(first_open);
        let of_these = Subjects::These(subjects);
        days.extend(self.totals(prices, past, of_these).await?);
        // What was granted and used over the years may each be more than an account can hold, and
        // fit only by turns.
        let mut refused = usize::MAX;
        let failed = loop {
            let mut failed = self.tell_grants(of_these, None).await?;
            failed.extend(self.seal(&days, &read, false).await?);
            if failed.is_empty() || failed.len() >= refused {
                break failed;
            }
            refused = failed.len();
        };
        self.tell_open_days(prices, first_open, of_these).await?;
        Ok(failed.into_iter().collect())
    }

    /// Tells single debits, some at a time.
    async fn tell_open_days(
        &self,
        prices: &PriceList,
        first_open: i64,
        subjects: Subjects<'_>,
    ) -> Result<(), BooksError> {
        let meters: Vec<_> = prices.meters().collect();
        let now = self.store.clock().await?;
        // Ingest's clock may be ahead of ClickHouse's.
        let all = start_of(first_open)..now + DAY;
        let mut left: Vec<_> = std::iter::once(all).collect();
        while let Some(ingested) = left.pop() {
            let rows = self
                .store
                .count_rows(&meters, ingested.clone(), subjects)
                .await?;
            if let Some([earlier, later]) = halves(&ingested, rows) {
                left.extend([later, earlier]);
                continue;
            }
            let rows = self.store.priced_rows(&meters, ingested, subjects).await?;
            let sealed = self.tell_rows(prices, &rows).await?;
            self.seal_again(&sealed).await?;
        }
        Ok(())
    }

    /// Tells what was inserted in this time, but to those who have no account, some at a time, and
    /// returns where that ended: it may be told no further.
    pub(crate) async fn tell_inserted(
        &self,
        inserted: Range<i64>,
        nobodies: &HashSet<String>,
    ) -> Result<i64, BooksError> {
        let rules = self.rules.current();
        let meters: Vec<_> = rules.prices.meters().collect();
        let mut inserted = inserted;
        loop {
            let rows = self
                .store
                .count_rows_inserted(&meters, inserted.clone())
                .await?;
            match halves(&inserted, rows) {
                Some([earlier, _]) => inserted = earlier,
                None => break,
            }
        }
        let mut rows = self
            .store
            .priced_rows_inserted(&meters, inserted.clone())
            .await?;
        rows.retain(|row| !nobodies.contains(&row.subject));
        let mut sealed = self.tell_rows(&rules.prices, &rows).await?;
        // A debit is never taken back, but a day is summed: one that is open will be.
        let taken_from = self.store.days_taken_from(&meters, inserted.clone());
        let first_open = first_open_day(self.store.clock().await?);
        let is_past =
            |(subject, day): &SubjectDay| *day < first_open && !nobodies.contains(subject);
        sealed.extend(taken_from.await?.into_iter().filter(is_past));
        self.seal_again(&sealed).await?;
        Ok(inserted.end)
    }

    /// Tells grants, and returns whose were refused, once for each.
    pub(crate) async fn tell_grants(
        &self,
        subjects: Subjects<'_>,
        stored_since: Option<i64>,
    ) -> Result<Vec<String>, BooksError> {
        let grants = self.store.grants(subjects, stored_since).await?;
        let credits: Vec<_> = grants
            .iter()
            .map(|grant| (grant.subject.as_str(), grant.id.as_str(), grant.amount))
            .collect();
        let credited = self.accounts.credit_all(&credits).await?;
        Ok(refused(
            grants.iter().map(|grant| &grant.subject),
            credited,
            "a grant is not credited",
        ))
    }

    /// Tells what the events of these rows cost, and returns the days that are sealed: what they
    /// cost is to be summed anew.
    async fn tell_rows(
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

/// Divides a time that has more rows than are to be in memory, if it can be divided.
fn halves(time: &Range<i64>, rows: u64) -> Option<[Range<i64>; 2]> {
    let middle = time.start + (time.end - time.start) / 2;
    (rows > ROWS_AT_A_TIME && middle > time.start).then_some([time.start..middle, middle..time.end])
}

/// Returns whose was refused. One account that cannot be told must not hold up the others.
fn refused<'a>(
    subjects: impl Iterator<Item = &'a String>,
    results: Vec<Result<bool, LedgerError>>,
    what: &str,
) -> Vec<String> {
    subjects
        .zip(results)
        .filter_map(|(subject, result)| {
            let error = result.err()?;
            failed(subject, what, &error);
            Some(subject.clone())
        })
        .collect()
}

fn failed(subject: &str, what: &str, error: &LedgerError) {
    metrics::counter!("openmeter_quota_accounts_failed_total").increment(1);
    tracing::error!(%error, subject, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_many_rows_is_halved_down_to_a_microsecond() {
        assert_eq!(halves(&(0..10), ROWS_AT_A_TIME), None);
        assert_eq!(halves(&(0..10), ROWS_AT_A_TIME + 1), Some([0..5, 5..10]));
        assert_eq!(halves(&(7..8), u64::MAX), None);
        assert_eq!(halves(&(7..9), u64::MAX), Some([7..8, 8..9]));
    }

    #[test]
    fn today_and_yesterday_are_open() {
        assert_eq!(first_open_day(10 * DAY), 9);
        assert_eq!(first_open_day(11 * DAY - 1), 9);
        assert_eq!(first_open_day(0), 0);
        assert_eq!(day_of(-1), 0);
    }
}
