//! Kills functions, and the runner that has them, while traffic flows.

use std::{str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use rand::{
    Rng as _, SeedableRng as _, rngs::StdRng, seq::IteratorRandom as _, seq::SliceRandom as _,
};
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
const VICTIMS: [&str; 4] = ["ingest", "process", "query", RUNNER];

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

/// Kills by plan while `lines` lines are posted, of which `reached` says how many were, and
/// returns how often it has.
///
/// The traffic is cut into as many parts as there are kills. A part is let through the gate once
/// the one that is to die works; it dies at a random line of that part, and the rest of the part
/// comes while it is down.
pub(super) async fn kill(
    plan: &[Kills],
    seed: u64,
    scene: Scene<'_>,
    lines: u64,
    reached: impl Fn() -> u64,
    gate: &watch::Sender<u64>,
) -> anyhow::Result<u64> {
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
    // To a reader that has gone: it is the one that says why.
    let open_to = |line: u64| gate.send_replace(line);
    for (done, victim) in (0..).zip(victims) {
        if done > 0 {
            let working = timeout(BUSY_WITHIN, scene.is_working(victim)).await;
            working.with_context(|| format!("{victim} does not work again after kill {done}"))?;
        }
        let (first, end) = (lines * done / count, lines * (done + 1) / count);
        let moment = first + (end - first) * rng.random_range(5..80) / 100;
        let pause = Duration::from_micros(rng.random_range(0..150_000));
        open_to(end);
        while reached() < moment {
            sleep(POLL).await;
        }
        sleep(pause).await;
        let killed = timeout(BUSY_WITHIN, scene.kill(victim, &mut rng)).await;
        killed.with_context(|| format!("there is no {victim} to kill"))??;
    }
    open_to(u64::MAX);
    Ok(count)
}

/// Where the victims are.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) http: &'a reqwest::Client,
    pub(super) runner: &'a Runner,
    pub(super) backlog: &'a Backlog,
}

impl Scene<'_> {
    /// Waits until the victim has done something since it started, or nothing is left to do.
    async fn is_working(&self, victim: &str) {
        let counter = match victim {
            "ingest" => "openmeter_events_ingested_total",
            "process" => "openmeter_events_processed_total",
            // The runner's start was waited for, and query is asked before it is killed.
            _ => return,
        };
        // It may not listen yet.
        while !answers::metrics(self.http, self.runner, victim)
            .await
            .is_ok_and(|metrics| metrics.iter().any(|metrics| metrics.sum(counter) > 0))
            && !self.backlog.left().await.is_ok_and(|left| left == 0)
        {
            sleep(POLL * 4).await;
        }
    }

    /// Kills the runner, or one process of a function, and has it started again.
    async fn kill(&self, victim: &str, rng: &mut StdRng) -> anyhow::Result<()> {
        if victim == RUNNER {
            return self.runner.kill_and_restart().await;
        }
        let question =
            (victim == "query").then(|| self.http.get(self.runner.api() + "/api/v1/meters"));
        loop {
            if let Some(question) = question
                .as_ref()
                .and_then(reqwest::RequestBuilder::try_clone)
            {
                // Nobody else asks, and who is not asked scales to zero.
                drop(question.send().await);
            }
            let status = self.runner.status().await?;
            let processes = status.instances(victim).filter_map(|instance| instance.pid);
            let pid = processes
                .choose(rng)
                .and_then(|pid| Pid::from_raw(pid.cast_signed()));
            // One that has just ended by itself is not killed, and another one starts.
            if pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
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
