//! A gateway's check before each call: over HTTP against a handler that only answers, and in
//! Valkey itself against a plain GET.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use url::Url;

use super::{
    Figure, ROUNDS, at,
    process::{Bench, valkey},
    started::{Started, start},
    wrk,
};

const SCRIPT: &str = "tests/bench/check.lua";

/// The TPP that the script asks about.
const TPP: &str = "tpp-12345";

/// Connections that a gateway keeps open.
const CONNECTIONS: u32 = 64;

/// Calls of each side in a round, after some that are not measured.
const CALLS: usize = 20_000;
const WARM_UP: usize = 1_000;

const TOKEN: &str = "bench";
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// quota, with an account that has credits.
struct Till {
    bench: Bench,
    /// Database and prefix.
    name: String,
    quota: Started,
}

impl Till {
    async fn open() -> anyhow::Result<Self> {
        let bench = Bench::new();
        let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
        let environment = [
            ("OPENMETER_CLICKHOUSE_ADDRESS", &bench.clickhouse[..]),
            ("OPENMETER_CLICKHOUSE_DATABASE", &name),
            ("OPENMETER_VALKEY_URL", &valkey()),
            ("OPENMETER_VALKEY_PREFIX", &name),
            ("OPENMETER_METERS", "knative/base/meters.yaml"),
            ("OPENMETER_QUOTA_RULES", "knative/base/quota-rules.yaml"),
            ("OPENMETER_ADMIN_TOKEN", TOKEN),
        ];
        let quota = start("quota", &[], &environment, "/readyz").await?;
        let grant = reqwest::Client::new()
            .post(format!("{}/api/v1/quota/{TPP}/grants", quota.url))
            .bearer_auth(TOKEN)
            .header("idempotency-key", "bench")
            .header("content-type", "application/json")
            .body(r#"{"amount": "1000000"}"#);
        grant.send().await?.error_for_status()?;
        Ok(Self { bench, name, quota })
    }

    async fn close(self) -> anyhow::Result<()> {
        drop(self.quota);
        let drop = format!("DROP DATABASE {} SYNC", self.name);
        self.bench.sql(&drop).await?;
        ledger::testing::forget(&valkey(), &self.name).await?;
        Ok(())
    }
}

/// Checks over HTTP, against a handler that only answers.
pub(super) async fn check_http() -> anyhow::Result<Figure> {
    let till = Till::open().await?;
    let bare = start("bench", &["bare"], &[], "/").await?;
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let rate = |url| wrk::requests_per_second(url, SCRIPT, CONNECTIONS);
        ours.push(rate(&till.quota.url)?);
        baseline.push(rate(&bare.url)?);
    }
    till.close().await?;
    Ok(Figure {
        name: "quota_check_http",
        ours,
        baseline,
        unit: "requests/s",
        against: "bare axum handler",
    })
}

/// Checks by one connection to Valkey, against a GET by the same.
pub(super) async fn check_valkey() -> anyhow::Result<Figure> {
    let till = Till::open().await?;
    let name = till.name.clone();
    let figure = tokio::task::spawn_blocking(move || call_valkey(&name)).await?;
    till.close().await?;
    figure
}

fn call_valkey(prefix: &str) -> anyhow::Result<Figure> {
    let mut connection = Connection::open(&valkey())?;
    let (account, plain) = (
        format!("{prefix}:credits:{{{TPP}}}"),
        format!("{prefix}:plain"),
    );
    let answer = connection.call(&command(&["FCALL_RO", "om_check", "1", &account]))?;
    ensure!(
        answer.starts_with(b"*3\r\n:1\r\n"),
        "om_check refuses: {}",
        String::from_utf8_lossy(&answer)
    );
    connection.call(&command(&["SET", &plain, "1"]))?;
    let check = command(&["FCALL_RO", "om_check", "1", &account]);
    let get = command(&["GET", &plain]);
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (name, command, p50s) in [
            ("om_check", &check, &mut ours),
            ("GET", &get, &mut baseline),
        ] {
            let micros = connection.micros(command)?;
            let (p50, p99) = (at(&micros, 50), at(&micros, 99));
            println!("{name:<18} p50 {p50:.1} us, p99 {p99:.1} us");
            p50s.push(p50);
        }
    }
    Ok(Figure {
        name: "quota_check_valkey",
        ours,
        baseline,
        unit: "us to the answer (p50), one connection",
        against: "a GET",
    })
}

/// A connection that speaks as little of Valkey's protocol as this needs.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(url: &str) -> anyhow::Result<Self> {
        let url: Url = url.parse().context("read OPENMETER_VALKEY_URL")?;
        ensure!(
            url.scheme() == "redis" && url.password().is_none(),
            "this bench speaks to a Valkey without TLS and password alone"
        );
        let host = url.host_str().context("Valkey's host")?;
        let stream = TcpStream::connect((host, url.port().unwrap_or(6379)))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWERED_WITHIN))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Returns how many microseconds each of many calls took.
    fn micros(&mut self, command: &[u8]) -> anyhow::Result<Vec<f64>> {
        for _ in 0..WARM_UP {
            self.call(command)?;
        }
        let mut micros = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let began = Instant::now();
            self.call(command)?;
            micros.push(began.elapsed().as_secs_f64() * 1_000_000.0);
        }
        Ok(micros)
    }

    /// Returns the answer as it comes.
    fn call(&mut self, command: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.0.get_mut().write_all(command)?;
        let mut answer = Vec::new();
        self.read(&mut answer)?;
        Ok(answer)
    }

    fn read(&mut self, answer: &mut Vec<u8>) -> anyhow::Result<()> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        answer.extend(&line);
        let text = std::str::from_utf8(&line)
            .context("read an answer")?
            .trim_end();
        let number = |text: &str| text.parse::<usize>().context("read an answer's length");
        match text.split_at_checked(1) {
            Some((":" | "+", _)) => {}
            Some(("*", length)) => {
                for _ in 0..number(length)? {
                    self.read(answer)?;
                }
            }
            Some(("$", length)) => {
                let from = answer.len();
                answer.resize(from + number(length)? + 2, 0);
                self.0.read_exact(&mut answer[from..])?;
            }
            _ => bail!("Valkey answered {text}"),
        }
        Ok(())
    }
}

fn command(words: &[&str]) -> Vec<u8> {
    let words_in_full = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), words_in_full.collect::<String>()).into_bytes()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_an_error_is_one() {
        assert_eq!(command(&["GET", "a"]), b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("redis://{}", server.local_addr().unwrap());
        let mut connection = Connection::open(&url).unwrap();
        let (mut served, _) = server.accept().unwrap();
        for answer in [
            "+OK\r\n",
            "*3\r\n:1\r\n$2\r\n\r\n\r\n$2\r\nok\r\n",
            ":7\r\n",
        ] {
            served.write_all(answer.as_bytes()).unwrap();
            assert_eq!(connection.call(b"x").unwrap(), answer.as_bytes());
        }
        served.write_all(b"-ERR no\r\n").unwrap();
        assert!(connection.call(b"x").is_err());
        assert!(Connection::open("rediss://localhost").is_err());
    }
}
