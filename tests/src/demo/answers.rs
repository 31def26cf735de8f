//! What query answers, and what the functions' own counters and ClickHouse say.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    names::sql,
    rows::{Key, Numbers, Rows},
    runner::Runner,
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A meter that the oracle knows too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    pub(super) slug: &'static str,
    pub(super) groups: &'static [&'static str],
    pub(super) is_quantiles: bool,
}

/// The meters of `knative/base/meters.yaml`.
pub(super) const METERS: [Meter; 3] = [
    Meter {
        slug: "api_calls",
        groups: &["endpoint", "method"],
        is_quantiles: false,
    },
    Meter {
        slug: "api_latency",
        groups: &["endpoint"],
        is_quantiles: false,
    },
    Meter {
        slug: "api_latency_quantiles",
        groups: &["endpoint", "method"],
        is_quantiles: true,
    },
];

const ZONE: &str = "Europe/Berlin";

impl Meter {
    pub(super) fn by_group(&self) -> String {
        format!("{} by subject, {}", self.slug, self.groups.join(", "))
    }

    pub(super) fn by_hour(&self) -> String {
        format!("{} by hour", self.slug)
    }

    pub(super) fn by_day(&self, zone: &str) -> String {
        format!("{} by day in {zone}", self.slug)
    }

    pub(super) fn in_total(&self) -> String {
        format!("{} in total", self.slug)
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Usage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    value: Value,
    window_start: Timestamp,
    subject: Option<String>,
    #[serde(default)]
    group_by: BTreeMap<String, Option<String>>,
    quantiles: Option<BTreeMap<String, Value>>,
}

impl Usage {
    fn numbers(&self) -> Numbers {
        // A number or a text: either way the digits are what was sent, no float is between.
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        match &self.quantiles {
            Some(quantiles) => quantiles
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            None => Numbers::from([("value".to_owned(), text(&self.value))]),
        }
    }

    fn groups(&self, meter: &Meter) -> Vec<String> {
        let group = |name: &&str| self.group_by.get(*name).cloned().flatten();
        let subject = self.subject.clone().or_else(|| group(&"subject"));
        let groups = meter.groups.iter().map(group);
        std::iter::once(subject)
            .chain(groups)
            .map(Option::unwrap_or_default)
            .collect()
    }
}

/// Asks query for everything that the oracle knows.
pub(super) async fn all(http: &reqwest::Client, api: &str) -> anyhow::Result<Rows> {
    let mut rows = Rows::new();
    for meter in METERS {
        let groups = meter
            .groups
            .iter()
            .map(|name| format!("&groupBy={name}"))
            .collect::<String>();
        for usage in ask(http, api, &meter, &format!("groupBy=subject{groups}")).await? {
            put(
                &mut rows,
                Key::new(&meter.by_group(), usage.groups(&meter)),
                &usage,
            )?;
        }
        if meter.is_quantiles {
            continue;
        }
        for usage in ask(http, api, &meter, "").await? {
            put(&mut rows, Key::new(&meter.in_total(), Vec::new()), &usage)?;
        }
        let day = format!("windowSize=DAY&windowTimeZone={ZONE}");
        for (table, question) in [
            (meter.by_hour(), "windowSize=HOUR"),
            (meter.by_day(ZONE), &day),
        ] {
            for usage in ask(http, api, &meter, question).await? {
                put(
                    &mut rows,
                    Key::new(&table, vec![usage.window_start.to_string()]),
                    &usage,
                )?;
            }
        }
    }
    Ok(rows)
}

/// Two answers for one row would hide each other.
fn put(rows: &mut Rows, key: Key, usage: &Usage) -> anyhow::Result<()> {
    let what = format!(
        "query answered {} {} twice",
        key.table,
        key.groups.join(" ")
    );
    ensure!(rows.insert(key, usage.numbers()).is_none(), what);
    Ok(())
}

async fn ask(
    http: &reqwest::Client,
    api: &str,
    meter: &Meter,
    question: &str,
) -> anyhow::Result<Vec<Usage>> {
    let url = format!("{api}/api/v1/meters/{}/query?{question}", meter.slug);
    Ok(json::<Answer>(http, &url).await?.data)
}

async fn json<T: DeserializeOwned>(http: &reqwest::Client, url: &str) -> anyhow::Result<T> {
    let text = get(http, url).await?;
    serde_json::from_str(&text).with_context(|| format!("read the answer of {url}"))
}

async fn get(http: &reqwest::Client, url: &str) -> anyhow::Result<String> {
    let answer = http.get(url).timeout(TIMEOUT).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{url} answered {status}: {text}");
    Ok(text)
}

/// Returns what the processes of a function count, each from its own start.
pub(super) async fn metrics(
    http: &reqwest::Client,
    runner: &Runner,
    function: &str,
) -> anyhow::Result<Vec<Metrics>> {
    let status = runner.status().await?;
    let instances = status.instances(function);
    futures::future::try_join_all(instances.map(|instance| metrics_at(http, instance.port))).await
}

/// Returns what the process at a port counts.
pub(super) async fn metrics_at(http: &reqwest::Client, port: u16) -> anyhow::Result<Metrics> {
    get(http, &format!("http://127.0.0.1:{port}/metrics"))
        .await
        .map(Metrics)
}

/// A process's metrics at one moment.
pub(super) struct Metrics(String);

impl Metrics {
    /// Returns the sum of a counter over all its labels.
    pub(super) fn sum(&self, name: &str) -> u64 {
        self.by(name, None).into_values().sum()
    }

