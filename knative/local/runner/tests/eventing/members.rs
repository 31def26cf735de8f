//! Groups of several members, and what ends a subscription for good.

use runner::eventing::Failure;
use serde_json::json;
use stream::{CloudEvent, KafkaConfig, Subscription};

use crate::support::{
    Received, Reply, Script, World, brokers, ids, next, producer, shared, soon, status,
};

#[tokio::test]
async fn two_consumers_of_a_source_share_the_work() {
    let mut world = World::new("consumers");
    let topic = world.source(json!({"consumers": 2, "ordering": "unordered",
        "ceOverrides": {"extensions": {"via": "push"}}}));
    let script = Script::new(|_| {
        // KafkaSources do not look at it.
        let body = bytes::Bytes::from_static(b"fine");
        Reply::Answer(http::Response::new(body))
    });
    let running = world.start(&script).await;
    let group = format!("{}-source", world.namespace);
    shared(&group, 2).await;
    let producer = producer();
    for id in 0..100 {
        let event = CloudEvent::new(id.to_string(), "/gw", "t")
            .with_data("text/plain", format!("data {id}"));
        producer.send_to(&topic, None, &event).await.unwrap();
    }
    let status = running
        .until("source", |status| status.delivered >= 100)
        .await;
    assert_eq!((status.failed, status.replies), (0, 0));
    let received = script
        .until("all events", |received| ids(received).len() == 100)
        .await;
    for request in &received {
        assert_eq!(request.body, format!("data {}", request.id()));
        assert_eq!(request.header("ce-via"), Some("push"));
    }
    running.stop().await;

    // One of them is taken away: the other takes over what it leaves.
    world.source(json!({"consumers": 1, "ordering": "unordered"}));
    let running = world.start(&script).await;
    for id in 100..120 {
        let event = CloudEvent::new(id.to_string(), "/gw", "t");
        producer.send_to(&topic, None, &event).await.unwrap();
    }
    let new = |received: &[Received]| {
        let all = ids(received);
        (100..120).all(|id: u32| all.contains(id.to_string().as_str()))
    };
    script.until("what the other left", new).await;
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn what_another_member_gets_is_not_tried_any_more() {
    let mut world = World::new("moved");
    let delivery = json!({"retry": 600, "backoffPolicy": "linear", "backoffDelay": "PT0.01S"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    let script = Script::new(|_| status(503));
    let running = world.start(&script).await;
    for id in 0..20 {
        let id = id.to_string();
        running.post(&id, &[("ce-partitionkey", &id)]).await;
    }
    running.until("t", |status| status.in_flight == 20).await;
    let mut other = member(&world, "other").await;
    let moved = next(&mut other).await;
    assert!(moved.content.is_ok());
    let status = running.until("t", |status| status.in_flight < 20).await;
    assert!(status.in_flight > 0, "{status:?}");
    assert_eq!((status.failed, status.delivered), (0, 0));
    other.close().await.unwrap();
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn who_is_pushed_out_of_its_group_says_so() {
    let mut world = World::new("fenced");
    world.trigger("t", "a", json!({}));
    let mut running = world.start(&Script::new(|_| status(202))).await;
    let instance = format!("knative-trigger-{}-t-0", world.namespace);
    let other = member(&world, &instance).await;
    let failure = soon("failure", running.eventing.failure()).await;
    assert!(
        matches!(&failure, Failure::Subscription { whose, .. } if whose.ends_with("/t")),
        "{failure:?}"
    );
    other.close().await.unwrap();
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn a_delivery_that_panics_is_a_failure_and_comes_again() {
    for order in ["unordered", "ordered"] {
        let mut world = World::new("panic");
        world.trigger("t", "a", json!({}));
        world.annotate("kafka.eventing.knative.dev/delivery.order", order);
        let mut running = world.start(&Script::new(|_| panic!("as it must"))).await;
        running.post("1", &[]).await;
        let failure = soon("failure", running.eventing.failure()).await;
        assert!(matches!(failure, Failure::Delivery(_)), "{failure:?}");
        running.stop().await;
        let running = world.start(&Script::new(|_| status(202))).await;
        running.until("t", |status| status.delivered == 1).await;
        running.stop().await;
        world.clean().await;
    }
}

/// Joins the group of Trigger `t`.
async fn member(world: &World, instance: &str) -> Subscription {
    let namespace = &world.namespace;
    let group = format!("knative-trigger-{namespace}-t");
    let topic = format!("knative-broker-{namespace}-usage");
    let config = KafkaConfig::new(brokers());
    let topics = [topic.as_str()];
    let joined = Subscription::join(&config, &group, instance, &topics);
    soon("member", joined).await.unwrap()
}
