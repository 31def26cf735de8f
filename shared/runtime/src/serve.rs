//! One router, two hosts: axum under Knative, the Lambda runtime under AWS.
//!
//! Which one is decided here and nowhere else. Lambda freezes the process once it has the
//! answer, so there nothing runs beside the requests: no Kafka loop, no upkeep, no last act.

use std::{future::Future, net::Ipv4Addr, pin::pin, time::Duration};

use anyhow::{Context as _, anyhow};
use axum::serve::ListenerExt as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    App, Env, Setting,
    app::{self, Hook, PullLoop},
    lambda,
    telemetry::{self, LogFilter},
};

/// With [`FLUSH_TIMEOUT`] this is the 30 seconds that Kubernetes gives by default between
/// SIGTERM and SIGKILL.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

/// How long the last act may take. Every answered request is already durable, so there is
/// little left to flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Set by Lambda, and by nobody else.
const LAMBDA: &str = "AWS_LAMBDA_RUNTIME_API";

/// Where a function's events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Trigger {
    /// Something posts them: Knative, Lambda, or a client.
    #[default]
    Http,
    /// The function takes them itself, as a member of a consumer group.
    Kafka,
}

impl Setting for Trigger {
    const KIND: &'static str = "http or kafka";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "http" => Ok(Self::Http),
            "kafka" => Ok(Self::Kafka),
            _ => Err("is not http or kafka".into()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Http => "http".into(),
            Self::Kafka => "kafka".into(),
        }
    }
}

impl Trigger {
    /// Returns the trigger that the environment names; unset is [`Trigger::Http`].
    pub fn from_env(env: &Env) -> Self {
        env.or(
            "OPENMETER_TRIGGER",
            Self::Http,
            "where events come from: http, or kafka for a consumer group",
        )
    }
}

/// The settings that every function has. [`Env::finish`] reads them into its report.
pub(crate) struct Settings {
    port: u16,
    trigger: Trigger,
    drain_timeout: Duration,
}

impl Settings {
    pub(crate) fn read(env: &Env) -> Self {
        LogFilter::from_env(env);
        Self {
            port: env.or("PORT", 8080, "port to listen on; set by Knative"),
            trigger: Trigger::from_env(env),
            drain_timeout: env.or(
                "OPENMETER_DRAIN_TIMEOUT",
                DRAIN_TIMEOUT,
                "how long requests in flight are waited for at the end",
            ),
        }
    }
}

/// Says whether this process runs on AWS Lambda. Only there a function mounts `POST /events`,
/// where events that are no HTTP requests arrive as they are. An answer other than 2xx has Lambda
/// deliver such an event again. A batch from Kafka has up to 6 MB, more than axum's default body
/// limit.
pub fn on_lambda() -> bool {
    std::env::var_os(LAMBDA).is_some()
}

/// Serves `app` on the host that the environment names, until that host says stop.
pub async fn serve(app: App) -> anyhow::Result<()> {
    let env = Env::process();
    let settings = Settings::read(&env);
    if settings.trigger == Trigger::Kafka {
        if on_lambda() {
            // Lambda freezes the process between requests, so a consumer would lose its place.
            env.mistake(
                "OPENMETER_TRIGGER",
                "cannot be kafka on Lambda: use an event source mapping",
            );
        } else if app.pull.is_none() {
            env.mistake(
                "OPENMETER_TRIGGER",
                "this function takes no events from Kafka",
            );
        }
    }
    let settings = env.close(|| Some(settings))?;

    if on_lambda() {
        tracing::info!(host = "lambda", "serving");
        return lambda::run(app.into_router()).await;
    }

    // Before the port is open, so that no SIGTERM can find the default handler.
    let shutdown = shutdown_signal()?;
    let address = (Ipv4Addr::UNSPECIFIED, settings.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on port {}", settings.port))?;
    tracing::info!(
        host = "http",
        address = %listener.local_addr().context("read the listener's address")?,
        trigger = settings.trigger.show(),
        "serving"
    );
    let app = app
        .trigger(settings.trigger)
        .drain_timeout(settings.drain_timeout);
    Box::pin(run(listener, app, shutdown)).await
}

/// Serves `app` on `listener` until `shutdown` completes, then ends in order: no new
/// connections, the Kafka loop told to stop, requests in flight answered, and the last act.
///
/// A deadline that passes is logged and is no error: whoever waits for an answer retries.
pub async fn run(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let pull = match app.trigger {
        Trigger::Http => None,
        Trigger::Kafka => Some(app.pull.context("this function has no kafka loop")?),
    };
    let stop = CancellationToken::new();
    let listener = listener.tap_io(|connection| {
        // Answers are small; waiting to fill a segment costs 40 ms and gains nothing.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let router = app::router(app.name, app.routes, app.health);
    let server = tokio::spawn(
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future(),
    );
    tokio::spawn(telemetry::upkeep(stop.clone()));
    let mut pull = pin!(pulled(pull, stop.clone()));

    let ended_early = tokio::select! {
        () = shutdown => None,
        ended = &mut pull => Some(ended.and_then(|()| Err(anyhow!("ended before it was told to")))),
    };
    tracing::info!("stopping");
    stop.cancel();

    let pull_has_ended = ended_early.is_some();
    let drain = async {
        let served = server.await;
        if !pull_has_ended {
            pull.await.context("take events from kafka")?;
        }
        served.context("the server panicked")?.context("serve http")
    };
    let drained = timeout(app.drain_timeout, drain).await.unwrap_or_else(|_| {
        tracing::warn!(timeout = ?app.drain_timeout, "work in flight was cut off at the deadline");
        Ok(())
    });
    let flushed = match app.on_shutdown {
        Some(hook) => flush(hook).await,
        None => Ok(()),
    };
    let pulled = ended_early
        .unwrap_or(Ok(()))
        .context("take events from kafka");
    first_error([pulled, drained, flushed])
}

/// Completes when the Kafka loop has ended; without one, when the process is told to stop.
async fn pulled(pull: Option<PullLoop>, stop: CancellationToken) -> anyhow::Result<()> {
    match pull {
        // A task of its own, since the main task is not run by a worker thread. The set takes it
        // down with this future, should the deadline pass.
        Some(pull) => {
            let mut task = JoinSet::new();
            task.spawn(pull(stop));
            task.join_next()
                .await
                .context("the loop was never started")?
                .context("the loop panicked")?
        }
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

async fn flush(hook: Hook) -> anyhow::Result<()> {
    timeout(FLUSH_TIMEOUT, hook())
        .await
        .unwrap_or_else(|_| Err(anyhow!("not done within {FLUSH_TIMEOUT:?}")))
        .context("flush at shutdown")
}

/// Returns the first error and logs the others, which would be lost.
fn first_error<const N: usize>(results: [anyhow::Result<()>; N]) -> anyhow::Result<()> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let first = errors.next();
    for error in errors {
        tracing::error!(error = format!("{error:#}"), "failed while stopping");
    }
    first.map_or(Ok(()), Err)
}

/// Returns a future that completes at SIGTERM (Kubernetes) or SIGINT (Ctrl-C).
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
