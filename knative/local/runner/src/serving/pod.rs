//! One pod's life: a process that is started, probed, watched, started again, and stopped.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{front::Client, process, template::Template};

/// The longest wait before a process that keeps dying is started again. The kubelet waits from
/// 10 s to 5 min; on a laptop somebody is watching.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

const SHORTEST_BACKOFF: Duration = Duration::from_millis(100);

/// Who ran for so long has not died at the start.
const SETTLED: Duration = Duration::from_secs(10);

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// There is a process, or will be one at once, and it is not ready.
    #[default]
    Starting,
    /// It takes requests.
    Ready,
    /// Its process died and waits to be started again.
    Restarting,
    /// Its process is to end, for good or because it is not well.
    Stopping,
}

/// What can be said of a pod.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The process, if there is one.
    pub pid: Option<u32>,
    /// The loopback port that it was given.
    pub port: u16,
    /// Where it is in its life.
    pub state: Phase,
    /// How often it was started again.
    pub restarts: u32,
    /// How long the present process took from its start until it was ready.
    #[serde(rename = "startMillis")]
    pub start_millis: Option<f64>,
}

/// What a pod is run with.
pub(super) struct Pod {
    pub(super) template: Arc<Template>,
    /// The program's file.
    pub(super) program: PathBuf,
    /// What the platform adds to the environment, beside PORT.
    pub(super) platform: Vec<(&'static str, String)>,
    /// Its name in the log.
    pub(super) label: String,
    pub(super) client: Client,
    /// Ends the pod in order.
    pub(super) stop: CancellationToken,
    /// Ends it at once, when it was told to end before.
    pub(super) hurry: CancellationToken,
}

impl Pod {
    /// Keeps a process running until the pod is stopped. Tells `report` each change.
    pub(super) async fn live(self, report: impl Fn(&Status)) {
        let mut status = Status::default();
        let mut backoff = Duration::ZERO;
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            let Some(death) = self.run(&mut status, &report).await else {
                return;
            };
            tracing::warn!(
                pod = self.label,
                restarts = status.restarts,
                "{death}; starting it again"
            );
            status = Status {
                state: Phase::Restarting,
                restarts: status.restarts + 1,
                ..Status::default()
            };
            report(&status);
            if started.elapsed() > SETTLED {
                backoff = Duration::ZERO;
            }
            tokio::select! {
                () = sleep(backoff) => {}
                () = self.stop.cancelled() => {}
            }
            backoff = (backoff * 2).clamp(SHORTEST_BACKOFF, LONGEST_BACKOFF);
        }
    }

    /// Runs one process to its end. Returns how it died, or nothing if it was stopped.
    async fn run(&self, status: &mut Status, report: &impl Fn(&Status)) -> Option<String> {
        let started = Instant::now();
        let (mut child, port) = match self.start().await {
            Ok(started) => started,
            Err(error) => return Some(format!("cannot be started: {error}")),
        };
        *status = Status {
            pid: child.id(),
            port,
            restarts: status.restarts,
            ..Status::default()
        };
        report(status);
        let well = async {
            match &self.template.liveness {
                Some(probe) => probe.died(&self.client, port).await,
                None => std::future::pending().await,
            }
        };
        let death = tokio::select! {
            exit = child.wait() => Some(match exit {
                Ok(exit) => format!("the process died: {exit}"),
                Err(error) => format!("the process is lost: {error}"),
            }),
            () = self.readiness(port, started, status, report) => None,
            () = well => Some("the liveness probe failed".to_owned()),
            () = self.stop.cancelled() => None,
        };
        // Also one that is not well, and may take its time to end, gets no more requests.
        status.state = Phase::Stopping;
        report(status);
        match process::stop(&mut child, self.template.grace, &self.hurry).await {
            Ok(exit) if death.is_none() => tracing::info!(pod = self.label, %exit, "stopped"),
            Ok(_) => {}
            Err(error) => tracing::error!(pod = self.label, %error, "cannot end the process"),
        }
        if self.stop.is_cancelled() {
            None
        } else {
            death
        }
    }

    async fn start(&self) -> std::io::Result<(tokio::process::Child, u16)> {
        let port = process::free_port()?;
        let env = self
            .template
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        let platform = self.platform.iter().cloned();
        let env = env.chain(platform).chain([("PORT", port.to_string())]);
        let child = process::start(&self.program, &self.template.args, env, &self.label).await?;
        Ok((child, port))
    }

    /// Says when the process becomes ready, and when it is not any more. Does not end.
    async fn readiness(
        &self,
        port: u16,
        started: Instant,
        status: &mut Status,
        report: &impl Fn(&Status),
    ) {
        let Some(probe) = &self.template.readiness else {
            status.become_ready(started);
            report(status);
            return std::future::pending().await;
        };
        probe.passed(&self.client, port).await;
        loop {
            status.become_ready(started);
            report(status);
            probe.failed(&self.client, port).await;
            tracing::warn!(pod = self.label, "not ready any more");
            status.state = Phase::Starting;
            report(status);
            probe.recovered(&self.client, port).await;
        }
    }
}

impl Status {
    fn become_ready(&mut self, started: Instant) {
        self.state = Phase::Ready;
        self.start_millis
            .get_or_insert_with(|| millis(started.elapsed()));
    }
}

/// Milliseconds with what is left of them, to a microsecond.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
