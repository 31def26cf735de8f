//! Eventing that runs: topics made, subscriptions in place, everything delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use axum::Router;
use futures::future::try_join_all;
use http::HeaderValue;
use stream::{
    ConsumeError, KafkaConfig, Lag, MAX_DEAD_BYTES, ProduceError, Producer, Start, Subscription,
    TopicError, create_topics, fix_start,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    deliver::{Counts, Deliverer, Roads, Status},
    delivery::Delivery,
    dispatch::{Dispatch, Failure, Reading},
    ingress::{Ingress, Outlet},
    ping,
    plan::{Name, Plan, Topic},
    spec::{ContentMode, Ordering},
};
use crate::network::Network;

/// How long a subscription may take to be in place.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The shortest that Kafka allows by default: members that do not come back are given up soon.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How long Kafka is left alone before it is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes on their way to Kafka.
const BUDGET: usize = 64 << 20;
/// How long the end may take in all.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Why eventing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A topic is not there.
    #[error("a topic cannot be made")]
    Topic(#[from] TopicError),
    /// Kafka cannot be written to.
    #[error("kafka cannot be written to")]
    Producer(#[from] ProduceError),
    /// A subscription cannot be made.
    #[error("{whose} cannot subscribe")]
    Subscribe {
        /// Whose it is.
        whose: String,
        /// Why.
        #[source]
        source: ConsumeError,
    },
    /// A subscription is not in place in time.
    #[error("{whose} has no partitions yet: is its group in use elsewhere?")]
    Late {
        /// Whose it is.
        whose: String,
    },
}

/// Brokers, triggers, sources and sinks that run.
///
/// Dropped, it leaves the same as a process that was killed: everything that was not committed
/// is delivered again by a successor. [`stop`](Self::stop) is the orderly end.
pub struct Eventing {
    ingress: Arc<Ingress>,
    parts: Arc<[Part]>,
    tasks: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
}

/// What there is to tell of a trigger or a source.
struct Part {
    kind: &'static str,
    name: Name,
    counts: Arc<Counts>,
    lags: Vec<Lag>,
}

/// A group of consumers that is about to be made.
struct Group {
    kind: &'static str,
    name: Name,
    bootstrap_servers: Vec<String>,
    topics: Vec<String>,
    id: String,
    start: Start,
    consumers: u16,
    dispatch: Arc<Dispatch>,
}

impl Eventing {
    /// Starts what `plan` says, and returns when no event that is posted from now on is missed.
    /// What is not for a broker or a KafkaSink goes out by `network`.
    pub async fn start(plan: Plan, network: Arc<dyn Network>) -> Result<Self, StartError> {
        make_topics(&plan).await?;
        let ingress = Arc::new(outlets(&plan)?);
        let stop = CancellationToken::new();
        let starter = Starter {
            roads: Roads {
                ingress: Arc::clone(&ingress),
                network,
            },
            stop: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        let mut parts = Vec::new();
        let mut groups = Vec::new();
        for trigger in plan.triggers {
            let (namespace, name) = &trigger.name;
            let replies = ingress.brokers.get(&trigger.broker).cloned();
            let id = format!("knative-trigger-{namespace}-{name}");
            let topic = &plan.brokers[&trigger.broker].topic;
            let to = (trigger.subscriber, trigger.delivery);
            let deliverer = starter.deliverer("Trigger", &trigger.name, to, replies);
            groups.push(Group {
                kind: "Trigger",
                name: trigger.name,
                bootstrap_servers: topic.bootstrap_servers.clone(),
                topics: vec![topic.name.clone()],
                id,
                start: Start::Latest,
                consumers: 1,
                dispatch: dispatch(
                    deliverer,
                    Reading::Trigger(trigger.filter),
                    trigger.ordering,
                ),
            });
        }
        for source in plan.sources {
            let to = (source.sink, source.delivery);
            let deliverer = starter.deliverer("KafkaSource", &source.name, to, None);
            let reading = Reading::Source {
                name: source.name.clone(),
                extensions: source.extensions,
            };
            groups.push(Group {
                kind: "KafkaSource",
                name: source.name,
                bootstrap_servers: source.bootstrap_servers,
                topics: source.topics,
                id: source.group,
                start: source.start,
                consumers: source.consumers,
                dispatch: dispatch(deliverer, reading, source.ordering),
            });
        }
        let joined = try_join_all(groups.into_iter().map(Group::join)).await?;
        for (group, subscriptions) in joined {
            parts.push(Part {
                kind: group.kind,
                name: group.name,
                counts: Arc::clone(&group.dispatch.deliverer.counts),
                lags: subscriptions.iter().map(Subscription::lag).collect(),
            });
            for subscription in subscriptions {
                tasks.spawn(Arc::clone(&group.dispatch).run(subscription));
            }
        }
        for ping in plan.pings {
            let to = (ping.sink.clone(), ping::delivery());
            let deliverer = starter.deliverer("PingSource", &ping.name, to, None);
            parts.push(Part {
                kind: "PingSource",
                name: ping.name.clone(),
                counts: Arc::clone(&deliverer.counts),
                lags: Vec::new(),
            });
            tasks.spawn(ping::run(ping, deliverer));
        }
        Ok(Self {
            ingress,
            parts: parts.into(),
            tasks,
            stop,
        })
    }

    /// Returns the doors of brokers, `POST /{namespace}/{broker}`, and, by their host, of
    /// KafkaSinks.
    pub fn ingress(&self) -> Router {
        self.ingress.router()
    }

    /// Returns what became of events so far, for each trigger and source.
    pub fn status(&self) -> Vec<Status> {
        self.reporter()()
    }

    /// Returns what tells the status, also after the end.
    pub fn reporter(&self) -> impl Fn() -> Vec<Status> + Clone + Send + Sync + 'static {
        let parts = Arc::clone(&self.parts);
        move || parts.iter().map(Part::status).collect()
    }

    /// Waits until something fails that only a new start mends. A call that is dropped misses
    /// nothing.
    pub async fn failure(&mut self) -> Failure {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(failure) = ended.map_err(Failure::from).flatten() {
                return failure;
            }
        }
        std::future::pending().await
    }

    /// Begins no more deliveries, gives those under way a while, and commits what is settled.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(failure) = ended.map_err(Failure::from).flatten() {
                    let cause = std::error::Error::source(&failure).map(tracing::field::display);
                    tracing::error!(%failure, cause, "what was under way is delivered again");
                }
            }
        };
        if timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("eventing did not end in time; the rest is delivered again");
        }
    }
}

