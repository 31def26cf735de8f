//! Kills functions, and the runner that has them, while they have work under way.

use std::{cell::Cell, collections::BTreeMap, str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use rand::{
    Rng as _, SeedableRng as _, rngs::StdRng, seq::IteratorRandom as _, seq::SliceRandom as _,
};
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{answers, backlog::Backlog, runner::Runner};

const POLL: Duration = Duration::from_millis(5);
/// A killed consumer's partitions are given to its successor only after its session ends.
const BUSY_WITHIN: Duration = Duration::from_secs(60);
/// Below this a function would be killed before it got anything.
const LEAST_LINES: u64 = 100;
const RUNNER: &str = "runner";
const QUERY: &str = "query";
const VICTIMS: [&str; 5] = ["ingest", "process", "quota", QUERY, RUNNER];
/// What functions count their events by.
const COUNTERS: [&str; 3] = [
    "openmeter_events_ingested_total",
    "openmeter_events_processed_total",
    "openmeter_quota_events_total",
];
/// One that takes query a while, as ClickHouse has to answer it, and one that does not.
const SLOW: &str = "/api/v1/meters/api_latency_quantiles/query?groupBy=subject&groupBy=endpoint";
const QUICK: &str = "/api/v1/meters";

/// Which function is killed, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kills {
    function: String,
    times: u16,
}

impl FromStr for Kills {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("is not FUNCTION=N, with one of {}", VICTIMS.join(", "));
        let (function, times) = text.split_once('=').ok_or_else(wrong)?;
        if !VICTIMS.contains(&function) {
            return Err(wrong());
        }
        Ok(Self {
            function: function.to_owned(),
            times: times.parse().map_err(|_| wrong())?,
        })
    }
}

/// How often one was killed, and how often of that with work under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Killed {
    pub(super) times: u64,
    pub(super) at_work: u64,
}

/// Kills by plan while `lines` lines are posted, of which `reached` says how many were, and
/// returns how often it has, by victim.
///
/// The traffic is cut into as many parts as there are kills. In each part one dies, once a
/// random line is reached and it has work under way, and the rest comes while it is down. The
/// next part is let through the gate only then, so that there is work for each kill; who is not
/// met at work gets some of it early.
pub(super) async fn kill(
    plan: &[Kills],
    seed: u64,
    scene: Scene<'_>,
    lines: u64,
    reached: impl Fn() -> u64,
    gate: &watch::Sender<u64>,
) -> anyhow::Result<BTreeMap<String, Killed>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut victims: Vec<&str> = plan
        .iter()
        .flat_map(|kills| std::iter::repeat_n(kills.function.as_str(), kills.times.into()))
        .collect();
    victims.shuffle(&mut rng);
    let count = victims.len() as u64;
    ensure!(
        count == 0 || lines / count >= LEAST_LINES,
        "{lines} lines are too few for {count} kills"
    );
    let opened = Cell::new(0);
    let open_to = |line: u64| {
        opened.set(line);
        // To a reader that has gone: it is the one that says why.
        gate.send_replace(line);
    };
    let has_all = || reached() >= opened.get();
    let give_more = || {
        let before = opened.get();
        open_to(lines.min(before + LEAST_LINES));
        opened.get() > before
    };
    let mut killed: BTreeMap<String, Killed> = BTreeMap::new();
    for (done, victim) in (0..).zip(victims) {
        let first = opened.get();
        let end = first + (lines - first) / (count - done);
        let moment = first + (end - first) * rng.random_range(5..80) / 100;
        open_to(end);
        while reached() < moment {
            sleep(POLL).await;
        }
        let at_work = scene.kill(victim, &mut rng, has_all, give_more);
        let at_work = timeout(BUSY_WITHIN, at_work).await;
        let at_work =
            at_work.with_context(|| format!("kill {done} finds no {victim} that works"))??;
        let sum = killed.entry(victim.to_owned()).or_default();
        sum.times += 1;
        sum.at_work += u64::from(at_work);
    }
    open_to(u64::MAX);
    Ok(killed)
}

/// Where the victims are.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) http: &'a reqwest::Client,
    pub(super) runner: &'a Runner,
    pub(super) backlog: &'a Backlog,
}

/// One that may be killed, as it is at one moment.
struct Victim {
    pid: Option<u32>,
    /// What it has done since its start.
    done: u64,
}

