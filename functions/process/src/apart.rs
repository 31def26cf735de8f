//! A block that the store refuses for its rows is halved until each event that it refuses is
//! alone: the others are counted, and that one is told apart with the reason.
//!
//! The store's word alone costs no event. One is to blame only if the store took another one
//! meanwhile, with rows in every table: a constraint, a type or a server that is wrong refuses
//! all alike.

use std::{fmt, sync::PoisonError};

use model::Prepared;
use store::StoreError;

use crate::{Process, ProcessError, rows::Rows};

/// How many events may fail alone, and none be taken, before it is asked whether the store
/// takes any.
const FEW: usize = 8;

/// An event that the store does not take, and will not when it comes again.
#[derive(Debug)]
pub(crate) struct Unstorable {
    /// Its place in the batch.
    pub(crate) index: usize,
    /// What the store said.
    pub(crate) reason: StoreError,
}

impl fmt::Display for Unstorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot be stored: {}", self.reason)
    }
}

/// An event of another batch, which the store took, or may take.
pub(crate) struct Witness {
    prepared: Prepared,
    was_taken: bool,
}

impl Process {
    /// Counts what the store takes of a batch that it refused as a whole, and returns the rest.
    ///
    /// To find `r` events among `n` takes about `2 r (1 + log2(n / r))` blocks, and never more than
    /// `2 n`. A block takes some 10 ms, so that 5,000 of a batch of 50,000 are told apart within the
    /// ten minutes that Kafka gives it; where more are refused, batches are to be made smaller.
    pub(crate) async fn write_apart(
        &self,
        batch: &[Prepared],
        error: StoreError,
    ) -> Result<Vec<Unstorable>, ProcessError> {
        let mut refused = vec![(0..batch.len(), error)];
        let mut alone = Vec::new();
        let mut takes_any = false;
        while let Some((range, reason)) = refused.pop() {
            if range.len() == 1 {
                let index = range.start;
                alone.push(Unstorable { index, reason });
                if alone.len() == FEW && !takes_any {
                    takes_any = self.takes_another(batch).await?;
                    if !takes_any {
                        break;
                    }
                }
                continue;
            }
            let middle = range.start + range.len() / 2;
            for half in [middle..range.end, range.start..middle] {
                let block = &batch[half.clone()];
                match self.count_again(block).await? {
                    None => takes_any |= block.iter().any(Prepared::adds),
                    Some(reason) => refused.push((half, reason)),
                }
            }
        }
        if !takes_any && !self.takes_another(batch).await? {
            // There is at least the one event that a batch can be halved to.
            let error = alone.pop().map(|unstorable| unstorable.reason);
            return error.map_or(Ok(alone), |error| Err(ProcessError::Alike(error)));
        }
        if !self.list(batch, &alone).await? {
            for one in alone.chunks(1) {
                self.list(batch, one).await?;
            }
        }
        Ok(alone)
    }

    /// Has the events list say why these are not counted, and returns whether it does. Where
    /// even that is refused, the topic of the dead says so alone.
    async fn list(&self, batch: &[Prepared], alone: &[Unstorable]) -> Result<bool, ProcessError> {
        let events: Vec<_> = alone.iter().map(|one| batch[one.index].clone()).collect();
        let reasons: Vec<_> = alone.iter().map(Unstorable::to_string).collect();
        let asked = self.ask_registry(&events).await?;
        let versions = (asked.asked_at..).zip(asked.known_at..);
        let judged = events.iter().zip(&asked.judged.winners).zip(versions);
        let mut rows = Rows::default();
        for (((event, winner), (asked_at, known_at)), reason) in judged.zip(&reasons) {
            rows.add_unstorable(event, winner, asked_at, known_at, reason);
        }
        match self.store().insert_events(&rows.events).await {
            Err(error) if error.is_retryable() => Err(error.into()),
            inserted => Ok(inserted.is_ok()),
        }
    }

    /// Counts these events as one block; what is returned blames its rows.
    async fn count_again(&self, block: &[Prepared]) -> Result<Option<StoreError>, ProcessError> {
        let asked = self.ask_registry(block).await?;
        self.count_block(block, &asked).await
    }

    /// Returns whether the store takes an event that is not in `batch`. That event is written
    /// as it was, or as it will be, which adds nothing.
    async fn takes_another(&self, batch: &[Prepared]) -> Result<bool, ProcessError> {
        let witness = {
            let witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
            witness.as_ref().map(|witness| witness.prepared.clone())
        };
        let is_in_batch = |witness: &Prepared| {
            let mut claims = batch.iter().map(|prepared| prepared.claim.identity);
            claims.any(|identity| identity == witness.claim.identity)
        };
        let Some(witness) = witness.filter(|witness| !is_in_batch(witness)) else {
            return Ok(false);
        };
        let asked = self.ask_registry(std::slice::from_ref(&witness)).await?;
        // Not counted in the metrics, which have it from its own batch.
        match self.write_block(&[witness], &asked).await {
            Err(ProcessError::Store(error)) if !error.is_retryable() => Ok(false),
            written => written.map(|_| true),
        }
    }

    /// Remembers an event of `batch`, to ask the store for it: one that was taken, if there is
    /// one, else one of the batch that was judged last.
    pub(crate) fn remember(&self, batch: &[Prepared], was_taken: bool) {
        let mut witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        let is_better = was_taken || witness.as_ref().is_none_or(|known| !known.was_taken);
        if !is_better {
            return;
        }
        if let Some(prepared) = batch.iter().rfind(|prepared| prepared.adds()) {
            *witness = Some(Witness {
                prepared: prepared.clone(),
                was_taken,
            });
        }
    }
}
