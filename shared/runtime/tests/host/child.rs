//! `runtime-hello` as a process, with an environment of its own.

use std::{net::SocketAddr, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{self, ChildStdout, Command},
};

pub(crate) struct Child {
    process: process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(crate) fn start<const N: usize>(env: [(&str, &str); N]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_runtime-hello"))
            .env_clear()
            .envs(env)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Reads the log up to a message.
    pub(crate) async fn wait_for(&mut self, message: &str) -> Value {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["message"] == message {
                return line;
            }
        }
        panic!("the log ended before {message:?}");
    }

    /// Reads the log up to the address that it listens on.
    pub(crate) async fn address(&mut self) -> SocketAddr {
        let line = self.wait_for("serving").await;
        let listens_on: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
        SocketAddr::from(([127, 0, 0, 1], listens_on.port()))
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.process.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.await.unwrap().success());
    }

    /// Reads the log to its end and returns it with the exit code.
    pub(crate) async fn end(mut self) -> (Option<i32>, Vec<Value>) {
        let mut log = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            log.push(serde_json::from_str(&line).unwrap());
        }
        (self.process.wait().await.unwrap().code(), log)
    }
}

pub(crate) fn messages(log: &[Value]) -> Vec<&str> {
    log.iter()
        .filter_map(|line| line["message"].as_str())
        .collect()
}
