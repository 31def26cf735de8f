//! JSON from strangers.
//!
//! serde_json keeps exact numbers and raw texts by giving some member names a meaning of
//! their own. A stranger can write those names too: an object that poses as a number, or one
//! whose text is parsed again and again until the stack ends. So what is a number or an
//! object is decided here by the text itself, and how deep it goes is limited.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};

/// How deep objects and arrays may lie in each other. Each level is scanned once for each
/// level above it, so this also bounds the work.
const DEPTH: usize = 64;

/// Returns the JSON value that `text` is, with every digit of its numbers; `None` if it is
/// none, or lies deeper than 64 levels. Of members with one name the last one counts.
pub fn parse_json(text: &[u8]) -> Option<Value> {
    value(serde_json::from_slice(text).ok()?, DEPTH)
}

fn value(raw: &RawValue, depth: usize) -> Option<Value> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'{' => {
            let Members(members) = serde_json::from_str(text).ok()?;
            let depth = depth.checked_sub(1)?;
            let each = members
                .into_iter()
                .map(|(name, raw)| Some((name, value(raw, depth)?)));
            each.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let depth = depth.checked_sub(1)?;
            let each = items.into_iter().map(|raw| value(raw, depth));
            each.collect::<Option<_>>().map(Value::Array)
        }
        b'"' => serde_json::from_str(text).ok().map(Value::String),
        b't' => Some(Value::Bool(true)),
        b'f' => Some(Value::Bool(false)),
        b'n' => Some(Value::Null),
        _ => text.parse().ok().map(Value::Number),
    }
}

/// The members of an object, each value as its text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_read_as_it_is_written() {
        for text in [
            r#"{"a": [1, -2.50, 1e400, "x", null, true, false, {}, []], "b": {"c": "ü\n"}}"#,
            "12345678901234567890.123",
            r#""text""#,
            " null ",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse_json(text.as_bytes()), Some(expected), "{text}");
        }
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "01",
            "nul",
            "1 2",
            "\u{feff}1",
        ] {
            assert_eq!(parse_json(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_json(b"\"\xff\""), None);
        assert_eq!(parse_json(br#"{"a":1,"a":2}"#), Some(json!({"a": 2})));
    }

    #[test]
    fn a_name_that_serde_json_uses_inside_is_a_name() {
        for name in [
            "$serde_json::private::Number",
            "$serde_json::private::RawValue",
        ] {
            for spelled in [name.to_owned(), name.replace('$', "\\u0024")] {
                let text = format!(r#"{{"{spelled}":"45"}}"#);
                let Some(Value::Object(object)) = parse_json(text.as_bytes()) else {
                    panic!("{text}")
                };
                assert_eq!(object.get(name), Some(&json!("45")));
            }
        }
    }

    #[test]
    fn depth_is_refused_before_it_costs_a_stack() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(parse_json(&nested(64)).is_some());
        assert_eq!(parse_json(&nested(65)), None);
        assert_eq!(parse_json(&nested(500_000)), None);
        // A text within a text within a text, each to be parsed anew.
        let mut hidden = "1".to_owned();
        for _ in 0..12 {
            hidden = format!(
                r#"{{"$serde_json::private::RawValue":{}}}"#,
                Value::String(hidden)
            );
        }
        let read = parse_json(hidden.as_bytes()).unwrap();
        assert!(read["$serde_json::private::RawValue"].is_string());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _read = parse_json(&text);
        }

        #[test]
        fn ordinary_json_is_read_as_serde_json_reads_it(text in r#"[\[\]{}":,0-9a-e.\- ]{0,40}"#) {
            prop_assert_eq!(parse_json(text.as_bytes()), serde_json::from_str(&text).ok());
        }
    }
}
