//! What every function of OpenMeter has in common, so that each one is only its own story.
//!
//! # Layout
//!
//! - [`App`], [`serve`], [`run`]: a router and what belongs to it, on Knative or on AWS Lambda,
//!   with a Kafka loop beside it if the trigger says so, and an orderly end.
//! - [`main`]: what a function's `main` returns: telemetry first, exit codes last.
//! - [`Env`]: settings from the environment, with all mistakes in one report.
//! - [`telemetry`]: JSON log lines and Prometheus metrics.
//! - [`Health`]: `/healthz` and `/readyz`.
//! - [`Meters`], [`Rules`]: definitions, read anew when their file changes.
//! - [`Problem`]: error answers (RFC 9457).
//!
//! A function's `main.rs` is:
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use runtime::{App, Env};
//!
//! #[tokio::main]
//! async fn main() -> std::process::ExitCode {
//!     runtime::main("hello", start()).await
//! }
//!
//! async fn start() -> anyhow::Result<()> {
//!     let env = Env::process();
//!     let name = env.or("HELLO_NAME", "world".to_string(), "whom to greet");
//!     let name = env.finish(|| Some(name))?;
//!     let routes = Router::new().route("/", get(async move || format!("hello {name}")));
//!     runtime::serve(App::new("hello", routes)).await
//! }
//! ```
//!
//! It knows nothing of Kafka or any store.

mod app;
mod definitions;
mod entry;
mod env;
mod health;
mod lambda;
mod measure;
mod problem;
mod process;
mod serve;
mod setting;
pub mod telemetry;

pub use app::App;
pub use definitions::{DefinitionsError, Meters, Rules, Watched};
pub use entry::main;
pub use env::{ConfigError, Env, Mistake, Unset, Variable};
pub use health::Health;
pub use problem::Problem;
pub use serve::{Trigger, on_lambda, run, serve};
pub use setting::{ByteSize, Secret, Setting};
pub use tokio_util::sync::CancellationToken;
