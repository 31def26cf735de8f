//! What a case stands on: its meters and the events that are sent before it asks.

use serde_json::{Value, json};

use super::file::{Case, Failure, Fields};

/// The type of an event whose case says nothing of it.
const EVENT_TYPE: &str = "t";

/// The first time of generated events that are not told when they begin.
const GENERATED_FROM: &str = "2024-01-01T00:00:00Z";

/// CloudEvents attributes and data, as they stand in the JSON format.
const ATTRIBUTES: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "data",
    "data_base64",
    "datacontenttype",
    "dataschema",
];

/// Meters and events, complete: nothing is left to a convention.
#[derive(Clone, Debug, PartialEq)]
pub struct Fixture {
    /// Meter definitions, in OpenMeter's words.
    pub meters: Vec<Value>,
    /// CloudEvents in the JSON format.
    pub events: Vec<Value>,
}

impl Fixture {
    /// The members of a case that are read here.
    pub const MEMBERS: [&'static str; 6] = [
        "meter",
        "meters",
        "aggregation",
        "events",
        "events_generated",
        "generate",
    ];

    /// Returns the fixture of `case`. `meter` is what its suite counts by if the case names
    /// neither a meter nor an aggregation.
    pub fn of(case: &Case<'_>, meter: Option<Value>) -> Result<Self, Failure> {
        let meters = meters_of(case, meter)?;
        let events = events_of(case, &meters)?;
        Ok(Self { meters, events })
    }

    /// Returns the definitions as the functions read them. JSON is YAML.
    pub fn yaml(&self) -> String {
        json!({"meters": self.meters}).to_string()
    }

    /// Returns the slug of the meter that `case` asks.
    pub fn asked<'a>(&'a self, case: &Case<'a>) -> Result<&'a str, Failure> {
        if let Some(slug) = case.text("slug")? {
            return Ok(slug);
        }
        if let Some(Value::String(slug)) = case.get("meter") {
            return Ok(slug);
        }
        match &self.meters[..] {
            [meter] => meter["slug"].as_str(),
            _ => None,
        }
        .ok_or_else(|| Failure::malformed("several meters, and none is named"))
    }
}

fn meters_of(case: &Case<'_>, fallback: Option<Value>) -> Result<Vec<Value>, Failure> {
    // A case's own words go before its suite's, whichever member they are in.
    for fields in [case.fields, &case.suite.fields] {
        if let Some(meters) = meters_in(fields)? {
            return Ok(meters);
        }
    }
    fallback
        .map(|meter| vec![meter])
        .ok_or_else(|| Failure::malformed("names neither a meter nor an aggregation"))
}

fn meters_in(fields: &Fields) -> Result<Option<Vec<Value>>, Failure> {
    match fields.get("meter") {
        Some(Value::Object(meter)) => return Ok(Some(vec![completed(meter)])),
        // A text chooses one of `meters`.
        None | Some(Value::Null | Value::String(_)) => {}
        Some(other) => return Err(Failure::malformed(format!("meter is no object: {other}"))),
    }
    match fields.get("meters") {
        Some(Value::Array(meters)) if !meters.is_empty() => {
            let meters: Option<_> = (meters.iter())
                .map(|meter| meter.as_object().map(completed))
                .collect();
            let meters = meters.ok_or_else(|| Failure::malformed("a meter is no object"))?;
            return Ok(Some(meters));
        }
        None => {}
        Some(other) => return Err(Failure::malformed(format!("meters is no list: {other}"))),
    }
    match fields.get("aggregation") {
        Some(Value::String(aggregation)) => Ok(Some(vec![default_meter(aggregation)])),
        None => Ok(None),
        Some(other) => Err(Failure::malformed(format!(
            "aggregation is no text: {other}"
        ))),
    }
}

/// Returns the meter of cases that name no more than an aggregation.
pub(super) fn default_meter(aggregation: &str) -> Value {
    let mut meter = json!({"slug": "m", "eventType": EVENT_TYPE, "aggregation": aggregation});
    if aggregation != "COUNT" {
        meter["valueProperty"] = json!("$.value");
    }
    meter
}

