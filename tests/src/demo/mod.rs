//! The driver behind `make run` and `make demo`: generated traffic through the manifests as they
//! are deployed, which the runner carries out, on the real engines, compared with the oracle.
//!
//! # Layout
//!
//! - `options`: the command line; `folder`, `names`: what a run has for itself
//! - `engines`, `overlay`, `runner`, `status`: what it starts, asks and stops
//! - `posting`, `waves`, `delivery`, `gateway`, `progress`: the traffic
//! - `accounts`: prepaid credits; `bank`, `story`: a TPP that runs dry before an API
//! - `chaos`, `outage`: what goes wrong meanwhile
//! - `backlog`, `dead`: when everything is worked off, and what was put aside
//! - `oracle`, `answers`, `rows`: what is expected, what is answered, and how they compare
//! - `report`, `counts`, `hints`: what it prints
//! - `wired`: all that it starts, without the traffic, for benches

mod accounts;
mod answers;
mod backlog;
mod bank;
mod chaos;
mod counts;
mod dead;
mod delivery;
mod engines;
mod folder;
mod gateway;
mod hints;
mod names;
mod options;
mod oracle;
mod outage;
mod overlay;
mod posting;
mod progress;
mod report;
mod rows;
mod runner;
mod status;
mod story;
mod waves;
pub(crate) mod wired;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    accounts::Accounts,
    backlog::Backlog,
    bank::Bank,
    engines::Engines,
    folder::Folder,
    names::Names,
    options::Ports,
    outage::Proxy,
    posting::Posting,
    report::Figures,
    rows::{Comparison, Rows},
    runner::Runner,
};
pub use self::{
    chaos::Kills,
    options::{Command, Mode, Options},
};
use crate::nginx::{Addresses, Nginx};

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
    engines: Engines,
    http: reqwest::Client,
    ports: Ports,
    runner: Runner,
    /// Whether there may be something under our names.
    has_data: bool,
    /// Whether it stays up until a person ends it.
    is_up: bool,
}

