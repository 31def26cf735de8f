//! When an answer is what a case says: only what the case names is compared.

use jiff::Timestamp;
use serde_json::Value;

use super::file::Failure;

/// Members whose texts are instants, equal however they are written.
const INSTANTS: [&str; 5] = ["windowStart", "windowEnd", "from", "to", "time"];

/// Returns whether `ours` is what is expected.
///
/// An object is compared by the members that the expected one names, a list by all its
/// items. `null` stands for an absent member too.
pub(super) fn same(expected: &Value, ours: Option<&Value>) -> bool {
    match (expected, ours.unwrap_or(&Value::Null)) {
        (Value::Number(expected), Value::Number(ours)) => {
            same_number(expected.as_str(), ours.as_str())
        }
        (Value::Object(expected), Value::Object(ours)) => {
            expected.iter().all(|(name, expected)| {
                let ours = ours.get(name);
                same(expected, ours)
                    || (INSTANTS.contains(&&**name) && same_instant(expected, ours))
            })
        }
        (Value::Array(expected), Value::Array(ours)) => {
            expected.len() == ours.len()
                && (expected.iter().zip(ours)).all(|(expected, ours)| same(expected, Some(ours)))
        }
        (expected, ours) => expected == ours,
    }
}

fn same_instant(expected: &Value, ours: Option<&Value>) -> bool {
    let instant = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    let expected = instant(expected);
    expected.is_some() && expected == ours.and_then(instant)
}

/// Returns whether two numbers are the same decimal, or are after ours was rounded to
/// binary64, which is what most clients and OpenMeter itself show of it.
pub(super) fn same_number(expected: &str, ours: &str) -> bool {
    let Some(wanted) = Number::read(expected) else {
        return false;
    };
    let rounded = || {
        let rounded = ours.parse::<f64>().ok().filter(|ours| ours.is_finite())?;
        // Displayed as the shortest decimal that reads as the same binary64.
        Number::read(&rounded.to_string())
    };
    Number::read(ours).is_some_and(|ours| ours == wanted || rounded() == Some(wanted))
}

/// A decimal number of any size, with one form for equal numbers.
#[derive(Debug, PartialEq, Eq)]
struct Number {
    negative: bool,
    /// Without zeros at either end; empty for zero.
    digits: String,
    /// The power of ten of the last digit.
    power: i64,
}

impl Number {
    fn read(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let written = format!("{integer}{fraction}");
        if written.is_empty() || !written.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = written.trim_end_matches('0');
        let digits = significant.trim_start_matches('0');
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits: String::new(),
                power: 0,
            });
        }
        let trailing = i64::try_from(written.len() - significant.len()).ok()?;
        let places = i64::try_from(fraction.len()).ok()?;
        Some(Self {
            negative,
            digits: digits.to_owned(),
            power: exponent + trailing - places,
        })
    }
}

/// Compares the rows of an answer with the rows of a case, none missing and none extra.
pub(super) fn rows(expected: &[Value], ours: &[Value], any_order: bool) -> Result<(), Failure> {
    let equal = expected.len() == ours.len()
        && if any_order {
            are_same_in_some_order(expected, ours)
        } else {
            (expected.iter().zip(ours)).all(|(expected, ours)| same(expected, Some(ours)))
        };
    if equal {
        return Ok(());
    }
    let order = if any_order { " in any order" } else { "" };
    Err(Failure::new(
        format!("{} rows{order} {}", expected.len(), join(expected)),
        format!("{} rows {}", ours.len(), join(ours)),
    ))
}

fn join(rows: &[Value]) -> String {
    let rows: Vec<_> = rows.iter().map(Value::to_string).collect();
    format!("[{}]", rows.join(", "))
}

/// An expected row may name few members and so fit several of ours, so rows are paired off
/// such that each has one of its own (Kuhn's matching).
fn are_same_in_some_order(expected: &[Value], ours: &[Value]) -> bool {
    let mut taken_by: Vec<Option<usize>> = vec![None; ours.len()];
    (0..expected.len()).all(|row| {
        let mut tried = vec![false; ours.len()];
        find_place(row, expected, ours, &mut taken_by, &mut tried)
    })
}

