//! The meters in force, read from YAML in the seed's format and checked whole.

use std::{collections::HashMap, fmt, sync::Arc};

use regex::Regex;
use serde_yaml_ng::Value;

use crate::{
    meter::{Aggregation, GroupBy, Meter, SUBJECT},
    mistakes::{Fields, Mistakes, unknown_keys, write_mistakes},
    path::DataPath,
};

/// Event types of our own, which no meter may count: a quota event that is
/// metered would debit the quota that it reports.
const OWN_EVENT_TYPES: &str = r"^io\.openmeter\.";

/// All meters of a deployment, with the meters of each event type at hand.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    meters: Vec<Arc<Meter>>,
    by_event_type: HashMap<String, OfType>,
}

#[derive(Clone, Debug, Default)]
struct OfType {
    /// Places in `Catalog::meters`.
    meters: Vec<usize>,
    definitions: u64,
}

/// Every mistake of a catalog, each with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogError {
    /// One entry a mistake: `meters[0].slug: must ...`.
    pub mistakes: Vec<String>,
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_mistakes(f, "the meter definitions", &self.mistakes)
    }
}

impl std::error::Error for CatalogError {}

impl Catalog {
    /// Reads the top-level keys `meters` (required) and `reservedEventTypes`
    /// (regular expressions of event types that no meter may name).
    pub fn from_yaml(text: &str) -> Result<Self, CatalogError> {
        let mut mistakes = Mistakes::default();
        let catalog = match serde_yaml_ng::from_str::<Value>(text) {
            Ok(root) => read_catalog(&root, &mut mistakes),
            Err(error) => {
                mistakes.add("", format!("no valid YAML: {error}"));
                Self::default()
            }
        };
        mistakes
            .into_result(catalog)
            .map_err(|mistakes| CatalogError { mistakes })
    }

    fn new(meters: Vec<Meter>) -> Self {
        let meters: Vec<_> = meters.into_iter().map(Arc::new).collect();
        let mut by_event_type: HashMap<String, OfType> = HashMap::new();
        for (place, meter) in meters.iter().enumerate() {
            by_event_type
                .entry(meter.event_type.clone())
                .or_default()
                .meters
                .push(place);
        }
        for of_type in by_event_type.values_mut() {
            of_type.definitions = fingerprint(of_type.meters.iter().map(|place| &*meters[*place]));
        }
        Self {
            meters,
            by_event_type,
        }
    }

    /// Returns all meters, in the order of their definition.
    pub fn meters(&self) -> &[Arc<Meter>] {
        &self.meters
    }

    /// Returns the meter called `slug`.
    pub fn meter(&self, slug: &str) -> Option<&Arc<Meter>> {
        self.meters.iter().find(|meter| meter.slug == slug)
    }

    /// Returns the meters that take events of this type.
    pub fn of_event_type(&self, event_type: &str) -> impl Iterator<Item = &Arc<Meter>> {
        let places = self
            .by_event_type
            .get(event_type)
            .map_or(&[][..], |of_type| &of_type.meters);
        places.iter().map(|place| &self.meters[*place])
    }

    /// Returns a hash of the definitions that apply to events of this type;
    /// 0 when none does. Rows carry it: a row with another hash was made by
    /// other definitions.
    pub fn definitions(&self, event_type: &str) -> u64 {
        self.by_event_type
            .get(event_type)
            .map_or(0, |of_type| of_type.definitions)
    }
}

fn fingerprint<'a>(meters: impl Iterator<Item = &'a Meter>) -> u64 {
    let mut text = Vec::new();
    let mut sorted: Vec<_> = meters.collect();
    sorted.sort_by(|a, b| a.slug.cmp(&b.slug));
    sorted.iter().for_each(|meter| meter.fingerprint(&mut text));
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(&text).as_bytes()[..8]);
    u64::from_le_bytes(short)
}

fn read_catalog(root: &Value, mistakes: &mut Mistakes) -> Catalog {
    let Some(root) = root.as_mapping() else {
        mistakes.add("", "must be a mapping with the key meters");
        return Catalog::default();
    };
    unknown_keys(root, &["meters", "reservedEventTypes"], "", mistakes);
    let reserved = read_reserved(root.get("reservedEventTypes"), mistakes);
    let Some(entries) = root.get("meters").and_then(Value::as_sequence) else {
        mistakes.add("meters", "must be a list");
        return Catalog::default();
    };
    let mut meters: Vec<Meter> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let place = format!("meters[{index}]");
        let Some(meter) = read_meter(entry, &place, &reserved, mistakes) else {
            continue;
        };
        if let Some(earlier) = meters.iter().position(|other| other.slug == meter.slug) {
            mistakes.add(
                &format!("{place}.slug"),
                format!("{} is also meter number {earlier}", meter.slug),
            );
        }
        meters.push(meter);
    }
    Catalog::new(meters)
}