impl Run {
    fn new(options: Options) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the folder of the project")?
            .to_owned();
        let command = match options.command {
            Command::Run => "run",
            Command::Demo => "demo",
        };
        let folder = Folder::open(root.join(&options.state).join(command))?;
        let ports = options.ports()?;
        let names = Names::fresh(options.command);
        // Of many connections at once each one is kept.
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(256)
            .build()?;
        let binary = std::env::current_exe()?.with_file_name("runner");
        let runner = Runner::new(http.clone(), ports, &names, binary, folder.path());
        Ok(Self {
            options,
            root,
            folder,
            names,
            engines: Engines::default(),
            http,
            ports,
            runner,
            has_data: false,
            is_up: false,
        })
    }

    async fn drive(&mut self) -> anyhow::Result<Outcome> {
        self.engines.up(&self.root).await?;
        if let Some(id) = self.folder.left_behind()? {
            eprintln!("removing what run {id} left behind");
            let names = Names::of(self.options.command, &id);
            names.remove(&self.options).await?;
        }
        let file = self.folder.file("traffic.jsonl");
        let start = self.options.start(Timestamp::now());
        eprintln!(
            "generating {} events, seed {}, {} hours from {start} on",
            report::grouped(self.options.events),
            self.options.seed,
            self.options.hours
        );
        let lines = oracle::generate(&self.root, &self.options, start, &file).await?;

        let proxy = match self.options.clickhouse_away {
            Duration::ZERO => None,
            _ => Some(Proxy::start(&self.options.clickhouse).await?),
        };
        let clickhouse = proxy.as_ref().map_or(&*self.options.clickhouse, Proxy::url);
        let folder = self.folder.path();
        let broker = self.runner.broker();
        overlay::write(
            folder,
            &self.root,
            &self.options,
            &self.names,
            clickhouse,
            &broker,
        )?;
        self.folder.note(&self.names.id)?;
        self.has_data = true;
        eprintln!(
            "starting the runner; its log is in {}",
            self.folder.path().display()
        );
        let figures = Figures {
            ready_after: self.runner.start().await?,
            lines,
            ..Figures::default()
        };
        let bank = Bank::start(self.http.clone(), broker).await?;
        let (folder, bank_at) = (self.folder.path(), bank.address);
        let addresses = Addresses {
            bank: bank_at,
            quota: (Ipv4Addr::LOCALHOST, self.ports.api).into(),
            quota_host: format!("quota.{}.svc.cluster.local", self.names.namespace),
            listen: Some(self.ports.gateway),
        };
        let nginx = Nginx::start(&folder.join("nginx"), &addresses, &[]).await?;
        let is_equal = self
            .alive(self.compare(&file, (&nginx, &bank), proxy.as_ref(), figures))
            .await??;
        if self.options.command == Command::Run {
            let hints = hints::hints(&self.runner, nginx.url(), &self.names, &self.options);
            println!("{hints}");
            self.is_up = true;
            self.alive(std::future::pending::<()>()).await?;
        }
        Ok(if is_equal {
            Outcome::Equal
        } else {
            Outcome::Different
        })
    }

    /// Does `work` for as long as the runner lives.
    async fn alive<T>(&self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::select! {
            done = work => Ok(done),
            death = self.runner.death() => Err(death),
        }
    }

    /// Has a TPP run dry, posts the traffic, asks query and quota, prints how it compares, and
    /// returns whether it is equal.
    async fn compare(
        &self,
        file: &Path,
        (nginx, bank): (&Nginx, &Bank),
        proxy: Option<&Proxy>,
        mut figures: Figures,
    ) -> anyhow::Result<bool> {
        let Options {
            kafka,
            clickhouse,
            mode,
            ..
        } = &self.options;
        let backlog = Backlog::connect(kafka, &self.names, *mode)?;
        let mut accounts = Accounts::new(self.http.clone(), self.runner.api());
        let story = story::play(&self.http, nginx, bank, &backlog, &mut accounts).await?;
        println!("{story}\n");
        story.append_to(file).await?;
        figures.called = story.events.len() as u64;
        figures.lines += figures.called;
        eprintln!(
            "asking the oracle about {} lines",
            report::grouped(figures.lines)
        );
        let expected = oracle::expect(&self.root, file).await?;
        accounts.grant_all(&expected.charges).await?;

        let posting = Posting {
            options: &self.options,
            names: &self.names,
            http: &self.http,
            runner: &self.runner,
            proxy,
            backlog: &backlog,
        };
        Box::pin(posting.post_all(file, &mut figures)).await?;
        figures.dead = backlog.dead().await?;
        figures.kept = answers::kept(clickhouse, &self.names.database).await?;
        // With both, each event is counted by each. With an outage, what was tried again is too.
        if *mode != Mode::Both && proxy.is_none() {
            let metrics = answers::metrics(&self.http, &self.runner, "process").await?;
            figures.outcomes = Some(answers::outcomes(&metrics));
        }

        let mut wanted = expected.rows();
        let mut answered = answers::all(&self.http, &self.runner.api()).await?;
        let left = accounts.left(&expected.charges)?;
        answered.extend(self.settled(&accounts, &left).await?);
        wanted.extend(left);
        figures.lives = self.runner.lives().await?;
        let comparison = Comparison::of(&wanted, &answered);
        let (counts, counts_are_equal) = counts::counts(&expected, &figures);
        println!("\n{}", report::usage(&wanted, &answered, self.options.rows));
        println!("{}", report::credits(&expected, &wanted, &answered));
        println!("{counts}");
        println!("{}", report::figures(&figures));
        print!("{}", report::comparison(&comparison));
        Ok(comparison.is_equal() && counts_are_equal)
    }

    /// Waits until every balance is what is `left`, as far as that comes, and returns them.
    async fn settled(&self, accounts: &Accounts, left: &Rows) -> anyhow::Result<Rows> {
        let settled = AtomicU64::new(0);
        let done = || settled.load(Ordering::Relaxed);
        let seen = |equal: usize| settled.store(equal as u64, Ordering::Relaxed);
        // One that is on its way may have looked before the last event was stored.
        let (delivered, in_flight) = self.runner.status().await?.pings();
        let has_reconciled = async || {
            let (now, _) = self.runner.status().await?.pings();
            Ok(now > delivered + in_flight)
        };
        let waiting = accounts.settled(left, seen, has_reconciled);
        progress::shown("balances", left.len() as u64, done, waiting).await
    }

    /// Undoes what the run did. Nothing here ends it early: what else can be undone still is.
    async fn clean_up(&mut self) {
        eprintln!("stopping the runner");
        told(self.runner.stop().await);
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
