//! From a subscription to a deliverer: which records are events for it, and how many at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use stream::{Arrival, CloudEvent, ConsumeError, Subscription};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
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
    /// Why it ended too soon.
    pub(super) broken: OnceLock<String>,
}

impl Dispatch {
    /// Delivers what arrives until it is told to stop, and commits what is settled. Dropped, it
    /// leaves everything to a successor.
    pub(super) async fn run(self: Arc<Self>, mut subscription: Subscription) {
        let mut tasks = JoinSet::new();
        let ended = match self.ordering {
            Ordering::Unordered => self.unordered(&mut subscription, &mut tasks).await,
            Ordering::Ordered => self.ordered(&mut subscription, &mut tasks).await,
        };
        if let Err(error) = ended {
            self.report(&error);
        }
        let settled = async { while tasks.join_next().await.is_some() {} };
        if timeout(GRACE, settled).await.is_err() {
            tracing::warn!(
                whose = self.deliverer.whose,
                "events under way are delivered again"
            );
        }
        if let Err(error) = subscription.close().await {
            self.report(&error);
        }
    }

    async fn unordered(
        self: &Arc<Self>,
        subscription: &mut Subscription,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), ConsumeError> {
        let stop = self.deliverer.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = tasks.join_next() => self.check(ended),
                arrival = subscription.next(), if tasks.len() < IN_FLIGHT => {
                    tasks.spawn(Arc::clone(self).settle(arrival?));
                }
            }
        }
    }

    async fn ordered(
        self: &Arc<Self>,
        subscription: &mut Subscription,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), ConsumeError> {
        let stop = self.deliverer.stop.clone();
        let mut queues: HashMap<(Arc<str>, i32), UnboundedSender<Arrival>> = HashMap::new();
        loop {
            let arrival = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = tasks.join_next() => {
                    self.check(ended);
                    continue;
                }
                arrival = subscription.next() => arrival?,
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
            if queue.send(arrival).is_err() {
                // A task of it ends only by a panic; the record is not finished.
                tracing::error!(
                    whose = self.deliverer.whose,
                    "partition is not delivered any more"
                );
            }
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
        if self.deliverer.deliver(event).await == Fate::Settled {
            receipt.finish();
        }
    }

    fn check(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            tracing::error!(whose = self.deliverer.whose, %error, "a delivery broke off");
        }
    }

    fn report(&self, error: &ConsumeError) {
        let whose = &self.deliverer.whose;
        let cause = std::error::Error::source(error);
        let cause = cause.map(ToString::to_string).unwrap_or_default();
        tracing::error!(whose, %error, cause, "subscription");
        // The first one stands for all.
        self.broken.get_or_init(|| format!("{error}: {cause}"));
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
