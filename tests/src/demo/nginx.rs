//! nginx as `knative/gateways/nginx.conf` has it, with the addresses of a run.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{names::Names, options::Ports};

const CONF: &str = "nginx.conf";
const READY_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// An nginx of our own; it ends when this is dropped.
pub(super) struct Nginx {
    url: String,
    _process: Child,
}

impl Nginx {
    /// Starts it before a bank, in a folder of the run's.
    pub(super) async fn start(
        root: &Path,
        folder: &Path,
        names: &Names,
        ports: Ports,
        bank: SocketAddr,
    ) -> anyhow::Result<Self> {
        let folder = folder.join("nginx");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let conf = fs::read_to_string(root.join("knative/gateways").join(CONF));
        let conf = addressed(&conf.context("read nginx.conf")?, names, ports, bank)?;
        fs::write(folder.join(CONF), conf).context("write nginx.conf")?;
        // As with the runner, it is not to outlive us. A master killed leaves its workers.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program())
            .args(["-e", "error.log", "-c", CONF])
            .args(["-g", "daemon off; master_process off;"])
            .arg("-p")
            .arg(&folder)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start nginx")?;
        let (port, until) = (ports.gateway, Instant::now() + READY_WITHIN);
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
    pub(super) fn url(&self) -> &str {
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

/// Returns the configuration with other addresses; each must be there, once.
fn addressed(conf: &str, names: &Names, ports: Ports, bank: SocketAddr) -> anyhow::Result<String> {
    let quota = format!("quota.{}.svc", names.namespace);
    let mut conf = conf.to_owned();
    for (usual, ours) in [
        (
            "listen 127.0.0.1:8000;",
            format!("listen 127.0.0.1:{};", ports.gateway),
        ),
        ("server 127.0.0.1:9000;", format!("server {bank};")),
        (
            "server 127.0.0.1:8888 ",
            format!("server 127.0.0.1:{} ", ports.api),
        ),
        ("quota.open-banking.svc", quota),
    ] {
        let times = conf.matches(usual).count();
        ensure!(times == 1, "nginx.conf has {usual} {times} times, not once");
        conf = conf.replace(usual, &ours);
    }
    Ok(conf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Command;

    #[test]
    fn the_gateway_of_the_manifests_gets_the_addresses_of_a_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let conf = fs::read_to_string(root.join("knative/gateways").join(CONF)).unwrap();
        let names = Names::of(Command::Demo, "1");
        let ports = Ports {
            ingress: 1,
            api: 2,
            admin: 3,
            gateway: 4,
        };
        let ours = addressed(&conf, &names, ports, "127.0.0.1:5".parse().unwrap()).unwrap();
        for line in [
            "listen 127.0.0.1:4;",
            "server 127.0.0.1:5;",
            "server 127.0.0.1:2 ",
            "Host quota.open-banking-1.svc.cluster.local;",
        ] {
            assert!(ours.contains(line), "{line} is not in {ours}");
        }
        let twice = conf.repeat(2);
        assert!(addressed(&twice, &names, ports, "127.0.0.1:5".parse().unwrap()).is_err());
    }
}
