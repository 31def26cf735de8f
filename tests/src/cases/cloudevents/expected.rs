//! What the texts of the cases allow, and events as the cases write them.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};
use stream::{
    CloudEvent,
    http::{STRUCTURED, decode_one},
};

use super::super::file::{Failure, Fields};

/// Which outcomes of decoding a case allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    accept: bool,
    reject: bool,
}

impl Allowed {
    /// Reads the member `result`: `accept`, `reject or ignore`, `accept; and a remark`.
    pub(super) fn of(expected: &Fields) -> Result<Self, Failure> {
        let text = expected.get("result").and_then(Value::as_str);
        let text = text.ok_or_else(|| Failure::malformed("expects no text `result`"))?;
        let rule = text.split(';').next().unwrap_or_default();
        let mut allowed = Self::default();
        for outcome in rule.split(" or ") {
            match outcome.trim().trim_end_matches(" preferred") {
                "accept" | "ignore" => allowed.accept = true,
                "reject" => allowed.reject = true,
                _ => return Err(Failure::malformed(format!("expects the result {text:?}"))),
            }
        }
        Ok(allowed)
    }

    /// Passes what was decoded to `check`, if it may be that anything was decoded.
    pub(super) fn judge<T>(
        self,
        decoded: Result<T, String>,
        check: impl FnOnce(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match decoded {
            Ok(decoded) if self.accept => check(decoded),
            Ok(_) => Err(Failure::new("a refusal", "it was taken")),
            Err(_) if self.reject => Ok(()),
            Err(error) => Err(Failure::new("no refusal", error)),
        }
    }
}

/// Fails if what is expected has a member that nothing compares.
pub(super) fn only(expected: &Fields, known: &[&str]) -> Result<(), Failure> {
    let remarks = ["why", "note", "preferred"];
    let is_known = |name: &&String| known.contains(&&***name) || remarks.contains(&&***name);
    match expected.keys().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::malformed(format!("expects a `{name}`"))),
    }
}

/// Returns what holds for us: `ours`, else what the Kafka broker does, else what the
/// specification says. Null is what a source does not settle.
pub(super) fn ours(expected: &Fields) -> Result<Option<&Value>, Failure> {
    only(expected, &["ours", "kafka", "mt", "spec"])?;
    let mut known = ["ours", "kafka", "spec"].into_iter();
    Ok(known.find_map(|name| expected.get(name).filter(|value| !value.is_null())))
}

/// Compares attributes: as text, and times as instants, as a hop may write an offset anew.
pub(super) fn attributes(
    expected: Option<&Value>,
    found: impl Fn(&str) -> Option<String>,
) -> Result<(), Failure> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let expected = (expected.as_object())
        .ok_or_else(|| Failure::malformed(format!("attributes are no object: {expected}")))?;
    for (name, wanted) in expected {
        let wanted = scalar(wanted)?;
        let found = found(name);
        let instant = |text: &Option<String>| text.as_deref()?.parse::<Timestamp>().ok();
        let same_time =
            name == "time" && instant(&wanted).is_some_and(|time| instant(&found) == Some(time));
        if wanted != found && !same_time {
            let of = |value: Option<String>| format!("{name} {value:?}");
            return Err(Failure::new(of(wanted), of(found)));
        }
    }
    Ok(())
}

/// Returns a text, a number or a truth value as text, and nothing for null.
pub(super) fn scalar(value: &Value) -> Result<Option<String>, Failure> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(_) | Value::Bool(_) => Ok(Some(value.to_string())),
        other => Err(Failure::malformed(format!("not one value: {other}"))),
    }
}

/// Returns bytes: of a text, or of an object with a member `base64`. Null is none.
pub(super) fn bytes(value: &Value) -> Result<Option<Vec<u8>>, Failure> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone().into_bytes())),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("base64") => {
            from_base64(&fields["base64"]).map(Some)
        }
        other => Err(Failure::malformed(format!("no bytes: {other}"))),
    }
}

/// Returns the bytes that a text in Base64 stands for.
pub(super) fn from_base64(value: &Value) -> Result<Vec<u8>, Failure> {
    let text = value.as_str().unwrap_or_default();
    STANDARD.decode(text).map_err(Failure::malformed)
}

/// Compares bytes, and shows them as text.
pub(super) fn same_bytes(what: &str, wanted: &[u8], found: Option<&[u8]>) -> Result<(), Failure> {
    if found == Some(wanted) {
        return Ok(());
    }
    let of = |bytes: Option<&[u8]>| format!("{what} {:?}", bytes.map(String::from_utf8_lossy));
    Err(Failure::new(of(Some(wanted)), of(found)))
}

/// Returns the texts of a list.
pub(super) fn texts(value: &Value) -> Result<Vec<&str>, Failure> {
    let texts = value.as_array().map(|list| list.iter().map(Value::as_str));
    let texts = texts.and_then(Iterator::collect::<Option<_>>);
    texts.ok_or_else(|| Failure::malformed(format!("no list of texts: {value}")))
}

/// Returns headers that a case lists as pairs or names in an object.
pub(super) fn headers(value: &Value) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &Value| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(Failure::malformed)?;
        let value = bytes(value)?.unwrap_or_default();
        let value = HeaderValue::from_bytes(&value).map_err(Failure::malformed)?;
        headers.append(name, value);
        Ok::<_, Failure>(())
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .try_for_each(|(name, value)| add(name, value))?,
        Value::Array(pairs) => {
            for pair in pairs {
                match pair.as_array().map(Vec::as_slice) {
                    Some([Value::String(name), value]) => add(name, value)?,
                    _ => return Err(Failure::malformed(format!("no header: {pair}"))),
                }
            }
        }
        _ => return Err(Failure::malformed(format!("no headers: {value}"))),
    }
    Ok(headers)
}

/// Returns the event that an object with `attributes` is.
pub(super) fn event_of(value: &Value) -> Result<CloudEvent, Failure> {
    let fields = value.as_object();
    event(fields.ok_or_else(|| Failure::malformed(format!("no event: {value}")))?)
}

/// Returns the event that a case writes as `attributes` and `data_bytes`: what JSON format
/// says, so that its numbers and truth values are such.
pub(super) fn event(fields: &Fields) -> Result<CloudEvent, Failure> {
    only(fields, &["attributes", "data", "data_bytes"])?;
    let attributes = fields.get("attributes").and_then(Value::as_object);
    let mut object = attributes
        .ok_or_else(|| Failure::malformed("an event has no `attributes`"))?
        .clone();
    if let Some(data) = fields.get("data_bytes").map(bytes).transpose()?.flatten() {
        object.insert("data_base64".to_owned(), json!(STANDARD.encode(data)));
    } else if let Some(data) = fields.get("data") {
        object.insert("data".to_owned(), data.clone());
    }
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED))]);
    decode_one(&headers, Value::Object(object).to_string().as_bytes()).map_err(Failure::malformed)
}
