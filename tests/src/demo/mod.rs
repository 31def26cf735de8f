//! The driver behind `make run` and `make demo`: generated traffic through the functions as
//! processes, on the real engines, compared with the oracle.
//!
//! # Layout
//!
//! - `options`: the command line; `folder`, `names`: what a run has for itself
//! - `engines`, `functions`: what it starts and stops
//! - `delivery`, `gateway`, `chaos`, `progress`: the traffic
//! - `backlog`: when everything is worked off
//! - `oracle`, `answers`, `rows`: what is expected, what is answered, and how they compare
//! - `report`, `counts`, `hints`: what it prints

mod answers;
mod backlog;
mod chaos;
mod counts;
mod delivery;
mod engines;
mod folder;
mod functions;
mod gateway;
mod hints;
mod names;
mod options;
mod oracle;
mod progress;
mod report;
mod rows;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use self::{
    answers::Metrics,
    backlog::Backlog,
    engines::Engines,
    folder::Folder,
    functions::{Function, Functions},
    gateway::Gateway,
    names::Names,
    options::Ports,
    oracle::Expected,
    report::Figures,
    rows::Comparison,
};
pub use self::{
    chaos::Kills,
    options::{Mode, Options},
};

/// How long process may work nothing off before the run fails; more than a consumer's session.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs, cleans up whatever happened, and returns the exit code: 0 if everything was equal or a
/// person ended `run`, 1 if not, 128 + N after signal N.
pub async fn main(options: Options) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let mut run = Run::new(options)?;
    let outcome = tokio::select! {
        outcome = run.drive() => outcome,
        code = signals.next() => Ok(Outcome::Interrupted(code)),
    };
    // Whoever interrupts this too wants it to end now; the functions are killed then.
    tokio::select! {
        () = run.clean_up() => {}
        code = signals.next() => return Ok(ExitCode::from(code)),
    }
    Ok(match outcome? {
        Outcome::Equal => ExitCode::SUCCESS,
        Outcome::Different => ExitCode::FAILURE,
        Outcome::Interrupted(_) if run.is_up => ExitCode::SUCCESS,
        Outcome::Interrupted(code) => ExitCode::from(code),
    })
}

enum Outcome {
    Equal,
    Different,
    Interrupted(u8),
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Returns the exit code that belongs to the signal.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 128 + 2,
            _ = self.terminate.recv() => 128 + 15,
        }
    }
}

/// One run, and what must be undone after it.
struct Run {
    options: Options,
    root: PathBuf,
    folder: Folder,
    names: Names,
    ports: Ports,
    engines: Engines,
    functions: Functions,
    http: reqwest::Client,
    /// Whether there may be something under our names.
    has_data: bool,
    /// Whether it stays up until a person ends it.
    is_up: bool,
}

