//! Destinations, and the URLs that they stand for.

use std::collections::BTreeSet;

use serde::Deserialize;
use url::Url;

use crate::manifests::Object;

/// The host of every broker's ingress; the path is `/{namespace}/{broker}`.
pub const BROKER_INGRESS: &str = "kafka-broker-ingress.knative-eventing.svc.cluster.local";
/// The host of every KafkaSink's ingress; the path is `/{namespace}/{sink}`.
pub const SINK_INGRESS: &str = "kafka-sink-ingress.knative-eventing.svc.cluster.local";

/// Where events go, as it is written: an object, a URI, or a path on an object.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    #[serde(rename = "ref")]
    reference: Option<Reference>,
    uri: Option<String>,
}

/// The name of another object.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Reference {
    #[serde(default)]
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
}

/// What can be referred to: the objects that have an address.
#[derive(Debug, Default)]
pub struct Addresses(BTreeSet<(String, String, String, String)>);

impl Addresses {
    /// Returns what is there.
    pub fn of(objects: &[Object]) -> Self {
        let names = objects.iter().map(|object| {
            let Object {
                api_version,
                kind,
                namespace,
                name,
                ..
            } = object.clone();
            (api_version, kind, namespace, name)
        });
        Self(names.collect())
    }

    /// Returns the URL of a destination that an object in `namespace` names, as Knative says it.
    pub fn resolve(&self, destination: &Destination, namespace: &str) -> Result<String, String> {
        match (&destination.reference, &destination.uri) {
            (None, None) => Err("needs a ref or a uri".to_owned()),
            (None, Some(uri)) => match Url::parse(uri) {
                Ok(url) if url.scheme() == "http" && url.has_host() => Ok(uri.clone()),
                _ => Err(format!(
                    "{uri:?} is not an absolute http URL, and there is no ref"
                )),
            },
            (Some(reference), None) => self.address(reference, namespace),
            (Some(reference), Some(uri)) => {
                let address = self.address(reference, namespace)?;
                if Url::parse(uri).is_ok() {
                    return Err(format!("{uri:?} must be relative, as there is a ref"));
                }
                let joined = Url::parse(&address).and_then(|base| base.join(uri));
                joined
                    .map(String::from)
                    .map_err(|error| format!("{uri:?}: {error}"))
            }
        }
    }

    fn address(&self, reference: &Reference, namespace: &str) -> Result<String, String> {
        let Reference {
            api_version,
            kind,
            name,
            ..
        } = reference;
        let namespace = reference.namespace.as_deref().unwrap_or(namespace);
        let address = match (api_version.as_str(), kind.as_str()) {
            ("serving.knative.dev/v1", "Service") => {
                format!("http://{name}.{namespace}.svc.cluster.local")
            }
            ("eventing.knative.dev/v1", "Broker") => {
                format!("http://{BROKER_INGRESS}/{namespace}/{name}")
            }
            ("eventing.knative.dev/v1alpha1", "KafkaSink") => {
                format!("http://{SINK_INGRESS}/{namespace}/{name}")
            }
            _ => return Err(format!("a {kind} of {api_version:?} has no address here")),
        };
        let wanted = (
            api_version.clone(),
            kind.clone(),
            namespace.to_owned(),
            name.clone(),
        );
        if !self.0.contains(&wanted) {
            return Err(format!("there is no {kind} {namespace}/{name}"));
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_destination_is_what_knative_makes_of_it() {
        let object = |api_version: &str, kind: &str, name: &str| Object {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: "n".to_owned(),
            name: name.to_owned(),
            value: json!(null),
            file: "a.yaml".into(),
        };
        let addresses = Addresses::of(&[
            object("serving.knative.dev/v1", "Service", "s"),
            object("eventing.knative.dev/v1", "Broker", "b"),
            object("eventing.knative.dev/v1alpha1", "KafkaSink", "k"),
            object("v1", "ConfigMap", "c"),
        ]);
        let service =
            json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "s"});
        for (destination, expected) in [
            (json!({"ref": service}), Ok("http://s.n.svc.cluster.local")),
            (
                json!({"ref": service, "uri": "/events"}),
                Ok("http://s.n.svc.cluster.local/events"),
            ),
            (
                json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker",
                    "name": "b", "namespace": "n"}}),
                Ok("http://kafka-broker-ingress.knative-eventing.svc.cluster.local/n/b"),
            ),
            (
                json!({"ref": {"apiVersion": "eventing.knative.dev/v1alpha1", "kind": "KafkaSink",
                    "name": "k"}}),
                Ok("http://kafka-sink-ingress.knative-eventing.svc.cluster.local/n/k"),
            ),
            (
                json!({"uri": "http://gone.invalid/"}),
                Ok("http://gone.invalid/"),
            ),
            (json!({}), Err("needs a ref or a uri")),
            (json!({"uri": "/relative"}), Err("absolute")),
            (json!({"uri": "https://h/"}), Err("absolute http URL")),
            (
                json!({"ref": service, "uri": "http://x"}),
                Err("must be relative"),
            ),
            (
                json!({"ref": {"apiVersion": "v1", "kind": "ConfigMap", "name": "c"}}),
                Err("has no address"),
            ),
            (
                json!({"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service",
                    "name": "other"}}),
                Err("there is no Service n/other"),
            ),
        ] {
            let read: Destination = serde_json::from_value(destination.clone()).unwrap();
            match (addresses.resolve(&read, "n"), expected) {
                (Ok(url), Ok(expected)) => assert_eq!(url, expected),
                (Err(error), Err(why)) => assert!(error.contains(why), "{destination}: {error}"),
                (found, _) => panic!("{destination}: {found:?}"),
            }
        }
    }
}
