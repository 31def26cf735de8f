//! What a person reads at the end.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{
    answers::METERS,
    functions::Start,
    gateway::Tally,
    rows::{Comparison, Key, Match, Rows, matched},
};

const LISTED_DIFFERENCES: usize = 20;

/// What was measured on the way.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) starts: Vec<Start>,
    /// Resident memory at the end, in the order of `starts`.
    pub(super) end_bytes: Vec<u64>,
    pub(super) tally: Tally,
    /// How long posting took, all passes together.
    pub(super) posting: Duration,
    /// From the last answer to the last row, of the last pass.
    pub(super) visible_after: Duration,
    /// How often the file was posted.
    pub(super) passes: u64,
    pub(super) kills: u64,
    /// Lines of the file.
    pub(super) lines: u64,
    /// Events in the store, by what became of them.
    pub(super) kept: BTreeMap<String, u64>,
    /// What process counted; it forgets when it is killed.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Records put aside because they are no events.
    pub(super) dead: u64,
}

/// Says how the rows of each table compare.
pub(super) fn comparison(comparison: &Comparison) -> String {
    let mut text = String::new();
    for (table, (all, equal)) in &comparison.tables {
        let mark = if all == equal { "=" } else { "DIFFERS" };
        line(
            &mut text,
            format_args!(
                "{table:<60} {:>7} of {:>7} rows {mark}",
                grouped(*equal),
                grouped(*all)
            ),
        );
    }
    if comparison.near > 0 {
        line(
            &mut text,
            format_args!(
                "{} percentiles are not equal, but within 1 %",
                grouped(comparison.near)
            ),
        );
    }
    let hidden = comparison
        .differences
        .len()
        .saturating_sub(LISTED_DIFFERENCES);
    for difference in comparison.differences.iter().take(LISTED_DIFFERENCES) {
        line(&mut text, format_args!("  {difference}"));
    }
    if hidden > 0 {
        line(
            &mut text,
            format_args!("  and {} more", grouped(hidden as u64)),
        );
    }
    let (equal, all) = comparison.sum();
    line(
        &mut text,
        format_args!("equal: {} of {} rows", grouped(equal), grouped(all)),
    );
    text
}

/// Returns the table of calls and latencies, the `rows` busiest alone and the rest as one line.
pub(super) fn usage(expected: &Rows, answered: &Rows, rows: usize) -> String {
    let [calls, _, latencies] = METERS.map(|meter| meter.by_group());
    let number = |side: &Rows, table: &str, groups: &[String], name: &str| {
        side.get(&Key::new(table, groups.to_vec()))
            .and_then(|numbers| numbers.get(name))
            .cloned()
    };
    let called = |side: &Rows, groups: &[String]| number(side, &calls, groups, "value");
    let as_count = |text: Option<String>| {
        text.and_then(|text| text.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let mut groups: Vec<&[String]> = expected
        .keys()
        .filter(|key| key.table == calls)
        .map(|key| key.groups.as_slice())
        .collect();
    groups.sort_by_key(|groups| std::cmp::Reverse(as_count(called(expected, groups))));

    let mut text = format!(
        "{:<10} {:<60} {:>8} {:>8}   {:>9} {:>9}   {:>9} {:>9}\n",
        "TPP", "call", "calls", "oracle", "p50 ms", "oracle", "p95 ms", "oracle"
    );
    let (shown, rest) = groups.split_at(rows.min(groups.len()));
    for groups in shown {
        let pairs =
            [(&calls, "value"), (&latencies, "p50"), (&latencies, "p95")].map(|(table, name)| {
                (
                    name,
                    number(answered, table, groups, name),
                    number(expected, table, groups, name),
                )
            });
        let worst = pairs
            .iter()
            .map(|(name, ours, oracle)| matched(name, oracle.as_ref(), ours.as_ref()))
            .max();
        let cells =
            pairs.map(|(_, ours, oracle)| format!("{:>9} {:>9}", short(ours), short(oracle)));
        let [subject, endpoint, method] = groups else {
            continue;
        };
        let [calls, p50, p95] = cells;
        let call = format!("{method} {endpoint}");
        line(
            &mut text,
            format_args!(
                "{subject:<10} {call:<59} {calls}   {p50}   {p95} {}",
                mark(worst)
            ),
        );
    }
    let sum = |side: &Rows| {
        rest.iter()
            .map(|groups| as_count(called(side, groups)))
            .sum::<u64>()
    };
    let what = format!("{} more rows", grouped(rest.len() as u64));
    let (ours, oracle) = (sum(answered), sum(expected));
    let equal = if ours == oracle {
        Match::Equal
    } else {
        Match::Different
    };
    line(
        &mut text,
        format_args!(
            "{:<10} {what:<59} {:>9} {:>9} {}",
            "",
            grouped(ours),
            grouped(oracle),
            mark(Some(equal))
        ),
    );
    text
}

/// Says what was measured.
pub(super) fn figures(figures: &Figures) -> String {
    let mut text = String::new();
    for (start, end) in figures.starts.iter().zip(&figures.end_bytes) {
        let (idle, end) = (megabytes(start.idle_bytes), megabytes(*end));
        line(
            &mut text,
            format_args!(
                "{:<8} ready after {:.3} s, {idle} MB idle, {end} MB at the end",
                start.name,
                start.ready_after.as_secs_f64()
            ),
        );
    }
    let posted = figures.tally.accepted + figures.tally.refusals();
    let rate = posted as f64 / figures.posting.as_secs_f64().max(0.001);
    line(
        &mut text,
        format_args!(
            "gateway  {} events/s ({} in {:.1} s, {} requests, {} of them again)",
            grouped(rate as u64),
            grouped(posted),
            figures.posting.as_secs_f64(),
            grouped(figures.tally.requests),
            grouped(figures.tally.retries),
        ),
    );
    line(
        &mut text,
        format_args!(
            "visible  {:.2} s after the last answer",
            figures.visible_after.as_secs_f64()
        ),
    );
    if figures.passes > 1 || figures.kills > 0 {
        line(
            &mut text,
            format_args!(
                "chaos    {} kills, the file posted {} times",
                figures.kills, figures.passes
            ),
        );
    }
    text
}

/// Adds a line.
pub(super) fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

fn mark(found: Option<Match>) -> &'static str {
    match found {
        Some(Match::Equal) => "=",
        Some(Match::Near) => "~",
        _ => "DIFFERS",
    }
}

/// Three decimal places do for the eye; what is compared is the whole number.
fn short(number: Option<String>) -> String {
    let Some(number) = number else {
        return "-".to_owned();
    };
    match number.split_once('.') {
        Some((whole, part)) => format!("{whole}.{}", part.get(..3).unwrap_or(part)),
        None => number,
    }
}

fn megabytes(bytes: u64) -> u64 {
    (bytes + (1 << 19)) >> 20
}

/// Writes a number with commas.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let texts = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn the_eye_gets_three_places() {
        let texts = ["45", "45.5", "45.1234567"].map(|text| short(Some(text.to_owned())));
        assert_eq!(texts, ["45", "45.5", "45.123"]);
        assert_eq!(short(None), "-");
    }
}
