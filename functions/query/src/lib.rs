//! `query`: what was used, by whom and when, over OpenMeter's HTTP API.
//!
//! Layout:
//! - [`Config`]: the settings
//! - [`app`], [`router`], [`Query`]: the routes and what they need
//! - `params`: a meter query's parameters, with all their mistakes at once
//! - `answer`, `csv`: rows as JSON and as CSV
//! - `events`, `meters`: the two lists
//!
//! It only reads. A value goes from the store to the reader as decimal text, never as a float.

mod answer;
mod config;
mod csv;
mod events;
mod meters;
mod mistakes;
mod params;
mod routes;

pub use config::Config;
pub use routes::{Query, app, router};
