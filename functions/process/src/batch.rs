//! A batch of events, counted: whoever brought it, however large it is.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use delivery::{Dead, Function, Refused};
use jiff::Timestamp;
use ledger::{JudgeError, Judged, Registry};
use model::{Claim, Prepared, Verdict, micros};
use runtime::Meters;
use store::{Store, StoreError};
use tokio::sync::OnceCell;

use crate::{apart::Witness, rows::Rows};

/// Why a batch was not counted. Nothing of it may be acknowledged then; counting it
/// again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Who came first could not be found out.
    #[error("the batch's identities could not be judged")]
    Judge(#[source] Box<JudgeError<StoreError>>),
    /// The rows were not stored.
    #[error("the batch's rows were not stored")]
    Store(#[from] StoreError),
    /// The store refuses whatever it is given, and blames the rows.
    #[error("the store refuses every event alike: the fault is not theirs")]
    Alike(#[source] StoreError),
}

/// The winners of a batch, and when they were asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub(crate) judged: Judged,
    /// Before the registry was asked about the batch's first event; one later for each next.
    pub(crate) asked_at: i64,
    /// The same, after it had answered about the last one.
    pub(crate) known_at: i64,
}

/// Counts events. Cheap to clone.
#[derive(Clone)]
pub struct Process {
    meters: Meters,
    registry: Registry,
    store: Store,
    free_version: Arc<AtomicI64>,
    // Set once Valkey was checked and the tables are there.
    prepared: Arc<OnceCell<()>>,
    pub(crate) witness: Arc<Mutex<Option<Witness>>>,
}

impl Process {
    /// Returns a function that counts by `meters`, asks `registry` who was first and
    /// writes to `store`.
    pub fn new(meters: Meters, registry: Registry, store: Store) -> Self {
        Self {
            meters,
            registry,
            store,
            free_version: Arc::default(),
            prepared: Arc::default(),
            witness: Arc::default(),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) async fn ask_registry(&self, batch: &[Prepared]) -> Result<Asked, ProcessError> {
        let asked_at = self.versions(batch.len());
        let judged = self.registry.judge(&claims(batch), &self.store).await;
        let judged = judged.map_err(cannot_judge)?;
        let known_at = self.versions(batch.len());
        Ok(Asked {
            judged,
            asked_at,
            known_at,
        })
    }

    /// Counts a batch as one block, or none of it that counts as written; what is returned
    /// blames its rows.
    pub(crate) async fn count_block(
        &self,
        batch: &[Prepared],
        asked: &Asked,
    ) -> Result<Option<StoreError>, ProcessError> {
        if batch.is_empty() {
            return Ok(None);
        }
        let began = Instant::now();
        match self.write_block(batch, asked).await {
            Ok(verdicts) => {
                report(batch, &verdicts, began);
                Ok(None)
            }
            Err(ProcessError::Store(error)) if !error.is_retryable() => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Writes the rows of a batch, and returns what became of each of its events.
    pub(crate) async fn write_block(
        &self,
        batch: &[Prepared],
        asked: &Asked,
    ) -> Result<Vec<Verdict>, ProcessError> {
        let mut asked = Cow::Borrowed(asked);
        loop {
            let Asked {
                judged,
                asked_at,
                known_at,
            } = &*asked;
            let mut rows = Rows::default();
            let mut verdicts = Vec::with_capacity(batch.len());
            let mut firsts = HashSet::with_capacity(batch.len());
            let versions = (*asked_at..).zip(*known_at..);
            for ((prepared, winner), (asked_at, known_at)) in
                batch.iter().zip(&judged.winners).zip(versions)
            {
                let verdict = rows.add(prepared, winner, asked_at, known_at);
                // One record that is twice in the batch, as when its delivery was tried again,
                // is the winner both times.
                let is_again = verdict == Verdict::First && !firsts.insert(prepared.claim.identity);
                verdicts.push(if is_again { Verdict::Repeat } else { verdict });
            }
            tokio::try_join!(
                self.store.insert_events(&rows.events),
                self.store.insert_usage(&rows.usage)
            )?;
            let confirmed = self
                .registry
                .confirms(&claims(batch), judged, &self.store)
                .await;
            if confirmed.map_err(cannot_judge)? {
                self.remember(batch, true);
                return Ok(verdicts);
            }
            tracing::warn!("the registry was lost while a batch was written: writing it again");
            asked = Cow::Owned(self.ask_registry(batch).await?);
        }
    }

    /// Returns the first of `count` microseconds since 1970, now, of which none was
    /// returned before: they are the versions of rows, and the last one written counts.
    fn versions(&self, count: usize) -> i64 {
        let now = micros(Timestamp::now());
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let free = |free: i64| Some(now.max(free).saturating_add(count));
        let free = self
            .free_version
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        now.max(free.unwrap_or_default())
    }
}

impl Function for Process {
    const NAME: &'static str = "process";
    const DEAD: Dead = Dead::Bury;
    type Asked = Asked;
    type Error = ProcessError;

    fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Checks Valkey and brings the tables to this version, unless that was done before.
    async fn prepare(&self) -> Result<(), ProcessError> {
        let check = async || {
            let checked = self.registry.check().await;
            checked.map_err(|error| cannot_judge(error.into()))
        };
        let migrate = async || Ok(self.store.migrate().await?);
        let prepare = || async { tokio::try_join!(check(), migrate()).map(drop) };
        self.prepared.get_or_try_init(prepare).await.map(drop)
    }

    /// Finds out who was first of each identity of a batch: the registry remembers what the
    /// store does not know yet.
    async fn judge(&self, batch: &[Prepared]) -> Result<Asked, ProcessError> {
        self.remember(batch, false);
        self.ask_registry(batch).await
    }

    /// Writes rows by the winners and asks whether they still stand: when this returns,
    /// ClickHouse has the rows and the events may be acknowledged, but for those that are
    /// returned: the store takes the others and will never take them.
    ///
    /// Killed anywhere, it leaves identities registered and rows written, or not; the
    /// same batch then registers the same winners and writes the same rows.
    async fn write(&self, batch: &[Prepared], asked: &Asked) -> Result<Vec<Refused>, ProcessError> {
        let Some(error) = self.count_block(batch, asked).await? else {
            return Ok(Vec::new());
        };
        let unstorable = self.write_apart(batch, error).await?;
        let refused = unstorable.into_iter().map(|one| Refused {
            index: one.index,
            reason: one.to_string(),
        });
        Ok(refused.collect())
    }
}

fn cannot_judge(error: JudgeError<StoreError>) -> ProcessError {
    ProcessError::Judge(Box::new(error))
}

fn claims(batch: &[Prepared]) -> Vec<Claim> {
    batch.iter().map(|prepared| prepared.claim).collect()
}

fn report(batch: &[Prepared], verdicts: &[Verdict], began: Instant) {
    let [mut counted, mut invalid, mut repeat, mut conflict] = [0; 4];
    for (prepared, verdict) in batch.iter().zip(verdicts) {
        let reasons = prepared.invalid();
        match verdict {
            Verdict::First if reasons.is_empty() => counted += 1,
            Verdict::First => invalid += 1,
            Verdict::Repeat => repeat += 1,
            Verdict::Conflict => conflict += 1,
        }
        for reason in reasons {
            metrics::counter!("openmeter_events_invalid_total", "reason" => reason.code())
                .increment(1);
        }
    }
    for (outcome, count) in [
        ("counted", counted),
        ("invalid", invalid),
        ("repeat", repeat),
        ("conflict", conflict),
    ] {
        metrics::counter!("openmeter_events_processed_total", "outcome" => outcome)
            .increment(count);
    }
    metrics::histogram!("openmeter_process_batch_events").record(batch.len() as f64);
    metrics::histogram!("openmeter_process_batch_seconds").record(began.elapsed());
    let oldest = batch
        .iter()
        .map(|prepared| prepared.claim.seen.ingested_at)
        .min();
    if let Some(oldest) = oldest {
        let micros = u64::try_from(micros(Timestamp::now()) - oldest).unwrap_or_default();
        metrics::histogram!("openmeter_ingest_to_stored_seconds")
            .record(Duration::from_micros(micros));
    }
}
