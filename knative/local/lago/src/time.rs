//! Times as Lago reads and writes them, in milliseconds since 1970.

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};
use model::{Decimal, SCALE};
use serde_json::Value;

/// Milliseconds since 1970 UTC.
pub(crate) type Millis = i64;

pub(crate) const DAY: Millis = 86_400_000;

/// After 400 years the calendar begins anew, so a year beyond what jiff knows is one that it
/// knows and some cycles more.
const CYCLE: Millis = 146_097 * DAY;

/// Units of a [`Decimal`]'s mantissa in a millisecond, when the decimal is seconds.
const MILLISECOND: i128 = 10_i128.pow(SCALE - 3);

pub(crate) fn system_now() -> Millis {
    Timestamp::now().as_millisecond()
}

/// Reads an event's timestamp: seconds since 1970, as a number or a text; what is finer than
/// a millisecond is cut off. `None` for any other text, ISO 8601 among them.
pub(crate) fn of_event(value: &Value) -> Option<Millis> {
    let seconds: Decimal = match value {
        Value::Number(number) => number.to_string().parse().ok()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    i64::try_from(seconds.mantissa().div_euclid(MILLISECOND)).ok()
}

/// Reads an ISO 8601 time, or a day, which is its beginning in UTC.
pub(crate) fn from_iso(text: &str) -> Option<Millis> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let day: Date = text.parse().ok()?;
    midnight(day)
}

/// Writes `2026-01-31T23:59:59Z`.
pub(crate) fn iso(at: Millis) -> String {
    let (year, at) = year_and_rest(at);
    format!("{year:04}-{}", at.strftime("%m-%dT%H:%M:%SZ"))
}

/// Writes `2026-01-31T23:59:59.000Z`.
pub(crate) fn iso_millis(at: Millis) -> String {
    let (year, at) = year_and_rest(at);
    format!("{year:04}-{}", at.strftime("%m-%dT%H:%M:%S%.3fZ"))
}

/// Writes `2026-01-31`.
pub(crate) fn day(at: Millis) -> String {
    iso(at)
        .split_once('T')
        .map_or_else(String::new, |(day, _)| day.to_owned())
}

/// Returns the first moment of the month after `at`.
pub(crate) fn next_month(at: Millis) -> Millis {
    let (_, civil) = year_and_rest(at);
    let first = civil
        .date()
        .last_of_month()
        .tomorrow()
        .ok()
        .and_then(midnight);
    // Within a cycle there is always a next month.
    first.map_or(Millis::MAX, |first| at.div_euclid(CYCLE) * CYCLE + first)
}

fn midnight(day: Date) -> Option<Millis> {
    let start = day.to_datetime(Time::midnight());
    let start = TimeZone::UTC.to_timestamp(start).ok()?;
    Some(start.as_millisecond())
}

fn year_and_rest(at: Millis) -> (i64, DateTime) {
    let known = Timestamp::from_millisecond(at.rem_euclid(CYCLE)).unwrap_or(Timestamp::UNIX_EPOCH);
    let civil = TimeZone::UTC.to_datetime(known);
    (i64::from(civil.year()) + 400 * at.div_euclid(CYCLE), civil)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_events_timestamp_is_seconds_and_never_iso() {
        for (value, expected) in [
            (json!(1_651_240_791), Some(1_651_240_791_000)),
            (json!("1651240791.123"), Some(1_651_240_791_123)),
            (json!("1651240791.1239"), Some(1_651_240_791_123)),
            (json!(-1), Some(-1000)),
            (json!("2022-04-29T13:59:51Z"), None),
            (json!(""), None),
            (json!({}), None),
            (json!("9999999999999999999"), None),
        ] {
            assert_eq!(of_event(&value), expected, "{value}");
        }
    }

    #[test]
    fn milliseconds_taken_for_seconds_land_in_a_far_year() {
        let at = of_event(&json!(1_651_240_791_123_i64)).unwrap();
        assert_eq!(iso_millis(at), "54295-09-27T05:32:03.000Z");
        assert_eq!(iso(1_651_240_791_123), "2022-04-29T13:59:51Z");
        assert_eq!(iso_millis(1_651_240_791_123), "2022-04-29T13:59:51.123Z");
        assert_eq!(iso_millis(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(day(0), "1970-01-01");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for at in [0, 1_651_240_791_123, -DAY] {
            assert_eq!(from_iso(&iso_millis(at)), Some(at));
        }
        assert_eq!(from_iso("1970-01-02"), Some(DAY));
        assert_eq!(from_iso("soon"), None);
    }

    #[test]
    fn the_next_month_begins_at_midnight() {
        for (at, next) in [
            ("2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00Z"),
            ("2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(iso(next_month(from_iso(at).unwrap())), next);
        }
        assert_eq!(iso(next_month(CYCLE - 1)), iso(CYCLE));
    }
}
