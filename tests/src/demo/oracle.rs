//! The generator and the oracle, run as the Python programs that they are.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::{
    Options,
    answers::METERS,
    rows::{Key, Numbers, Rows},
};

/// What the oracle says of a file.
#[derive(Debug, Deserialize)]
pub(super) struct Expected {
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) accepted: u64,
    pub(super) distinct: u64,
    pub(super) conflicts: u64,
    pub(super) invalid: u64,
    pub(super) invalid_by_reason: BTreeMap<String, u64>,
    pub(super) late: u64,
    /// What each subject's events cost, in credits.
    pub(super) charges: BTreeMap<String, String>,
    usage: BTreeMap<String, Vec<BTreeMap<String, Value>>>,
    totals: BTreeMap<String, Sum>,
    hourly: BTreeMap<String, Vec<Windowed>>,
    daily_by_zone: BTreeMap<String, BTreeMap<String, Vec<Windowed>>>,
}

#[derive(Debug, Deserialize)]
struct Sum {
    sum: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Windowed {
    window_start: String,
    value: String,
}

/// Writes the traffic of `options` from `start` on, and returns how many lines it has.
pub(super) async fn generate(
    root: &Path,
    options: &Options,
    start: Timestamp,
    file: &Path,
) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Manifest {
        lines: u64,
    }
    let manifest: PathBuf = file.with_file_name("manifest.json");
    let Options {
        events,
        seed,
        hours,
        ..
    } = options;
    let mut command = python(root, "generate.py");
    command
        .args([events.to_string(), seed.to_string()])
        .arg(file)
        .args(["--start", &start.to_string()])
        .args(["--hours", &hours.to_string()])
        .arg("--manifest")
        .arg(&manifest);
    let status = command.status().await.context("run the generator")?;
    ensure!(status.success(), "the generator failed");
    let manifest: Manifest = serde_json::from_str(&std::fs::read_to_string(manifest)?)?;
    Ok(manifest.lines)
}

/// Asks the oracle what must become of a file.
pub(super) async fn expect(root: &Path, file: &Path) -> anyhow::Result<Expected> {
    let output = python(root, "oracle.py")
        .arg(file)
        .stderr(Stdio::inherit())
        .output()
        .await;
    let output = output.context("run the oracle")?;
    ensure!(output.status.success(), "the oracle failed");
    std::fs::write(file.with_file_name("expected.json"), &output.stdout)?;
    serde_json::from_slice(&output.stdout).context("read the oracle's answer")
}

fn python(root: &Path, program: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(root.join("tests/traffic").join(program))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Expected {
    /// Returns what query must answer.
    pub(super) fn rows(&self) -> Rows {
        let mut rows = Rows::new();
        let value = |text: &str| Numbers::from([("value".to_owned(), text.to_owned())]);
        for meter in METERS {
            for row in self.usage.get(meter.slug).into_iter().flatten() {
                rows.insert(
                    Key::new(&meter.by_group(), group(row, meter.groups)),
                    numbers(row),
                );
            }
            // The oracle has percentiles by group alone.
            if meter.is_quantiles {
                continue;
            }
            if let Some(total) = self.totals.get(meter.slug) {
                rows.insert(Key::new(&meter.in_total(), Vec::new()), value(&total.sum));
            }
            let days = self.daily_by_zone.get(meter.slug).into_iter().flatten();
            let days = days.map(|(zone, windows)| (meter.by_day(zone), windows));
            let hours = self
                .hourly
                .get(meter.slug)
                .map(|windows| (meter.by_hour(), windows));
            for (table, windows) in days.chain(hours) {
                for window in windows {
                    rows.insert(
                        Key::new(&table, vec![window.window_start.clone()]),
                        value(&window.value),
                    );
                }
            }
        }
        rows
    }
}

fn group(row: &BTreeMap<String, Value>, groups: &[&str]) -> Vec<String> {
    let text = |name: &&str| {
        row.get(*name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    std::iter::once(&"subject")
        .chain(groups)
        .map(text)
        .collect()
}

fn numbers(row: &BTreeMap<String, Value>) -> Numbers {
    let is_number = |name: &str| name == "value" || name.starts_with('p');
    let numbers = row.iter().filter(|(name, _)| is_number(name));
    numbers
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use model::{Catalog, QuotaRules};

    use super::*;

    #[test]
    fn the_oracles_answer_becomes_rows() {
        let answer = r#"{"refused":{},"accepted":2,"distinct":2,"repeats":0,"conflicts":0,"invalid":0,
            "invalid_by_reason":{},"late":0,"charges":{"a":"2.5"},
            "usage":{"api_calls":[{"subject":"a","endpoint":"/x","method":"GET","value":"2"}],
              "api_latency_quantiles":[{"subject":"a","endpoint":"/x","method":"GET","count":2,"p50":"4.5"}]},
            "totals":{"api_calls":{"count":2,"sum":"2"}},
            "hourly":{"api_calls":[{"windowStart":"2024-01-15T00:00:00Z","value":"2"}]},
            "daily_by_zone":{"api_calls":{"Europe/Berlin":[{"windowStart":"2024-01-14T23:00:00Z","value":"2"}]}}}"#;
        let expected: Expected = serde_json::from_str(answer).unwrap();
        let rows: Vec<String> = expected
            .rows()
            .into_iter()
            .map(|(key, numbers)| format!("{} | {} | {numbers:?}", key.table, key.groups.join(" ")))
            .collect();
        assert_eq!(
            rows,
            [
                r#"api_calls by day in Europe/Berlin | 2024-01-14T23:00:00Z | {"value": "2"}"#,
                r#"api_calls by hour | 2024-01-15T00:00:00Z | {"value": "2"}"#,
                r#"api_calls by subject, endpoint, method | a /x GET | {"value": "2"}"#,
                r#"api_calls in total |  | {"value": "2"}"#,
                r#"api_latency_quantiles by subject, endpoint, method | a /x GET | {"p50": "4.5"}"#,
            ]
        );
    }

    /// A meter's price as both sides have it: by default, and by the value of a group.
    type Prices = BTreeMap<String, (String, Option<String>, BTreeMap<String, String>)>;

    #[test]
    fn the_oracle_and_the_functions_have_the_same_prices() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        let rules = read("tests/traffic/quota-rules.yaml");
        let meters = Catalog::from_yaml(&read("knative/base/meters.yaml")).unwrap();
        QuotaRules::from_yaml(&rules, &meters).unwrap();

        #[derive(Deserialize)]
        struct Rules {
            prices: Vec<Price>,
        }
        #[derive(Deserialize)]
        struct Price {
            meter: String,
            versions: [Version; 1],
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Version {
            credits_per_unit: String,
            group_by: Option<String>,
            #[serde(default)]
            by_value: BTreeMap<String, String>,
        }
        let rules: Rules = serde_yaml_ng::from_str(&rules).unwrap();
        let prices = rules.prices.into_iter().map(|price| {
            let [version] = price.versions;
            let price_of = (version.credits_per_unit, version.group_by, version.by_value);
            (price.meter, price_of)
        });

        let show =
            "import json, oracle; print(json.dumps({p.meter: p[1:] for p in oracle.PRICES}))";
        let shown = std::process::Command::new("python3")
            .args(["-c", show])
            .current_dir(root.join("tests/traffic"))
            .output()
            .unwrap();
        let oracle: Prices = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(prices.collect::<Prices>(), oracle);
        assert!(oracle.len() > 1);
    }
}
