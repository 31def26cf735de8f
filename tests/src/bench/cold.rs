//! Cold starts: from a request that finds no instance to its answer, by the local runner.
//!
//! The function is started as its manifest says, does the whole work of the request, and is
//! stopped as for want of requests. The baseline is a server that only answers, started the
//! same way: what a process and its first probe cost anyone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use http::Request;
use runner::{
    cluster::Cluster,
    manifests::{self, Object},
    serving::{Folders, Plan, Service},
};
use serde_json::{Value, json};

use super::{
    Figure, at,
    ingest::{broker, delete},
    process::{Bench, valkey},
};

/// How often each is started.
const STARTS: usize = 50;

const NAMESPACE: &str = "open-banking";

/// Measures the functions and the baseline in turn.
pub(super) async fn starts() -> anyhow::Result<Vec<Figure>> {
    let bench = Bench::new();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let database = format!("bench_{id}");
    let topics = [format!("bench.{id}"), format!("bench.{id}.dead")];
    let settings = json!({
        "OPENMETER_KAFKA_BROKER": broker(),
        "OPENMETER_KAFKA_TOPIC": topics[0],
        "OPENMETER_KAFKA_DEAD_TOPIC": topics[1],
        "OPENMETER_CLICKHOUSE_ADDRESS": bench.clickhouse,
        "OPENMETER_CLICKHOUSE_DATABASE": database,
        "OPENMETER_VALKEY_URL": valkey(),
        "OPENMETER_VALKEY_PREFIX": database,
        "OPENMETER_LOG": "warn",
    });
    let state = std::env::temp_dir().join(&database);
    let cluster = cluster(&settings, state.clone())?;
    let measured = measure(&cluster).await;
    cluster.stop(std::time::Duration::from_secs(10)).await;
    std::fs::remove_dir_all(state).ok();
    bench
        .sql(&format!("DROP DATABASE IF EXISTS {database} SYNC"))
        .await?;
    ledger::testing::forget(&valkey(), &database).await?;
    delete(&topics[0]).await?;
    measured
}

async fn measure(cluster: &Arc<Cluster>) -> anyhow::Result<Vec<Figure>> {
    let functions = [
        ("cold_start_ingest", "ingest"),
        ("cold_start_process", "process"),
        ("cold_start_query", "query"),
    ];
    let bare = service(cluster, "bare")?;
    let mut figures = Vec::new();
    for (name, function) in functions {
        let service = service(cluster, function)?;
        // The first one makes tables and topics, as a deployment does once.
        start(service, function, 0).await?;
        let (mut ours, mut baseline) = (Vec::new(), Vec::new());
        for n in 1..=STARTS {
            ours.push(start(service, function, n).await?);
            baseline.push(start(bare, "bare", n).await?);
        }
        println!(
            "{name:<18} p50 {:.0} ms, p99 {:.0} ms",
            at(&ours, 50),
            at(&ours, 99)
        );
        figures.push(Figure {
            name,
            ours,
            baseline,
            unit: "ms to the answer",
            against: "a server that only answers, started alike",
        });
    }
    Ok(figures)
}

/// Returns how many milliseconds a request takes that finds no instance.
async fn start(service: &Service, function: &str, n: usize) -> anyhow::Result<f64> {
    service.scale_to_zero().await;
    let request = request(function, n)?;
    let began = Instant::now();
    let answer = service.ask(request).await?;
    let took = began.elapsed();
    ensure!(
        answer.status().is_success(),
        "{function} answered {}: {}",
        answer.status(),
        String::from_utf8_lossy(answer.body())
    );
    Ok(took.as_secs_f64() * 1000.0)
}

fn request(function: &str, n: usize) -> anyhow::Result<Request<Bytes>> {
    let host = format!("http://{function}.{NAMESPACE}.svc.cluster.local");
    if function == "query" {
        let url = format!("{host}/api/v1/meters/api_calls/query?windowSize=DAY");
        return Ok(Request::get(url).body(Bytes::new())?);
    }
    let event = json!({
        "specversion": "1.0", "id": format!("cold-{n}"), "source": "bench", "type": "api.call",
        "subject": "tpp-1", "time": "2026-01-01T00:00:00Z", "ingestedat": jiff::Timestamp::now().to_string(),
        "data": {"endpoint": "/accounts", "method": "GET", "response_time_ms": 45},
    });
    Ok(Request::post(format!("{host}/"))
        .header("content-type", "application/cloudevents+json")
        .body(Bytes::from(event.to_string()))?)
}

/// Returns the functions of the local overlay with these settings, and the baseline.
fn cluster(settings: &Value, state: PathBuf) -> anyhow::Result<Arc<Cluster>> {
    let overlay = Path::new("knative/overlays/local");
    let mut objects = manifests::render(overlay).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    objects.retain(|object| ["Service", "ConfigMap"].contains(&object.kind.as_str()));
    for object in &mut objects {
        if object.kind == "ConfigMap" && object.name == "openmeter" {
            object.value["data"] = settings.clone();
        }
    }
    let spec = json!({"template": {"spec": {"containers": [
        {"name": "bare", "image": "bench", "args": ["bare"]}
    ]}}});
    objects.push(Object {
        api_version: "serving.knative.dev/v1".to_owned(),
        kind: "Service".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: "bare".to_owned(),
        value: json!({"metadata": {"name": "bare"}, "spec": spec}),
        file: PathBuf::from(file!()),
    });
    let plan = Plan::read(&objects).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    let programs = std::env::current_exe()?;
    let programs = programs.parent().context("the folder of the programs")?;
    let folders = Folders {
        programs: programs.to_owned(),
        state,
    };
    Ok(Cluster::start(plan, folders)?)
}

fn service<'a>(cluster: &'a Cluster, name: &str) -> anyhow::Result<&'a Service> {
    let service = cluster.service(NAMESPACE, name);
    Ok(service.with_context(|| format!("there is no service {name}"))?)
}
