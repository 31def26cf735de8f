//! The gateway: posts the traffic as one in production would.
//!
//! On each connection single events in binary and in structured mode, which go to the broker,
//! and batches, which a broker does not take and which go to the API, take turns. What cannot be
//! taken now is sent again later; what is refused is counted.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use reqwest::{RequestBuilder, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use tokio::{sync::mpsc, time::sleep};

use super::{delivery::Delivery, waves::Waves};

/// Events of a batch.
const BATCH: usize = 100;
/// Events that go alone before the next turn.
const SINGLES: usize = 50;
/// Lines that wait for a connection.
const QUEUE: usize = 2 * BATCH;
/// How long an event is tried for before the run fails.
const PATIENCE: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What was said to the lines of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    /// By status.
    pub(super) refused: BTreeMap<u16, u64>,
    pub(super) requests: u64,
    /// Requests that were sent again, because the answer said later or did not come.
    pub(super) retries: u64,
    /// How long it took.
    pub(super) posting: Duration,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.requests += other.requests;
        self.retries += other.retries;
        self.posting += other.posting;
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
    broker: String,
    api: String,
    workers: u16,
    posted: AtomicU64,
}

impl Gateway {
    /// Returns a gateway that posts to the URL of a broker and to the base of the API.
    pub(super) fn new(http: reqwest::Client, broker: String, api: &str, workers: u16) -> Self {
        Self {
            http,
            broker,
            api: format!("{api}/api/v1/events"),
            workers,
            posted: AtomicU64::new(0),
        }
    }

    /// Returns how many lines have been answered, of all files.
    pub(super) fn posted(&self) -> u64 {
        self.posted.load(Ordering::Relaxed)
    }

    /// Posts the deliveries of a wave and returns when all are answered.
    pub(super) async fn post(&self, wave: &mut Waves<'_>) -> anyhow::Result<Tally> {
        let (lanes, workers): (Vec<_>, Vec<_>) = (0..self.workers)
            .map(|_| {
                let (lane, lines) = mpsc::channel(QUEUE);
                let connection = Connection {
                    gateway: self,
                    lines,
                    tally: Tally::default(),
                };
                (lane, connection.work())
            })
            .unzip();
        let began = Instant::now();
        let workers = futures::future::try_join_all(workers);
        let (tallies, ()) = futures::future::try_join(workers, deal(wave, lanes)).await?;
        let mut sum = Tally {
            posting: began.elapsed(),
            ..Tally::default()
        };
        tallies.iter().for_each(|tally| sum.add(tally));
        Ok(sum)
    }
}

/// Gives the deliveries of a wave to the connections in turn.
async fn deal(wave: &mut Waves<'_>, lanes: Vec<mpsc::Sender<Delivery>>) -> anyhow::Result<()> {
    for lane in lanes.iter().cycle() {
        let Some(delivery) = wave.next().await? else {
            break;
        };
        if lane.send(delivery).await.is_err() {
            // The connection has failed, and tells why itself.
            break;
        }
    }
    Ok(())
}

/// What was said to one request.
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
                let request = self.gateway.http.post(&self.gateway.broker);
                let request = binary
                    .headers
                    .into_iter()
                    .fold(request, |request, (name, value)| {
                        request.header(name, value)
                    });
                request.body(binary.body)
            }
            None => self.request(
                &self.gateway.broker,
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

    /// Posts events as one batch. If it is refused, those that the answer names go alone to the
    /// broker, which does not ask for all that OpenMeter's API asks for, and the others once
    /// more together.
    async fn post_batch(&mut self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        let (mut together, mut alone): (Vec<_>, Vec<_>) =
            deliveries.iter().partition(|delivery| delivery.is_event());
        while !together.is_empty() {
            let events: Vec<&str> = together
                .iter()
                .map(|delivery| delivery.structured())
                .collect();
            let request = self.request(
                &self.gateway.api,
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

    fn request(&self, url: &str, media_type: &str, body: String) -> RequestBuilder {
        let request = self.gateway.http.post(url);
        request.header("content-type", media_type).body(body)
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
                bail!("nothing was taken for {PATIENCE:?}; the last answer: {why}");
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
