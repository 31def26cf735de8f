//! What Services and Deployments say, as closed types: a field that is not here is a mistake,
//! for the cluster would do something about it that we would not.
//!
//! Fields of type [`Accepted`] are the exceptions. They bound or place a pod on a cluster
//! (resources, security, pulling its image), and a process on a laptop has no use for them.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

/// A field that only makes sense on a cluster.
type Accepted = Option<IgnoredAny>;

/// `spec` of a Service (serving.knative.dev/v1).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceSpec {
    pub(super) template: PodTemplate,
}

/// `spec` of a Deployment (apps/v1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeploymentSpec {
    pub(super) replicas: Option<usize>,
    pub(super) template: PodTemplate,
    #[serde(default, rename = "selector")]
    _selector: Accepted,
    #[serde(default, rename = "strategy")]
    _strategy: Accepted,
    #[serde(default, rename = "revisionHistoryLimit")]
    _revision_history_limit: Accepted,
    #[serde(default, rename = "progressDeadlineSeconds")]
    _progress_deadline_seconds: Accepted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodTemplate {
    #[serde(default)]
    pub(super) metadata: PodMetadata,
    pub(super) spec: PodSpec,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodMetadata {
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, rename = "labels")]
    _labels: Accepted,
}

/// A pod, with what only Knative (`containerConcurrency`, `timeoutSeconds`) and what only
/// Kubernetes (`terminationGracePeriodSeconds`) knows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PodSpec {
    pub(super) containers: [Container; 1],
    #[serde(default)]
    pub(super) volumes: Vec<Volume>,
    pub(super) container_concurrency: Option<usize>,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) termination_grace_period_seconds: Option<u64>,
    #[serde(default, rename = "serviceAccountName")]
    _service_account_name: Accepted,
    #[serde(default, rename = "automountServiceAccountToken")]
    _automount_service_account_token: Accepted,
    #[serde(default, rename = "enableServiceLinks")]
    _enable_service_links: Accepted,
    #[serde(default, rename = "imagePullSecrets")]
    _image_pull_secrets: Accepted,
    #[serde(default, rename = "securityContext")]
    _security_context: Accepted,
    #[serde(default, rename = "topologySpreadConstraints")]
    _topology_spread_constraints: Accepted,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Container {
    pub(super) image: String,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<Variable>,
    #[serde(default)]
    pub(super) env_from: Vec<Variables>,
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    #[serde(default)]
    pub(super) volume_mounts: Vec<VolumeMount>,
    pub(super) readiness_probe: Option<ProbeSpec>,
    pub(super) liveness_probe: Option<ProbeSpec>,
    #[serde(default, rename = "name")]
    _name: Accepted,
    #[serde(default, rename = "imagePullPolicy")]
    _image_pull_policy: Accepted,
    #[serde(default, rename = "resources")]
    _resources: Accepted,
    #[serde(default, rename = "securityContext")]
    _security_context: Accepted,
}

/// The number is not used: on one machine each process has a port of its own, told by `$PORT`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: Option<String>,
    #[serde(default, rename = "containerPort")]
    _container_port: Accepted,
    #[serde(default, rename = "protocol")]
    _protocol: Accepted,
}

/// One of `env`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) value_from: Option<ValueFrom>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum ValueFrom {
    ConfigMapKeyRef(KeyRef),
    SecretKeyRef(KeyRef),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRef {
    pub(super) name: String,
    pub(super) key: String,
    #[serde(default)]
    pub(super) optional: bool,
}

/// One of `envFrom`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Variables {
    #[serde(default)]
    pub(super) prefix: String,
    pub(super) config_map_ref: Option<MapRef>,
    pub(super) secret_ref: Option<MapRef>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MapRef {
    pub(super) name: String,
    #[serde(default)]
    pub(super) optional: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) config_map: Option<ConfigMapVolume>,
    pub(super) secret: Option<SecretVolume>,
    pub(super) empty_dir: Option<EmptyDir>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConfigMapVolume {
    pub(super) name: String,
    #[serde(default)]
    pub(super) optional: bool,
    #[serde(default, rename = "defaultMode")]
    _default_mode: Accepted,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SecretVolume {
    pub(super) secret_name: String,
    #[serde(default)]
    pub(super) optional: bool,
    #[serde(default, rename = "defaultMode")]
    _default_mode: Accepted,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EmptyDir {
    #[serde(default, rename = "sizeLimit")]
    _size_limit: Accepted,
    #[serde(default, rename = "medium")]
    _medium: Accepted,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct VolumeMount {
    pub(super) name: String,
    pub(super) mount_path: String,
    #[serde(default, rename = "readOnly")]
    _read_only: Accepted,
}

/// A probe of the kinds that Knative and the kubelet have in common.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProbeSpec {
    pub(super) http_get: Option<HttpGet>,
    pub(super) tcp_socket: Option<TcpSocket>,
    pub(super) initial_delay_seconds: Option<u64>,
    pub(super) period_seconds: Option<u64>,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) failure_threshold: Option<u32>,
    #[serde(default, rename = "successThreshold")]
    _success_threshold: Accepted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpGet {
    #[serde(default)]
    pub(super) path: String,
    #[serde(default, rename = "port")]
    _port: Accepted,
    #[serde(default, rename = "scheme")]
    _scheme: Accepted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpSocket {
    #[serde(default, rename = "port")]
    _port: Accepted,
}