    /// Returns a counter by the values of one label.
    pub(super) fn by(&self, name: &str, label: Option<&str>) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for line in self.0.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (series, labels) = series.split_once('{').unwrap_or((series, ""));
            if series != name {
                continue;
            }
            let of_label = |label: &str| {
                let (_, rest) = labels.split_once(&format!("{label}=\""))?;
                rest.split_once('"').map(|(value, _)| value.to_owned())
            };
            let key = label.and_then(of_label).unwrap_or_default();
            *counts.entry(key).or_default() += value.parse::<u64>().unwrap_or_default();
        }
        counts
    }
}

/// Returns what process made of its events, by outcome.
pub(super) fn outcomes(processes: &[Metrics]) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for metrics in processes {
        let counts = metrics.by("openmeter_events_processed_total", Some("outcome"));
        for (outcome, count) in counts {
            *sum.entry(outcome).or_default() += count;
        }
    }
    sum
}

/// Returns how many events are kept, by what became of them.
pub(super) async fn kept(
    clickhouse: &str,
    database: &str,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let statement =
        format!("SELECT state, count() FROM {database}.events_current GROUP BY state FORMAT TSV");
    let text = sql(clickhouse, &statement)
        .await
        .context("count the events")?;
    let row = |line: &str| {
        let (state, count) = line
            .split_once('\t')
            .with_context(|| format!("no row: {line}"))?;
        Ok((state.to_owned(), count.trim().parse()?))
    };
    text.lines().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_label() {
        let metrics = Metrics(
            "# TYPE openmeter_events_processed_total counter\n\
             openmeter_events_processed_total{function=\"process\",outcome=\"counted\"} 90\n\
             openmeter_events_processed_total{function=\"process\",outcome=\"repeat\"} 5\n\
             openmeter_events_processed_total_other 7\n"
                .to_owned(),
        );
        let name = "openmeter_events_processed_total";
        assert_eq!(metrics.sum(name), 95);
        assert_eq!(metrics.by(name, Some("outcome"))["repeat"], 5);
        assert_eq!(metrics.sum("absent"), 0);
    }

    #[test]
    fn an_answer_keeps_its_digits() {
        let answer = r#"{"data":[{"value":12345678901234567890.1234567890123456789,
            "windowStart":"2024-01-15T00:00:00Z","subject":"a","groupBy":{"endpoint":"/x","method":null}}]}"#;
        let answer: Answer = serde_json::from_str(answer).unwrap();
        assert_eq!(
            answer.data[0].numbers()["value"],
            "12345678901234567890.1234567890123456789"
        );
        assert_eq!(answer.data[0].groups(&METERS[0]), ["a", "/x", ""]);
    }
}
