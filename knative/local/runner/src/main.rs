//! `runner`: runs a kustomize folder of Knative manifests on this machine, or renders it.

use std::{
    io::{IsTerminal as _, Write as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::{Json, Router, routing::get, serve::ListenerExt as _};
use clap::{Args, Parser, Subcommand};
use runner::{
    cluster::{self, Cluster},
    manifests::{self, Mistake, Object},
    serving::{self, Folders},
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// EX_USAGE of sysexits.h: the manifests are wrong, and starting again will not help.
const WRONG_MANIFESTS: u8 = 64;

/// With what eventing takes to finish, less than the 30 s that a runner has to end.
const STOP_WITHIN: Duration = Duration::from_secs(15);

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
        let yaml = serde_yaml_ng::to_string(&object.value).context("write an object as yaml")?;
        write!(stdout, "---\n{yaml}").context("write to stdout")?;
    }
    Ok(Ok(()))
}

/// Reads all that the manifests say, or all that is wrong with them.
fn read(objects: &[Object]) -> Result<serving::Plan, Vec<Mistake>> {
    serving::Plan::read(objects)
}

async fn run(arguments: RunArguments) -> Ended {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut reload = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let folder = arguments.folder;
    let plan = match manifests::render(&folder).and_then(|objects| read(&objects)) {
        Ok(plan) => plan,
        Err(mistakes) => return Ok(Err(mistakes)),
    };
    let api = Listener::bind(arguments.api_port).await?;
    let admin = Listener::bind(arguments.admin_port).await?;
    let folders = Folders {
        programs: arguments.bin_dir.map_or_else(beside, Ok)?,
        state: std::path::absolute(&arguments.state).context("find the state folder")?,
    };
    let cluster = Cluster::start(plan, folders).context("start the services")?;
    let stop = CancellationToken::new();
    let ready = format!("ready api={} admin={}", api.url, admin.url);
    api.serve(cluster.api(), &stop);
    admin.serve(status(cluster.clone()), &stop);
    println!("{ready}");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => cluster::reload(&cluster, &folder),
        }
    }
    tracing::info!("stopping");
    stop.cancel();
    cluster.stop(STOP_WITHIN).await;
    Ok(Ok(()))
}

/// Returns the folder of the runner's own program.
fn beside() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the runner's program")?;
    let folder = own
        .parent()
        .context("the runner's program is in no folder")?;
    Ok(folder.to_owned())
}

fn status(cluster: Arc<Cluster>) -> Router {
    let status = async move || Json(json!({"services": cluster.status()}));
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

    /// Answers with `router` until `stop`, in the background.
    fn serve(self, router: Router, stop: &CancellationToken) {
        let listener = self.listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
        });
        let server =
            axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(server.into_future());
    }
}
