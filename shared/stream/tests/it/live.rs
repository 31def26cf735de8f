//! Producer and consumer on a real Kafka: OPENMETER_KAFKA_BROKER, by default 127.0.0.1:9092.

use std::{
    collections::HashSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use model::UsageEvent;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    mocking::MockCluster,
    types::RDKafkaRespErr,
};
use stream::{
    Batch, BatchLimits, CloudEvent, Committed, Consumer, Graves, KafkaConfig, ProduceError,
    Producer, Record, create_topics,
};

const BUDGET: usize = 64 << 20;
const DEADLINE: Duration = Duration::from_secs(30);

fn config(name: &str) -> KafkaConfig {
    let broker = std::env::var("OPENMETER_KAFKA_BROKER");
    let broker = broker.unwrap_or_else(|_| "127.0.0.1:9092".to_owned());
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let mut config = KafkaConfig::new(vec![broker]);
    config.topic = format!("test.stream.{name}.{now}");
    config.dead_topic = format!("{}.dead", config.topic);
    config.partitions = 4;
    config.retention = Duration::from_secs(600);
    config
}

async fn topics(config: &KafkaConfig) {
    let created = create_topics(config, &[&config.topic, &config.dead_topic]).await;
    created.unwrap_or_else(|error| {
        panic!("these tests need Kafka at {:?}: {error:?}", config.brokers)
    });
}

fn limits(records: usize) -> BatchLimits {
    BatchLimits {
        records,
        wait: Duration::from_millis(50),
        ..BatchLimits::default()
    }
}

async fn next(consumer: &mut Consumer, records: usize) -> Batch {
    let batch = tokio::time::timeout(DEADLINE, consumer.next_batch(limits(records))).await;
    batch.expect("a batch before the deadline").unwrap()
}

/// Takes batches until `count` events have come, and commits them.
async fn take(consumer: &mut Consumer, count: usize) -> Vec<UsageEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = next(consumer, count - events.len()).await;
        consumer.commit(&batch).await.unwrap();
        events.extend(batch.events);
    }
    events
}

fn event(id: usize) -> CloudEvent {
    CloudEvent::new(id.to_string(), "/gw", "t")
        .with_time("2026-01-31T10:20:30Z".parse().unwrap())
        .with_data("application/json", format!("{{ \"n\":{id}.10 }}"))
}

#[tokio::test]
async fn what_was_sent_is_in_the_topic_byte_for_byte() {
    let config = config("bytes");
    topics(&config).await;
    topics(&config).await;
    let producer = Producer::connect(&config, BUDGET).unwrap();
    producer.ping(DEADLINE).await.unwrap();
    producer.send((0..5000).map(event).collect()).await.unwrap();
    producer.send(vec![]).await.unwrap();

    let mut consumer = Consumer::connect(&config, &config.topic).unwrap();
    let events = take(&mut consumer, 5000).await;
    let ids: HashSet<_> = events.iter().map(|event| event.id.clone()).collect();
    assert_eq!(ids.len(), 5000);
    for event in events {
        let sent = format!("{{ \"n\":{}.10 }}", event.id);
        assert_eq!(event.data.as_deref(), Some(sent.as_bytes()));
        assert_eq!(event.time.to_string(), "2026-01-31T10:20:30Z");
    }
    consumer.close().await;
}

