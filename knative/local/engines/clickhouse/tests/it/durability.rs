//! What survives a kill, and how the process starts and ends.

use std::process::Output;

use tempfile::TempDir;

use crate::server::{Server, command};

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS metering.t (a UInt32) ENGINE = MergeTree ORDER BY a";

#[tokio::test]
async fn a_kill_loses_no_acknowledged_row() {
    let mut folder = TempDir::new().unwrap();
    for round in 0..10u32 {
        let server = Server::start_on(folder);
        server.run("CREATE DATABASE IF NOT EXISTS metering").await;
        server.run(TABLE).await;
        assert_eq!(
            server.run("SELECT count() FROM metering.t").await,
            format!("{}\n", round * 1000)
        );
        let rows: String = (0..1000)
            .map(|row| format!("{}\n", round * 1000 + row))
            .collect();
        let (status, text) = server
            .post("?query=INSERT+INTO+metering.t+FORMAT+TSV", rows)
            .await;
        assert_eq!(status, 200, "{text}");
        folder = server.kill();
    }
}

#[tokio::test]
async fn a_token_makes_a_repeated_insert_one_across_a_kill() {
    let insert = "?insert_deduplication_token=batch-1&query=INSERT+INTO+t+FORMAT+TSV";
    let server = Server::start();
    server
        .run("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100")
        .await;
    assert_eq!(server.post(insert, "1\n2\n").await.0, 200);
    let server = Server::start_on(server.kill());
    assert_eq!(server.post(insert, "1\n2\n").await.0, 200);
    assert_eq!(server.run("SELECT count() FROM t").await, "2\n");
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way() {
    let mut server = Server::start();
    let answer = reqwest::Client::new()
        .post(&server.url)
        .body("SELECT count(), sum(sleepEachRow(0.5)) FROM numbers(3) SETTINGS max_block_size = 1");
    let under_way = tokio::spawn(answer.send());
    // Known to the engine means past the point where a stop refuses it.
    while !server
        .run("SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow%'")
        .await
        .starts_with('2')
    {}
    server.terminate();
    let text = under_way.await.unwrap().unwrap().text().await.unwrap();
    assert_eq!(text, "3\t0\n");
    assert_eq!(server.wait().code(), Some(0));
}

fn run(folder: &TempDir, change: impl FnOnce(&mut std::process::Command)) -> Output {
    let mut command = command(folder.path());
    change(&mut command);
    command.output().unwrap()
}

#[tokio::test]
async fn a_folder_in_use_is_refused_in_one_sentence() {
    let server = Server::start();
    let output = run(&server.folder, |_| {});
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("another clickhouse-engine is running on the data folder"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(server.run("SELECT 1").await, "1\n");
}

#[test]
fn bad_configuration_ends_with_64_and_every_mistake() {
    let folder = TempDir::new().unwrap();
    let output = run(&folder, |command| {
        command
            .env_remove("OPENMETER_CLICKHOUSE_DATA")
            .env("OPENMETER_CLICKHOUSE_LISTEN", "here")
            .env("OPENMETER_CLICKHOUSE_READONLY_USER", "nobody");
    });
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    for name in ["_DATA", "_LISTEN", "_READONLY_USER"] {
        assert!(error.contains(name), "{name} is missing in {error}");
    }
}

#[test]
fn a_missing_library_is_named() {
    let folder = TempDir::new().unwrap();
    let output = run(&folder, |command| {
        command.env("OPENMETER_CLICKHOUSE_LIB", "/nowhere/libchdb.so");
    });
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("/nowhere/libchdb.so"), "{error}");
}
