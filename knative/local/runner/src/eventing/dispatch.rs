//! From a subscription to a deliverer: which records are events for it, and how many at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use stream::{Arrival, CloudEvent, ConsumeError, Subscription};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::{JoinError, JoinSet},
    time::timeout,
};

use super::{
    deliver::{Deliverer, Fate},
    filter::Filter,
    plan::Name,
    spec::Ordering,
    wrap::{Place, wrap},
};

/// How many events a consumer has under way, unless they are in order.
const IN_FLIGHT: usize = 100;
/// How long events under way may take once we are to end.
const GRACE: Duration = Duration::from_secs(10);

/// What a record becomes.
pub(super) enum Reading {
    /// A Trigger's: events that pass.
    Trigger(Filter),
    /// A KafkaSource's: everything, with these extensions.
    Source {
        name: Name,
        extensions: BTreeMap<String, String>,
    },
}

/// The part that a trigger's or a source's consumers share.
pub(super) struct Dispatch {
    pub(super) deliverer: Arc<Deliverer>,
    pub(super) reading: Reading,
    pub(super) ordering: Ordering,
}

/// Why nothing is delivered any more until it is started anew. Nothing is lost: what is not
/// committed comes again.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A subscription ended.
    #[error("{whose} gets no more events")]
    Subscription {
        /// Whose it is.
        whose: String,
        /// Why.
        #[source]
        source: ConsumeError,
    },
    /// A delivery broke off.
    #[error("a delivery broke off")]
    Delivery(#[from] JoinError),
}

impl Dispatch {
    /// Delivers what arrives until it is told to stop, and commits what is settled. Dropped, or
    /// after a failure, it leaves the rest to a successor.
    pub(super) async fn run(
        self: Arc<Self>,
        mut subscription: Subscription,
    ) -> Result<(), Failure> {
        let mut tasks = JoinSet::new();
        match self.ordering {
            Ordering::Unordered => self.unordered(&mut subscription, &mut tasks).await?,
            Ordering::Ordered => self.ordered(&mut subscription, &mut tasks).await?,
        }
        let settled = async {
            while let Some(ended) = tasks.join_next().await {
                ended?;
            }
            Ok::<_, JoinError>(())
        };
        match timeout(GRACE, settled).await {
            Ok(settled) => settled?,
            Err(_elapsed) => tracing::warn!(
                whose = self.deliverer.whose,
                "events under way are delivered again"
            ),
        }
        let closed = subscription.close().await;
        closed.map_err(|error| self.failure(error))
    }

    async fn unordered(
        self: &Arc<Self>,
        subscription: &mut Subscription,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), Failure> {
        let stop = self.deliverer.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = tasks.join_next() => ended?,
                arrival = subscription.next(), if tasks.len() < IN_FLIGHT => {
                    let arrival = arrival.map_err(|error| self.failure(error))?;
                    tasks.spawn(Arc::clone(self).settle(arrival));
                }
            }
        }
    }

    async fn ordered(
        self: &Arc<Self>,
        subscription: &mut Subscription,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), Failure> {
        let stop = self.deliverer.stop.clone();
        let mut queues: HashMap<(Arc<str>, i32), UnboundedSender<Arrival>> = HashMap::new();
        loop {
            let arrival = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = tasks.join_next() => {
                    ended?;
                    continue;
                }
                arrival = subscription.next() => arrival.map_err(|error| self.failure(error))?,
            };
            let partition = (Arc::clone(&arrival.topic), arrival.partition);
            let queue = queues.entry(partition).or_insert_with(|| {
                let (sender, mut arrivals) = unbounded_channel();
                let this = Arc::clone(self);
                tasks.spawn(async move {
                    while let Some(arrival) = arrivals.recv().await
                        && !this.deliverer.stop.is_cancelled()
                    {
                        Arc::clone(&this).settle(arrival).await;
                    }
                });
                sender
            });
            // Its task has ended when we are to, or by a panic, which is the next thing we hear.
            queue.send(arrival).ok();
        }
    }

    async fn settle(self: Arc<Self>, arrival: Arrival) {
        let receipt = &arrival.receipt;
        if !receipt.is_ours() {
            return;
        }
        let Arrival {
            topic,
            partition,
            offset,
            recorded_at,
            content,
            receipt,
        } = arrival;
        let place = Place {
            topic: &topic,
            partition,
            offset,
            recorded_at,
        };
        let counts = &self.deliverer.counts;
        let content = content.map(|event| placed(event, place));
        let event = match (&self.reading, content) {
            (Reading::Trigger(filter), Ok(event)) if filter.matches(&event) => event,
            (Reading::Trigger(_), Ok(_)) => {
                counts.filtered.fetch_add(1, Relaxed);
                return receipt.finish();
            }
            (Reading::Trigger(_), Err(foreign)) => {
                counts.failed.fetch_add(1, Relaxed);
                counts.lost.fetch_add(1, Relaxed);
                let (whose, why) = (&self.deliverer.whose, &foreign.reason);
                tracing::error!(whose, ?place, %why, "record in a broker's topic is no event");
                return receipt.finish();
            }
            (Reading::Source { extensions, .. }, Ok(event)) => extended(event, extensions),
            (Reading::Source { name, extensions }, Err(foreign)) => {
                let event = placed(wrap(name, place, foreign.record), place);
                extended(event, extensions)
            }
        };
        if self.deliverer.deliver(event, Some(&receipt)).await == Fate::Settled {
            receipt.finish();
        }
    }

    fn failure(&self, source: ConsumeError) -> Failure {
        let whose = self.deliverer.whose.clone();
        Failure::Subscription { whose, source }
    }
}

/// Says in an event where it was read, as Knative does before it filters.
fn placed(event: CloudEvent, at: Place<'_>) -> CloudEvent {
    event
        .with_extension("knativekafkapartition", at.partition.to_string())
        .with_extension("knativekafkaoffset", at.offset.to_string())
}

fn extended(event: CloudEvent, extensions: &BTreeMap<String, String>) -> CloudEvent {
    let extend =
        |event: CloudEvent, (name, value): (&String, &String)| event.with_extension(name, value);
    extensions.iter().fold(event, extend)
}
