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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use futures::future::join;
    use http_body_util::BodyExt as _;
    use runtime::Trigger;
    use serde_json::{Value, json};
    use stream::{BatchLimits, KafkaConfig};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{Delivery, app, tally::Tally};

    /// Nobody is there: what asks it fails.
    const NO_KAFKA: &str = "127.0.0.1:1";

    fn router<const BURIES: bool>(tally: &Tally<BURIES>) -> Router {
        let delivery = Delivery {
            trigger: Trigger::Http,
            kafka: Some(KafkaConfig::new(vec![NO_KAFKA.to_owned()])),
            group: "tally".to_owned(),
            limits: BatchLimits::default(),
            in_flight: 64 << 20,
        };
        let own = Router::new().route("/own", post(async || "own"));
        app(tally.clone(), delivery, own).unwrap().into_router()
    }

    async fn send(router: &Router, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request: Request = request.body(body.to_owned().into()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let is_to_be_empty = status == StatusCode::NO_CONTENT;
        assert!(
            !is_to_be_empty || body.is_empty(),
            "Knative takes it for an event"
        );
        status.as_u16()
    }

    async fn push(router: &Router, id: &str, event_type: &str) -> u16 {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "s"),
            ("ce-type", event_type),
        ];
        send(router, "/", &headers, "").await
    }

    /// Pushes what can never be taken, and returns the answers.
    async fn push_dead(router: &Router) -> [u16; 3] {
        let long = "x".repeat(EVENT_LIMIT + 1);
        [
            send(router, "/", &[("ce-id", "1")], "junk").await,
            send(router, "/", &[("content-type", "text/plain")], &long).await,
            push(router, "refused", "refused").await,
        ]
    }

    #[tokio::test]
    async fn what_can_never_be_taken_is_400_or_passed_over() {
        let tally = Tally::<true>::new();
        assert_eq!(push_dead(&router(&tally)).await, [400; 3]);
        let tally = Tally::<false>::new();
        let router = router(&tally);
        assert_eq!(push_dead(&router).await, [204; 3]);
        assert_eq!(push(&router, "a", "call").await, 204);
        assert_eq!(tally.taken(), ["a"]);
        assert_eq!(send(&router, "/own", &[], "").await, 200);
    }

    #[tokio::test]
    async fn a_panic_fails_its_block_and_none_after_it() {
        let tally = Tally::<true>::new();
        let router = router(&tally);
        let (bad, with_it) = join(push(&router, "bad", "panic"), push(&router, "a", "call")).await;
        assert_eq!((bad, with_it), (503, 503));
        assert_eq!(push(&router, "a", "call").await, 204);
        assert_eq!(tally.taken(), ["a"]);
    }

    fn record(offset: i64, event_type: &str) -> Value {
        let header = |name: &str, value: &str| json!({ name: value.as_bytes() });
        let id = offset.to_string();
        json!({
            "offset": offset, "value": BASE64_STANDARD.encode("{}"),
            "headers": [
                header("ce_specversion", "1.0"), header("ce_id", &id), header("ce_source", "s"),
                header("ce_type", event_type), header("content-type", "application/json"),
            ],
        })
    }

    #[tokio::test]
    async fn a_batch_of_lambda_is_taken_without_its_dead_where_they_are_passed_over() {
        let tally = Tally::<false>::new();
        let router = router(&tally);
        let batch = |records: Vec<Value>| {
            json!({"eventSource": "aws:kafka", "records": {"t-0": records}}).to_string()
        };
        let no_event = json!({"offset": 2, "value": BASE64_STANDARD.encode("junk")});
        let records = vec![
            record(0, "call"),
            record(1, "refused"),
            no_event,
            json!("no record"),
            record(4, "call"),
        ];
        assert_eq!(send(&router, "/events", &[], &batch(records)).await, 204);
        assert_eq!(tally.taken(), ["0", "4"]);
        // Lambda has changed how it shows records.
        let strange = batch(vec![json!("no record")]);
        assert_eq!(send(&router, "/events", &[], &strange).await, 503);
    }
}
