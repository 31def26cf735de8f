//! `query`: answers what was used, by whom and when.

use std::process::ExitCode;

use anyhow::Context as _;
use query::{Config, Query};
use runtime::{Env, Meters};
use store::Store;

#[tokio::main]
async fn main() -> ExitCode {
    runtime::main("query", start()).await
}

async fn start() -> anyhow::Result<()> {
    let config = Config::from_env(&Env::process())?;
    let meters = Meters::open(&config.meters).context("read the meter definitions")?;
    let store = Store::connect(config.store);
    runtime::serve(query::app(Query::new(meters, store))).await
}
