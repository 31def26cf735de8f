//! A block that the store refuses for its rows is halved until each event that it refuses is
//! alone: the others are counted, and that one is told apart with the reason.
//!
//! The store's word alone costs no event. One is to blame only if the store took another one
//! meanwhile, with rows in every table: a constraint, a type or a server that is wrong refuses
//! all alike.

use std::{fmt, slice, sync::PoisonError};

use store::StoreError;

use crate::{Prepared, Process, ProcessError, rows::Rows};

/// How many events may fail alone, and none be taken, before it is asked whether the store
/// takes any.
const FEW: usize = 8;

/// An event that the store does not take, and will not when it comes again.
#[derive(Debug)]
pub struct Unstorable {
    /// Its place in the batch.
    pub index: usize,
    /// What the store said.
    pub reason: StoreError,
}

/// How much is told of what the store said: it goes into an answer and into a header.
const TOLD_CHARS: usize = 500;

impl fmt::Display for Unstorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason.to_string();
        // What follows quotes the event.
        let told = reason.split("Column values").next().unwrap_or_default();
        let told: String = told.chars().take(TOLD_CHARS).collect();
        write!(f, "cannot be stored: {told}")
    }
}

/// An event of another batch, which the store took, or may take.
pub(crate) struct Witness {
    prepared: Prepared,
    was_taken: bool,
}

impl Process {
    /// Counts what the store takes of a batch that it refused as a whole, and returns the rest.
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
                match self.count_block(block).await? {
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
        for unstorable in &alone {
            let event = &batch[unstorable.index];
            self.list(event, &unstorable.to_string()).await?;
        }
        Ok(alone)
    }

    /// Has the events list say why it is not counted. Where even that is refused, the topic of
    /// the dead says so alone.
    async fn list(&self, event: &Prepared, reason: &str) -> Result<(), ProcessError> {
        let asked = self.ask_registry(slice::from_ref(event)).await?;
        let mut rows = Rows::default();
        for winner in &asked.judged.winners {
            rows.add_unstorable(event, winner, asked.known_at, reason);
        }
        match self.store().insert_events(&rows.events).await {
            Err(error) if error.is_retryable() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Counts these events as one block; what is returned blames its rows.
    async fn count_block(&self, block: &[Prepared]) -> Result<Option<StoreError>, ProcessError> {
        let asked = self.ask_registry(block).await?;
        match self.write_block(block, &asked).await {
            Ok(()) => Ok(None),
            Err(ProcessError::Store(error)) if !error.is_retryable() => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the store takes an event that is not in `batch`. That event is counted
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
        match witness.filter(|witness| !is_in_batch(witness)) {
            Some(witness) => Ok(self.count_block(&[witness]).await?.is_none()),
            None => Ok(false),
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
