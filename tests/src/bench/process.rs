//! process in pull mode against inserts of the very same rows, serialised beforehand.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;

use super::{
    Figure, ROUNDS,
    ingest::{broker, delete},
    started::{Started, counter, start},
};

/// Events in the topic, and how many of them one insert of the baseline holds.
const EVENTS: usize = 400_000;
const BLOCK: usize = 50_000;

const TABLES: [&str; 2] = ["events", "usage"];

pub(super) struct Bench {
    topic: String,
    http: reqwest::Client,
    pub(super) clickhouse: String,
}

/// From a full topic to rows in ClickHouse, against ClickHouse taking those rows.
pub(super) async fn pull() -> anyhow::Result<Figure> {
    let bench = Bench::new();
    bench.fill_topic().await?;
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let database = format!("bench_{}_{round}", uuid::Uuid::new_v4().simple());
        ours.push(bench.process(&database).await?);
        let blocks = bench.serialised(&database).await?;
        baseline.push(bench.insert(&database, blocks).await?);
        bench.sql(&format!("DROP DATABASE {database} SYNC")).await?;
        ledger::testing::forget(&valkey(), &database).await?;
    }
    delete(&bench.topic).await?;
    Ok(Figure {
        name: "process_pull",
        ours,
        baseline,
        unit: "events/s",
        against: "inserts of the same rows, serialised beforehand",
    })
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            topic: format!("bench.{}", uuid::Uuid::new_v4()),
            http: reqwest::Client::new(),
            clickhouse: std::env::var("OPENMETER_CLICKHOUSE_ADDRESS")
                .unwrap_or_else(|_| "http://127.0.0.1:8123".to_owned()),
        }
    }

    /// Sends the events through ingest, so that the topic holds what it would hold.
    async fn fill_topic(&self) -> anyhow::Result<()> {
        let environment = [
            ("OPENMETER_KAFKA_BROKER", &broker()[..]),
            ("OPENMETER_KAFKA_TOPIC", &self.topic),
            ("OPENMETER_KAFKA_DEAD_TOPIC", "bench.dead"),
        ];
        let ingest = start("ingest", &[], &environment, "/readyz").await?;
        for first in (0..EVENTS).step_by(500) {
            let events: Vec<_> = (first..first + 500).map(event).collect();
            let answer = self
                .http
                .post(format!("{}/", ingest.url))
                .header("content-type", "application/cloudevents-batch+json")
                .body(serde_json::to_vec(&events)?)
                .send()
                .await?;
            answer.error_for_status()?;
        }
        Ok(())
    }

    /// Returns events processed a second, from the first look at the topic to the last row.
    async fn process(&self, database: &str) -> anyhow::Result<f64> {
        let valkey = valkey();
        let environment = [
            ("OPENMETER_TRIGGER", "kafka"),
            ("OPENMETER_KAFKA_BROKER", &broker()[..]),
            ("OPENMETER_KAFKA_TOPIC", &self.topic),
            ("OPENMETER_KAFKA_DEAD_TOPIC", "bench.dead"),
            ("OPENMETER_KAFKA_GROUP", database),
            ("OPENMETER_CLICKHOUSE_ADDRESS", &self.clickhouse),
            ("OPENMETER_CLICKHOUSE_DATABASE", database),
            ("OPENMETER_VALKEY_URL", &valkey),
            ("OPENMETER_VALKEY_PREFIX", database),
            ("OPENMETER_METERS", "knative/base/meters.yaml"),
        ];
        let process = start("process", &[], &environment, "/readyz").await?;
        let began = Instant::now();
        self.await_all(&process).await?;
        Ok(EVENTS as f64 / began.elapsed().as_secs_f64())
    }

    async fn await_all(&self, process: &Started) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(180);
        while counter(&process.url, "openmeter_events_processed_total").await? < EVENTS as f64 {
            if Instant::now() > deadline {
                bail!("process did not count {EVENTS} events in time");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Returns what process stored, as insert bodies of the size of its batches.
    async fn serialised(&self, database: &str) -> anyhow::Result<Vec<(&'static str, Bytes)>> {
        let mut blocks = Vec::new();
        for part in 0..EVENTS / BLOCK {
            for table in TABLES {
                let of_part = format!("cityHash64(identity) % {} = {part}", EVENTS / BLOCK);
                let sql = format!(
                    "SELECT * FROM {database}.{table} WHERE {of_part} FORMAT RowBinaryWithNamesAndTypes"
                );
                blocks.push((table, self.sql(&sql).await?));
            }
        }
        Ok(blocks)
    }

    /// Returns events inserted a second, with the two tables' inserts side by side as
    /// process has them.
    async fn insert(
        &self,
        database: &str,
        blocks: Vec<(&'static str, Bytes)>,
    ) -> anyhow::Result<f64> {
        for table in TABLES {
            self.sql(&format!(
                "CREATE TABLE {database}.{table}_baseline AS {database}.{table}"
            ))
            .await?;
        }
        let began = Instant::now();
        for pair in blocks.chunks(TABLES.len()) {
            let inserts = pair
                .iter()
                .map(|(table, body)| self.insert_one(database, table, body.clone()));
            futures::future::try_join_all(inserts).await?;
        }
        Ok(EVENTS as f64 / began.elapsed().as_secs_f64())
    }

    async fn insert_one(&self, database: &str, table: &str, body: Bytes) -> anyhow::Result<()> {
        let sql =
            format!("INSERT INTO {database}.{table}_baseline FORMAT RowBinaryWithNamesAndTypes");
        let settings = [
            ("query", sql.as_str()),
            ("async_insert", "0"),
            ("max_partitions_per_insert_block", "0"),
            ("max_insert_block_size", "10000000"),
            ("min_insert_block_size_rows", "10000000"),
            ("min_insert_block_size_bytes", "10000000000"),
        ];
        let url = reqwest::Url::parse_with_params(&self.clickhouse, settings)?;
        let answer = self.http.post(url).body(body).send().await?;
        answer
            .error_for_status()
            .context("insert a block of the baseline")?;
        Ok(())
    }

    pub(super) async fn sql(&self, sql: &str) -> anyhow::Result<Bytes> {
        let answer = self
            .http
            .post(&self.clickhouse)
            .body(sql.to_owned())
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!("clickhouse: {}", answer.text().await?);
        }
        Ok(answer.bytes().await?)
    }
}

pub(super) fn valkey() -> String {
    std::env::var("OPENMETER_VALKEY_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

/// An event as a gateway sends it: its time is now, which is what the registry is for.
fn event(number: usize) -> serde_json::Value {
    serde_json::json!({
        "specversion": "1.0",
        "id": format!("bench-{number}"),
        "source": "open-banking-api",
        "type": "api.call",
        "subject": format!("tpp-{:05}", number % 50),
        "time": jiff::Timestamp::now().to_string(),
        "data": {
            "endpoint": format!("/v1/endpoint-{}", number % 14),
            "method": "GET",
            "status_code": 200,
            "response_time_ms": number % 997,
        },
    })
}
