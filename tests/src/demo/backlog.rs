//! What Kafka still holds for process: nothing once everything accepted is stored, since
//! offsets are committed after the rows are written. Unlike a process's counters, they survive
//! it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::time::{Instant, sleep};

use super::names::Names;

const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);

/// Looks at a topic and a group, as no member of it.
#[derive(Clone)]
pub(super) struct Backlog {
    client: Arc<BaseConsumer>,
    topic: String,
    dead_topic: String,
}

impl Backlog {
    pub(super) fn connect(brokers: &str, names: &Names) -> anyhow::Result<Self> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", &names.group)
            .set("enable.auto.commit", "false")
            .create()?;
        Ok(Self {
            client: Arc::new(client),
            topic: names.topic.clone(),
            dead_topic: names.dead_topic.clone(),
        })
    }

    /// Returns how many records the group has not committed.
    pub(super) async fn left(&self) -> anyhow::Result<u64> {
        self.blocking(|backlog| {
            let ends = backlog.ends(&backlog.topic)?;
            let mut asked = TopicPartitionList::new();
            for (partition, ..) in &ends {
                asked.add_partition(&backlog.topic, *partition);
            }
            let committed = backlog.client.committed_offsets(asked, TIMEOUT)?;
            let left = ends.into_iter().map(|(partition, first, end)| {
                let committed = committed
                    .find_partition(&backlog.topic, partition)
                    .map(|found| found.offset());
                let done = if let Some(Offset::Offset(next)) = committed {
                    next
                } else {
                    first
                };
                u64::try_from(end - done).unwrap_or_default()
            });
            Ok(left.sum())
        })
        .await
        .context("ask kafka for the backlog")
    }

    /// Returns how many records were put aside because they are no events.
    pub(super) async fn dead(&self) -> anyhow::Result<u64> {
        self.blocking(|backlog| {
            let ends = backlog.ends(&backlog.dead_topic)?;
            Ok(ends
                .into_iter()
                .map(|(_, first, end)| u64::try_from(end - first).unwrap_or_default())
                .sum())
        })
        .await
        .context("ask kafka for dead records")
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
                bail!("process has worked nothing off for {patience:?}; {left} events are left");
            }
            sleep(POLL).await;
        }
    }

    /// Returns each partition's first and next offset; none for a topic that is not there.
    fn ends(&self, topic: &str) -> anyhow::Result<Vec<(i32, i64, i64)>> {
        // All topics: asking for one by name may create it.
        let metadata = self.client.fetch_metadata(None, TIMEOUT)?;
        let Some(topic) = metadata.topics().iter().find(|known| known.name() == topic) else {
            return Ok(Vec::new());
        };
        let ends = topic.partitions().iter().map(|partition| {
            let (first, end) =
                self.client
                    .fetch_watermarks(topic.name(), partition.id(), TIMEOUT)?;
            Ok((partition.id(), first, end))
        });
        ends.collect()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Self) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let backlog = self.clone();
        tokio::task::spawn_blocking(move || ask(&backlog)).await?
    }
}
