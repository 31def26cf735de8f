//! Which events a Trigger takes: the dialects of `spec.filters`, and `spec.filter.attributes`.

use std::collections::BTreeMap;

use serde::Deserialize;
use stream::CloudEvent;

/// One filter. An attribute is compared as text; an absent one matches nothing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Dialects")]
pub enum Filter {
    /// Each of these attributes is that.
    Exact(BTreeMap<String, String>),
    /// Each of these attributes begins with that.
    Prefix(BTreeMap<String, String>),
    /// Each of these attributes ends with that.
    Suffix(BTreeMap<String, String>),
    /// All of these match.
    All(Vec<Filter>),
    /// One of these matches.
    Any(Vec<Filter>),
    /// This does not match.
    Not(Box<Filter>),
}

impl Filter {
    /// Returns `spec.filter.attributes`, the older form of one `exact`; none at all take all.
    pub fn attributes(attributes: BTreeMap<String, String>) -> Result<Self, String> {
        if attributes.is_empty() {
            return Ok(Self::All(Vec::new()));
        }
        checked(attributes).map(Self::Exact)
    }

    /// Returns whether the event passes.
    pub fn matches(&self, event: &CloudEvent) -> bool {
        let each = |attributes: &BTreeMap<String, String>, fits: fn(&str, &str) -> bool| {
            attributes.iter().all(|(name, wanted)| {
                let found = event.attribute(name);
                found.is_some_and(|found| fits(&found, wanted))
            })
        };
        match self {
            Self::Exact(attributes) => each(attributes, |found, wanted| found == wanted),
            Self::Prefix(attributes) => each(attributes, |found, wanted| found.starts_with(wanted)),
            Self::Suffix(attributes) => each(attributes, |found, wanted| found.ends_with(wanted)),
            Self::All(filters) => filters.iter().all(|filter| filter.matches(event)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(event)),
            Self::Not(filter) => !filter.matches(event),
        }
    }
}

/// An item of `spec.filters` as it is written: Knative allows one dialect in each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dialects {
    exact: Option<BTreeMap<String, String>>,
    prefix: Option<BTreeMap<String, String>>,
    suffix: Option<BTreeMap<String, String>>,
    all: Option<Vec<Filter>>,
    any: Option<Vec<Filter>>,
    not: Option<Box<Filter>>,
    cesql: Option<String>,
}

impl TryFrom<Dialects> for Filter {
    type Error = String;

    fn try_from(dialects: Dialects) -> Result<Self, String> {
        if dialects.cesql.is_some() {
            return Err("cesql is not supported here".to_owned());
        }
        let filters = [
            dialects.exact.map(|map| checked(map).map(Self::Exact)),
            dialects.prefix.map(|map| checked(map).map(Self::Prefix)),
            dialects.suffix.map(|map| checked(map).map(Self::Suffix)),
            dialects.all.map(|all| not_empty(all).map(Self::All)),
            dialects.any.map(|any| not_empty(any).map(Self::Any)),
            dialects.not.map(|not| Ok(Self::Not(not))),
        ];
        let mut filters = filters.into_iter().flatten();
        match (filters.next(), filters.next()) {
            (Some(filter), None) => filter,
            (None, _) => Err("names no dialect".to_owned()),
            (Some(_), Some(_)) => Err("has more than one dialect".to_owned()),
        }
    }
}

fn not_empty(filters: Vec<Filter>) -> Result<Vec<Filter>, String> {
    if filters.is_empty() {
        return Err("has no filters".to_owned());
    }
    Ok(filters)
}

fn checked(attributes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if attributes.is_empty() {
        return Err("names no attribute".to_owned());
    }
    for (name, wanted) in &attributes {
        if !is_attribute_name(name) {
            return Err(format!("{name:?} is not an attribute's name"));
        }
        // To one broker it means "any", to another it matches nothing.
        if wanted.is_empty() {
            return Err(format!("{name} is compared with nothing"));
        }
    }
    Ok(attributes)
}

/// Returns whether Knative takes `name` for an attribute's: `^[a-z][a-z0-9]*$`.
pub fn is_attribute_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_dialect_compares_text() {
        let event = CloudEvent::new("1", "/gw/eu-1", "com.ex.usage.v1")
            .with_extension("tppid", "acme")
            .with_extension("n", "5");
        for (filter, expected) in [
            (json!({"exact": {"type": "com.ex.usage.v1"}}), true),
            (json!({"exact": {"type": "COM.EX.USAGE.V1"}}), false),
            (
                json!({"exact": {"type": "com.ex.usage.v1", "n": "6"}}),
                false,
            ),
            (json!({"exact": {"nosuch": "x"}}), false),
            (
                json!({"prefix": {"type": "com.ex.", "source": "/gw"}}),
                true,
            ),
            (
                json!({"prefix": {"type": "com.ex.", "source": "gw"}}),
                false,
            ),
            (json!({"suffix": {"source": "eu-1"}}), true),
            (json!({"suffix": {"source": "eu-2"}}), false),
            (json!({"not": {"exact": {"nosuch": "x"}}}), true),
            (json!({"not": {"prefix": {"type": "com."}}}), false),
            (
                json!({"any": [{"exact": {"type": "x"}}, {"exact": {"n": "5"}}]}),
                true,
            ),
            (
                json!({"any": [{"exact": {"type": "x"}}, {"exact": {"n": "6"}}]}),
                false,
            ),
            (
                json!({"all": [{"exact": {"type": "x"}}, {"exact": {"n": "5"}}]}),
                false,
            ),
            (
                json!({"all": [
                    {"any": [{"exact": {"tppid": "b"}}, {"exact": {"tppid": "acme"}}]},
                    {"not": {"prefix": {"source": "/test"}}},
                ]}),
                true,
            ),
        ] {
            let read: Filter = serde_json::from_value(filter.clone()).unwrap();
            assert_eq!(read.matches(&event), expected, "{filter}");
        }
    }

    #[test]
    fn what_knative_would_not_admit_is_refused() {
        for (filter, why) in [
            (json!({}), "no dialect"),
            (
                json!({"exact": {"type": "a"}, "suffix": {"type": "b"}}),
                "more than one",
            ),
            (json!({"prefix": {}}), "no attribute"),
            (json!({"any": []}), "no filters"),
            (json!({"exact": {"Type": "a"}}), "not an attribute's name"),
            (json!({"exact": {"type": ""}}), "compared with nothing"),
            (
                json!({"not": {"exact": {"1": "a"}}}),
                "not an attribute's name",
            ),
            (json!({"cesql": "type = 'a'"}), "cesql"),
            (json!({"exactly": {"type": "a"}}), "exactly"),
        ] {
            let error = serde_json::from_value::<Filter>(filter.clone()).unwrap_err();
            assert!(error.to_string().contains(why), "{filter}: {error}");
        }
    }

    #[test]
    fn no_attributes_take_all() {
        let event = CloudEvent::new("1", "/s", "t");
        let filter = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|&(a, b)| (a.to_owned(), b.to_owned()));
            Filter::attributes(pairs.collect()).unwrap()
        };
        assert!(filter(&[]).matches(&event));
        assert!(filter(&[("type", "t")]).matches(&event));
        assert!(!filter(&[("type", "t"), ("source", "/other")]).matches(&event));
    }
}
