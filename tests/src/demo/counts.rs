//! What became of the deliveries, by kind, beside the oracle's numbers.

use std::collections::BTreeMap;

use super::{
    oracle::Expected,
    report::{Figures, grouped},
    status,
};

/// One line of the counts: what it is, ours, the oracle's, and where such events end.
struct Count {
    what: &'static str,
    ours: Option<u64>,
    oracle: u64,
    place: String,
}

impl Count {
    fn mark(&self) -> &'static str {
        match self.ours {
            Some(ours) if ours == self.oracle => "=",
            Some(_) => "DIFFERS",
            None => "",
        }
    }
}

/// Says how the counts compare; whether all are equal is returned too.
pub(super) fn counts(expected: &Expected, figures: &Figures) -> (String, bool) {
    let counts = compared(expected, figures);
    let mut text = format!(
        "{:<10} {:>12} {:>12}\n",
        "deliveries", "functions", "oracle"
    );
    for count in &counts {
        let ours = count.ours.map_or_else(|| "-".to_owned(), grouped);
        let (oracle, mark) = (grouped(count.oracle), count.mark());
        let Count { what, place, .. } = count;
        text += &format!("{what:<10} {ours:>12} {oracle:>12} {mark:<1} {place}\n");
    }
    for (cause, count) in &figures.dead {
        text += &format!("dead: {} in {cause}\n", grouped(*count));
    }
    text += &format!("refused, by reason: {}\n", listed(&expected.refused));
    text += &format!(
        "invalid, by reason: {}\n",
        listed(&expected.invalid_by_reason)
    );
    let is_equal = |count: &Count| count.ours.is_none_or(|ours| ours == count.oracle);
    (text, counts.iter().all(is_equal))
}

fn compared(expected: &Expected, figures: &Figures) -> Vec<Count> {
    let kept = |state: &str| figures.kept.get(state).copied().unwrap_or_default();
    let Figures { tally, passes, .. } = figures;
    let (accepted, conflicts) = (expected.accepted * passes, expected.conflicts);
    let statuses = tally.refused.iter();
    let statuses = statuses.map(|(status, count)| format!("{} with {status}", grouped(*count)));
    let statuses = statuses.collect::<Vec<_>>().join(", ");
    // What was sent or delivered again may have been taken twice, and a process that is no more
    // has taken its count along. Everything else is to be exact even then.
    let deliveries = status::deliveries(&figures.lives);
    let again = tally.retries + deliveries.values().map(|one| one.retries).sum::<u64>();
    let process = status::lives(&figures.lives).remove("process");
    let is_the_first = process.is_none_or(|process| process.cold_starts == 0);
    let is_known = figures.killed.is_empty() && again == 0 && is_the_first;
    let processed = figures.outcomes.as_ref().filter(|_| is_known);
    let crashes = status::restarts(&figures.lives)
        .into_iter()
        .map(|(function, restarts)| {
            let killed = figures.killed.get(function);
            restarts.saturating_sub(killed.map_or(0, |killed| killed.times))
        });
    let spared = figures.killed.values().filter(|killed| killed.at_work == 0);
    let refusals = expected.refused.values().sum::<u64>() * passes;
    let count = |what, ours: u64, oracle, place: &str| Count {
        what,
        ours: Some(ours),
        oracle,
        place: place.to_owned(),
    };
    vec![
        count(
            "posted",
            tally.accepted + tally.refusals(),
            figures.lines * passes,
            "",
        ),
        count(
            "accepted",
            tally.accepted,
            accepted,
            "in Kafka before the answer",
        ),
        count(
            "refused",
            tally.refusals(),
            refusals,
            &format!("at the door: {statuses}"),
        ),
        count(
            "counted",
            kept("valid"),
            expected.distinct - expected.invalid,
            "in events, and once in each meter",
        ),
        count(
            "invalid",
            kept("invalid"),
            expected.invalid,
            "in events with the reason, in the meters that can use them",
        ),
        count(
            "conflicts",
            kept("conflict"),
            conflicts,
            "in events as conflicts, in no meter",
        ),
        Count {
            what: "processed",
            ours: processed.map(|outcomes| outcomes.values().sum()),
            oracle: accepted + figures.called,
            place: "each delivery once, by the counters of process".to_owned(),
        },
        Count {
            what: "repeats",
            ours: None,
            oracle: accepted - expected.distinct - conflicts * passes,
            place: "nowhere: each is the row that was there".to_owned(),
        },
        Count {
            what: "late",
            ours: None,
            oracle: expected.late,
            place: "in the windows of their own time, see the rows by hour and by day".to_owned(),
        },
        count(
            "dead",
            figures.dead.values().sum(),
            0,
            "in the topics of dead letters",
        ),
        count(
            "lost",
            deliveries.values().map(|one| one.lost).sum(),
            0,
            "for neither a function nor a dead letter sink took them",
        ),
        count(
            "crashes",
            crashes.sum(),
            0,
            "of functions, beyond the kills of each",
        ),
        count(
            "spared",
            spared.count() as u64,
            0,
            "of those that were to be killed, never hit at work",
        ),
    ]
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {}", grouped(*count)))
        .collect();
    counts.join(", ")
}
