//! The strategic merge of a patch into an object.
//!
//! Maps merge, `null` takes away, `$patch: replace` and `$patch: delete` say so themselves. A
//! list takes the other's place, but for the lists of a Deployment, which Kubernetes knows to
//! be keyed: kustomize has no schema of Knative's kinds, so there the whole list is replaced.

use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";

/// Merges `patch` into `target`, both whole objects of a kind; `false` says that the target
/// is to be deleted.
pub(super) fn merge(target: &mut Value, patch: Value, kind: &str) -> bool {
    let keyed = kind == "Deployment";
    value(target, patch, None, keyed)
}

/// The member that tells the items of a list apart.
fn key(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" => Some("containerPort"),
        _ => None,
    }
}

fn value(target: &mut Value, patch: Value, field: Option<&str>, keyed: bool) -> bool {
    match patch {
        Value::Null => false,
        Value::Object(mut patch) => {
            let directive = patch.remove(DIRECTIVE);
            match directive.as_ref().and_then(Value::as_str) {
                Some("delete") => return false,
                Some("replace") => *target = Value::Null,
                _ => {}
            }
            let mut members = match target.take() {
                Value::Object(members) => members,
                _ => Map::new(),
            };
            for (name, patch) in patch {
                let mut member = members.remove(&name).unwrap_or(Value::Null);
                if value(&mut member, patch, Some(&name), keyed) {
                    members.insert(name, member);
                }
            }
            *target = Value::Object(members);
            true
        }
        Value::Array(items) => {
            match (field.and_then(key), target) {
                (Some(key), Value::Array(old)) if keyed => list(old, items, key),
                (_, target) => *target = Value::Array(items),
            }
            true
        }
        scalar => {
            *target = scalar;
            true
        }
    }
}

/// Merges items by key: the patch's come first, in its order, then those that it leaves alone.
fn list(target: &mut Vec<Value>, items: Vec<Value>, key: &str) {
    let replaces = |item: &Value| item[DIRECTIVE] == "replace" && item.get(key).is_none();
    if items.iter().any(replaces) {
        *target = items.into_iter().filter(|item| !replaces(item)).collect();
        return;
    }
    let mut merged = Vec::new();
    for patch in items {
        let found = target.iter().position(|old| old[key] == patch[key]);
        let mut item = found.map_or(Value::Null, |at| target.remove(at));
        if value(&mut item, patch, None, true) {
            merged.push(item);
        }
    }
    merged.append(target);
    *target = merged;
}
