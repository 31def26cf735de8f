//! Days that are past: summed by ClickHouse, and sealed in Valkey with what they cost.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

use ledger::Seal;
use model::{Credits, PriceList};
use store::Subjects;

use super::{Books, BooksError, SubjectDay, TOLD_AT_A_TIME, refused, start_of};

/// How long after it was read a total may be sealed: less than reconcile's overlap, so that what
/// was inserted since is read by it later, and the day sealed again.
const FRESH: Duration = Duration::from_secs(60);

/// When something was read that is to be sealed.
pub(crate) struct ReadAt {
    /// ClickHouse's clock, in microseconds since 1970.
    pub(crate) as_of: i64,
    instant: Instant,
}

impl Books {
    /// Sums these days anew and seals them with what they cost.
    pub(super) async fn seal_again(&self, days: &BTreeSet<SubjectDay>) -> Result<(), BooksError> {
        let rules = self.rules.current();
        let subjects: BTreeSet<_> = days.iter().map(|(subject, _)| subject.clone()).collect();
        let subjects: Vec<_> = subjects.into_iter().collect();
        for some in subjects.chunks(TOLD_AT_A_TIME) {
            let of_some = || days.iter().filter(|(subject, _)| some.contains(subject));
            let (Some(first), Some(last)) = (
                of_some().map(|(_, day)| *day).min(),
                of_some().map(|(_, day)| *day).max(),
            ) else {
                continue;
            };
            let read = self.read_now().await?;
            let ingested = start_of(first)..start_of(last + 1);
            let totals = self.totals(&rules.prices, ingested, Subjects::These(some));
            let mut totals = totals.await?;
            totals.retain(|day, _| days.contains(day));
            for day in of_some() {
                // Its rows may all have been taken away.
                totals.entry(day.clone()).or_default();
            }
            self.seal(&totals, &read, false).await?;
        }
        Ok(())
    }

    /// Returns what the rows cost that ingest took in this time, by subject and ingest day. One
    /// beyond what an account can hold is the most that it can.
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
        let most = i128::from(Credits::MAX.micros());
        let bounded = |sum: i128| i64::try_from(sum.clamp(-most, most)).ok();
        let bounded = |sum| bounded(sum).and_then(Credits::from_micros);
        Ok(totals
            .into_iter()
            .filter_map(|(day, sum)| Some((day, bounded(sum)?)))
            .collect())
    }

    /// Returns ClickHouse's clock, before something is read that is to be sealed.
    pub(crate) async fn read_now(&self) -> Result<ReadAt, BooksError> {
        let instant = Instant::now();
        let as_of = self.store.clock().await?;
        Ok(ReadAt { as_of, instant })
    }

    /// Seals days, in their order, with what they cost; with `keep` only where no credits are
    /// given back by it. Returns whose were refused, once for each.
    pub(crate) async fn seal(
        &self,
        totals: &BTreeMap<SubjectDay, Credits>,
        read: &ReadAt,
        keep: bool,
    ) -> Result<Vec<String>, BooksError> {
        if read.instant.elapsed() > FRESH {
            return Err(BooksError::Stale);
        }
        let seals: Vec<_> = totals
            .iter()
            .map(|((subject, day), total)| Seal {
                subject: subject.clone(),
                day: *day,
                total: *total,
                as_of: read.as_of,
                keep,
            })
            .collect();
        let sealed = self.accounts.seal_all(&seals).await?;
        let subjects = seals.iter().map(|seal| &seal.subject);
        Ok(refused(subjects, sealed, "a day is not sealed"))
    }
}
