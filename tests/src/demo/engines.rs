//! The engines, by their script: brought up for a run, and taken down by it if it started them.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// The engines that this run started.
#[derive(Default)]
pub(super) struct Engines {
    started: Vec<String>,
}

impl Engines {
    /// Brings up what is down.
    pub(super) async fn up(&mut self, root: &Path) -> anyhow::Result<()> {
        let status = script(root, &["status"])
            .stdout(Stdio::piped())
            .output()
            .await
            .context("ask for the engines")?;
        // Before they start: an interrupt while they do must take them down as well.
        self.started = down(&String::from_utf8_lossy(&status.stdout));
        let up = script(root, &["up"]).status().await?;
        ensure!(up.success(), "the engines are not up");
        Ok(())
    }

    /// Takes down what [`Engines::up`] brought up, and says what else runs on.
    pub(super) async fn down(&self, root: &Path) -> anyhow::Result<()> {
        for name in &self.started {
            script(root, &["stop", name])
                .status()
                .await
                .with_context(|| format!("stop {name}"))?;
        }
        if self.started.is_empty() {
            eprintln!("the engines ran before and run on: make down stops them");
        }
        Ok(())
    }
}

fn script(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(root.join("knative/local/engines/engines"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Returns the names of the engines that a status table calls down.
fn down(table: &str) -> Vec<String> {
    table
        .lines()
        .filter_map(|line| {
            let mut cells = line.split_whitespace();
            let name = cells.next()?;
            (cells.next()? == "down").then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_down_is_taken_down() {
        let table = "engine      state     address         pid    version\n\
                     kafka       up        127.0.0.1:9092  22436  4.4.0\n\
                     clickhouse  down      http://x:8123   -      -\n\
                     valkey      external  redis://x:6379  -      9.1.2\n";
        assert_eq!(down(table), ["clickhouse"]);
    }
}
