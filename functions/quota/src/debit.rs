//! The stream: what each counted event costs is taken off its subject's account, once.
//!
//! Valkey alone is asked, so that it goes on while ClickHouse is away. What the registry cannot
//! judge without the store (a late event, or any after Valkey lost its data) is passed over and
//! left to [`crate::reconcile`], which reads what process wrote.
//!
//! Killed anywhere, some debits are made and others are not; the batch comes again, and each is
//! made once.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use delivery::{Dead, Function, Refused};
use ledger::{Accounts, DayDebits, Debit, LedgerError, Outcome, Registry};
use model::{Credits, Prepared, Seen, Verdict};
use runtime::{Meters, Rules};
use tokio::sync::OnceCell;

use crate::{
    books::day_of,
    thresholds::{Level, Thresholds},
};

/// The extension of an event that names the hold which its debit ends.
const HOLD: &str = "hold";

/// Debits what events cost. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Debits {
    meters: Meters,
    rules: Rules,
    registry: Registry,
    accounts: Accounts,
    thresholds: Thresholds,
    // Set once Valkey was checked.
    checked: Arc<OnceCell<()>>,
}

impl Debits {
    pub(crate) fn new(
        meters: Meters,
        rules: Rules,
        registry: Registry,
        accounts: Accounts,
        thresholds: Thresholds,
    ) -> Self {
        Self {
            meters,
            rules,
            registry,
            accounts,
            thresholds,
            checked: Arc::default(),
        }
    }

    /// Returns what the events of a batch cost whose winners are known.
    fn price(&self, batch: &[Prepared], winners: &[Option<Seen>]) -> Vec<DayDebits> {
        let rules = self.rules.current();
        let mut days: BTreeMap<(&str, i64), Vec<Debit>> = BTreeMap::new();
        let [mut free, mut conflict, mut left] = [0; 3];
        for (prepared, winner) in batch.iter().zip(winners) {
            let Some(winner) = winner else {
                left += 1;
                continue;
            };
            if prepared.claim.against(winner) == Verdict::Conflict {
                conflict += 1;
                continue;
            }
            let rows = prepared.usage_at(winner.time);
            let price = rules.prices.price_of_event(rows, winner.time);
            if price.too_large > 0 {
                let rows = price.too_large;
                metrics::counter!("openmeter_quota_too_dear_total").increment(rows as u64);
                tracing::error!(
                    source = prepared.event.source,
                    id = prepared.event.id,
                    "a row costs more than 10^9 credits: it is left out of the balance"
                );
            }
            let hold = prepared.event.attributes.get(HOLD).cloned();
            let subject = prepared.event.subject.as_deref();
            let (Some(subject), true) = (subject, price.credits.is_some() || hold.is_some()) else {
                free += 1;
                continue;
            };
            let debits = days.entry((subject, day_of(winner.ingested_at)));
            debits.or_default().push(Debit {
                identity: prepared.claim.identity,
                amount: price.credits.unwrap_or(Credits::ZERO),
                hold,
            });
        }
        count("free", free);
        count("conflict", conflict);
        count("left", left);
        let debits = days.into_iter().map(|((subject, day), debits)| DayDebits {
            subject: subject.to_owned(),
            day,
            debits,
        });
        debits.collect()
    }
}

impl Function for Debits {
    const NAME: &'static str = "quota";
    // process buries them.
    const DEAD: Dead = Dead::PassOver;
    type Asked = Vec<DayDebits>;
    type Error = LedgerError;

    fn meters(&self) -> &Meters {
        &self.meters
    }

    async fn prepare(&self) -> Result<(), LedgerError> {
        let check = async || {
            self.registry.check().await?;
            self.accounts.prepare().await
        };
        self.checked.get_or_try_init(check).await.map(drop)
    }

    async fn judge(&self, batch: &[Prepared]) -> Result<Vec<DayDebits>, LedgerError> {
        let claims: Vec<_> = batch.iter().map(|prepared| prepared.claim).collect();
        let winners = self.registry.known(&claims).await?;
        Ok(self.price(batch, &winners))
    }

    async fn write(
        &self,
        batch: &[Prepared],
        debits: &Vec<DayDebits>,
    ) -> Result<Vec<Refused>, LedgerError> {
        let began = Instant::now();
        let debited = self.accounts.debit_all(debits).await?;
        // The last one of each account: a batch may have debits of two days.
        let mut levels = BTreeMap::new();
        for (asked, debited) in debits.iter().zip(debited) {
            match debited {
                Ok(debited) => {
                    let times = |outcome| {
                        let outcomes = debited.outcomes.iter();
                        outcomes.filter(|is| **is == outcome).count() as u64
                    };
                    count("debited", times(Outcome::Debited));
                    count("repeat", times(Outcome::Before));
                    count("left", times(Outcome::Sealed));
                    levels.insert(asked.subject.clone(), Level::from(debited));
                }
                // Its account would pass what Valkey can count: that holds up nobody else.
                Err(error) => {
                    count("refused", asked.debits.len() as u64);
                    tracing::error!(
                        error = %error,
                        subject = asked.subject,
                        "an account cannot be debited"
                    );
                }
            }
        }
        let levels = levels.into_iter().collect();
        self.thresholds.announce_lately_crossed(levels).await;
        metrics::histogram!("openmeter_quota_batch_events").record(batch.len() as f64);
        metrics::histogram!("openmeter_quota_batch_seconds").record(began.elapsed());
        Ok(Vec::new())
    }
}

fn count(outcome: &'static str, events: u64) {
    metrics::counter!("openmeter_quota_events_total", "outcome" => outcome).increment(events);
}
