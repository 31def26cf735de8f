//! A process that is killed with everything under way, and its successor.

use std::{
    collections::BTreeSet,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::json;
use stream::{CloudEvent, KafkaConfig, Producer};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::support::{Received, Script, World, brokers, soon, status};

/// Names the namespace to the process that is to be killed.
const NAMESPACE: &str = "KILLED_IN";
const EVENTS: u32 = 50;

fn world(namespace: String) -> World {
    let mut world = World::of(namespace);
    let delivery = json!({"retry": 600, "backoffPolicy": "linear", "backoffDelay": "PT0.5S"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    world
}

#[tokio::test]
#[ignore = "it is the process that its neighbour kills"]
async fn killed() {
    let Ok(namespace) = std::env::var(NAMESPACE) else {
        return;
    };
    // Every third event is taken; the rest is under way until the end.
    let takes = |received: &Received| received.id().parse::<u32>().unwrap().is_multiple_of(3);
    let script = Script::new(move |received| status(if takes(received) { 202 } else { 503 }));
    let _running = world(namespace).start(&script).await;
    eprintln!("ready");
    let all = |received: &[Received]| {
        let ids: BTreeSet<_> = received.iter().map(Received::id).collect();
        ids.len() == EVENTS as usize
    };
    script.until("all events", all).await;
    eprintln!("all under way");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn what_a_killed_process_had_under_way_is_its_successors_at_once() {
    let world = world(World::new("kill").namespace);
    let topic = format!("knative-broker-{}-usage", world.namespace);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::killed", "--ignored", "--nocapture"])
        .env(NAMESPACE, &world.namespace)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = async |wanted: &str| {
        let saying = async { while lines.next_line().await.unwrap().unwrap() != wanted {} };
        soon(wanted, saying).await;
    };
    said("ready").await;
    let producer = Producer::connect(&KafkaConfig::new(brokers()), 1 << 20).unwrap();
    for id in 0..EVENTS {
        let event = CloudEvent::new(id.to_string(), "/gw", "t");
        producer.send_to(&topic, None, &event).await.unwrap();
    }
    said("all under way").await;
    child.kill().await.unwrap();

    let killed_at = Instant::now();
    let script = Script::new(|_| status(202));
    let running = world.start(&script).await;
    let left = (0..EVENTS).filter(|id| !id.is_multiple_of(3));
    let left: BTreeSet<_> = left.map(|id| id.to_string()).collect();
    let has_left = |received: &[Received]| {
        let ids: BTreeSet<_> = received.iter().map(|one| one.id().to_owned()).collect();
        ids.is_superset(&left)
    };
    script.until("the rest", has_left).await;
    // The session of the killed one has not run out: nobody waited for that.
    assert!(killed_at.elapsed() < Duration::from_secs(5));
    running.stop().await;
    world.clean().await;
}
