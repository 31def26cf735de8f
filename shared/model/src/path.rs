//! JSONPath into an event's data.

use serde_json::Value;
use serde_json_path::JsonPath;

/// A JSONPath (RFC 9535) that is rooted at an event's data, compiled once.
///
/// `$.data` followed by `.`, `[` or the end is the data itself; every other path
/// starts at the data, which is OpenMeter's form. So `$.data.endpoint` and
/// `$.endpoint` name the same value, and a member that is itself called data is
/// `$['data']`.
#[derive(Clone, Debug)]
pub struct DataPath {
    text: String,
    steps: Steps,
}

#[derive(Clone, Debug)]
enum Steps {
    /// `$.a.b`: by far the most frequent, and a plain look-up.
    Names(Vec<String>),
    Query(JsonPath),
}

/// Why a text is no [`DataPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path does not start at the root.
    #[error("must start with $")]
    NotRooted,
    /// The path is no JSONPath.
    #[error("is no valid JSONPath: {0}")]
    Invalid(String),
}

impl DataPath {
    /// Reads a path as a meter definition writes it.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let rest = text.strip_prefix('$').ok_or(PathError::NotRooted)?;
        let in_data = match rest.strip_prefix(".data") {
            Some(rest) if rest.is_empty() || rest.starts_with(['.', '[']) => rest,
            _ => rest,
        };
        let query = JsonPath::parse(&format!("${in_data}"))
            .map_err(|error| PathError::Invalid(error.to_string()))?;
        Ok(Self {
            text: text.to_owned(),
            steps: plain_names(in_data).map_or(Steps::Query(query), Steps::Names),
        })
    }

    /// Returns the path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the value that the path names; the first one, if it names several.
    pub fn find<'a>(&self, data: &'a Value) -> Option<&'a Value> {
        match &self.steps {
            Steps::Names(names) => names
                .iter()
                .try_fold(data, |value, name| value.as_object()?.get(name)),
            Steps::Query(query) => query.query(data).first(),
        }
    }
}

/// Returns the names of a path of the form `.a.b`, of letters, digits and `_` only.
fn plain_names(path: &str) -> Option<Vec<String>> {
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.strip_prefix('.')?
        .split('.')
        .map(|name| {
            let plain =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            plain.then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_names_a_value_of_the_data() {
        let data = json!({
            "endpoint": "/accounts", "database": 1, "a": {"b": [5, {"c": "x"}]},
            "data": {"endpoint": "inner"}, "a-b": 2
        });
        for (path, value) in [
            ("$.data.endpoint", Some(json!("/accounts"))),
            ("$.endpoint", Some(json!("/accounts"))),
            ("$.data['endpoint']", Some(json!("/accounts"))),
            ("$['data'].endpoint", Some(json!("inner"))),
            ("$.data.data.endpoint", Some(json!("inner"))),
            ("$.database", Some(json!(1))),
            ("$.a.b[1].c", Some(json!("x"))),
            ("$.a.b[*]", Some(json!(5))),
            ("$.data", Some(data.clone())),
            ("$", Some(data.clone())),
            ("$['a-b']", Some(json!(2))),
            ("$.missing.deep", None),
            ("$.endpoint.deep", None),
        ] {
            assert_eq!(
                DataPath::parse(path).unwrap().find(&data),
                value.as_ref(),
                "{path}"
            );
        }
    }

    #[test]
    fn a_mistake_is_refused_at_once() {
        assert_eq!(
            DataPath::parse("endpoint").unwrap_err(),
            PathError::NotRooted
        );
        for path in ["$.", "$[", "$..", "$.a b", "$.a.", "$endpoint", "$.1a"] {
            assert!(
                matches!(DataPath::parse(path), Err(PathError::Invalid(_))),
                "{path}"
            );
        }
    }
}
