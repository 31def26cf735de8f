//! What librdkafka tells a subscription, and what both of its sides know: the thread that reads
//! and whoever works on the records.

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};
use tokio::sync::watch;

use crate::{
    client,
    group::{Statistics, next_epoch},
    progress::Progress,
};

pub(crate) type Partition = (Arc<str>, i32);

/// A member of a group whose records are finished one by one.
#[derive(Default)]
pub(crate) struct Member {
    group: String,
    partitions: Mutex<HashMap<Partition, Progress>>,
    // Told when a partition that was full has room again.
    room: Condvar,
    // What Kafka has; empty again after a commit that failed.
    committed: Mutex<HashMap<Partition, i64>>,
    /// Whether a first assignment has come, be it of nothing.
    pub(crate) joined: watch::Sender<bool>,
    /// Set when the end is to look like that of a process that was killed.
    pub(crate) abandoned: AtomicBool,
}

impl Member {
    pub(crate) fn of(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn partitions(&self) -> MutexGuard<'_, HashMap<Partition, Progress>> {
        lock(&self.partitions)
    }

    pub(crate) fn finish(&self, partition: &Partition, epoch: u64, offset: i64) {
        let mut partitions = self.partitions();
        let progress = partitions.get_mut(partition);
        let Some(progress) = progress.filter(|progress| progress.epoch == epoch) else {
            return;
        };
        progress.finish(offset);
        if progress.has_room() {
            self.room.notify_one();
        }
    }

    /// Waits up to `patience` until the partition has room, and returns whether it has.
    pub(crate) fn wait_for_room(&self, partition: &Partition, patience: Duration) -> bool {
        let is_full = |partitions: &mut HashMap<Partition, Progress>| {
            let progress = partitions.get(partition);
            progress.is_some_and(|progress| !progress.has_room())
        };
        let waited = self
            .room
            .wait_timeout_while(self.partitions(), patience, is_full);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Returns how many records are not finished, read or not; nothing while Kafka has not said
    /// it of every partition.
    pub(crate) fn lag(&self) -> Option<u64> {
        self.partitions().values().map(Progress::lag).sum()
    }

    /// Commits what was finished since the last time, of the partitions that `of` names or all.
    pub(crate) fn commit(
        &self,
        client: &BaseConsumer<Self>,
        of: Option<&TopicPartitionList>,
        mode: CommitMode,
    ) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        let partitions = self.partitions();
        let mut committed = lock(&self.committed);
        for (partition, progress) in partitions.iter() {
            let (topic, number) = (&*partition.0, partition.1);
            let is_meant = of.is_none_or(|of| of.find_partition(topic, number).is_some());
            let Some(position) = progress.position().filter(|_| is_meant) else {
                continue;
            };
            if committed.insert(partition.clone(), position) != Some(position) {
                offsets.add_partition_offset(topic, number, Offset::Offset(position))?;
            }
        }
        drop((partitions, committed));
        if offsets.count() == 0 {
            return Ok(());
        }
        let done = client.commit(&offsets, mode);
        if done.is_err() {
            lock(&self.committed).clear();
        }
        done
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, group = self.group, "kafka subscription");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) {
            let mut owned = self.partitions();
            for (topic, partition, uncommitted) in statistics.lags() {
                if let Some(progress) = owned.get_mut(&(topic.into(), partition)) {
                    progress.uncommitted = u64::try_from(uncommitted).ok();
                }
            }
        }
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, client: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (list, assigned) = match rebalance {
            Rebalance::Assign(list) => (list, true),
            Rebalance::Revoke(list) => (list, false),
            Rebalance::Error(_) => return,
        };
        if list.count() > 0 {
            tracing::debug!(
                group = self.group,
                ?list,
                assigned,
                "kafka partitions moved"
            );
        }
        // What is finished must not come again just because it moves.
        if !assigned
            && !self.abandoned.load(Ordering::Relaxed)
            && let Err(error) = self.commit(client, Some(list), CommitMode::Sync)
        {
            tracing::warn!(%error, group = self.group, "kafka did not take the offsets");
        }
        let mut partitions = self.partitions();
        for element in list.elements() {
            let partition: Partition = (element.topic().into(), element.partition());
            lock(&self.committed).remove(&partition);
            if assigned {
                partitions.insert(partition, Progress::new(next_epoch()));
            } else {
                partitions.remove(&partition);
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            self.joined.send_replace(true);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(%error, group = self.group, "kafka did not take the offsets");
            lock(&self.committed).clear();
        }
    }
}
