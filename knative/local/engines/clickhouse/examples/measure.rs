//! Measures a running server: bulk inserts, single rows, small queries.
//! `cargo run --release -p clickhouse-engine --example measure -- http://127.0.0.1:8123`

use std::time::Instant;

use anyhow::Context;
use clickhouse::{Client, Row};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

const ROWS: u64 = 1_000_000;
const BLOCKS: u64 = 20;
const REPEATS: u32 = 200;

#[derive(Row, Serialize)]
struct Usage<'a> {
    meter: &'a str,
    subject: String,
    at: i64,
    value: i128,
    id: [u8; 16],
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args()
        .nth(1)
        .context("the server's URL is missing")?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http = HyperClient::builder(TokioExecutor::new()).build(connector);
    let client = Client::with_http_client(http).with_url(url);
    client
        .query("DROP TABLE IF EXISTS measure")
        .execute()
        .await?;
    client
        .query(
            "CREATE TABLE measure (meter LowCardinality(String), subject String, at DateTime64(3, 'UTC'),
             value Decimal(38, 19), id FixedString(16)) ENGINE = ReplacingMergeTree
             PARTITION BY toYYYYMM(at) ORDER BY (meter, subject, at, id)",
        )
        .execute()
        .await?;

    let started = Instant::now();
    for block in 0..BLOCKS {
        insert(&client, block * ROWS / BLOCKS, ROWS / BLOCKS).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{ROWS} rows in {BLOCKS} inserts: {:.0} rows/s",
        ROWS as f64 / seconds
    );

    let started = Instant::now();
    insert(&client, ROWS, ROWS).await?;
    println!(
        "{ROWS} rows in one insert: {:.0} rows/s",
        ROWS as f64 / started.elapsed().as_secs_f64()
    );

    let started = Instant::now();
    for row in 0..u64::from(REPEATS) {
        insert(&client, 2 * ROWS + row, 1).await?;
    }
    println!("insert of one row: {:?}", started.elapsed() / REPEATS);

    let started = Instant::now();
    for _ in 0..REPEATS {
        client.query("SELECT 1").fetch_one::<u8>().await?;
    }
    println!("SELECT 1: {:?}", started.elapsed() / REPEATS);

    let started = Instant::now();
    let sql = "SELECT subject, sum(value) FROM measure FINAL GROUP BY subject";
    let rows = client.query(sql).fetch_all::<(String, i128)>().await?.len();
    println!(
        "sum over {} rows FINAL, {rows} subjects: {:?}",
        2 * ROWS,
        started.elapsed()
    );
    client.query("DROP TABLE measure").execute().await?;
    Ok(())
}

async fn insert(client: &Client, first: u64, count: u64) -> anyhow::Result<()> {
    let mut insert = client.insert::<Usage<'_>>("measure").await?;
    for row in first..first + count {
        let usage = Usage {
            meter: "api_calls",
            subject: format!("consumer-{}", row % 500),
            at: 1_790_000_000_000 + row as i64,
            value: i128::from(row) * 10_000_000_000_000_000_000,
            id: u128::from(row)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
                .to_le_bytes(),
        };
        insert.write(&usage).await?;
    }
    insert.end().await?;
    Ok(())
}
