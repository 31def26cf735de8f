//! `process`: counts events. Takes them from Kafka, finds out who was first, applies
//! the meters and writes rows to ClickHouse, then acknowledges. How they come is [`delivery`]'s.
//!
//! Layout:
//! - [`app`], [`Config`]: the function as it is served
//! - [`Process`]: a batch of events, counted, whoever brought it
//! - `rows`: what is written of a winner, a repeat and a conflict
//! - `apart`: a block that the store refuses for one of its events

mod apart;
mod batch;
mod config;
#[cfg(test)]
mod laws;
mod rows;

use anyhow::Context as _;
use axum::Router;
use delivery::Delivery;
use ledger::{Ledger, Registry};
use runtime::{App, Env, Health, Meters};
use store::Store;

pub use batch::{Asked, Process, ProcessError};
pub use config::Config;

/// Returns the function as `env` configures it.
pub fn app(env: &Env) -> anyhow::Result<App> {
    build(Config::from_env(env)?)
}

/// Returns the function with the parts that `config` asks for: the consumer group, the route of
/// a KafkaSource and, on Lambda, that of an event source mapping.
pub fn build(config: Config) -> anyhow::Result<App> {
    let meters = Meters::open(&config.meters)?;
    let ledger = Ledger::new(&config.ledger).context("connect to valkey")?;
    let store = Store::connect(config.store);
    let health = health(&ledger, &store);
    let process = Process::new(meters, Registry::new(ledger, config.registry), store);
    let delivery = Delivery {
        trigger: config.trigger,
        kafka: config.kafka,
        group: config.group,
        limits: config.limits,
        in_flight: config.in_flight,
    };
    Ok(delivery::app(process, delivery, Router::new())?.health(health))
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
