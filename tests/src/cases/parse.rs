//! The suite `parse_event`: what one event's data gives to one meter. Run on the model, which
//! is all that process does with an event before it is written.

use futures::future::{FutureExt as _, ready};
use model::{Aggregation, Catalog, Payload, UsageEvent};
use serde_json::{Map, Value, json};

use super::{
    compare,
    file::{Case, Failure, Suite},
    fixture::completed,
    jobs::{Job, one_by_one},
};

/// Returns the jobs of the suite.
pub(super) fn jobs(suite: &Suite) -> Vec<Job<'_>> {
    one_by_one(suite, |case| ready(check(&case).into()).boxed())
}

fn check(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["meter", "data_raw", "data", "expect"])?;
    let meter = case.object("meter")?;
    let meter = completed(meter.ok_or_else(|| Failure::malformed("names no meter"))?);
    let data = match (case.text("data_raw")?, case.fields.get("data")) {
        (Some(raw), None) => Some(raw.to_owned()),
        (None, Some(data)) => Some(data.to_string()),
        (None, None) => None,
        (Some(_), Some(_)) => return Err(Failure::malformed("has both `data` and `data_raw`")),
    };
    let expected = case.object("expect")?;
    let expected = expected.ok_or_else(|| Failure::malformed("has no `expect`"))?;
    let known = ["value", "valueString", "groupBy", "error"];
    if let Some(name) = expected.keys().find(|name| !known.contains(&&***name)) {
        return Err(Failure::malformed(format!("expects a `{name}`")));
    }
    let parsed = parse(&meter, data)?;
    // What an error says is each implementation's own; that there is one is not.
    let mut wanted = expected.clone();
    if let Some(error) = wanted.get_mut("error") {
        *error = json!(!error.is_null());
    }
    let mut got = parsed.clone();
    got["error"] = json!(!parsed["error"].is_null());
    if compare::same(&Value::Object(wanted), Some(&got)) {
        Ok(())
    } else {
        Err(Failure::new(json!(expected), parsed))
    }
}

/// Returns value, valueString, groupBy and error, in the words of the cases.
fn parse(meter: &Value, data: Option<String>) -> Result<Value, Failure> {
    let definitions = json!({"meters": [meter]}).to_string();
    let catalog = Catalog::from_yaml(&definitions).map_err(Failure::malformed)?;
    let meter = (catalog.meters().first()).ok_or_else(|| Failure::malformed("no meter"))?;
    let event = UsageEvent {
        id: "0".to_owned(),
        source: "cases".to_owned(),
        event_type: meter.event_type.clone(),
        subject: Some("s".to_owned()),
        time: jiff::Timestamp::UNIX_EPOCH,
        ingested_at: jiff::Timestamp::UNIX_EPOCH,
        data: data.map(String::into_bytes),
        attributes: std::collections::BTreeMap::new(),
    };
    let payload = event.payload();
    let applied = catalog.apply(&event, &payload);
    let (mut value, mut text) = (Value::Null, Value::Null);
    if let Some(usage) = applied.usage.first() {
        if meter.aggregation == Aggregation::UniqueCount {
            text = json!(usage.text);
        } else {
            value = serde_json::from_str(&usage.value.to_string()).map_err(Failure::malformed)?;
        }
    }
    let groups = match &payload {
        Payload::Json(data) => meter.groups(Some(data)),
        Payload::Absent | Payload::Opaque => meter.groups(None),
    };
    let names = meter.group_by.iter().map(|group| group.name.clone());
    let groups: Map<_, _> = names.zip(groups.into_iter().map(Value::from)).collect();
    Ok(json!({
        "value": value,
        "valueString": text,
        "groupBy": groups,
        "error": applied.error(),
    }))
}
