//! Kills functions while traffic flows.

use std::{str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    answers::Metrics,
    functions::{Function, Functions},
    gateway::Gateway,
};

const POLL: Duration = Duration::from_millis(5);
/// A killed consumer's partitions are given to its successor only after its session ends.
const BUSY_WITHIN: Duration = Duration::from_secs(60);
/// Below this a function would be killed before it got anything.
const LEAST_LINES: u64 = 100;

/// Which function is killed, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kills {
    function: String,
    times: u16,
}

impl FromStr for Kills {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is not FUNCTION=N, with ingest or process as the function".to_owned();
        let (function, times) = text.split_once('=').ok_or_else(wrong)?;
        // Query has nothing in flight that could be lost.
        if !["ingest", "process"].contains(&function) {
            return Err(wrong());
        }
        Ok(Self {
            function: function.to_owned(),
            times: times.parse().map_err(|_| wrong())?,
        })
    }
}

/// Kills by plan while `gateway` posts `lines` lines, and returns how often it has.
///
/// The traffic is cut into as many parts as there are kills. A part is let through the gate once
/// the function that is to die works; it dies at a random line of that part, and the rest of
/// the part comes while it is down.
pub(super) async fn kill(
    plan: &[Kills],
    seed: u64,
    functions: &Functions,
    gateway: &Gateway,
    lines: u64,
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
    let before = gateway.posted();
    let http = reqwest::Client::new();
    for (done, victim) in (0..).zip(victims) {
        let function = functions.named(victim)?;
        if done > 0 {
            let working = timeout(BUSY_WITHIN, is_working(&http, function)).await;
            working.with_context(|| format!("{victim} does not work again after kill {done}"))?;
        }
        let (first, end) = (lines * done / count, lines * (done + 1) / count);
        let moment = first + (end - first) * rng.random_range(5..80) / 100;
        let pause = Duration::from_micros(rng.random_range(0..150_000));
        open_to(end);
        while gateway.posted() < before + moment {
            sleep(POLL).await;
        }
        sleep(pause).await;
        function.kill_and_restart()?;
    }
    open_to(u64::MAX);
    Ok(count)
}

/// Waits until the function has done something since it started.
async fn is_working(http: &reqwest::Client, function: &Function) {
    let counter = if function.name == "ingest" {
        "openmeter_events_ingested_total"
    } else {
        "openmeter_events_processed_total"
    };
    loop {
        // It may not listen yet.
        if Metrics::of(http, function)
            .await
            .is_ok_and(|metrics| metrics.sum(counter) > 0)
        {
            return;
        }
        sleep(POLL * 4).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_read_from_text() {
        let kills = "process=10".parse::<Kills>().unwrap();
        assert_eq!((kills.function.as_str(), kills.times), ("process", 10));
        for text in ["process", "process=", "process=-1", "query=1", "=1"] {
            assert!(text.parse::<Kills>().is_err(), "{text}");
        }
    }
}
