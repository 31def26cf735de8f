//! The runner as a process, which has the functions as its own: started, asked, killed, stopped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::{names::Names, options::Ports, overlay, status::Status};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// Beyond the half minute that the runner gives to the functions.
const STOP_WITHIN: Duration = Duration::from_secs(40);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
const LAST_LINES: usize = 15;

/// The runner's binary and arguments, and its process while it has one.
pub(super) struct Runner {
    http: reqwest::Client,
    ports: Ports,
    namespace: String,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    // Never held over an await. It is held from a kill to the new process, so that nobody takes
    // the one for an early death.
    child: Mutex<Option<Child>>,
    // What the lives that were ended by a kill had to say.
    past: Mutex<Vec<Status>>,
}

impl Runner {
    /// Returns a runner for the overlay in a run's folder. The functions' binaries are beside
    /// its own.
    pub(super) fn new(
        http: reqwest::Client,
        ports: Ports,
        names: &Names,
        binary: PathBuf,
        folder: &Path,
    ) -> Self {
        let (overlay, state) = (folder.join(overlay::FOLDER), folder.join("runner"));
        let arguments = [
            ("--state", state.display().to_string()),
            ("--ingress-port", ports.ingress.to_string()),
            ("--api-port", ports.api.to_string()),
            ("--admin-port", ports.admin.to_string()),
        ];
        let arguments = arguments
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        let command = ["run".to_owned(), overlay.display().to_string()];
        Self {
            http,
            ports,
            namespace: names.namespace.clone(),
            binary,
            arguments: command.into_iter().chain(arguments).collect(),
            log: folder.join("runner.log"),
            child: Mutex::default(),
            past: Mutex::default(),
        }
    }

    /// Returns where events are posted.
    pub(super) fn broker(&self) -> String {
        format!(
            "http://127.0.0.1:{}/{}/usage",
            self.ports.ingress, self.namespace
        )
    }

    /// Returns the base of the API.
    pub(super) fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.api)
    }

    /// Starts the process, and returns how long it took until everything was in place.
    pub(super) async fn start(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        File::create(&self.log)?;
        let mut running = self.spawn()?;
        let stdout = running.stdout.take();
        *self.child() = Some(running);
        self.ready(stdout).await?;
        Ok(began.elapsed())
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        // setpriv has the kernel end the runner when this process is killed and can end nobody.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&self.binary)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().append(true).open(&self.log)?)
            // Out of the terminal's group: Ctrl-C is for us, and we say when the runner ends.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))
    }

    /// Waits for the line that says so.
    async fn ready(&self, stdout: Option<ChildStdout>) -> anyhow::Result<()> {
        let stdout = stdout.context("the runner has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with("ready ") {
                    return Ok(());
                }
            }
            // Its end says why.
            loop {
                self.check()?;
                sleep(POLL).await;
            }
        };
        timeout(READY_WITHIN, ready).await.with_context(|| {
            format!(
                "the runner is not ready after {READY_WITHIN:?}; the end of its log:\n{}",
                self.last_lines()
            )
        })?
    }

    /// Asks how things are.
    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        let url = format!("http://127.0.0.1:{}/status", self.ports.admin);
        let answer = self.http.get(&url).timeout(ANSWER_WITHIN).send().await?;
        let text = answer.error_for_status()?.text().await?;
        serde_json::from_str(&text).with_context(|| format!("read the status: {text}"))
    }

    /// Returns how things were at the end of each life, and how they are now.
    pub(super) async fn lives(&self) -> anyhow::Result<Vec<Status>> {
        let now = self.status().await?;
        Ok(self.past().iter().cloned().chain([now]).collect())
    }

    /// Kills the process in the middle of whatever it does, and its functions with it; starts it
    /// again, and waits until it is ready.
    pub(super) async fn kill_and_restart(&self) -> anyhow::Result<()> {
        let last = self.status().await?;
        self.past().push(last);
        let stdout = {
            let mut child = self.child();
            let Some(running) = &mut *child else {
                bail!("the runner does not run")
            };
            running.start_kill()?;
            while running.try_wait()?.is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut running = self.spawn()?;
            let stdout = running.stdout.take();
            *child = Some(running);
            stdout
        };
        self.ready(stdout).await
    }

    /// Returns when the process has ended without being told to.
    pub(super) async fn death(&self) -> anyhow::Error {
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            sleep(POLL * 10).await;
        }
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
        bail!(
            "the runner ended by itself ({status}); the end of {}:\n{}",
            self.log.display(),
            self.last_lines()
        )
    }

    fn last_lines(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "  {}",
            lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ")
        )
    }

    /// Stops the process in an orderly way, and its functions with it.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut running) = self.child().take() else {
            return Ok(());
        };
        let pid = running
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        pid.map_or(Ok(()), |pid| kill_process(pid, Signal::TERM))
            .context("stop the runner")?;
        let Ok(status) = timeout(STOP_WITHIN, running.wait()).await else {
            running.start_kill()?;
            bail!("the runner did not end within {STOP_WITHIN:?} and was killed");
        };
        let status = status?;
        if !status.success() {
            bail!("the runner ended with {status}, see {}", self.log.display());
        }
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn past(&self) -> MutexGuard<'_, Vec<Status>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
