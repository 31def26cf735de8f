//! Who answers to a name: the cluster's network, as far as one machine needs one.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

/// Why a request got no answer. Knative tries again after either.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nobody has this name, or who has it could not be reached or broke off.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// The answer did not come in time.
    #[error("no answer in time")]
    TimedOut,
}

/// Carries requests to whoever their URL names: a Service, a broker's ingress, a KafkaSink's
/// ingress (names under `svc.cluster.local`), or anybody else, by plain HTTP.
pub trait Network: Send + Sync {
    /// Sends `request`, whose URI is absolute, and returns the whole answer. A deadline is the
    /// caller's to keep: the future may be dropped at any point.
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, Unanswered>>;
}
