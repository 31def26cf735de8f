//! Reads a request's body under two limits: of this request, and of all of them.

use std::sync::Arc;

use axum::{body::Body, http::HeaderMap, http::header::CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
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
}

/// A body in memory, and its place in the budget for as long as it is there.
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _budget: Option<OwnedSemaphorePermit>,
}

/// Reads `body` to its end. What it claims to be decides when it is too large, what has
/// come of it counts in the budget: a slow sender cannot reserve what it does not send.
pub(crate) async fn read(
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
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        let size = held.bytes.len() + rest.len() + frame.len();
        if size > limit {
            return Err(BodyError::TooLarge { limit });
        }
        let permits = u32::try_from(frame.len()).map_err(|_| BodyError::TooLarge { limit })?;
        let permit = Arc::clone(budget)
            .try_acquire_many_owned(permits)
            .map_err(|_| BodyError::Busy)?;
        match &mut held._budget {
            Some(budget) => budget.merge(permit),
            None => held._budget = Some(permit),
        }
        if size == frame.len() {
            // Nearly every body comes in one piece, which needs no copy.
            held.bytes = frame;
        } else {
            if rest.is_empty() {
                rest.reserve(claimed.unwrap_or_default().max(size));
                rest.extend_from_slice(&std::mem::take(&mut held.bytes));
            }
            rest.extend_from_slice(&frame);
        }
    }
    if !rest.is_empty() {
        held.bytes = rest.freeze();
    }
    Ok(held)
}