fn read_reserved(value: Option<&Value>, mistakes: &mut Mistakes) -> Vec<Regex> {
    let empty = Vec::new();
    let patterns = match value {
        None => &empty,
        Some(Value::Sequence(patterns)) => patterns,
        Some(_) => {
            mistakes.add(
                "reservedEventTypes",
                "must be a list of regular expressions",
            );
            &empty
        }
    };
    let mut reserved: Vec<Regex> = Regex::new(OWN_EVENT_TYPES).into_iter().collect();
    for (index, pattern) in patterns.iter().enumerate() {
        match pattern.as_str().map(Regex::new) {
            Some(Ok(regex)) => reserved.push(regex),
            _ => mistakes.add(
                &format!("reservedEventTypes[{index}]"),
                "must be a regular expression",
            ),
        }
    }
    reserved
}

/// Reads one definition; `None` when it is too broken to be compared with others.
fn read_meter(
    entry: &Value,
    place: &str,
    reserved: &[Regex],
    mistakes: &mut Mistakes,
) -> Option<Meter> {
    let Some(entry) = entry.as_mapping() else {
        mistakes.add(place, "must be a mapping");
        return None;
    };
    let known = [
        "slug",
        "name",
        "description",
        "eventType",
        "aggregation",
        "valueProperty",
        "groupBy",
        "eventFrom",
        "metadata",
    ];
    unknown_keys(entry, &known, place, mistakes);
    let mut fields = Fields {
        entry,
        place,
        mistakes,
    };
    let slug = fields.required(
        "slug",
        is_slug,
        "must be words of a-z and 0-9 joined by single _ or -, 64 characters at most",
    );
    let event_type = fields.required("eventType", |text| !text.is_empty(), "must not be empty");
    if let Some(event_type) = &event_type
        && reserved.iter().any(|regex| regex.is_match(event_type))
    {
        fields.add("eventType", format!("{event_type} is reserved"));
    }
    let aggregation = fields
        .required("aggregation", |_| true, "")
        .and_then(|text| {
            text.parse::<Aggregation>()
                .map_err(|error| fields.add("aggregation", error))
                .ok()
        });
    let value = fields.path("valueProperty");
    match (aggregation, entry.contains_key("valueProperty")) {
        (Some(Aggregation::Count), true) => fields.add("valueProperty", "must be absent for COUNT"),
        (Some(other), false) if other != Aggregation::Count => {
            fields.add("valueProperty", format!("is required for {other}"));
        }
        _ => {}
    }
    let group_by = fields.group_by(value.as_ref());
    let name = fields.text("name");
    let description = fields.text("description");
    let event_from = fields.text("eventFrom").and_then(|text| {
        text.parse()
            .map_err(|_| fields.add("eventFrom", "must be an RFC 3339 time"))
            .ok()
    });
    let slug = slug?;
    Some(Meter {
        name: name.unwrap_or_else(|| slug.clone()),
        slug,
        description,
        event_type: event_type?,
        aggregation: aggregation?,
        value,
        group_by,
        event_from,
    })
}

impl Fields<'_> {
    fn path(&mut self, field: &str) -> Option<DataPath> {
        let text = self.text(field)?;
        DataPath::parse(&text)
            .map_err(|error| self.add(field, error))
            .ok()
    }

    fn group_by(&mut self, value: Option<&DataPath>) -> Vec<GroupBy> {
        let mut groups = Vec::new();
        let entries = match self.entry.get("groupBy") {
            None | Some(Value::Null) => return groups,
            Some(Value::Mapping(entries)) => entries,
            Some(_) => {
                self.add("groupBy", "must be a mapping of names to JSONPaths");
                return groups;
            }
        };
        for (name, path) in entries {
            let Some(name) = name.as_str() else {
                self.add("groupBy", "must have texts as names");
                continue;
            };
            let field = format!("groupBy.{name}");
            // The subject is always a dimension; the seed's definitions say so.
            if name == SUBJECT && path == &Value::Bool(true) {
                continue;
            }
            if name == SUBJECT {
                self.add(&field, "is always a dimension: write true or leave it out");
                continue;
            }
            if !is_dimension(name) {
                self.add(
                    &field,
                    "must be named by letters, digits and _, and not begin with a digit",
                );
            }
            match path.as_str().map(DataPath::parse) {
                None => self.add(&field, "must be a JSONPath"),
                Some(Err(error)) => self.add(&field, error),
                Some(Ok(path)) if value.is_some_and(|value| value.as_str() == path.as_str()) => {
                    self.add(&field, "must differ from valueProperty");
                }
                Some(Ok(path)) => groups.push(GroupBy {
                    name: name.to_owned(),
                    path,
                }),
            }
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups
    }
}

