//! The functions as processes: started, watched, killed, stopped.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::sleep,
};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// A function has 30 seconds from SIGTERM to its end, as on Kubernetes.
const STOP_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
const LAST_LINES: usize = 15;

/// A function's binary, its settings, and its process while it has one.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) port: u16,
    binary: PathBuf,
    log: PathBuf,
    settings: Vec<(&'static str, String)>,
    // Never held over an await. It is held from a kill to the new process, so that nobody takes
    // the one for an early death.
    child: Mutex<Option<Child>>,
}

/// How a function started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) name: &'static str,
    /// From the process's start to the first 200 of `/readyz`.
    pub(super) ready_after: Duration,
    /// Resident memory then.
    pub(super) idle_bytes: u64,
}

impl Function {
    pub(super) fn new(
        name: &'static str,
        port: u16,
        binary: PathBuf,
        log: PathBuf,
        mut settings: Vec<(&'static str, String)>,
    ) -> Self {
        settings.push(("PORT", port.to_string()));
        Self {
            name,
            port,
            binary,
            log,
            settings,
            child: Mutex::new(None),
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Starts the process and waits until it is ready.
    async fn start(&self, http: &reqwest::Client) -> anyhow::Result<Start> {
        let began = Instant::now();
        *self.child() = Some(self.spawn(File::create(&self.log)?)?);
        self.ready(http).await?;
        Ok(Start {
            name: self.name,
            ready_after: began.elapsed(),
            idle_bytes: self.resident_bytes(),
        })
    }

    fn spawn(&self, log: File) -> anyhow::Result<Child> {
        // setpriv has the kernel end the function when this process is killed and can end nobody.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&self.binary)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Out of the terminal's group: Ctrl-C is for us, and we say when the function ends.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))
    }

    async fn ready(&self, http: &reqwest::Client) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut last = "nobody listens".to_owned();
        while Instant::now() < deadline {
            self.check()?;
            match http
                .get(self.url("/readyz"))
                .timeout(Duration::from_secs(5))
                .send()
                .await
            {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => last = answer.text().await.unwrap_or_default(),
                Err(_) => {}
            }
            sleep(POLL).await;
        }
        bail!("{} is not ready after {READY_WITHIN:?}: {last}", self.name)
    }

    /// Says, once, what happened if the process has ended.
    fn check(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        let Some(running) = &mut *child else {
            return Ok(());
        };
        let Some(status) = running.try_wait()? else {
            return Ok(());
        };
        *child = None;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
        bail!(
            "{} ended by itself ({status}); the end of {}:\n  {last}",
            self.name,
            self.log.display()
        )
    }

    /// Kills the process in the middle of whatever it does, and starts it again.
    pub(super) fn kill_and_restart(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        let Some(running) = &mut *child else {
            bail!("{} does not run", self.name)
        };
        running.start_kill()?;
        while running.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        *child = Some(self.spawn(File::options().append(true).open(&self.log)?)?);
        Ok(())
    }

    fn terminate(&self) {
        let pid = self
            .child()
            .as_ref()
            .and_then(Child::id)
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            eprintln!("demo: stop {}: {error}", self.name);
        }
    }

    /// Waits for the end of a process that was told to end.
    async fn ended(&self, deadline: Instant) -> anyhow::Result<()> {
        loop {
            {
                let Some(child) = &mut *self.child() else {
                    return Ok(());
                };
                match child.try_wait()? {
                    Some(status) if status.success() => return Ok(()),
                    Some(status) => bail!(
                        "{} ended with {status}, see {}",
                        self.name,
                        self.log.display()
                    ),
                    None if Instant::now() > deadline => {
                        child.start_kill()?;
                        bail!(
                            "{} did not end within {STOP_WITHIN:?} and was killed",
                            self.name
                        );
                    }
                    None => {}
                }
            }
            sleep(POLL).await;
        }
    }

    /// Returns the process's resident memory, 0 without a process.
    pub(super) fn resident_bytes(&self) -> u64 {
        let pid = self.child().as_ref().and_then(Child::id);
        let status = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        resident_bytes(&status.unwrap_or_default())
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// The functions of a run.
pub(super) struct Functions {
    pub(super) ingest: Function,
    pub(super) process: Function,
    pub(super) query: Function,
}

impl Functions {
    /// Returns the function that has this name.
    pub(super) fn named(&self, name: &str) -> anyhow::Result<&Function> {
        let function = self
            .all()
            .into_iter()
            .find(|function| function.name == name);
        function.with_context(|| format!("there is no function {name}"))
    }

    pub(super) fn all(&self) -> [&Function; 3] {
        [&self.ingest, &self.process, &self.query]
    }

    /// Starts all and waits until they are ready.
    pub(super) async fn start(&self, http: &reqwest::Client) -> anyhow::Result<Vec<Start>> {
        futures::future::try_join_all(self.all().map(|function| function.start(http))).await
    }

    /// Returns when one has ended without being told to.
    pub(super) async fn death(&self) -> anyhow::Error {
        loop {
            for function in self.all() {
                if let Err(error) = function.check() {
                    return error;
                }
            }
            sleep(POLL * 10).await;
        }
    }

    /// Stops all in an orderly way.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STOP_WITHIN;
        for function in self.all() {
            function.terminate();
        }
        let ends =
            futures::future::join_all(self.all().map(|function| function.ended(deadline))).await;
        ends.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tingest\nVmRSS:\t   14336 kB\nThreads:\t3\n"),
            14_680_064
        );
        assert_eq!(resident_bytes(""), 0);
    }
}
