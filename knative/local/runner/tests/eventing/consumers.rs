//! Order, commits and crashes, as Triggers and KafkaSources have them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use runner::eventing::Status;
use serde_json::json;
use stream::{KafkaConfig, Record};

use crate::support::{
    Received, Reply, Script, World, brokers, ids, kafka_sink, next, producer, status,
};

#[tokio::test]
async fn del_018_a_new_trigger_begins_with_the_next_event_and_misses_none() {
    let mut world = World::new("del-018");
    let script = Script::new(|_| status(202));
    let early = world.start(&script).await;
    for id in ["1", "2", "3", "4", "5"] {
        early.post(id, &[]).await;
    }
    early.stop().await;
    world.trigger("t", "a", json!({}));
    let running = world.start(&script).await;
    running.post("6", &[]).await;
    running.post("7", &[]).await;
    let status = running
        .until("t", |status| status.delivered == 2 && status.lag == Some(0))
        .await;
    assert_eq!(status.in_flight, 0);
    running.stop().await;
    assert_eq!(ids(&script.requests(2).await), BTreeSet::from(["6", "7"]));
    world.clean().await;
}

#[tokio::test]
async fn del_019_a_trigger_that_is_away_for_a_while_gets_what_it_missed_once() {
    let mut world = World::new("del-019");
    world.trigger("t", "a", json!({}));
    let script = Script::new(|_| status(202));
    let running = world.start(&script).await;
    running.post("1", &[]).await;
    running.until("t", |status| status.delivered == 1).await;
    running.stop().await;
    world.remove("Trigger", "t");
    let running = world.start(&script).await;
    running.post("2", &[]).await;
    running.stop().await;
    assert_eq!(script.count(), 1);
    world.trigger("t", "a", json!({}));
    let running = world.start(&script).await;
    running.post("3", &[]).await;
    running.until("t", |status| status.delivered == 2).await;
    running.stop().await;
    let received = script.requests(3).await;
    assert_eq!(received.len(), 3);
    assert_eq!(ids(&received), BTreeSet::from(["1", "2", "3"]));
    world.clean().await;
}

