//! Rules for how events travel.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;
use runner::manifests::{Mistake, Object};
use serde_json::{Map, Value};

use super::set::{
    BROKER, KAFKA_SINK, KAFKA_SOURCE, PING_SOURCE, SERVICE, Set, TRIGGER, function, wrong,
};

/// How long an event is tried: long enough for a day without ClickHouse, and far shorter than
/// Kafka keeps it.
const TRIED: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(20 * 3600)..=Duration::from_secs(3 * 24 * 3600);

/// A Broker's class is spelt as the Kafka broker's controller wants it.
pub(super) fn broker_class(set: &Set) -> Vec<Mistake> {
    const CLASS: &str = "eventing.knative.dev/broker.class";
    wrong(set.of(BROKER).map(|broker| {
        (broker.metadata("annotations", CLASS) != Some("Kafka"))
            .then(|| broker.mistake("metadata.annotations", format!("{CLASS} must be Kafka")))
    }))
}

/// A Trigger's order is one of two words; any other is passed over.
pub(super) fn delivery_order(set: &Set) -> Vec<Mistake> {
    const ORDER: &str = "kafka.eventing.knative.dev/delivery.order";
    wrong(
        set.of(TRIGGER)
            .map(|trigger| match trigger.metadata("annotations", ORDER) {
                None | Some("ordered" | "unordered") => None,
                Some(other) => {
                    let why = format!("{ORDER} must be ordered or unordered, not {other}");
                    Some(trigger.mistake("metadata.annotations", why))
                }
            }),
    )
}

/// Nothing is dropped: every delivery is retried, timed, and has a Kafka topic for what fails.
pub(super) fn delivery(set: &Set) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for object in set.of(TRIGGER).chain(set.of(KAFKA_SOURCE)) {
        let delivery = in_force(set, object);
        for field in ["retry", "backoffPolicy", "backoffDelay", "timeout"] {
            if !delivery.contains_key(field) {
                let why = "must be set, here or in the Broker";
                mistakes.push(object.mistake(format!("spec.delivery.{field}"), why));
            }
        }
        let sink = delivery.get("deadLetterSink").map(|sink| &sink["ref"]);
        if sink.is_none_or(|sink| sink["kind"] != KAFKA_SINK.1) {
            let why = "must be a KafkaSink: else an event is dropped after the last retry";
            mistakes.push(object.mistake("spec.delivery.deadLetterSink", why));
        }
    }
    mistakes
}

/// The feature that `retryAfterMax` belongs to is off by default, and the object then refused.
pub(super) fn retry_after(set: &Set) -> Vec<Mistake> {
    let of = |kind| set.of(kind);
    let all = of(BROKER)
        .chain(of(TRIGGER))
        .chain(of(KAFKA_SOURCE))
        .chain(of(PING_SOURCE));
    wrong(all.map(|object| {
        (object.value["spec"]["delivery"]
            .get("retryAfterMax")
            .is_some())
        .then(|| object.mistake("spec.delivery.retryAfterMax", "is refused by Knative"))
    }))
}

/// Retries go on for about a day, an attempt ends before its Service ends it, and that within
/// Knative's ten minutes.
pub(super) fn times(set: &Set) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for object in set.of(TRIGGER).chain(set.of(KAFKA_SOURCE)) {
        let delivery = in_force(set, object);
        let duration = |field: &str| {
            let text = delivery.get(field)?.as_str()?;
            Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
        };
        let tried = delivery
            .get("retry")
            .and_then(Value::as_u64)
            .and_then(|retry| {
                let policy = delivery.get("backoffPolicy")?.as_str()?;
                backoffs(policy, retry.try_into().ok()?, duration("backoffDelay")?)
            });
        if let Some(tried) = tried.filter(|tried| !TRIED.contains(tried)) {
            let hours = tried.as_secs() / 3600;
            let why = format!("retries go on for {hours} hours, not for about a day");
            mistakes.push(object.mistake("spec.delivery.retry", why));
        }
        let destination = object.value["spec"]
            .get("subscriber")
            .or(object.value["spec"].get("sink"));
        let service = destination.and_then(|to| set.referred(&to["ref"], object));
        if let (Some(timeout), Some(service)) = (duration("timeout"), service)
            && timeout > Duration::from_secs(service_timeout(service))
        {
            let why = format!("is longer than timeoutSeconds of {service}");
            mistakes.push(object.mistake("spec.delivery.timeout", why));
        }
    }
    for service in set.of(SERVICE) {
        if service_timeout(service) > 600 {
            let field = "spec.template.spec.timeoutSeconds";
            mistakes.push(service.mistake(field, "is 600 at most, by Knative's default"));
        }
    }
    mistakes
}

