//! A function as it is served: its routes and what goes with them.

use std::{fmt, future::Future, time::Duration};

use axum::{Router, routing::get};
use futures::future::{BoxFuture, FutureExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{Health, Trigger, measure::MeasureLayer, problem, serve::DRAIN_TIMEOUT, telemetry};

pub(crate) type PullLoop =
    Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>;
pub(crate) type Hook = Box<dyn FnOnce() -> BoxFuture<'static, anyhow::Result<()>> + Send>;

/// A function's routes with its health checks, its Kafka loop and its last act.
///
/// Given to [`crate::serve`] by a `main`, and to [`crate::run`] by tests.
pub struct App {
    pub(crate) name: &'static str,
    pub(crate) routes: Router,
    pub(crate) health: Health,
    pub(crate) pull: Option<PullLoop>,
    pub(crate) on_shutdown: Option<Hook>,
    pub(crate) trigger: Trigger,
    pub(crate) drain_timeout: Duration,
}

impl App {
    /// Returns an app that serves `routes` under the name by which logs and metrics know it.
    ///
    /// Unknown paths and methods get our answers: a fallback of `routes` is replaced, so a
    /// catch-all is written as a route.
    pub fn new(name: &'static str, routes: Router) -> Self {
        Self {
            name,
            routes,
            health: Health::new(),
            pull: None,
            on_shutdown: None,
            trigger: Trigger::Http,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    /// Sets what `/healthz` and `/readyz` ask.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Adds the loop that takes events from Kafka. It is started only by [`Trigger::Kafka`].
    ///
    /// The loop ends when its token is cancelled, after finishing the batch in hand; it is waited
    /// for. One that ends before, with or without an error, ends the process with an error: a
    /// consumer that is gone while the server answers would look healthy.
    #[must_use]
    pub fn pull<F, Fut>(mut self, pull: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.pull = Some(Box::new(move |stop| pull(stop).boxed()));
        self
    }

    /// Adds what is done last, after every request was answered, such as flushing a producer.
    ///
    /// Lambda never tells a process that it ends, so nothing may depend on it.
    #[must_use]
    pub fn on_shutdown<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.on_shutdown = Some(Box::new(move || hook().boxed()));
        self
    }

    /// Sets where events come from. [`crate::serve`] takes it from the environment instead.
    #[must_use]
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = trigger;
        self
    }

    /// Sets how long requests in flight are waited for at the end. [`crate::serve`] takes it
    /// from the environment instead.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Returns the routes as they are served: with health, metrics, problem answers and request
    /// measurement. For a test that calls a router without a socket.
    pub fn into_router(self) -> Router {
        router(self.name, self.routes, self.health)
    }
}

pub(crate) fn router(name: &'static str, routes: Router, health: Health) -> Router {
    telemetry::install_recorder();
    // Measuring goes outside, so that a caught panic is counted as the 500 that was sent.
    let layers = ServiceBuilder::new()
        .layer(MeasureLayer::new(name))
        .layer(CatchPanicLayer::custom(problem::panicked));
    routes
        .merge(health.routes())
        .route("/metrics", get(move || telemetry::exposition(name)))
        .fallback(problem::unknown_route)
        .method_not_allowed_fallback(problem::unknown_method)
        .layer(layers)
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("name", &self.name)
            .field("health", &self.health)
            .field("pull", &self.pull.is_some())
            .field("on_shutdown", &self.on_shutdown.is_some())
            .field("trigger", &self.trigger)
            .field("drain_timeout", &self.drain_timeout)
            .finish_non_exhaustive()
    }
}
