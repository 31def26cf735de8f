//! What is wrong with Services and Deployments is said before anything starts.

use runner::serving::Plan;
use serde_json::{Value, json};

use crate::support::{container, echo, object, scaled};

/// A change to a good Service's pod template, the field that is wrong then, and a word of why.
type Case = (fn(&mut Value), &'static str, &'static str);

const CASES: [Case; 16] = [
    (
        |t| t["spec"]["containerConcurency"] = json!(1),
        "spec.template.spec.containerConcurency",
        "unknown",
    ),
    (
        |t| t["spec"]["nodeSelector"] = json!({}),
        "spec.template.spec.nodeSelector",
        "unknown",
    ),
    (
        |t| t["spec"]["containers"] = json!([]),
        "spec.template.spec.containers",
        "length",
    ),
    (
        |t| t["spec"]["terminationGracePeriodSeconds"] = json!(5),
        "spec.template.spec.terminationGracePeriodSeconds",
        "timeoutSeconds",
    ),
    (
        |t| container(t)["lifecycle"] = json!({}),
        "spec.template.spec.containers[0].lifecycle",
        "unknown",
    ),
    (
        |t| container(t)["ports"] = json!([{"name": "h2c"}]),
        "spec.template.spec.containers[0].ports",
        "HTTP/1.1",
    ),
    (
        |t| container(t)["env"] = json!([{"name": "PORT", "value": "1"}]),
        "spec.template.spec.containers[0].env[PORT]",
        "platform",
    ),
    (
        |t| container(t)["env"] = json!([{"name": "A", "value": "$(B)"}]),
        "spec.template.spec.containers[0].A",
        "not supported",
    ),
    (
        |t| container(t)["envFrom"] = json!([{"configMapRef": {"name": "x"}}]),
        "spec.template.spec.containers[0].envFrom[0]",
        "there is no ConfigMap x",
    ),
    (
        |t| {
            container(t)["env"] =
                json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}])
        },
        "spec.template.spec.containers[0].env[A]",
        "there is no Secret x",
    ),
    (
        |t| container(t)["volumeMounts"] = json!([{"name": "x", "mountPath": "/x"}]),
        "spec.template.spec.containers[0].volumeMounts[x]",
        "no such volume",
    ),
    (
        |t| container(t)["readinessProbe"] = json!({}),
        "spec.template.spec.containers[0].readinessProbe",
        "httpGet",
    ),
    (
        |t| scaled(t, &[("metric", "rps")]),
        "spec.template.metadata.annotations.autoscaling.knative.dev/metric",
        "only concurrency",
    ),
    (
        |t| scaled(t, &[("window", "5s")]),
        "spec.template.metadata.annotations.autoscaling.knative.dev/window",
        "duration",
    ),
    (
        |t| scaled(t, &[("minscale", "1")]),
        "spec.template.metadata.annotations.autoscaling.knative.dev/minscale",
        "not supported",
    ),
    (
        |t| scaled(t, &[("min-scale", "2"), ("max-scale", "1")]),
        "spec.template.metadata.annotations.autoscaling.knative.dev/min-scale",
        "larger",
    ),
];

#[test]
fn a_field_that_cannot_be_honoured_is_named() {
    for (change, field, why) in CASES {
        let mistakes = Plan::read(&[echo(change)]).unwrap_err();
        let [mistake] = mistakes.as_slice() else {
            panic!("{field}: one mistake was made: {mistakes:?}");
        };
        assert_eq!(mistake.field, field);
        assert!(mistake.why.contains(why), "{mistake}");
    }
}

#[test]
fn all_mistakes_of_all_objects_are_told_together() {
    let unknown = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}));
    let secret = object(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "%"},
    }));
    let misplaced = object(json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": "x", "annotations": {"autoscaling.knative.dev/min-scale": "1"}},
        "spec": {"template": {"spec": {"containers": [{"image": "echo-function"}]}}},
    }));
    let route = object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "route"},
        "spec": {"rules": [{"backendRefs": [{"name": "nobody", "port": 80}]}]},
    }));

    let mistakes = Plan::read(&[unknown, secret, misplaced, route]).unwrap_err();

    let fields: Vec<&str> = mistakes
        .iter()
        .map(|mistake| mistake.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.rules[0]",
            "kind",
            "data.a",
            "metadata.annotations.autoscaling.knative.dev/min-scale",
        ]
    );
}
