//! Manifests of the cases.

use runner::manifests::Object;
use serde_json::{Value, json};

/// Returns a Broker of one partition, which keeps its events in order, and its ConfigMap.
pub(super) fn broker(namespace: &str, name: &str, kafka: &str) -> Vec<Object> {
    let data = json!({
        "bootstrap.servers": kafka,
        "default.topic.partitions": "1",
        "default.topic.replication.factor": "1",
    });
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": format!("{name}-config")});
    vec![
        object(
            "v1",
            "ConfigMap",
            namespace,
            &format!("{name}-config"),
            json!({"data": data}),
        ),
        object(
            "eventing.knative.dev/v1",
            "Broker",
            namespace,
            name,
            json!({
                "metadata": {"annotations": {"eventing.knative.dev/broker.class": "Kafka"}},
                "spec": {"config": config},
            }),
        ),
    ]
}

/// Returns a Trigger of that Broker that delivers one event after the other.
pub(super) fn trigger(namespace: &str, name: &str, broker: &str, mut spec: Value) -> Object {
    spec["broker"] = json!(broker);
    let order = json!({"kafka.eventing.knative.dev/delivery.order": "ordered"});
    let value = json!({"metadata": {"annotations": order}, "spec": spec});
    object("eventing.knative.dev/v1", "Trigger", namespace, name, value)
}

/// Returns a KafkaSource that reads a topic from its beginning.
pub(super) fn source(namespace: &str, name: &str, kafka: &str, topic: &str, sink: Value) -> Object {
    let spec = json!({
        "bootstrapServers": [kafka],
        "topics": [topic],
        "consumerGroup": format!("{namespace}-{name}"),
        "initialOffset": "earliest",
        "sink": sink,
    });
    let value = json!({"metadata": {}, "spec": spec});
    object(
        "sources.knative.dev/v1",
        "KafkaSource",
        namespace,
        name,
        value,
    )
}

fn object(api_version: &str, kind: &str, namespace: &str, name: &str, mut value: Value) -> Object {
    value["apiVersion"] = json!(api_version);
    value["kind"] = json!(kind);
    value["metadata"]["namespace"] = json!(namespace);
    value["metadata"]["name"] = json!(name);
    Object {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        value,
        file: "case".into(),
    }
}
