//! What is written of each delivery, now that its identity has a winner.
//!
//! Whatever was written of a delivery before (by a function that was killed, or by
//! one that took it for the winner while the registry was lost), these rows put
//! right: the winner's row is written again, and a row that the delivery may have
//! left under its own time or content is taken away.
//!
//! Rows that are said to be the same are told apart by their versions, and deliveries may be
//! judged and written at the same time, in several instances. So a version is not the time of
//! writing but that of judging, and whoever was judged later has the last word, however late
//! others write:
//! - What a delivery says of places that are not its to win has the time before it was judged.
//!   A delivery that wins such a place was judged after that, and so was one that gives it up.
//! - What a winner says of its own place has the time after it was judged.

use model::{Prepared, Seen, Verdict};
use store::{EventRow, State, UsageRecord};

const CONFLICT: &str =
    "conflict: an event of this source and id was counted before, with other content";

/// The rows of a batch.
#[derive(Default)]
pub(crate) struct Rows<'a> {
    pub(crate) events: Vec<EventRow<'a>>,
    pub(crate) usage: Vec<UsageRecord<'a>>,
}

/// Where a row stands: at which time, taken when, and whether it adds or takes away.
#[derive(Clone, Copy)]
struct At {
    time: i64,
    ingested_at: i64,
    stored_at: i64,
    is_deleted: bool,
}

impl<'a> Rows<'a> {
    /// Adds the rows of a delivery whose identity `winner` has: it was judged after `asked_at`
    /// and before `known_at`.
    pub(crate) fn add(
        &mut self,
        prepared: &'a Prepared,
        winner: &Seen,
        asked_at: i64,
        known_at: i64,
    ) -> Verdict {
        let verdict = prepared.claim.against(winner);
        let own = prepared.claim.seen;
        let there = At {
            time: winner.time,
            ingested_at: winner.ingested_at,
            stored_at: asked_at,
            is_deleted: false,
        };
        let own_place = At {
            time: own.time,
            ingested_at: own.ingested_at,
            stored_at: asked_at,
            is_deleted: true,
        };
        match verdict {
            Verdict::First => {
                let there = At {
                    stored_at: known_at,
                    ..there
                };
                self.put(prepared, there);
            }
            Verdict::Repeat => {
                self.put(prepared, there);
                if own.time != winner.time {
                    self.put(prepared, own_place);
                }
            }
            Verdict::Conflict => {
                let kept = At {
                    is_deleted: false,
                    ..own_place
                };
                self.put_event(prepared, kept, State::Conflict, CONFLICT);
                self.put_usage(prepared, own_place);
            }
        }
        verdict
    }

    /// Adds what is kept of a delivery that cannot be stored as it would count: what
    /// [`Self::add`] says of the event, but with the reason where it would be counted, which is
    /// the winner's place, and no usage.
    pub(crate) fn add_unstorable(
        &mut self,
        prepared: &'a Prepared,
        winner: &Seen,
        asked_at: i64,
        known_at: i64,
        reason: &'a str,
    ) {
        let (events, usage) = (self.events.len(), self.usage.len());
        self.add(prepared, winner, asked_at, known_at);
        self.usage.truncate(usage);
        for row in &mut self.events[events..] {
            if row.state != State::Conflict && !row.is_deleted {
                (row.state, row.error) = (State::Invalid, reason);
            }
        }
    }

    /// Puts the event where it is counted, with what it adds there: not at its own time,
    /// if it repeats another.
    fn put(&mut self, prepared: &'a Prepared, at: At) {
        let error = prepared.error_at(at.time);
        let state = if error.is_empty() {
            State::Valid
        } else {
            State::Invalid
        };
        self.put_event(prepared, at, state, error);
        self.put_usage(prepared, at);
    }

    fn put_event(&mut self, prepared: &'a Prepared, at: At, state: State, error: &'a str) {
        let event = &prepared.event;
        self.events.push(EventRow {
            identity: prepared.claim.identity,
            time: at.time,
            id: &event.id,
            source: &event.source,
            event_type: &event.event_type,
            subject: event.subject.as_deref().unwrap_or_default(),
            data: event.data.as_deref().unwrap_or_default(),
            attributes: &event.attributes,
            state,
            error,
            content: prepared.claim.seen.content,
            definitions: prepared.definitions,
            ingested_at: at.ingested_at,
            stored_at: at.stored_at,
            is_deleted: at.is_deleted,
        });
    }

