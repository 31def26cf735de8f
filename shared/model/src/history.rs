//! What the store can tell about events counted before.

use std::{collections::HashMap, future::Future};

use crate::{event::Identity, identity::Seen};

/// The store's memory of counted events, asked where the registry cannot be trusted.
///
/// The store implements it and the ledger asks it; neither knows the other.
pub trait History {
    /// Why the store could not answer.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns every counted row of each of these identities; none for an
    /// identity that was never counted.
    fn seen(
        &self,
        identities: &[Identity],
    ) -> impl Future<Output = Result<HashMap<Identity, Vec<Seen>>, Self::Error>> + Send;

    /// Returns a page of the rows that were stored after `cursor` (microseconds
    /// since 1970) and taken by ingest at or after `ingested_from`, oldest first.
    fn seen_after(
        &self,
        cursor: i64,
        ingested_from: i64,
    ) -> impl Future<Output = Result<SeenPage, Self::Error>> + Send;
}

/// A page of counted rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPage {
    /// Identity and row, in the order in which they were stored.
    pub rows: Vec<(Identity, Seen)>,
    /// Where the next page begins; `None` when nothing was left.
    pub next: Option<i64>,
}