impl Part {
    fn status(&self) -> Status {
        let counts = &self.counts;
        Status {
            kind: self.kind,
            namespace: self.name.0.clone(),
            name: self.name.1.clone(),
            delivered: counts.delivered.load(Relaxed),
            filtered: counts.filtered.load(Relaxed),
            replies: counts.replies.load(Relaxed),
            retries: counts.retries.load(Relaxed),
            failed: counts.failed.load(Relaxed),
            dead_letters: counts.dead_letters.load(Relaxed),
            lost: counts.lost.load(Relaxed),
            in_flight: counts.in_flight.load(Relaxed),
            lag: self.lags.iter().map(Lag::records).sum(),
        }
    }
}

struct Starter {
    roads: Roads,
    stop: CancellationToken,
}

impl Starter {
    fn deliverer(
        &self,
        kind: &str,
        (namespace, name): &Name,
        (to, delivery): (String, Delivery),
        replies: Option<Outlet>,
    ) -> Arc<Deliverer> {
        Arc::new(Deliverer {
            whose: format!("{kind} {namespace}/{name}"),
            // Kubernetes' names are letters, digits and dashes.
            namespace: HeaderValue::from_str(namespace).unwrap_or(HeaderValue::from_static("")),
            roads: self.roads.clone(),
            to,
            delivery,
            replies,
            counts: Arc::default(),
            stop: self.stop.clone(),
        })
    }
}

fn dispatch(deliverer: Arc<Deliverer>, reading: Reading, ordering: Ordering) -> Arc<Dispatch> {
    Arc::new(Dispatch {
        deliverer,
        reading,
        ordering,
    })
}

