//! Dead letters, sent once more.
//!
//! An accepted event goes back to its topic as ingest made it, so counting it again changes
//! nothing. One that no broker could deliver comes in by the same door as any other. A piece is
//! done with only when all of it is durable: a replay that was killed is made again from there,
//! which is as harmless as making one twice.

use axum::{body::Body, extract::State, http::StatusCode};
use futures::{StreamExt as _, TryStreamExt as _};
use runtime::Problem;
use stream::{CloudEvent, DeadLetter, DeadLetters, DeadTopic, DecodeError, http};

use crate::{Config, Ingest, routes::from_knative};

/// How many events are on their way into ingest at a time.
const AT_A_TIME: usize = 64;

/// What is wanted of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Everything, also what was replayed before.
    pub all: bool,
    /// A list, and nothing else.
    pub dry_run: bool,
}

/// What became of dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// They went back to the topic of accepted events.
    pub sent: u64,
    /// Ingest accepted them.
    pub ingested: u64,
    /// Ingest refused them for good.
    pub refused: u64,
    /// They hold no whole CloudEvent.
    pub impossible: u64,
}

/// Sends those letters that were not replayed before once more, and returns when all are durable.
pub async fn replay(config: &Config, wanted: Wanted) -> anyhow::Result<Replayed> {
    let letters = DeadLetters::new(config.kafka.clone());
    // To look must not create topics.
    let ingest = (!wanted.dry_run).then(|| Ingest::connect(config));
    let ingest = ingest.transpose()?;
    let mut pieces = letters.replay(wanted.all).await?;
    let mut total = Replayed::default();
    while let Some(piece) = pieces.next().await? {
        let mut accepted = Vec::new();
        let mut undelivered = Vec::new();
        for letter in &piece.letters {
            let event = letter.event();
            if wanted.dry_run {
                list(letters.topic(letter.of), letter, &event);
            }
            match (event, letter.of) {
                (Err(_), _) => total.impossible += 1,
                (Ok(event), DeadTopic::Events) => accepted.push(event),
                (Ok(event), DeadTopic::Ingest) => undelivered.push((letter, event)),
            }
        }
        total.sent += accepted.len() as u64;
        let Some(ingest) = &ingest else {
            total.ingested += undelivered.len() as u64;
            continue;
        };
        ingest.send_again(accepted).await?;
        for is_taken in ingest_all(ingest, undelivered).await? {
            total.ingested += u64::from(is_taken);
            total.refused += u64::from(!is_taken);
        }
        pieces.done(&piece).await?;
        tracing::info!(?total, "replayed so far");
    }
    Ok(total)
}

/// Lets ingest take events as it takes a broker's, and returns which were taken.
async fn ingest_all(
    ingest: &Ingest,
    events: Vec<(&DeadLetter, CloudEvent)>,
) -> anyhow::Result<Vec<bool>> {
    let taken = events
        .into_iter()
        .map(|(letter, event)| take(ingest, letter, event));
    futures::stream::iter(taken)
        .buffered(AT_A_TIME)
        .try_collect()
        .await
}

async fn take(ingest: &Ingest, letter: &DeadLetter, event: CloudEvent) -> anyhow::Result<bool> {
    // Ingest would give it the time of each replay, and they would not be the same event once the
    // window is over in which a repeat is known.
    let event = match event.time() {
        None => event.with_time(letter.time),
        Some(_) => event,
    };
    // Texts as Knative kept them: it would have delivered them so.
    let Ok((headers, body)) = http::pass_on(event) else {
        refused(letter, "no header takes one of its attributes");
        return Ok(false);
    };
    match from_knative(State(ingest.clone()), headers, Body::from(body)).await {
        Ok(_) => Ok(true),
        Err(problem) if is_final(&problem) => {
            refused(letter, &problem.to_string());
            Ok(false)
        }
        Err(problem) => anyhow::bail!("ingest does not take events now: {problem}"),
    }
}

fn refused(letter: &DeadLetter, why: &str) {
    let (partition, offset) = (letter.partition, letter.offset);
    tracing::warn!(partition, offset, why, "ingest refuses a dead letter");
}

fn is_final(problem: &Problem) -> bool {
    let status = problem.status();
    status.is_client_error()
        && ![StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

fn list(topic: &str, letter: &DeadLetter, event: &Result<CloudEvent, DecodeError>) {
    let (partition, offset, cause) = (letter.partition, letter.offset, letter.cause());
    let (code, destination) = (cause.code, cause.destination);
    match event {
        Ok(event) => {
            let (id, source) = (event.id(), event.source());
            tracing::info!(
                topic,
                partition,
                offset,
                id,
                source,
                code,
                destination,
                "dead letter"
            );
        }
        Err(wrong) => {
            tracing::info!(topic, partition, offset, %wrong, code, destination, "no dead event");
        }
    }
}
