//! `query`: what was used, by whom and when, over OpenMeter's HTTP API.
//!
//! Layout:
//! - [`app`], [`Config`]: the function as it is served
//! - `routes`: HTTP in and out
//! - `params`: a meter query's parameters, with all their mistakes at once
//! - `answer`, `csv`: rows as JSON and as CSV
//! - `events`, `meters`, `dead_letters`: the lists
//!
//! It only reads. A value goes from the store to the reader as decimal text, never as a float.

mod answer;
mod config;
mod csv;
mod dead_letters;
mod events;
mod meters;
mod mistakes;
mod params;
mod routes;

use anyhow::Context as _;
use runtime::{App, Env};

pub use config::Config;

/// Returns the function as `env` configures it.
pub fn app(env: &Env) -> anyhow::Result<App> {
    build(Config::from_env(env)?)
}

/// Returns the function as it is configured.
pub fn build(config: Config) -> anyhow::Result<App> {
    let query = routes::Query::new(config).context("read the meter definitions")?;
    Ok(routes::app(query))
}
