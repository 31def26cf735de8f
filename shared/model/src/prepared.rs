//! One event, made ready to be counted: all that needs no store and no registry.

use std::sync::LazyLock;

use crate::{
    Applied, Catalog, Claim, Content, Identity, Invalid, Seen, Usage, UsageEvent, is_countable,
    kept_time, micros,
};

/// What is said of an event that is counted at a time that nothing is counted at.
static UNTIMELY: LazyLock<String> = LazyLock::new(|| Invalid::TimeOutOfRange.to_string());

/// An event with what it claims and what it would add.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// As it was read; a time that no column holds is kept among its attributes.
    pub event: UsageEvent,
    /// Which delivery it is, of which identity.
    pub claim: Claim,
    /// What it adds to each meter that takes the time at which it is counted.
    usage: Vec<Usage>,
    /// Why a meter, or every one, cannot use it, whenever it is counted.
    invalid: Vec<Invalid>,
    /// The same as one text; empty if all can.
    error: String,
    /// The hash of the definitions that were applied.
    pub definitions: u64,
}

impl Prepared {
    /// Applies the meters to `event`.
    pub fn new(catalog: &Catalog, mut event: UsageEvent) -> Self {
        let payload = event.payload();
        let applied = catalog.apply(&event, &payload);
        let error = applied.error().unwrap_or_default();
        let Applied { usage, invalid } = applied;
        let time = micros(event.time);
        let kept = kept_time(time);
        if kept != time {
            // No meter counts it and no column can hold it, but nobody shall lose it.
            event
                .attributes
                .insert("time".to_owned(), event.time.to_string());
        }
        let claim = Claim {
            identity: Identity::of(&event.source, &event.id),
            seen: Seen {
                time: kept,
                ingested_at: micros(event.ingested_at),
                content: Content::of(&event, &payload),
            },
        };
        Self {
            definitions: catalog.definitions(&event.event_type),
            event,
            claim,
            usage,
            invalid,
            error,
        }
    }

    /// Returns the validation error of the event, counted at `time` (microseconds since
    /// 1970); empty if it has none.
    pub fn error_at(&self, time: i64) -> &str {
        if self.error.is_empty() && !is_countable(time) {
            &UNTIMELY
        } else {
            &self.error
        }
    }

    /// Returns what it adds, counted at `time` (microseconds since 1970).
    pub fn usage_at(&self, time: i64) -> impl Iterator<Item = &Usage> {
        let takes = move |usage: &&Usage| is_countable(time) && usage.meter.takes(time);
        self.usage.iter().filter(takes)
    }

    /// Returns whether it adds to any meter at its own time.
    pub fn adds(&self) -> bool {
        self.usage_at(self.claim.seen.time).next().is_some()
    }

    /// Returns why a meter, or every one, cannot use it at its own time.
    pub fn invalid(&self) -> Vec<&Invalid> {
        let untimely = !is_countable(self.claim.seen.time) && self.invalid.is_empty();
        let untimely = untimely.then_some(&Invalid::TimeOutOfRange);
        self.invalid.iter().chain(untimely).collect()
    }
}