#[tokio::test]
async fn what_was_not_committed_comes_again_after_a_kill() {
    let mut world = World::new("killed");
    let delivery = json!({"retry": 600, "backoffPolicy": "linear", "backoffDelay": "PT0.5S"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    let works = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&works);
    let script = Script::new(move |received| {
        let is_even = received.id().parse::<u32>().unwrap() % 2 == 0;
        let takes = is_even || answers.load(Ordering::Relaxed);
        status(if takes { 202 } else { 503 })
    });
    let running = world.start(&script).await;
    for id in 0..40 {
        running.post(&id.to_string(), &[]).await;
    }
    running
        .until("t", |status| {
            status.delivered == 20 && status.in_flight == 20
        })
        .await;
    // As by kill -9: nothing is committed, nobody is told.
    drop(running);
    works.store(true, Ordering::Relaxed);
    let before = script.count();

    let running = world.start(&script).await;
    let status = running
        .until("t", |status| {
            status.lag == Some(0) && status.delivered >= 20
        })
        .await;
    assert_eq!(status.lost, 0);
    let received = script.requests(before).await;
    let odd = (0..40)
        .filter(|id| id % 2 == 1)
        .map(|id: u32| id.to_string());
    let again = ids(&received[before..]);
    assert!(
        odd.into_iter().all(|id| again.contains(id.as_str())),
        "{again:?}"
    );
    running.stop().await;

    // After an orderly end there is nothing left.
    let settled = script.count();
    let running = world.start(&script).await;
    running.post("40", &[]).await;
    running.until("t", |status| status.delivered == 1).await;
    running.stop().await;
    assert_eq!(script.count(), settled + 1);
    world.clean().await;
}

#[tokio::test]
async fn an_end_does_not_wait_for_retries_and_loses_nothing() {
    let mut world = World::new("ended");
    let delivery = json!({"retry": 600, "backoffDelay": "PT60S"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    let script = Script::new(|received| status(if received.before == 0 { 503 } else { 202 }));
    let running = world.start(&script).await;
    running.post("1", &[]).await;
    script.requests(1).await;
    let begun = std::time::Instant::now();
    running.stop().await;
    assert!(begun.elapsed().as_secs() < 9, "{:?}", begun.elapsed());
    let running = world.start(&script).await;
    running.until("t", |status| status.delivered == 1).await;
    running.stop().await;
    assert_eq!(script.count(), 2);
    world.clean().await;
}

#[tokio::test]
async fn del_015_in_order_an_event_waits_for_the_one_before_it() {
    let mut world = World::new("del-015");
    let delivery = json!({"retry": 5, "backoffDelay": "PT0.01S"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    world.annotate("kafka.eventing.knative.dev/delivery.order", "ordered");
    let script = Script::new(|received| match (received.id(), received.before) {
        ("1", 0) => Reply::Broken,
        ("1", 1) => status(503),
        ("2", _) => status(400),
        _ => status(202),
    });
    let running = world.start(&script).await;
    for id in ["1", "2", "3", "4"] {
        running.post(id, &[("ce-partitionkey", "tenant")]).await;
    }
    running.until("t", |status| status.delivered == 3).await;
    let received = script.requests(6).await;
    let order: Vec<_> = received.iter().map(Received::id).collect();
    assert_eq!(order, ["1", "1", "1", "2", "3", "4"]);
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn without_order_the_others_go_past_one_that_fails() {
    let mut world = World::new("unordered");
    let delivery = json!({"retry": 600, "backoffDelay": "PT0.01S", "backoffPolicy": "linear"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    let works = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&works);
    let script = Script::new(move |received| {
        let takes = received.id() != "0" || answers.load(Ordering::Relaxed);
        status(if takes { 202 } else { 503 })
    });
    let running = world.start(&script).await;
    for id in 0..150 {
        running
            .post(&id.to_string(), &[("ce-partitionkey", "tenant")])
            .await;
    }
    let of_t = |delivered| move |status: &Status| status.delivered == delivered;
    let status = running.until("t", of_t(149)).await;
    assert_eq!((status.in_flight, status.lost), (1, 0));
    running.stop().await;
    // del-016: nothing beyond it was committed.
    works.store(true, Ordering::Relaxed);
    let running = world.start(&script).await;
    running.until("t", of_t(150)).await;
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn the_largest_record_that_nobody_takes_is_a_dead_letter_as_it_is() {
    let mut world = World::new("largest");
    let dead = world.sink("dead", "binary");
    let delivery = json!({"deadLetterSink": kafka_sink("dead")});
    let topic = world.source(json!({"delivery": delivery}));
    let running = world.start(&Script::new(|_| status(422))).await;
    let record = Record {
        key: Some(vec![0, 1]),
        headers: vec![(
            "content-type".to_owned(),
            Some(b"application/cloudevents+json".to_vec()),
        )],
        value: Some(vec![b'{'; (2 << 20) - 1024]),
    };
    producer().send_record(&topic, &record).await.unwrap();
    let settled = |status: &Status| status.failed == 1;
    let status = running.until("source", settled).await;
    assert_eq!((status.dead_letters, status.lost), (1, 0));
    let mut reader = world.read(&dead).await;
    let event = next(&mut reader).await.content.unwrap();
    assert_eq!(event.data(), record.value.as_deref());
    let kept = event.attribute("kafkaheadercontenttype");
    assert_eq!(kept.as_deref(), Some("application/cloudevents+json"));
    drop(reader);
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn a_source_begins_at_the_beginning_and_wraps_what_is_no_event() {
    let mut world = World::new("source");
    let script = Script::new(|_| status(202));
    let topic = world.source(json!({}));
    let mut config = KafkaConfig::new(brokers());
    (config.partitions, config.replication) = (1, Some(1));
    stream::create_topics(&config, &[&topic]).await.unwrap();
    let producer = producer();
    let structured =
        r#"{"specversion":"1.0","id":"s","source":"/gw","type":"t","data":{ "n": 1.10 }}"#;
    for (headers, value) in [
        (vec![("h".to_owned(), Some(b"v".to_vec()))], "raw"),
        (
            vec![(
                "content-type".to_owned(),
                Some(b"application/cloudevents+json".to_vec()),
            )],
            structured,
        ),
    ] {
        let record = Record {
            key: Some(b"k".to_vec()),
            headers,
            value: Some(value.as_bytes().to_vec()),
        };
        producer.send_record(&topic, &record).await.unwrap();
    }
    let running = world.start(&script).await;
    let received = script.requests(2).await;
    let name = &world.namespace;
    let source = format!("/apis/v1/namespaces/{name}/kafkasources/source#{topic}");
    for (header, value) in [
        ("ce-id", "partition:0/offset:0"),
        ("ce-type", "dev.knative.kafka.event"),
        ("ce-source", source.as_str()),
        ("ce-key", "k"),
        ("ce-kafkaheaderh", "v"),
        ("ce-knativekafkapartition", "0"),
        ("ce-knativekafkaoffset", "0"),
    ] {
        assert_eq!(received[0].header(header), Some(value));
    }
    assert_eq!(received[0].body, "raw");
    assert_eq!(received[0].header("content-type"), None);
    assert_eq!(received[1].id(), "s");
    assert_eq!(received[1].body, "{ \"n\": 1.10 }");
    assert_eq!(received[1].header("content-type"), Some("application/json"));
    running.stop().await;
    world.clean().await;
}
