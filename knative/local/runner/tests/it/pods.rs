//! Pods: how many there are, what they are given, how they end and come back.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use runner::serving::Phase;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    ask, container, direct, echo, eventually, in_time, object, ready, runs, scaled, signal, start,
    text,
};

#[tokio::test]
async fn a_service_starts_with_one_pod_unless_told_otherwise() {
    let running = start(&[echo(|template| {
        template["metadata"]["annotations"] = json!({});
    })]);
    ready(&running.service(), 1).await;
    assert_eq!(running.service().cold_starts().count, 0);
    running.stop().await;
}

#[tokio::test]
async fn without_requests_for_a_window_the_last_pod_goes() {
    let running = start(&[echo(|template| scaled(template, &[("window", "6s")]))]);
    let service = running.service();
    let first = text(&service, "/pid").await;

    ready(&service, 0).await;
    in_time(service.until(<[_]>::is_empty)).await;

    assert!(!runs(first.parse().unwrap()));
    assert_ne!(text(&service, "/pid").await, first);
    assert_eq!(service.cold_starts().count, 2);
    running.stop().await;
}

#[tokio::test]
async fn more_requests_than_a_pod_should_have_bring_more_pods() {
    let running = start(&[echo(|template| {
        scaled(
            template,
            &[("target", "2"), ("max-scale", "3"), ("window", "6s")],
        );
    })]);
    let service = running.service();

    let held = join_all((0..12).map(|_| ask(&service, "/hold")));
    let released = async {
        ready(&service, 3).await;
        let ports: Vec<u16> = service.pods().iter().map(|pod| pod.port).collect();
        eventually(async || {
            let held = join_all(ports.iter().map(|port| direct(*port, "/held"))).await;
            held.iter()
                .map(|held| held.parse::<u32>().unwrap())
                .sum::<u32>()
                == 12
        })
        .await;
        join_all(ports.iter().map(|port| direct(*port, "/release"))).await;
    };
    let (answers, _) = tokio::join!(held, released);

    assert!(answers.iter().all(|answer| answer.status() == 200));
    running.stop().await;
}

