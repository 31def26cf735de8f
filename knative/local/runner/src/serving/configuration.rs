//! ConfigMaps and Secrets, by namespace and name.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;

use crate::manifests::{Mistake, Object};

/// The entries of a ConfigMap or a Secret.
pub(super) type Entries = BTreeMap<String, Vec<u8>>;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Map {
    Config,
    Secret,
}

impl Map {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Config => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// Every ConfigMap and Secret of the manifests.
#[derive(Default)]
pub(super) struct Configuration {
    maps: BTreeMap<(Map, String, String), Entries>,
}

type Texts = Option<BTreeMap<String, String>>;

/// The fields of a ConfigMap or a Secret beside its data. `binaryData` is not among them, as
/// nothing of ours is binary.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    data: Texts,
    string_data: Texts,
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: serde::de::IgnoredAny,
    #[serde(default, rename = "immutable")]
    _immutable: Option<bool>,
    #[serde(default, rename = "type")]
    _type: Option<String>,
}

impl Configuration {
    /// Takes one ConfigMap or Secret in.
    pub(super) fn add(&mut self, map: Map, object: &Object) -> Result<(), Vec<Mistake>> {
        let fields =
            serde_path_to_error::deserialize::<_, Fields>(&object.value).map_err(|error| {
                vec![object.mistake(error.path().to_string(), error.inner().to_string())]
            })?;
        let mut entries = Entries::new();
        let mut mistakes = Vec::new();
        for (key, text) in fields.data.unwrap_or_default() {
            let value = match map {
                Map::Config => Ok(text.into_bytes()),
                Map::Secret => BASE64_STANDARD.decode(&text),
            };
            match value {
                Ok(value) => drop(entries.insert(key, value)),
                Err(error) => {
                    mistakes.push(object.mistake(format!("data.{key}"), error.to_string()))
                }
            }
        }
        if map == Map::Config && fields.string_data.is_some() {
            mistakes.push(object.mistake("stringData", "is a Secret's"));
        }
        for (key, text) in fields.string_data.unwrap_or_default() {
            entries.insert(key, text.into_bytes());
        }
        let key = (map, object.namespace.clone(), object.name.clone());
        self.maps.insert(key, entries);
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes)
        }
    }

    /// Returns a map's entries; nothing if there is no such map.
    pub(super) fn get(&self, map: Map, namespace: &str, name: &str) -> Option<&Entries> {
        self.maps.get(&(map, namespace.to_owned(), name.to_owned()))
    }
}
