//! What a person reads at the end.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use model::Credits;

use super::{
    accounts,
    answers::METERS,
    chaos::Killed,
    gateway::Tally,
    oracle::Expected,
    rows::{Comparison, Key, Rows, is_same},
    status::{self, Status},
};

const LISTED_DIFFERENCES: usize = 20;
const SHOWN_ACCOUNTS: usize = 5;

/// What was measured on the way.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// From the runner's start until everything was in place.
    pub(super) ready_after: Duration,
    /// What the runner said at the end of each of its lives.
    pub(super) lives: Vec<Status>,
    pub(super) tally: Tally,
    /// From the first request to the last row, all passes together.
    pub(super) whole: Duration,
    /// From the last answer to the last row, of the last pass.
    pub(super) visible_after: Duration,
    /// How often the file was posted.
    pub(super) passes: u64,
    /// By victim.
    pub(super) killed: BTreeMap<String, Killed>,
    /// Lines of the file.
    pub(super) lines: u64,
    /// Those of them that came from the bank before, once.
    pub(super) called: u64,
    /// Events in the store, by what became of them.
    pub(super) kept: BTreeMap<String, u64>,
    /// What process counted, if that can be compared; it forgets when it is killed.
    pub(super) outcomes: Option<BTreeMap<String, u64>>,
    /// Dead letters, by topic and cause.
    pub(super) dead: BTreeMap<String, u64>,
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

/// Returns the table of the TPPs that use most credits, the others as one line.
pub(super) fn credits(expected: &Expected, wanted: &Rows, answered: &Rows) -> String {
    let micros = |charge: &str| charge.parse().map_or(0, Credits::micros);
    let mut charges: Vec<_> = expected.charges.iter().collect();
    charges.sort_by_key(|(_, charge)| Reverse(micros(charge)));
    let mut text = format!(
        "{:<10} {:>20} {:>20} {:>20}\n",
        "TPP", "credits used", "credits left", "oracle"
    );
    let (mut equal, mut hidden) = (0_u64, 0_u64);
    for (place, (subject, charge)) in charges.iter().enumerate() {
        let groups = [(*subject).clone()];
        let [ours, oracle] =
            [answered, wanted].map(|side| number(side, accounts::TABLE, &groups, accounts::VALUE));
        let is_equal = is_same(oracle, ours);
        equal += u64::from(is_equal);
        if place >= SHOWN_ACCOUNTS {
            hidden += 1;
            continue;
        }
        let shown = |number: Option<&String>| number.map_or("-", String::as_str).to_owned();
        let (ours, oracle) = (shown(ours), shown(oracle));
        let mark = if is_equal { "=" } else { "DIFFERS" };
        text += &format!("{subject:<10} {charge:>20} {ours:>20} {oracle:>20} {mark}\n");
    }
    let (hidden, equal, all) = (
        grouped(hidden),
        grouped(equal),
        grouped(charges.len() as u64),
    );
    text + &format!(
        "{hidden} more TPPs; {equal} of {all} balances are what was granted less what the oracle charges\n"
    )
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
    let mut text = format!(
        "runner   ready after {:.2} s\n",
        figures.ready_after.as_secs_f64()
    );
    for (name, life) in status::lives(&figures.lives) {
        let (p50, p99) = (percentile(&life.millis, 50), percentile(&life.millis, 99));
        let (starts, restarts) = (life.cold_starts, life.restarts);
        let size = megabytes(life.resident_bytes);
        text += &format!(
            "{name:<12} {starts} cold starts (p50 {p50} ms, p99 {p99} ms), {restarts} restarts, {size} MB at the end\n"
        );
    }
    for (name, deliveries) in status::deliveries(&figures.lives) {
        text += &format!(
            "{name}: {} delivered, {} attempts again, {} dead letters\n",
            grouped(deliveries.delivered),
            grouped(deliveries.retries),
            grouped(deliveries.dead_letters),
        );
    }
    let tally = &figures.tally;
    let posted = tally.accepted + tally.refusals();
    text += &format!(
        "gateway  {} events/s ({} in {:.1} s, {} requests, {} of them again)\n",
        rate(posted, tally.posting),
        grouped(posted),
        tally.posting.as_secs_f64(),
        grouped(tally.requests),
        grouped(tally.retries),
    );
    text += &format!(
        "whole    {} events/s, from the first request to the last row ({:.1} s)\n",
        rate(tally.accepted, figures.whole),
        figures.whole.as_secs_f64(),
    );
    let visible = figures.visible_after.as_secs_f64();
    text += &format!("visible  {visible:.2} s after the last answer\n");
    for (victim, Killed { times, at_work }) in &figures.killed {
        text += &format!("killed   {victim} {times} times, {at_work} of them at work\n");
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

fn rate(events: u64, within: Duration) -> String {
    grouped((events as f64 / within.as_secs_f64().max(0.001)) as u64)
}

/// Returns the element of sorted values that so many percent of them do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> String {
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    let value = sorted.get(place);
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
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
    fn a_percentile_is_a_value_that_occurred() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), "50");
        assert_eq!(percentile(&hundred, 99), "99");
        assert_eq!(percentile(&[7.0], 99), "7");
        assert_eq!(percentile(&[], 50), "-");
    }

    #[test]
    fn the_eye_gets_three_places() {
        let texts = ["4500", "45.5", "45.1234567"].map(|text| short(Some(&text.to_owned())));
        assert_eq!(texts, ["4,500", "45.5", "45.123"]);
        assert_eq!(short(None), "-");
    }
}