fn find_place(
    row: usize,
    expected: &[Value],
    ours: &[Value],
    taken_by: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for place in 0..ours.len() {
        if tried[place] || !same(&expected[row], Some(&ours[place])) {
            continue;
        }
        tried[place] = true;
        let is_free = match taken_by[place] {
            None => true,
            Some(other) => find_place(other, expected, ours, taken_by, tried),
        };
        if is_free {
            taken_by[place] = Some(row);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: &str, start: &str) -> Value {
        serde_json::from_str(&format!(
            r#"{{"value":{value},"windowStart":"2024-01-01T{start}:00Z","subject":null,"groupBy":{{"a":"x"}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn numbers_are_equal_as_decimals_or_after_rounding_ours() {
        for (expected, ours) in [
            ("5", "5.000"),
            ("5.0", "5"),
            ("-0", "0"),
            ("1e3", "1000"),
            ("100e-2", "1"),
            ("0.1234567890123456789", "0.1234567890123456789"),
            ("123.45678901234568", "123.4567890123456789"),
            ("12345678901234567000", "12345678901234567890"),
            ("1.2345678901234567e+19", "12345678901234567890"),
            ("5", "5.0000000000000000001"),
        ] {
            assert!(same_number(expected, ours), "{expected} {ours}");
        }
        for (expected, ours) in [
            ("5", "-5"),
            ("5", "50"),
            // Rounded the other way: ours must hold what is expected.
            ("123.4567890123456789", "123.45678901234568"),
            ("0.1000000000000000055", "0.1"),
            ("5", "NaN"),
            ("", ""),
        ] {
            assert!(!same_number(expected, ours), "{expected} {ours}");
        }
    }

    #[test]
    fn a_wrong_value_fails() {
        let expected = [row("5", "00:00")];
        assert!(rows(&expected, &[row("5.0", "00:00")], false).is_ok());
        let failure = rows(&expected, &[row("6", "00:00")], false).unwrap_err();
        assert!(failure.expected.contains("\"value\":5"), "{failure:?}");
        assert!(failure.got.contains("\"value\":6"), "{failure:?}");
        for any_order in [false, true] {
            assert!(rows(&expected, &[row("\"5\"", "00:00")], any_order).is_err());
            assert!(rows(&expected, &[row("null", "00:00")], any_order).is_err());
            assert!(rows(&expected, &[row("5", "00:01")], any_order).is_err());
            assert!(rows(&expected, &[json!({})], any_order).is_err());
            assert!(rows(&expected, &[json!(5)], any_order).is_err());
        }
    }

    #[test]
    fn a_missing_or_an_extra_row_fails() {
        let one = [row("5", "00:00")];
        let two = [row("5", "00:00"), row("7", "00:01")];
        for any_order in [false, true] {
            assert!(rows(&two, &two, any_order).is_ok());
            assert!(rows(&two, &one, any_order).is_err());
            assert!(rows(&one, &two, any_order).is_err());
            assert!(rows(&[], &one, any_order).is_err());
            assert!(rows(&one, &[], any_order).is_err());
            let repeated = [one[0].clone(), one[0].clone()];
            assert!(rows(&two, &repeated, any_order).is_err());
            assert!(rows(&repeated, &two, any_order).is_err());
        }
    }

    #[test]
    fn order_matters_unless_the_case_says_otherwise() {
        let ours = [row("5", "00:00"), row("7", "00:01")];
        let turned = [ours[1].clone(), ours[0].clone()];
        assert!(rows(&turned, &ours, false).is_err());
        assert!(rows(&turned, &ours, true).is_ok());
    }

    #[test]
    fn a_row_that_names_little_leaves_the_other_its_match() {
        let ours = [row("5", "00:00"), row("7", "00:01")];
        let vague = json!({"groupBy": {"a": "x"}});
        let five = json!({"value": 5});
        assert!(rows(&[vague.clone(), five.clone()], &ours, true).is_ok());
        assert!(rows(&[five.clone(), five], &ours, true).is_err());
        assert!(rows(&[vague.clone(), vague.clone(), vague], &ours, true).is_err());
    }

    #[test]
    fn only_named_members_are_compared() {
        let ours = row("5", "00:00");
        for expected in [
            json!({}),
            json!({"subject": null, "customerId": null}),
            json!({"windowStart": "2024-01-01T01:00:00+01:00"}),
            json!({"groupBy": {}}),
        ] {
            assert!(same(&expected, Some(&ours)), "{expected}");
        }
        for expected in [
            json!({"subject": "s"}),
            json!({"groupBy": {"a": "y"}}),
            json!({"groupBy": {"b": ""}}),
            json!({"customerId": ""}),
            json!({"windowStart": "2024-01-01T00:00:01Z"}),
        ] {
            assert!(!same(&expected, Some(&ours)), "{expected}");
        }
    }
}
