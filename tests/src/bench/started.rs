//! A process under measurement, gone when dropped.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(20);

pub(crate) struct Started {
    child: Child,
    pub(crate) url: String,
}

impl Drop for Started {
    fn drop(&mut self) {
        // Gone already is as good as killed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Returns the folder of the release binaries: this one is in it.
fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    Ok(here.with_file_name(name))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Starts one of our binaries on a free port and waits until `ready` answers.
pub(crate) async fn start(
    name: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
    ready: &str,
) -> anyhow::Result<Started> {
    let port = free_port()?;
    let mut child = Command::new(binary(name)?)
        .args(arguments)
        .envs(environment.iter().copied())
        .env("PORT", port.to_string())
        .env("OPENMETER_LOG", "warn")
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let url = format!("http://127.0.0.1:{port}");
    let deadline = Instant::now() + READY;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended at once: {status}");
        }
        let answer = reqwest::get(format!("{url}{ready}")).await;
        // The bare handler knows no GET: any answer shows that it listens.
        if answer.is_ok_and(|answer| !answer.status().is_server_error()) {
            return Ok(Started { child, url });
        }
        if Instant::now() > deadline {
            child.kill().ok();
            bail!("{name} was not ready within {READY:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the sum of a Prometheus counter over all its labels.
pub(crate) async fn counter(url: &str, name: &str) -> anyhow::Result<f64> {
    let text = reqwest::get(format!("{url}/metrics")).await?.text().await?;
    let values = text
        .lines()
        .filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(values.sum())
}
