//! One event, made ready to be counted: all that needs no store and no registry.

use model::{Applied, Catalog, Claim, Content, Identity, Invalid, Seen, Usage, UsageEvent};

/// The last microsecond that the store's times can hold (2299-12-31T23:59:59.999999Z).
const LAST: i64 = 10_413_791_999_999_999;

/// An event with what it claims and what it would add.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) event: UsageEvent,
    pub(crate) claim: Claim,
    pub(crate) usage: Vec<Usage>,
    /// Why a meter, or every one, cannot use it.
    pub(crate) invalid: Vec<Invalid>,
    /// The same as one text; empty if all can.
    pub(crate) error: String,
    /// The hash of the definitions that were applied.
    pub(crate) definitions: u64,
}

impl Prepared {
    /// Applies the meters to `event`.
    pub fn new(catalog: &Catalog, mut event: UsageEvent) -> Self {
        let payload = event.payload();
        let Applied { usage, invalid } = catalog.apply(&event, &payload);
        let error = invalid
            .iter()
            .map(Invalid::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        let time = event.time.as_microsecond();
        let kept = time.clamp(0, LAST);
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
                ingested_at: event.ingested_at.as_microsecond(),
                content: Content::of(&event, &payload),
            },
        };
        let definitions = catalog.definitions(&event.event_type);
        Self {
            event,
            claim,
            usage,
            invalid,
            error,
            definitions,
        }
    }
}