    fn put_usage(&mut self, prepared: &'a Prepared, at: At) {
        let subject = prepared.event.subject.as_deref().unwrap_or_default();
        self.usage
            .extend(prepared.usage_at(at.time).map(|usage| UsageRecord {
                meter: &usage.meter.slug,
                subject,
                time: at.time,
                identity: prepared.claim.identity,
                content: prepared.claim.seen.content,
                value: usage.value,
                text: &usage.text,
                dimensions: &usage.meter.group_by,
                groups: &usage.groups,
                definitions: prepared.definitions,
                ingested_at: at.ingested_at,
                stored_at: at.stored_at,
                is_deleted: at.is_deleted,
            }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::delivery;

    fn rows<'a>(prepared: &'a Prepared, winner: &Seen) -> (Rows<'a>, Verdict) {
        let mut rows = Rows::default();
        let verdict = rows.add(prepared, winner, 1, 2);
        (rows, verdict)
    }

    #[test]
    fn a_winner_is_written_and_nothing_else() {
        let first = delivery(1, 10, 0, 100);
        let (rows, verdict) = rows(&first, &first.claim.seen);
        assert_eq!(verdict, Verdict::First);
        assert_eq!((rows.events.len(), rows.usage.len()), (1, 1));
        assert!(!rows.usage[0].is_deleted);
        assert_eq!((rows.events[0].stored_at, rows.usage[0].stored_at), (2, 2));
    }

    #[test]
    fn a_repeat_is_written_at_the_winners_place_and_taken_away_from_its_own() {
        let (first, repeat) = (delivery(1, 10, 0, 100), delivery(1, 20, 0, 101));
        let (rows, verdict) = rows(&repeat, &first.claim.seen);
        assert_eq!(verdict, Verdict::Repeat);
        let shown: Vec<_> = rows
            .usage
            .iter()
            .map(|row| (row.time, row.is_deleted, row.stored_at))
            .collect();
        assert_eq!(shown, [(10_000_000, false, 1), (20_000_000, true, 1)]);
    }

    #[test]
    fn a_conflict_is_kept_and_its_usage_taken_away() {
        let (first, conflict) = (delivery(1, 10, 0, 100), delivery(1, 10, 1, 101));
        let (rows, verdict) = rows(&conflict, &first.claim.seen);
        assert_eq!(verdict, Verdict::Conflict);
        assert_eq!(
            (rows.events[0].state, rows.events[0].is_deleted),
            (State::Conflict, false)
        );
        assert!(rows.usage.iter().all(|row| row.is_deleted));
    }

    #[test]
    fn what_cannot_be_stored_is_invalid_at_the_winners_place_and_has_no_usage() {
        let first = delivery(1, 10, 0, 100);
        let repeat = delivery(1, 20, 0, 101);
        let conflict = delivery(1, 10, 1, 102);
        for (one, shown) in [
            (&first, vec![(10_000_000, State::Invalid, false, 2)]),
            (
                &repeat,
                vec![
                    (10_000_000, State::Invalid, false, 1),
                    (20_000_000, State::Valid, true, 1),
                ],
            ),
            (&conflict, vec![(10_000_000, State::Conflict, false, 1)]),
        ] {
            let mut rows = Rows::default();
            rows.add_unstorable(one, &first.claim.seen, 1, 2, "reason");
            let events = rows.events.iter();
            let events = events.map(|row| (row.time, row.state, row.is_deleted, row.stored_at));
            assert_eq!(events.collect::<Vec<_>>(), shown);
            assert!(rows.usage.is_empty());
        }
    }

    #[test]
    fn a_repeat_adds_what_counts_at_the_winners_time() {
        let meters = "meters: [{slug: c, eventType: t, aggregation: COUNT, eventFrom: '1970-01-01T00:01:00Z'}]";
        let catalog = model::Catalog::from_yaml(meters).unwrap();
        let at = |time: i64| Prepared::new(&catalog, delivery(1, time, 0, 100 + time).event);
        let early = at(59);
        for (first, repeat, counted) in [
            (at(59), at(61), 0),
            (at(61), at(59), 1),
            (at(-5), at(61), 0),
            (at(61), at(-5), 1),
        ] {
            let (rows, _) = rows(&repeat, &first.claim.seen);
            let live = rows.usage.iter().filter(|row| !row.is_deleted).count();
            assert_eq!(live, counted, "{} {}", first.event.time, repeat.event.time);
            let invalid = rows
                .events
                .iter()
                .any(|row| !row.is_deleted && row.state == State::Invalid);
            assert_eq!(invalid, first.event.time.as_second() < 0);
        }
        assert_eq!(rows(&early, &early.claim.seen).0.usage.len(), 0);
    }
}
