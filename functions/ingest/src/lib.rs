//! `ingest`: takes CloudEvents over HTTP and answers once Kafka holds them.
//!
//! Layout:
//! - [`app`], [`Config`]: the function as it is served
//! - [`Ingest`]: what is accepted, and when
//! - `routes`, `body`: where events come in, and how much of them at a time
//! - `topics`: where they go, created if need be
//! - [`replay`]: dead letters, sent once more
//!
//! It knows no meters: whether an event can be counted is `process`'s to find out.

mod body;
mod config;
mod ingest;
mod replay;
mod routes;
mod topics;

use anyhow::Context as _;
use runtime::{App, Env};

pub use config::{Config, Limits};
pub use ingest::{Door, Ingest, IngestError};
pub use replay::{Replayed, Wanted, replay};
pub use topics::NoTopics;

/// Returns the function as `env` configures it.
pub fn app(env: &Env) -> anyhow::Result<App> {
    build(&Config::from_env(env)?)
}

/// Returns the function as it is configured. Needs a Tokio runtime around it.
pub fn build(config: &Config) -> anyhow::Result<App> {
    let ingest = Ingest::connect(config).context("connect to kafka")?;
    Ok(routes::app(ingest))
}
