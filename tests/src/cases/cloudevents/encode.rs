//! Events into HTTP requests, in binary mode.

use axum::http::HeaderValue;

use super::{
    super::file::{Case, Failure},
    expected::{self, same_bytes},
    needed_object,
};

/// Checks a case of `http_binary_encode`.
pub(super) fn binary(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["event", "expect"])?;
    let event = expected::event(needed_object(case, "event")?)?;
    let wanted = needed_object(case, "expect")?;
    expected::only(wanted, &["headers", "absent", "body"])?;
    let (headers, body) = stream::http::encode(&event)
        .map_err(|error| Failure::new("a request in binary mode", error))?;
    if let Some(wanted) = wanted.get("headers") {
        for (name, value) in &expected::headers(wanted)? {
            let found = headers.get(name).map(HeaderValue::as_bytes);
            same_bytes(name.as_str(), value.as_bytes(), found)?;
        }
    }
    if let Some(absent) = wanted.get("absent") {
        for name in expected::texts(absent)? {
            if headers.contains_key(name) {
                return Err(Failure::new(format!("no header {name}"), "one"));
            }
        }
    }
    match wanted.get("body") {
        None => Ok(()),
        Some(wanted) => {
            let wanted = expected::bytes(wanted)?.unwrap_or_default();
            same_bytes("body", &wanted, Some(&body))
        }
    }
}