impl Scene<'_> {
    /// Kills the runner, or one process of a function, which is started again then. Returns
    /// whether it was at work: not if everything that it `has_all` of is done, and nothing is
    /// left of which to `give_more`.
    async fn kill(
        &self,
        victim: &str,
        rng: &mut StdRng,
        has_all: impl Fn() -> bool,
        give_more: impl Fn() -> bool,
    ) -> anyhow::Result<bool> {
        if victim == QUERY {
            return self.kill_query().await;
        }
        let status = self.runner.status().await?;
        let services = status.services.iter();
        // Beside quota as a consumer group there is the Service, which gets no events then.
        let of_victim = services.filter(|service| {
            let is_delivered_to = status.eventing.iter().any(|one| one.name == service.name);
            service.function() == victim && (service.is_pulling() || is_delivered_to)
        });
        let service = of_victim
            .choose(rng)
            .map_or(RUNNER, |service| &service.name);
        let mut done_before = BTreeMap::new();
        loop {
            if let Some(victim) = self.find(service, rng).await? {
                let before = done_before.insert(victim.pid, victim.done);
                // At rest, or still waiting for its share, it would do nothing in between.
                let does_some = before.is_some_and(|before| before < victim.done);
                let at_work = does_some && self.has_more(service).await?;
                let is_idle = !at_work && has_all() && self.backlog.left().await? == 0;
                let no_more = is_idle && !give_more();
                // One that has just ended by itself is not killed, and another one starts.
                if (at_work || no_more) && self.end(&victim).await? {
                    return Ok(at_work);
                }
            }
            sleep(POLL).await;
        }
    }

    /// Returns a process of a Service or a Deployment, or the runner.
    async fn find(&self, service: &str, rng: &mut StdRng) -> anyhow::Result<Option<Victim>> {
        let status = self.runner.status().await?;
        if service == RUNNER {
            let done = status.eventing.iter().map(|one| one.delivered).sum();
            return Ok(Some(Victim { pid: None, done }));
        }
        let services = status.services.iter().filter(|one| one.name == service);
        let instances = services.flat_map(|service| &service.instances);
        let found = instances
            .filter_map(|one| Some((one.port, one.pid?)))
            .choose(rng);
        let Some((port, pid)) = found else {
            return Ok(None);
        };
        // It may not listen yet.
        let metrics = answers::metrics_at(self.http, port).await.ok();
        Ok(metrics.map(|metrics| Victim {
            pid: Some(pid),
            done: COUNTERS.iter().map(|counter| metrics.sum(counter)).sum(),
        }))
    }

    /// Says whether a Service is being asked, a Deployment has something before it in Kafka, or
    /// the runner delivers.
    async fn has_more(&self, service: &str) -> anyhow::Result<bool> {
        if let Some(left) = self.backlog.left_to_pull(service).await? {
            return Ok(left > 0);
        }
        let status = self.runner.status().await?;
        // What delivers to a Service has its name.
        let mut eventing = status.eventing.iter();
        Ok(eventing.any(|one| [RUNNER, &one.name].contains(&service) && one.in_flight > 0))
    }

    async fn end(&self, victim: &Victim) -> anyhow::Result<bool> {
        match victim.pid {
            Some(pid) => Ok(sigkill(pid)),
            None => self.runner.kill_and_restart().await.map(|()| true),
        }
    }

    /// Kills query while it has a question, and returns whether that was broken off. Nobody else
    /// asks, and who is not asked scales to zero.
    async fn kill_query(&self) -> anyhow::Result<bool> {
        loop {
            let slow = self.ask(SLOW);
            let quick = async {
                let answer = self.ask(QUICK).await;
                let is_up = answer.is_ok_and(|status| status.is_success());
                let status = self.runner.status().await?;
                let pid = status.instances(QUERY).find_map(|instance| instance.pid);
                anyhow::Ok(pid.filter(|_| is_up))
            };
            let mut slow = std::pin::pin!(slow);
            let pid = tokio::select! {
                // Answered too early to be broken off: another question.
                _ = &mut slow => continue,
                pid = quick => pid?,
            };
            if pid.is_some_and(sigkill) {
                let answer = slow.await;
                return Ok(answer.map_or(true, |status| status == StatusCode::BAD_GATEWAY));
            }
        }
    }

    async fn ask(&self, question: &str) -> reqwest::Result<StatusCode> {
        let answer = self.http.get(self.runner.api() + question).send().await?;
        let status = answer.status();
        answer.bytes().await.map(|_| status)
    }
}

/// Says whether there was such a process.
fn sigkill(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.cast_signed());
    pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_read_from_text() {
        let kills = "process=10".parse::<Kills>().unwrap();
        assert_eq!((kills.function.as_str(), kills.times), ("process", 10));
        for text in ["process", "process=", "process=-1", "kafka=1", "=1"] {
            assert!(text.parse::<Kills>().is_err(), "{text}");
        }
    }
}
