//! `ingest`: takes CloudEvents over HTTP and answers once Kafka holds them.

use std::process::ExitCode;

use anyhow::Context as _;
use ingest::{Config, Ingest, app};
use runtime::Env;

#[tokio::main]
async fn main() -> ExitCode {
    runtime::main("ingest", start()).await
}

async fn start() -> anyhow::Result<()> {
    let config = Config::from_env(&Env::process())?;
    let ingest = Ingest::connect(&config).context("connect to kafka")?;
    ingest.prepare().await;
    runtime::serve(app(ingest)).await
}
