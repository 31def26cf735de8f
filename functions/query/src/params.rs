//! A meter query's parameters, from a URL or a body, checked against the meter.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use model::{Meter, MeterQuery, SUBJECT, WindowSize, parse_json};
use runtime::Problem;
use serde_json::{Map, Value};

use crate::mistakes::Mistakes;

/// The most values of one list, as OpenMeter has it.
const MOST: usize = 100;

/// OpenMeter's parameters which would change the answer, and which are not built.
const NOT_BUILT: [&str; 2] = ["filterCustomerId", "advancedMeterGroupByFilters"];

/// The parameters as they were written, whichever way they came.
#[derive(Debug, Default)]
struct Written {
    from: Option<String>,
    to: Option<String>,
    window_size: Option<String>,
    window_time_zone: Option<String>,
    subjects: Vec<String>,
    group_by: Vec<String>,
    filters: BTreeMap<String, Vec<String>>,
}

/// Reads the query string of a GET.
pub(crate) fn from_url(query: Option<&str>, meter: &Meter) -> Result<MeterQuery, Problem> {
    let mut mistakes = Mistakes::default();
    let mut by_name = named_values(query);
    let mut written = Written::default();
    for (name, into) in [
        ("from", &mut written.from),
        ("to", &mut written.to),
        ("windowSize", &mut written.window_size),
        ("windowTimeZone", &mut written.window_time_zone),
    ] {
        let values = by_name.remove(name).unwrap_or_default();
        *into = mistakes.one(name, &values);
    }
    // Names with brackets are what some clients make of a list.
    for (name, bracketed, into) in [
        ("subject", "subject[]", &mut written.subjects),
        ("groupBy", "groupBy[]", &mut written.group_by),
    ] {
        into.extend(by_name.remove(name).unwrap_or_default());
        into.extend(by_name.remove(bracketed).unwrap_or_default());
    }
    written.group_by = split_commas(&written.group_by);
    by_name.remove("clientId");
    for (name, values) in by_name {
        let key = name
            .strip_prefix("filterGroupBy[")
            .and_then(|rest| rest.strip_suffix(']'));
        match key {
            Some(key) => {
                let value = mistakes.one(&name, &values);
                written
                    .filters
                    .insert(key.to_owned(), value.into_iter().collect());
            }
            None => mistakes.add(&name, unknown(&name)),
        }
    }
    written.check(meter, mistakes)
}

/// Returns the values of each parameter of a query string.
pub(crate) fn named_values(query: Option<&str>) -> BTreeMap<String, Vec<String>> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        by_name
            .entry(name.into_owned())
            .or_default()
            .push(value.into_owned());
    }
    by_name
}

/// A parameter that is passed over would give an answer to another question.
pub(crate) fn unknown(name: &str) -> &'static str {
    if NOT_BUILT.contains(&name.trim_end_matches("[]")) {
        "is not supported"
    } else {
        "is no parameter of this path"
    }
}

fn split_commas(values: &[String]) -> Vec<String> {
    values
        .iter()
        .flat_map(|value| value.split(','))
        .map(|part| part.trim().to_owned())
        .collect()
}

