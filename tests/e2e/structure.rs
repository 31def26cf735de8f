//! The arrows of ARCHITECTURE.md, held to what the manifests say.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// Who may depend on whom, inside.
const INSIDE: [(&str, &[&str]); 12] = [
    ("model", &[]),
    ("stream", &["model"]),
    ("store", &["model"]),
    ("ledger", &["model"]),
    ("runtime", &["model"]),
    ("delivery", &["model", "stream", "runtime"]),
    ("ingest", &["model", "stream", "runtime"]),
    (
        "process",
        &["model", "stream", "store", "ledger", "runtime", "delivery"],
    ),
    (
        "quota",
        &["model", "stream", "store", "ledger", "runtime", "delivery"],
    ),
    ("query", &["model", "stream", "store", "runtime"]),
    ("runner", &["stream"]),
    ("lago-stand-in", &["model"]),
];

/// Who alone may name an outside crate.
const OUTSIDE: [(&str, &str); 6] = [
    ("rdkafka", "stream"),
    ("cloudevents-sdk", "stream"),
    ("clickhouse", "store"),
    ("redis", "ledger"),
    ("lambda_http", "runtime"),
    ("libloading", "clickhouse-engine"),
];

/// Each package with what it depends on outside of its tests.
fn packages() -> Vec<(String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let kept = dependencies
                .iter()
                .filter(|dependency| dependency["kind"] != "dev");
            (name(package), kept.map(name).collect())
        })
        .collect()
}

#[test]
fn no_arrow_points_back() {
    let packages = packages();
    let ours: BTreeSet<_> = packages.iter().map(|(name, _)| name.clone()).collect();
    for (name, allowed) in INSIDE {
        let (_, dependencies) = packages
            .iter()
            .find(|(package, _)| package == name)
            .unwrap();
        let wrong: Vec<_> = dependencies
            .iter()
            .filter(|to| ours.contains(*to) && !allowed.contains(&to.as_str()))
            .collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn each_engine_is_known_to_one_crate() {
    for (name, dependencies) in packages() {
        for (outside, owner) in OUTSIDE {
            let may = name == owner || name == "tests";
            assert!(
                may || !dependencies.contains(outside),
                "only {owner} names {outside}, and {name} does"
            );
        }
    }
}

#[test]
fn unsafe_code_is_in_one_crate() {
    let output = Command::new("git")
        .args(["grep", "-lE", r"unsafe (\{|fn|impl|extern)", "--", "*.rs"])
        .current_dir("..")
        .output()
        .unwrap();
    let files = String::from_utf8(output.stdout).unwrap();
    let (engine, wrong): (Vec<_>, Vec<_>) = files
        .lines()
        .partition(|file| file.starts_with("knative/local/engines/clickhouse/"));
    assert!(!engine.is_empty(), "git must have looked");
    assert!(wrong.is_empty(), "{wrong:?}");
}
