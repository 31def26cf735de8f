//! Is it alive, is it ready: `/healthz` and `/readyz`.
//!
//! Liveness asks nothing by default: a process that answers is alive, and one that is killed
//! because Kafka is away comes back to a Kafka that is still away. Readiness asks the
//! dependencies that the function names. Which one failed is in the answer; why is in the log,
//! since an error's text may hold addresses or credentials.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::json;

use crate::Problem;

/// How long a check may take. The kubelet's own default is one second, and the slack lets an
/// operator with curl see which dependency hangs.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The checks of one function. Empty, it says yes to everything.
#[derive(Default)]
pub struct Health {
    alive: Vec<Check>,
    ready: Vec<Check>,
}

struct Check {
    name: &'static str,
    ask: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
    // Only a change is logged: probes come every few milliseconds while a pod starts.
    failing: AtomicBool,
}

impl Health {
    /// Returns a health without checks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a dependency without which the function takes no traffic.
    ///
    /// ```
    /// # async fn ping() -> Result<(), std::io::Error> { Ok(()) }
    /// let health = runtime::Health::new().ready("kafka", || ping());
    /// ```
    #[must_use]
    pub fn ready<F, Fut, E>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.ready.push(Check::new(name, check));
        self
    }

    /// Adds a check that has the process restarted when it fails. It must not ask another
    /// system: use it for a state that only a restart can end.
    #[must_use]
    pub fn alive<F, Fut, E>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.alive.push(Check::new(name, check));
        self
    }

    /// Returns the routes: `/healthz`, `/readyz`, and OpenMeter's names for the two.
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/healthz", get(alive))
            .route("/healthz/live", get(alive))
            .route("/readyz", get(ready))
            .route("/healthz/ready", get(ready))
            .with_state(Arc::new(self))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |checks: &[Check]| checks.iter().map(|check| check.name).collect::<Vec<_>>();
        f.debug_struct("Health")
            .field("alive", &names(&self.alive))
            .field("ready", &names(&self.ready))
            .finish()
    }
}

impl Check {
    fn new<F, Fut, E>(name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Self {
            name,
            ask: Box::new(move || {
                check()
                    .map(|answer| answer.map_err(|error| error.to_string()))
                    .boxed()
            }),
            failing: AtomicBool::new(false),
        }
    }

    async fn passes(&self) -> bool {
        let answer = match tokio::time::timeout(CHECK_TIMEOUT, (self.ask)()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {CHECK_TIMEOUT:?}")),
        };
        let was_failing = self.failing.swap(answer.is_err(), Ordering::Relaxed);
        match &answer {
            Err(error) if !was_failing => {
                tracing::warn!(dependency = self.name, error, "health check fails");
            }
            Ok(()) if was_failing => {
                tracing::info!(dependency = self.name, "health check passes again");
            }
            _ => {}
        }
        answer.is_ok()
    }
}

async fn alive(State(health): State<Arc<Health>>) -> Response {
    answer("alive", &health.alive).await
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    answer("ready", &health.ready).await
}

async fn answer(state: &str, checks: &[Check]) -> Response {
    let passed = join_all(checks.iter().map(Check::passes)).await;
    let failed: Vec<&str> = checks
        .iter()
        .zip(passed)
        .filter(|(_, passed)| !passed)
        .map(|(check, _)| check.name)
        .collect();
    if failed.is_empty() {
        return Json(json!({ "status": state })).into_response();
    }
    Problem::unavailable(format!("not {state}: {}", failed.join(", ")))
        .with_extension("failed", failed)
        .retry_after(1)
        .into_response()
}
