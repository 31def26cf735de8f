//! Services of the echo function, and waiting for what must come.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use runner::{
    cluster::Cluster,
    manifests::Object,
    serving::{Folders, Phase, Plan, Service},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An object as the renderer would give it.
pub(crate) fn object(value: Value) -> Object {
    let text = |pointer| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    Object {
        api_version: text("/apiVersion").into(),
        kind: text("/kind").into(),
        namespace: "ns".into(),
        name: text("/metadata/name").into(),
        file: "test.yaml".into(),
        value: value.clone(),
    }
}

/// A Service `echo` that has no pods at first. `change` is made to its pod template.
pub(crate) fn echo(change: impl FnOnce(&mut Value)) -> Object {
    let mut value = json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "echo"},
        "spec": {"template": {
            "metadata": {"annotations": {"autoscaling.knative.dev/initial-scale": "0"}},
            "spec": {
                "timeoutSeconds": 60,
                "containers": [{
                    "name": "echo",
                    "image": "example.org/team/echo-function:1.2.3",
                    "readinessProbe": {"httpGet": {"path": "/readyz"}},
                }],
            },
        }},
    });
    change(&mut value["spec"]["template"]);
    object(value)
}

/// Sets autoscaling annotations.
pub(crate) fn scaled(template: &mut Value, annotations: &[(&str, &str)]) {
    for (name, value) in annotations {
        let name = format!("autoscaling.knative.dev/{name}");
        template["metadata"]["annotations"][name] = json!(value);
    }
}

pub(crate) fn container(template: &mut Value) -> &mut Value {
    &mut template["spec"]["containers"][0]
}

/// The folder of the test's programs.
pub(crate) fn programs() -> PathBuf {
    let echo = Path::new(env!("CARGO_BIN_EXE_echo-function"));
    echo.parent().unwrap().to_owned()
}

/// A folder that nobody else has.
pub(crate) fn new_folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("runner-test-{}", Uuid::new_v4()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A cluster of a test. Its folder goes with it, its processes do in any case.
pub(crate) struct Running {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) state: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.state).unwrap();
    }
}

pub(crate) fn start(objects: &[Object]) -> Running {
    let plan = Plan::read(objects).unwrap();
    let state = new_folder();
    let folders = Folders {
        programs: programs(),
        state: state.clone(),
    };
    let cluster = Cluster::start(plan, folders).unwrap();
    Running { cluster, state }
}

impl Running {
    pub(crate) fn service(&self) -> Arc<Service> {
        self.cluster.service("ns", "echo").unwrap().clone()
    }

    /// Takes all down, so that the test leaves nothing.
    pub(crate) async fn stop(self) {
        in_time(self.cluster.stop(PATIENCE)).await;
    }
}

pub(crate) fn get(path: &str) -> Request<Bytes> {
    let uri = format!("http://echo.ns.svc.cluster.local{path}");
    Request::get(uri).body(Bytes::new()).unwrap()
}

/// Asks for `path`, and fails unless the answer is whole.
pub(crate) async fn ask(service: &Service, path: &str) -> Response<Bytes> {
    in_time(service.ask(get(path))).await.unwrap()
}

/// Asks for `path`, and returns the answer's text.
pub(crate) async fn text(service: &Service, path: &str) -> String {
    let answer = ask(service, path).await;
    assert_eq!(answer.status(), 200, "{path}");
    String::from_utf8(answer.into_body().to_vec()).unwrap()
}

/// Asks whoever listens on a port of this machine, and returns the answer's text.
pub(crate) async fn direct(port: u16, path: &str) -> String {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("http://127.0.0.1:{port}{path}"));
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let answer = in_time(client.request(request)).await.unwrap();
    let body = in_time(answer.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

pub(crate) async fn ready(service: &Service, count: usize) {
    let ready =
        service.until(|pods| pods.iter().filter(|pod| pod.state == Phase::Ready).count() == count);
    in_time(ready).await;
}

/// Fails when `future` does not come.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .expect("it should have come by now")
}

/// Asks again and again until `condition` holds.
pub(crate) async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    in_time(async {
        while !condition().await {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Says whether a process runs. One that nobody has waited for does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    state.is_some_and(|state| !matches!(state, b'Z' | b'X'))
}
