//! What a kustomization does to every object: labels and images.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::kustomization::Image;

/// Adds labels to an object's metadata.
pub(super) fn label(object: &mut Value, pairs: &BTreeMap<String, String>) {
    let labels = &mut object["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    for (name, value) in pairs {
        labels[name] = value.as_str().into();
    }
}

/// Replaces an image wherever a container has it, at any depth: kustomize finds Knative's
/// containers like this too. Returns whether any had it.
pub(super) fn image(value: &mut Value, image: &Image) -> bool {
    let mut found = false;
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "containers" || name == "initContainers" {
                    for container in member.as_array_mut().into_iter().flatten() {
                        if let Some(Value::String(text)) = container.get_mut("image")
                            && let Some(new) = replaced(text, image)
                        {
                            *text = new;
                            found = true;
                        }
                    }
                } else {
                    found |= self::image(member, image);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                found |= self::image(item, image);
            }
        }
        _ => {}
    }
    found
}

/// The new form of `text`, if it is the image that is meant.
fn replaced(text: &str, image: &Image) -> Option<String> {
    let (name, version) = name_and_version(text);
    if name != image.name {
        return None;
    }
    let name = image.new_name.as_deref().unwrap_or(name);
    let tag = image.new_tag.as_ref().map(|tag| format!(":{tag}"));
    let digest = image.digest.as_ref().map(|digest| format!("@{digest}"));
    let new = match (tag, digest) {
        (None, None) => version.to_owned(),
        (tag, digest) => tag.unwrap_or_default() + &digest.unwrap_or_default(),
    };
    Some(format!("{name}{new}"))
}

/// Splits `registry:5000/name:tag@digest` into the name and the rest, with its first sign.
pub(super) fn name_and_version(image: &str) -> (&str, &str) {
    let path = image.rfind('/').map_or(0, |slash| slash + 1);
    let end = image[path..]
        .find([':', '@'])
        .map_or(image.len(), |at| path + at);
    image.split_at(end)
}