fn is_slug(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    text.len() <= 64 && text.split(['_', '-']).all(is_word)
}

fn is_dimension(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    text.bytes().next().is_some_and(is_letter)
        && text.bytes().all(|b| is_letter(b) || b.is_ascii_digit())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SEED: &str = r"
meters:
  - slug: api_calls
    description: API call count per TPP
    eventType: api.call
    aggregation: COUNT
    groupBy:
      subject: true
      endpoint: $.data.endpoint
      method: $.data.method

  - slug: api_latency
    description: API latency percentiles
    eventType: api.call
    valueProperty: $.data.response_time_ms
    aggregation: SUM
    groupBy:
      subject: true
      endpoint: $.data.endpoint
";

    #[test]
    fn the_seed_is_read_as_it_stands() {
        let catalog = Catalog::from_yaml(SEED).unwrap();
        let slugs: Vec<_> = catalog
            .of_event_type("api.call")
            .map(|meter| meter.slug.as_str())
            .collect();
        assert_eq!(slugs, ["api_calls", "api_latency"]);
        let latency = catalog.meter("api_latency").unwrap();
        assert_eq!(latency.aggregation, Aggregation::Sum);
        assert!(latency.has_dimension("subject") && latency.has_dimension("endpoint"));
        assert!(!latency.has_dimension("method"));
        assert_eq!(catalog.of_event_type("other").count(), 0);
    }

    #[test]
    fn every_mistake_is_listed_with_its_place() {
        let text = r"
extra: 1
reservedEventTypes: ['^om\.', '(']
meters:
  - slug: Bad-Slug
    eventType: om.x
    aggregation: SUM
    groupBy: {1a: $.x, b: x, '': $.y, subject: $.z}
  - slug: twice
    eventType: t
    aggregation: COUNT
    valueProperty: $.v
  - slug: twice
    eventType: io.openmeter.quota
    aggregation: MEDIAN
    valueProperty: $.v
    colour: red
  - slug: same
    eventType: t
    aggregation: MAX
    valueProperty: $.v
    groupBy: {v: $.v}
  - 5
";
        let mistakes = Catalog::from_yaml(text).unwrap_err().mistakes;
        for start in [
            "extra: is not known",
            "reservedEventTypes[1]: must be a regular expression",
            "meters[0].slug: must be words",
            "meters[0].eventType: om.x is reserved",
            "meters[0].valueProperty: is required for SUM",
            "meters[0].groupBy.1a: must be named",
            "meters[0].groupBy.b: must start with $",
            "meters[0].groupBy.: must be named",
            "meters[0].groupBy.subject: is always",
            "meters[1].valueProperty: must be absent for COUNT",
            "meters[2].eventType: io.openmeter.quota is reserved",
            "meters[2].aggregation: must be one of",
            "meters[2].colour: is not known",
            "meters[3].groupBy.v: must differ",
            "meters[4]: must be a mapping",
        ] {
            assert!(
                mistakes.iter().any(|mistake| mistake.starts_with(start)),
                "{start} in {mistakes:#?}"
            );
        }
        assert_eq!(mistakes.len(), 15, "{mistakes:#?}");
    }

    #[test]
    fn two_meters_cannot_share_a_slug() {
        let one = "{slug: a, eventType: t, aggregation: COUNT}";
        let error = Catalog::from_yaml(&format!("meters: [{one}, {one}]")).unwrap_err();
        assert_eq!(error.mistakes, ["meters[1].slug: a is also meter number 0"]);
    }

    #[test]
    fn only_what_decides_rows_changes_the_hash() {
        let hash = |text: &str| Catalog::from_yaml(text).unwrap().definitions("api.call");
        assert_ne!(hash(SEED), 0);
        assert_eq!(hash(SEED), hash(&SEED.replace("percentiles", "sum")));
        assert_ne!(
            hash(SEED),
            hash(&SEED.replace("$.data.method", "$.data.verb"))
        );
        assert_eq!(Catalog::from_yaml(SEED).unwrap().definitions("other"), 0);
    }

    #[test]
    fn what_is_no_catalog_is_refused() {
        for text in [
            "",
            "5",
            "meters: 5",
            "meters: [",
            "meters: [{slug: a, slug: b}]",
        ] {
            assert!(Catalog::from_yaml(text).is_err(), "{text}");
        }
        assert!(
            Catalog::from_yaml("meters: []")
                .unwrap()
                .meters()
                .is_empty()
        );
    }
}
