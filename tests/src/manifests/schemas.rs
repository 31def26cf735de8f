//! The kinds' JSON schemas. Those of Knative are made from its CRDs, with what its admission
//! webhooks refuse besides; a kind without a schema here is a mistake.

use std::{collections::BTreeMap, sync::LazyLock};

use jsonschema::Validator;
use runner::manifests::{Mistake, Object};
use serde_json::Value;

const SCHEMAS: [&str; 12] = [
    include_str!("../../schemas/broker_eventing.knative.dev_v1.json"),
    include_str!("../../schemas/configmap_v1.json"),
    include_str!("../../schemas/deployment_apps_v1.json"),
    include_str!("../../schemas/httproute_gateway.networking.k8s.io_v1.json"),
    include_str!("../../schemas/kafkasink_eventing.knative.dev_v1alpha1.json"),
    include_str!("../../schemas/kafkasource_sources.knative.dev_v1.json"),
    include_str!("../../schemas/namespace_v1.json"),
    include_str!("../../schemas/pingsource_sources.knative.dev_v1.json"),
    include_str!("../../schemas/scaledobject_keda.sh_v1alpha1.json"),
    include_str!("../../schemas/secret_v1.json"),
    include_str!("../../schemas/service_serving.knative.dev_v1.json"),
    include_str!("../../schemas/trigger_eventing.knative.dev_v1.json"),
];

/// By `kind apiVersion`, as the schemas are titled.
static KINDS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(|| {
    let titled = SCHEMAS.map(|text| {
        let (schema, validator) = compile(text);
        (
            schema["title"].as_str().unwrap_or_default().to_owned(),
            validator,
        )
    });
    titled.into()
});

static METADATA: LazyLock<Validator> =
    LazyLock::new(|| compile(include_str!("../../schemas/metadata.json")).1);

fn compile(text: &str) -> (Value, Validator) {
    let schema: Value = serde_json::from_str(text).expect("a schema in the source is JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema in the source is one");
    (schema, validator)
}

/// Checks each object against the schema of its kind.
pub(super) fn check(objects: &[Object]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for object in objects {
        let title = format!("{} {}", object.kind, object.api_version);
        match KINDS.get(&title) {
            Some(validator) => against(validator, object, "", &object.value, &mut mistakes),
            None => mistakes.push(object.mistake("kind", format!("{title} has no schema here"))),
        }
        let metadata = &object.value["metadata"];
        against(&METADATA, object, "/metadata", metadata, &mut mistakes);
    }
    mistakes
}

fn against(
    validator: &Validator,
    object: &Object,
    at: &str,
    value: &Value,
    mistakes: &mut Vec<Mistake>,
) {
    for error in validator.iter_errors(value) {
        let field = format!("{at}{}", error.instance_path);
        let field = field.trim_start_matches('/').replace('/', ".");
        mistakes.push(object.mistake(field, error.to_string()));
    }
}
