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
pub struct Health {
    alive: Vec<Check>,
    ready: Vec<Check>,
    // How long a check may take. A field only so that a test need not wait for it.
    timeout: Duration,
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
        Self {
            alive: Vec::new(),
            ready: Vec::new(),
            timeout: CHECK_TIMEOUT,
        }
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

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |checks: &[Check]| checks.iter().map(|check| check.name).collect::<Vec<_>>();
        f.debug_struct("Health")
            .field("alive", &names(&self.alive))
            .field("ready", &names(&self.ready))
            .finish_non_exhaustive()
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

    async fn passes(&self, timeout: Duration) -> bool {
        let answer = match tokio::time::timeout(timeout, (self.ask)()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {timeout:?}")),
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
    answer("alive", &health.alive, health.timeout).await
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    answer("ready", &health.ready, health.timeout).await
}

async fn answer(state: &str, checks: &[Check], timeout: Duration) -> Response {
    let passed = join_all(checks.iter().map(|check| check.passes(timeout))).await;
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready as now};

    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode},
    };
    use tower::ServiceExt as _;

    use super::*;

    type Answer = Result<(), &'static str>;

    async fn get(health: Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health.routes().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1024).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn without_checks_it_is_alive_and_ready() {
        for (path, state) in [
            ("/healthz", "alive"),
            ("/healthz/live", "alive"),
            ("/readyz", "ready"),
            ("/healthz/ready", "ready"),
        ] {
            let (status, body) = get(Health::new(), path).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(body, format!(r#"{{"status":"{state}"}}"#), "{path}");
        }
    }

    #[tokio::test]
    async fn a_failing_dependency_is_named_and_its_error_is_not_shown() {
        let health = Health::new()
            .ready("kafka", || now(Answer::Ok(())))
            .ready("valkey", || now(Answer::Err("redis://me:hunter2@valkey")));
        let (status, body) = get(health, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body,
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"not ready: valkey","extensions":{"failed":["valkey"]}}"#
        );
    }

    #[tokio::test]
    async fn dependencies_that_do_not_answer_fail_together_at_the_timeout() {
        let mut health = Health::new()
            .ready("kafka", pending::<Answer>)
            .ready("valkey", pending::<Answer>);
        assert_eq!(health.timeout, Duration::from_secs(2));
        health.timeout = Duration::from_millis(10);
        let (status, body) = get(health, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("not ready: kafka, valkey"), "{body}");
    }

    #[tokio::test]
    async fn a_dependency_has_no_say_in_whether_it_is_alive() {
        let health = Health::new().ready("kafka", || now(Answer::Err("away")));
        assert_eq!(get(health, "/healthz").await.0, StatusCode::OK);
        let health = Health::new().alive("loop", || now(Answer::Err("stuck")));
        let (status, body) = get(health, "/healthz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("not alive: loop"), "{body}");
    }
}
