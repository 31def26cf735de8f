//! The objects of one folder, and what the rules ask about them.

use std::collections::BTreeMap;

use runner::manifests::{Mistake, Object};
use serde_json::Value;

/// The kinds that rules are about, as (`apiVersion`, `kind`).
pub(super) type Kind = (&'static str, &'static str);
pub(super) const SERVICE: Kind = ("serving.knative.dev/v1", "Service");
pub(super) const DEPLOYMENT: Kind = ("apps/v1", "Deployment");
pub(super) const BROKER: Kind = ("eventing.knative.dev/v1", "Broker");
pub(super) const TRIGGER: Kind = ("eventing.knative.dev/v1", "Trigger");
pub(super) const KAFKA_SINK: Kind = ("eventing.knative.dev/v1alpha1", "KafkaSink");
pub(super) const KAFKA_SOURCE: Kind = ("sources.knative.dev/v1", "KafkaSource");
pub(super) const PING_SOURCE: Kind = ("sources.knative.dev/v1", "PingSource");
pub(super) const CONFIG_MAP: Kind = ("v1", "ConfigMap");
pub(super) const SECRET: Kind = ("v1", "Secret");
pub(super) const NAMESPACE: Kind = ("v1", "Namespace");
pub(super) const HTTP_ROUTE: Kind = ("gateway.networking.k8s.io/v1", "HTTPRoute");
pub(super) const SCALED_OBJECT: Kind = ("keda.sh/v1alpha1", "ScaledObject");

/// A rendered folder.
pub(super) struct Set(Vec<Object>);

impl Set {
    pub(super) fn new(objects: Vec<Object>) -> Self {
        Self(objects)
    }

    pub(super) fn all(&self) -> &[Object] {
        &self.0
    }

    /// Returns the objects of a kind.
    pub(super) fn of(&self, (api_version, kind): Kind) -> impl Iterator<Item = &Object> {
        (self.0.iter()).filter(move |it| it.api_version == api_version && it.kind == kind)
    }

    /// Returns the object of a kind and name that lies where `beside` does.
    pub(super) fn find(&self, kind: Kind, name: &str, beside: &Object) -> Option<&Object> {
        self.of(kind)
            .find(|it| it.name == name && it.namespace == beside.namespace)
    }

    /// Returns what a `ref` names.
    pub(super) fn referred(&self, reference: &Value, beside: &Object) -> Option<&Object> {
        let text = |member: &str| reference[member].as_str();
        let namespace = text("namespace").unwrap_or(&beside.namespace);
        (self.0.iter()).find(|it| {
            text("apiVersion") == Some(it.api_version.as_str())
                && text("kind") == Some(it.kind.as_str())
                && text("name") == Some(it.name.as_str())
                && it.namespace == namespace
                && it.namespace == beside.namespace
        })
    }

    /// Returns what runs: Services and Deployments, each with its containers and where they are.
    pub(super) fn containers(&self) -> impl Iterator<Item = (&Object, &Value, String)> {
        self.of(SERVICE)
            .chain(self.of(DEPLOYMENT))
            .flat_map(|object| {
                items(&object.value["spec"]["template"]["spec"]["containers"])
                    .enumerate()
                    .map(move |(index, container)| {
                        let field = format!("spec.template.spec.containers[{index}]");
                        (object, container, field)
                    })
            })
    }

    /// Returns a container's environment, with a stand-in for each value of a Secret, which
    /// is nobody's to know here.
    pub(super) fn environment(
        &self,
        object: &Object,
        container: &Value,
    ) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for from in items(&container["envFrom"]) {
            if let Some(map) = from["configMapRef"]["name"].as_str() {
                environment.extend(self.data(map, object));
            }
        }
        for variable in items(&container["env"]) {
            let Some(name) = variable["name"].as_str() else {
                continue;
            };
            let from = &variable["valueFrom"];
            let value = if let Some(value) = variable["value"].as_str() {
                Some(value.to_owned())
            } else if let Some(map) = from["configMapKeyRef"]["name"].as_str() {
                let key = from["configMapKeyRef"]["key"].as_str().unwrap_or_default();
                self.data(map, object).remove(key)
            } else {
                from["secretKeyRef"]["key"].as_str().map(stand_in)
            };
            environment.extend(value.map(|value| (name.to_owned(), value)));
        }
        environment
    }

    /// Returns the entries of a ConfigMap.
    pub(super) fn data(&self, map: &str, beside: &Object) -> BTreeMap<String, String> {
        self.find(CONFIG_MAP, map, beside)
            .and_then(|map| map.value["data"].as_object())
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }
}

/// Returns which function a container is, by the last part of its image's name.
pub(super) fn function(container: &Value) -> &str {
    let image = container["image"].as_str().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split([':', '@']).next().unwrap_or_default()
}

/// A value that reads as what the key says.
fn stand_in(key: &str) -> String {
    match key {
        "url" => "redis://user:secret@host:6379".to_owned(),
        _ => "secret".to_owned(),
    }
}

/// Returns the items of a list, none where there is none.
pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Returns the text of each item.
pub(super) fn texts(list: &Value) -> Vec<&str> {
    items(list).filter_map(Value::as_str).collect()
}

/// Collects mistakes from what may be one.
pub(super) fn wrong(mistakes: impl Iterator<Item = Option<Mistake>>) -> Vec<Mistake> {
    mistakes.flatten().collect()
}
