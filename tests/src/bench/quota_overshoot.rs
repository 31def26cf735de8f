//! How far over its credits a TPP gets that calls a thousand times a second, through the manifests
//! as they are deployed: each call first asks quota, and is told to the broker if it may be made.
//!
//! Calls are debited when their events come, so some are let in meanwhile. Where the gateway has
//! each call's price held first, not one is: else the bench fails.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use ledger::Accounts;
use reqwest::{Method, RequestBuilder, StatusCode};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Figure, ROUNDS, at,
    quota_load::{DEBITED_WITHIN, LOOK, at_rate, debited, event, send, until_debited, warm_up},
};
use crate::demo::{Mode, wired::Wired};

/// Calls a second, and what a TPP has to spend on them, a credit each.
const A_SECOND: usize = 1000;
const CREDITS: u64 = 2000;

/// For how long it goes on calling after the first refusal.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// What a gateway asks before a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Is anything left?
    Check,
    /// Is its price left? Then it is set aside.
    Hold,
}

/// With checks, and with holds.
pub(super) async fn overshoot() -> anyhow::Result<Vec<Figure>> {
    let measured = Wired::during(Mode::Pull, async |wired| {
        warm_up(wired, A_SECOND).await?;
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            for (ask, allowed) in [Ask::Check, Ask::Hold].into_iter().zip(&mut rounds) {
                allowed.push(Box::pin(run_dry(wired, ask, round)).await? as f64);
            }
        }
        anyhow::Ok(rounds)
    });
    let [checked, held] = Box::pin(measured).await?;
    let figure = |ask: Ask, ours| Figure {
        name: ask.name(),
        ours,
        baseline: vec![CREDITS as f64; ROUNDS],
        unit: "calls let in at 1000 a second",
        against: "what its credits pay for",
    };
    Ok(vec![figure(Ask::Check, checked), figure(Ask::Hold, held)])
}

impl Ask {
    fn name(self) -> &'static str {
        match self {
            Self::Check => "quota_overshoot",
            Self::Hold => "quota_overshoot_holds",
        }
    }

    fn request(self, wired: &Wired, subject: &str, call: &str) -> RequestBuilder {
        let path = format!("/api/v1/quota/{subject}");
        match self {
            Self::Check => wired.api(Method::GET, &format!("{path}/check")),
            Self::Hold => wired
                .admin(Method::PUT, &format!("{path}/holds/{call}"))
                .header("content-type", "application/json")
                .body(r#"{"amount": "1"}"#),
        }
    }
}

/// What became of a TPP's calls.
#[derive(Default)]
struct Calls {
    allowed: AtomicU64,
    refused: AtomicU64,
    /// Where quota could not tell in time, which is configured to be a no.
    not_told: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// When the first call was refused.
    refusal: Option<Instant>,
    /// How many milliseconds each answer took.
    asking: Vec<f64>,
}

impl Calls {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and tells of the call if it may be made.
    async fn call(
        self: Arc<Self>,
        due: Instant,
        ask: RequestBuilder,
        event: RequestBuilder,
    ) -> anyhow::Result<()> {
        let answer = ask.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let answered = Instant::now();
        let word = headers.get("x-quota-status").map(|word| word.as_bytes());
        let text = answer.text().await?;
        let count = match (status, word) {
            (StatusCode::OK, Some(b"ok")) => &self.allowed,
            (StatusCode::PAYMENT_REQUIRED, Some(b"spent")) => {
                self.seen().refusal.get_or_insert(answered);
                &self.refused
            }
            (StatusCode::SERVICE_UNAVAILABLE, Some(b"unavailable")) => &self.not_told,
            _ => bail!("quota answered {status}: {text}"),
        };
        let took = (answered - due).as_secs_f64() * 1000.0;
        self.seen().asking.push(took);
        count.fetch_add(1, Ordering::Relaxed);
        if !status.is_success() {
            return Ok(());
        }
        send(event).await
    }
}

/// Has a TPP call until it is refused, and a little longer, and returns how often it was let in.
async fn run_dry(wired: &Wired, ask: Ask, round: usize) -> anyhow::Result<u64> {
    let subject = format!("{}-{round}", ask.name());
    wired.grant(&subject, &CREDITS.to_string()).await?;
    let (accounts, calls) = (wired.accounts()?, Arc::new(Calls::default()));
    let mut watching = JoinSet::new();
    watching.spawn(spent(accounts.clone(), subject.clone()));
    let began = Instant::now();
    at_rate(A_SECOND, |n, due| {
        let refusal = calls.seen().refusal;
        let is_over = refusal.is_some_and(|refusal| refusal.elapsed() > REFUSED_FOR);
        if is_over || began.elapsed() > DEBITED_WITHIN {
            return None;
        }
        let call = format!("{subject}-{n}");
        let hold = (ask == Ask::Hold).then_some(&*call);
        let event = event(wired, &call, &subject, hold);
        let ask = ask.request(wired, &subject, &call);
        Some(calls.clone().call(due, ask, event))
    })
    .await?;
    let [allowed, refused, not_told] = [&calls.allowed, &calls.refused, &calls.not_told]
        .map(|count| count.load(Ordering::Relaxed));
    let Seen { refusal, asking } = std::mem::take(&mut *calls.seen());
    let refusal = refusal.context("nobody was refused")?;
    until_debited(&accounts, &subject, CREDITS, allowed).await?;
    let spent = watching.join_next().await.context("somebody watches")??;
    // Below zero where the one was refused before the other was seen.
    let after = match spent? {
        spent if refusal >= spent => (refusal - spent).as_secs_f64(),
        spent => -(spent - refusal).as_secs_f64(),
    };
    println!(
        "{:<22} {allowed} of {CREDITS} let in, {refused} refused, {not_told} not answered in time; refused first {:.1} ms after the balance was 0; an answer takes p50 {:.1} ms, p99 {:.1} ms",
        ask.name(),
        after * 1000.0,
        at(&asking, 50),
        at(&asking, 99),
    );
    // A hold may have been placed without an answer in time; a call that is then not made has
    // it until it ends.
    let fewest = CREDITS.saturating_sub(not_told);
    ensure!(
        ask == Ask::Check || (fewest..=CREDITS).contains(&allowed),
        "with holds, {allowed} calls were let in for {CREDITS} credits"
    );
    Ok(allowed)
}

/// Returns when all credits are seen to be debited.
async fn spent(accounts: Accounts, subject: String) -> anyhow::Result<Instant> {
    loop {
        let account = accounts.accounts(&[&subject]).await?;
        let account = account.first().context("an account")?;
        if debited(account, CREDITS)? >= CREDITS {
            return Ok(Instant::now());
        }
        sleep(LOOK).await;
    }
}
