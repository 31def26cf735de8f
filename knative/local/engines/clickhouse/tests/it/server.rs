//! Starts the binary on a free port and a folder of its own, and stops it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use clickhouse::Client;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;

pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) folder: TempDir,
}

/// The library, or a sentence on how to get it.
fn library() -> PathBuf {
    let path = std::env::var_os("OPENMETER_CLICKHOUSE_LIB").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../.state/clickhouse/libchdb.so"),
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "no libchdb at {}: run `make up`, or set OPENMETER_CLICKHOUSE_LIB to its path",
        path.display()
    );
    path
}

/// The binary, ready to be started on a folder.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickhouse-engine"));
    command
        .env("OPENMETER_CLICKHOUSE_LIB", library())
        .env("OPENMETER_CLICKHOUSE_DATA", folder)
        .env("OPENMETER_CLICKHOUSE_LISTEN", "127.0.0.1:0")
        .env("OPENMETER_CLICKHOUSE_READONLY_USER", "grafana:secret")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_on(TempDir::new().unwrap())
    }

    pub(crate) fn start_on(folder: TempDir) -> Self {
        let mut child = command(folder.path()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some(url) = line
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
        else {
            let mut error = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut error)
                .unwrap();
            panic!("the server did not start: {error}");
        };
        let url = url.trim_end_matches(',').to_owned();
        Self { child, url, folder }
    }

    /// The crate `clickhouse`, validating rows and packing with LZ4 as by default.
    pub(crate) fn client(&self) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        Client::with_http_client(http).with_url(&self.url)
    }

    /// Posts SQL and returns the answer, whatever its status.
    pub(crate) async fn post(&self, url: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let answer = reqwest::Client::new()
            .post(format!("{}/{url}", self.url))
            .body(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Posts SQL that must succeed.
    pub(crate) async fn run(&self, sql: &str) -> String {
        let (status, text) = self.post("", sql.to_owned()).await;
        assert_eq!(status, 200, "{sql}: {text}");
        text
    }

    /// SIGKILL, as by `kill -9`.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let unused = TempDir::new().unwrap();
        std::mem::replace(&mut self.folder, unused)
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is no failure here.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
