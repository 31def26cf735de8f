//! The gateway: posts the traffic to ingest as one in production would.
//!
//! Single events in binary and in structured mode and batches take turns on each connection. The
//! lines of one identity go over one connection, in the file's order, since the first of them
//! must win. What ingest cannot take now is sent again later; what it refuses is counted.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use reqwest::{RequestBuilder, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt as _, BufReader},
    sync::{mpsc, watch},
    time::sleep,
};

use super::delivery::Delivery;

/// Events of a batch.
const BATCH: usize = 100;
/// Events that go alone before the next turn.
const SINGLES: usize = 25;
/// Lines that wait for a connection.
const QUEUE: usize = 2 * BATCH;
/// How long an event is tried for before the run fails.
const PATIENCE: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What ingest said to the lines of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    /// By status.
    pub(super) refused: BTreeMap<u16, u64>,
    pub(super) requests: u64,
    /// Requests that were sent again, because the answer said later or did not come.
    pub(super) retries: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.requests += other.requests;
        self.retries += other.retries;
        for (status, count) in &other.refused {
            *self.refused.entry(*status).or_default() += count;
        }
    }

    pub(super) fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// Posts files. How far it is can be seen from outside.
pub(super) struct Gateway {
    http: reqwest::Client,
    url: String,
    workers: u16,
    posted: AtomicU64,
}

impl Gateway {
    pub(super) fn new(http: reqwest::Client, url: String, workers: u16) -> Self {
        Self {
            http,
            url,
            workers,
            posted: AtomicU64::new(0),
        }
    }

    /// Returns how many lines have been answered, of all files.
    pub(super) fn posted(&self) -> u64 {
        self.posted.load(Ordering::Relaxed)
    }

    /// Posts the lines of a file and returns when all are answered. It goes no further than the
    /// line that `gate` names.
    pub(super) async fn post(
        &self,
        file: &Path,
        gate: watch::Receiver<u64>,
    ) -> anyhow::Result<Tally> {
        let (lanes, workers): (Vec<_>, Vec<_>) = (0..self.workers)
            .map(|_| {
                let (lane, lines) = mpsc::channel(QUEUE);
                (
                    lane,
                    Connection {
                        gateway: self,
                        lines,
                        tally: Tally::default(),
                    }
                    .work(),
                )
            })
            .unzip();
        let (tallies, ()) = futures::future::try_join(
            futures::future::try_join_all(workers),
            read(file, lanes, gate),
        )
        .await?;
        let mut sum = Tally::default();
        tallies.iter().for_each(|tally| sum.add(tally));
        Ok(sum)
    }
}

/// Reads a file and gives each line to its lane.
async fn read(
    file: &Path,
    lanes: Vec<mpsc::Sender<Delivery>>,
    mut gate: watch::Receiver<u64>,
) -> anyhow::Result<()> {
    let file = File::open(file)
        .await
        .with_context(|| format!("open {}", file.display()))?;
    let mut lines = BufReader::new(file).lines();
    let mut number = 0;
    while let Some(line) = lines.next_line().await? {
        number += 1;
        gate.wait_for(|open_to| number <= *open_to)
            .await
            .context("the gate is gone")?;
        let delivery = Delivery::new(line);
        let lane = usize::try_from(delivery.lane() % lanes.len() as u64)?;
        if lanes[lane].send(delivery).await.is_err() {
            // The connection has failed, and tells why itself.
            break;
        }
    }
    Ok(())
}

/// What ingest said to one request.
enum Answer {
    Taken,
    Refused(StatusCode, String),
}

struct Connection<'a> {
    gateway: &'a Gateway,
    lines: mpsc::Receiver<Delivery>,
    tally: Tally,
}

