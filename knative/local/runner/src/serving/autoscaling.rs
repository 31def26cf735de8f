//! The autoscaling annotations of a Service.

use std::{collections::BTreeMap, time::Duration};

use crate::manifests::{Mistake, Object};

use super::autoscaler::TICK;

const PREFIX: &str = "autoscaling.knative.dev/";

/// The autoscaling annotations of a revision, with Knative's defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Autoscaling {
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) initial: usize,
    activation: usize,
    /// Requests at once that one pod should have on average.
    pub(super) target: f64,
    pub(super) window: Duration,
    /// The short window that tells of a burst.
    pub(super) panic_window: Duration,
    /// By which factor over the pods that are ready the burst must want more.
    pub(super) panic_threshold: f64,
    /// How long the last pod is kept after the window was idle.
    pub(super) retention: Duration,
}

impl Autoscaling {
    /// Reads the annotations of `object`'s pod template.
    pub(super) fn read(
        object: &Object,
        annotations: &BTreeMap<String, String>,
        concurrency: usize,
    ) -> Result<Self, Vec<Mistake>> {
        let mut own: BTreeMap<&str, &str> = annotations
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())))
            .collect();
        let mut wrong = Wrong {
            object,
            mistakes: Vec::new(),
        };
        wrong.only(&mut own, "class", "kpa.autoscaling.knative.dev");
        wrong.only(&mut own, "metric", "concurrency");
        // Says when Knative's activator stays in the path. Ours always does.
        own.remove("target-burst-capacity");
        let target: Option<f64> = wrong.take(&mut own, "target", 0.01, f64::MAX);
        let utilization = wrong
            .take(&mut own, "target-utilization-percentage", 1.0, 100.0)
            .unwrap_or(70.0);
        let window = wrong
            .time(&mut own, "window", 6)
            .unwrap_or(Duration::from_secs(60));
        let panic_window = wrong.take(&mut own, "panic-window-percentage", 1.0, 100.0);
        let panic_threshold = wrong.take(&mut own, "panic-threshold-percentage", 110.0, 1000.0);
        let mut count = |key, least| wrong.take::<usize>(&mut own, key, least, usize::MAX);
        let min = count("min-scale", 0).unwrap_or(0);
        let max = match count("max-scale", 0) {
            None | Some(0) => usize::MAX,
            Some(max) => max,
        };
        let initial = count("initial-scale", 0).unwrap_or(1);
        let activation = count("activation-scale", 2).unwrap_or(1);
        let retention = wrong
            .time(&mut own, "scale-to-zero-pod-retention-period", 0)
            .unwrap_or_default();
        for key in own.into_keys() {
            wrong.push(key, "is not supported here");
        }
        if min > max {
            wrong.push("min-scale", "is larger than max-scale");
        }
        if !wrong.mistakes.is_empty() {
            return Err(wrong.mistakes);
        }
        let most = if concurrency == 0 {
            f64::MAX
        } else {
            concurrency as f64
        };
        let total = match target {
            Some(target) => target.min(most),
            None if concurrency == 0 => 100.0,
            None => most,
        };
        let panic_seconds = window.as_secs_f64() * panic_window.unwrap_or(10.0) / 100.0;
        Ok(Self {
            min,
            max,
            initial: initial.max(min).min(max),
            activation: activation.max(min).min(max),
            target: (total * utilization / 100.0).max(0.01),
            window,
            panic_window: Duration::from_secs_f64(panic_seconds).max(TICK),
            panic_threshold: panic_threshold.unwrap_or(200.0) / 100.0,
            retention,
        })
    }

    /// Returns how many pods are started when a request finds none.
    pub(super) fn out_of_zero(&self) -> usize {
        self.activation.max(1)
    }
}

/// Collects what is wrong with the annotations.
struct Wrong<'a> {
    object: &'a Object,
    mistakes: Vec<Mistake>,
}

impl Wrong<'_> {
    fn push(&mut self, key: &str, why: &str) {
        let field = format!("spec.template.metadata.annotations.{PREFIX}{key}");
        self.mistakes.push(self.object.mistake(field, why));
    }

    fn only(&mut self, own: &mut BTreeMap<&str, &str>, key: &str, supported: &str) {
        if own.remove(key).is_some_and(|value| value != supported) {
            self.push(key, &format!("only {supported} is supported here"));
        }
    }

    fn take<T>(&mut self, own: &mut BTreeMap<&str, &str>, key: &str, least: T, most: T) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd,
    {
        let value = own.remove(key)?.parse().ok();
        let value = value.filter(|value| *value >= least && *value <= most);
        if value.is_none() {
            self.push(key, "is no number in the range that Knative takes");
        }
        value
    }

    /// A duration as Go writes it, in one unit, up to an hour: `90s`, `2m`, `1h`.
    fn time(&mut self, own: &mut BTreeMap<&str, &str>, key: &str, least: u64) -> Option<Duration> {
        let text = own.remove(key)?;
        let seconds = [("s", 1), ("m", 60), ("h", 3600)]
            .into_iter()
            .find_map(|(unit, seconds)| {
                let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
                count.checked_mul(seconds)
            })
            .filter(|seconds| (least..=3600).contains(seconds));
        if seconds.is_none() {
            self.push(
                key,
                "is no duration such as 60s in the range that Knative takes",
            );
        }
        seconds.map(Duration::from_secs)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::*;

    pub(in super::super) fn rules(
        annotations: &[(&str, &str)],
        concurrency: usize,
    ) -> Result<Autoscaling, Vec<Mistake>> {
        let object = Object {
            api_version: String::new(),
            kind: String::new(),
            namespace: String::new(),
            name: String::new(),
            value: Value::Null,
            file: Default::default(),
        };
        let annotations = annotations
            .iter()
            .map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()))
            .collect();
        Autoscaling::read(&object, &annotations, concurrency)
    }

    #[test]
    fn the_target_is_what_knative_makes_of_it() {
        let table = [
            (&[] as &[_], 0, 70.0),
            (&[], 10, 7.0),
            (&[("target", "50")], 0, 35.0),
            (&[("target", "50")], 10, 7.0),
            (
                &[("target", "5"), ("target-utilization-percentage", "100")],
                10,
                5.0,
            ),
            (
                &[("target", "0.01"), ("target-utilization-percentage", "1")],
                0,
                0.01,
            ),
        ];
        for (annotations, concurrency, target) in table {
            assert_eq!(
                rules(annotations, concurrency).unwrap().target,
                target,
                "{annotations:?}"
            );
        }
    }

    #[test]
    fn a_number_out_of_range_is_a_mistake() {
        let table = [
            ("target", "0"),
            ("target-utilization-percentage", "101"),
            ("window", "2h"),
            ("window", "60"),
            ("panic-threshold-percentage", "100"),
            ("activation-scale", "1"),
            ("min-scale", "-1"),
            ("class", "hpa.autoscaling.knative.dev"),
        ];
        for (key, value) in table {
            let mistakes = rules(&[(key, value)], 0).unwrap_err();
            assert!(mistakes[0].field.ends_with(key), "{mistakes:?}");
        }
    }

    #[test]
    fn the_first_pods_are_within_the_bounds() {
        let least = rules(&[("min-scale", "2")], 0).unwrap();
        assert_eq!((least.initial, least.out_of_zero()), (2, 2));
        let most = rules(&[("activation-scale", "3"), ("max-scale", "2")], 0).unwrap();
        assert_eq!((most.initial, most.out_of_zero()), (1, 2));
    }
}
