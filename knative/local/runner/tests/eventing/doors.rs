//! The doors of brokers and KafkaSinks, and PingSources that go through them.

use serde_json::json;

use crate::support::{Reply, Script, World, next, service, status};

const EVENT: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "/gw"),
    ("ce-type", "t"),
    ("content-type", "text/plain"),
];
const STRUCTURED: [(&str, &str); 1] = [("content-type", "application/cloudevents+json")];

#[tokio::test]
async fn a_brokers_topic_has_the_settings_of_its_config() {
    let mut world = World::new("settings");
    world.config("default.topic.config.max.message.bytes", "2162688");
    let running = world.start(&Script::new(|_| status(202))).await;
    let found = world.topic_setting("max.message.bytes").await;
    assert_eq!(found.as_deref(), Some("2162688"));
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn a_door_takes_events_and_says_no_to_everything_else() {
    let mut world = World::new("door");
    world.trigger("t", "a", json!({}));
    let script = Script::new(|_| status(202));
    let running = world.start(&script).await;
    let usage = format!("/{}/usage", world.namespace);
    let nope = format!("/{}/nope", world.namespace);
    let at_limit = vec![b'x'; 1 << 20];
    let over_limit = vec![b'x'; (1 << 20) + 1];
    let event = br#"{"specversion":"1.0","id":"2","source":"/gw","type":"t"}"#.to_vec();
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let long = "x".repeat(16 << 10);
    let long = [&EVENT[..], &[("ce-subject", &long)]].concat();
    for (id, method, path, headers, body, expected) in [
        ("ing-010", "POST", &usage, &EVENT[..], b"1".to_vec(), 202),
        (
            "structured",
            "POST",
            &usage,
            &STRUCTURED,
            event.clone(),
            202,
        ),
        ("largest", "POST", &usage, &EVENT, at_limit, 202),
        ("ing-065", "POST", &usage, &EVENT, over_limit, 413),
        ("attributes", "POST", &usage, &long, vec![], 400),
        ("ing-030", "GET", &usage, &EVENT, vec![], 405),
        ("ing-031", "PUT", &usage, &EVENT, vec![], 405),
        ("ing-040", "OPTIONS", &usage, &[], vec![], 200),
        ("ing-041", "POST", &"/".to_owned(), &EVENT, vec![], 404),
        ("ing-045", "POST", &nope, &EVENT, vec![], 404),
        ("ing-046", "POST", &nope, &[], b"x".to_vec(), 404),
        ("ing-050", "POST", &usage, &EVENT[4..], b"{}".to_vec(), 400),
        (
            "ing-052",
            "POST",
            &usage,
            &STRUCTURED,
            b"{not json".to_vec(),
            400,
        ),
        (
            "ing-053",
            "POST",
            &usage,
            &batch,
            [b"[", &event[..], b"]"].concat(),
            400,
        ),
    ] {
        let answer = running.request(method, path, headers, body).await;
        assert_eq!(answer.status(), expected, "{id}: {:?}", answer.body());
        if expected == 405 || id == "ing-040" {
            assert_eq!(answer.headers()["allow"], "POST, OPTIONS", "{id}");
        }
        if expected == 202 {
            assert!(answer.body().is_empty(), "{id}");
        }
    }
    // What was taken is delivered, and nothing else.
    running
        .until("t", |status| status.delivered == 3 && status.lag == Some(0))
        .await;
    assert_eq!(script.count(), 3);
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn a_sink_is_behind_its_own_host_and_writes_in_its_mode() {
    let mut world = World::new("sink");
    let binary = world.sink("usage", "binary");
    let structured = world.sink("json", "structured");
    let script = Script::new(|_| Reply::Broken);
    let running = world.start(&script).await;
    let host = (
        "host",
        "kafka-sink-ingress.knative-eventing.svc.cluster.local",
    );
    let mut headers = EVENT.to_vec();
    headers[4] = ("content-type", "application/json");
    headers.extend([host, ("ce-partitionkey", "k"), ("ce-n", "5")]);
    // A dead letter is taken however long its attributes are.
    let long = "x".repeat(16 << 10);
    headers.push(("ce-subject", &long));
    for (sink, topic) in [("usage", binary), ("json", structured)] {
        let path = format!("/{}/{sink}", world.namespace);
        for body in ["{ \"n\": 1.10 }", "not json", "null"] {
            let answer = running.request("POST", &path, &headers, body).await;
            assert_eq!(answer.status(), 202);
        }
        let mut reader = world.read(&topic).await;
        for body in ["{ \"n\": 1.10 }", "not json", "null"] {
            let event = next(&mut reader).await.content.unwrap();
            assert_eq!(event.data(), Some(body.as_bytes()), "{sink}");
            for (name, value) in [
                ("id", "1"),
                ("type", "t"),
                ("n", "5"),
                ("partitionkey", "k"),
            ] {
                assert_eq!(event.attribute(name).as_deref(), Some(value), "{sink}");
            }
        }
        reader.close().await.unwrap();
    }
    running.stop().await;
    world.clean().await;
}

#[tokio::test]
async fn png_001_and_002_a_ping_comes_when_it_is_due_and_is_tried_again() {
    let mut world = World::new("ping");
    world.trigger("t", "a", json!({}));
    let sink = json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker",
        "name": "usage"}});
    let spec = json!({"schedule": "* * * * * *", "contentType": "application/json",
        "data": "{ \"hour\": 1 }", "sink": sink, "ceOverrides": {"extensions": {"e": "x"}}});
    world.add("sources.knative.dev/v1", "PingSource", "tick", spec.clone());
    let mut direct = spec;
    direct["sink"] = json!({"uri": "http://flaky.invalid/"});
    world.add("sources.knative.dev/v1", "PingSource", "flaky", direct);
    let mut sink = service("b");
    sink["uri"] = json!("/reconcile");
    let bare = json!({"schedule": "* * * * * *", "sink": sink});
    world.add("sources.knative.dev/v1", "PingSource", "bare", bare);
    let script = Script::new(|received| match (received.to(), received.before) {
        ("flaky", 0) => Reply::Broken,
        ("flaky", 1) => status(500),
        _ => status(202),
    });
    let running = world.start(&script).await;
    running.until("t", |status| status.delivered >= 2).await;
    let flaky = running.until("flaky", |status| status.delivered >= 1).await;
    assert!(flaky.retries >= 2);
    running.until("bare", |status| status.delivered >= 1).await;
    running.stop().await;
    let received = script.requests(4).await;
    let source = format!("/apis/v1/namespaces/{}/pingsources/tick", world.namespace);
    let ticks: Vec<_> = received
        .iter()
        .filter(|received| received.to() == "a")
        .collect();
    for tick in &ticks {
        for (name, value) in [
            ("ce-type", "dev.knative.sources.ping"),
            ("ce-source", source.as_str()),
            ("ce-e", "x"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(tick.header(name), Some(value));
        }
        assert_eq!(tick.body, "{ \"hour\": 1 }");
    }
    assert_ne!(ticks[0].id(), ticks[1].id());
    let mut bare = received.iter().filter(|received| received.to() == "b");
    let bare = bare.next().unwrap();
    let url = format!("http://b.{}.svc.cluster.local/reconcile", world.namespace);
    assert_eq!(
        (bare.url.as_str(), bare.body.is_empty()),
        (url.as_str(), true)
    );
    assert_eq!(bare.header("ce-type"), Some("dev.knative.sources.ping"));
    world.clean().await;
}
