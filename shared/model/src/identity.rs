//! The one rule of what is counted: which delivery of an identity wins.

use std::time::Duration;

use crate::event::{Content, Identity};

/// What is remembered of the delivery that won its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its `time`, in microseconds since 1970: where the event is counted.
    pub time: i64,
    /// When ingest took it, in microseconds since 1970.
    pub ingested_at: i64,
    /// What it says.
    pub content: Content,
}

/// One delivery that asks to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose count it asks for.
    pub identity: Identity,
    /// What would be remembered, did it win.
    pub seen: Seen,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is counted, at its own time.
    First,
    /// It says what the winner says, which is counted already, at the winner's time.
    Repeat,
    /// It bears the winner's identity and says something else: it adds to nothing.
    Conflict,
}

impl Claim {
    /// Returns whether a winner that was taken at `winner.ingested_at` can still
    /// be this delivery's: the dedup window runs on ingest's clock, so that a
    /// replay, however late, comes to the same answer.
    pub fn is_within(&self, window: Duration, winner: &Seen) -> bool {
        let apart = self.seen.ingested_at.abs_diff(winner.ingested_at);
        u128::from(apart) < window.as_micros()
    }

    /// Returns what becomes of this delivery when `winner` has its identity.
    pub fn against(&self, winner: &Seen) -> Verdict {
        if winner.content != self.seen.content {
            Verdict::Conflict
        } else if winner == &self.seen {
            Verdict::First
        } else {
            Verdict::Repeat
        }
    }

    /// Returns whether this delivery may be an event that was counted before the window,
    /// sent again as it was: then only the store remembers it. Such an event's time is
    /// about a window old, unless its clock was half a window fast.
    pub fn may_be_older_than(&self, window: Duration) -> bool {
        let age = self.seen.ingested_at.saturating_sub(self.seen.time);
        age > 0 && u128::from(age.unsigned_abs()) * 2 > window.as_micros()
    }

    /// Returns the winner among `stored`, the counted rows that the store has for
    /// this identity, or `None` when this delivery is a new event.
    ///
    /// Several rows can stand under one identity: each fresh resend after the window is
    /// an event of its own.
    pub fn winner_among<'a>(&self, window: Duration, stored: &'a [Seen]) -> Option<&'a Seen> {
        let is_mine = |seen: &&Seen| **seen == self.seen;
        let is_verbatim = |seen: &&Seen| self.is_verbatim(seen) && !is_mine(seen);
        let is_rival = |seen: &&Seen| !is_mine(seen) && self.is_within(window, seen);
        // Sent again as it was, it is the same row, whenever it is sent.
        let verbatim = stored.iter().find(is_verbatim);
        // Within a window there is one winner. If this very delivery has a row beside
        // another's, its own was written while the registry was lost and never confirmed.
        let rival = || {
            stored
                .iter()
                .filter(is_rival)
                .min_by_key(|seen| (seen.ingested_at, seen.time))
        };
        verbatim
            .or_else(rival)
            .or_else(|| stored.iter().find(is_mine))
    }

    fn is_verbatim(&self, seen: &Seen) -> bool {
        seen.time == self.seen.time && seen.content == self.seen.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const WINDOW: Duration = Duration::from_secs(24 * 3600);

    fn seen(time: i64, ingested_at: i64, content: u64) -> Seen {
        Seen {
            time,
            ingested_at,
            content: Content(content),
        }
    }

    fn claim(time: i64, ingested_at: i64, content: u64) -> Claim {
        Claim {
            identity: Identity([0; 16]),
            seen: seen(time, ingested_at, content),
        }
    }

    #[test]
    fn the_first_wins_and_the_rest_repeat_or_conflict() {
        let winner = seen(10, 0, 1);
        assert_eq!(claim(10, 0, 1).against(&winner), Verdict::First);
        assert_eq!(claim(10, 5, 1).against(&winner), Verdict::Repeat);
        assert_eq!(claim(20, 5, 1).against(&winner), Verdict::Repeat);
        assert_eq!(claim(10, 5, 2).against(&winner), Verdict::Conflict);
    }

    #[test]
    fn a_replay_finds_its_own_row_and_a_resend_after_the_window_is_new() {
        let stored = [seen(10, 0, 1), seen(70, 30 * HOUR, 1)];
        let among = |claim: Claim| claim.winner_among(WINDOW, &stored).copied();
        assert_eq!(
            among(claim(10, 0, 1)),
            Some(stored[0]),
            "replay of the first"
        );
        assert_eq!(
            among(claim(70, 30 * HOUR, 1)),
            Some(stored[1]),
            "replay of the second"
        );
        assert_eq!(
            among(claim(11, HOUR, 1)),
            Some(stored[0]),
            "repeat of the first"
        );
        assert_eq!(
            among(claim(71, 31 * HOUR, 1)),
            Some(stored[1]),
            "repeat of the second"
        );
        assert_eq!(
            among(claim(99, 60 * HOUR, 1)),
            None,
            "resend after the window"
        );
        assert_eq!(
            among(claim(10, 60 * HOUR, 1)),
            Some(stored[0]),
            "the same row whenever sent"
        );
    }
}
