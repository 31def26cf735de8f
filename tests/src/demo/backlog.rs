//! What Kafka still holds for the functions: nothing once everything accepted is stored, since
//! offsets are committed after an event has gone on. Unlike a function's counters, they survive
//! it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::time::{Instant, sleep};

use super::{dead, names::Names, options::Mode};

const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Looks at topics and groups, as no member of them.
#[derive(Clone)]
pub(super) struct Backlog {
    // In the order in which an event passes them: one that has left the first before that is
    // looked at is seen in the next.
    stages: Vec<Stage>,
    /// Those of Deployments, by name.
    pulled: BTreeMap<&'static str, Stage>,
    dead_topics: [String; 2],
}

/// A topic as one group has it before it.
#[derive(Clone)]
struct Stage {
    client: Arc<BaseConsumer>,
    topic: String,
}

impl Backlog {
    pub(super) fn connect(brokers: &str, names: &Names, mode: Mode) -> anyhow::Result<Self> {
        let stage = |topic: &str, group: &str| {
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .set("group.id", group)
                .set("enable.auto.commit", "false")
                .create()?;
            anyhow::Ok(Stage {
                client: Arc::new(client),
                topic: topic.to_owned(),
            })
        };
        let mut stages = vec![stage(&names.broker_topic(), &names.trigger_group())?];
        if mode.pushes() {
            for group in [&names.push_group, &names.quota_push_group] {
                stages.push(stage(&names.topic, group)?);
            }
        }
        let mut pulled = BTreeMap::new();
        if mode.pulls() {
            for (deployment, group) in [
                ("process-pull", &names.pull_group),
                ("quota-pull", &names.quota_pull_group),
            ] {
                pulled.insert(deployment, stage(&names.topic, group)?);
            }
        }
        stages.extend(pulled.values().cloned());
        Ok(Self {
            stages,
            pulled,
            dead_topics: [names.ingest_dead_topic.clone(), names.dead_topic.clone()],
        })
    }

    /// Returns how many deliveries are to come, as far as the groups have committed: of what
    /// the broker has, the one to ingest and then one in each further stage.
    pub(super) async fn left(&self) -> anyhow::Result<u64> {
        let left = |backlog: &Self| {
            let mut left = 0;
            for (place, stage) in backlog.stages.iter().enumerate() {
                let deliveries = if place == 0 { backlog.stages.len() } else { 1 };
                left += stage.left()? * deliveries as u64;
            }
            Ok(left)
        };
        self.blocking(left)
            .await
            .context("ask kafka for the backlog")
    }

    /// Returns how much of what is left is for a Deployment, and nothing of what is none.
    pub(super) async fn left_to_pull(&self, name: &str) -> anyhow::Result<Option<u64>> {
        let Some(stage) = self.pulled.get(name).cloned() else {
            return Ok(None);
        };
        self.blocking(move |_| stage.left().map(Some))
            .await
            .context("ask kafka for the backlog of pull")
    }

    /// Returns how many dead letters there are, by cause.
    pub(super) async fn dead(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let read = |backlog: &Self| {
            let client = &backlog.stages[0].client;
            let mut causes = BTreeMap::new();
            for topic in &backlog.dead_topics {
                let ends = ends(client, topic)?;
                for cause in dead::causes(client, topic, &ends)? {
                    *causes.entry(cause).or_default() += 1;
                }
            }
            Ok(causes)
        };
        self.blocking(read)
            .await
            .context("ask kafka for dead letters")
    }

    /// Waits until nothing is left; an error if it does not get less for as long as `patience`.
    pub(super) async fn is_worked_off(
        &self,
        patience: Duration,
        seen: impl Fn(u64),
    ) -> anyhow::Result<()> {
        let (mut least, mut since) = (u64::MAX, Instant::now());
        loop {
            let left = self.left().await?;
            seen(left);
            if left == 0 {
                return Ok(());
            }
            if left < least {
                (least, since) = (left, Instant::now());
            }
            if since.elapsed() > patience {
                bail!("nothing was worked off for {patience:?}; {left} deliveries are left");
            }
            sleep(POLL).await;
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Self) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let backlog = self.clone();
        tokio::task::spawn_blocking(move || ask(&backlog)).await?
    }
}

impl Stage {
    fn left(&self) -> anyhow::Result<u64> {
        let ends = ends(&self.client, &self.topic)?;
        let mut asked = TopicPartitionList::new();
        for End { partition, .. } in &ends {
            asked.add_partition(&self.topic, *partition);
        }
        let committed = self.client.committed_offsets(asked, TIMEOUT)?;
        let left = ends.into_iter().map(|end| {
            let committed = committed.find_partition(&self.topic, end.partition);
            let done = match committed.map(|found| found.offset()) {
                Some(Offset::Offset(next)) => next,
                _ => end.first,
            };
            u64::try_from(end.next - done).unwrap_or_default()
        });
        Ok(left.sum())
    }
}

/// The offsets of a partition's first record and of the next one.
pub(super) struct End {
    pub(super) partition: i32,
    pub(super) first: i64,
    pub(super) next: i64,
}

/// Returns each partition's end; none for a topic that is not there.
fn ends(client: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<End>> {
    // All topics: asking for one by name may create it.
    let metadata = client.fetch_metadata(None, TIMEOUT)?;
    let Some(topic) = metadata.topics().iter().find(|known| known.name() == topic) else {
        return Ok(Vec::new());
    };
    let ends = topic.partitions().iter().map(|partition| {
        let partition = partition.id();
        let (first, next) = client.fetch_watermarks(topic.name(), partition, TIMEOUT)?;
        Ok(End {
            partition,
            first,
            next,
        })
    });
    ends.collect()
}
