//! Reading YAML whole: every mistake is collected with its place, not the first alone.

use std::{fmt, str::FromStr};

use serde_yaml_ng::{Mapping, Value};

/// The mistakes found so far, each as `place: what`.
#[derive(Default)]
pub(crate) struct Mistakes(Vec<String>);

impl Mistakes {
    pub(crate) fn add(&mut self, place: &str, what: impl fmt::Display) {
        let colon = if place.is_empty() { "" } else { ": " };
        self.0.push(format!("{place}{colon}{what}"));
    }

    /// Returns `value` if there is no mistake, else all mistakes.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Vec<String>> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }
}

/// Writes `2 mistakes in {document}:` and a line for each.
pub(crate) fn write_mistakes(
    f: &mut fmt::Formatter<'_>,
    document: &str,
    mistakes: &[String],
) -> fmt::Result {
    let count = mistakes.len();
    let plural = if count == 1 { "" } else { "s" };
    write!(f, "{count} mistake{plural} in {document}:")?;
    mistakes
        .iter()
        .try_for_each(|mistake| write!(f, "\n  {mistake}"))
}

/// One definition's fields, with the place that its mistakes are reported at.
pub(crate) struct Fields<'a> {
    pub(crate) entry: &'a Mapping,
    pub(crate) place: &'a str,
    pub(crate) mistakes: &'a mut Mistakes,
}

impl Fields<'_> {
    pub(crate) fn add(&mut self, field: &str, what: impl fmt::Display) {
        self.mistakes.add(&format!("{}.{field}", self.place), what);
    }

    pub(crate) fn text(&mut self, field: &str) -> Option<String> {
        match self.entry.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => {
                self.add(field, "must be a text");
                None
            }
        }
    }

    pub(crate) fn required(
        &mut self,
        field: &str,
        is_valid: fn(&str) -> bool,
        rule: &str,
    ) -> Option<String> {
        if !self.entry.contains_key(field) {
            self.add(field, "is required");
            return None;
        }
        let text = self.text(field)?;
        if !is_valid(&text) {
            self.add(field, format!("{rule} (is {text:?})"));
            return None;
        }
        Some(text)
    }
}

pub(crate) fn unknown_keys(entry: &Mapping, known: &[&str], place: &str, mistakes: &mut Mistakes) {
    let dot = if place.is_empty() { "" } else { "." };
    for key in entry.keys() {
        match key.as_str() {
            Some(key) if known.contains(&key) => {}
            Some(key) => mistakes.add(&format!("{place}{dot}{key}"), "is not known"),
            None => mistakes.add(place, "has a key that is no text"),
        }
    }
}

/// Returns the entries of a mapping that has texts as keys; nothing when it is absent.
pub(crate) fn entries<'a>(
    value: Option<&'a Value>,
    place: &str,
    mistakes: &mut Mistakes,
) -> Vec<(&'a str, &'a Value)> {
    let mapping = match value {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Mapping(mapping)) => mapping,
        Some(_) => {
            mistakes.add(place, "must be a mapping");
            return Vec::new();
        }
    };
    let mut entries = Vec::new();
    for (key, value) in mapping {
        match key.as_str() {
            Some(key) => entries.push((key, value)),
            None => mistakes.add(place, "has a key that is no text: write it in quotes"),
        }
    }
    entries
}

/// Returns an amount of 0 or more, given as text or as a whole YAML number; else what is
/// wrong. `T::default()` is 0.
pub(crate) fn amount<T>(value: &Value) -> Result<T, String>
where
    T: FromStr<Err: fmt::Display> + Default + PartialOrd,
{
    let text = match value {
        Value::String(text) => text.clone(),
        // The parser has made a float of it: its digits are lost.
        Value::Number(number) if number.is_f64() => {
            return Err(
                "must be in quotes: a fraction is read exactly from text alone, \
                        write it as text"
                    .to_owned(),
            );
        }
        Value::Number(number) => number.to_string(),
        _ => return Err("must be a decimal number".to_owned()),
    };
    match text.parse::<T>() {
        Ok(amount) if amount >= T::default() => Ok(amount),
        Ok(_) => Err("must be 0 or more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
