//! A Valkey that comes back with an old snapshot: it remembers its epochs, and has
//! forgotten what was registered since.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    Stored, claim, count,
    credits::{account, accounts_at, credit, debit, take},
    now, registry_at,
};
use ledger::{Outcome, Standing};

/// A Valkey of the test's own, with snapshots, gone when dropped.
struct Server {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// The binary that `make up` installed.
fn binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let state = std::env::var("OPENMETER_STATE_DIR")
        .map_or_else(|_| root.join(".state"), |state| root.join(state));
    let find = Command::new("find")
        .arg(state.join("valkey/venv"))
        .args(["-name", "valkey-server", "-type", "f"])
        .output();
    let found = String::from_utf8(find.unwrap().stdout).unwrap();
    found
        .lines()
        .next()
        .expect("valkey-server must be installed: make up")
        .into()
}

fn spawn(folder: &Path, port: u16) -> Child {
    Command::new(binary())
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
        ])
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

impl Server {
    async fn start(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ledger-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self {
            child: spawn(&folder, port),
            folder,
            port,
        };
        server.answers().await;
        server
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn ask(&self, command: &str) -> redis::RedisResult<redis::Value> {
        let mut connection = redis::Client::open(self.url())?
            .get_multiplexed_async_connection()
            .await?;
        redis::cmd(command).query_async(&mut connection).await
    }

    async fn answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.ask("PING").await.is_err() {
            assert!(Instant::now() < deadline, "valkey must answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.folder, self.port);
        self.answers().await;
    }
}

#[tokio::test]
async fn a_snapshot_is_not_trusted_for_what_came_after_it() {
    let mut server = Server::start("snapshot").await;
    let registry = registry_at(&server.url(), "om").await;
    let (stored, t) = (Stored::default(), now());
    let before = [claim("before", 1, t, 1)];
    count(&registry, &stored, &before).await;
    server.ask("SAVE").await.unwrap();
    let after = [claim("after", 2, t, 1)];
    count(&registry, &stored, &after).await;
    server.crash().await;

    // The connection finds its way back on its own, at the second attempt at the latest.
    let repeats = [claim("before", 10, t + 1, 1), claim("after", 20, t + 1, 1)];
    registry.judge(&repeats, &stored).await.ok();
    let winners = count(&registry, &stored, &repeats).await;
    assert_eq!(winners, [before[0].seen, after[0].seen]);
}

#[tokio::test]
async fn a_server_without_snapshots_comes_back_empty_and_is_filled() {
    let mut server = Server::start("empty").await;
    let registry = registry_at(&server.url(), "om").await;
    let (stored, t) = (Stored::default(), now());
    let first = [claim("a", 1, t, 1)];
    count(&registry, &stored, &first).await;
    server.crash().await;
    registry.judge(&first, &stored).await.ok();
    let winners = count(&registry, &stored, &[claim("a", 9, t + 1, 1)]).await;
    assert_eq!(winners, [first[0].seen]);
}

#[tokio::test]
async fn an_account_of_a_snapshot_is_unknown_and_is_told_from_the_start() {
    let mut server = Server::start("accounts").await;
    // The functions come with the first call.
    let accounts = accounts_at(&server.url(), "om");
    let whole = accounts.tell_all(&["whole", "telling"]).await.unwrap();
    credit(&accounts, "whole", "g", 100).await;
    let opened = accounts.open_all(&[("whole", None, &whole[0])]).await;
    assert_eq!(opened.unwrap(), [true]);
    server.ask("SAVE").await.unwrap();
    let debits = [debit("a", 1)];
    for subject in ["whole", "telling"] {
        take(&accounts, subject, 1, &debits).await.unwrap();
    }
    server.crash().await;

    // The connection finds its way back on its own, at the second attempt at the latest.
    accounts.prepare().await.ok();
    let standing = async |subject| account(&accounts, subject).await.standing;
    assert_eq!(standing("whole").await, Standing::Unknown);
    let opened = accounts.open_all(&[("telling", None, &whole[1])]).await;
    assert_eq!(opened.unwrap(), [false], "its debit is gone");
    let again = accounts.tell_all(&["whole"]).await.unwrap();
    let debited = take(&accounts, "whole", 1, &debits).await.unwrap();
    assert_eq!(debited.outcomes, [Outcome::Debited]);
    let opened = accounts.open_all(&[("whole", None, &again[0])]).await;
    assert_eq!(opened.unwrap(), [true]);
    assert_eq!(standing("whole").await, Standing::Unlimited);
}
