//! nginx as `knative/gateways/nginx.conf` has it, with other addresses.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{Instant, sleep},
};

const CONF: &str = include_str!("../../knative/gateways/nginx.conf");
const READY_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// Where nginx listens, and whom it asks.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The bank's API.
    pub bank: SocketAddr,
    /// quota, or a gateway that goes by the host below.
    pub quota: SocketAddr,
    /// The host that quota is asked by.
    pub quota_host: String,
    /// The port that nginx listens on; a free one if there is none.
    pub listen: Option<u16>,
}

/// An nginx of our own; it ends when this is dropped.
pub struct Nginx {
    url: String,
    _process: Child,
}

impl Nginx {
    /// Starts it in a folder, which is made, with `changes` to its configuration besides.
    pub async fn start(
        folder: &Path,
        addresses: &Addresses,
        changes: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let port = match addresses.listen {
            Some(port) => port,
            None => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                listener.local_addr()?.port()
            }
        };
        let conf = changes
            .iter()
            .try_fold(addressed(CONF, addresses, port)?, |conf, (from, to)| {
                replaced(&conf, from, to)
            })?;
        fs::write(folder.join("nginx.conf"), conf).context("write nginx.conf")?;
        // As with the runner, it is not to outlive us. A master killed leaves its workers.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program())
            .args(["-e", "error.log", "-c", "nginx.conf"])
            .args(["-g", "daemon off; master_process off;"])
            .arg("-p")
            .arg(folder)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start nginx")?;
        let until = Instant::now() + READY_WITHIN;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = process.try_wait()? {
                let log = fs::read_to_string(folder.join("error.log")).unwrap_or_default();
                bail!(
                    "nginx ended with {status} (apt-get install nginx-light brings it): {}",
                    log.lines().last().unwrap_or_default()
                );
            }
            ensure!(
                Instant::now() < until,
                "nginx does not listen on port {port}"
            );
            sleep(POLL).await;
        }
        Ok(Self {
            url: format!("http://127.0.0.1:{port}"),
            _process: process,
        })
    }

    /// Returns where TPPs call the bank.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Debian has it where only root looks.
fn program() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/nginx");
    if debian.exists() {
        debian
    } else {
        "nginx".into()
    }
}

fn addressed(conf: &str, addresses: &Addresses, port: u16) -> anyhow::Result<String> {
    let Addresses {
        bank,
        quota,
        quota_host,
        ..
    } = addresses;
    [
        (
            "listen 127.0.0.1:8000;",
            format!("listen 127.0.0.1:{port};"),
        ),
        ("server 127.0.0.1:9000;", format!("server {bank};")),
        ("server 127.0.0.1:8888 ", format!("server {quota} ")),
        (
            "quota.open-banking.svc.cluster.local;",
            format!("{quota_host};"),
        ),
    ]
    .iter()
    .try_fold(conf.to_owned(), |conf, (from, to)| {
        replaced(&conf, from, to)
    })
}

/// Replaces what must be there, once.
fn replaced(conf: &str, from: &str, to: &str) -> anyhow::Result<String> {
    let times = conf.matches(from).count();
    ensure!(
        times == 1,
        "nginx.conf has {from:?} {times} times, not once"
    );
    Ok(conf.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_gets_other_addresses() {
        let addresses = Addresses {
            bank: "127.0.0.1:5".parse().unwrap(),
            quota: "127.0.0.1:2".parse().unwrap(),
            quota_host: "quota.here".to_owned(),
            listen: None,
        };
        let ours = addressed(CONF, &addresses, 4).unwrap();
        for line in [
            "listen 127.0.0.1:4;",
            "server 127.0.0.1:5;",
            "server 127.0.0.1:2 ",
            "Host quota.here;",
        ] {
            assert!(ours.contains(line), "{line} is not in {ours}");
        }
        assert!(addressed(&CONF.repeat(2), &addresses, 4).is_err());
    }
}
