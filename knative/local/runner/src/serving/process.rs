//! Processes of the machine: started so that they cannot outlive the runner, told to end, and
//! their lines passed on.

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// What a process inherits from the runner's environment. All else comes from the manifests, as
/// in a container.
const INHERITED: [&str; 3] = ["PATH", "RUST_LOG", "OPENMETER_LOG"];

/// Becomes the program, unless the runner died before the kernel was told to end the process
/// with it: then nobody would.
const UNLESS_ORPHANED: &str = r#"test "$PPID" = "$0" && exec "$@""#;

/// Starts `program`. The kernel kills it when the runner ends, however it ends.
pub(super) async fn start<'a>(
    program: &Path,
    args: impl IntoIterator<Item = &'a String>,
    env: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    label: &str,
) -> io::Result<Child> {
    let runner = std::process::id().to_string();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "--",
            "sh",
            "-c",
            UNLESS_ORPHANED,
            &runner,
        ])
        .arg(program)
        .args(args)
        .env_clear()
        .envs(
            INHERITED
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is the runner's to act on.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = spawn(command).await?;
    if let Some(lines) = child.stdout.take() {
        tokio::spawn(pass_on(lines, label.to_owned()));
    }
    if let Some(lines) = child.stderr.take() {
        tokio::spawn(pass_on(lines, label.to_owned()));
    }
    Ok(child)
}

/// A process to start: on which runtime, and who waits for it.
type Order = (Command, Handle, oneshot::Sender<io::Result<Child>>);

/// Spawns from a thread that lives as long as the runner: the kernel takes the end of the
/// spawning thread, not that of its process, for the parent's death.
async fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, runtime, started) in orders {
                let _entered = runtime.enter();
                // One that nobody waits for any more is killed as it is dropped.
                drop(started.send(command.spawn()));
            }
        });
        sender
    });
    let (started, child) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    orders
        .send((command, Handle::current(), started))
        .map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}

/// Asks the process to end, and kills it after `grace` or when `hurry` says so.
pub(super) async fn stop(
    child: &mut Child,
    grace: Duration,
    hurry: &CancellationToken,
) -> io::Result<ExitStatus> {
    // Until it is waited for, the pid is this process's.
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::debug!(%error, "the process ended by itself");
    }
    let ended = tokio::select! {
        ended = timeout(grace, child.wait()) => ended.ok(),
        () = hurry.cancelled() => None,
    };
    match ended {
        Some(ended) => ended,
        None => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

/// Returns a loopback port that nobody has. Somebody may take it before the process does: then
/// the process ends, and is started again with another.
pub(super) fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Passes a process's lines on to stderr, with its name before each.
async fn pass_on(pipe: impl AsyncRead + Unpin, label: String) {
    let mut pipe = BufReader::new(pipe);
    let mut line = format!("{label} | ").into_bytes();
    let start = line.len();
    loop {
        line.truncate(start);
        match pipe.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // As blocking as the runner's own log. Nobody to read it is no reason to stop reading.
        if let Err(error) = io::stderr().write_all(&line) {
            tracing::debug!(%error, "a line is lost");
        }
    }
}
