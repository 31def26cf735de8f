//! Push: each request brings one event, and those in flight together are taken as one batch.
//!
//! While a block is written the next one gathers, so a block has as many events as there are
//! requests in the time that one takes, and who comes alone waits for nobody. A request is answered
//! when its event is written, and a client that is gone by then changes nothing.
//!
//! Nobody promises an order here: deliveries of one identity can overtake each other, and be in
//! two instances at once. Whichever the registry is asked about first wins, and what was said of
//! all others holds: the identity is counted once in a window. Two things differ from the log's
//! order, and only if the deliveries differ: which of them it is that is counted (its time, or
//! its content), and, where an identity is sent anew more than a window after its first delivery
//! and once more in between, whether the last one still repeats the one in between.

use std::{sync::Arc, time::Duration};

use model::UsageEvent;
use stream::BatchLimits;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    Function,
    function::{count_retry, take},
};

/// How long a request waits for its answer, from its arrival: less than any delivery timeout of
/// Knative's, so that it is we who say "later".
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How long the senders of a block are given to come back, each with its next event, before the
/// next block begins. Else there are two halves that wait for each other, in twice as many blocks.
/// A block that takes less than that, as Valkey alone does, is sooner done twice than waited for.
const COME_BACK: Duration = Duration::from_millis(2);

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// As much as memory is for is under way.
    #[error("too many events are under way")]
    Busy,
    /// Valkey or ClickHouse is away, or slow.
    #[error("the event could not be counted yet")]
    Later,
    /// It can never be taken.
    #[error("{0}")]
    Dead(String),
}

/// An event that waits for its block.
struct Waiting {
    event: UsageEvent,
    size: usize,
    until: Instant,
    answer: oneshot::Sender<Result<(), PushError>>,
    _place: OwnedSemaphorePermit,
}

/// Takes events that come one by one. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Push {
    queue: mpsc::UnboundedSender<Waiting>,
    // Bytes that may be under way.
    budget: Arc<Semaphore>,
}

impl Push {
    /// Starts to give `function` blocks of at most `limits`, with at most `in_flight` bytes of
    /// events in memory.
    pub(crate) fn start<F: Function>(function: F, limits: BatchLimits, in_flight: usize) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(take_all(function, limits, waiting));
        Self {
            queue,
            budget: Arc::new(Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes a place for an event of `size` bytes, to be held from before its body is read.
    pub(crate) fn reserve(&self, size: usize) -> Result<OwnedSemaphorePermit, PushError> {
        let size = u32::try_from(size).map_err(|_| PushError::Busy)?;
        let budget = Arc::clone(&self.budget);
        budget
            .try_acquire_many_owned(size)
            .map_err(|_| PushError::Busy)
    }

    /// Has an event taken, and returns when it is written. Nobody waits for it after `until`.
    pub(crate) async fn take(
        &self,
        event: UsageEvent,
        place: OwnedSemaphorePermit,
        until: Instant,
    ) -> Result<(), PushError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            event,
            size: place.num_permits(),
            until,
            answer,
            _place: place,
        };
        self.queue.send(waiting).map_err(|_| PushError::Later)?;
        // A block that failed drops its answers.
        answered.await.unwrap_or(Err(PushError::Later))
    }
}

/// Takes block after block until nobody can bring an event any more.
async fn take_all<F: Function>(
    function: F,
    limits: BatchLimits,
    mut waiting: mpsc::UnboundedReceiver<Waiting>,
) {
    // How long a block takes, as far as is known.
    let mut takes = Duration::ZERO;
    while let Some(block) = gather(&mut waiting, limits, takes).await {
        let is_shared = block.len() > 1;
        let began = Instant::now();
        // A task of its own, so that a panic fails one block and not all that come after it.
        let taken = tokio::spawn(take_block(function.clone(), block)).await;
        let is_taken = taken.unwrap_or_else(|error| {
            tracing::error!(%error, "a block was not counted");
            false
        });
        // After one that failed, or that had nobody, whoever comes may try.
        takes = if is_taken {
            began.elapsed()
        } else {
            Duration::ZERO
        };
        // Who comes alone is not kept waiting.
        if is_shared && takes > COME_BACK {
            tokio::time::sleep(COME_BACK).await;
        }
    }
}

/// Waits for an event and takes it with all that wait already, but for those that cannot wait as
/// long as a block `takes`: they would be written and not answered, again and again.
async fn gather(
    waiting: &mut mpsc::UnboundedReceiver<Waiting>,
    limits: BatchLimits,
    takes: Duration,
) -> Option<Vec<Waiting>> {
    let mut block = Vec::new();
    let mut bytes = 0;
    let mut next = waiting.recv().await?;
    let answered_at = Instant::now() + takes;
    loop {
        // Else it comes again, and its work is spared.
        if !next.answer.is_closed() && next.until >= answered_at {
            bytes += next.size;
            block.push(next);
        }
        if block.len() >= limits.records || bytes >= limits.bytes {
            return Some(block);
        }
        match waiting.try_recv() {
            Ok(another) => next = another,
            Err(_) => return Some(block),
        }
    }
}

/// Takes a block and answers its requests, while any of them waits. Returns whether it did.
async fn take_block<F: Function>(function: F, block: Vec<Waiting>) -> bool {
    let Some(until) = block.iter().map(|waiting| waiting.until).max() else {
        return false;
    };
    let (events, answers): (Vec<_>, Vec<_>) = block
        .into_iter()
        .map(|waiting| (waiting.event, (waiting.answer, waiting._place)))
        .unzip();
    let refused = match timeout_at(until, take(&function, events)).await {
        Ok(Ok(refused)) => refused,
        Ok(Err(error)) => return failed::<F>(error, answers.len()),
        Err(elapsed) => return failed::<F>(elapsed.into(), answers.len()),
    };
    let mut results: Vec<_> = answers.iter().map(|_| Ok(())).collect();
    for refused in refused {
        results[refused.index] = Err(PushError::Dead(refused.reason));
    }
    for ((answer, _place), result) in answers.into_iter().zip(results) {
        // Whoever went away meanwhile sends it again, and finds it taken.
        answer.send(result).ok();
    }
    true
}

fn failed<F: Function>(error: anyhow::Error, events: usize) -> bool {
    count_retry::<F>("count a block");
    tracing::warn!(
        error = format!("{error:#}"),
        events,
        "cannot count a block yet"
    );
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::event;

    #[tokio::test]
    async fn who_cannot_wait_for_a_block_is_told_so_at_once() {
        let (queue, mut waiting) = mpsc::unbounded_channel();
        let budget = Arc::new(Semaphore::new(3));
        let mut answers = Vec::new();
        for (id, seconds) in [("0", 8), ("1", 18), ("2", 20)] {
            let (answer, answered) = oneshot::channel();
            let waiting = Waiting {
                event: event(id),
                size: 1,
                until: Instant::now() + Duration::from_secs(seconds),
                answer,
                _place: Arc::clone(&budget).try_acquire_owned().unwrap(),
            };
            assert!(queue.send(waiting).is_ok());
            answers.push(answered);
        }
        let takes = Duration::from_secs(12);
        let block = gather(&mut waiting, BatchLimits::default(), takes).await;
        let block = block.unwrap();
        let ids: Vec<_> = block
            .iter()
            .map(|waiting| waiting.event.id.as_str())
            .collect();
        assert_eq!(ids, ["1", "2"]);
        assert!(answers.remove(0).await.is_err(), "it is answered already");
        assert_eq!(budget.available_permits(), 1);
    }
}
