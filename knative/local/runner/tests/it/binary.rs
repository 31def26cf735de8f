//! The program itself, as a driver sees it: its lines, its status, its end and that of its
//! processes.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use runner::manifests::render;
use rustix::process::Signal;
use serde::Deserialize as _;
use serde_json::Value;
use serde_yaml_ng::Value as Yaml;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use crate::support::{eventually, in_time, new_folder, runs, signal};

const MANIFESTS: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: echo
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/min-scale: "2"
    spec:
      containers:
        - image: echo-function:1
          volumeMounts:
            - name: files
              mountPath: /etc/files
      volumes:
        - name: files
          configMap:
            name: files
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: all
spec:
  rules:
    - backendRefs:
        - name: echo
          port: 80
"#;

/// A folder of manifests.
struct Overlay(PathBuf);

impl Overlay {
    fn new(manifests: &str) -> Self {
        let folder = new_folder();
        let kustomization = "namespace: ns\nresources: [manifests.yaml]\nconfigMapGenerator:\n\
             - name: files\n  files: [file.txt]\ngeneratorOptions:\n  disableNameSuffixHash: true\n";
        std::fs::write(folder.join("kustomization.yaml"), kustomization).unwrap();
        std::fs::write(folder.join("manifests.yaml"), manifests).unwrap();
        std::fs::write(folder.join("file.txt"), "old").unwrap();
        Self(folder)
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        command
            .arg(verb)
            .arg(&self.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A runner that is ready.
struct Runner {
    child: Child,
    /// Open as long as the runner may write to it.
    _stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    ready: String,
}

impl Runner {
    async fn start(overlay: &Overlay) -> Self {
        let ports = [
            "--ingress-port",
            "0",
            "--api-port",
            "0",
            "--admin-port",
            "0",
        ];
        let mut command = overlay.command("run");
        command
            .args(ports)
            .arg("--state")
            .arg(overlay.0.join("state"));
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = in_time(stdout.next_line()).await.unwrap().unwrap();
        Self {
            child,
            _stdout: stdout,
            stderr,
            ready,
        }
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What the ready line has for `name`.
    fn url(&self, name: &str) -> String {
        let mut words = self.ready.split(' ');
        assert_eq!(words.next(), Some("ready"));
        let prefix = format!("{name}=");
        words
            .find_map(|word| word.strip_prefix(&prefix))
            .unwrap()
            .to_owned()
    }

    async fn get(&self, name: &str, path: &str) -> Bytes {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::get(format!("{}{path}", self.url(name)));
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = in_time(client.request(request)).await.unwrap();
        assert_eq!(answer.status(), 200);
        in_time(answer.into_body().collect())
            .await
            .unwrap()
            .to_bytes()
    }

    async fn status(&self) -> Value {
        serde_json::from_slice(&self.get("admin", "/status").await).unwrap()
    }

    /// The pids of the two pods, once both are ready.
    async fn pods(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        eventually(async || {
            let status = self.status().await;
            let pods = status["services"][0]["instances"].as_array().unwrap();
            let ready = pods.iter().filter(|pod| pod["state"] == "ready");
            pids = ready
                .map(|pod| pod["pid"].as_u64().unwrap() as u32)
                .collect();
            pids.len() == 2
        })
        .await;
        pids
    }

    async fn ended(&mut self) -> ExitStatus {
        in_time(self.child.wait()).await.unwrap()
    }
}

#[tokio::test]
async fn it_says_when_it_is_ready_and_ends_in_order() {
    let overlay = Overlay::new(MANIFESTS);
    let mut runner = Runner::start(&overlay).await;
    let pods = runner.pods().await;
    assert!(pods.iter().all(|pid| runs(*pid)));
    let status = runner.status().await;
    let echo = &status["services"][0];
    assert_eq!(
        (&echo["namespace"], &echo["name"]),
        (&"ns".into(), &"echo".into())
    );
    assert_eq!(echo["instances"][0]["restarts"], 0);
    assert!(echo["instances"][0]["port"].as_u64().unwrap() > 0);
    assert_eq!(echo["coldStarts"]["count"], 0);
    let lines = &mut runner.stderr;
    eventually(async || lines.next_line().await.unwrap().unwrap() == "echo-1 | echo listens").await;

    signal(runner.pid(), Signal::TERM);

    assert!(runner.ended().await.success());
    assert!(!pods.into_iter().any(runs));
}

#[tokio::test]
async fn its_processes_do_not_outlive_it() {
    let overlay = Overlay::new(MANIFESTS);
    let mut runner = Runner::start(&overlay).await;
    let pods = runner.pods().await;

    signal(runner.pid(), Signal::KILL);

    runner.ended().await;
    eventually(async || !pods.iter().copied().any(runs)).await;
}

#[tokio::test]
async fn sighup_writes_changed_files() {
    let overlay = Overlay::new(MANIFESTS);
    let mut runner = Runner::start(&overlay).await;
    let mounted = overlay.0.join("state/ns/echo/etc/files/file.txt");
    assert_eq!(std::fs::read_to_string(&mounted).unwrap(), "old");
    std::fs::write(overlay.0.join("file.txt"), "new").unwrap();

    signal(runner.pid(), Signal::HUP);

    eventually(async || std::fs::read_to_string(&mounted).unwrap() == "new").await;
    signal(runner.pid(), Signal::TERM);
    assert!(runner.ended().await.success());
}

#[tokio::test]
async fn mistakes_are_told_together_and_nothing_starts() {
    let wrong = MANIFESTS
        .replace("containers:", "nodeSelector: {}\n      containers:")
        .replace("name: echo\n          port", "name: nobody\n          port");
    let overlay = Overlay::new(&wrong);

    let output = in_time(overlay.command("run").output()).await.unwrap();

    assert_eq!(output.status.code(), Some(64));
    assert!(output.stdout.is_empty());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("spec.template.spec.nodeSelector: unknown field"),
        "{told}"
    );
    assert!(told.contains("there is no Service ns/nobody"), "{told}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told() {
    let overlay = Overlay::new(&MANIFESTS.replace("echo-function:1", "no-such-program:1"));
    let mut command = overlay.command("run");
    command.args(["--ingress-port", "0", "--api-port", "0"]);

    let output = in_time(command.output()).await.unwrap();

    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("no-such-program for ns/echo"), "{told}");
}

#[tokio::test]
async fn a_folder_is_rendered_as_yaml() {
    let overlay = Overlay::new(&MANIFESTS.replace(
        "spec:\n      containers",
        "spec:\n      timeoutSeconds: 600\n      containers",
    ));

    let output = in_time(overlay.command("render").output()).await.unwrap();

    assert!(output.status.success());
    let yaml = String::from_utf8(output.stdout).unwrap();
    // Not into JSON's values, which have ways of their own to write a number down.
    let printed: Vec<Yaml> = serde_yaml_ng::Deserializer::from_str(&yaml)
        .map(|object| Yaml::deserialize(object).unwrap())
        .collect();
    let rendered: Vec<Yaml> = render(&overlay.0)
        .unwrap()
        .into_iter()
        .map(|object| serde_yaml_ng::from_str(&object.value.to_string()).unwrap())
        .collect();
    assert_eq!(printed, rendered);
    let spec = &printed[0]["spec"]["template"]["spec"];
    assert_eq!(spec["timeoutSeconds"], 600, "{yaml}");
}
