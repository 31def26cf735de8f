//! process as a KafkaSource triggers it, against a handler that only answers.

use super::{
    Figure, ROUNDS,
    process::{Bench, valkey},
    started::start,
    wrk,
};

const SCRIPT: &str = "tests/bench/push.lua";

/// What one dispatcher of Knative has in flight at most.
const IN_FLIGHT: u32 = 100;

/// One event a request and a hundred requests in flight, each answered when ClickHouse has it.
pub(super) async fn push() -> anyhow::Result<Figure> {
    let bench = Bench::new();
    let database = format!("bench_{}", uuid::Uuid::new_v4().simple());
    let environment = [
        ("OPENMETER_CLICKHOUSE_ADDRESS", &bench.clickhouse[..]),
        ("OPENMETER_CLICKHOUSE_DATABASE", &database),
        ("OPENMETER_VALKEY_URL", &valkey()),
        ("OPENMETER_VALKEY_PREFIX", &database),
        ("OPENMETER_METERS", "knative/base/meters.yaml"),
    ];
    let process = start("process", &[], &environment, "/readyz").await?;
    let bare = start("bench", &["bare"], &[], "/").await?;
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(wrk::requests_per_second(&process.url, SCRIPT, IN_FLIGHT)?);
        baseline.push(wrk::requests_per_second(&bare.url, SCRIPT, IN_FLIGHT)?);
    }
    drop(process);
    bench.sql(&format!("DROP DATABASE {database} SYNC")).await?;
    ledger::testing::forget(&valkey(), &database).await?;
    Ok(Figure {
        name: "process_push",
        ours,
        baseline,
        unit: "events/s",
        against: "bare axum handler",
    })
}
