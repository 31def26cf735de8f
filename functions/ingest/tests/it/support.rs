//! An ingest of one's own, and what a test asks of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode},
};
use http_body_util::BodyExt as _;
use ingest::{Config, Limits};
use model::UsageEvent;
use serde_json::Value;
use stream::{BatchLimits, Consumer, KafkaConfig};
use tower::ServiceExt as _;

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
pub(crate) const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
pub(crate) const BINARY: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "u-1"),
    ("ce-source", "/gw"),
    ("ce-type", "api.request"),
];

/// An ingest with topics of its own.
pub(crate) struct Service {
    router: Router,
    config: Config,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) fn config(name: &str) -> Config {
    let broker = std::env::var("OPENMETER_KAFKA_BROKER");
    let mut kafka = KafkaConfig::new(vec![broker.unwrap_or_else(|_| "127.0.0.1:9092".to_owned())]);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    kafka.topic = format!("test.ingest.{name}.{now}");
    kafka.dead_topic = format!("{}.dead", kafka.topic);
    kafka.ingest_dead_topic = format!("{}.ingest.dead", kafka.topic);
    kafka.partitions = 2;
    kafka.retention = Duration::from_secs(600);
    Config {
        kafka,
        limits: Limits::default(),
    }
}

impl Service {
    /// Returns an ingest whose topics are there.
    pub(crate) async fn start(name: &str) -> Self {
        let service = Self::with(config(name));
        let ready = service.get("/readyz").await;
        assert_eq!(
            ready.status,
            StatusCode::OK,
            "this test needs Kafka at {:?}",
            service.config.kafka.brokers
        );
        service
    }

    pub(crate) fn with(config: Config) -> Self {
        Self {
            router: ingest::build(&config).unwrap().into_router(),
            config,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self
            .router
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// Returns what the topic has once it has `count` events.
    pub(crate) async fn topic(&self, count: usize) -> Vec<UsageEvent> {
        let kafka = &self.config.kafka;
        let mut consumer = Consumer::connect(kafka, &kafka.topic).unwrap();
        let mut events = Vec::new();
        while events.len() < count {
            let batch = consumer.next_batch(BatchLimits::default());
            let batch = tokio::time::timeout(DEADLINE, batch)
                .await
                .expect("events in the topic");
            let batch = batch.unwrap();
            assert!(batch.dead.is_empty(), "{:?}", batch.dead);
            events.extend(batch.events);
        }
        consumer.close().await;
        events
    }
}

pub(crate) fn object(id: &str, members: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/gw","type":"t","subject":"c"{members}}}"#
    )
}
