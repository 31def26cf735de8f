//! Rules for what runs.

use runner::manifests::{Mistake, Object};
use serde_json::{Value, json};

use super::set::{SERVICE, Set, items, wrong};

const PREFIX: &str = "autoscaling.knative.dev/";

/// What may stand behind the prefix; anything else is passed over by Knative.
const AUTOSCALING: [&str; 15] = [
    "activation-scale",
    "class",
    "initial-scale",
    "max-scale",
    "metric",
    "min-scale",
    "panic-threshold-percentage",
    "panic-window-percentage",
    "scale-down-delay",
    "scale-to-zero-pod-retention-period",
    "scale-up-delay",
    "target",
    "target-burst-capacity",
    "target-utilization-percentage",
    "window",
];

fn template_annotations(service: &Object) -> impl Iterator<Item = (&str, &Value)> {
    let annotations = &service.value["spec"]["template"]["metadata"]["annotations"];
    (annotations.as_object().into_iter().flatten())
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)))
}

/// Annotations of the autoscaler are known ones, and on the template: on the Service they have
/// no effect.
pub(super) fn autoscaling(set: &Set) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for service in set.of(SERVICE) {
        let own = service.value["metadata"]["annotations"].as_object();
        for name in own.into_iter().flatten().map(|(name, _)| name) {
            if name.starts_with(PREFIX) {
                let why = format!("{name} must be on spec.template.metadata");
                mistakes.push(service.mistake("metadata.annotations", why));
            }
        }
        for (name, _) in template_annotations(service) {
            if !AUTOSCALING.contains(&name) {
                let why = format!("the autoscaler knows no {name}");
                mistakes.push(service.mistake("spec.template.metadata.annotations", why));
            }
        }
    }
    mistakes
}

/// The least and the most instances are said: by default there is no most.
pub(super) fn scale(set: &Set) -> Vec<Mistake> {
    let bounds = |service: &Object| {
        let number = |wanted: &str| {
            let (_, value) = template_annotations(service).find(|(name, _)| *name == wanted)?;
            value.as_str()?.parse::<u32>().ok()
        };
        match (number("min-scale"), number("max-scale")) {
            (Some(min), Some(max)) if max >= min.max(1) => None,
            (Some(_), Some(_)) => Some("max-scale must be 1 and min-scale at least"),
            _ => Some("min-scale and max-scale must be numbers"),
        }
        .map(|why| service.mistake("spec.template.metadata.annotations", why))
    };
    wrong(set.of(SERVICE).map(bounds))
}

/// An image has a digest or a tag, and that is not `latest`.
pub(super) fn image(set: &Set) -> Vec<Mistake> {
    wrong(set.containers().map(|(object, container, field)| {
        let image = container["image"].as_str().unwrap_or_default();
        let name = image.rsplit('/').next().unwrap_or_default();
        let tag = name.split_once(':').map(|(_, tag)| tag);
        let pinned = name.contains('@') || tag.is_some_and(|tag| tag != "latest");
        (!pinned).then(|| {
            object.mistake(
                format!("{field}.image"),
                format!("{image} is not one version"),
            )
        })
    }))
}

/// Knative refuses the names and ports that its own container has.
pub(super) fn reserved(set: &Set) -> Vec<Mistake> {
    const VARIABLES: [&str; 4] = ["PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"];
    const PORTS: [u64; 6] = [8008, 8012, 8013, 8022, 9090, 9091];
    let mut mistakes = Vec::new();
    for (object, container, field) in set.containers() {
        if (object.api_version.as_str(), object.kind.as_str()) != SERVICE {
            continue;
        }
        let mut add = |member: &str, what: &Value| {
            let why = format!("{what} is Knative's own");
            mistakes.push(object.mistake(format!("{field}.{member}"), why));
        };
        for variable in items(&container["env"]) {
            let name = &variable["name"];
            if name.as_str().is_some_and(|name| VARIABLES.contains(&name)) {
                add("env", name);
            }
        }
        for port in items(&container["ports"]) {
            let number = &port["containerPort"];
            if number
                .as_u64()
                .is_some_and(|number| PORTS.contains(&number))
            {
                add("ports", number);
            }
        }
        if container["name"] == "queue-proxy" {
            add("name", &container["name"]);
        }
    }
    mistakes
}

/// A container gives up everything that it has no use for; Knative does not by default.
pub(super) fn security(set: &Set) -> Vec<Mistake> {
    let wanted = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    wrong(set.containers().map(|(object, container, field)| {
        let has = &container["securityContext"];
        let lacks: Vec<_> = (wanted.as_object().into_iter().flatten())
            .filter(|(name, value)| has[name.as_str()] != **value)
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        (!lacks.is_empty()).then(|| {
            let why = format!("must have {}", lacks.join(", "));
            object.mistake(format!("{field}.securityContext"), why)
        })
    }))
}

/// Nobody outside the cluster reaches a function but by the route. The label is the Service's:
/// on the template it has no effect.
pub(super) fn visibility(set: &Set) -> Vec<Mistake> {
    const LABEL: &str = "networking.knative.dev/visibility";
    wrong(set.of(SERVICE).map(|service| {
        (service.metadata("labels", LABEL) != Some("cluster-local"))
            .then(|| service.mistake("metadata.labels", format!("{LABEL} must be cluster-local")))
    }))
}
