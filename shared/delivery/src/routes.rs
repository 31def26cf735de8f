//! HTTP in and out: one event a request from Knative, a batch of records from Lambda.
//!
//! What can never succeed is 400, which has a KafkaSource bury it at once, or 204 if the function
//! passes over it. Everything else is 503 or 429: it comes again.

use axum::{
    Router,
    body::{Bytes, HttpBody as _},
    extract::{DefaultBodyLimit, FromRequest as _, Request, State, rejection::BytesRejection},
    http::StatusCode,
    routing::post,
};
use jiff::Timestamp;
use runtime::Problem;
use stream::http::decode_record;
use tokio::time::{Instant, timeout_at};

use crate::{
    Dead, Function,
    dead::count_dead,
    lambda::Lambda,
    push::{ANSWER_WITHIN, Push, PushError},
};

/// How large the data of an event may be: more than ingest takes and Kafka keeps.
const EVENT_LIMIT: usize = 4 << 20;

/// What an event takes of the budget beside its bytes.
const EVENT_OVERHEAD: usize = 2 << 10;

/// More than the 6 MB that Lambda invokes a function with.
const RECORDS_LIMIT: usize = 8 << 20;

/// Returns the route that a KafkaSource delivers to.
pub(crate) fn knative<F: Function>(push: Push) -> Router {
    Router::new()
        .route("/", post(take_event::<F>))
        .layer(DefaultBodyLimit::max(EVENT_LIMIT))
        .with_state(push)
}

/// Returns the route at which the records of an event source mapping arrive.
pub(crate) fn lambda<F: Function>(lambda: Lambda<F>) -> Router {
    Router::new()
        .route("/events", post(take_records::<F>))
        .layer(DefaultBodyLimit::max(RECORDS_LIMIT))
        .with_state(lambda)
}

/// Answers with 204 and no body: Knative takes a body for an event.
async fn take_event<F: Function>(
    State(push): State<Push>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let until = Instant::now() + ANSWER_WITHIN;
    let taken = timeout_at(until, take(&push, request, until)).await;
    match taken.unwrap_or(Err(PushError::Later)) {
        Err(PushError::Dead(reason)) if F::DEAD == Dead::PassOver => {
            tracing::debug!(reason, "an event is passed over");
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => Err(problem(error)),
        Ok(()) => Ok(StatusCode::NO_CONTENT),
    }
}

async fn take(push: &Push, request: Request, until: Instant) -> Result<(), PushError> {
    let place = push.reserve(size(&request)?)?;
    let headers = request.headers().clone();
    let body = Bytes::from_request(request, &()).await.map_err(unread)?;
    let event = decode_record(&headers, &body, Timestamp::now());
    let event = event.map_err(|error| PushError::Dead(error.to_string()))?;
    drop((headers, body));
    push.take(event, place, until).await
}

/// Returns what the event takes of the budget. One that does not say its length may be as long
/// as any.
fn size(request: &Request) -> Result<usize, PushError> {
    let claimed = request.body().size_hint().upper();
    let body = claimed.map_or(Ok(EVENT_LIMIT), usize::try_from);
    let Some(body) = body.ok().filter(|body| *body <= EVENT_LIMIT) else {
        return Err(too_large());
    };
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
    Ok(EVENT_OVERHEAD + headers.sum::<usize>() + body)
}

fn unread(rejection: BytesRejection) -> PushError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        // It broke off on its way.
        _ => PushError::Later,
    }
}

fn too_large() -> PushError {
    PushError::Dead(format!("the event has more than {EVENT_LIMIT} bytes"))
}

fn problem(error: PushError) -> Problem {
    let detail = error.to_string();
    match error {
        PushError::Busy => Problem::too_many_requests(detail).retry_after(1),
        PushError::Later => Problem::unavailable(detail).retry_after(1),
        PushError::Dead(_) => {
            count_dead(1);
            Problem::bad_request(detail)
        }
    }
}

async fn take_records<F: Function>(
    State(lambda): State<Lambda<F>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    match lambda.take(&body?).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "records are not counted yet");
            Err(problem(PushError::Later))
        }
    }
}
