//! A TPP that runs dry at nginx and is topped up.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use reqwest::StatusCode;
use tokio::{fs::File, io::AsyncWriteExt as _, time::sleep};

use super::{accounts::Accounts, backlog::Backlog, bank::Bank};
use crate::nginx::Nginx;

/// Who it is, so that no traffic is its own but this.
const TPP: &str = "tpp-dry";
const ENDPOINT: &str = "/accounts";

/// Who calls before it, once.
const EARLIER_TPP: &str = "tpp-early";

/// What it has, and how many calls that pays for: each costs a credit, and 0.0045 of one for the
/// 45 ms that the bank says.
const CREDITS: &str = "20";
const PAID_CALLS: u64 = 20;
const TOP_UP: &str = "100";

/// How long each step may take; a consumer group may have to form first.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

/// What happened.
#[derive(Debug)]
pub(super) struct Story {
    /// Calls that were let in before the first refusal.
    allowed: u64,
    /// From the answer to the call that used the last credit up to the refusal of another.
    refused_after: Duration,
    /// What the refused one was told.
    refusal: String,
    /// From the top-up's answer to the answer to a call that was let in.
    let_in_after: Duration,
    /// The events of all calls that were let in, as they were posted.
    pub(super) events: Vec<String>,
}

/// Plays it, and returns once its last call is in the broker.
pub(super) async fn play(
    http: &reqwest::Client,
    nginx: &Nginx,
    bank: &Bank,
    backlog: &Backlog,
    accounts: &mut Accounts,
) -> anyhow::Result<Story> {
    let url = format!("{}{ENDPOINT}", nginx.url());
    // The very first event finds consumers that form a group, and an empty registry, by which
    // quota cannot judge it. All others are debited as they come.
    accounts.grant(EARLIER_TPP, CREDITS, "first").await?;
    until_let_in(http, &url, EARLIER_TPP).await?;
    backlog.is_worked_off(PATIENCE, |_| ()).await?;

    accounts.grant(TPP, CREDITS, "first").await?;
    let (mut allowed, mut used_up) = (0, Instant::now());
    let refusal = loop {
        let (status, body) = call(http, &url, TPP).await?;
        match status {
            StatusCode::OK => allowed += 1,
            StatusCode::PAYMENT_REQUIRED => break body,
            _ => bail!("{url} answered {status}: {body}"),
        }
        if allowed <= PAID_CALLS {
            used_up = Instant::now();
        }
        patient(used_up, "nobody is refused")?;
    };
    let refused_after = used_up.elapsed();
    ensure!(
        allowed >= PAID_CALLS,
        "{allowed} calls were let in, and {PAID_CALLS} were paid for"
    );

    accounts.grant(TPP, TOP_UP, "top-up").await?;
    let topped_up = Instant::now();
    until_let_in(http, &url, TPP).await?;
    Ok(Story {
        allowed,
        refused_after,
        refusal: refusal.trim().to_owned(),
        let_in_after: topped_up.elapsed(),
        events: bank.calls(),
    })
}

async fn until_let_in(http: &reqwest::Client, url: &str, tpp: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let (status, body) = call(http, url, tpp).await?;
        if status.is_success() {
            return Ok(());
        }
        patient(
            began,
            &format!("{tpp} is still refused with {status}: {body}"),
        )?;
        sleep(POLL).await;
    }
}

async fn call(
    http: &reqwest::Client,
    url: &str,
    tpp: &str,
) -> anyhow::Result<(StatusCode, String)> {
    let request = http.get(url).header("x-tpp-id", tpp);
    let answer = request
        .send()
        .await
        .context("call the bank through nginx")?;
    Ok((answer.status(), answer.text().await?))
}

fn patient(since: Instant, what: &str) -> anyhow::Result<()> {
    ensure!(since.elapsed() < PATIENCE, "after {PATIENCE:?}, {what}");
    Ok(())
}

impl Story {
    /// Adds the events to a file of traffic: as they are counted once, they may be sent again
    /// with it, and the oracle knows of them.
    pub(super) async fn append_to(&self, file: &Path) -> anyhow::Result<()> {
        let mut file = File::options().append(true).open(file).await?;
        let lines = self.events.join("\n") + "\n";
        file.write_all(lines.as_bytes()).await?;
        file.flush().await.context("add the calls to the traffic")
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            allowed, refusal, ..
        } = self;
        let millis = |span: Duration| span.as_secs_f64() * 1000.0;
        writeln!(
            f,
            "{TPP} calls {ENDPOINT} through nginx, and has {CREDITS} credits:"
        )?;
        let after = millis(self.refused_after);
        writeln!(
            f,
            "  {allowed} calls are let in, of which {PAID_CALLS} use the credits up; {after:.1} ms after that one it is refused:"
        )?;
        writeln!(f, "    402 {refusal}")?;
        let let_in = millis(self.let_in_after);
        write!(
            f,
            "  topped up with {TOP_UP}, it is let in {let_in:.1} ms later"
        )
    }
}
