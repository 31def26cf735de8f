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
