//! The wiring of a run without its traffic: what the benches of quota measure through.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use reqwest::{Method, RequestBuilder};

use super::{
    Mode, Options,
    accounts::{ADMIN_TOKEN, Accounts},
    folder::Folder,
    names::Names,
    options::Command,
    overlay,
    runner::Runner,
};

/// The manifests as they are deployed, under names of this run's own, carried out by the runner.
pub(crate) struct Wired {
    pub(crate) options: Options,
    names: Names,
    folder: Folder,
    http: reqwest::Client,
    runner: Runner,
}

impl Wired {
    /// Starts everything on engines that are up, does `work` for as long as the runner lives, and
    /// removes what there was, whatever happened.
    pub(crate) async fn during<T>(
        mode: Mode,
        work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut wired = Self::prepare(mode).await?;
        let outcome = async {
            wired.runner.start().await?;
            tokio::select! {
                done = work(&wired) => done,
                death = wired.runner.death() => Err(death),
            }
        };
        let outcome = outcome.await;
        let stopped = wired.runner.stop().await;
        let removed = wired.names.remove(&wired.options).await;
        // What could not be removed is left to the next run, by the note.
        let removed = removed.and_then(|()| wired.folder.note(""));
        let done = outcome?;
        stopped.and(removed)?;
        Ok(done)
    }

    async fn prepare(mode: Mode) -> anyhow::Result<Self> {
        let options = Options {
            mode,
            ..Options::try_parse_from(["bench", "demo"])?
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the folder of the project")?;
        let mut folder = Folder::open(root.join(&options.state).join("bench"))?;
        if let Some(id) = folder.left_behind()? {
            Names::of(Command::Demo, &id).remove(&options).await?;
        }
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(256)
            .build()?;
        let names = Names::fresh(Command::Demo);
        let binary = std::env::current_exe()?.with_file_name("runner");
        let ports = options.ports()?;
        let runner = Runner::new(http.clone(), ports, &names, binary, folder.path());
        let (clickhouse, broker) = (&options.clickhouse, runner.broker());
        overlay::write(folder.path(), root, &options, &names, clickhouse, &broker)?;
        folder.note(&names.id)?;
        Ok(Self {
            options,
            names,
            folder,
            http,
            runner,
        })
    }

    /// Returns a request that posts to the broker.
    pub(crate) fn post_event(&self) -> RequestBuilder {
        self.http.post(self.runner.broker())
    }

    /// Returns a request to the API.
    pub(crate) fn api(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.runner.api());
        self.http.request(method, url)
    }

    /// Returns a request of an administrator's to the API.
    pub(crate) fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.api(method, path).bearer_auth(ADMIN_TOKEN)
    }

    /// Has quota reconcile, and returns when it has: past the Service's door, which only the
    /// PingSource goes through.
    pub(crate) async fn reconcile(&self) -> anyhow::Result<()> {
        let status = self.runner.status().await?;
        let mut services = status.services.iter();
        let quota = services.find(|service| service.name == "quota");
        let instance = quota.and_then(|service| service.instances.first());
        let port = instance.context("an instance of quota")?.port;
        let url = format!("http://127.0.0.1:{port}/reconcile");
        self.http.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Grants credits, once for each subject.
    pub(crate) async fn grant(&self, subject: &str, amount: &str) -> anyhow::Result<()> {
        Accounts::new(self.http.clone(), self.runner.api())
            .grant(subject, amount, "bench")
            .await
    }

    /// Returns the accounts as Valkey has them.
    pub(crate) fn accounts(&self) -> anyhow::Result<ledger::Accounts> {
        let ledger = ledger::Ledger::new(&ledger::LedgerConfig {
            url: self.options.valkey.clone(),
            prefix: self.names.prefix.clone(),
            timeout: Duration::from_secs(5),
        });
        Ok(ledger::Accounts::new(ledger.map_err(|error| {
            anyhow!(error).context("connect to valkey")
        })?))
    }

    /// Returns the topic of accepted events.
    pub(crate) fn topic(&self) -> &str {
        &self.names.topic
    }
}
