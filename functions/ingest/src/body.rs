//! Reads a request's body under three limits: of this request, of all of them, and of time.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, http::HeaderMap, http::header::CONTENT_LENGTH};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("too many bytes are being read")]
    Busy,
    #[error("the request broke off")]
    Broken,
    #[error("the request took more than {within:?}")]
    Slow { within: Duration },
}

/// A body in memory, and its place in the budget for as long as it is there.
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _budget: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Makes place for a body that is to grow to `size` bytes, before there is memory for it.
    fn grow(&mut self, size: usize, budget: &Arc<Semaphore>) -> Result<(), BodyError> {
        let held = self
            ._budget
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let Ok(more) = u32::try_from(size.saturating_sub(held)) else {
            return Err(BodyError::Busy);
        };
        let permit = Arc::clone(budget)
            .try_acquire_many_owned(more)
            .map_err(|_| BodyError::Busy)?;
        match &mut self._budget {
            Some(budget) => budget.merge(permit),
            None => self._budget = Some(permit),
        }
        Ok(())
    }
}

/// Reads `body` to its end, or until it took longer than `within`: who sends half of a body
/// and stops must not keep its place.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    budget: &Arc<Semaphore>,
    within: Duration,
) -> Result<Held, BodyError> {
    tokio::time::timeout(within, read_all(headers, body, limit, budget))
        .await
        .unwrap_or(Err(BodyError::Slow { within }))
}

/// What the body claims to be decides when it is too large. What has come of it counts in the
/// budget, and so does the room that is made for more: never more than has come already.
async fn read_all(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    budget: &Arc<Semaphore>,
) -> Result<Held, BodyError> {
    let claimed = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if claimed.is_some_and(|claimed: usize| claimed > limit) {
        return Err(BodyError::TooLarge { limit });
    }
    let mut held = Held {
        bytes: Bytes::new(),
        _budget: None,
    };
    let mut pieces: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        let size = held.bytes.len() + pieces.len() + frame.len();
        if size > limit {
            return Err(BodyError::TooLarge { limit });
        }
        if size == frame.len() {
            // Nearly every body comes in one piece, which needs no copy.
            held.grow(size, budget)?;
            held.bytes = frame;
            continue;
        }
        if size > pieces.capacity() {
            let room = room(size, claimed.unwrap_or(limit));
            held.grow(room, budget)?;
            pieces.reserve_exact(room - pieces.len());
            pieces.extend_from_slice(&std::mem::take(&mut held.bytes));
        }
        pieces.extend_from_slice(&frame);
    }
    if !pieces.is_empty() {
        held.bytes = pieces.into();
    }
    Ok(held)
}

/// Returns how much room to make for a body of which `size` bytes have come: twice as much, so
/// that copies are few, but no more than it is to become.
fn room(size: usize, most: usize) -> usize {
    (2 * size).min(most).max(size)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};

    use super::*;

    fn body(pieces: Vec<Vec<u8>>, ends: bool) -> Body {
        let pieces = stream::iter(pieces).map(Ok::<_, Infallible>);
        match ends {
            true => Body::from_stream(pieces),
            false => Body::from_stream(pieces.chain(stream::pending())),
        }
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_whole_and_no_larger_than_its_place() {
        for (claimed, place) in [(Some("1000"), 1000), (None, 1900)] {
            let mut headers = HeaderMap::new();
            if let Some(claimed) = claimed {
                headers.insert(CONTENT_LENGTH, claimed.parse().unwrap());
            }
            let budget = Arc::new(Semaphore::new(10_000));
            let pieces: Vec<_> = (0..100_u8).map(|piece| vec![piece; 10]).collect();
            let body = body(pieces.clone(), true);
            let held = read(&headers, body, 5000, &budget, Duration::from_secs(5)).await;
            let held = held.ok().unwrap();
            assert_eq!(held.bytes, pieces.concat());
            assert_eq!(10_000 - budget.available_permits(), place);
            drop(held);
            assert_eq!(budget.available_permits(), 10_000);
        }
    }

    #[tokio::test]
    async fn what_is_claimed_and_not_sent_takes_no_place() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, "5000".parse().unwrap());
        let budget = Arc::new(Semaphore::new(10_000));
        let body = body(vec![vec![0; 10], vec![0; 10], vec![0; 10]], false);
        let within = Duration::from_millis(300);
        let reading = read(&headers, body, 5000, &budget, within);
        let looking = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            10_000 - budget.available_permits()
        };
        let (read, taken) = tokio::join!(reading, looking);
        assert_eq!(taken, 40);
        assert_eq!(read.err(), Some(BodyError::Slow { within }));
        assert_eq!(budget.available_permits(), 10_000);
    }
}
