//! A time zone's offsets from UTC, as SQL.
//!
//! Windows are aligned by the same rules here and in [`model::Window::holding`]. ClickHouse
//! has rules of its own (another release of the tz database, other limits of years), so it
//! is not asked: the offsets are written into the statement, by lookup in constant arrays.

use jiff::{Timestamp, tz::TimeZone};

/// The seconds that a stretch of the lookup spans at most: 2^22, or 48 days. It is halved
/// until no stretch holds two changes.
const LONGEST: i64 = 1 << 22;

/// Returns an SQL expression for the zone's offset in seconds at `at`, an expression in
/// seconds since 1970 that is nowhere before `first` nor after `last`.
pub(crate) fn offset_sql(zone: &TimeZone, at: &str, first: Timestamp, last: Timestamp) -> String {
    let start = zone.to_offset(first).seconds();
    let changes: Vec<(i64, i32)> = zone
        .following(first)
        .take_while(|change| change.timestamp() <= last)
        .map(|change| (change.timestamp().as_second(), change.offset().seconds()))
        .collect();
    if changes.iter().all(|(_, offset)| *offset == start) {
        return format!("toInt64({start})");
    }
    let base = first.as_second().div_euclid(LONGEST) * LONGEST;
    let mut span = LONGEST;
    while changes
        .windows(2)
        .any(|pair| (pair[0].0 - base) / span == (pair[1].0 - base) / span)
    {
        span /= 2;
    }
    let stretches = (last.as_second() - base) / span + 1;
    let (mut change_at, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut offset = start;
    let mut rest = changes.into_iter().peekable();
    for stretch in 0..stretches {
        let end = base + (stretch + 1) * span;
        before.push(offset.to_string());
        match rest.next_if(|(second, _)| *second < end) {
            Some((second, next)) => {
                change_at.push(second.to_string());
                offset = next;
            }
            None => change_at.push(end.to_string()),
        }
        after.push(offset.to_string());
    }
    let place = format!("intDiv({at} - {base}, {span}) + 1");
    let element =
        |list: &[String], kind: &str| format!("[{}]::Array({kind})[{place}]", list.join(","));
    format!(
        "toInt64(if({at} < {}, {}, {}))",
        element(&change_at, "Int64"),
        element(&before, "Int32"),
        element(&after, "Int32"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(zone: &str, first: &str, last: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        offset_sql(&zone, "s", first.parse().unwrap(), last.parse().unwrap())
    }

    #[test]
    fn a_zone_without_changes_is_one_number() {
        let year = ("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z");
        assert_eq!(sql("UTC", year.0, year.1), "toInt64(0)");
        assert_eq!(sql("Asia/Kolkata", year.0, year.1), "toInt64(19800)");
        let winter = ("2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z");
        assert_eq!(sql("Europe/Berlin", winter.0, winter.1), "toInt64(3600)");
    }

    #[test]
    fn a_change_stands_in_its_stretch() {
        let text = sql(
            "Europe/Berlin",
            "2024-03-30T00:00:00Z",
            "2024-04-01T00:00:00Z",
        );
        assert!(text.contains("1711846800"), "{text}");
        assert!(text.contains("[3600]") && text.contains("[7200]"), "{text}");
    }
}