/// Returns the definition with the name and the type that it needs to be one.
pub(super) fn completed(meter: &Fields) -> Value {
    let mut meter = meter.clone();
    let mut set = |name: &str, value: &str| {
        meter.entry(name).or_insert_with(|| json!(value));
    };
    set("slug", "m");
    set("eventType", EVENT_TYPE);
    Value::Object(meter)
}

fn events_of(case: &Case<'_>, meters: &[Value]) -> Result<Vec<Value>, Failure> {
    let mut given: Vec<Fields> = Vec::new();
    for event in case.list("events")?.into_iter().flatten() {
        let event = event.as_object();
        given.push(
            event
                .ok_or_else(|| Failure::malformed("an event is no object"))?
                .clone(),
        );
    }
    for name in ["generate", "events_generated"] {
        match case.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Object(template)) => given.extend(generated(template)?),
            Some(Value::Array(templates)) => {
                for template in templates {
                    let template = template.as_object();
                    let template =
                        template.ok_or_else(|| Failure::malformed("a template is no object"))?;
                    given.extend(generated(template)?);
                }
            }
            Some(other) => {
                return Err(Failure::malformed(format!(
                    "{name} is no template: {other}"
                )));
            }
        }
    }
    let meter = (meters.first()).expect("a fixture has a meter");
    (given.into_iter().enumerate())
        .map(|(index, event)| event_of(event, index, meter))
        .collect()
}

/// Returns `count` events that differ in time, and in what else the template leaves open.
fn generated(template: &Fields) -> Result<Vec<Fields>, Failure> {
    let mut template = template.clone();
    let count = template.remove("count");
    let count = count.as_ref().and_then(Value::as_u64);
    let count = count.ok_or_else(|| Failure::malformed("a template has no `count`"))?;
    let step = match template.remove("step_seconds") {
        None => 1,
        Some(step) => step
            .as_i64()
            .ok_or_else(|| Failure::malformed(format!("step_seconds is no number: {step}")))?,
    };
    let first = template.remove("time");
    let first = first.as_ref().map_or(Some(GENERATED_FROM), Value::as_str);
    let first = first
        .and_then(|first| first.parse::<jiff::Timestamp>().ok())
        .ok_or_else(|| Failure::malformed("a template's `time` is no time"))?;
    // An unknown word would be taken for an extension attribute, and change nothing.
    let is_known = |name: &str| name == "value" || ATTRIBUTES.contains(&name);
    if let Some(name) = template.keys().find(|name| !is_known(name)) {
        return Err(Failure::malformed(format!("a template has a `{name}`")));
    }
    let event = |index: u64| {
        let later = i64::try_from(index).ok()?.checked_mul(step)?;
        let time = first
            .checked_add(jiff::SignedDuration::from_secs(later))
            .ok()?;
        let mut event = template.clone();
        event.insert("time".to_owned(), json!(time.to_string()));
        Some(event)
    };
    (0..count)
        .map(|index| event(index).ok_or_else(|| Failure::malformed("a template leaves time")))
        .collect()
}

/// Returns a CloudEvent, with what the event leaves to the conventions.
fn event_of(mut event: Fields, index: usize, meter: &Value) -> Result<Value, Failure> {
    // When a row was stored is seen only by questions that ask for it, which are not run.
    event.remove("storedAt");
    if let Some(value) = event.remove("value") {
        let path = meter.get("valueProperty").and_then(Value::as_str);
        let data = data_with(path.unwrap_or("$.value"), value)?;
        if event.insert("data".to_owned(), data).is_some() {
            return Err(Failure::malformed("an event has both `value` and `data`"));
        }
    }
    let is_extension = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let is_known = |name: &str| ATTRIBUTES.contains(&name) || is_extension(name);
    if let Some(name) = event.keys().find(|name| !is_known(name)) {
        return Err(Failure::malformed(format!("an event has a `{name}`")));
    }
    let mut set = |name: &str, value: &Value| {
        event.entry(name).or_insert_with(|| value.clone());
    };
    set("specversion", &json!("1.0"));
    set("id", &json!(index.to_string()));
    set("source", &json!("cases"));
    set("subject", &json!("s"));
    set("type", meter.get("eventType").unwrap_or(&json!(EVENT_TYPE)));
    Ok(Value::Object(event))
}