impl Group {
    /// Says where the group begins, then joins it with every consumer.
    async fn join(self) -> Result<(Self, Vec<Subscription>), StartError> {
        let mut config = KafkaConfig::new(self.bootstrap_servers.clone());
        config.session_timeout = SESSION_TIMEOUT;
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let whose = || format!("{} {}/{}", self.kind, self.name.0, self.name.1);
        let subscribe = |source| StartError::Subscribe {
            whose: whose(),
            source,
        };
        // While members of a process that was killed are not given up, Kafka takes no offsets
        // from elsewhere.
        let begun = Instant::now();
        while let Err(error) = fix_start(&config, &self.id, &topics, self.start).await {
            if !error.is_retryable() || begun.elapsed() > JOIN_TIMEOUT {
                return Err(subscribe(error));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let instances = (0..self.consumers).map(|n| format!("{}-{n}", self.id));
        let instances: Vec<String> = instances.collect();
        let members = instances
            .iter()
            .map(|instance| Subscription::join(&config, &self.id, instance, &topics));
        let joined = timeout(JOIN_TIMEOUT, try_join_all(members)).await;
        let joined = joined.map_err(|_| StartError::Late { whose: whose() })?;
        let subscriptions = joined.map_err(subscribe)?;
        Ok((self, subscriptions))
    }
}

/// Makes the topics that are absent. Those of KafkaSources too, for which a cluster waits: on
/// one machine nobody else would make them before the first event. They get as many partitions
/// as a broker's.
async fn make_topics(plan: &Plan) -> Result<(), TopicError> {
    let of_broker = plan.brokers.values().next().map(|broker| &broker.topic);
    let of_sources = plan.sources.iter().flat_map(|source| {
        source.topics.iter().map(|name| Topic {
            bootstrap_servers: source.bootstrap_servers.clone(),
            name: name.clone(),
            partitions: of_broker.and_then(|topic| topic.partitions),
            replication: of_broker.and_then(|topic| topic.replication),
            settings: BTreeMap::new(),
        })
    });
    let brokers = plan.brokers.values().map(|broker| broker.topic.clone());
    let sinks: BTreeSet<&str> = plan
        .sinks
        .values()
        .map(|sink| sink.topic.name.as_str())
        .collect();
    let of_sinks = plan.sinks.values().map(|sink| sink.topic.clone());
    for topic in brokers.chain(of_sources).chain(of_sinks) {
        let mut config = KafkaConfig::new(topic.bootstrap_servers);
        if sinks.contains(topic.name.as_str()) {
            // Dead letters are larger than what they were.
            config.dead_topic.clone_from(&topic.name);
        }
        config.partitions = topic.partitions.unwrap_or(config.partitions);
        config.replication = topic.replication;
        config.topic_settings = topic.settings;
        create_topics(&config, &[&topic.name]).await?;
    }
    Ok(())
}

/// Returns the doors of the plan, with one producer for each Kafka.
fn outlets(plan: &Plan) -> Result<Ingress, ProduceError> {
    let mut producers: BTreeMap<String, Producer> = BTreeMap::new();
    let mut outlet = |topic: &Topic, content_mode| {
        let servers = topic.bootstrap_servers.join(",");
        let producer = match producers.get(&servers) {
            Some(producer) => producer.clone(),
            None => {
                let config = KafkaConfig::new(topic.bootstrap_servers.clone());
                // What a broker's topic does not take, Kafka refuses.
                let topic = &config.topic;
                let producer = Producer::connect_to(topic, &config, BUDGET, MAX_DEAD_BYTES)?;
                producers.insert(servers, producer.clone());
                producer
            }
        };
        Ok(Outlet {
            producer,
            topic: topic.name.as_str().into(),
            content_mode,
        })
    };
    let mut ingress = Ingress::default();
    for (name, broker) in &plan.brokers {
        let outlet = outlet(&broker.topic, ContentMode::Binary)?;
        ingress.brokers.insert(name.clone(), outlet);
    }
    for (name, sink) in &plan.sinks {
        let outlet = outlet(&sink.topic, sink.content_mode)?;
        ingress.sinks.insert(name.clone(), outlet);
    }
    Ok(ingress)
}