/// Reads the body of a POST: the same names, `filterGroupBy` a map of lists.
pub(crate) fn from_body(body: &[u8], meter: &Meter) -> Result<MeterQuery, Problem> {
    let body = match parse_json(body) {
        Some(Value::Object(body)) => body,
        Some(_) => return Err(Problem::bad_request("the body must be a JSON object")),
        None if body.trim_ascii().is_empty() => Map::new(),
        None => return Err(Problem::bad_request("the body is no JSON")),
    };
    let mut mistakes = Mistakes::default();
    let mut written = Written::default();
    for (name, value) in body {
        // null is what many clients write for a field that is not set.
        if value.is_null() {
            continue;
        }
        match name.as_str() {
            "from" => written.from = text(&name, &value, &mut mistakes),
            "to" => written.to = text(&name, &value, &mut mistakes),
            "windowSize" => written.window_size = text(&name, &value, &mut mistakes),
            "windowTimeZone" => written.window_time_zone = text(&name, &value, &mut mistakes),
            "subject" => written.subjects = texts(&name, &value, &mut mistakes),
            "groupBy" => written.group_by = texts(&name, &value, &mut mistakes),
            "clientId" => {}
            "filterGroupBy" => match value {
                Value::Object(filters) => {
                    for (key, value) in filters {
                        let name = format!("filterGroupBy.{key}");
                        let values = texts(&name, &value, &mut mistakes);
                        written.filters.insert(key, values);
                    }
                }
                _ => mistakes.add(&name, "must be an object"),
            },
            other => mistakes.add(other, unknown(other)),
        }
    }
    written.check(meter, mistakes)
}

fn text(name: &str, value: &Value, mistakes: &mut Mistakes) -> Option<String> {
    let text = value.as_str();
    if text.is_none() {
        mistakes.add(name, "must be a text");
    }
    text.map(str::to_owned)
}

fn texts(name: &str, value: &Value, mistakes: &mut Mistakes) -> Vec<String> {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, Vec::as_slice);
    let texts: Option<Vec<_>> = values
        .iter()
        .map(|value| value.as_str().map(str::to_owned))
        .collect();
    texts.unwrap_or_else(|| {
        mistakes.add(name, "must be a text or a list of texts");
        Vec::new()
    })
}

impl Written {
    fn check(self, meter: &Meter, mut mistakes: Mistakes) -> Result<MeterQuery, Problem> {
        let (from, to) = self.times(&mut mistakes);
        let window_size = self.window_size.as_deref().and_then(|text| {
            text.parse::<WindowSize>()
                .map_err(|error| mistakes.add("windowSize", error.to_string()))
                .ok()
        });
        let zone = self.zone(&mut mistakes);
        for (name, length) in [
            ("subject", self.subjects.len()),
            ("groupBy", self.group_by.len()),
        ] {
            if length > MOST {
                mistakes.add(name, format!("must have at most {MOST} values"));
            }
        }
        if self.subjects.iter().any(String::is_empty) {
            mistakes.add("subject", "must not be empty");
        }
        let mut group_by: Vec<String> = Vec::new();
        // A filter by subject tells the subjects apart as well, as OpenMeter has it.
        let mut by_subject = !self.subjects.is_empty();
        for name in self.group_by {
            if name == SUBJECT {
                by_subject = true;
            } else if !meter.has_dimension(&name) {
                mistakes.add("groupBy", no_dimension(meter, &name));
            } else if !group_by.contains(&name) {
                group_by.push(name);
            }
        }
        for (key, values) in &self.filters {
            let name = format!("filterGroupBy[{key}]");
            if key == SUBJECT {
                mistakes.add(&name, "subjects are filtered by the parameter subject");
            } else if !meter.has_dimension(key) {
                mistakes.add(&name, no_dimension(meter, key));
            } else if values.is_empty() || values.len() > MOST {
                mistakes.add(&name, format!("must have 1 to {MOST} values"));
            }
        }
        mistakes.into_result(MeterQuery {
            from,
            to,
            window_size,
            zone,
            subjects: self.subjects,
            by_subject,
            group_by,
            filters: self.filters,
        })
    }

    fn times(&self, mistakes: &mut Mistakes) -> (Option<Timestamp>, Option<Timestamp>) {
        let from = mistakes.time("from", self.from.as_deref());
        let to = mistakes.time("to", self.to.as_deref());
        mistakes.stretch(("from", from), ("to", to));
        (from, to)
    }

