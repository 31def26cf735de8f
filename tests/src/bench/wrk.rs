//! The load: wrk, the same for both sides.

use std::process::Command;

use anyhow::{Context as _, bail};

/// Runs wrk for five seconds against `url`; returns requests answered 2xx a second.
pub(crate) fn requests_per_second(
    url: &str,
    script: &str,
    connections: u32,
) -> anyhow::Result<f64> {
    let output = Command::new("wrk")
        .args(["-t1", "-d5s", "--latency", "-s", script])
        .arg(format!("-c{connections}"))
        .arg(format!("{url}/"))
        .output()
        .context("wrk is needed: apt-get install wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("Non-2xx") {
        bail!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let rate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    rate.context("wrk printed no rate")?
        .trim()
        .parse()
        .context("wrk's rate")
}
