//! What the command line says.

use std::{net::TcpListener, path::PathBuf};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use super::chaos::Kills;

/// Sends generated traffic through ingest, Kafka, process and ClickHouse, and compares what
/// query answers with what the oracle works out.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo")]
pub struct Options {
    /// What to do once the comparison is printed.
    pub mode: Mode,

    /// Distinct regular events; repeats, conflicts and defects come on top.
    #[arg(long, env = "EVENTS", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub events: u64,

    /// Seed of the traffic and of the moments of --chaos.
    #[arg(long, env = "SEED", default_value_t = 1)]
    pub seed: u64,

    /// Connections over which the gateway posts.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// Rows of the printed table; all rows are compared whatever this is.
    #[arg(long, default_value_t = 15)]
    pub rows: usize,

    /// Kills a function N times with SIGKILL while traffic flows, and starts it again.
    #[arg(long, value_name = "FUNCTION=N")]
    pub chaos: Vec<Kills>,

    /// Posts the whole file a second time before comparing.
    #[arg(long)]
    pub resend: bool,

    /// Deletes what the functions keep in Valkey, then posts the whole file again.
    #[arg(long)]
    pub flush_valkey: bool,

    /// Port of ingest: 8080 with run, a free one with demo.
    #[arg(long, env = "OPENMETER_INGEST_PORT")]
    pub ingest_port: Option<u16>,

    /// Port of process: 8081 with run, a free one with demo.
    #[arg(long, env = "OPENMETER_PROCESS_PORT")]
    pub process_port: Option<u16>,

    /// Port of query: 8888 with run, a free one with demo.
    #[arg(long, env = "OPENMETER_QUERY_PORT")]
    pub query_port: Option<u16>,

    /// Brokers of Kafka.
    #[arg(long, env = "OPENMETER_KAFKA_BROKER", default_value = "127.0.0.1:9092")]
    pub kafka: String,

    /// Address of ClickHouse.
    #[arg(
        long,
        env = "OPENMETER_CLICKHOUSE_ADDRESS",
        default_value = "http://127.0.0.1:8123"
    )]
    pub clickhouse: String,

    /// Address of Valkey.
    #[arg(
        long,
        env = "OPENMETER_VALKEY_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    pub valkey: String,

    /// Where engines, logs and traffic are kept.
    #[arg(long, env = "OPENMETER_STATE_DIR", default_value = ".state")]
    pub state: PathBuf,

    /// The meter definitions.
    #[arg(
        long,
        env = "OPENMETER_METERS",
        default_value = "knative/base/meters.yaml"
    )]
    pub meters: PathBuf,
}

/// What to do once the comparison is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Stay up until Ctrl-C, for a person who wants to try things.
    Run,
    /// End; the exit code says whether everything was equal.
    Demo,
}

/// Where the functions listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) ingest: u16,
    pub(super) process: u16,
    pub(super) query: u16,
}

impl Options {
    /// Returns the ports, all of them free at this moment: a stranger that listens there would
    /// answer in our function's place.
    pub(super) fn ports(&self) -> anyhow::Result<Ports> {
        let port = |given: Option<u16>, usual: u16| {
            let wanted = given.unwrap_or(if self.mode == Mode::Run { usual } else { 0 });
            let listener = TcpListener::bind(("0.0.0.0", wanted)).with_context(|| {
                format!(
                    "port {wanted} is taken; stop what listens there, or choose another port (ARGS=--help lists how)"
                )
            })?;
            anyhow::Ok(listener)
        };
        // Held together until all are known, or two might be one.
        let (ingest, process, query) = (
            port(self.ingest_port, 8080)?,
            port(self.process_port, 8081)?,
            port(self.query_port, 8888)?,
        );
        Ok(Ports {
            ingest: ingest.local_addr()?.port(),
            process: process.local_addr()?.port(),
            query: query.local_addr()?.port(),
        })
    }
}
