//! What is wrong with manifests is said all at once, before anything starts.

use serde_json::{Value, json};

use crate::support::{World, kafka_sink, service};

/// Returns `field: why` of every mistake.
fn mistakes(world: &World) -> Vec<String> {
    let mistakes = world.plan().err().unwrap_or_default();
    let mut mistakes: Vec<_> = mistakes
        .iter()
        .map(|mistake| format!("{}: {}", mistake.field, mistake.why))
        .collect();
    mistakes.sort();
    mistakes
}

#[test]
fn every_mistake_names_its_field() {
    let trigger = |more: Value| {
        let mut world = World::new("plan");
        world.trigger("t", "a", more);
        world
    };
    let source = |more: Value| {
        let mut world = World::new("plan");
        world.source(more);
        world
    };
    let ping = |more: Value| {
        let mut world = World::new("plan");
        let mut spec = json!({"schedule": "* * * * *", "sink": service("a")});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world.add("sources.knative.dev/v1", "PingSource", "p", spec);
        world
    };
    let broker = |delivery: Value| {
        let mut world = World::new("plan");
        world.broker(delivery);
        world
    };
    let mut sink = World::new("plan");
    sink.sink("s", "xml");
    let mut order = trigger(json!({}));
    order.annotate("kafka.eventing.knative.dev/delivery.order", "any");
    let mut annotated = trigger(json!({}));
    annotated.annotate("eventing.knative.dev/injection", "enabled");
    let mut class = World::new("plan");
    class.broker(json!(null));
    class.annotate("eventing.knative.dev/broker.class", "MTChannelBasedBroker");
    let mut config = World::new("plan");
    config.config("default.topic.retention.ms", "1");
    let mut twice = source(json!({"consumerGroup": "g"}));
    let spec = json!({"bootstrapServers": ["kafka:9092"], "topics": ["other"],
        "consumerGroup": "g", "sink": service("b")});
    twice.add("sources.knative.dev/v1", "KafkaSource", "again", spec);
    for (world, field, why) in [
        (
            trigger(json!({"broker": "other"})),
            "spec.broker",
            "no Broker",
        ),
        (
            trigger(json!({"subscriber": {}})),
            "spec.subscriber",
            "ref or a uri",
        ),
        (
            trigger(json!({"subscriber": service("x")})),
            "spec.subscriber",
            "no Service",
        ),
        (
            trigger(json!({"filters": [{"cesql": "true"}]})),
            "spec.filters[0]",
            "cesql",
        ),
        (
            trigger(json!({"filters": {"exact": {"type": "a"}}})),
            "spec.filters",
            "sequence",
        ),
        (
            trigger(json!({"filters": [{"exact": {"type": "a"}}, {"prefix": {}}]})),
            "spec.filters[1]",
            "no attribute",
        ),
        (
            trigger(json!({"filter": {"attributes": {"SOURCE": "a"}}})),
            "spec.filter.attributes",
            "not an attribute's name",
        ),
        (
            trigger(json!({"delivery": {"retry": -1}})),
            "spec.delivery.retry",
            "number",
        ),
        (
            trigger(json!({"delivery": {"retries": 1}})),
            "spec.delivery.retries",
            "retries",
        ),
        (
            trigger(json!({"delivery": {"deadLetterSink": kafka_sink("none")}})),
            "spec.delivery.deadLetterSink",
            "no KafkaSink",
        ),
        (order, "metadata.annotations.kafka.eventing", "ordered"),
        (
            annotated,
            "metadata.annotations.eventing.knative.dev/injection",
            "not known",
        ),
        (
            class,
            "metadata.annotations.eventing.knative.dev/broker.class",
            "Kafka",
        ),
        (config, "data.default.topic.retention.ms", "not known"),
        (
            broker(json!({"backoffDelay": "1s"})),
            "spec.delivery.backoffDelay",
            "ISO 8601",
        ),
        (
            broker(json!({"timeout": "PT0S"})),
            "spec.delivery.timeout",
            "more than nothing",
        ),
        (
            broker(json!({"backoffPolicy": "constant"})),
            "spec.delivery.backoffPolicy",
            "constant",
        ),
        (
            broker(json!({"deadLetterSink": {"uri": "/relative"}})),
            "spec.delivery.deadLetterSink",
            "there is no ref",
        ),
        (
            source(json!({"consumerGroup": null})),
            "spec.consumerGroup",
            "null",
        ),
        (twice, "spec.consumerGroup", "another KafkaSource's"),
        (
            trigger(json!({"subscriber": {"uri": "https://bank.example/"}})),
            "spec.subscriber",
            "http URL",
        ),
        (source(json!({"consumers": 0})), "spec.consumers", "0"),
        (source(json!({"ordering": "some"})), "spec.ordering", "some"),
        (
            source(json!({"initialOffset": "middle"})),
            "spec.initialOffset",
            "middle",
        ),
        (
            source(json!({"net": {"tls": {"enable": true}}})),
            "spec.net",
            "TLS",
        ),
        (source(json!({"topics": []})), "spec.topics", "no topic"),
        (
            source(json!({"resources": {}})),
            "spec.resources",
            "resources",
        ),
        (
            source(json!({"ceOverrides": {"extensions": {"A": "b"}}})),
            "spec.ceOverrides.extensions",
            "not an attribute's name",
        ),
        (sink, "spec.contentMode", "xml"),
        (
            ping(json!({"data": "{}", "dataBase64": "e30="})),
            "spec.data",
            "exclude",
        ),
        (
            ping(json!({"data": "[1]", "contentType": "application/json"})),
            "spec.data",
            "not a JSON object",
        ),
        (
            ping(json!({"schedule": "@every 1m"})),
            "spec.schedule",
            "@every",
        ),
        (
            ping(json!({"timezone": "Nowhere/Land"})),
            "spec.schedule",
            "imezone",
        ),
    ] {
        let found = mistakes(&world);
        assert_eq!(found.len(), 1, "{field}: {found:?}");
        assert!(found[0].starts_with(field), "{field}: {found:?}");
        assert!(found[0].contains(why), "{why}: {found:?}");
    }
}

#[test]
fn all_mistakes_are_found_together() {
    let mut world = World::new("plan");
    world.broker(json!({"retries": 1}));
    world.trigger(
        "t",
        "x",
        json!({"delivery": {"deadLetterSink": service("y")}}),
    );
    world.source(json!({"sink": service("z")}));
    let found = mistakes(&world);
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn what_is_off_may_be_said() {
    let mut world = World::new("plan");
    world.source(json!({"net": {"sasl": {"enable": false}, "tls": {}}}));
    world.trigger("t", "a", json!({"delivery": {"format": "json"}}));
    assert_eq!(mistakes(&world), Vec::<String>::new());
}
