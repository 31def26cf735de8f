//! Sends webhooks: each on its own, three times at most, so in no order.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, StatusCode};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Attempt, Status};
use crate::server::Lago;

/// Attempts in all.
const ATTEMPTS: u32 = 3;

/// Delivers what comes until it is dropped, and what is under way with it.
pub(crate) async fn deliver(
    lago: Arc<Lago>,
    client: Client,
    mut queue: mpsc::UnboundedReceiver<Attempt>,
) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            attempt = queue.recv() => match attempt {
                Some(attempt) => {
                    under_way.spawn(one(Arc::clone(&lago), client.clone(), attempt));
                }
                None => return,
            },
            Some(_) = under_way.join_next() => {}
        }
    }
}

async fn one(lago: Arc<Lago>, client: Client, attempt: Attempt) {
    let second = Duration::from_millis(lago.organization().settings.webhook_second_ms);
    let (mut sent, mut status) = (0, Status::Failed);
    for number in 1..=ATTEMPTS {
        sent += 1;
        if post(&client, &attempt).await {
            status = Status::Succeeded;
            break;
        }
        if number < ATTEMPTS {
            tokio::time::sleep(wait_after(number, second)).await;
        }
    }
    if status == Status::Succeeded {
        for _ in 1..attempt.copies {
            sent += 1;
            post(&client, &attempt).await;
        }
    }
    lago.organization().delivered(attempt.key, sent, status);
}

/// The wait after the failed attempt `number`. Lago adds some of it by chance.
fn wait_after(number: u32, second: Duration) -> Duration {
    second * (number.pow(4) + 2)
}

/// Whether the receiver took it.
async fn post(client: &Client, attempt: &Attempt) -> bool {
    let request = client
        .post(&attempt.url)
        .header("content-type", "application/json")
        .header("x-lago-signature", &attempt.signature)
        .header("x-lago-signature-algorithm", attempt.algorithm.name())
        .header("x-lago-unique-key", attempt.key.to_string())
        .body(attempt.body.clone());
    match request.send().await {
        Ok(answer) => is_success(answer.status()),
        Err(error) => {
            tracing::debug!("webhook {}: {error}", attempt.key);
            false
        }
    }
}

fn is_success(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 201 | 202 | 204)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_after_three_and_eighteen_seconds() {
        let waits = [1, 2].map(|number| wait_after(number, Duration::from_secs(1)).as_secs());
        assert_eq!(waits, [3, 18]);
    }

    #[test]
    fn four_statuses_are_success() {
        let taken: Vec<_> = (100..600)
            .filter(|code| StatusCode::from_u16(*code).is_ok_and(is_success))
            .collect();
        assert_eq!(taken, [200, 201, 202, 204]);
    }
}
