//! `ingest`: takes CloudEvents over HTTP and answers once Kafka holds them.
//!
//! Layout:
//! - [`Config`]: brokers, topics and limits, from the environment
//! - [`app`]: the routes, with health checks and the flush at the end
//! - [`Ingest`]: what is accepted, and when
//!
//! It knows no meters: whether an event can be counted is `process`'s to find out.

mod body;
mod config;
mod ingest;
mod routes;

pub use config::{Config, Limits};
pub use ingest::{Door, Ingest, IngestError};
pub use routes::app;