#[tokio::test]
async fn what_was_committed_is_not_read_again_and_the_rest_is() {
    let config = config("commit");
    topics(&config).await;
    let producer = Producer::connect(&config, BUDGET).unwrap();
    producer.send((0..100).map(event).collect()).await.unwrap();

    let mut consumer = Consumer::connect(&config, &config.topic).unwrap();
    let first = next(&mut consumer, 30).await;
    assert_eq!(first.len(), 30);
    assert_eq!(consumer.commit(&first).await.unwrap(), Committed::All);
    let lost = next(&mut consumer, 10).await;
    consumer.close().await;

    let mut consumer = Consumer::connect(&config, &config.topic).unwrap();
    let rest = take(&mut consumer, 70).await;
    let ids = |events: &[UsageEvent]| -> HashSet<String> {
        events.iter().map(|event| event.id.clone()).collect()
    };
    assert!(ids(&rest).is_superset(&ids(&lost.events)));
    assert!(ids(&rest).is_disjoint(&ids(&first.events)));
    consumer.close().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_no_records() {
    let config = config("dropped");
    topics(&config).await;
    let mut consumer = Consumer::connect(&config, &config.topic).unwrap();
    for _ in 0..3 {
        let early = tokio::time::timeout(Duration::from_millis(1), consumer.next_batch(limits(10)));
        assert!(early.await.is_err());
    }
    let producer = Producer::connect(&config, BUDGET).unwrap();
    producer.send((0..20).map(event).collect()).await.unwrap();
    assert_eq!(take(&mut consumer, 20).await.len(), 20);
    consumer.close().await;
}

#[tokio::test]
async fn a_record_that_is_no_event_goes_to_the_dead_as_it_is() {
    let config = config("dead");
    topics(&config).await;
    let producer = Producer::connect(&config, BUDGET).unwrap();
    let poison = Record {
        key: Some(b"k".to_vec()),
        headers: vec![
            ("ce_id".to_owned(), None),
            ("h".to_owned(), Some(vec![0xff])),
        ],
        value: Some(vec![0, 1, 2]),
    };
    producer.send_record(&config.topic, &poison).await.unwrap();
    producer.send(vec![event(1)]).await.unwrap();

    let mut consumer = Consumer::connect(&config, &config.topic).unwrap();
    let mut batch = next(&mut consumer, 2).await;
    while batch.dead.is_empty() {
        batch = next(&mut consumer, 2).await;
    }
    assert_eq!(batch.dead[0].reason.to_string(), "specversion is required");
    let graves = Graves::connect(&config, BUDGET).unwrap();
    graves.bury(&config.topic, &batch.dead).await.unwrap();
    consumer.close().await;

    let mut undertaker = Consumer::connect_to(&config, &config.topic, &config.dead_topic).unwrap();
    let dead = next(&mut undertaker, 1).await.dead;
    assert_eq!(dead[0].value(), Some(&[0, 1, 2][..]));
    undertaker.close().await;
}

#[tokio::test]
async fn more_dead_than_the_budget_holds_are_buried_once_each() {
    let config = config("graves");
    topics(&config).await;
    let producer = Producer::connect(&config, BUDGET).unwrap();
    for offset in 0..10 {
        let poison = Record {
            key: Some(vec![offset]),
            headers: vec![("h".to_owned(), Some(vec![b'h'; 1 << 10]))],
            value: Some(vec![b'x'; 1 << 20]),
        };
        producer.send_record(&config.topic, &poison).await.unwrap();
    }
    let mut consumer = Consumer::connect(&config, &config.topic).unwrap();
    let mut dead = Vec::new();
    while dead.len() < 10 {
        dead.extend(next(&mut consumer, 10 - dead.len()).await.dead);
    }
    consumer.close().await;

    let graves = Graves::connect(&config, 1 << 20).unwrap();
    graves.bury(&config.topic, &dead).await.unwrap();
    let mut undertaker = Consumer::connect_to(&config, &config.topic, &config.dead_topic).unwrap();
    let mut buried = 0;
    while let Ok(batch) =
        tokio::time::timeout(Duration::from_secs(3), undertaker.next_batch(limits(20))).await
    {
        buried += batch.unwrap().dead.len();
    }
    assert_eq!(buried, 10);
    undertaker.close().await;
}

#[tokio::test]
async fn a_topic_that_takes_less_than_ours_gets_what_it_takes() {
    let mut config = config("small-graves");
    config.partitions = 1;
    topics(&config).await;
    let producer = Producer::connect(&config, BUDGET).unwrap();
    // No compression makes it fewer.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let noise: Vec<_> = noise.take(2_000_000).collect();
    for len in [10, 2_000_000, 10] {
        let poison = Record {
            value: Some(noise[..len].to_vec()),
            ..Record::default()
        };
        producer.send_record(&config.topic, &poison).await.unwrap();
    }
    let mut consumer = Consumer::connect(&config, &config.topic).unwrap();
    let mut dead = Vec::new();
    while dead.len() < 3 {
        dead.extend(next(&mut consumer, 3 - dead.len()).await.dead);
    }
    consumer.close().await;

    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", config.brokers.join(","))
        .create()
        .unwrap();
    for (limit, kept) in [("1048588", 900_000..1_000_000), ("2000", 0..1)] {
        config.dead_topic = format!("{}.dead.{limit}", config.topic);
        let topic = NewTopic::new(&config.dead_topic, 1, TopicReplication::Fixed(1));
        let topic = topic.set("max.message.bytes", limit);
        let created = admin.create_topics(&[topic], &AdminOptions::new()).await;
        created.unwrap()[0].as_ref().unwrap();

        let graves = Graves::connect(&config, BUDGET).unwrap();
        graves.bury(&config.topic, &dead).await.unwrap();
        let mut undertaker =
            Consumer::connect_to(&config, &config.dead_topic, &config.dead_topic).unwrap();
        let mut found = HashSet::new();
        while found.len() < 2 {
            for record in next(&mut undertaker, 10).await.dead {
                found.insert(record.value().unwrap().len());
            }
        }
        found.remove(&10);
        assert!(found.iter().all(|len| kept.contains(len)), "{found:?}");
        undertaker.close().await;
    }
}

#[tokio::test]
async fn keys_and_headers_count_in_a_batch() {
    let config = config("bytes-of-headers");
    topics(&config).await;
    let producer = Producer::connect(&config, BUDGET).unwrap();
    for _ in 0..10 {
        let mut record = stream::kafka::encode(&event(1));
        record.key = Some(vec![b'k'; 1 << 10]);
        let long = Some(vec![b'h'; 9 << 10]);
        record.headers.push(("h".to_owned(), long.clone()));
        producer.send_record(&config.topic, &record).await.unwrap();
        // One that is no event weighs as much.
        record.headers = vec![("h".to_owned(), long)];
        producer.send_record(&config.topic, &record).await.unwrap();
    }
    let mut consumer = Consumer::connect(&config, &config.topic).unwrap();
    let small = BatchLimits {
        bytes: 40 << 10,
        ..limits(100)
    };
    let mut read = 0;
    while read < 20 {
        let batch = tokio::time::timeout(DEADLINE, consumer.next_batch(small)).await;
        let batch = batch.expect("a batch before the deadline").unwrap();
        assert!(batch.len() <= 4, "{} records of 10 KiB", batch.len());
        read += batch.len();
    }
    consumer.close().await;
}

#[tokio::test]
async fn a_batch_of_partitions_that_moved_is_not_committed() {
    let config = config("moved");
    topics(&config).await;
    let producer = Producer::connect(&config, BUDGET).unwrap();
    producer.send((0..400).map(event).collect()).await.unwrap();
    let mut first = Consumer::connect(&config, &config.topic).unwrap();
    let old = next(&mut first, 400).await;

    let mut second = Consumer::connect(&config, &config.topic).unwrap();
    // The first gives partitions up only while it polls, which it does while it waits for more.
    let started = Instant::now();
    let (mut stolen, mut sent) = (Vec::new(), 400);
    while stolen.is_empty() && started.elapsed() < DEADLINE {
        producer.send(vec![event(sent)]).await.unwrap();
        sent += 1;
        let polling = tokio::time::timeout(Duration::from_millis(200), first.next_batch(limits(1)));
        let stealing =
            tokio::time::timeout(Duration::from_millis(200), second.next_batch(limits(400)));
        let (_, batch) = tokio::join!(polling, stealing);
        if let Ok(batch) = batch {
            stolen = batch.unwrap().events;
        }
    }
    assert!(!stolen.is_empty(), "the second consumer got partitions");
    assert_eq!(first.commit(&old).await.unwrap(), Committed::Rebalanced);
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_kafka_that_is_away_is_told_within_the_timeout() {
    let mut config = config("away");
    config.brokers = vec!["127.0.0.1:1".to_owned()];
    config.delivery_timeout = Duration::from_millis(500);
    let producer = Producer::connect(&config, BUDGET).unwrap();
    let error = producer.send(vec![event(1)]).await.unwrap_err();
    assert!(matches!(error, ProduceError::Unavailable(_)), "{error:?}");
    assert!(error.is_retryable());
    assert!(producer.ping(Duration::from_millis(200)).await.is_err());
    assert_eq!(producer.fatal_error(), None);
    assert!(create_topics(&config, &[&config.topic]).await.is_err());
}

#[tokio::test]
async fn a_ping_misses_a_topic_that_is_absent_and_does_not_make_it() {
    let config = config("absent");
    let producer = Producer::connect(&config, BUDGET).unwrap();
    for _ in 0..2 {
        let error = producer.ping(DEADLINE).await.unwrap_err();
        assert!(matches!(error, ProduceError::Unavailable(_)), "{error:?}");
    }
    let made = producer.has_topics(&[&config.topic], DEADLINE).await;
    assert!(!made.unwrap());
}

#[tokio::test]
async fn a_ping_misses_a_topic_that_takes_nothing() {
    let kafka = MockCluster::new(1).unwrap();
    let mut config = config("leaderless");
    config.brokers = vec![kafka.bootstrap_servers()];
    let topic = config.topic.clone();
    kafka.create_topic(&topic, 2, 1).unwrap();
    let producer = Producer::connect(&config, BUDGET).unwrap();
    let is_there = async || producer.ping(DEADLINE).await.is_ok();
    assert!(is_there().await);
    kafka.partition_leader(&topic, 0, None).unwrap();
    assert!(is_there().await, "the other partition has a leader");
    kafka.partition_leader(&topic, 1, None).unwrap();
    assert!(!is_there().await);
    kafka.partition_leader(&topic, 1, Some(1)).unwrap();
    assert!(is_there().await);
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    kafka.topic_error(&topic, error).unwrap();
    assert!(!is_there().await);
    assert!(producer.has_topics(&[&topic], DEADLINE).await.unwrap());
}

#[tokio::test]
async fn the_budget_is_taken_before_and_given_back_after() {
    let mut config = config("budget");
    config.brokers = vec!["127.0.0.1:1".to_owned()];
    config.delivery_timeout = Duration::from_millis(500);
    let producer = Producer::connect(&config, 4096).unwrap();
    let sent = tokio::join!(
        producer.send(vec![event(1)]),
        producer.send((0..3).map(event).collect()),
        producer.send(vec![event(4)]),
    );
    assert!(matches!(sent.0, Err(ProduceError::Unavailable(_))));
    assert!(matches!(sent.1, Err(ProduceError::Busy)), "{:?}", sent.1);
    assert!(matches!(sent.2, Err(ProduceError::Unavailable(_))));
    let again = producer.send((0..3).map(event).collect()).await;
    assert!(matches!(again, Err(ProduceError::Unavailable(_))));
}

#[tokio::test]
async fn a_record_that_kafka_does_not_take_is_not_retried() {
    let config = config("large");
    topics(&config).await;
    let producer = Producer::connect(&config, BUDGET).unwrap();
    let large = CloudEvent::new("1", "s", "t").with_data("text/plain", vec![b'x'; 3 << 20]);
    let error = producer.send(vec![large]).await.unwrap_err();
    assert!(matches!(error, ProduceError::TooLarge));
    assert!(!error.is_retryable());
}
