//! The traffic of a run: the file, as often as the options say, with kills and outages meanwhile,
//! each time until all of it is stored.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use super::{
    Options,
    backlog::Backlog,
    chaos::{self, Scene},
    gateway::{Gateway, Tally},
    names::Names,
    outage::Proxy,
    progress,
    report::Figures,
    runner::Runner,
    waves::{Sent, Waves},
};

/// How long nothing may be worked off before the run fails; more than a consumer's session.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Who takes part.
pub(super) struct Posting<'a> {
    pub(super) options: &'a Options,
    pub(super) names: &'a Names,
    pub(super) http: &'a reqwest::Client,
    pub(super) runner: &'a Runner,
    pub(super) proxy: Option<&'a Proxy>,
    pub(super) backlog: &'a Backlog,
}

impl Posting<'_> {
    /// Posts the file as often as the options say.
    pub(super) async fn post_all(&self, file: &Path, figures: &mut Figures) -> anyhow::Result<()> {
        let mut sent = Sent::default();
        self.post(file, &mut sent, true, figures).await?;
        if self.options.resend {
            eprintln!("posting everything again");
            self.post(file, &mut sent, false, figures).await?;
        }
        if self.options.flush_valkey > 0 {
            self.flush_valkey().await?;
            eprintln!("posting everything again");
            self.post(file, &mut sent, false, figures).await?;
        }
        Ok(())
    }

    async fn flush_valkey(&self) -> anyhow::Result<()> {
        let keys = self.names.flush(&self.options.valkey).await?;
        eprintln!("deleted {keys} keys in Valkey");
        Ok(())
    }

    /// Posts the file once, and returns when all of it is stored.
    async fn post(
        &self,
        file: &Path,
        sent: &mut Sent,
        is_first: bool,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let Options {
            chaos,
            clickhouse_away,
            workers,
            ..
        } = self.options;
        let lines = figures.lines;
        let has_chaos = is_first && !chaos.is_empty();
        let (gate, opened) = watch::channel(if has_chaos { 0 } else { u64::MAX });
        let mut waves = Waves::open(file, lines, sent, opened).await?;
        let (http, runner) = (self.http.clone(), self.runner);
        let gateway = Gateway::new(http, runner.broker(), &runner.api(), *workers);
        let held = waves.held();
        // A line that is held back has had its turn.
        let reached = || gateway.posted() + held.load(Ordering::Relaxed);

        let scene = Scene {
            http: self.http,
            runner: self.runner,
            backlog: self.backlog,
        };
        let killing = async {
            if !has_chaos {
                return Ok(BTreeMap::new());
            }
            chaos::kill(chaos, self.options.seed, scene, lines, reached, &gate).await
        };
        let cutting = async {
            if let Some(proxy) = self.proxy.filter(|_| is_first) {
                while reached() < lines / 3 {
                    sleep(POLL).await;
                }
                proxy.cut(*clickhouse_away).await;
            }
            Ok(())
        };
        let flushing = async {
            let times = u64::from(self.options.flush_valkey.saturating_sub(1));
            for n in (1..=times).take_while(|_| is_first) {
                while reached() < lines * n / (times + 1) {
                    sleep(POLL).await;
                }
                self.flush_valkey().await?;
            }
            Ok(())
        };
        let posting = self.post_waves(&gateway, &mut waves);
        let all = futures::future::try_join4(posting, killing, cutting, flushing);
        let began = Instant::now();
        let (tally, killed, (), ()) =
            progress::shown("posting", lines, || gateway.posted(), all).await?;
        figures.visible_after = self.worked_off().await?;
        figures.whole += began.elapsed();
        figures.tally.add(&tally);
        figures.killed.extend(killed);
        figures.passes += 1;
        Ok(())
    }

    /// Posts wave after wave; all but the last are stored when it returns.
    async fn post_waves(&self, gateway: &Gateway, waves: &mut Waves<'_>) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        loop {
            tally.add(&gateway.post(waves).await?);
            if !waves.have_next() {
                return Ok(tally);
            }
            self.backlog.is_worked_off(self.patience(), |_| ()).await?;
            waves.begin_next();
        }
    }

    /// Waits until all that was accepted is stored, and returns how long that took.
    async fn worked_off(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let total = self.backlog.left().await?;
        let left = AtomicU64::new(total);
        let done = || total.saturating_sub(left.load(Ordering::Relaxed));
        let seen = |now| left.store(now, Ordering::Relaxed);
        let waiting = self.backlog.is_worked_off(self.patience(), seen);
        progress::shown("storing", total, done, waiting).await?;
        Ok(began.elapsed())
    }

    fn patience(&self) -> Duration {
        PATIENCE + self.options.clickhouse_away
    }
}
