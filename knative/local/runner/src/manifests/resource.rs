//! An object while it is being rendered, and the files that objects come from.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use super::{Mistake, Object};

/// An object on its way, with the names by which earlier folders knew it: a patch may use any.
pub(super) struct Resource {
    pub(super) object: Object,
    earlier: Vec<(String, String)>,
}

impl Resource {
    /// Takes a document for an object.
    pub(super) fn new(value: Value, file: &Path) -> Result<Self, Mistake> {
        let text = |pointer: &str, field: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| Mistake::in_file(file, field, "must be a string in every object"))
        };
        let object = Object {
            api_version: text("/apiVersion", "apiVersion")?,
            kind: text("/kind", "kind")?,
            name: text("/metadata/name", "metadata.name")?,
            namespace: text("/metadata/namespace", "metadata.namespace").unwrap_or_default(),
            file: file.to_owned(),
            value,
        };
        if object.kind == "List" {
            return Err(object.mistake("kind", "is not supported here: write several documents"));
        }
        Ok(Self {
            object,
            earlier: Vec::new(),
        })
    }

    /// Says whether `other` would take this one's place in a cluster.
    pub(super) fn is(&self, other: &Self) -> bool {
        let key = |object: &Object| {
            let (group, _) = group_version(&object.api_version);
            (
                group.to_owned(),
                object.kind.clone(),
                object.namespace.clone(),
                object.name.clone(),
            )
        };
        key(&self.object) == key(&other.object)
    }

    /// Says whether it has or had a name in a namespace; what is `None` may be any.
    pub(super) fn was_called(&self, namespace: Option<&str>, name: Option<&str>) -> bool {
        let now = (self.object.namespace.clone(), self.object.name.clone());
        self.earlier.iter().chain([&now]).any(|(its, called)| {
            namespace.is_none_or(|wanted| wanted == its) && name.is_none_or(|name| name == called)
        })
    }

    /// Moves it to a namespace; an object that lies in none stays. The namespace's own object
    /// takes its name.
    pub(super) fn move_to(&mut self, namespace: &str) {
        let object = &mut self.object;
        self.earlier
            .push((object.namespace.clone(), object.name.clone()));
        let field = if object.kind == "Namespace" {
            object.name = namespace.to_owned();
            "name"
        } else {
            object.namespace = namespace.to_owned();
            "namespace"
        };
        object.value["metadata"][field] = namespace.into();
    }

    /// Puts a patched value in place, which must have kept its name.
    pub(super) fn replace(&mut self, value: Value) -> Result<(), Mistake> {
        let patched = Self::new(value, &self.object.file)?.object;
        let same = patched.api_version == self.object.api_version
            && patched.kind == self.object.kind
            && patched.namespace == self.object.namespace
            && patched.name == self.object.name;
        if !same {
            return Err(self.object.mistake("metadata", "a patch must not rename"));
        }
        self.object = patched;
        Ok(())
    }
}

/// Splits `serving.knative.dev/v1`; the core group is empty.
pub(super) fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Reads a file's YAML documents; empty ones do not count.
pub(super) fn documents(file: &Path) -> Result<Vec<Value>, Mistake> {
    let text = std::fs::read_to_string(file).map_err(|error| Mistake::in_file(file, "", error))?;
    parse(&text).map_err(|error| Mistake::in_file(file, "", error))
}

/// Parses YAML documents. A key that is there twice is an error, as it is to kustomize.
pub(super) fn parse(text: &str) -> Result<Vec<Value>, String> {
    let mut documents = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        // By YAML's own value, for that one refuses a repeated key.
        let value = serde_yaml_ng::Value::deserialize(document).map_err(|e| e.to_string())?;
        let value = serde_json::to_value(value).map_err(|e| e.to_string())?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// Drops `.` and `name/..` from a path, so that it reads well in a message.
pub(super) fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(tidy.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    if tidy.as_os_str().is_empty() {
        tidy.push(".");
    }
    tidy
}