#[tokio::test]
async fn scaled_to_zero_by_hand_it_comes_back_for_the_next_request() {
    let running = start(&[echo(|_| ())]);
    let service = running.service();
    for count in 1..4 {
        let pid: u32 = text(&service, "/pid").await.parse().unwrap();
        in_time(service.scale_to_zero()).await;
        assert!(!runs(pid));
        assert_eq!(service.cold_starts().count, count);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_pod_ends_after_its_last_request() {
    let running = start(&[echo(|_| ())]);
    let service = running.service();
    let pid: u32 = text(&service, "/pid").await.parse().unwrap();
    let port = service.pods()[0].port;

    let held = ask(&service, "/hold");
    let stopped = async {
        eventually(async || direct(port, "/held").await == "1").await;
        let zero = service.scale_to_zero();
        let others = async {
            // A new request does not go there any more.
            assert_ne!(text(&service, "/pid").await, pid.to_string());
            assert!(runs(pid));
            direct(port, "/release").await;
            in_time(service.until(|pods| pods.iter().all(|pod| pod.port != port))).await;
            in_time(service.scale_to_zero()).await;
        };
        tokio::join!(zero, others);
    };
    let (answer, ()) = tokio::join!(held, stopped);

    assert_eq!(answer.status(), 200);
    assert!(!runs(pid));
    running.stop().await;
}

#[tokio::test]
async fn who_ignores_sigterm_is_killed_after_the_timeout() {
    let running = start(&[echo(|template| {
        template["spec"]["timeoutSeconds"] = json!(1);
        container(template)["env"] = json!([{"name": "IGNORE_SIGTERM", "value": "1"}]);
    })]);
    let service = running.service();
    let pid: u32 = text(&service, "/pid").await.parse().unwrap();

    in_time(service.scale_to_zero()).await;

    assert!(!runs(pid));
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_dies_comes_back_without_a_request() {
    let running = start(&[echo(|_| ())]);
    let service = running.service();
    let mut pid: u32 = text(&service, "/pid").await.parse().unwrap();
    for restarts in 1..4 {
        signal(pid, Signal::KILL);
        let back = service.until(|pods| {
            pods.len() == 1 && pods[0].restarts == restarts && pods[0].state == Phase::Ready
        });
        in_time(back).await;
        pid = service.pods()[0].pid.unwrap();
    }
    assert_eq!(text(&service, "/pid").await, pid.to_string());
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_says_it_is_not_ready_gets_no_requests() {
    let running = start(&[echo(|template| {
        let probe = &mut container(template)["readinessProbe"];
        probe["periodSeconds"] = json!(1);
        probe["failureThreshold"] = json!(1);
        scaled(template, &[("max-scale", "1")]);
        template["spec"]["timeoutSeconds"] = json!(5);
    })]);
    let service = running.service();
    ask(&service, "/unready").await;

    ready(&service, 0).await;

    assert_eq!(ask(&service, "/x").await.status(), 504);
    assert_eq!(service.pods()[0].restarts, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_is_not_well_is_started_again() {
    let running = start(&[echo(|template| {
        let probe = json!({
            "httpGet": {"path": "/healthz"}, "periodSeconds": 1, "failureThreshold": 2,
        });
        container(template)["livenessProbe"] = probe;
    })]);
    let service = running.service();
    ask(&service, "/sick").await;

    in_time(service.until(|pods| pods[0].restarts == 1 && pods[0].state == Phase::Ready)).await;

    assert_eq!(ask(&service, "/healthz").await.status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_is_not_well_gets_no_requests_while_it_ends() {
    let running = start(&[echo(|template| {
        let probe = json!({
            "httpGet": {"path": "/healthz"}, "periodSeconds": 1, "failureThreshold": 1,
        });
        let container = container(template);
        container["livenessProbe"] = probe;
        container["env"] = json!([{"name": "IGNORE_SIGTERM", "value": "1"}]);
        scaled(template, &[("max-scale", "1")]);
        template["spec"]["timeoutSeconds"] = json!(3);
    })]);
    let service = running.service();
    ask(&service, "/sick").await;
    let pid = service.pods()[0].pid.unwrap();

    in_time(service.until(|pods| pods[0].state != Phase::Ready)).await;

    assert!(runs(pid));
    assert_eq!(service.pods()[0].state, Phase::Stopping);
    signal(pid, Signal::KILL);
    assert_ne!(text(&service, "/pid").await, pid.to_string());
    running.stop().await;
}

#[tokio::test]
async fn the_environment_is_what_the_manifests_say_and_nothing_else() {
    let config = object(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"},
        "data": {"A": "from all", "B": "from all", "meters.yaml": "meters: []"},
    }));
    let secret = object(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"},
        "data": {"key": "c2VjcmV0"}, "stringData": {"plain": "text"},
    }));
    let running = start(&[
        config,
        secret,
        echo(|template| {
            let container = container(template);
            container["envFrom"] = json!([
                {"configMapRef": {"name": "config"}},
                {"secretRef": {"name": "nowhere", "optional": true}},
            ]);
            let key = |map: &str, name: &str, key: &str, optional: bool| json!({map: {"name": name, "key": key, "optional": optional}});
            container["env"] = json!([
                {"name": "B", "value": "its own"},
                {"name": "C", "valueFrom": key("secretKeyRef", "secret", "key", false)},
                {"name": "D", "valueFrom": key("secretKeyRef", "secret", "plain", false)},
                {"name": "E", "valueFrom": key("configMapKeyRef", "config", "A", false)},
                {"name": "F", "valueFrom": key("secretKeyRef", "secret", "none", true)},
                {"name": "G", "valueFrom": key("secretKeyRef", "nowhere", "key", true)},
                {"name": "METERS", "value": "/etc/meters/meters.yaml"},
                {"name": "OTHER", "value": "/etc/metersandmore"},
            ]);
            container["args"] = json!(["/etc/meters", "/etc"]);
            container["volumeMounts"] =
                json!([{"name": "files", "mountPath": "/etc/meters", "readOnly": true}]);
            template["spec"]["volumes"] =
                json!([{"name": "files", "configMap": {"name": "config"}}]);
        }),
    ]);
    let service = running.service();

    let env: BTreeMap<String, String> =
        serde_json::from_str(&text(&service, "/env").await).unwrap();
    let args: Vec<String> = serde_json::from_str(&text(&service, "/args").await).unwrap();

    let mounted = running.state.join("ns/echo/etc/meters");
    let port = service.pods()[0].port.to_string();
    let meters = mounted.join("meters.yaml");
    let wanted = [
        ("A", "from all"),
        ("B", "its own"),
        ("C", "secret"),
        ("D", "text"),
        ("E", "from all"),
        ("K_CONFIGURATION", "echo"),
        ("K_REVISION", "echo-00001"),
        ("K_SERVICE", "echo"),
        ("METERS", meters.to_str().unwrap()),
        ("OTHER", "/etc/metersandmore"),
        ("PORT", &port),
    ];
    let inherited = ["PATH", "RUST_LOG", "OPENMETER_LOG", "PWD"];
    let given: Vec<_> = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| !inherited.contains(name))
        .collect();
    assert_eq!(given, wanted);
    assert_eq!(args, [mounted.to_str().unwrap(), "/etc"]);
    assert_eq!(std::fs::read_to_string(meters).unwrap(), "meters: []");
    running.stop().await;
}

#[tokio::test]
async fn a_config_map_is_mounted_wherever_it_is_named() {
    let map = |name: &str| {
        object(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {format!("{name}.yaml"): name},
        }))
    };
    let running = start(&[
        map("meters"),
        map("rules"),
        echo(|template| {
            let container = container(template);
            container["volumeMounts"] = json!([
                {"name": "meters", "mountPath": "/etc/openmeter"},
                {"name": "rules", "mountPath": "/etc/openmeter-quota"},
                {"name": "meters", "mountPath": "/srv/meters"},
            ]);
            // The name of one folder begins with that of the other.
            container["env"] =
                json!([{"name": "RULES", "value": "/etc/openmeter-quota/rules.yaml"}]);
            template["spec"]["volumes"] = json!([
                {"name": "meters", "configMap": {"name": "meters"}},
                {"name": "rules", "configMap": {"name": "rules"}},
            ]);
        }),
    ]);
    let env: BTreeMap<String, String> =
        serde_json::from_str(&text(&running.service(), "/env").await).unwrap();

    let root = running.state.join("ns/echo");
    let rules = root.join("etc/openmeter-quota/rules.yaml");
    assert_eq!(env["RULES"], rules.to_str().unwrap());
    for (file, says) in [
        (rules, "rules"),
        (root.join("etc/openmeter/meters.yaml"), "meters"),
        (root.join("srv/meters/meters.yaml"), "meters"),
    ] {
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, says, "{}", file.display());
    }
    running.stop().await;
}

