//! The doors of brokers and of KafkaSinks: one event in, one record in their topic.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    response::IntoResponse,
    routing::any,
};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HOST},
};
use stream::{
    CloudEvent, MAX_DEAD_BYTES, ProduceError, Producer, Record,
    http::{Refused, STRUCTURED, decode_one, decode_passed_on, encode_structured},
};

use super::{address::SINK_INGRESS, plan::Name, spec::ContentMode};

/// The largest body for a broker. Knative's own limit is that of its producer, of the same size, but it
/// answers 503 then, which senders try again.
const BROKER_LIMIT: usize = 1 << 20;

/// A topic that events are written to.
#[derive(Clone)]
pub(super) struct Outlet {
    pub(super) producer: Producer,
    pub(super) topic: Arc<str>,
    pub(super) content_mode: ContentMode,
}

impl Outlet {
    /// Writes an event and returns when it is durable. Those with the same `partitionkey` stay
    /// in order.
    pub(super) async fn write(&self, event: &CloudEvent) -> Result<(), ProduceError> {
        let key = event.attribute("partitionkey");
        if self.content_mode == ContentMode::Binary {
            let key = key.as_deref().map(str::as_bytes);
            return self.producer.send_to(&self.topic, key, event).await;
        }
        let record = Record {
            key: key.map(String::into_bytes),
            headers: vec![("content-type".to_owned(), Some(STRUCTURED.into()))],
            value: Some(encode_structured(event)),
        };
        self.producer.send_record(&self.topic, &record).await
    }
}

/// Where an event goes in. One for a broker is a stranger's; one for a sink is dead and was let in
/// before, be it as large as any record.
struct Door<'a> {
    outlet: &'a Outlet,
    decode: fn(&HeaderMap, &[u8]) -> Result<CloudEvent, Refused>,
    limit: usize,
}

/// Everything that events can be posted to.
#[derive(Default)]
pub(super) struct Ingress {
    pub(super) brokers: BTreeMap<Name, Outlet>,
    pub(super) sinks: BTreeMap<Name, Outlet>,
}

impl Ingress {
    /// Returns what is behind `/{namespace}/{name}` at `host`.
    fn door(&self, host: Option<&str>, name: &Name) -> Option<Door<'_>> {
        Some(if host == Some(SINK_INGRESS) {
            Door {
                outlet: self.sinks.get(name)?,
                decode: decode_passed_on,
                limit: MAX_DEAD_BYTES,
            }
        } else {
            Door {
                outlet: self.brokers.get(name)?,
                decode: decode_one,
                limit: BROKER_LIMIT,
            }
        })
    }

    /// Takes one request of our own. A name comes before the event, and neither is told apart
    /// from what comes from outside.
    pub(super) async fn take(&self, request: Request<Bytes>) -> Response<Bytes> {
        let mut path = request.uri().path().splitn(3, '/').skip(1);
        let name = path.next().zip(path.next());
        let name = name.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let door = name.and_then(|name| self.door(request.uri().host(), &name));
        match door {
            Some(door) => accept(door, request.headers(), request.body()).await,
            None => answer(StatusCode::NOT_FOUND, Bytes::new()),
        }
    }

    /// Returns the doors as they are served.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/{namespace}/{name}", any(enter))
            .with_state(Arc::clone(self))
    }
}

async fn enter(
    State(ingress): State<Arc<Ingress>>,
    Path(name): Path<Name>,
    request: Request<Body>,
) -> axum::response::Response {
    const ALLOWED: (http::HeaderName, &str) = (ALLOW, "POST, OPTIONS");
    match *request.method() {
        Method::POST => {}
        Method::OPTIONS => {
            let any = |name| (http::HeaderName::from_static(name), "*");
            let webhook = [any("webhook-allowed-origin"), any("webhook-allowed-rate")];
            return ([ALLOWED], webhook).into_response();
        }
        _ => return (StatusCode::METHOD_NOT_ALLOWED, [ALLOWED]).into_response(),
    }
    let (head, body) = request.into_parts();
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or(head.uri.host());
    let host = host.map(|host| host.split_once(':').map_or(host, |(host, _)| host));
    let Some(door) = ingress.door(host, &name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match to_bytes(body, door.limit).await {
        Ok(body) => accept(door, &head.headers, &body).await.map(Body::from),
        Err(error) if is_too_long(&error) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

async fn accept(door: Door<'_>, headers: &HeaderMap, body: &Bytes) -> Response<Bytes> {
    if body.len() > door.limit {
        return answer(StatusCode::PAYLOAD_TOO_LARGE, Bytes::new());
    }
    let event = match (door.decode)(headers, body) {
        Ok(event) => event,
        Err(error) => return answer(StatusCode::BAD_REQUEST, error.to_string().into()),
    };
    match door.outlet.write(&event).await {
        Ok(()) => answer(StatusCode::ACCEPTED, Bytes::new()),
        Err(ProduceError::TooLarge) => answer(StatusCode::PAYLOAD_TOO_LARGE, Bytes::new()),
        Err(error) => answer(StatusCode::SERVICE_UNAVAILABLE, error.to_string().into()),
    }
}

fn answer(status: StatusCode, text: Bytes) -> Response<Bytes> {
    let is_empty = text.is_empty();
    let mut answer = Response::new(text);
    *answer.status_mut() = status;
    if !is_empty {
        let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, plain);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stream::KafkaConfig;

    use super::*;
    use crate::eventing::BROKER_INGRESS;

    /// ing-060: it is not acknowledged.
    #[tokio::test]
    async fn what_kafka_does_not_confirm_is_not_taken() {
        let mut config = KafkaConfig::new(vec!["127.0.0.1:1".to_owned()]);
        config.delivery_timeout = Duration::from_millis(300);
        let outlet = Outlet {
            producer: Producer::connect(&config, 1 << 20).unwrap(),
            topic: "nowhere".into(),
            content_mode: ContentMode::Binary,
        };
        let name = ("n".to_owned(), "b".to_owned());
        let ingress = Ingress {
            brokers: BTreeMap::from([(name, outlet)]),
            sinks: BTreeMap::new(),
        };
        let post = |path: &str| {
            let request = Request::post(format!("http://{BROKER_INGRESS}{path}"))
                .header("ce-specversion", "1.0")
                .header("ce-id", "1")
                .header("ce-source", "/gw")
                .header("ce-type", "t");
            ingress.take(request.body(Bytes::new()).unwrap())
        };
        assert_eq!(post("/n/b").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        for path in ["/n/other", "/n", "/"] {
            assert_eq!(post(path).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
