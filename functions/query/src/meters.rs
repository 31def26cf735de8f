//! Meter definitions, as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{Catalog, DataPath, Meter};
use runtime::Problem;
use serde::Serialize;

use crate::{mistakes::Mistakes, params::named_values};

/// The largest page, as OpenMeter has it.
const LARGEST_PAGE: usize = 1000;

/// A meter as OpenMeter shows it. What a definition in YAML does not have (times of
/// creation and change) is left out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown<'a> {
    id: &'a str,
    slug: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    aggregation: &'static str,
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_property: Option<&'a str>,
    group_by: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_from: Option<Timestamp>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(meter: &'a Meter) -> Self {
        let groups = meter.group_by.iter();
        Self {
            id: &meter.slug,
            slug: &meter.slug,
            name: &meter.name,
            description: meter.description.as_deref(),
            aggregation: meter.aggregation.name(),
            event_type: &meter.event_type,
            value_property: meter.value.as_ref().map(DataPath::as_str),
            group_by: groups
                .map(|group| (group.name.as_str(), group.path.as_str()))
                .collect(),
            event_from: meter.event_from,
        }
    }
}

/// Returns one page of the meters, in the order of their definition.
pub(crate) fn page<'a>(
    catalog: &'a Catalog,
    query: Option<&str>,
) -> Result<Vec<Shown<'a>>, Problem> {
    let by_name = named_values(query);
    let mut mistakes = Mistakes::default();
    let mut number = |name: &str, default: usize, largest: usize| {
        let values = by_name.get(name).map_or(&[][..], Vec::as_slice);
        let Some(text) = mistakes.one(name, values) else {
            return default;
        };
        match text.parse() {
            Ok(number) if (1..=largest).contains(&number) => number,
            _ => {
                mistakes.add(name, format!("must be a whole number from 1 to {largest}"));
                default
            }
        }
    };
    let page = number("page", 1, usize::MAX / LARGEST_PAGE);
    let size = number("pageSize", 100, LARGEST_PAGE);
    let meters = catalog.meters().iter();
    let shown = meters
        .skip((page - 1) * size)
        .take(size)
        .map(|meter| Shown::new(meter))
        .collect();
    mistakes.into_result(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_are_shown_in_pages() {
        let yaml = "meters: [{slug: a, eventType: t, aggregation: COUNT}, \
                    {slug: b, eventType: t, aggregation: SUM, valueProperty: $.data.v, \
                     description: B, groupBy: {subject: true, path: $.data.path}}]";
        let catalog = Catalog::from_yaml(yaml).unwrap();
        let text = |query| serde_json::to_string(&page(&catalog, query).unwrap()).unwrap();
        assert_eq!(
            text(Some("page=2&pageSize=1")),
            r#"[{"id":"b","slug":"b","name":"b","description":"B","aggregation":"SUM","eventType":"t","valueProperty":"$.data.v","groupBy":{"path":"$.data.path"}}]"#
        );
        assert_eq!(page(&catalog, None).unwrap().len(), 2);
        assert!(page(&catalog, Some("page=0")).is_err());
        assert!(page(&catalog, Some("pageSize=1001")).is_err());
    }
}
