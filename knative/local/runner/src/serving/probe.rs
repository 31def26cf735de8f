//! Asking a process whether it is ready, and whether it is well.

use std::{future::Future, net::Ipv4Addr, time::Duration};

use axum::body::Body;
use http::{Request, Uri};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{front::Client, spec::ProbeSpec};

/// How often a process that starts is asked. Knative's queue-proxy is as impatient.
const STARTING: Duration = Duration::from_millis(5);

/// How often at least a process is asked that is not ready any more: its engines may be away,
/// and it asks them each time.
const RECOVERING: Duration = Duration::from_secs(1);

/// A question to a process, with the kubelet's defaults.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// The path to GET; nothing for whether the port is open.
    path: Option<String>,
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    failure_threshold: u32,
}

impl Probe {
    /// The probe that Knative takes when a Service names none: is the port open?
    pub(super) fn port_is_open() -> Self {
        Self {
            path: None,
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            failure_threshold: 3,
        }
    }

    /// Returns nothing unless the probe is of one of the kinds that we know.
    pub(super) fn read(spec: &ProbeSpec) -> Option<Self> {
        let path = match (&spec.http_get, &spec.tcp_socket) {
            (Some(get), None) => Some(format!("/{}", get.path.trim_start_matches('/'))),
            (None, Some(_)) => None,
            _ => return None,
        };
        // Unset and zero mean the default.
        let seconds = |given: Option<u64>, default| match given {
            None | Some(0) => Duration::from_secs(default),
            Some(seconds) => Duration::from_secs(seconds),
        };
        Some(Self {
            path,
            initial_delay: seconds(spec.initial_delay_seconds, 0),
            period: seconds(spec.period_seconds, 10),
            timeout: seconds(spec.timeout_seconds, 1),
            failure_threshold: spec.failure_threshold.unwrap_or(3).max(1),
        })
    }

    /// Completes when a process that starts says yes for the first time.
    pub(super) async fn passed(&self, client: &Client, port: u16) {
        sleep(self.initial_delay).await;
        while !self.ask(client, port).await {
            sleep(STARTING).await;
        }
    }

    /// Completes when a process that said no says yes again.
    pub(super) async fn recovered(&self, client: &Client, port: u16) {
        while !self.ask(client, port).await {
            sleep(self.period.min(RECOVERING)).await;
        }
    }

    /// Completes when the process said no as often in a row as the probe allows.
    pub(super) async fn failed(&self, client: &Client, port: u16) {
        let mut failures = 0;
        while failures < self.failure_threshold {
            sleep(self.period).await;
            failures = match self.ask(client, port).await {
                true => 0,
                false => failures + 1,
            };
        }
    }

    /// Completes when a process, which need not be up yet, is beyond help.
    pub(super) async fn died(&self, client: &Client, port: u16) {
        sleep(self.initial_delay).await;
        self.failed(client, port).await;
    }

    async fn ask(&self, client: &Client, port: u16) -> bool {
        match &self.path {
            Some(path) => self.in_time(get(client, port, path)).await,
            None => {
                let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
                self.in_time(async { connected.await.is_ok() }).await
            }
        }
    }

    async fn in_time(&self, answer: impl Future<Output = bool>) -> bool {
        timeout(self.timeout, answer).await.unwrap_or(false)
    }
}

async fn get(client: &Client, port: u16, path: &str) -> bool {
    let uri: Result<Uri, _> = format!("http://127.0.0.1:{port}{path}").parse();
    let Ok(uri) = uri else { return false };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    let answer = client.request(request).await;
    answer.is_ok_and(|answer| answer.status().is_success() || answer.status().is_redirection())
}
