//! HTTP requests into events: binary, structured and batch mode.

use axum::http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde_json::Value;
use stream::{
    CloudEvent,
    http::{BATCH, decode, decode_one, encode},
};

use super::{
    super::file::{Case, Failure, Fields},
    expected::{self, Allowed, same_bytes},
    needed, needed_object,
};

/// Bytes of one event at most, as at ingest.
const LIMIT: usize = 1 << 20;

/// Checks a case of `http_binary_decode`.
pub(super) fn binary(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["headers", "body", "expect"])?;
    let headers = expected::headers(needed(case, "headers")?)?;
    let body = expected::bytes(needed(case, "body")?)?;
    one(case, &headers, &body.unwrap_or_default())
}

/// Checks a case of `http_structured_decode`.
pub(super) fn structured(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["content_type", "json", "expect"])?;
    let content_type = case.text("content_type")?;
    let content_type = content_type.unwrap_or(stream::http::STRUCTURED);
    let body = expected::bytes(needed(case, "json")?)?;
    one(case, &of_type(content_type)?, &body.unwrap_or_default())
}

/// Checks a case of `http_batch_decode`: a batch is taken whole or not at all.
pub(super) fn batch(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["content_type", "json", "expect"])?;
    let headers = of_type(case.text("content_type")?.unwrap_or(BATCH))?;
    let body = expected::bytes(needed(case, "json")?)?;
    let wanted = needed_object(case, "expect")?;
    expected::only(wanted, &["result", "events"])?;
    let events = decode(&headers, &body.unwrap_or_default(), LIMIT)
        .map_err(|error| error.to_string())
        .and_then(|events| {
            let each = events.each.into_iter().collect::<Result<Vec<_>, _>>();
            each.map_err(|error| error.to_string())
        });
    Allowed::of(wanted)?.judge(events, |events| {
        let Some(number) = wanted.get("events") else {
            return Ok(());
        };
        match number.as_u64() {
            Some(number) if number == events.len() as u64 => Ok(()),
            Some(number) => Err(Failure::new(format!("{number} events"), events.len())),
            None => Err(Failure::malformed(format!("expects {number} events"))),
        }
    })
}

fn of_type(content_type: &str) -> Result<HeaderMap, Failure> {
    let value = HeaderValue::from_str(content_type).map_err(Failure::malformed)?;
    Ok(HeaderMap::from_iter([(CONTENT_TYPE, value)]))
}

fn one(case: &Case<'_>, headers: &HeaderMap, body: &[u8]) -> Result<(), Failure> {
    let wanted = needed_object(case, "expect")?;
    let known = [
        "result",
        "attributes",
        "data",
        "data_bytes",
        "data_base64",
        "data_json",
        "reencoded_binary",
    ];
    expected::only(wanted, &known)?;
    let decoded = decode_one(headers, body).map_err(|error| error.to_string());
    Allowed::of(wanted)?.judge(decoded, |event| same(wanted, &event))
}

fn same(wanted: &Fields, event: &CloudEvent) -> Result<(), Failure> {
    expected::attributes(wanted.get("attributes"), |name| event.attribute(name))?;
    let data = event.data();
    if let Some(wanted) = wanted.get("data") {
        if !wanted.is_null() {
            return Err(Failure::malformed("expects `data` other than null"));
        }
        if data.is_some() {
            return Err(Failure::new("no data", "data"));
        }
    }
    if let Some(wanted) = wanted.get("data_bytes") {
        let wanted = expected::bytes(wanted)?;
        same_bytes("data", &wanted.unwrap_or_default(), data)?;
    }
    if let Some(wanted) = wanted.get("data_base64") {
        same_bytes("data", &expected::from_base64(wanted)?, data)?;
    }
    if let Some(wanted) = wanted.get("data_json") {
        let found: Value = serde_json::from_slice(data.unwrap_or_default())
            .map_err(|error| Failure::new(wanted, error))?;
        if *wanted != found {
            return Err(Failure::new(wanted, found));
        }
    }
    match wanted.get("reencoded_binary") {
        None => Ok(()),
        Some(Value::String(text)) => content_type_again(text, event),
        Some(other) => Err(Failure::malformed(format!("reencoded_binary: {other}"))),
    }
}

/// Encodes in binary mode what was decoded: `content-type: x`, or `no content-type header`.
fn content_type_again(wanted: &str, event: &CloudEvent) -> Result<(), Failure> {
    let (headers, _) = encode(event).map_err(|error| Failure::new(wanted, error))?;
    let found = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    match wanted.strip_prefix("content-type: ") {
        Some(content_type) => same_bytes("content-type", content_type.as_bytes(), found),
        None if wanted == "no content-type header" && found.is_none() => Ok(()),
        None if wanted == "no content-type header" => Err(Failure::new(wanted, "one")),
        None => Err(Failure::malformed(format!("reencoded_binary: {wanted}"))),
    }
}
