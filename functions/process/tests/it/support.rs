//! A process of one's own, and what a test asks of it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode},
};
use http_body_util::BodyExt as _;
use process::{Config, build};
use runtime::Env;
use serde_json::Value;
use store::testing::TestStore;
use stream::KafkaConfig;
use tower::ServiceExt as _;

const METERS: &str = "meters:
- {slug: calls, eventType: call, aggregation: COUNT}
- {slug: ms, eventType: call, aggregation: SUM, valueProperty: $.ms}";

const BLOCKS: &str = "SELECT toString(max(max_block_number)) FROM system.parts \
    WHERE database = currentDatabase() AND table = 'events'";

const DEADLINE: Duration = Duration::from_secs(60);

/// A process with a database, a registry and topics of its own.
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) config: Config,
    pub(crate) store: TestStore,
    name: String,
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

    pub(crate) fn detail(&self) -> String {
        self.problem()["detail"].as_str().unwrap().to_owned()
    }
}

fn valkey() -> String {
    std::env::var("OPENMETER_VALKEY_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

pub(crate) fn kafka(name: &str) -> KafkaConfig {
    let broker = std::env::var("OPENMETER_KAFKA_BROKER");
    let mut kafka = KafkaConfig::new(vec![broker.unwrap_or_else(|_| "127.0.0.1:9092".to_owned())]);
    kafka.topic = name.to_owned();
    kafka.dead_topic = format!("{name}.dead");
    kafka.partitions = 2;
    kafka.retention = Duration::from_secs(600);
    kafka
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts a process whose settings `change` has changed. Its tables are not there yet.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let store = TestStore::without_schema();
        let name = store.config.database.as_str().to_owned();
        let meters = meters(&name);
        std::fs::write(&meters, METERS).unwrap();
        let env = Env::from_pairs([
            ("OPENMETER_METERS", meters.to_str().unwrap()),
            ("OPENMETER_VALKEY_URL", &valkey()),
            ("OPENMETER_VALKEY_PREFIX", &name),
        ]);
        let mut config = Config::from_env(&env).unwrap();
        config.store = store.config.clone();
        config.group = name.clone();
        change(&mut config);
        Self {
            router: build(config.clone()).unwrap().into_router(),
            config,
            store,
            name,
        }
    }

    /// Returns another instance of this process.
    pub(crate) fn another(&self) -> Router {
        build(self.config.clone()).unwrap().into_router()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn post(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        post(&self.router, "/", headers, body).await
    }

    /// Posts a call of this id that took so many milliseconds.
    pub(crate) async fn call(&self, id: &str, ms: u32) -> Answer {
        call(&self.router, id, ms).await
    }

    /// Returns what the two meters say: calls and milliseconds.
    pub(crate) async fn totals(&self) -> Vec<String> {
        let sql = "SELECT toString(sum(value)) FROM usage_current GROUP BY meter ORDER BY meter";
        self.store.texts(sql).await
    }

    /// Returns how many blocks were written to `events`; its rows are all of one month.
    pub(crate) async fn blocks(&self) -> usize {
        self.store.texts(BLOCKS).await[0].parse().unwrap()
    }

    /// Waits until so many calls are counted.
    pub(crate) async fn await_calls(&self, calls: usize) {
        let sql = "SELECT toString(sum(value)) FROM usage_current WHERE meter = 'calls'";
        self.await_number(sql, |counted| counted == calls).await;
    }

    /// Waits until so many blocks were written to `events`.
    pub(crate) async fn await_blocks(&self, blocks: usize) {
        self.await_number(BLOCKS, |written| written >= blocks).await;
    }

    async fn await_number(&self, sql: &str, is_it: impl Fn(usize) -> bool) {
        let began = Instant::now();
        loop {
            let number = self.store.texts(sql).await.concat();
            if number.parse().is_ok_and(&is_it) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "{number}: {sql}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Removes what the test has left in the engines.
    pub(crate) async fn remove(self) {
        let beginning = format!("{}:", self.name);
        ledger::testing::forget(&valkey(), &beginning)
            .await
            .unwrap();
        std::fs::remove_file(meters(&self.name)).unwrap();
        self.store.remove().await;
    }
}

fn meters(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{name}.yaml"))
}

pub(crate) fn binary<'a>(id: &'a str, event_type: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("ce-specversion", "1.0"),
        ("ce-id", id),
        ("ce-source", "/gw"),
        ("ce-type", event_type),
        ("ce-subject", "tpp-1"),
        ("ce-time", "2026-01-31T10:20:30Z"),
        ("ce-ingestedat", "2026-01-31T10:20:31.000001Z"),
        ("content-type", "application/json"),
    ]
}

pub(crate) async fn call(router: &Router, id: &str, ms: u32) -> Answer {
    let body = format!("{{\"ms\":{ms}}}");
    post(router, "/", &binary(id, "call"), body).await
}

pub(crate) async fn post(
    router: &Router,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.into()).unwrap();
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}
