//! One object of a rendered overlay, and what can be wrong with it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// One Kubernetes object, rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// `serving.knative.dev/v1`.
    pub api_version: String,
    /// `Service`.
    pub kind: String,
    /// The namespace; empty for an object that has none.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The whole object.
    pub value: Value,
    /// The file that it was first written in.
    pub file: PathBuf,
}

/// One mistake in a manifest: whose it is, in which field, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// `Trigger open-banking/ingest (knative/base/eventing.yaml)`, or a file.
    pub whose: String,
    /// `spec.delivery.retry`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl Object {
    /// Reads a part of the object, such as `spec`, into a closed type: a field that the type
    /// does not know is a mistake that names it.
    pub fn part<T: DeserializeOwned>(&self, part: &str) -> Result<T, Mistake> {
        let value = self.value.get(part).unwrap_or(&Value::Null);
        serde_path_to_error::deserialize(value).map_err(|error| {
            let inner = error.path().to_string();
            let field = if inner == "." {
                part.to_owned()
            } else {
                format!("{part}.{inner}")
            };
            self.mistake(field, error.into_inner().to_string())
        })
    }

    /// Returns `metadata.annotations` or `metadata.labels` member `name`, if it is a string.
    pub fn metadata(&self, map: &str, name: &str) -> Option<&str> {
        self.value.get("metadata")?.get(map)?.get(name)?.as_str()
    }

    /// Returns a mistake in this object.
    pub fn mistake(&self, field: impl Into<String>, why: impl Into<String>) -> Mistake {
        Mistake {
            whose: self.to_string(),
            field: field.into(),
            why: why.into(),
        }
    }
}

impl Mistake {
    /// Returns a mistake in a file, for what belongs to no object.
    pub fn in_file(file: &Path, field: impl Into<String>, why: impl ToString) -> Self {
        Self {
            whose: file.display().to_string(),
            field: field.into(),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
            file,
            ..
        } = self;
        write!(f, "{kind} {namespace}/{name} ({})", file.display())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whose, field, why } = self;
        match field.as_str() {
            "" => write!(f, "{whose}: {why}"),
            field => write!(f, "{whose}: {field}: {why}"),
        }
    }
}
