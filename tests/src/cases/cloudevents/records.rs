//! Kafka records into events, and events into records.

use jiff::Timestamp;
use serde_json::Value;
use stream::kafka;

use super::{
    super::file::{Case, Failure, Fields},
    expected::{self, Allowed, same_bytes},
    needed_object,
};

/// Checks a case of `kafka_binding`.
pub(super) fn check(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["record", "event", "expect"])?;
    let wanted = needed_object(case, "expect")?;
    match (case.object("record")?, case.object("event")?) {
        (Some(record), None) => decoded(record, wanted),
        (None, Some(event)) => encoded(event, wanted),
        _ => Err(Failure::malformed("has not one of `record` and `event`")),
    }
}

fn decoded(record: &Fields, wanted: &Fields) -> Result<(), Failure> {
    expected::only(record, &["headers", "value"])?;
    expected::only(wanted, &["result", "attributes"])?;
    let headers = record.get("headers").and_then(Value::as_object);
    let headers = headers.ok_or_else(|| Failure::malformed("a record has no `headers`"))?;
    let headers = headers.iter().map(|(name, value)| {
        let value = expected::bytes(value)?;
        Ok((&**name, value))
    });
    let headers: Vec<_> = headers.collect::<Result<_, Failure>>()?;
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, value.as_deref()));
    let value = record.get("value").map(expected::bytes).transpose()?;
    let event = kafka::decode(headers, value.flatten().as_deref(), Timestamp::UNIX_EPOCH)
        .map_err(|error| error.to_string());
    Allowed::of(wanted)?.judge(event, |event| {
        expected::attributes(wanted.get("attributes"), |name| match name {
            "specversion" => Some("1.0".to_owned()),
            "id" => Some(event.id.clone()),
            "source" => Some(event.source.clone()),
            "type" => Some(event.event_type.clone()),
            "subject" => event.subject.clone(),
            "time" => Some(event.time.to_string()),
            name => event.attributes.get(name).cloned(),
        })
    })
}

fn encoded(event: &Fields, wanted: &Fields) -> Result<(), Failure> {
    expected::only(wanted, &["key", "headers", "absent", "value"])?;
    let record = kafka::encode(&expected::event(event)?);
    let header = |name: &str| {
        let found = record.headers.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.as_deref())
    };
    if let Some(headers) = wanted.get("headers") {
        let headers = (headers.as_object())
            .ok_or_else(|| Failure::malformed(format!("headers: {headers}")))?;
        for (name, value) in headers {
            same_or_none(name, value, header(name))?;
        }
    }
    if let Some(absent) = wanted.get("absent") {
        for name in expected::texts(absent)? {
            same_or_none(name, &Value::Null, header(name))?;
        }
    }
    for (name, found) in [("key", &record.key), ("value", &record.value)] {
        if let Some(wanted) = wanted.get(name) {
            same_or_none(name, wanted, found.as_deref())?;
        }
    }
    Ok(())
}

fn same_or_none(what: &str, wanted: &Value, found: Option<&[u8]>) -> Result<(), Failure> {
    match (expected::bytes(wanted)?, found) {
        (Some(wanted), found) => same_bytes(what, &wanted, found),
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Failure::new(format!("no {what}"), "one")),
    }
}
