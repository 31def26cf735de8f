//! What one event adds to each meter: the value and the groups, or why not.

use std::{fmt, sync::Arc};

use serde_json::Value;

use crate::{
    catalog::Catalog,
    decimal::{Decimal, DecimalError, write_canonical},
    event::{Payload, UsageEvent},
    meter::{Aggregation, Meter},
};

/// What one event adds to one meter.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The meter.
    pub meter: Arc<Meter>,
    /// The value: 1 for COUNT and UNIQUE_COUNT.
    pub value: Decimal,
    /// UNIQUE_COUNT's value as text; empty for all others.
    pub text: String,
    /// The dimensions' values, in the order of `meter.group_by`.
    pub groups: Vec<String>,
}

/// Why an event adds nothing to a meter, or to any.
///
/// The texts are OpenMeter's where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// No meter takes this type.
    NoMeter(String),
    /// The event has no subject.
    NoSubject,
    /// The event's time is before 1970 or after 2299.
    TimeOutOfRange,
    /// The event has data that is no JSON object.
    DataNotObject,
    /// The event has no data, and the meter wants a value from it.
    NoData,
    /// The data lacks the value; the path is named.
    ValueMissing(String),
    /// The value is `null`.
    ValueNull,
    /// The value is neither number nor text.
    ValueType(&'static str),
    /// The value is no decimal, or one that cannot be held exactly.
    Value(DecimalError, String),
}

impl Invalid {
    /// Returns a name for the kind of error: the label of metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMeter(_) => "no_meter",
            Self::NoSubject => "no_subject",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::DataNotObject => "data_not_object",
            Self::NoData | Self::ValueMissing(_) | Self::ValueNull => "value_missing",
            Self::ValueType(_)
            | Self::Value(
                DecimalError::NotANumber | DecimalError::NaN | DecimalError::Infinite,
                _,
            ) => "value_not_numeric",
            Self::Value(DecimalError::TooLarge | DecimalError::TooFine, _) => "value_out_of_range",
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMeter(event_type) => write!(f, "no meter found for event type: {event_type}"),
            Self::NoSubject => f.write_str("invalid event: subject is missing"),
            Self::TimeOutOfRange => f.write_str("invalid event: time is outside 1970 to 2299"),
            Self::DataNotObject => f.write_str("invalid event: data is no JSON object"),
            Self::NoData => f.write_str("invalid event: null and missing value property"),
            Self::ValueMissing(path) => {
                write!(f, "invalid event: missing value property: {path:?}")
            }
            Self::ValueNull => f.write_str("invalid event: value cannot be null"),
            Self::ValueType(kind) => {
                write!(f, "invalid event: unsupported value property type: {kind}")
            }
            Self::Value(DecimalError::NaN, _) => f.write_str("invalid event: value cannot be NaN"),
            Self::Value(DecimalError::Infinite, _) => {
                f.write_str("invalid event: value cannot be infinity")
            }
            Self::Value(DecimalError::NotANumber, text) => {
                write!(
                    f,
                    "invalid event: value cannot be parsed as a number: {text}"
                )
            }
            Self::Value(error @ (DecimalError::TooLarge | DecimalError::TooFine), text) => {
                write!(f, "invalid event: value is out of range ({error}): {text}")
            }
        }
    }
}

/// What an event adds to all meters, and what it fails to add.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// One entry a meter that takes the event.
    pub usage: Vec<Usage>,
    /// One entry a reason, without repetition.
    pub invalid: Vec<Invalid>,
}

