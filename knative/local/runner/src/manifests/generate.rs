//! ConfigMaps and Secrets from literals and files.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::kustomization::Generator;

/// What is generated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

/// Makes one object; `read` reads a file of the kustomization's folder.
pub(super) fn generate(
    kind: Kind,
    generator: &Generator,
    read: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Value, String> {
    let mut data = Map::new();
    let mut add = |key: &str, bytes: Vec<u8>| {
        let value = match kind {
            Kind::Secret => BASE64_STANDARD.encode(bytes),
            Kind::ConfigMap => String::from_utf8(bytes)
                .map_err(|_| format!("{key} is no UTF-8; binaryData is not supported"))?,
        };
        match data.insert(key.to_owned(), value.into()) {
            Some(_) => Err(format!("{key} is there twice")),
            None => Ok(()),
        }
    };
    for literal in &generator.literals {
        let (key, value) = literal
            .split_once('=')
            .ok_or_else(|| format!("literal {literal:?} is not KEY=value"))?;
        add(key, unquoted(value).as_bytes().to_vec())?;
    }
    for file in &generator.files {
        let (key, path) = match file.split_once('=') {
            Some(named) => named,
            None => (
                Path::new(file)
                    .file_name()
                    .and_then(|name| name.to_str())
                    .ok_or_else(|| format!("{file:?} names no file"))?,
                file.as_str(),
            ),
        };
        add(key, read(path)?)?;
    }
    let metadata = json!({"name": generator.name});
    match kind {
        Kind::ConfigMap if generator.secret_type.is_some() => {
            Err("a ConfigMap has no type".to_owned())
        }
        Kind::ConfigMap => Ok(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data,
        })),
        Kind::Secret => Ok(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data,
            "type": generator.secret_type.as_deref().unwrap_or("Opaque"),
        })),
    }
}

/// Quotes around the whole value are not a part of it.
fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}
