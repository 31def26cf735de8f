//! The overlay of a run: the very manifests that a laptop has, with names that are the run's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Options, accounts::ADMIN_TOKEN, names::Names};

/// Where it is in the folder of the run.
pub(super) const FOLDER: &str = "overlay";

/// Writes a kustomize folder.
pub(super) fn write(
    folder: &Path,
    root: &Path,
    options: &Options,
    names: &Names,
    clickhouse: &str,
    broker: &str,
) -> anyhow::Result<()> {
    let overlay = folder.join(FOLDER);
    fs::create_dir_all(&overlay).with_context(|| format!("make {}", overlay.display()))?;
    let knative = |path: &str| relative(&overlay, &root.join("knative").join(path));
    let mut components = Vec::new();
    if options.mode.pulls() {
        components.push(knative("components/pull")?);
    }
    if !options.mode.pushes() {
        components.push(knative("components/no-push")?);
    }
    let rules = root.join("tests/traffic/quota-rules.yaml");
    let rules = fs::read_to_string(&rules).with_context(|| format!("read {}", rules.display()))?;
    let patches = patches(options, names, clickhouse, broker, &rules);
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": names.namespace,
        "resources": [knative("overlays/local")?],
        "components": components,
        "patches": patches
            .iter()
            .map(|patch| Ok(json!({ "patch": serde_yaml_ng::to_string(patch)? })))
            .collect::<anyhow::Result<Vec<Value>>>()?,
    });
    let text = serde_yaml_ng::to_string(&kustomization)?;
    let file = overlay.join("kustomization.yaml");
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

fn patches(
    options: &Options,
    names: &Names,
    clickhouse: &str,
    broker: &str,
    rules: &str,
) -> Vec<Value> {
    let mut settings = json!({
        "OPENMETER_KAFKA_BROKER": options.kafka,
        "OPENMETER_KAFKA_TOPIC": names.topic,
        "OPENMETER_KAFKA_DEAD_TOPIC": names.dead_topic,
        "OPENMETER_KAFKA_INGEST_DEAD_TOPIC": names.ingest_dead_topic,
        "OPENMETER_KAFKA_GROUP": names.pull_group,
        "OPENMETER_QUOTA_KAFKA_GROUP": names.quota_pull_group,
        "OPENMETER_BROKER_URL": broker,
        "OPENMETER_ADMIN_TOKEN": ADMIN_TOKEN,
        "OPENMETER_CLICKHOUSE_ADDRESS": clickhouse,
        "OPENMETER_CLICKHOUSE_DATABASE": names.database,
        "OPENMETER_VALKEY_URL": options.valkey,
        "OPENMETER_VALKEY_PREFIX": names.prefix,
    });
    if !options.chaos.is_empty() {
        // The least that a broker allows: its partitions stay with a killed consumer that long.
        settings["OPENMETER_KAFKA_SESSION_TIMEOUT"] = json!("6s");
    }
    let brokers: Vec<&str> = options.kafka.split(',').map(str::trim).collect();
    let object = |version: &str, kind: &str, name: &str, part: &str, value: Value| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, part: value });
    let sink = |name: &str, topic: &str| {
        let spec = json!({ "topic": topic, "bootstrapServers": brokers });
        object(
            "eventing.knative.dev/v1alpha1",
            "KafkaSink",
            name,
            "spec",
            spec,
        )
    };
    let bootstrap = json!({ "bootstrap.servers": options.kafka });
    let rules = json!({ "quota-rules.yaml": rules });
    let mut patches = vec![
        object("v1", "ConfigMap", "openmeter", "data", settings),
        object("v1", "ConfigMap", "openmeter-broker", "data", bootstrap),
        object("v1", "ConfigMap", "openmeter-quota", "data", rules),
        sink("ingest-dead", &names.ingest_dead_topic),
        sink("process-dead", &names.dead_topic),
        sink("quota-dead", &names.dead_topic),
    ];
    if options.mode.pushes() {
        for (function, group) in [
            ("process", &names.push_group),
            ("quota", &names.quota_push_group),
        ] {
            let spec = json!({
                "bootstrapServers": brokers,
                "topics": [names.topic],
                "consumerGroup": group,
            });
            let version = "sources.knative.dev/v1";
            patches.push(object(version, "KafkaSource", function, "spec", spec));
        }
    }
    patches
}

/// Returns the way from one folder to another, which is how kustomize wants them named.
fn relative(from: &Path, to: &Path) -> anyhow::Result<String> {
    let whole =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("find {}", path.display()));
    let (from, to) = (whole(from)?, whole(to)?);
    let shared = from.components().zip(to.components());
    let shared = shared.take_while(|(one, other)| one == other).count();
    let up = from.components().skip(shared).map(|_| "..".into());
    let down = to.components().skip(shared);
    let way: PathBuf = up
        .chain(down.map(|part| part.as_os_str().to_owned()))
        .collect();
    Ok(way.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_from_one_folder_to_another_goes_up_and_down() {
        let top = std::env::temp_dir().join(format!("overlay-{}", uuid::Uuid::new_v4()));
        let (from, to) = (top.join("a/b"), top.join("c"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&to).unwrap();
        assert_eq!(relative(&from, &to).unwrap(), "../../c");
        assert_eq!(relative(&top, &from).unwrap(), "a/b");
        assert!(relative(&from, &top.join("absent")).is_err());
        fs::remove_dir_all(&top).unwrap();
    }
}
