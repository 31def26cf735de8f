//! A record that is no CloudEvent is buried, and its partition goes on.

use std::time::Duration;

use stream::{KafkaConfig, Producer, Record};
use tests::stack::Stack;

use crate::support::{METERS, call, total};

#[tokio::test]
async fn a_record_that_is_no_event_does_not_stop_its_partition() {
    let stack = Stack::start(METERS).await.unwrap();
    let broker =
        std::env::var("OPENMETER_KAFKA_BROKER").unwrap_or_else(|_| "127.0.0.1:9092".to_owned());
    let kafka = KafkaConfig::new(vec![broker]);
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