impl Connection<'_> {
    async fn work(mut self) -> anyhow::Result<Tally> {
        for turn in 0.. {
            // As many as are there: a gateway does not hold events back to fill a batch.
            let mut deliveries = Vec::new();
            let (is_batch, limit) = if turn % 3 == 0 {
                (true, BATCH)
            } else {
                (false, SINGLES)
            };
            if self.lines.recv_many(&mut deliveries, limit).await == 0 {
                break;
            }
            if is_batch {
                self.post_batch(&deliveries).await?;
            } else {
                for delivery in &deliveries {
                    self.post_one(delivery, turn % 3 == 1).await?;
                }
            }
        }
        Ok(self.tally)
    }

    async fn post_one(&mut self, delivery: &Delivery, in_binary: bool) -> anyhow::Result<()> {
        let binary = delivery.binary().filter(|_| in_binary);
        let request = match binary {
            Some(binary) => {
                let request = self.gateway.http.post(&self.gateway.url);
                let request = binary
                    .headers
                    .into_iter()
                    .fold(request, |request, (name, value)| {
                        request.header(name, value)
                    });
                request.body(binary.body)
            }
            None => self.request(
                "application/cloudevents+json",
                delivery.structured().to_owned(),
            ),
        };
        match self.send(request).await? {
            Answer::Taken => self.taken(1),
            Answer::Refused(status, _) => self.refused(status),
        }
        Ok(())
    }

    /// Posts events as one batch. If it is refused, those that the answer names go alone, to
    /// have an answer of their own, and the others once more together.
    async fn post_batch(&mut self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        let (mut together, mut alone): (Vec<_>, Vec<_>) =
            deliveries.iter().partition(|delivery| delivery.is_event());
        while !together.is_empty() {
            let events: Vec<&str> = together
                .iter()
                .map(|delivery| delivery.structured())
                .collect();
            let request = self.request(
                "application/cloudevents-batch+json",
                format!("[{}]", events.join(",")),
            );
            let Answer::Refused(_, problem) = self.send(request).await? else {
                self.taken(together.len() as u64);
                break;
            };
            let bad = named(&problem);
            let is_named = |index: &usize| bad.contains(index);
            if !(0..together.len()).any(|index| is_named(&index)) {
                alone.append(&mut together);
                break;
            }
            let all = std::mem::take(&mut together).into_iter().enumerate();
            let (named, others): (Vec<_>, Vec<_>) = all.partition(|(index, _)| is_named(index));
            alone.extend(named.into_iter().map(|(_, delivery)| delivery));
            together = others.into_iter().map(|(_, delivery)| delivery).collect();
        }
        for delivery in alone {
            self.post_one(delivery, false).await?;
        }
        Ok(())
    }

    fn request(&self, media_type: &str, body: String) -> RequestBuilder {
        self.gateway
            .http
            .post(&self.gateway.url)
            .header("content-type", media_type)
            .body(body)
    }

    /// Sends a request until it is taken or refused for good.
    async fn send(&mut self, request: RequestBuilder) -> anyhow::Result<Answer> {
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let attempt = request
                .try_clone()
                .context("a request that cannot be repeated")?;
            self.tally.requests += 1;
            let (why, asked) = match attempt.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(Answer::Taken),
                Ok(answer) if is_final(answer.status()) => {
                    return Ok(Answer::Refused(
                        answer.status(),
                        answer.text().await.unwrap_or_default(),
                    ));
                }
                Ok(answer) => {
                    let seconds = answer
                        .headers()
                        .get(RETRY_AFTER)
                        .and_then(|value| value.to_str().ok()?.parse().ok());
                    (
                        answer.status().to_string(),
                        seconds.map(Duration::from_secs),
                    )
                }
                Err(error) => (format!("{:#}", anyhow::Error::from(error)), None),
            };
            if began.elapsed() > PATIENCE {
                bail!("ingest took nothing for {PATIENCE:?}; its last answer: {why}");
            }
            self.tally.retries += 1;
            sleep(asked.unwrap_or(pause)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn taken(&mut self, events: u64) {
        self.tally.accepted += events;
        self.gateway.posted.fetch_add(events, Ordering::Relaxed);
    }

    fn refused(&mut self, status: StatusCode) {
        *self.tally.refused.entry(status.as_u16()).or_default() += 1;
        self.gateway.posted.fetch_add(1, Ordering::Relaxed);
    }
}

/// Says whether sending the same again is of no use.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        )
}

/// Returns the places of the events that a refusal names.
fn named(problem: &str) -> Vec<usize> {
    #[derive(Deserialize, Default)]
    struct Problem {
        #[serde(default)]
        extensions: Extensions,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Extensions {
        #[serde(default)]
        validation_errors: Vec<Wrong>,
    }
    #[derive(Deserialize)]
    struct Wrong {
        index: Option<usize>,
    }
    let problem: Problem = serde_json::from_str(problem).unwrap_or_default();
    problem
        .extensions
        .validation_errors
        .iter()
        .filter_map(|wrong| wrong.index)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_events() {
        let problem = r#"{"status":400,"extensions":{"validationErrors":[
            {"index":3,"field":"time"},{"field":"batch"},{"index":7,"field":"id"}]}}"#;
        assert_eq!(named(problem), [3, 7]);
        assert_eq!(named("no JSON"), [0; 0]);
        assert_eq!(named("{}"), [0; 0]);
    }

    #[test]
    fn later_is_no_refusal() {
        for (status, expected) in [
            (400, true),
            (413, true),
            (408, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(
                is_final(StatusCode::from_u16(status).unwrap()),
                expected,
                "{status}"
            );
        }
    }
}
