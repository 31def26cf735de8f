//! What is written of each delivery, now that its identity has a winner.
//!
//! Whatever was written of a delivery before (by a function that was killed, or by
//! one that took it for the winner while the registry was lost), these rows put
//! right: the winner's row is written again, and a row that the delivery may have
//! left under its own time or content is taken away.

use model::{Seen, Verdict};
use store::{EventRow, State, UsageRecord};

use crate::prepare::Prepared;

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
    /// Adds the rows of a delivery whose identity `winner` has.
    pub(crate) fn add(&mut self, prepared: &'a Prepared, winner: &Seen, stored_at: i64) -> Verdict {
        let verdict = prepared.claim.against(winner);
        let own = prepared.claim.seen;
        let there = At {
            time: winner.time,
            ingested_at: winner.ingested_at,
            stored_at,
            is_deleted: false,
        };
        let own_place = At {
            time: own.time,
            ingested_at: own.ingested_at,
            stored_at,
            is_deleted: true,
        };
        let (state, error) = match prepared.error.as_str() {
            "" => (State::Valid, ""),
            error => (State::Invalid, error),
        };
        match verdict {
            Verdict::First => self.put(prepared, there, state, error),
            Verdict::Repeat => {
                self.put(prepared, there, state, error);
                if own.time != winner.time {
                    self.put(prepared, own_place, state, error);
                }
            }
            Verdict::Conflict => {
                self.put_event(
                    prepared,
                    At {
                        is_deleted: false,
                        ..own_place
                    },
                    State::Conflict,
                    CONFLICT,
                );
                self.put_usage(prepared, own_place);
            }
        }
        verdict
    }

    fn put(&mut self, prepared: &'a Prepared, at: At, state: State, error: &'a str) {
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
            .extend(prepared.usage.iter().map(|usage| UsageRecord {
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
    use std::collections::{BTreeMap, HashMap};

    use model::{Catalog, Identity, UsageEvent};
    use proptest::prelude::*;

    use super::*;

    fn catalog() -> Catalog {
        Catalog::from_yaml("meters: [{slug: c, eventType: t, aggregation: COUNT}]").unwrap()
    }

    /// A delivery of event `id`, sent at `time`, which says `what`.
    fn delivery(id: u8, time: i64, what: u8, ingested_at: i64) -> Prepared {
        let at = |second: i64| jiff::Timestamp::from_second(second).unwrap();
        let event = UsageEvent {
            id: id.to_string(),
            source: "s".to_owned(),
            event_type: "t".to_owned(),
            subject: Some("x".to_owned()),
            time: at(time),
            ingested_at: at(ingested_at),
            data: Some(format!("{{\"what\":{what}}}").into_bytes()),
            attributes: BTreeMap::new(),
        };
        Prepared::new(&catalog(), event)
    }

    fn rows<'a>(prepared: &'a Prepared, winner: &Seen) -> (Rows<'a>, Verdict) {
        let mut rows = Rows::default();
        let verdict = rows.add(prepared, winner, 1);
        (rows, verdict)
    }

    #[test]
    fn a_winner_is_written_and_nothing_else() {
        let first = delivery(1, 10, 0, 100);
        let (rows, verdict) = rows(&first, &first.claim.seen);
        assert_eq!(verdict, Verdict::First);
        assert_eq!((rows.events.len(), rows.usage.len()), (1, 1));
        assert!(!rows.usage[0].is_deleted);
    }

    #[test]
    fn a_repeat_is_written_at_the_winners_place_and_taken_away_from_its_own() {
        let (first, repeat) = (delivery(1, 10, 0, 100), delivery(1, 20, 0, 101));
        let (rows, verdict) = rows(&repeat, &first.claim.seen);
        assert_eq!(verdict, Verdict::Repeat);
        let shown: Vec<_> = rows
            .usage
            .iter()
            .map(|row| (row.time, row.is_deleted))
            .collect();
        assert_eq!(shown, [(10_000_000, false), (20_000_000, true)]);
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

    /// A store and a registry as far as counting once depends on them: rows are folded by
    /// key, the last written wins; the registry can be lost and asks the store then.
    #[derive(Default)]
    struct World {
        usage: BTreeMap<(i64, Identity, u64), bool>,
        events: BTreeMap<(i64, Identity, u64), (State, bool, Seen)>,
        registry: HashMap<Identity, Seen>,
        epoch: u32,
    }

    impl World {
        fn judge(&mut self, prepared: &Prepared) -> Seen {
            let claim = prepared.claim;
            let stored: Vec<_> = self
                .events
                .iter()
                .filter(|((_, identity, _), (state, gone, _))| {
                    *identity == claim.identity && *state != State::Conflict && !gone
                })
                .map(|(_, (_, _, seen))| *seen)
                .collect();
            let window = std::time::Duration::from_secs(24 * 3600);
            let known = claim
                .winner_among(window, &stored)
                .copied()
                .unwrap_or(claim.seen);
            *self.registry.entry(claim.identity).or_insert(known)
        }

        fn write(&mut self, prepared: &Prepared, winner: &Seen) {
            let (rows, _) = rows(prepared, winner);
            for row in &rows.usage {
                self.usage
                    .insert((row.time, row.identity, row.content.0), row.is_deleted);
            }
            for row in &rows.events {
                let seen = Seen {
                    time: row.time,
                    ingested_at: row.ingested_at,
                    content: row.content,
                };
                self.events.insert(
                    (row.time, row.identity, row.content.0),
                    (row.state, row.is_deleted, seen),
                );
            }
        }

        fn lose_registry(&mut self) {
            self.registry.clear();
            self.epoch += 1;
        }

        fn count(&mut self, prepared: &Prepared) {
            let winner = self.judge(prepared);
            self.write(prepared, &winner);
        }

        /// Counts `late`, while the registry is lost and `other` is counted between its
        /// judging and its writing; it then finds another epoch and judges again, unless
        /// it is killed and its delivery comes again.
        fn race(&mut self, late: &Prepared, other: &Prepared, killed: bool) {
            let winner = self.judge(late);
            self.lose_registry();
            self.count(other);
            self.write(late, &winner);
            if killed {
                self.lose_registry();
            }
            self.count(late);
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_each_identity_is_counted_once(
            deliveries in prop::collection::vec((0_u8..3, 0_i64..4, 0_u8..2), 1..12),
            events in prop::collection::vec((0_u8..5, any::<prop::sample::Index>()), 0..12),
        ) {
            let prepared: Vec<_> = deliveries
                .iter()
                .zip(100..)
                .map(|((id, time, what), ingested_at)| delivery(*id, *time, *what, ingested_at))
                .collect();
            let mut world = World::default();
            for delivery in &prepared {
                world.count(delivery);
            }
            for (event, index) in events {
                let (one, other) = (index.get(&prepared), &prepared[0]);
                match event {
                    0 => world.count(one),
                    1 => world.lose_registry(),
                    2 => world.race(one, other, false),
                    3 => world.race(other, one, false),
                    _ => world.race(one, other, true),
                }
            }
            let mut live: BTreeMap<Identity, usize> = BTreeMap::new();
            for ((_, identity, _), gone) in &world.usage {
                *live.entry(*identity).or_default() += usize::from(!gone);
            }
            prop_assert!(live.values().all(|count| *count == 1), "{live:?}");
        }

        #[test]
        fn a_race_for_an_identity_never_counts_both(
            one in (0_i64..4, 0_u8..2), other in (0_i64..4, 0_u8..2), killed in any::<bool>(),
        ) {
            let one = delivery(1, one.0, one.1, 100);
            let other = delivery(1, other.0, other.1, 101);
            let mut world = World::default();
            world.race(&one, &other, killed);
            let live = world.usage.values().filter(|gone| !**gone).count();
            prop_assert_eq!(live, 1);
        }
    }
}
