//! `process`: counts events. Takes them from Kafka, finds out who was first, applies
//! the meters and writes rows to ClickHouse, then acknowledges.
//!
//! Layout:
//! - [`app`], [`Config`]: the function as it is served
//! - [`Process`]: a batch of events, counted, whoever brought it
//! - [`Prepared`]: one event with the meters applied; needs nobody
//! - `rows`: what is written of a winner, a repeat and a conflict
//! - `pull`: batches from a consumer group

mod batch;
mod config;
#[cfg(test)]
mod laws;
mod prepare;
mod pull;
mod rows;

use anyhow::Context as _;
use axum::Router;
use ledger::{Ledger, Registry};
use runtime::{App, Env, Health, Meters};
use store::Store;

pub use batch::{Process, ProcessError};
pub use config::Config;
pub use prepare::Prepared;

/// Returns the function as `env` configures it.
pub fn app(env: &Env) -> anyhow::Result<App> {
    let config = Config::from_env(env)?;
    let meters = Meters::open(&config.meters)?;
    let ledger = Ledger::new(&config.ledger).context("connect to valkey")?;
    let store = Store::connect(config.store.clone());
    let health = health(&ledger, &store);
    let process = Process::new(meters, Registry::new(ledger, config.registry), store);
    Ok(App::new("process", Router::new())
        .health(health)
        .pull(move |stop| pull::pull(process, config, stop)))
}

fn health(ledger: &Ledger, store: &Store) -> Health {
    let (ledger, store) = (ledger.clone(), store.clone());
    Health::new()
        .ready("valkey", move || {
            let ledger = ledger.clone();
            async move { ledger.check().await }
        })
        .ready("clickhouse", move || {
            let store = store.clone();
            async move { store.ping().await }
        })
}
