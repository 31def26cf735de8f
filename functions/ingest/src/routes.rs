//! HTTP in and out: where events come in, and how we answer.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    routing::post,
};
use runtime::{App, Health, Problem};
use stream::{
    ProduceError,
    http::{self, Events, Refused},
};

use crate::{
    Door, Ingest, IngestError, Limits,
    body::{self, BodyError, Held},
};

/// Just under what the host leaves for the last act.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(4);

/// Returns ingest as it is served.
pub(crate) fn app(ingest: Ingest) -> App {
    let (ready, alive, last) = (ingest.clone(), ingest.clone(), ingest.clone());
    let health = Health::new()
        .ready("kafka", move || {
            let ingest = ready.clone();
            async move { ingest.ready().await }
        })
        // A producer that failed for good accepts nothing, and only a new process has a new one.
        .alive("kafka producer", move || std::future::ready(alive.alive()));
    let routes = Router::new()
        .route("/", post(from_knative))
        .route("/api/v1/events", post(from_openmeter))
        .with_state(ingest);
    App::new("ingest", routes)
        .health(health)
        .on_shutdown(move || async move { Ok(last.flush(FLUSH_TIMEOUT).await?) })
}

/// Answers with 202 and no body: Knative takes a body for an event.
pub(crate) async fn from_knative(
    State(ingest): State<Ingest>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let limit = ingest.limits().event;
    take(&ingest, Door::Knative, &headers, body, |bytes| {
        http::decode(&headers, bytes, limit)
    })
    .await?;
    Ok(StatusCode::ACCEPTED)
}

/// Answers as OpenMeter does.
async fn from_openmeter(
    State(ingest): State<Ingest>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let limit = ingest.limits().event;
    take(&ingest, Door::OpenMeter, &headers, body, |bytes| {
        if is_plain_json(&headers) {
            let events = http::decode_json(bytes, limit)?;
            return if events.each.is_empty() {
                Err(IngestError::Empty)
            } else {
                Ok(events)
            };
        }
        Ok(http::decode(&headers, bytes, limit)?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn take<E: Into<IngestError>>(
    ingest: &Ingest,
    door: Door,
    headers: &HeaderMap,
    body: Body,
    decode: impl FnOnce(&[u8]) -> Result<Events, E>,
) -> Result<(), Problem> {
    let Limits {
        request, body_time, ..
    } = ingest.limits();
    let held = body::read(headers, body, request, ingest.reading(), body_time)
        .await
        .map_err(|error| body_problem(&error))?;
    let Held { bytes, .. } = &held;
    let events = decode(bytes).map_err(|error| problem(&error.into(), door))?;
    // While Kafka is slow the events are in its budget, and the body is in nobody's way.
    ingest
        .accept(events, door, held)
        .await
        .map_err(|error| problem(&error, door))
}

/// JSON that is not said to be an event, and whose event is not in the headers.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
        && !http::is_binary(headers)
}

fn body_problem(error: &BodyError) -> Problem {
    match error {
        BodyError::TooLarge { .. } => {
            rejected("too_large");
            Problem::payload_too_large(error.to_string())
        }
        BodyError::Busy => {
            rejected("busy");
            Problem::too_many_requests(error.to_string()).retry_after(1)
        }
        BodyError::Broken | BodyError::Slow { .. } => {
            rejected(match error {
                BodyError::Slow { .. } => "slow",
                _ => "broken",
            });
            // Nothing is wrong with the events, as far as anybody knows.
            Problem::new(StatusCode::REQUEST_TIMEOUT).with_detail(error.to_string())
        }
    }
}

fn problem(error: &IngestError, door: Door) -> Problem {
    let detail = error.to_string();
    match error {
        IngestError::Refused(Refused::ContentType) => {
            rejected("content_type");
            match door {
                Door::Knative => Problem::unsupported_media_type(detail),
                Door::OpenMeter => Problem::bad_request(format!("invalid content type: {detail}")),
            }
        }
        IngestError::Refused(Refused::TooLarge { .. })
        | IngestError::Produce(ProduceError::TooLarge) => {
            rejected("too_large");
            Problem::payload_too_large(detail)
        }
        IngestError::Refused(Refused::Malformed(error)) => {
            rejected("malformed");
            with_error(Problem::bad_request(detail), "malformed", error)
        }
        IngestError::Invalid { errors, .. } => {
            rejected("invalid");
            errors
                .iter()
                .fold(Problem::bad_request(detail), |problem, error| {
                    with_error(problem, "invalid_event", error)
                })
        }
        IngestError::Empty => {
            rejected("empty");
            Problem::bad_request(detail)
        }
        IngestError::Produce(ProduceError::Busy) => {
            rejected("busy");
            Problem::too_many_requests(detail).retry_after(1)
        }
        IngestError::NoTopics(_) | IngestError::Produce(ProduceError::Unavailable(_)) => {
            rejected("unavailable");
            Problem::unavailable(detail).retry_after(2)
        }
        IngestError::Produce(cause @ ProduceError::Connect(_)) => {
            rejected("internal");
            tracing::error!(%cause, "no connection to kafka can be made");
            Problem::internal()
        }
    }
}

fn with_error(problem: Problem, code: &str, error: &stream::DecodeError) -> Problem {
    problem.with_error(
        code,
        error.reason.as_ref(),
        error.field.as_deref(),
        error.index,
    )
}

fn rejected(reason: &'static str) {
    metrics::counter!("openmeter_ingest_rejected_total", "reason" => reason).increment(1);
}