impl Run {
    fn new(mut options: Options) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the folder of the project")?
            .to_owned();
        options.meters = root.join(&options.meters);
        let mode = if options.mode == Mode::Run {
            "run"
        } else {
            "demo"
        };
        let folder = Folder::open(root.join(&options.state).join(mode))?;
        let ports = options.ports()?;
        let names = Names::fresh();
        let functions = functions(&options, &names, ports, &folder)?;
        // Of many connections at once each one is kept.
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(256)
            .build()?;
        let engines = Engines::default();
        Ok(Self {
            options,
            root,
            folder,
            names,
            ports,
            engines,
            functions,
            http,
            has_data: false,
            is_up: false,
        })
    }

    async fn drive(&mut self) -> anyhow::Result<Outcome> {
        self.engines.up(&self.root).await?;
        if let Some(id) = self.folder.left_behind()? {
            eprintln!("removing what run {id} left behind");
            Names::of(&id).remove(&self.options).await?;
        }
        let file = self.folder.file("traffic.jsonl");
        eprintln!(
            "generating {} events, seed {}",
            report::grouped(self.options.events),
            self.options.seed
        );
        let lines =
            oracle::generate(&self.root, self.options.events, self.options.seed, &file).await?;
        eprintln!("asking the oracle about {} lines", report::grouped(lines));
        let expected = oracle::expect(&self.root, &file).await?;

        self.folder.note(&self.names.id)?;
        self.has_data = true;
        eprintln!(
            "starting the functions; their logs are in {}",
            self.folder.path().display()
        );
        let starts = self.functions.start(&self.http).await?;
        let is_equal = self
            .alive(self.compare(
                &file,
                &expected,
                Figures {
                    starts,
                    lines,
                    ..Figures::default()
                },
            ))
            .await??;
        if self.options.mode == Mode::Run {
            println!("{}", hints::hints(self.ports, &self.names, &self.options));
            self.is_up = true;
            self.alive(std::future::pending::<()>()).await?;
        }
        Ok(if is_equal {
            Outcome::Equal
        } else {
            Outcome::Different
        })
    }

    /// Does `work` for as long as all functions live.
    async fn alive<T>(&self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::select! {
            done = work => Ok(done),
            death = self.functions.death() => Err(death),
        }
    }

    /// Posts the traffic, asks query, prints how it compares, and returns whether it is equal.
    async fn compare(
        &self,
        file: &Path,
        expected: &Expected,
        mut figures: Figures,
    ) -> anyhow::Result<bool> {
        self.post_all(file, &mut figures).await?;
        figures.kept = answers::kept(&self.options.clickhouse, &self.names.database).await?;
        let metrics = Metrics::of(&self.http, &self.functions.process).await?;
        figures.outcomes = metrics.by("openmeter_events_processed_total", Some("outcome"));
        figures.end_bytes = self.functions.all().map(Function::resident_bytes).to_vec();

        let wanted = expected.rows();
        let answered = answers::all(&self.http, &self.functions.query).await?;
        let comparison = Comparison::of(&wanted, &answered);
        let (counts, counts_are_equal) = counts::counts(expected, &figures);
        println!("\n{}", report::usage(&wanted, &answered, self.options.rows));
        println!("{counts}");
        println!("{}", report::figures(&figures));
        print!("{}", report::comparison(&comparison));
        Ok(comparison.is_equal() && counts_are_equal)
    }

    /// Posts the file as often as the options say, each time until all of it is stored.
    async fn post_all(&self, file: &Path, figures: &mut Figures) -> anyhow::Result<()> {
        let gateway = Gateway::new(
            self.http.clone(),
            self.functions.ingest.url("/"),
            self.options.workers,
        );
        let backlog = Backlog::connect(&self.options.kafka, &self.names)?;
        let has_chaos = !self.options.chaos.is_empty();
        self.post(&gateway, file, has_chaos, figures).await?;
        figures.visible_after = worked_off(&backlog).await?;
        if self.options.resend {
            eprintln!("posting everything again");
            self.post(&gateway, file, false, figures).await?;
            figures.visible_after = worked_off(&backlog).await?;
        }
        if self.options.flush_valkey {
            let keys = self.names.forget(&self.options.valkey).await?;
            eprintln!("deleted {keys} keys in Valkey; posting everything again");
            self.post(&gateway, file, false, figures).await?;
            figures.visible_after = worked_off(&backlog).await?;
        }
        figures.dead = backlog.dead().await?;
        Ok(())
    }

    async fn post(
        &self,
        gateway: &Gateway,
        file: &Path,
        has_chaos: bool,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let before = gateway.posted();
        let lines = figures.lines;
        let (gate, opened) = watch::channel(if has_chaos { 0 } else { u64::MAX });
        let killing = async {
            if !has_chaos {
                return Ok(0);
            }
            chaos::kill(
                &self.options.chaos,
                self.options.seed,
                &self.functions,
                gateway,
                lines,
                &gate,
            )
            .await
        };
        let posting = futures::future::try_join(gateway.post(file, opened), killing);
        let (tally, kills) =
            progress::shown("posting", lines, || gateway.posted() - before, posting).await?;
        figures.posting += began.elapsed();
        figures.tally.add(&tally);
        figures.kills += kills;
        figures.passes += 1;
        Ok(())
    }

    /// Undoes what the run did. Nothing here ends it early: what else can be undone still is.
    async fn clean_up(&mut self) {
        eprintln!("stopping the functions");
        told(self.functions.stop().await);
        if self.has_data {
            let removed = self.names.remove(&self.options).await;
            // What could not be removed is left to the next run, by the note.
            if told(removed) {
                told(self.folder.note(""));
            }
        }
        told(self.engines.down(&self.root).await);
    }
}

fn told(done: anyhow::Result<()>) -> bool {
    if let Err(error) = &done {
        eprintln!("demo: {error:#}");
    }
    done.is_ok()
}

/// Waits until all that was accepted is stored, and returns how long that took.
async fn worked_off(backlog: &Backlog) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let total = backlog.left().await?;
    let left = AtomicU64::new(total);
    let done = || total.saturating_sub(left.load(Ordering::Relaxed));
    let waiting = backlog.is_worked_off(PATIENCE, |now| left.store(now, Ordering::Relaxed));
    progress::shown("storing", total, done, waiting).await?;
    Ok(began.elapsed())
}

/// Returns the functions, with the settings of this run.
fn functions(
    options: &Options,
    names: &Names,
    ports: Ports,
    folder: &Folder,
) -> anyhow::Result<Functions> {
    let own = std::env::current_exe()?;
    let binaries = own
        .parent()
        .ok_or_else(|| anyhow!("{} is in no folder", own.display()))?;
    let meters = options.meters.display().to_string();
    let kafka = [
        ("OPENMETER_KAFKA_BROKER", options.kafka.clone()),
        ("OPENMETER_KAFKA_TOPIC", names.topic.clone()),
        ("OPENMETER_KAFKA_DEAD_TOPIC", names.dead_topic.clone()),
    ];
    let store = [
        ("OPENMETER_CLICKHOUSE_ADDRESS", options.clickhouse.clone()),
        ("OPENMETER_CLICKHOUSE_DATABASE", names.database.clone()),
        ("OPENMETER_METERS", meters),
    ];
    let mut pull = vec![
        ("OPENMETER_TRIGGER", "kafka".to_owned()),
        ("OPENMETER_KAFKA_GROUP", names.group.clone()),
        ("OPENMETER_VALKEY_URL", options.valkey.clone()),
        ("OPENMETER_VALKEY_PREFIX", names.prefix.clone()),
    ];
    if !options.chaos.is_empty() {
        // The least that a broker allows: its partitions stay with a killed consumer that long.
        pull.push(("OPENMETER_KAFKA_SESSION_TIMEOUT", "6s".to_owned()));
    }
    let function = |name, port, settings: Vec<_>| {
        Function::new(
            name,
            port,
            binaries.join(name),
            folder.file(&format!("{name}.log")),
            settings,
        )
    };
    Ok(Functions {
        ingest: function("ingest", ports.ingest, kafka.to_vec()),
        process: function(
            "process",
            ports.process,
            [&kafka[..], &store, &pull].concat(),
        ),
        query: function("query", ports.query, store.to_vec()),
    })
}
