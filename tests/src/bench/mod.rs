//! The benches. Each compares a function with the least that could do its work, on
//! the same engines, in turn, and reports the medians and their ratio.
//!
//! They measure whole processes over real sockets. Load, engines and functions share
//! the machine's cores, so the ratios mean something and the rates do not travel.

pub mod bare;
mod cold;
mod ingest;
mod process;
mod push;
mod quota;
mod quota_lag;
mod quota_load;
mod quota_overshoot;
mod started;
mod wrk;

use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

use serde_json::{Value, json};

/// How often each side is measured; the medians are compared.
const ROUNDS: usize = 3;

const REPORT: &str = "target/bench.json";

/// What a bench found.
pub(crate) struct Figure {
    name: &'static str,
    /// Ours and the baseline's, round by round.
    ours: Vec<f64>,
    baseline: Vec<f64>,
    unit: &'static str,
    /// What the baseline is.
    against: &'static str,
}

impl Figure {
    fn ratio(&self) -> f64 {
        median(&self.ours) / median(&self.baseline)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the value below which `percent` of them are.
fn at(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Runs all benches, or the one called `only`, prints the table and writes
/// `target/bench.json`, where figures of benches that were not run stay.
pub async fn run(only: Option<&str>) -> anyhow::Result<ExitCode> {
    let names = [
        "ingest_single",
        "ingest_batch",
        "process_pull",
        "process_push",
        "quota_check_http",
        "quota_check_valkey",
        "quota_lag_pull",
        "quota_lag_push",
        "quota_overshoot",
        "cold_start",
    ];
    if let Some(unknown) = only.filter(|only| !names.contains(only)) {
        anyhow::bail!(
            "no bench is called {unknown}: there are {}",
            names.join(", ")
        );
    }
    let mut figures = Vec::new();
    for name in names
        .into_iter()
        .filter(|name| only.is_none_or(|only| only == *name))
    {
        eprintln!("bench {name} ...");
        match name {
            "ingest_single" => figures.push(ingest::single().await?),
            "ingest_batch" => figures.push(ingest::batch().await?),
            "process_pull" => figures.push(process::pull().await?),
            "process_push" => figures.push(push::push().await?),
            "quota_check_http" => figures.push(quota::check_http().await?),
            "quota_check_valkey" => figures.push(quota::check_valkey().await?),
            "quota_lag_pull" => figures.extend(Box::pin(quota_lag::pull()).await?),
            "quota_lag_push" => figures.extend(Box::pin(quota_lag::push()).await?),
            "quota_overshoot" => figures.extend(Box::pin(quota_overshoot::overshoot()).await?),
            _ => figures.extend(cold::starts().await?),
        }
    }
    println!(
        "{:<21} {:>12} {:>12} {:>6}  unit, baseline",
        "bench", "ours", "baseline", "ratio"
    );
    for figure in &figures {
        println!(
            "{:<21} {:>12.0} {:>12.0} {:>6.2}  {}, {}",
            figure.name,
            median(&figure.ours),
            median(&figure.baseline),
            figure.ratio(),
            figure.unit,
            figure.against
        );
    }
    save(Path::new(REPORT), &figures)?;
    Ok(ExitCode::SUCCESS)
}

fn save(path: &Path, figures: &[Figure]) -> anyhow::Result<()> {
    let mut report: BTreeMap<String, Value> = fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    for figure in figures {
        let round = |value: f64| json!((value * 1000.0).round() / 1000.0);
        report.insert(
            figure.name.to_owned(),
            json!({
                "ours": round(median(&figure.ours)),
                "baseline": round(median(&figure.baseline)),
                "ratio": round(figure.ratio()),
                "unit": figure.unit,
            }),
        );
    }
    fs::write(path, serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_round_counts() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
