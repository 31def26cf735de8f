//! What becomes of an event: the scenarios of Knative's own tests, by their numbers here.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Response;
use serde_json::json;

use crate::support::{Received, Reply, Script, World, kafka_sink, next, service, status};

fn ids(received: &[Received]) -> Vec<&str> {
    received.iter().map(Received::id).collect()
}

#[tokio::test]
async fn del_001_an_event_is_tried_until_it_is_taken() {
    let mut world = World::new("del-001");
    world.broker(json!({"retry": 3, "backoffDelay": "PT0.01S", "deadLetterSink": service("dls")}));
    world.trigger("t", "a", json!({}));
    let script = Script::new(|received| match received.before {
        0 => Reply::Broken,
        1 => status(404),
        2 => status(503),
        _ => status(202),
    });
    let running = world.start(&script).await;
    running
        .post(
            "e1",
            &[("ce-time", "2026-01-31T10:20:30Z"), ("ce-tenant", "ü b")],
        )
        .await;
    let status = running.until("t", |status| status.delivered == 1).await;
    assert_eq!((status.retries, status.failed), (3, 0));
    let received = script.requests(4).await;
    assert_eq!(received.len(), 4);
    for request in &received {
        assert_eq!(
            request.url,
            format!("http://a.{}.svc.cluster.local/", world.namespace)
        );
        assert_eq!(request.body, r#"{ "id": "e1", "n": 1.10 }"#);
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "e1"),
            ("ce-source", "/gw"),
            ("ce-type", "t"),
            ("ce-time", "2026-01-31T10:20:30Z"),
            ("ce-tenant", "%C3%BC%20b"),
            ("content-type", "application/json"),
            ("prefer", "reply"),
            ("kn-namespace", world.namespace.as_str()),
        ] {
            assert_eq!(request.header(name), Some(value), "{name}");
        }
    }
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn del_002_after_the_last_retry_it_is_a_dead_letter() {
    let mut world = World::new("del-002");
    world.broker(json!({"retry": 3, "backoffDelay": "PT0.01S", "deadLetterSink": service("dls")}));
    world.trigger("t", "a", json!({}));
    let script = Script::new(|received| status(if received.to() == "dls" { 202 } else { 500 }));
    let running = world.start(&script).await;
    running.post("e1", &[]).await;
    running.until("t", |status| status.dead_letters == 1).await;
    let received = script.requests(5).await;
    let to: Vec<_> = received.iter().map(Received::to).collect();
    assert_eq!(to, ["a", "a", "a", "a", "dls"]);
    let dead = &received[4];
    assert_eq!(dead.body, received[0].body);
    let url = format!("http://a.{}.svc.cluster.local", world.namespace);
    assert_eq!(dead.header("ce-knativeerrordest"), Some(url.as_str()));
    assert_eq!(dead.header("ce-knativeerrorcode"), Some("500"));
    assert_eq!(dead.header("ce-knativeerrordata"), None);
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn del_003_and_005b_a_triggers_delivery_goes_over_its_brokers() {
    let mut world = World::new("del-003");
    world.broker(json!({"deadLetterSink": service("b")}));
    world.trigger(
        "own",
        "a",
        json!({"delivery": {"deadLetterSink": service("dls")}}),
    );
    world.trigger("none", "a", json!({}));
    world.trigger(
        "retries",
        "a",
        json!({"delivery": {"retry": 2, "backoffDelay": "PT0.01S"}}),
    );
    let script = Script::new(|received| status(if received.to() == "a" { 500 } else { 202 }));
    let running = world.start(&script).await;
    running.post("e1", &[]).await;
    for (trigger, retries) in [("own", 0), ("none", 0), ("retries", 2)] {
        let status = running
            .until(trigger, |status| status.dead_letters == 1)
            .await;
        assert_eq!(status.retries, retries, "{trigger}");
    }
    let received = script.requests(8).await;
    let to = |name| {
        received
            .iter()
            .filter(|received| received.to() == name)
            .count()
    };
    assert_eq!((to("a"), to("b"), to("dls")), (5, 2, 1));
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn del_006_waits_grow_as_the_policy_says() {
    let mut world = World::new("del-006");
    let delivery = json!({"retry": 5, "backoffPolicy": "linear", "backoffDelay": "PT0.02S"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    let script = Script::new(|received| match received.before {
        5 => status(202),
        n => status(if n % 2 == 0 { 429 } else { 500 }),
    });
    let running = world.start(&script).await;
    let posted = std::time::Instant::now();
    running.post("e1", &[]).await;
    running.until("t", |status| status.delivered == 1).await;
    assert_eq!(script.count(), 6);
    // 20 ms times 1 + 2 + 3 + 4 + 5.
    assert!(posted.elapsed().as_millis() >= 300);
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn del_007_every_event_gets_through_a_subscriber_that_refuses_some() {
    let mut world = World::new("del-007");
    let delivery = json!({"retry": 10, "backoffPolicy": "linear", "backoffDelay": "PT0.01S"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    let requests = std::sync::atomic::AtomicU64::new(0);
    let script = Script::new(move |_| {
        let n = requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let is_square = |n: u64| n.isqrt().pow(2) == n;
        // A number of Fibonacci's: so says Gessel.
        let refuses = is_square(5 * n * n + 4) || is_square(5 * n * n - 4);
        status(if refuses { 500 } else { 200 })
    });
    let running = world.start(&script).await;
    for n in 0..50 {
        running.post(&n.to_string(), &[]).await;
    }
    let status = running.until("t", |status| status.delivered == 50).await;
    assert_eq!((status.lost, status.in_flight), (0, 0));
    let received = script.requests(50).await;
    assert_eq!(
        ids(&received).into_iter().collect::<BTreeSet<_>>().len(),
        50
    );
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn del_008_a_dead_letter_names_a_subscriber_that_nobody_reached() {
    let mut world = World::new("del-008");
    let delivery = json!({"deadLetterSink": service("dls")});
    let to = json!({"uri": "http://gone.invalid/"});
    world.trigger("t", "a", json!({"subscriber": to, "delivery": delivery}));
    let script = Script::new(|received| match received.to() {
        "dls" => status(204),
        _ => Reply::Broken,
    });
    let running = world.start(&script).await;
    running.post("e1", &[]).await;
    let dead = &script.requests(2).await[1];
    assert_eq!(
        dead.header("ce-knativeerrordest"),
        Some("http://gone.invalid/")
    );
    assert_eq!(dead.header("ce-knativeerrorcode"), None);
    assert_eq!(dead.header("ce-id"), Some("e1"));
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn del_009_and_010_what_is_refused_is_in_a_kafka_sink_with_the_answer() {
    let mut world = World::new("del-010");
    let topic = world.sink("dead", "binary");
    world.broker(json!({"retry": 5, "deadLetterSink": kafka_sink("dead")}));
    world.trigger("t", "a", json!({}));
    let script = Script::new(|received| {
        if received.id() == "empty" {
            return status(422);
        }
        let answer = Response::builder().status(422).header("Kne-Reason", "late");
        Reply::Answer(
            answer
                .body(Bytes::from_static(b"{\"m\":\"error\"}"))
                .unwrap(),
        )
    });
    let running = world.start(&script).await;
    running.post("empty", &[]).await;
    running.until("t", |status| status.dead_letters == 1).await;
    running.post("body", &[("ce-partitionkey", "k")]).await;
    let status = running.until("t", |status| status.dead_letters == 2).await;
    assert_eq!((status.retries, status.lost, script.count()), (0, 0, 2));

    let mut reader = world.read(&topic).await;
    let url = format!("http://a.{}.svc.cluster.local", world.namespace);
    for (id, data, reason) in [
        ("empty", None, None),
        ("body", Some("eyJtIjoiZXJyb3IifQ=="), Some("late")),
    ] {
        let event = next(&mut reader).await.content.unwrap();
        assert_eq!(event.id(), id);
        let sent = format!("{{ \"id\": \"{id}\", \"n\": 1.10 }}");
        assert_eq!(event.data(), Some(sent.as_bytes()));
        let attribute = |name| event.attribute(name);
        assert_eq!(attribute("knativeerrordest"), Some(url.clone()));
        assert_eq!(attribute("knativeerrorcode").as_deref(), Some("422"));
        assert_eq!(attribute("knativeerrordata").as_deref(), data);
        assert_eq!(attribute("reason").as_deref(), reason);
    }
    drop(reader);
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn del_012_a_dead_letter_sink_is_tried_as_often_and_then_the_event_is_lost() {
    let mut world = World::new("del-012");
    world.broker(json!({"retry": 2, "backoffDelay": "PT0.01S", "deadLetterSink": service("dls")}));
    world.trigger("t", "a", json!({}));
    let script = Script::new(|received| status(if received.id() == "e1" { 500 } else { 202 }));
    let running = world.start(&script).await;
    running.post("e1", &[]).await;
    let status = running.until("t", |status| status.lost == 1).await;
    assert_eq!((status.retries, status.dead_letters), (4, 0));
    assert_eq!(script.count(), 6);
    // It is committed: a successor goes on after it.
    running.stop().await;
    let running = world.start(&script).await;
    running.post("e2", &[]).await;
    running.until("t", |status| status.delivered == 1).await;
    assert_eq!(ids(&script.requests(7).await)[6..], ["e2"]);
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn rsp_200_text_a_body_that_is_no_event_fails_a_triggers_delivery() {
    let mut world = World::new("rsp-200-text");
    world.broker(json!({"retry": 5, "deadLetterSink": service("dls")}));
    world.trigger("t", "a", json!({}));
    let script = Script::new(|received| match received.to() {
        "dls" => status(202),
        _ => Reply::Answer(Response::new(Bytes::from_static(b"ok"))),
    });
    let running = world.start(&script).await;
    running.post("e1", &[]).await;
    let status = running.until("t", |status| status.dead_letters == 1).await;
    assert_eq!((status.retries, status.delivered), (0, 0));
    let dead = &script.requests(2).await[1];
    let data = STANDARD.encode("ok");
    assert_eq!(dead.header("ce-knativeerrordata"), Some(data.as_str()));
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn rou_006_and_008_a_reply_is_an_event_for_every_trigger() {
    let mut world = World::new("rou-006");
    world.trigger("e", "a", json!({"filter": {"attributes": {"type": "t"}}}));
    world.trigger("r", "b", json!({"filters": [{"exact": {"type": "reply"}}]}));
    world.trigger("none", "b", json!({"filters": [{"exact": {"type": "x"}}]}));
    let script = Script::new(|received| match received.to() {
        "a" => {
            let answer = Response::builder()
                .header("ce-specversion", "1.0")
                .header("ce-id", "r1")
                .header("ce-source", "/fn")
                .header("ce-type", "reply")
                .header("content-type", "text/plain");
            Reply::Answer(answer.body(Bytes::from_static(b"thanks")).unwrap())
        }
        _ => status(200),
    });
    let running = world.start(&script).await;
    running.post("e1", &[]).await;
    let status = running.until("r", |status| status.delivered == 1).await;
    assert_eq!(status.filtered, 1);
    let received = script.requests(2).await;
    assert_eq!((received[1].to(), received[1].id()), ("b", "r1"));
    assert_eq!(received[1].body, "thanks");
    let status = running.until("none", |status| status.filtered == 2).await;
    assert_eq!(status.delivered, 0);
    let status = running.until("e", |status| status.filtered == 1).await;
    assert_eq!((status.delivered, status.replies), (1, 1));
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_tried_again() {
    let mut world = World::new("timeout");
    let delivery = json!({"retry": 1, "backoffDelay": "PT0.01S", "timeout": "PT0.1S"});
    world.trigger("t", "a", json!({"delivery": delivery}));
    let script = Script::new(|received| match received.before {
        0 => Reply::Silence,
        _ => status(204),
    });
    let running = world.start(&script).await;
    running.post("e1", &[]).await;
    let status = running.until("t", |status| status.delivered == 1).await;
    assert_eq!(status.retries, 1);
    running.stop().await;
    world.clean().await;
}
