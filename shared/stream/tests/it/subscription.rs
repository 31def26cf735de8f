//! Subscriptions on a real Kafka: what is finished, and what comes again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use stream::{
    Arrival, CloudEvent, KafkaConfig, Producer, Record, Start, Subscription, create_topics,
    fix_start,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A topic of its own with as many partitions as asked for.
struct Topic {
    config: KafkaConfig,
    producer: Producer,
}

impl Topic {
    async fn create(name: &str, partitions: u16) -> Self {
        let broker = std::env::var("OPENMETER_KAFKA_BROKER");
        let broker = broker.unwrap_or_else(|_| "127.0.0.1:9092".to_owned());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut config = KafkaConfig::new(vec![broker]);
        config.topic = format!("test.subscription.{name}.{}", now.as_nanos());
        config.partitions = partitions;
        config.session_timeout = Duration::from_secs(6);
        create_topics(&config, &[&config.topic]).await.unwrap();
        let producer = Producer::connect(&config, 1 << 20).unwrap();
        Self { config, producer }
    }

    async fn send(&self, ids: std::ops::Range<u32>) {
        for id in ids {
            let event = CloudEvent::new(id.to_string(), "/gw", "t")
                .with_data("application/json", format!("{{ \"n\": {id}.10 }}"));
            let topic = &self.config.topic;
            self.producer.send_to(topic, None, &event).await.unwrap();
        }
    }

    async fn fix_start(&self, start: Start) {
        let topics = [self.config.topic.as_str()];
        let fixed = fix_start(&self.config, topics[0], &topics, start);
        fixed.await.unwrap();
    }

    async fn join(&self, instance: &str) -> Subscription {
        let topics = [self.config.topic.as_str()];
        let joining = Subscription::join(&self.config, topics[0], instance, &topics);
        let joined = tokio::time::timeout(DEADLINE, joining).await;
        joined.expect("joined before the deadline").unwrap()
    }

    async fn delete(self) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.config.brokers.join(","))
            .create()
            .unwrap();
        let topics = [self.config.topic.as_str()];
        let deleted = admin.delete_topics(&topics, &AdminOptions::new()).await;
        deleted.unwrap()[0].as_ref().unwrap();
    }
}

async fn next(subscription: &mut Subscription) -> Arrival {
    let arrival = tokio::time::timeout(DEADLINE, subscription.next()).await;
    arrival.expect("a record before the deadline").unwrap()
}

async fn take(subscription: &mut Subscription, count: usize) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    while arrivals.len() < count {
        arrivals.push(next(subscription).await);
    }
    arrivals
}

/// Waits for longer than a partition that is full has to get room before it is paused.
async fn is_paused(subscription: &mut Subscription) {
    let more = tokio::time::timeout(Duration::from_secs(1), subscription.next()).await;
    assert!(more.is_err(), "{more:?} came of a full partition");
}

fn id(arrival: &Arrival) -> u32 {
    let event = arrival.content.as_ref().unwrap();
    event.id().parse().unwrap()
}

fn ids(arrivals: &[Arrival]) -> BTreeSet<u32> {
    arrivals.iter().map(id).collect()
}

#[tokio::test]
async fn a_group_begins_where_it_was_fixed_however_late_it_joins() {
    let topic = Topic::create("start", 3).await;
    topic.send(0..5).await;
    topic.fix_start(Start::Latest).await;
    topic.send(5..8).await;
    // What is fixed stays.
    topic.fix_start(Start::Earliest).await;
    let mut subscription = topic.join("a").await;
    assert_eq!(ids(&take(&mut subscription, 3).await), (5..8).collect());
    subscription.close().await.unwrap();

    let other = Topic::create("earliest", 3).await;
    other.send(0..5).await;
    other.fix_start(Start::Earliest).await;
    let mut subscription = other.join("a").await;
    assert_eq!(ids(&take(&mut subscription, 5).await), (0..5).collect());
    drop(subscription);
    topic.delete().await;
    other.delete().await;
}

#[tokio::test]
async fn who_is_killed_before_a_commit_gets_everything_again_at_once() {
    let topic = Topic::create("killed", 3).await;
    topic.fix_start(Start::Latest).await;
    let mut subscription = topic.join("a").await;
    topic.send(0..20).await;
    let first = take(&mut subscription, 20).await;
    let event = first[0].content.as_ref().unwrap();
    let sent = format!("{{ \"n\": {}.10 }}", event.id());
    assert_eq!(event.data(), Some(sent.as_bytes()));
    drop(subscription);

    let killed_at = Instant::now();
    let mut subscription = topic.join("a").await;
    assert_eq!(ids(&take(&mut subscription, 20).await), (0..20).collect());
    // Well within the session timeout, after which anybody would get them.
    assert!(killed_at.elapsed() < topic.config.session_timeout - Duration::from_secs(2));
    subscription.close().await.unwrap();
    // A receipt of the killed one does no harm.
    first
        .into_iter()
        .for_each(|arrival| arrival.receipt.finish());
    topic.delete().await;
}

