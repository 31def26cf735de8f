//! How long a call takes to be debited: from its event's POST at the broker to the balance in
//! Valkey that has it, through the manifests as they are deployed, with process at work on the
//! same events.
//!
//! Calls come at a steady rate, and delays count from when each was due. Some are watched: their
//! subjects are many and take turns, so that the n-th debit of one is its n-th call's. The
//! baseline is the way of the very same events up to the topic of accepted events.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use ledger::{Account, Accounts};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Figure, ROUNDS, at,
    quota_load::{DEBITED_WITHIN, LOOK, PLENTY, at_rate, debited, event, send, warm_up},
};
use crate::demo::{Mode, wired::Wired};

/// Calls that are watched in a second; a subject of theirs has one every two seconds.
const WATCHED_A_SECOND: usize = 50;
const WATCHED: usize = 100;

/// Whose calls are not watched.
const OTHERS: usize = 50;

/// A round.
const SECONDS: usize = 20;

/// How long Kafka may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// By a consumer group, at a thousand calls a second.
pub(super) async fn pull() -> anyhow::Result<Vec<Figure>> {
    let names = ["quota_lag_pull_p50", "quota_lag_pull"];
    measure(names, Mode::Pull, 1000).await
}

/// By a KafkaSource, at two hundred.
pub(super) async fn push() -> anyhow::Result<Vec<Figure>> {
    let names = ["quota_lag_push_p50", "quota_lag_push"];
    measure(names, Mode::Push, 200).await
}

async fn measure(
    names: [&'static str; 2],
    mode: Mode,
    a_second: usize,
) -> anyhow::Result<Vec<Figure>> {
    let rounds = Wired::during(mode, async |wired| {
        for subject in (0..WATCHED).map(watched).chain((0..OTHERS).map(other)) {
            wired.grant(&subject, &PLENTY.to_string()).await?;
        }
        warm_up(wired, a_second).await?;
        Box::pin(watch(wired, a_second)).await
    });
    let rounds = Box::pin(rounds).await?;
    for round in &rounds {
        for (what, millis) in [("balance", &round.balance), ("topic", &round.topic)] {
            let [p50, p99, most] = [50, 99, 100].map(|percent| at(millis, percent));
            let name = names[1];
            println!(
                "{name:<22} {a_second}/s, to the {what}: p50 {p50:.1} ms, p99 {p99:.1} ms, most {most:.1} ms"
            );
        }
    }
    let percents = [
        (50, "ms to the balance (p50)"),
        (99, "ms to the balance (p99)"),
    ];
    let figures = names.into_iter().zip(percents);
    Ok(figures
        .map(|(name, (percent, unit))| Figure {
            name,
            ours: rounds
                .iter()
                .map(|round| at(&round.balance, percent))
                .collect(),
            baseline: rounds
                .iter()
                .map(|round| at(&round.topic, percent))
                .collect(),
            unit,
            against: "the same to the topic of accepted events",
        })
        .collect())
}

fn watched(n: usize) -> String {
    format!("watched-{n}")
}

fn other(n: usize) -> String {
    format!("other-{n}")
}

/// How many milliseconds each watched call of a round took.
#[derive(Debug, Default)]
struct Round {
    balance: Vec<f64>,
    topic: Vec<f64>,
}

/// What is on its way, and what came of this round.
#[derive(Debug, Default)]
struct Watch {
    /// When each call was due that is not debited yet, by watched subject.
    undebited: Vec<VecDeque<Instant>>,
    /// When each call was due that is not in the topic yet, by id.
    unread: HashMap<String, Instant>,
    round: Round,
}

impl Watch {
    /// Sees how often those were debited now, of whom `seen` has how often they were before.
    fn see(
        &mut self,
        accounts: impl Iterator<Item = (usize, Account)>,
        seen: &mut [u64],
    ) -> anyhow::Result<()> {
        for (n, account) in accounts {
            let debited = debited(&account, PLENTY)?;
            for _ in seen[n]..debited {
                let due = self.undebited[n].pop_front();
                let due = due.context("a call is debited twice")?;
                self.round.balance.push(millis_since(due));
            }
            seen[n] = debited;
        }
        Ok(())
    }
}

type Shared = Arc<Mutex<Watch>>;

fn lock(watch: &Shared) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis_since(due: Instant) -> f64 {
    due.elapsed().as_secs_f64() * 1000.0
}

async fn watch(wired: &Wired, a_second: usize) -> anyhow::Result<Vec<Round>> {
    let shared = Shared::default();
    lock(&shared).undebited.resize(WATCHED, VecDeque::new());
    let topic = Topic::open(&wired.options.kafka, wired.topic().to_owned());
    let topic = topic.await?;
    let stop = Stop::default();
    let mut watching = JoinSet::new();
    watching.spawn(watch_balances(wired.accounts()?, shared.clone()));
    let (seen, stopped) = (shared.clone(), stop.0.clone());
    watching.spawn_blocking(move || topic.watch(&seen, &stopped));
    let rounds = async {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            load(wired, a_second, round, &shared).await?;
            rounds.push(settled(&shared).await?);
        }
        Ok(rounds)
    };
    tokio::select! {
        rounds = rounds => rounds,
        ended = watching.join_next() => {
            ended.context("somebody watches")???;
            bail!("nobody watches any more")
        }
    }
}