fn service_timeout(service: &Object) -> u64 {
    let field = &service.value["spec"]["template"]["spec"]["timeoutSeconds"];
    field.as_u64().unwrap_or(300)
}

/// Returns how long the waits between attempts take together, as the Kafka broker waits.
fn backoffs(policy: &str, retry: u32, delay: Duration) -> Option<Duration> {
    let retry = f64::from(retry);
    let times = match policy {
        "linear" => retry * (retry + 1.0) / 2.0,
        "exponential" => (retry + 1.0).exp2() - 2.0,
        _ => return None,
    };
    let waits = Duration::try_from_secs_f64(delay.as_secs_f64() * times);
    Some(waits.unwrap_or(Duration::MAX))
}

/// What the broker answers 202 for is on two disks at least, where there are three: Kafka's
/// default does with one. And one machine can be away, so not on all.
pub(super) fn in_sync(set: &Set) -> Vec<Mistake> {
    const REPLICATION: &str = "default.topic.replication.factor";
    const IN_SYNC: &str = "default.topic.config.min.insync.replicas";
    wrong(set.of(BROKER).map(|broker| {
        let map = set.referred(&broker.value["spec"]["config"], broker)?;
        let count = |key: &str| map.value["data"][key].as_str()?.parse::<u16>().ok();
        let replication = count(REPLICATION)?;
        let right = match replication {
            ..3 => 1..=replication,
            3.. => 2..=replication - 1,
        };
        let (from, to) = (right.start(), right.end());
        let why = format!("must be from {from} to {to}, of {replication} replicas");
        (!right.contains(&count(IN_SYNC).unwrap_or(1)))
            .then(|| map.mistake(format!("data.{IN_SYNC}"), why))
    }))
}

/// A KafkaSource that starts at the latest record never sees what was accepted before it.
pub(super) fn initial_offset(set: &Set) -> Vec<Mistake> {
    wrong(set.of(KAFKA_SOURCE).map(|source| {
        (source.value["spec"]["initialOffset"] != "earliest")
            .then(|| source.mistake("spec.initialOffset", "must be earliest"))
    }))
}

/// Each consumer of a topic has a group of its own, and has it for ever: without one a
/// KafkaSource gets a new one when it is made again, and reads everything again.
pub(super) fn consumer_group(set: &Set) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut groups = BTreeMap::new();
    let mut has = |object: &Object, field: &str, group: Option<String>| match group {
        None => Some(object.mistake(field, "must be set")),
        Some(group) => {
            let other = groups.insert(group.clone(), object.to_string())?;
            Some(object.mistake(field, format!("{group} is the group of {other}")))
        }
    };
    for source in set.of(KAFKA_SOURCE) {
        let group = source.value["spec"]["consumerGroup"].as_str();
        mistakes.extend(has(source, "spec.consumerGroup", group.map(str::to_owned)));
    }
    for (object, container, field) in set.containers() {
        let mut environment = set.environment(object, container);
        if environment.get("OPENMETER_TRIGGER").map(String::as_str) == Some("kafka") {
            // process had the name to itself.
            let setting = match function(container) {
                "quota" => "OPENMETER_QUOTA_KAFKA_GROUP",
                _ => "OPENMETER_KAFKA_GROUP",
            };
            let field = format!("{field}.env.{setting}");
            mistakes.extend(has(object, &field, environment.remove(setting)));
        }
    }
    mistakes
}

/// Returns the delivery of a Trigger or a KafkaSource. The Kafka broker takes what a Trigger
/// does not set from the Broker, but for the policy once the Trigger has any delivery.
pub(super) fn in_force(set: &Set, object: &Object) -> Map<String, Value> {
    let own = object.value["spec"]["delivery"].as_object();
    let broker = object.value["spec"]["broker"]
        .as_str()
        .and_then(|name| set.find(BROKER, name, object))
        .and_then(|broker| broker.value["spec"]["delivery"].as_object());
    let mut delivery = broker.cloned().unwrap_or_default();
    if let Some(own) = own {
        delivery.remove("backoffPolicy");
        delivery.extend(own.clone());
    }
    delivery
}
