//! What a person reads at the end.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{
    answers::METERS,
    functions::Start,
    gateway::Tally,
    rows::{Comparison, Key, Rows, is_same},
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
        let (all, equal) = (grouped(*all), grouped(*equal));
        text += &format!("{table:<60} {equal:>7} of {all:>7} rows {mark}\n");
    }
    let differences = &comparison.differences;
    for difference in differences.iter().take(LISTED_DIFFERENCES) {
        text += &format!("  {difference}\n");
    }
    let hidden = differences.len().saturating_sub(LISTED_DIFFERENCES);
    if hidden > 0 {
        text += &format!("  and {} more\n", grouped(hidden as u64));
    }
    let (equal, all) = comparison.sum();
    text + &format!("equal: {} of {} rows\n", grouped(equal), grouped(all))
}

/// Returns the table of calls and latencies, the `rows` busiest alone and the rest as one line.
pub(super) fn usage(expected: &Rows, answered: &Rows, rows: usize) -> String {
    let calls = METERS[0].by_group();
    let called = |side: &Rows, groups: &[String]| {
        let value = number(side, &calls, groups, "value");
        value.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let all = expected.keys().filter(|key| key.table == calls);
    let mut groups: Vec<&[String]> = all.map(|key| key.groups.as_slice()).collect();
    groups.sort_by_key(|groups| Reverse::<u64>(called(expected, groups)));

    let mut text = format!(
        "{:<10} {:<60} {:>8} {:>9}   {:>9} {:>9}   {:>9} {:>9}\n",
        "TPP", "call", "calls", "oracle", "p50 ms", "oracle", "p95 ms", "oracle"
    );
    let (busiest, rest) = groups.split_at(rows.min(groups.len()));
    for groups in busiest {
        text += &usage_row(expected, answered, groups);
    }
    let sum = |side: &Rows| rest.iter().map(|groups| called(side, groups)).sum::<u64>();
    let (ours, oracle) = (sum(answered), sum(expected));
    let mark = if ours == oracle { "=" } else { "DIFFERS" };
    let what = format!("{} more rows", grouped(rest.len() as u64));
    let (ours, oracle) = (grouped(ours), grouped(oracle));
    text += &format!("{:<10} {what:<59} {ours:>9} {oracle:>9} {mark}\n", "");
    text
}

fn usage_row(expected: &Rows, answered: &Rows, groups: &[String]) -> String {
    let [calls, _, latencies] = METERS.map(|meter| meter.by_group());
    let [subject, endpoint, method] = groups else {
        return String::new();
    };
    let call = format!("{method} {endpoint}");
    let mut text = format!("{subject:<10} {call:<59}");
    let mut same = true;
    for (table, name) in [(&calls, "value"), (&latencies, "p50"), (&latencies, "p95")] {
        let ours = number(answered, table, groups, name);
        let oracle = number(expected, table, groups, name);
        // A group that only invalid events are in has calls and no latency, on either side.
        if ours.is_some() || oracle.is_some() {
            same &= is_same(oracle, ours);
        }
        text += &format!(" {:>9} {:>9}  ", short(ours), short(oracle));
    }
    let mark = if same { "=" } else { "DIFFERS" };
    text + mark + "\n"
}

fn number<'a>(side: &'a Rows, table: &str, groups: &[String], name: &str) -> Option<&'a String> {
    side.get(&Key::new(table, groups.to_vec()))?.get(name)
}

/// Says what was measured.
pub(super) fn figures(figures: &Figures) -> String {
    let mut text = String::new();
    for (start, end) in figures.starts.iter().zip(&figures.end_bytes) {
        let (name, ready) = (start.name, start.ready_after.as_secs_f64());
        let (idle, end) = (megabytes(start.idle_bytes), megabytes(*end));
        text +=
            &format!("{name:<8} ready after {ready:.3} s, {idle} MB idle, {end} MB at the end\n");
    }
    let tally = &figures.tally;
    let posted = tally.accepted + tally.refusals();
    let seconds = figures.posting.as_secs_f64();
    text += &format!(
        "gateway  {} events/s ({} in {seconds:.1} s, {} requests, {} of them again)\n",
        grouped((posted as f64 / seconds.max(0.001)) as u64),
        grouped(posted),
        grouped(tally.requests),
        grouped(tally.retries),
    );
    let visible = figures.visible_after.as_secs_f64();
    text += &format!("visible  {visible:.2} s after the last answer\n");
    if figures.kills > 0 {
        text += &format!(
            "killed   {} times, and waited for to work again\n",
            figures.kills
        );
    }
    text
}

/// Three decimal places do for the eye; what is compared is the whole number.
fn short(number: Option<&String>) -> String {
    let Some(number) = number else {
        return "-".to_owned();
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    match part.get(..3).unwrap_or(part) {
        "" => whole,
        part => format!("{whole}.{part}"),
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
        let texts = ["4500", "45.5", "45.1234567"].map(|text| short(Some(&text.to_owned())));
        assert_eq!(texts, ["4,500", "45.5", "45.123"]);
        assert_eq!(short(None), "-");
    }
}
