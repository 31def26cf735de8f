//! A record that is no CloudEvent is buried, and its partition goes on.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
    producer::{FutureProducer, FutureRecord},
};
use stream::{KafkaConfig, Producer, Record};
use tests::stack::Stack;

use crate::support::{METERS, call, total};

fn broker() -> String {
    std::env::var("OPENMETER_KAFKA_BROKER").unwrap_or_else(|_| "127.0.0.1:9092".to_owned())
}

#[tokio::test]
async fn a_record_that_is_no_event_does_not_stop_its_partition() {
    let stack = Stack::start(METERS).await.unwrap();
    let kafka = KafkaConfig::new(vec![broker()]);
    let producer = Producer::connect(&kafka, 1 << 20).unwrap();
    for value in [Some(b"not an event".to_vec()), None, Some(vec![0xff; 10])] {
        // Some in each partition.
        for key in 0..8_u8 {
            let record = Record {
                key: Some(vec![key]),
                headers: Vec::new(),
                value: value.clone(),
            };
            producer.send_record(stack.name(), &record).await.unwrap();
        }
    }
    stack
        .post_events(&[call("1", "tpp-1", "2024-01-15T10:30:00Z", 1)])
        .await
        .unwrap();
    stack.wait_until_counted(25).await.unwrap();
    assert_eq!(total(&stack, "api_calls").await, "1");

    let mut dead = kafka;
    dead.topic = format!("{}.dead", stack.name());
    let mut graves = stream::Consumer::connect(&dead, &format!("{}.graves", stack.name())).unwrap();
    let mut found = 0;
    while found < 24 {
        let limits = stream::BatchLimits::default();
        let batch = tokio::time::timeout(Duration::from_secs(20), graves.next_batch(limits)).await;
        found += batch.expect("24 dead records").unwrap().len();
    }
    assert_eq!(found, 24);
    graves.close().await;
    stack.stop().await.unwrap();
}

/// Bytes that no compression makes fewer.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A header of a buried record.
fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(found.value?).into_owned())
}

#[tokio::test]
async fn records_as_large_as_kafka_takes_are_buried_and_do_not_stop_the_count() {
    let stack = Stack::start(METERS).await.unwrap();
    // Not ours: it takes what the broker takes, which looks at what compression makes of it.
    let foreign: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker())
        .set("message.max.bytes", (16 << 20).to_string())
        .set("compression.type", "lz4")
        .create()
        .unwrap();
    let full = noise((2 << 20) - 100);
    let blown_up = vec![b'x'; 8 << 20];
    for (key, value) in [("full", &full), ("blown up", &blown_up)] {
        let record = FutureRecord::to(stack.name()).key(key).payload(value);
        foreign.send(record, Duration::from_secs(10)).await.unwrap();
    }
    let long_key = vec![b'k'; 4 << 20];
    let record = FutureRecord::<_, [u8]>::to(stack.name()).key(&long_key);
    foreign.send(record, Duration::from_secs(10)).await.unwrap();
    stack
        .post_events(&[call("1", "tpp-1", "2024-01-15T10:30:00Z", 1)])
        .await
        .unwrap();
    stack.wait_until_counted(4).await.unwrap();
    assert_eq!(total(&stack, "api_calls").await, "1");

    let topic = format!("{}.dead", stack.name());
    let found = tokio::task::spawn_blocking(move || {
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker())
            .set("group.id", &topic)
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let metadata = reader.fetch_metadata(Some(&topic), Duration::from_secs(10));
        let mut all = TopicPartitionList::new();
        for partition in metadata.unwrap().topics()[0].partitions() {
            all.add_partition(&topic, partition.id());
        }
        reader.assign(&all).unwrap();
        let read = |_| {
            let message = reader.poll(Duration::from_secs(20)).expect("a dead record");
            let message = message.unwrap();
            assert_eq!(
                header(&message, "openmeter-dead-reason").as_deref(),
                Some("specversion is required")
            );
            assert!(header(&message, "openmeter-dead-offset").is_some());
            let truncated = header(&message, "openmeter-dead-truncated");
            let own = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
            (own(message.key()), own(message.payload()), truncated)
        };
        (0..3).map(read).collect::<Vec<_>>()
    })
    .await
    .unwrap();
    for (key, value, truncated) in found {
        match &key[..] {
            b"full" => assert!(value == full && truncated.is_none()),
            b"blown up" => {
                assert!(value.len() > 2 << 20 && blown_up.starts_with(&value));
                assert_eq!(truncated, Some((blown_up.len() + key.len()).to_string()));
            }
            _ => {
                assert!(long_key.starts_with(&key) && value.is_empty());
                assert_eq!(truncated, Some(long_key.len().to_string()));
            }
        }
    }
    stack.stop().await.unwrap();
}