impl Applied {
    /// Returns the validation error that is kept with the event; `None` if it has none.
    pub fn error(&self) -> Option<String> {
        let texts: Vec<_> = self.invalid.iter().map(Invalid::to_string).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// The first microsecond after the years that can be counted (2300-01-01T00:00:00Z).
const END_OF_TIME: i64 = 10_413_792_000_000_000;

/// Returns whether an event can be counted at this time (microseconds since 1970).
pub fn is_countable(time: i64) -> bool {
    (0..END_OF_TIME).contains(&time)
}

/// Returns this time, or the nearest one outside of what can be counted: the store's
/// columns hold no year 0.
pub fn kept_time(time: i64) -> i64 {
    time.clamp(-1, END_OF_TIME)
}

impl Catalog {
    /// Returns what `event`, whose parsed data is `payload`, adds to each meter, at
    /// whatever time it is counted: see [`is_countable`] and [`Meter::takes`].
    pub fn apply(&self, event: &UsageEvent, payload: &Payload) -> Applied {
        let mut applied = Applied::default();
        let mut meters = self.of_event_type(&event.event_type).peekable();
        if meters.peek().is_none() {
            applied
                .invalid
                .push(Invalid::NoMeter(event.event_type.clone()));
        }
        applied.invalid.extend(unusable(event, payload));
        if !applied.invalid.is_empty() {
            return applied;
        }
        for meter in meters {
            match meter.apply(payload) {
                Ok(usage) => applied.usage.push(usage),
                Err(invalid) if applied.invalid.contains(&invalid) => {}
                Err(invalid) => applied.invalid.push(invalid),
            }
        }
        applied
    }
}

/// Returns why no meter can use the event, whatever the meter.
fn unusable(event: &UsageEvent, payload: &Payload) -> Option<Invalid> {
    if event.subject.as_deref().is_none_or(str::is_empty) {
        return Some(Invalid::NoSubject);
    }
    match payload {
        Payload::Absent | Payload::Json(Value::Object(_)) => None,
        Payload::Json(_) | Payload::Opaque => Some(Invalid::DataNotObject),
    }
}

impl Meter {
    /// Returns whether an event that is counted at `time` (microseconds since 1970) is
    /// for this meter.
    pub fn takes(&self, time: i64) -> bool {
        self.event_from
            .is_none_or(|from| from.as_microsecond() <= time)
    }

    /// Returns what an event with this data adds to this meter.
    pub fn apply(self: &Arc<Self>, payload: &Payload) -> Result<Usage, Invalid> {
        let data = match payload {
            Payload::Json(data) => Some(data),
            Payload::Absent => None,
            Payload::Opaque => return Err(Invalid::DataNotObject),
        };
        let (value, text) = self.value(data)?;
        Ok(Usage {
            meter: self.clone(),
            value,
            text,
            groups: self.groups(data),
        })
    }

    /// Returns the dimensions' values; a value that the data lacks groups as "".
    pub fn groups(&self, data: Option<&Value>) -> Vec<String> {
        let value_of = |value: &Value| match value {
            // What ClickHouse's JSON_VALUE, OpenMeter's rule, makes of each kind.
            Value::Object(_) | Value::Array(_) => String::new(),
            scalar => text_of(scalar),
        };
        let find = |data| {
            self.group_by
                .iter()
                .map(move |group| group.path.find(data).map(value_of).unwrap_or_default())
        };
        match data {
            Some(data) => find(data).collect(),
            None => vec![String::new(); self.group_by.len()],
        }
    }

    fn value(&self, data: Option<&Value>) -> Result<(Decimal, String), Invalid> {
        let Some(path) = &self.value else {
            return Ok((Decimal::ONE, String::new()));
        };
        let data = data.ok_or(Invalid::NoData)?;
        let value = path
            .find(data)
            .ok_or_else(|| Invalid::ValueMissing(path.as_str().to_owned()))?;
        if value.is_null() {
            return Err(Invalid::ValueNull);
        }
        if self.aggregation == Aggregation::UniqueCount {
            return Ok((Decimal::ONE, text_of(value)));
        }
        Ok((numeric(value)?, String::new()))
    }
}

/// Returns a scalar's text, or a compound value's JSON. Equal numbers have one text, for
/// content tells them apart no better.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => canonical(number.as_str()),
        other => other.to_string(),
    }
}

fn canonical(number: &str) -> String {
    number.parse::<Decimal>().map_or_else(
        |_| {
            let mut text = Vec::new();
            write_canonical(&mut text, number);
            String::from_utf8_lossy(&text).into_owned()
        },
        |value| value.to_string(),
    )
}

fn numeric(value: &Value) -> Result<Decimal, Invalid> {
    let text = match value {
        Value::Number(number) => number.as_str(),
        Value::String(text) => text,
        Value::Bool(_) => return Err(Invalid::ValueType("bool")),
        Value::Array(_) => return Err(Invalid::ValueType("array")),
        Value::Object(_) => return Err(Invalid::ValueType("object")),
        Value::Null => return Err(Invalid::ValueNull),
    };
    text.parse()
        .map_err(|error| Invalid::Value(error, shortened(text)))
}

