//! Patches: which objects they are for, and applied.

use std::path::Path;

use serde_json::Value;

use super::{
    Mistake,
    kustomization::{Patch, Target},
    merge::merge,
    resource::{Resource, group_version, parse},
};

/// One document of a patch, ready to be applied.
enum Change {
    Merge(Value),
    Json(json_patch::Patch),
}

/// Applies one patch of the kustomization `file`, whose text has been read.
pub(super) fn apply(
    resources: &mut Vec<Resource>,
    patch: &Patch,
    text: &str,
    file: &Path,
    mistakes: &mut Vec<Mistake>,
) {
    let mut wrong = |why: String| mistakes.push(Mistake::in_file(file, "patches", why));
    let documents = match parse(text) {
        Ok(documents) if documents.is_empty() => return wrong("a patch is empty".to_owned()),
        Ok(documents) => documents,
        Err(error) => return wrong(format!("a patch is no YAML: {error}")),
    };
    for document in documents {
        let own = match (&patch.target, own_target(&document)) {
            (Some(_), _) => None,
            (None, Some(own)) => Some(own),
            (None, None) => {
                wrong("a patch needs apiVersion, kind and metadata.name, or a target".to_owned());
                continue;
            }
        };
        let Some(target) = patch.target.as_ref().or(own.as_ref()) else {
            continue;
        };
        if let Some(pattern) = target.pattern() {
            wrong(format!("target {pattern:?}: patterns are not supported"));
            continue;
        }
        match change(document) {
            Ok(change) => {
                if let Err(why) = to_targets(resources, target, &change) {
                    wrong(why);
                }
            }
            Err(error) => wrong(format!("a patch is no RFC 6902 patch: {error}")),
        }
    }
}

fn change(document: Value) -> Result<Change, serde_json::Error> {
    if document.is_array() {
        return serde_json::from_value(document).map(Change::Json);
    }
    let mut document = document;
    // These say whom the patch is for; they are not a part of the change.
    if let Some(members) = document.as_object_mut() {
        members.remove("apiVersion");
        members.remove("kind");
        if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("name");
            metadata.remove("namespace");
        }
    }
    Ok(Change::Merge(document))
}

fn to_targets(
    resources: &mut Vec<Resource>,
    target: &Target,
    change: &Change,
) -> Result<(), String> {
    let mut found = false;
    let mut wrong = None;
    resources.retain_mut(|resource| {
        if !target.selects(resource) {
            return true;
        }
        found = true;
        let mut value = resource.object.value.clone();
        let kept = match change {
            Change::Merge(patch) => merge(&mut value, patch.clone(), &resource.object.kind),
            Change::Json(patch) => {
                if let Err(error) = json_patch::patch(&mut value, patch) {
                    wrong = Some(format!("{}: {error}", resource.object));
                }
                true
            }
        };
        if kept && let Err(mistake) = resource.replace(value) {
            wrong = Some(mistake.to_string());
        }
        kept
    });
    match wrong {
        Some(why) => Err(why),
        None if !found => Err(format!("no object is {target}")),
        None => Ok(()),
    }
}

/// The object that a strategic merge names itself. Without a namespace it means an object that
/// had none in the file that it was written in.
fn own_target(document: &Value) -> Option<Target> {
    let text = |pointer| document.pointer(pointer)?.as_str().map(str::to_owned);
    let api_version = text("/apiVersion")?;
    let (group, version) = group_version(&api_version);
    Some(Target {
        group: Some(group.to_owned()),
        version: Some(version.to_owned()),
        kind: Some(text("/kind")?),
        name: Some(text("/metadata/name")?),
        namespace: Some(text("/metadata/namespace").unwrap_or_default()),
    })
}

impl Target {
    fn selects(&self, resource: &Resource) -> bool {
        let is = |wanted: &Option<String>, its: &str| wanted.as_ref().is_none_or(|w| w == its);
        let (group, version) = group_version(&resource.object.api_version);
        is(&self.group, group)
            && is(&self.version, version)
            && is(&self.kind, &resource.object.kind)
            && resource.was_called(self.namespace.as_deref(), self.name.as_deref())
    }

    /// Returns what kustomize would read as a regular expression with more than one meaning.
    fn pattern(&self) -> Option<&str> {
        [&self.kind, &self.name, &self.namespace]
            .into_iter()
            .flatten()
            .find(|text| text.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-'))
            .map(String::as_str)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "*".to_owned());
        write!(
            f,
            "{} {}/{}",
            said(&self.kind),
            said(&self.namespace),
            said(&self.name)
        )
    }
}
