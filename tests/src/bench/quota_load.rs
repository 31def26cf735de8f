//! Load on quota by the real wiring: calls at a steady rate, whether or not the earlier ones are
//! answered, each of which costs a credit.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use ledger::{Account, Accounts, Standing};
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::demo::wired::Wired;

/// Micro-credits that a call costs: its latency, which has a price too, is 0.
const COST: i64 = 1_000_000;

/// How long what was sent may take to be debited.
pub(super) const DEBITED_WITHIN: Duration = Duration::from_secs(90);

/// How often Valkey is asked for what it knows.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// Credits of those who are not to run dry.
pub(super) const PLENTY: u64 = 1_000_000;

/// Who calls before anything is measured: until its calls are debited as they come, and then for
/// a while at the rate that is measured.
const EARLY: [&str; 2] = ["early", "early-too"];
const WARM_UP_SECONDS: usize = 5;
const SECOND: Duration = Duration::from_secs(1);

/// Returns the request that tells the broker of a call just made. An identity is one of this run's.
pub(super) fn event(wired: &Wired, id: &str, subject: &str, hold: Option<&str>) -> RequestBuilder {
    let mut event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "bench",
        "type": "api.call",
        "subject": subject,
        "time": Timestamp::now(),
        "data": {
            "endpoint": "/accounts",
            "method": "GET",
            "status_code": 200,
            "response_time_ms": 0,
        },
    });
    if let Some(hold) = hold {
        event["hold"] = json!(hold);
    }
    let request = wired.post_event();
    let request = request.header("content-type", "application/cloudevents+json");
    request.body(event.to_string())
}

/// Sends a request that must succeed.
pub(super) async fn send(request: RequestBuilder) -> anyhow::Result<()> {
    let answer = request.send().await?;
    let (url, status) = (answer.url().clone(), answer.status());
    let text = answer.text().await?;
    ensure!(status.is_success(), "{url} answered {status}: {text}");
    Ok(())
}

/// Makes one call after the other, so many in a second, until there is none. Each is told when it
/// is due, which is what its delays count from, those of this program too.
pub(super) async fn at_rate<F>(
    a_second: usize,
    mut call: impl FnMut(usize, Instant) -> Option<F>,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    for n in 0.. {
        let due = began + SECOND.mul_f64(n as f64 / a_second as f64);
        sleep_until(due).await;
        let Some(call) = call(n, due) else { break };
        calls.spawn(call);
        while let Some(called) = calls.try_join_next() {
            called??;
        }
    }
    while let Some(called) = calls.join_next().await {
        called??;
    }
    Ok(())
}

/// Returns how many calls were debited to an account that had so many credits.
pub(super) fn debited(account: &Account, credits: u64) -> anyhow::Result<u64> {
    ensure!(
        account.standing != Standing::Unknown,
        "an account is lost, which this bench does not expect"
    );
    let debited = credits.cast_signed() * COST - account.balance.micros();
    u64::try_from(debited / COST).context("an account has more than it was granted")
}

/// Returns when so many calls are debited to a subject.
pub(super) async fn until_debited(
    accounts: &Accounts,
    subject: &str,
    credits: u64,
    calls: u64,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let now = accounts.accounts(&[subject]).await?;
        let now = debited(now.first().context("an account")?, credits)?;
        ensure!(
            now <= calls,
            "{subject} made {calls} calls, {now} are debited"
        );
        if now == calls {
            return Ok(());
        }
        ensure!(
            began.elapsed() < DEBITED_WITHIN,
            "after {DEBITED_WITHIN:?}, {now} of {calls} calls of {subject} are debited"
        );
        sleep(LOOK).await;
    }
}

/// Has consumers form their groups and quota fill the registry, without which it judges nothing,
/// and returns once calls are debited as they come, also at the rate that is to be measured.
pub(super) async fn warm_up(wired: &Wired, a_second: usize) -> anyhow::Result<()> {
    for subject in EARLY {
        wired.grant(subject, &PLENTY.to_string()).await?;
    }
    wired.reconcile().await?;
    let (accounts, began) = (wired.accounts()?, Instant::now());
    for n in 0.. {
        send(event(wired, &format!("early-{n}"), EARLY[0], None)).await?;
        // What came too early is debited by reconcile, once a minute; this is about the stream.
        let stream = async {
            loop {
                let account = accounts.accounts(&EARLY[..1]).await?;
                if debited(account.first().context("an account")?, PLENTY)? > 0 {
                    return anyhow::Ok(());
                }
                sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(SECOND, stream).await {
            Ok(is_debited) => {
                is_debited?;
                break;
            }
            Err(_) if began.elapsed() < DEBITED_WITHIN => {}
            Err(_) => bail!("nothing is debited within {DEBITED_WITHIN:?}"),
        }
    }
    let calls = a_second * WARM_UP_SECONDS;
    at_rate(a_second, |n, _| {
        let id = format!("early-too-{n}");
        (n < calls).then(|| send(event(wired, &id, EARLY[1], None)))
    })
    .await?;
    until_debited(&accounts, EARLY[1], PLENTY, calls as u64).await
}
