//! The fields of a request's body; all mistakes come together.

use model::Decimal;
use serde_json::{Map, Value};

use crate::{
    answers::{Errors, Refusal},
    time::{self, Millis},
};

/// Reads the body of a request.
pub(crate) fn json(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::BadRequest(error.to_string()))
}

/// The object under a body's root key, and what is wrong with it so far.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    errors: Errors,
}

impl<'a> Fields<'a> {
    /// Takes the object under `root`.
    pub(crate) fn of(body: &'a Value, root: &str) -> Result<Self, Refusal> {
        let missing = || {
            Refusal::BadRequest(format!(
                "param is missing or the value is empty or invalid: {root}"
            ))
        };
        let map = body[root].as_object().filter(|map| !map.is_empty());
        map.map(Self::new).ok_or_else(missing)
    }

    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self {
            map,
            errors: Errors::new(),
        }
    }

    /// The field, unless it is absent or null.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A text, or a number as its text; nothing when it is empty.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let text = match self.value(name)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                self.refuse(name, "value_is_invalid");
                return None;
            }
        };
        Some(text).filter(|text| !text.is_empty())
    }

    pub(crate) fn required(&mut self, name: &str) -> String {
        let text = self.text(name);
        if text.is_none() && !self.errors.contains_key(name) {
            self.refuse(name, "value_is_mandatory");
        }
        text.unwrap_or_default()
    }

    /// A decimal that is `valid`, exactly.
    pub(crate) fn decimal(
        &mut self,
        name: &str,
        valid: impl FnOnce(Decimal) -> bool,
    ) -> Option<Decimal> {
        let text = self.text(name)?;
        let value = text.parse().ok().filter(|value| valid(*value));
        if value.is_none() {
            self.refuse(name, "value_is_invalid");
        }
        value
    }

    /// An ISO 8601 time.
    pub(crate) fn time(&mut self, name: &str) -> Option<Millis> {
        let at = time::from_iso(&self.text(name)?);
        if at.is_none() {
            self.refuse(name, "invalid_date");
        }
        at
    }

    pub(crate) fn refuse(&mut self, name: &str, code: &'static str) {
        self.errors.entry(name.to_owned()).or_default().push(code);
    }

    /// Returns what is wrong.
    pub(crate) fn errors(self) -> Result<(), Errors> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(self.errors)
        }
    }

    /// Refuses the request if anything was wrong.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        self.errors().map_err(Refusal::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_mistakes_come_together() {
        let body = json!({ "wallet": { "rate_amount": "-1", "name": [], "at": "x", "n": 0.10 } });
        let mut fields = Fields::of(&body, "wallet").unwrap();
        assert_eq!(
            fields.decimal("rate_amount", |rate| rate > Decimal::ZERO),
            None
        );
        assert_eq!(fields.required("name"), "");
        assert_eq!(fields.required("currency"), "");
        assert_eq!(fields.time("at"), None);
        assert_eq!(fields.decimal("n", |_| true).unwrap().to_string(), "0.1");
        let expected = [
            ("at", vec!["invalid_date"]),
            ("currency", vec!["value_is_mandatory"]),
            ("name", vec!["value_is_invalid"]),
            ("rate_amount", vec!["value_is_invalid"]),
        ];
        let expected: Errors = expected
            .map(|(name, codes)| (name.to_owned(), codes))
            .into();
        assert_eq!(fields.finish(), Err(Refusal::Invalid(expected)));
    }

    #[test]
    fn a_body_without_its_root_key_is_a_bad_request() {
        for body in [
            json!({}),
            json!([]),
            json!({ "event": {} }),
            json!({ "event": 1 }),
        ] {
            assert!(matches!(
                Fields::of(&body, "event"),
                Err(Refusal::BadRequest(_))
            ));
        }
    }
}