#[tokio::test]
async fn what_is_not_finished_comes_again_with_what_follows_it() {
    let topic = Topic::create("finished", 1).await;
    topic.fix_start(Start::Latest).await;
    let mut subscription = topic.join("a").await;
    topic.send(0..10).await;
    for arrival in take(&mut subscription, 10).await {
        if id(&arrival) != 6 {
            arrival.receipt.finish();
        }
    }
    subscription.close().await.unwrap();

    let mut subscription = topic.join("a").await;
    let again = take(&mut subscription, 4).await;
    assert_eq!(again.iter().map(id).collect::<Vec<_>>(), [6, 7, 8, 9]);
    again
        .into_iter()
        .for_each(|arrival| arrival.receipt.finish());
    subscription.close().await.unwrap();

    let mut subscription = topic.join("a").await;
    topic.send(10..11).await;
    assert_eq!(id(&next(&mut subscription).await), 10);
    subscription.close().await.unwrap();
    topic.delete().await;
}

#[tokio::test]
async fn more_than_is_read_ahead_comes_in_order_and_once() {
    let topic = Topic::create("full", 1).await;
    topic.fix_start(Start::Latest).await;
    let mut subscription = topic.join("a").await;
    let lag = subscription.lag();
    let events = (0..3000).map(|id: u32| CloudEvent::new(id.to_string(), "/gw", "t"));
    topic.producer.send(events.collect()).await.unwrap();
    for first in [0, 1000, 2000] {
        let held = take(&mut subscription, 1000).await;
        assert!(
            held.iter()
                .map(|arrival| arrival.offset)
                .eq(first..first + 1000)
        );
        is_paused(&mut subscription).await;
        let behind = async {
            while lag.records() != Some(u64::try_from(3000 - first).unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        let known = tokio::time::timeout(DEADLINE, behind).await;
        assert!(known.is_ok(), "{:?} behind", lag.records());
        held.into_iter()
            .for_each(|arrival| arrival.receipt.finish());
    }
    let waited = Instant::now();
    while lag.records() != Some(0) {
        assert!(waited.elapsed() < DEADLINE, "{:?} behind", lag.records());
        tokio::task::yield_now().await;
    }
    subscription.close().await.unwrap();
    topic.delete().await;
}

#[tokio::test]
async fn a_partition_that_was_paused_when_it_went_is_read_when_it_comes_back() {
    let topic = Topic::create("back", 2).await;
    topic.fix_start(Start::Latest).await;
    let mut first = topic.join("a").await;
    let events = (0..4000).map(|id: u32| CloudEvent::new(id.to_string(), format!("/{id}"), "t"));
    topic.producer.send(events.collect()).await.unwrap();
    let held = take(&mut first, 2000).await;
    is_paused(&mut first).await;
    let mut second = topic.join("b").await;
    let moved = next(&mut second).await.partition;
    drop(second);
    let back = take(&mut first, 500).await;
    let offsets = back
        .iter()
        .map(|arrival| (arrival.partition, arrival.offset));
    assert!(offsets.eq((0..500).map(|offset| (moved, offset))));
    drop(held);
    first.close().await.unwrap();
    topic.delete().await;
}

#[tokio::test]
async fn two_members_share_and_one_takes_what_the_other_leaves() {
    let topic = Topic::create("shared", 4).await;
    topic.fix_start(Start::Latest).await;
    let mut first = topic.join("a").await;
    topic.send(0..40).await;
    let held = take(&mut first, 40).await;
    assert!(held.iter().all(|arrival| arrival.receipt.is_ours()));
    let mut second = topic.join("b").await;
    // What moves was not finished: the second member gets it again.
    let moved = next(&mut second).await;
    let waited = Instant::now();
    while held.iter().all(|arrival| arrival.receipt.is_ours()) {
        assert!(waited.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    let of_moved = |arrival: &&Arrival| arrival.partition == moved.partition;
    assert!(
        held.iter()
            .filter(of_moved)
            .all(|arrival| !arrival.receipt.is_ours())
    );
    // It cannot be finished by who lost it.
    held.into_iter()
        .for_each(|arrival| arrival.receipt.finish());
    first.close().await.unwrap();
    second.close().await.unwrap();

    let mut second = topic.join("b").await;
    while next(&mut second).await.partition != moved.partition {}
    second.close().await.unwrap();
    topic.delete().await;
}

#[tokio::test]
async fn a_record_that_is_no_event_arrives_as_it_is() {
    let topic = Topic::create("foreign", 1).await;
    topic.fix_start(Start::Latest).await;
    let mut subscription = topic.join("a").await;
    let record = Record {
        key: Some(b"k".to_vec()),
        headers: vec![("h".to_owned(), Some(vec![0xff])), ("n".to_owned(), None)],
        value: Some(vec![0, 1, 2]),
    };
    let sent = topic.producer.send_record(&topic.config.topic, &record);
    sent.await.unwrap();
    let foreign = next(&mut subscription).await.content.unwrap_err();
    assert_eq!(foreign.record, record);
    assert_eq!(foreign.reason.to_string(), "specversion is required");
    subscription.close().await.unwrap();
    topic.delete().await;
}
