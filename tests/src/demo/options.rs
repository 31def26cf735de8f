//! What the command line says.

use std::{io, net::TcpListener, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use rand::Rng as _;

use super::chaos::Kills;

/// How old the first event is by default. The last one is then an hour old, so that no repeat's
/// later `time` is in the future.
const USUAL_AGE: SignedDuration = SignedDuration::from_hours(9);

/// Sends generated traffic through the broker and the functions that the manifests wire up, and
/// compares what query answers with what the oracle works out.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo")]
pub struct Options {
    /// What to do once the comparison is printed.
    pub command: Command,

    /// How accepted events reach process and quota.
    #[arg(long, env = "MODE", default_value = "push")]
    pub mode: Mode,

    /// Distinct regular events; repeats, conflicts and defects come on top.
    #[arg(long, env = "EVENTS", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub events: u64,

    /// Seed of the traffic and of the moments of --chaos.
    #[arg(long, env = "SEED", default_value_t = 1)]
    pub seed: u64,

    /// From when on the events' times are, in RFC 3339: nine hours ago on the hour, if it is not
    /// said. Of those more than half a day before they are taken, quota leaves the debits to
    /// its reconcile.
    #[arg(long, value_name = "TIME")]
    pub start: Option<Timestamp>,

    /// Over how many hours they are spread.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub hours: u32,

    /// Connections over which the gateway posts.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// Rows of the printed table; all rows are compared whatever this is.
    #[arg(long, default_value_t = 15)]
    pub rows: usize,

    /// Kills ingest, process, quota, query or the runner N times with SIGKILL, each time while it has
    /// work under way. Several are separated by commas.
    #[arg(long, value_name = "FUNCTION=N", value_delimiter = ',')]
    pub chaos: Vec<Kills>,

    /// Cuts the functions off from ClickHouse for so many seconds while traffic flows.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub clickhouse_away: Duration,

    /// Posts the whole file a second time before comparing.
    #[arg(long)]
    pub resend: bool,

    /// Deletes what the functions keep in Valkey, then posts the whole file again. Of N times,
    /// all but the last are while the file is posted first.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        default_missing_value = "1",
        num_args = 0..=1
    )]
    pub flush_valkey: u32,

    /// Port of the broker's ingress: 8080 with run, a free one with demo.
    #[arg(long, env = "OPENMETER_INGRESS_PORT")]
    pub ingress_port: Option<u16>,

    /// Port of the API: 8888 with run, a free one with demo.
    #[arg(long, env = "OPENMETER_API_PORT")]
    pub api_port: Option<u16>,

    /// Port of nginx, before a bank's API: 8000 with run, a free one with demo.
    #[arg(long, env = "OPENMETER_GATEWAY_PORT")]
    pub gateway_port: Option<u16>,

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
}

/// What to do once the comparison is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Command {
    /// Stay up until Ctrl-C, for a person who wants to try things.
    Run,
    /// End; the exit code says whether everything was equal.
    Demo,
}

/// How accepted events reach process and quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A KafkaSource delivers one after the other to the Service.
    Push,
    /// A Deployment reads them from Kafka in batches.
    Pull,
    /// Both, each of them all events.
    Both,
}

impl Mode {
    pub(super) fn pushes(self) -> bool {
        self != Self::Pull
    }

    pub(super) fn pulls(self) -> bool {
        self != Self::Push
    }
}

/// Where the runner and nginx listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) ingress: u16,
    pub(super) api: u16,
    pub(super) admin: u16,
    pub(super) gateway: u16,
}

impl Options {
    /// Returns from when on the events' times are.
    pub(super) fn start(&self, now: Timestamp) -> Timestamp {
        let on_the_hour = || {
            let hours = now.as_second().div_euclid(3600);
            Timestamp::from_second(hours * 3600).unwrap_or(now)
        };
        self.start.unwrap_or_else(|| on_the_hour() - USUAL_AGE)
    }

    /// Returns the ports, all of them free at this moment: a stranger that listens there would
    /// answer in our place.
    pub(super) fn ports(&self) -> anyhow::Result<Ports> {
        let port = |given: Option<u16>, usual: u16| {
            let usual = (self.command == Command::Run).then_some(usual);
            let Some(wanted) = given.or(usual) else {
                return free_port().context("find a free port");
            };
            listen(wanted).with_context(|| {
                format!(
                    "port {wanted} is taken; stop what listens there, or choose another port (ARGS=--help lists how)"
                )
            })
        };
        // Held together until all are known, or two might be one.
        let (ingress, api, gateway, admin) = (
            port(self.ingress_port, 8080)?,
            port(self.api_port, 8888)?,
            port(self.gateway_port, 8000)?,
            free_port()?,
        );
        Ok(Ports {
            ingress: ingress.local_addr()?.port(),
            api: api.local_addr()?.port(),
            admin: admin.local_addr()?.port(),
            gateway: gateway.local_addr()?.port(),
        })
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("0.0.0.0", port))
}

/// Below the ports that the kernel gives to connections: one of those would be taken while the
/// runner is killed, at worst by a connection of the gateway to itself.
fn free_port() -> io::Result<TcpListener> {
    let mut attempts = std::iter::repeat_with(|| listen(rand::rng().random_range(20_000..32_768)));
    let found = attempts.by_ref().take(100).find_map(Result::ok);
    found.map_or_else(|| listen(0), Ok)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "is no number of seconds")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_separated_by_commas_or_given_one_by_one() {
        let chaos = |arguments: &[&str]| {
            let command = ["demo", "demo"].iter().chain(arguments);
            Options::try_parse_from(command).map(|options| options.chaos)
        };
        let together = chaos(&["--chaos", "ingest=10,process=10,query=10,runner=10"]).unwrap();
        assert_eq!(together.len(), 4);
        let apart = ["ingest=10", "process=10,query=10", "runner=10"];
        let apart = apart.map(|kills| format!("--chaos={kills}"));
        assert_eq!(
            chaos(&apart.each_ref().map(String::as_str)).unwrap(),
            together
        );
        assert!(chaos(&["--chaos", "ingest=1,kafka=1"]).is_err());
    }

    #[test]
    fn a_flush_is_one_unless_it_is_said_how_many() {
        let flushes = |arguments: &[&str]| {
            let command = ["demo", "demo"].iter().chain(arguments);
            Options::try_parse_from(command).map(|options| options.flush_valkey)
        };
        assert_eq!(flushes(&[]).unwrap(), 0);
        assert_eq!(flushes(&["--flush-valkey"]).unwrap(), 1);
        assert_eq!(flushes(&["--flush-valkey", "--resend"]).unwrap(), 1);
        assert_eq!(flushes(&["--flush-valkey", "2"]).unwrap(), 2);
    }

    #[test]
    fn events_are_recent_unless_their_time_is_given() {
        let now: Timestamp = "2026-03-01T00:59:59.9Z".parse().unwrap();
        let start = |arguments: &[&str]| {
            let command = ["demo", "demo"].iter().chain(arguments);
            Options::try_parse_from(command).map(|options| options.start(now).to_string())
        };
        assert_eq!(start(&[]).unwrap(), "2026-02-28T15:00:00Z");
        let given = "2024-01-15T00:00:00Z";
        assert_eq!(start(&["--start", given]).unwrap(), given);
        assert!(start(&["--start", "2024-01-15"]).is_err());
    }
}
