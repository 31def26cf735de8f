//! Events as Knative, Lambda or a consumer group bring them, handed to a function in batches.
//!
//! Layout:
//! - [`Function`]: what a function does with events, whoever brings them
//! - [`app`], [`Delivery`]: the function as it is served
//! - `push`, `routes`: events one by one, from a KafkaSource
//! - `pull`: batches from a consumer group
//! - `lambda`: batches from Lambda's event source mapping
//! - `dead`: what becomes of records that no function can use
//! - [`kafka`], [`in_flight`]: settings that functions share
//!
//! A function implements [`Function`] and is served by [`app`], with whatever routes it has
//! beside those that events come by:
//!
//! ```no_run
//! # use std::convert::Infallible;
//! use delivery::{Dead, Delivery, Function, Refused};
//! use model::Prepared;
//! use runtime::Meters;
//!
//! #[derive(Clone)]
//! struct Audit {
//!     meters: Meters,
//! }
//!
//! impl Function for Audit {
//!     const NAME: &'static str = "audit";
//!     const DEAD: Dead = Dead::PassOver;
//!     type Asked = usize;
//!     type Error = Infallible;
//!
//!     fn meters(&self) -> &Meters {
//!         &self.meters
//!     }
//!
//!     async fn prepare(&self) -> Result<(), Infallible> {
//!         Ok(())
//!     }
//!
//!     async fn judge(&self, batch: &[Prepared]) -> Result<usize, Infallible> {
//!         Ok(batch.len())
//!     }
//!
//!     async fn write(&self, _: &[Prepared], asked: &usize) -> Result<Vec<Refused>, Infallible> {
//!         println!("{asked} events");
//!         Ok(Vec::new())
//!     }
//! }
//!
//! fn build(audit: Audit, delivery: Delivery) -> anyhow::Result<runtime::App> {
//!     delivery::app(audit, delivery, axum::Router::new())
//! }
//! ```

mod dead;
mod function;
mod lambda;
mod pull;
mod push;
mod routes;
mod settings;
#[cfg(test)]
mod tally;

use anyhow::Context as _;
use axum::Router;
use runtime::{App, Trigger};
use stream::{BatchLimits, KafkaConfig};

use crate::{dead::Burials, lambda::Lambda, pull::Pull, push::Push};

pub use dead::Dead;
pub use function::{Function, Refused};
pub use settings::{in_flight, kafka};

/// How events come to a function.
#[derive(Clone)]
pub struct Delivery {
    /// Whether they are pushed to us, or pulled by us.
    pub trigger: Trigger,
    /// Where we read records, or bury those that Lambda reads for us; `None` where a KafkaSource
    /// does both.
    pub kafka: Option<KafkaConfig>,
    /// Consumer group in pull mode.
    pub group: String,
    /// When a batch is full.
    pub limits: BatchLimits,
    /// Bytes of pushed events that may be in memory; beyond it senders get 429.
    pub in_flight: usize,
}

/// Returns `function` as it is served, with `routes` and what brings it events: the consumer
/// group, or else `POST /` for a KafkaSource and, where `delivery` has a Kafka, `POST /events`
/// for Lambda's event source mapping.
///
/// Must be called in a Tokio runtime, in which pushed events are worked on.
pub fn app<F: Function>(function: F, delivery: Delivery, routes: Router) -> anyhow::Result<App> {
    let kafka = delivery.kafka;
    let burials = kafka.as_ref().map(Burials::connect::<F>).transpose()?;
    let read_by_us = kafka.zip(burials);
    if delivery.trigger == Trigger::Kafka {
        let (kafka, burials) = read_by_us.context("pull mode needs kafka")?;
        return Ok(App::new(F::NAME, routes).pull(move |stop| {
            pull::pull(Pull {
                function,
                kafka,
                group: delivery.group,
                limits: delivery.limits,
                burials,
                stop,
            })
        }));
    }
    let push = Push::start(function.clone(), delivery.limits, delivery.in_flight);
    let mut routes = routes.merge(routes::knative::<F>(push));
    if let Some((kafka, burials)) = read_by_us {
        routes = routes.merge(routes::lambda(Lambda {
            function,
            kafka,
            burials,
        }));
    }
    Ok(App::new(F::NAME, routes))
}
