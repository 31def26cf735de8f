//! `runner`: runs a kustomize folder of Knative manifests on this machine, or renders it.

use std::{
    io::{IsTerminal as _, Write as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::{Json, Router, routing::get, serve::ListenerExt as _};
use clap::{Args, Parser, Subcommand};
use runner::{
    cluster::{self, Cluster},
    eventing::{self, Eventing},
    manifests::{self, Mistake, Object},
    serving::{self, Folders},
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// EX_USAGE of sysexits.h: the manifests are wrong, and starting again will not help.
const WRONG_MANIFESTS: u8 = 64;

/// With the 15 s that eventing may take before, less than the 30 s that a runner has to end.
const STOP_WITHIN: Duration = Duration::from_secs(10);

const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(about = "Knative on one machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Does what a kustomize folder says, until SIGTERM or Ctrl-C. SIGHUP writes the files of
    /// ConfigMaps and Secrets anew.
    Run(RunArguments),
    /// Prints the objects of a kustomize folder as YAML.
    Render {
        /// The folder of a kustomization.yaml.
        folder: PathBuf,
    },
}

#[derive(Args)]
struct RunArguments {
    /// The folder of a kustomization.yaml.
    folder: PathBuf,
    /// Where the programs are that images are named after [default: where the runner is]
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where mounted files are written.
    #[arg(long, default_value = ".state/runner")]
    state: PathBuf,
    /// Port of the brokers' ingress, at /NAMESPACE/BROKER; 0 is any.
    #[arg(long, default_value_t = 8080)]
    ingress_port: u16,
    /// Port of the HTTPRoutes; 0 is any.
    #[arg(long, default_value_t = 8888)]
    api_port: u16,
    /// Port of GET /status; 0 is any.
    #[arg(long, default_value_t = 0)]
    admin_port: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let ended = match Arguments::parse().command {
        Command::Render { folder } => render(&folder),
        Command::Run(arguments) => Box::pin(run(arguments)).await,
    };
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(mistakes)) => {
            for mistake in mistakes {
                eprintln!("{mistake}");
            }
            ExitCode::from(WRONG_MANIFESTS)
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a command came to: done, mistakes in the manifests, or a failure.
type Ended = anyhow::Result<Result<(), Vec<Mistake>>>;

fn render(folder: &Path) -> Ended {
    let objects = match manifests::render(folder) {
        Ok(objects) => objects,
        Err(mistakes) => return Ok(Err(mistakes)),
    };
    let mut stdout = std::io::stdout().lock();
    for object in objects {
        // JSON is YAML, and the one that writes a number down as a number.
        writeln!(stdout, "---\n{:#}", object.value).context("write to stdout")?;
    }
    Ok(Ok(()))
}

/// Reads all that the manifests say, or all that is wrong with them.
fn read(objects: &[Object]) -> Result<(serving::Plan, eventing::Plan), Vec<Mistake>> {
    match (serving::Plan::read(objects), eventing::Plan::read(objects)) {
        (Ok(serving), Ok(eventing)) => Ok((serving, eventing)),
        (serving, eventing) => {
            let mut mistakes = serving.err().unwrap_or_default();
            mistakes.extend(eventing.err().unwrap_or_default());
            mistakes.sort();
            Err(mistakes)
        }
    }
}

async fn run(arguments: RunArguments) -> Ended {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut reload = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut told_to_end = pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let folder = arguments.folder;
    let (serving, eventing) = match manifests::render(&folder).and_then(|objects| read(&objects)) {
        Ok(plans) => plans,
        Err(mistakes) => return Ok(Err(mistakes)),
    };
    let ingress = Listener::bind(arguments.ingress_port).await?;
    let api = Listener::bind(arguments.api_port).await?;
    let admin = Listener::bind(arguments.admin_port).await?;
    let ready = format!(
        "ready ingress={} api={} admin={}",
        ingress.url, api.url, admin.url
    );
    let folders = Folders {
        programs: arguments.bin_dir.map_or_else(beside, Ok)?,
        state: std::path::absolute(&arguments.state).context("find the state folder")?,
    };
    let cluster = Cluster::start(serving, folders).context("start the services")?;
    let eventing = tokio::select! {
        started = Eventing::start(eventing, cluster.clone()) => Some(started.context("start eventing")?),
        () = &mut told_to_end => None,
    };
    let Some(mut eventing) = eventing else {
        cluster.stop(STOP_WITHIN).await;
        return Ok(Ok(()));
    };

    let mut servers = Servers::default();
    servers.serve(ingress, eventing.ingress());
    servers.serve(api, cluster.api());
    servers.serve(admin, status(cluster.clone(), eventing.reporter()));
    println!("{ready}");

    let ended = loop {
        tokio::select! {
            () = &mut told_to_end => break Ok(Ok(())),
            failure = eventing.failure() => break Err(failure.into()),
            _ = reload.recv() => cluster::reload(&cluster, &folder),
        }
    };
    tracing::info!("stopping");
    servers.stop.cancel();
    eventing.stop().await;
    cluster.stop(STOP_WITHIN).await;
    servers.end().await;
    ended
}

/// Returns the folder of the runner's own program.
fn beside() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the runner's program")?;
    let folder = own
        .parent()
        .context("the runner's program is in no folder")?;
    Ok(folder.to_owned())
}

fn status(
    cluster: Arc<Cluster>,
    eventing: impl Fn() -> Vec<eventing::Status> + Clone + Send + Sync + 'static,
) -> Router {
    let status = async move || Json(json!({"services": cluster.status(), "eventing": eventing()}));
    Router::new().route("/status", get(status))
}

/// A port that is open, with its address.
struct Listener {
    listener: TcpListener,
    url: String,
}

impl Listener {
    async fn bind(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("listen on port {port}"))?;
        let address = listener.local_addr().context("read a listener's address")?;
        let url = format!("http://{address}");
        Ok(Self { listener, url })
    }
}

/// What answers at the ports.
#[derive(Default)]
struct Servers {
    tasks: JoinSet<std::io::Result<()>>,
    /// No more requests are taken.
    stop: CancellationToken,
}

impl Servers {
    fn serve(&mut self, listener: Listener, router: Router) {
        let listener = listener.listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
        });
        let stopped = self.stop.clone().cancelled_owned();
        let server = axum::serve(listener, router).with_graceful_shutdown(stopped);
        self.tasks.spawn(server.into_future());
    }

    /// Waits for the last answers to be sent.
    async fn end(mut self) {
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(LAST_ANSWERS_WITHIN, ended).await.is_err() {
            tracing::warn!("some answers were not sent");
        }
    }
}