    fn zone(&self, mistakes: &mut Mistakes) -> TimeZone {
        let Some(name) = &self.window_time_zone else {
            return TimeZone::UTC;
        };
        TimeZone::get(name).unwrap_or_else(|_| {
            mistakes.add(
                "windowTimeZone",
                "must be a time zone of IANA, such as Europe/Berlin",
            );
            TimeZone::UTC
        })
    }
}

fn no_dimension(meter: &Meter, name: &str) -> String {
    let known: Vec<_> = meter
        .group_by
        .iter()
        .map(|group| group.name.as_str())
        .chain([SUBJECT])
        .collect();
    format!("{name:?} is none of the meter's: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use model::Catalog;

    use super::*;

    fn meter() -> Meter {
        let yaml = "meters: [{slug: m, eventType: t, aggregation: COUNT, \
                    groupBy: {path: $.path, method: $.method}}]";
        Catalog::from_yaml(yaml).unwrap().meters()[0]
            .as_ref()
            .clone()
    }

    fn mistakes(problem: &Problem) -> Vec<String> {
        let body: Value = serde_json::from_str(&problem.to_json()).unwrap();
        let errors = &body["extensions"]["validationErrors"];
        errors
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_url_and_a_body_ask_the_same() {
        let url = "from=2024-01-01T00:00:00Z&to=2024-02-01T00:00:00%2B01:00&windowSize=DAY\
                   &windowTimeZone=Europe/Berlin&subject=a,b&subject=c&groupBy=path,method\
                   &groupBy=subject&filterGroupBy[method]=GET&clientId=x";
        let body = br#"{"from": "2024-01-01T00:00:00Z", "to": "2024-02-01T00:00:00+01:00",
            "windowSize": "DAY", "windowTimeZone": "Europe/Berlin", "subject": ["a,b", "c"],
            "groupBy": ["path", "method", "subject"], "filterGroupBy": {"method": ["GET"]},
            "clientId": "x"}"#;
        let by_url = from_url(Some(url), &meter()).unwrap();
        let by_body = from_body(body, &meter()).unwrap();
        assert_eq!(format!("{by_url:?}"), format!("{by_body:?}"));
        assert_eq!(by_url.subjects, ["a,b", "c"]);
        assert_eq!(by_url.group_by, ["path", "method"]);
        assert!(by_url.by_subject);
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let url = "from=yesterday&to=2024&windowSize=WEEK&windowTimeZone=Mars/Olympus\
                   &groupBy=foo&filterGroupBy[bar]=1&subject=&windowsize=DAY&from=x";
        let problem = from_url(Some(url), &meter()).unwrap_err();
        let mut named = mistakes(&problem);
        named.sort();
        named.dedup();
        assert_eq!(
            named,
            [
                "filterGroupBy[bar]",
                "from",
                "groupBy",
                "subject",
                "to",
                "windowSize",
                "windowTimeZone",
                "windowsize"
            ]
        );
        let body = br#"{"from": 1, "subject": [1], "groupBy": {}, "filterGroupBy": {"path": []}}"#;
        let problem = from_body(body, &meter()).unwrap_err();
        assert_eq!(
            mistakes(&problem),
            ["from", "groupBy", "subject", "filterGroupBy[path]"]
        );
    }

    #[test]
    fn from_must_be_before_to() {
        for (from, to) in [
            ("2023-01-01T00:00:00Z", "2023-01-01T00:00:00Z"),
            ("2023-01-02T00:00:00Z", "2023-01-01T00:00:00Z"),
        ] {
            let url = format!("from={from}&to={to}");
            let problem = from_url(Some(&url), &meter()).unwrap_err();
            assert_eq!(mistakes(&problem), ["from"]);
        }
    }

    #[test]
    fn an_empty_body_asks_for_everything() {
        for body in [&b""[..], b"{}", b" \n", br#"{"from": null}"#] {
            assert!(from_body(body, &meter()).is_ok());
        }
        assert!(from_body(b"[]", &meter()).is_err());
        assert!(from_body(b"{", &meter()).is_err());
    }
}
