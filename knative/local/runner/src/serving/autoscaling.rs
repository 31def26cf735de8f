//! How many pods a Service wants: the Knative Pod Autoscaler's rule over average concurrency.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::manifests::{Mistake, Object};

const PREFIX: &str = "autoscaling.knative.dev/";

/// How often the autoscaler decides. Knative's does every 2 s.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// The autoscaling annotations of a revision, with Knative's defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Autoscaling {
    pub(super) min: usize,
    max: usize,
    pub(super) initial: usize,
    activation: usize,
    /// Requests at once that one pod should have on average.
    target: f64,
    window: Duration,
    /// The short window that tells of a burst.
    panic_window: Duration,
    /// By which factor over the pods that are ready the burst must want more.
    panic_threshold: f64,
    /// How long the last pod is kept after the window was idle.
    retention: Duration,
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
        Ok(Self {
            min,
            max,
            initial: initial.max(min).min(max),
            activation: activation.max(min).min(max),
            target: (total * utilization / 100.0).max(0.01),
            window,
            panic_window: window
                .mul_f64(panic_window.unwrap_or(10.0) / 100.0)
                .max(TICK),
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

/// The autoscaler of one Service: what it saw, and what it makes of it.
pub(super) struct Autoscaler {
    rules: Autoscaling,
    /// When, and how many request-seconds had passed in all.
    samples: VecDeque<(Instant, f64)>,
    /// When the last burst was seen, and the most pods that it wanted.
    panic: Option<(Instant, usize)>,
    idle_since: Option<Instant>,
}

impl Autoscaler {
    pub(super) fn new(rules: Autoscaling, now: Instant, request_seconds: f64) -> Self {
        Self {
            rules,
            samples: VecDeque::from([(now, request_seconds)]),
            panic: None,
            idle_since: None,
        }
    }

    /// Returns how many pods there should be, given the request-seconds so far and how many pods
    /// there are.
    pub(super) fn decide(&mut self, now: Instant, request_seconds: f64, pods: usize) -> usize {
        if pods == 0 {
            // Only a request brings pods back, and what was before it says nothing.
            *self = Self::new(self.rules.clone(), now, request_seconds);
            return self.rules.min;
        }
        self.samples.push_back((now, request_seconds));
        let window = self.rules.window;
        // The newest sample that is older than the window is its beginning.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now - *at >= window)
        {
            self.samples.pop_front();
        }
        let wanted = |average: f64| (average / self.rules.target).ceil() as usize;
        let stable = wanted(self.average(now, window));
        let burst = wanted(self.average(now, self.rules.panic_window));
        if burst as f64 >= self.rules.panic_threshold * pods as f64 {
            let most = self.panic.map_or(pods, |(_, most)| most);
            self.panic = Some((now, most.max(burst)));
        }
        let desired = match self.panic {
            Some((seen, most)) if now - seen < window => most.max(stable),
            _ => {
                self.panic = None;
                // Knative halves at most in one step.
                stable.max(pods / 2)
            }
        };
        self.kept(now, desired)
            .max(self.rules.min)
            .min(self.rules.max)
    }

    /// Keeps the last pod for the retention period, and until the window is full.
    fn kept(&mut self, now: Instant, desired: usize) -> usize {
        let full = self
            .samples
            .front()
            .is_some_and(|(at, _)| now - *at >= self.rules.window);
        if desired > 0 || !full {
            self.idle_since = None;
            return desired.max(1);
        }
        let since = *self.idle_since.get_or_insert(now);
        usize::from(now - since < self.rules.retention)
    }

    /// Average concurrency over the last `window`, or since the first sample.
    fn average(&self, now: Instant, window: Duration) -> f64 {
        let last = self.samples.back();
        let first = self
            .samples
            .iter()
            .rev()
            .find(|(at, _)| now - *at >= window)
            .or(self.samples.front());
        let (Some((from, before)), Some((to, after))) = (first, last) else {
            return 0.0;
        };
        let seconds = (*to - *from).as_secs_f64();
        if seconds == 0.0 {
            0.0
        } else {
            (after - before) / seconds
        }
    }
}