/// An error text quotes the value, but not a megabyte of it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::tests::SEED, event::tests::event};

    fn error(data: Option<&str>, change: fn(&mut UsageEvent)) -> (usize, Option<String>) {
        let catalog = Catalog::from_yaml(SEED).unwrap();
        let mut event = event(data.unwrap_or_default());
        event.data = data.map(|data| data.as_bytes().to_vec());
        change(&mut event);
        let applied = catalog.apply(&event, &event.payload());
        (applied.usage.len(), applied.error())
    }

    #[test]
    fn an_event_counts_for_each_meter_that_can_use_it() {
        let catalog = Catalog::from_yaml(SEED).unwrap();
        let event = event(r#"{"endpoint":"/accounts","method":null,"response_time_ms":"45.125"}"#);
        let applied = catalog.apply(&event, &event.payload());
        assert_eq!(applied.error(), None);
        let [calls, latency] = &applied.usage[..] else {
            panic!("{applied:?}")
        };
        assert_eq!(
            (calls.value, &calls.groups[..]),
            (
                Decimal::ONE,
                &["/accounts".to_owned(), "null".to_owned()][..]
            )
        );
        assert_eq!(latency.value.to_string(), "45.125");
        assert_eq!(latency.groups, ["/accounts"]);
    }

    #[test]
    fn what_no_meter_can_use_is_named() {
        let good = r#"{"response_time_ms":1}"#;
        for (data, change, expected) in [
            (Some(good), (|_| {}) as fn(&mut UsageEvent), (2, None)),
            (
                Some(good),
                |event| event.event_type = "x".to_owned(),
                (0, Some("no meter found for event type: x")),
            ),
            (
                Some(good),
                |event| event.subject = None,
                (0, Some("invalid event: subject is missing")),
            ),
            (
                Some("[]"),
                |_| {},
                (0, Some("invalid event: data is no JSON object")),
            ),
            (
                Some("{"),
                |_| {},
                (0, Some("invalid event: data is no JSON object")),
            ),
            (
                None,
                |_| {},
                (1, Some("invalid event: null and missing value property")),
            ),
            (
                Some("{}"),
                |_| {},
                (
                    1,
                    Some("invalid event: missing value property: \"$.data.response_time_ms\""),
                ),
            ),
            (
                Some(r#"{"response_time_ms":true}"#),
                |_| {},
                (
                    1,
                    Some("invalid event: unsupported value property type: bool"),
                ),
            ),
            (
                Some(r#"{"response_time_ms":"NaN"}"#),
                |_| {},
                (1, Some("invalid event: value cannot be NaN")),
            ),
            (
                Some(r#"{"response_time_ms":"1e19"}"#),
                |_| {},
                (
                    1,
                    Some("invalid event: value is out of range (10^19 or more): 1e19"),
                ),
            ),
        ] {
            let (usage, text) = expected;
            assert_eq!(
                error(data, change),
                (usage, text.map(str::to_owned)),
                "{data:?}"
            );
        }
    }

    #[test]
    fn a_unique_count_takes_any_value_as_text() {
        let text =
            "meters: [{slug: u, eventType: t, aggregation: UNIQUE_COUNT, valueProperty: $.v}]";
        let catalog = Catalog::from_yaml(text).unwrap();
        let meter = catalog.meter("u").unwrap();
        let text = |data: &str| meter.apply(&event(data).payload()).map(|usage| usage.text);
        assert_eq!(text(r#"{"v":7}"#), Ok("7".to_owned()));
        assert_eq!(text(r#"{"v":"a"}"#), Ok("a".to_owned()));
        assert_eq!(text(r#"{"v":[1,2]}"#), Ok("[1,2]".to_owned()));
        assert_eq!(text(r#"{"v":null}"#), Err(Invalid::ValueNull));
    }

    #[test]
    fn a_meter_takes_no_event_before_its_beginning() {
        let text = "meters: [{slug: c, eventType: t, aggregation: COUNT, eventFrom: '2024-01-15T10:30:01Z'}]";
        let catalog = Catalog::from_yaml(text).unwrap();
        let meter = catalog.meter("c").unwrap();
        let from = 1_705_314_601_000_000;
        assert!(!meter.takes(from - 1));
        assert!(meter.takes(from));
    }

    #[test]
    fn only_the_years_1970_to_2299_are_countable() {
        for (time, countable) in [
            ("1969-12-31T23:59:59.9999999Z", false),
            ("1970-01-01T00:00:00Z", true),
            ("2299-12-31T23:59:59.9999999Z", true),
            ("2300-01-01T00:00:00Z", false),
            ("9999-12-30T00:00:00Z", false),
        ] {
            let micros = crate::event::micros(time.parse().unwrap());
            assert_eq!(is_countable(micros), countable, "{time}");
            assert_eq!(is_countable(kept_time(micros)), countable, "{time}");
        }
    }

    #[test]
    fn equal_numbers_are_one_group() {
        let text = "meters: [{slug: u, eventType: t, aggregation: UNIQUE_COUNT, valueProperty: $.v, groupBy: {s: $.s}}]";
        let catalog = Catalog::from_yaml(text).unwrap();
        let usage = |data: &str| {
            catalog
                .meter("u")
                .unwrap()
                .apply(&event(data).payload())
                .unwrap()
        };
        let (one, other) = (
            usage(r#"{"v":1e400,"s":200}"#),
            usage(r#"{"v":10e399,"s":200.0}"#),
        );
        assert_eq!((&one.text, &one.groups), (&other.text, &other.groups));
        assert_eq!(one.groups, ["200"]);
    }
}
