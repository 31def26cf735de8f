//! What a function does with events, whoever brings them.

use std::future::Future;

use model::{Prepared, UsageEvent};
use runtime::Meters;

use crate::Dead;

/// A function that takes events in batches.
///
/// A batch is applied, judged and written, in this order, and acknowledged when it is written.
/// Killed anywhere or failed, it comes again whole: each step may be done twice.
pub trait Function: Clone + Send + Sync + 'static {
    /// Its name in logs and metrics: `openmeter_{NAME}_retries_total`.
    const NAME: &'static str;

    /// What becomes of records that it cannot use.
    const DEAD: Dead;

    /// What judging has found out about a batch.
    type Asked: Send + Sync;

    /// Why a step has failed. It is tried again, whatever is said.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the meters that are applied to each event.
    fn meters(&self) -> &Meters;

    /// Finds or makes what it needs, unless that was done before. Called before the first batch,
    /// in push mode before each.
    fn prepare(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Asks what has to be known of a batch before it is written.
    ///
    /// Batches are judged in the order in which they were read, and one may be before the one
    /// before it is written.
    fn judge(
        &self,
        batch: &[Prepared],
    ) -> impl Future<Output = Result<Self::Asked, Self::Error>> + Send;

    /// Writes a batch, and returns the events that cannot be written, whatever is tried: all
    /// others are durable then.
    fn write(
        &self,
        batch: &[Prepared],
        asked: &Self::Asked,
    ) -> impl Future<Output = Result<Vec<Refused>, Self::Error>> + Send;
}

/// An event that a function will never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub reason: String,
}

/// Applies the meters that are in force now, on a thread of its own since it is the work of a
/// core.
pub(crate) async fn apply<F: Function>(
    function: &F,
    events: Vec<UsageEvent>,
) -> anyhow::Result<Vec<Prepared>> {
    let catalog = function.meters().current();
    let apply = move || -> Vec<_> {
        let prepare = |event| Prepared::new(&catalog, event);
        events.into_iter().map(prepare).collect()
    };
    Ok(tokio::task::spawn_blocking(apply).await?)
}

/// Takes a batch from end to end, and returns the events that the function refuses.
pub(crate) async fn take<F: Function>(
    function: &F,
    events: Vec<UsageEvent>,
) -> anyhow::Result<Vec<Refused>> {
    function.prepare().await?;
    let batch = apply(function, events).await?;
    let asked = function.judge(&batch).await?;
    Ok(function.write(&batch, &asked).await?)
}

/// Counts a step that is to be tried again.
pub(crate) fn count_retry<F: Function>(step: &'static str) {
    metrics::counter!(format!("openmeter_{}_retries_total", F::NAME), "step" => step).increment(1);
}