#[tokio::test]
async fn a_deployment_has_its_replicas_whatever_happens() {
    let deployment = object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "always"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "always"}},
            "template": {"spec": {
                "terminationGracePeriodSeconds": 5,
                "containers": [{"image": "echo-function"}],
            }},
        },
    }));
    let running = start(&[deployment]);
    let pods = || running.cluster.status()[0].instances.clone();
    eventually(async || {
        pods()
            .iter()
            .filter(|pod| pod.state == Phase::Ready)
            .count()
            == 2
    })
    .await;
    let killed = pods()[0].pid.unwrap();

    signal(killed, Signal::KILL);

    eventually(async || pods()[0].restarts == 1 && pods()[0].state == Phase::Ready).await;
    let all: Vec<u32> = pods().iter().filter_map(|pod| pod.pid).collect();
    assert_eq!(all.len(), 2);
    running.cluster.stop(Duration::from_secs(10)).await;
    assert!(!all.into_iter().any(runs));
}

#[tokio::test]
async fn changed_config_maps_change_the_files_and_no_pod() {
    let manifests = |text: &str| -> Vec<_> {
        let data: Value = json!({"meters.yaml": text});
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "meters"}, "data": data,
        });
        let service = echo(|template| {
            container(template)["volumeMounts"] = json!([{"name": "files", "mountPath": "/etc/m"}]);
            template["spec"]["volumes"] =
                json!([{"name": "files", "configMap": {"name": "meters"}}]);
        });
        vec![object(config), service]
    };
    let running = start(&manifests("old"));
    let service = running.service();
    let pid = text(&service, "/pid").await;
    let file = running.state.join("ns/echo/etc/m/meters.yaml");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");

    let plan = runner::serving::Plan::read(&manifests("new")).unwrap();
    running.cluster.rewrite(&plan).unwrap();

    assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
    assert_eq!(text(&service, "/pid").await, pid);
    running.stop().await;
}
