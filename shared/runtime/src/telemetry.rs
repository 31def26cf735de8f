//! What an operator sees: JSON log lines on stdout, metrics on `/metrics`.
//!
//! There is no request line at info: a counted request is in the histogram, and at tens of
//! thousands a second lines would cost more than the work. Requests are logged at debug.

use std::{fmt, io, sync::OnceLock, time::Duration};

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{Env, Setting, on_lambda, process};

/// Buckets for names that end in `_seconds`: from a cached answer to a request that is about to
/// be given up on.
const SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Buckets for every other histogram: counts, such as events in a batch, and sizes in bytes.
const AMOUNTS: [f64; 15] = [
    1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7,
];

/// How often samples are folded into their buckets. Between two scrapes they are kept one by
/// one, which with no scraper would be for ever.
const UPKEEP: Duration = Duration::from_secs(5);

/// Sends this process's log to stdout as JSON lines that carry `function`, and installs the
/// metrics recorder. Once is enough; again does nothing.
pub fn install(function: &'static str) {
    install_recorder();
    // A filter that cannot be read is reported with the other settings, in a line that needs
    // a subscriber to be seen.
    let filter = LogFilter::from_env(&Env::process());
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .map_event_format(|format| Named { function, format })
        .with_writer(io::stdout)
        .with_filter(filter.to_filter());
    let already_installed = tracing_subscriber::registry()
        .with(lines)
        .try_init()
        .is_err();
    if already_installed {
        tracing::debug!("the log was already set up");
    }
}

/// Installs the metrics recorder, once. [`install`] and [`crate::App`] do it.
///
/// On Lambda there is none: nobody can scrape a frozen process, and samples would pile up.
pub fn install_recorder() {
    recorder();
}

fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            if on_lambda() {
                return None;
            }
            let recorder = PrometheusBuilder::new()
                .set_buckets(&AMOUNTS)
                .expect("there are buckets")
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
                .expect("there are buckets")
                .build_recorder();
            let handle = recorder.handle();
            match metrics::set_global_recorder(recorder) {
                Ok(()) => Some(handle),
                Err(error) => {
                    tracing::warn!(%error, "metrics go to a recorder that is not ours");
                    None
                }
            }
        })
        .as_ref()
}

/// Returns all metrics in Prometheus' text format.
pub fn render(function: &str) -> String {
    let mut text = recorder().map(PrometheusHandle::render).unwrap_or_default();
    process::render(function, &mut text);
    text
}

/// The answer of `/metrics`.
pub(crate) async fn exposition(function: &'static str) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], render(function)).into_response()
}

/// Folds samples into buckets until it is told to stop.
pub(crate) async fn upkeep(stop: CancellationToken) {
    let Some(recorder) = recorder() else {
        return;
    };
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => recorder.run_upkeep(),
            () = stop.cancelled() => return,
        }
    }
}

/// What is logged, as `tracing_subscriber` writes it: `info`, or `warn,process=debug`.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter(String);

impl LogFilter {
    /// Reads OPENMETER_LOG, or RUST_LOG, which any Rust program knows.
    pub(crate) fn from_env(env: &Env) -> Self {
        let default = Self("info".into());
        let rust_log = env.or(
            "RUST_LOG",
            default,
            "what is logged, if OPENMETER_LOG is unset",
        );
        env.optional(
            "OPENMETER_LOG",
            "what is logged: info, or warn,process=debug",
        )
        .unwrap_or(rust_log)
    }

    fn to_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl Setting for LogFilter {
    const KIND: &'static str = "a log filter such as info or warn,process=debug";

    fn parse(text: &str) -> Result<Self, String> {
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(format!("is not {}: {error}", Self::KIND)),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Puts the function's name in front of every line, so that lines of several functions can be
/// told apart without knowing which pod wrote them.
struct Named {
    function: &'static str,
    format: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for Named
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    Format<Json>: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(256);
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(members) => write!(writer, "{{\"function\":\"{}\",{members}", self.function),
            None => writer.write_str(&line),
        }
    }
}
