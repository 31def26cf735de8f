//! The fields of a `kustomization.yaml` that we know.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::{Mistake, resource};

/// A folder's `kustomization.yaml`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    pub(super) kind: Kind,
    pub(super) resources: Vec<String>,
    pub(super) components: Vec<String>,
    pub(super) config_map_generator: Vec<Generator>,
    pub(super) secret_generator: Vec<Generator>,
    pub(super) generator_options: GeneratorOptions,
    pub(super) patches: Vec<Patch>,
    pub(super) namespace: Option<String>,
    pub(super) labels: Vec<Labels>,
    pub(super) images: Vec<Image>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// What a folder is to the one that names it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(super) enum Kind {
    /// Named under `resources`; rendered on its own.
    #[default]
    Kustomization,
    /// Named under `components`; works on what was there before it.
    Component,
}

/// Data for one ConfigMap or Secret.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Generator {
    pub(super) name: String,
    /// `KEY=value`.
    #[serde(default)]
    pub(super) literals: Vec<String>,
    /// `path` or `key=path`.
    #[serde(default)]
    pub(super) files: Vec<String>,
    /// A Secret's type.
    #[serde(rename = "type")]
    pub(super) secret_type: Option<String>,
}

/// How generated names are made.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct GeneratorOptions {
    /// We do not compute kustomize's hash, so a generator needs this to be true.
    pub(super) disable_name_suffix_hash: bool,
}

/// A change of objects: a strategic merge, or RFC 6902.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    pub(super) patch: Option<String>,
    pub(super) path: Option<String>,
    pub(super) target: Option<Target>,
}

/// Which objects a patch is for; what is absent selects all. Name and namespace are regular
/// expressions to kustomize; ours are plain, so anything else is refused when it is used.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) group: Option<String>,
    pub(super) version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
}

/// Labels for every object's metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Labels {
    pub(super) pairs: BTreeMap<String, String>,
}

/// What an image is replaced by.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) new_name: Option<String>,
    pub(super) new_tag: Option<String>,
    pub(super) digest: Option<String>,
}

impl Kustomization {
    /// Reads `file`; what is wrong with it goes to `mistakes`.
    pub(super) fn read(file: &Path, mistakes: &mut Vec<Mistake>) -> Option<Self> {
        let mut documents = match resource::documents(file) {
            Ok(documents) => documents,
            Err(mistake) => {
                mistakes.push(mistake);
                return None;
            }
        };
        let value = match documents.len() {
            0 => Value::Object(serde_json::Map::new()),
            1 => documents.remove(0),
            _ => {
                mistakes.push(Mistake::in_file(file, "", "must be one document"));
                return None;
            }
        };
        match serde_path_to_error::deserialize::<_, Self>(value) {
            Ok(read) => {
                mistakes.extend(
                    read.unknown
                        .keys()
                        .map(|field| Mistake::in_file(file, field, "is not supported here")),
                );
                Some(read)
            }
            Err(error) => {
                let field = error.path().to_string();
                mistakes.push(Mistake::in_file(file, field, error.into_inner()));
                None
            }
        }
    }
}