/// Ends the thread that reads the topic, whatever else happens.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes the calls of a round.
async fn load(wired: &Wired, a_second: usize, round: usize, shared: &Shared) -> anyhow::Result<()> {
    let every = a_second / WATCHED_A_SECOND;
    at_rate(a_second, |n, due| {
        let id = format!("lag-{round}-{n}");
        if n == a_second * SECONDS {
            return None;
        }
        let subject = if n.is_multiple_of(every) {
            let turn = n / every % WATCHED;
            let mut watch = lock(shared);
            watch.undebited[turn].push_back(due);
            watch.unread.insert(id.clone(), due);
            watched(turn)
        } else {
            other(n % OTHERS)
        };
        Some(send(event(wired, &id, &subject, None)))
    })
    .await
}

/// Waits until all watched calls of a round were seen everywhere.
async fn settled(shared: &Shared) -> anyhow::Result<Round> {
    let expected = SECONDS * WATCHED_A_SECOND;
    let began = Instant::now();
    loop {
        {
            let mut watch = lock(shared);
            let Round { balance, topic } = &watch.round;
            if balance.len() == expected && topic.len() == expected {
                return Ok(std::mem::take(&mut watch.round));
            }
            ensure!(
                began.elapsed() < DEBITED_WITHIN,
                "of {expected} calls, {} were debited and {} came to the topic",
                balance.len(),
                topic.len()
            );
        }
        sleep(LOOK).await;
    }
}

/// Sees balances change, those of whom something is awaited. Ends with an error only.
async fn watch_balances(accounts: Accounts, shared: Shared) -> anyhow::Result<()> {
    let mut seen = vec![0; WATCHED];
    loop {
        let awaited: Vec<usize> = {
            let watch = lock(&shared);
            let awaited = |n: &usize| !watch.undebited[*n].is_empty();
            (0..WATCHED).filter(awaited).collect()
        };
        let names: Vec<String> = awaited.iter().copied().map(watched).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let now = accounts.accounts(&names).await?;
        lock(&shared).see(awaited.into_iter().zip(now), &mut seen)?;
        sleep(LOOK).await;
    }
}

/// A plain consumer of all that comes to the topic from now on.
struct Topic(BaseConsumer);

impl Topic {
    async fn open(brokers: &str, topic: String) -> anyhow::Result<Self> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let open = move || {
            let metadata = client.fetch_metadata(Some(&topic), TIMEOUT)?;
            let found = metadata.topics().first().context("the topic")?;
            let mut places = TopicPartitionList::new();
            for partition in found.partitions() {
                let (_, end) = client.fetch_watermarks(&topic, partition.id(), TIMEOUT)?;
                places.add_partition_offset(&topic, partition.id(), Offset::Offset(end))?;
            }
            client.assign(&places)?;
            Ok(Self(client))
        };
        tokio::task::spawn_blocking(open).await?
    }

    /// Sees records come, until it is to stop.
    fn watch(&self, shared: &Shared, stop: &AtomicBool) -> anyhow::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let Some(record) = self.0.poll(Duration::from_millis(100)) else {
                continue;
            };
            let record = record?;
            let mut headers = record.headers().into_iter().flat_map(|all| all.iter());
            let id = headers.find(|header| header.key == "ce_id");
            let id = id.and_then(|header| std::str::from_utf8(header.value?).ok());
            let mut watch = lock(shared);
            if let Some(due) = id.and_then(|id| watch.unread.remove(id)) {
                watch.round.topic.push(millis_since(due));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ledger::Standing;
    use model::Credits;

    use super::*;

    #[test]
    fn a_subjects_debits_are_its_calls_in_turn() {
        let account = |calls: i64, standing| Account {
            standing,
            balance: Credits::from_micros((PLENTY.cast_signed() - calls) * 1_000_000).unwrap(),
            limit: Some(Credits::ZERO),
            held: Credits::ZERO,
            base: Credits::ZERO,
            topups: 1,
            notified: 0,
            sealed: None,
        };
        let due = VecDeque::from([Instant::now(), Instant::now()]);
        let mut watch = Watch {
            undebited: vec![VecDeque::new(), due],
            ..Watch::default()
        };
        let (mut seen, ok) = (vec![0, 5], Standing::Ok);
        watch
            .see([(1, account(6, ok))].into_iter(), &mut seen)
            .unwrap();
        assert_eq!(
            (watch.round.balance.len(), watch.undebited[1].len()),
            (1, 1)
        );
        watch
            .see([(1, account(6, ok))].into_iter(), &mut seen)
            .unwrap();
        assert_eq!(watch.round.balance.len(), 1);
        watch
            .see([(1, account(7, ok))].into_iter(), &mut seen)
            .unwrap();
        assert_eq!(
            (watch.round.balance.len(), watch.undebited[1].len()),
            (2, 0)
        );
        for wrong in [
            account(8, ok),
            account(-1, ok),
            account(7, Standing::Unknown),
        ] {
            assert!(watch.see([(1, wrong)].into_iter(), &mut seen).is_err());
        }
    }
}
