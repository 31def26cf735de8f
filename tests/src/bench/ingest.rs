//! ingest against a handler that only answers, and against librdkafka alone.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use super::{
    Figure, ROUNDS,
    started::{Started, start},
    wrk,
};

const SINGLE: &str = "tests/bench/single.lua";
const BATCH: &str = "tests/bench/batch.lua";

/// Events in one request of `batch.lua`.
const EVENTS: f64 = 100.0;

pub(crate) fn broker() -> String {
    std::env::var("OPENMETER_KAFKA_BROKER").unwrap_or_else(|_| "127.0.0.1:9092".to_owned())
}

async fn start_ingest(topic: &str) -> anyhow::Result<Started> {
    let environment = [
        ("OPENMETER_KAFKA_BROKER", &broker()[..]),
        ("OPENMETER_KAFKA_TOPIC", topic),
        ("OPENMETER_KAFKA_DEAD_TOPIC", "bench.dead"),
        ("OPENMETER_KAFKA_RETENTION", "1h"),
    ];
    start("ingest", &[], &environment, "/readyz").await
}

fn topic() -> String {
    format!("bench.{}", uuid::Uuid::new_v4())
}

/// Single binary events over HTTP, against a handler that only answers 202.
pub(super) async fn single() -> anyhow::Result<Figure> {
    let topic = topic();
    let ingest = start_ingest(&topic).await?;
    let bare = start("bench", &["bare"], &[], "/").await?;
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(wrk::requests_per_second(&ingest.url, SINGLE, 256)?);
        baseline.push(wrk::requests_per_second(&bare.url, SINGLE, 256)?);
    }
    delete(&topic).await?;
    Ok(Figure {
        name: "ingest_single",
        ours,
        baseline,
        unit: "requests/s",
        against: "bare axum handler",
    })
}

/// Batches of 100 events over HTTP, against librdkafka's producer with the same records.
pub(super) async fn batch() -> anyhow::Result<Figure> {
    let topic = topic();
    let ingest = start_ingest(&topic).await?;
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(wrk::requests_per_second(&ingest.url, BATCH, 32)? * EVENTS);
        let topic = topic.clone();
        baseline.push(
            tokio::task::spawn_blocking(move || produce_for(&topic, Duration::from_secs(5)))
                .await??,
        );
    }
    delete(&topic).await?;
    Ok(Figure {
        name: "ingest_batch",
        ours,
        baseline,
        unit: "events/s",
        against: "librdkafka's producer alone",
    })
}

#[derive(Default)]
struct Delivered(AtomicUsize);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Produces records like those of ingest as fast as the broker takes them; returns
/// records confirmed a second.
fn produce_for(topic: &str, span: Duration) -> anyhow::Result<f64> {
    let producer: BaseProducer<Delivered> = ClientConfig::new()
        .set("bootstrap.servers", broker())
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .create_with_context(Delivered::default())?;
    let body = r#"{"endpoint":"/accounts","method":"GET","status_code":200,"response_time_ms":45}"#;
    let began = Instant::now();
    let mut number = 0_u64;
    while began.elapsed() < span {
        let id = format!("bench-{number}");
        let key = model::Identity::of("open-banking-api", &id);
        let header = |key, value| Header {
            key,
            value: Some(value),
        };
        let headers = OwnedHeaders::new_with_capacity(8)
            .insert(header("ce_specversion", "1.0"))
            .insert(header("ce_id", &id))
            .insert(header("ce_source", "open-banking-api"))
            .insert(header("ce_type", "api.call"))
            .insert(header("ce_subject", "tpp-12345"))
            .insert(header("ce_time", "2024-01-15T10:30:00Z"))
            .insert(header("ce_ingestedat", "2024-01-15T10:30:00.123456Z"))
            .insert(header("content-type", "application/json"));
        let record = BaseRecord::to(topic)
            .key(&key.0[..])
            .payload(body)
            .headers(headers);
        match producer.send(record) {
            Ok(()) => number += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error.into()),
        }
        if number.is_multiple_of(1000) {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(30))?;
    let delivered = producer.context().0.load(Ordering::Relaxed);
    Ok(delivered as f64 / began.elapsed().as_secs_f64())
}

/// Removes a bench's topic.
pub(super) async fn delete(topic: &str) -> anyhow::Result<()> {
    let admin: rdkafka::admin::AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", broker())
        .create()?;
    admin
        .delete_topics(&[topic], &rdkafka::admin::AdminOptions::new())
        .await
        .context("delete the bench's topic")?;
    Ok(())
}
