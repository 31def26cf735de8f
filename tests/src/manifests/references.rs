//! Rules for names: each is that of something in the same set and namespace.

use runner::manifests::{Mistake, Object};
use serde_json::{Value, json};

use super::set::{
    BROKER, CONFIG_MAP, DEPLOYMENT, HTTP_ROUTE, KAFKA_SOURCE, Kind, NAMESPACE, PING_SOURCE,
    SCALED_OBJECT, SECRET, SERVICE, Set, TRIGGER, items,
};

/// Where functions send events of their own.
const BROKER_URL: &str = "OPENMETER_BROKER_URL";

/// Whatever is named is there.
pub(super) fn references(set: &Set) -> Vec<Mistake> {
    let mut names = Names {
        set,
        mistakes: Vec::new(),
    };
    for trigger in set.of(TRIGGER) {
        names.named(
            trigger,
            "spec.broker",
            BROKER,
            &trigger.value["spec"]["broker"],
        );
        names.reference(trigger, "spec.subscriber.ref", &["subscriber", "ref"]);
    }
    for kind in [KAFKA_SOURCE, PING_SOURCE] {
        for source in set.of(kind) {
            names.reference(source, "spec.sink.ref", &["sink", "ref"]);
        }
    }
    for kind in [BROKER, TRIGGER, KAFKA_SOURCE] {
        for object in set.of(kind) {
            names.reference(
                object,
                "spec.delivery.deadLetterSink.ref",
                &["delivery", "deadLetterSink", "ref"],
            );
        }
    }
    for broker in set.of(BROKER) {
        names.reference(broker, "spec.config", &["config"]);
    }
    for scaled in set.of(SCALED_OBJECT) {
        let target = &scaled.value["spec"]["scaleTargetRef"]["name"];
        names.named(scaled, "spec.scaleTargetRef", DEPLOYMENT, target);
    }
    for (object, container, field) in set.containers() {
        for from in items(&container["envFrom"]) {
            names.map(object, &format!("{field}.envFrom"), from, "Ref", "name");
        }
        for variable in items(&container["env"]) {
            let field = format!("{field}.env.{}", variable["name"].as_str().unwrap_or("?"));
            names.map(object, &field, &variable["valueFrom"], "KeyRef", "name");
        }
        let field = format!("{field}.env.{BROKER_URL}");
        let environment = set.environment(object, container);
        if let Some(url) = environment.get(BROKER_URL) {
            names.broker(object, &field, url);
        }
    }
    for object in set.of(SERVICE).chain(set.of(DEPLOYMENT)) {
        for volume in items(&object.value["spec"]["template"]["spec"]["volumes"]) {
            let field = "spec.template.spec.volumes";
            names.map(object, field, volume, "", "name");
            names.map(object, field, volume, "", "secretName");
        }
    }
    for route in set.of(HTTP_ROUTE) {
        for rule in items(&route.value["spec"]["rules"]) {
            names.backend(route, rule);
        }
    }
    names.mistakes
}

struct Names<'a> {
    set: &'a Set,
    mistakes: Vec<Mistake>,
}

impl Names<'_> {
    fn named(&mut self, object: &Object, field: &str, kind: Kind, name: &Value) {
        let name = name.as_str().unwrap_or_default();
        if self.set.find(kind, name, object).is_none() {
            let why = format!("there is no {} {}/{name}", kind.1, object.namespace);
            self.mistakes.push(object.mistake(field, why));
        }
    }

    /// A `ref` with kind and version, where there is one.
    fn reference(&mut self, object: &Object, field: &str, path: &[&str]) {
        let reference = path
            .iter()
            .try_fold(&object.value["spec"], |at, step| at.get(step));
        if let Some(reference) = reference
            && self.set.referred(reference, object).is_none()
        {
            let why = format!("names nothing that is in {}: {reference}", object.namespace);
            self.mistakes.push(object.mistake(field, why));
        }
    }

    /// A ConfigMap or Secret that must be there: one that may be missing says so.
    fn map(&mut self, object: &Object, field: &str, holder: &Value, suffix: &str, name: &str) {
        for (member, kind) in [("configMap", CONFIG_MAP), ("secret", SECRET)] {
            let reference = &holder[format!("{member}{suffix}")];
            if reference[name].is_string() && reference["optional"] != true {
                self.named(object, field, kind, &reference[name]);
            }
        }
    }

    /// The Broker behind a URL, which ends in its namespace and name, whoever serves it.
    fn broker(&mut self, object: &Object, field: &str, url: &str) {
        let mut parts = url.rsplit('/');
        let (name, namespace) = (parts.next(), parts.next());
        if namespace != Some(object.namespace.as_str()) {
            let why = format!("{url} is no Broker of {}", object.namespace);
            self.mistakes.push(object.mistake(field, why));
            return;
        }
        self.named(object, field, BROKER, &json!(name));
    }

    /// The Service behind a route: the one that Knative's gateway is told by the host name, or
    /// the backend itself.
    fn backend(&mut self, route: &Object, rule: &Value) {
        let rewritten =
            items(&rule["filters"]).find_map(|filter| filter["urlRewrite"]["hostname"].as_str());
        match rewritten {
            Some(host) => {
                let name = host.strip_suffix(&format!(".{}.svc.cluster.local", route.namespace));
                if name.is_none_or(|name| self.set.find(SERVICE, name, route).is_none()) {
                    let why = format!("{host} is no Service of {}", route.namespace);
                    let field = "spec.rules.filters.urlRewrite.hostname";
                    self.mistakes.push(route.mistake(field, why));
                }
            }
            None => {
                for backend in items(&rule["backendRefs"]) {
                    self.named(route, "spec.rules.backendRefs", SERVICE, &backend["name"]);
                }
            }
        }
    }
}

/// Everything lies in one namespace, which is among the objects.
pub(super) fn namespace(set: &Set) -> Vec<Mistake> {
    let Some(namespace) = set.of(NAMESPACE).next() else {
        let first = set.all().first();
        return first
            .map(|object| object.mistake("metadata.namespace", "its Namespace is not in the set"))
            .into_iter()
            .collect();
    };
    let strangers = set.all().iter().filter(|object| {
        object.kind != NAMESPACE.1 && object.namespace != namespace.name
            || object.kind == NAMESPACE.1 && object.name != namespace.name
    });
    strangers
        .map(|object| object.mistake("metadata.namespace", format!("must be {}", namespace.name)))
        .collect()
}
