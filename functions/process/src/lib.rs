//! `process`: counts events. Takes them from Kafka, finds out who was first, applies
//! the meters and writes rows to ClickHouse, then acknowledges.
//!
//! Layout:
//! - [`app`], [`Config`]: the function as it is served
//! - [`Process`]: a batch of events, counted, whoever brought it
//! - [`Prepared`]: one event with the meters applied; needs nobody
//! - `rows`: what is written of a winner, a repeat and a conflict
//! - `apart`: a block that the store refuses for one of its events
//! - `push`, `routes`: events one by one, from a KafkaSource
//! - `pull`: batches from a consumer group
//! - `lambda`: batches from Lambda's event source mapping
//! - `dead`: where records end that pull and Lambda cannot count

mod apart;
mod batch;
mod config;
mod dead;
mod lambda;
#[cfg(test)]
mod laws;
mod prepare;
mod pull;
mod push;
mod routes;
mod rows;

use anyhow::Context as _;
use axum::Router;
use ledger::{Ledger, Registry};
use runtime::{App, Env, Health, Meters, Trigger};
use store::Store;

use crate::{dead::Dead, lambda::Lambda, pull::Pull, push::Push};

pub use apart::Unstorable;
pub use batch::{Asked, Process, ProcessError};
pub use config::Config;
pub use prepare::Prepared;

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
    let dead = config.kafka.as_ref().map(Dead::connect).transpose()?;
    let read_by_us = config.kafka.zip(dead);
    let app = |routes| App::new("process", routes).health(health);
    if config.trigger == Trigger::Kafka {
        let (kafka, dead) = read_by_us.context("pull mode needs kafka")?;
        return Ok(app(Router::new()).pull(move |stop| {
            pull::pull(Pull {
                process,
                kafka,
                group: config.group,
                limits: config.limits,
                dead,
                stop,
            })
        }));
    }
    let push = Push::start(process.clone(), config.limits, config.in_flight);
    let mut routes = routes::knative(push);
    if let Some((kafka, dead)) = read_by_us {
        routes = routes.merge(routes::lambda(Lambda {
            process,
            kafka,
            dead,
        }));
    }
    Ok(app(routes))
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