/// Returns data that has `value` at `path`.
fn data_with(path: &str, value: Value) -> Result<Value, Failure> {
    let names = path
        .strip_prefix("$.data.")
        .or_else(|| path.strip_prefix("$."));
    let is_name = |name: &str| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !name.is_empty() && name.bytes().all(is_word)
    };
    match names {
        Some(names) if names.split('.').all(is_name) => Ok(names
            .rsplit('.')
            .fold(value, |inner, name| json!({ name: inner }))),
        _ => Err(Failure::malformed(format!(
            "an event has a `value`, and no place for it at {path}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::file::Suite;

    fn fixture(suite: Value, case: Value) -> Result<Fixture, Failure> {
        let suite = Suite {
            id: "windowing".to_owned(),
            fields: suite.as_object().unwrap().clone(),
            cases: vec![],
        };
        let case = Case {
            suite: &suite,
            index: 0,
            fields: case.as_object().unwrap(),
        };
        Fixture::of(&case, None)
    }

    #[test]
    fn what_an_event_leaves_out_is_filled_in() {
        let case = json!({
            "aggregation": "SUM",
            "events": [{"value": 0.10, "time": "2024-01-01T00:00:00Z", "storedAt": "x"}],
        });
        let fixture = fixture(json!({}), case).unwrap();
        let meter = json!({"slug": "m", "eventType": "t", "aggregation": "SUM", "valueProperty": "$.value"});
        assert_eq!(fixture.meters, [meter]);
        let event = json!({
            "specversion": "1.0", "id": "0", "source": "cases", "subject": "s", "type": "t",
            "time": "2024-01-01T00:00:00Z", "data": {"value": 0.10},
        });
        assert_eq!(fixture.events, [event]);
    }

    #[test]
    fn an_event_is_of_its_meters_type_and_has_the_value_where_the_meter_looks() {
        let suite = json!({"events": [{"value": 7, "id": "a", "subject": "b", "ext": "c"}]});
        let case = json!({"meter": {"eventType": "llm", "aggregation": "MAX", "valueProperty": "$.data.usage.tokens"}});
        let fixture = fixture(suite, case).unwrap();
        assert_eq!(fixture.meters[0]["slug"], "m");
        let event = json!({
            "specversion": "1.0", "id": "a", "source": "cases", "subject": "b", "type": "llm",
            "ext": "c", "data": {"usage": {"tokens": 7}},
        });
        assert_eq!(fixture.events, [event]);
    }

    #[test]
    fn a_cases_meters_go_before_its_suites() {
        let suite = json!({"meters": [{"slug": "a"}, {"slug": "b"}], "events": []});
        let shared = fixture(suite.clone(), json!({})).unwrap();
        assert_eq!(shared.meters.len(), 2);
        let own = fixture(suite, json!({"aggregation": "COUNT"})).unwrap();
        assert_eq!(own.meters, [default_meter("COUNT")]);
        assert_eq!(default_meter("COUNT").get("valueProperty"), None);
    }

    #[test]
    fn generated_events_differ_in_what_the_template_leaves_open() {
        let case =
            json!({"aggregation": "COUNT", "generate": {"count": 3, "id": "x", "type": "y"}});
        let fixture = fixture(json!({}), case).unwrap();
        assert_eq!(fixture.events.len(), 3);
        let of =
            |index: usize, name: &str| fixture.events[index][name].as_str().unwrap().to_owned();
        assert_eq!((of(0, "id"), of(2, "id")), ("x".to_owned(), "x".to_owned()));
        assert_eq!(of(2, "time"), "2024-01-01T00:00:02Z");
    }

    #[test]
    fn a_shape_that_is_not_known_is_malformed() {
        for case in [
            json!({}),
            json!({"meter": 5}),
            json!({"meters": []}),
            json!({"aggregation": "SUM", "events": {}}),
            json!({"aggregation": "SUM", "events": [5]}),
            json!({"aggregation": "SUM", "events": [{"groupBy": {}}]}),
            json!({"aggregation": "SUM", "events": [{"value": 1, "data": {}}]}),
            json!({"aggregation": "SUM", "generate": {"id": "x"}}),
            json!({"aggregation": "SUM", "generate": {"count": 1, "every": "PT1S"}}),
            json!({"aggregation": "SUM", "generate": 5}),
        ] {
            assert!(fixture(json!({}), case.clone()).is_err(), "{case}");
        }
    }
}
