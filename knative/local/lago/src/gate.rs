//! What every request to the API passes: faults, the key, the rate limit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{OriginalUri, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    answers::Refusal,
    faults::{Fault, FaultKind},
    limits::Standing,
    server::Lago,
};

/// Says on every response that this is not Lago.
pub(crate) const WHAT_IT_IS: &str = concat!(
    "lago-stand-in ",
    env!("CARGO_PKG_VERSION"),
    ", not Lago: for laptops and tests"
);

/// Marks a batch of which only the first half is to be kept.
#[derive(Clone, Copy)]
pub(crate) struct HalfBatch;

pub(crate) async fn says_what_it_is(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let what = HeaderValue::from_static(WHAT_IT_IS);
    response.headers_mut().insert("x-lago-stand-in", what);
    response
}

pub(crate) async fn gate(
    State(lago): State<Arc<Lago>>,
    OriginalUri(uri): OriginalUri,
    mut request: Request,
    next: Next,
) -> Response {
    let what = format!("{} {}", request.method(), uri.path());
    let key = second_word(request.headers().get(header::AUTHORIZATION));
    let (known, standing) = {
        let mut organization = lago.organization();
        let known = key.is_some_and(|key| key == organization.settings.api_key);
        (known, organization.limiter.count(&what, Instant::now()))
    };
    if !known {
        return limited(Refusal::Unauthorized.into_response(), standing);
    }
    if standing.is_some_and(|standing| standing.refused) {
        return limited(fault(StatusCode::TOO_MANY_REQUESTS), standing);
    }
    let Some(ordered) = lago.organization().faults.of_request(&what) else {
        return limited(next.run(request).await, standing);
    };
    tracing::info!("{what}: {:?}, as ordered", ordered.kind);
    let Fault { status, millis, .. } = ordered;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match ordered.kind {
        FaultKind::FailBefore => {}
        FaultKind::HangBefore => tokio::time::sleep(Duration::from_millis(millis)).await,
        FaultKind::HangAfter => {
            drop(next.run(request).await);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        FaultKind::RateLimited => {
            let standing = Standing {
                limit: 0,
                remaining: 0,
                reset: ordered.reset_seconds,
                refused: true,
            };
            return limited(fault(StatusCode::TOO_MANY_REQUESTS), Some(standing));
        }
        FaultKind::HalfBatch => {
            request.extensions_mut().insert(HalfBatch);
            drop(next.run(request).await);
        }
        // `FailAfter`; those of webhooks are never a request's.
        _ => drop(next.run(request).await),
    }
    limited(fault(status), standing)
}

fn fault(status: StatusCode) -> Response {
    Refusal::Fault(status).into_response()
}

/// The key of `Bearer KEY`, whatever the first word is.
fn second_word(header: Option<&HeaderValue>) -> Option<String> {
    let text = header?.to_str().ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

fn limited(mut response: Response, standing: Option<Standing>) -> Response {
    if let Some(standing) = standing {
        let headers = response.headers_mut();
        headers.insert("x-ratelimit-limit", standing.limit.into());
        headers.insert("x-ratelimit-remaining", standing.remaining.into());
        headers.insert("x-ratelimit-reset", standing.reset.into());
    }
    response
}
