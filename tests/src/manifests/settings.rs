//! Rules for what the functions are told.

use std::collections::BTreeSet;

use runner::manifests::{Mistake, Object};
use runtime::{ConfigError, Env};
use serde_json::Value;

use super::{
    eventing::in_force,
    set::{BROKER, CONFIG_MAP, KAFKA_SINK, KAFKA_SOURCE, Set, TRIGGER, function, texts},
};

/// The ConfigMap of all functions.
const SETTINGS: &str = "openmeter";

/// How a function reads its settings.
type Read = fn(&Env) -> Result<(), ConfigError>;

/// The functions, by the last part of their images' names.
const FUNCTIONS: [(&str, Read); 4] = [
    ("ingest", |env| ingest::Config::from_env(env).map(drop)),
    ("process", |env| process::Config::from_env(env).map(drop)),
    ("quota", |env| quota::Config::from_env(env).map(drop)),
    ("query", |env| query::Config::from_env(env).map(drop)),
];

/// Each function would start with what it is told, and is told nothing that nobody asks for.
pub(super) fn settings(set: &Set) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut asked = BTreeSet::new();
    for (object, container, field) in set.containers() {
        let name = function(container);
        let Some((_, read)) = FUNCTIONS.iter().find(|(function, _)| *function == name) else {
            let why = format!("{name:?} is no function");
            mistakes.push(object.mistake(format!("{field}.image"), why));
            continue;
        };
        let env = Env::from_pairs(set.environment(object, container));
        for wrong in read(&env).err().iter().flat_map(ConfigError::mistakes) {
            mistakes.push(object.mistake(format!("{field}.env"), wrong.to_string()));
        }
        asked.extend(env.variables().into_iter().map(|variable| variable.name));
        for name in own_variables(&container["env"]) {
            if !asked.contains(name) {
                let field = format!("{field}.env");
                mistakes.push(object.mistake(field, format!("nobody asks for {name}")));
            }
        }
    }
    for map in set.of(CONFIG_MAP).filter(|map| map.name == SETTINGS) {
        for name in map.value["data"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            if !asked.contains(name.as_str()) {
                mistakes.push(map.mistake("data", format!("nobody asks for {name}")));
            }
        }
    }
    mistakes
}

fn own_variables(env: &Value) -> impl Iterator<Item = &str> {
    let names = env.as_array().into_iter().flatten();
    names.filter_map(|variable| variable["name"].as_str())
}

const BROKERS: &str = "OPENMETER_KAFKA_BROKER";
const TOPIC: &str = "OPENMETER_KAFKA_TOPIC";
const DEAD_TOPIC: &str = "OPENMETER_KAFKA_DEAD_TOPIC";
const INGEST_DEAD_TOPIC: &str = "OPENMETER_KAFKA_INGEST_DEAD_TOPIC";

/// Kafka and its topics have the same names for each function and for Knative, which all have to
/// be told: a function's own default, or a variable of its own, would split a topic in two.
pub(super) fn one_kafka(set: &Set) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut same = |object: &Object, field: &str, setting: &str, has: Option<&str>| {
        let why = match set.data(SETTINGS, object).remove(setting) {
            None => format!("ConfigMap {SETTINGS} does not say {setting}"),
            Some(said) if has != Some(said.as_str()) => {
                format!("must be {said}, which {setting} says")
            }
            Some(_) => return,
        };
        mistakes.push(object.mistake(field, why));
    };
    for (object, container, field) in set.containers() {
        let environment = set.environment(object, container);
        for setting in [BROKERS, TOPIC, DEAD_TOPIC, INGEST_DEAD_TOPIC] {
            let has = environment.get(setting).map(String::as_str);
            same(object, &format!("{field}.env.{setting}"), setting, has);
        }
    }
    for object in set.of(KAFKA_SOURCE).chain(set.of(KAFKA_SINK)) {
        let servers = texts(&object.value["spec"]["bootstrapServers"]).join(",");
        same(object, "spec.bootstrapServers", BROKERS, Some(&servers));
    }
    for broker in set.of(BROKER) {
        let Some(map) = set.referred(&broker.value["spec"]["config"], broker) else {
            continue;
        };
        let servers = map.value["data"]["bootstrap.servers"].as_str();
        same(map, "data.bootstrap.servers", BROKERS, servers);
    }
    for source in set.of(KAFKA_SOURCE) {
        let topics = texts(&source.value["spec"]["topics"]).join(",");
        same(source, "spec.topics", TOPIC, Some(&topics));
    }
    for (kind, setting) in [(KAFKA_SOURCE, DEAD_TOPIC), (TRIGGER, INGEST_DEAD_TOPIC)] {
        for object in set.of(kind) {
            let delivery = in_force(set, object);
            let dead = delivery.get("deadLetterSink").map(|sink| &sink["ref"]);
            if let Some(sink) = dead.and_then(|dead| set.referred(dead, object)) {
                same(
                    sink,
                    "spec.topic",
                    setting,
                    sink.value["spec"]["topic"].as_str(),
                );
            }
        }
    }
    mistakes
}
