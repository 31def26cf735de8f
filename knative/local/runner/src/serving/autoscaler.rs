//! How many pods a Service wants: the Knative Pod Autoscaler's rule over average concurrency.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::autoscaling::Autoscaling;

/// How often the autoscaler decides. Knative's does every 2 s.
pub(super) const TICK: Duration = Duration::from_secs(1);

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
            self.panic = Some((now, self.panic.map_or(pods, |(_, most)| most)));
        }
        self.panic = self.panic.filter(|(seen, _)| now - *seen < window);
        let desired = match &mut self.panic {
            // Nothing is let go while a burst may last.
            Some((_, most)) => {
                *most = (*most).max(stable).max(burst);
                *most
            }
            // Knative halves at most in one step.
            None => stable.max(pods / 2),
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

#[cfg(test)]
mod tests {
    use super::{super::autoscaling::tests::rules, *};

    /// An autoscaler and the second that it is in.
    struct Clock {
        autoscaler: Autoscaler,
        start: Instant,
        second: u64,
        request_seconds: f64,
        pods: usize,
    }

    impl Clock {
        fn new(annotations: &[(&str, &str)]) -> Self {
            let start = Instant::now();
            Self {
                autoscaler: Autoscaler::new(rules(annotations, 0).unwrap(), start, 0.0),
                start,
                second: 0,
                request_seconds: 0.0,
                pods: 1,
            }
        }

        /// Lets `seconds` pass with `concurrency` requests, and returns how many pods there are.
        fn pass(&mut self, seconds: u64, concurrency: f64) -> usize {
            for _ in 0..seconds {
                self.second += 1;
                self.request_seconds += concurrency;
                let now = self.start + Duration::from_secs(self.second);
                self.pods = self.autoscaler.decide(now, self.request_seconds, self.pods);
            }
            self.pods
        }
    }

    #[test]
    fn steady_load_has_the_pods_that_it_needs() {
        let mut clock = Clock::new(&[("target", "10"), ("target-utilization-percentage", "100")]);
        assert_eq!(clock.pass(10, 9.0), 1);
        assert_eq!(clock.pass(120, 15.0), 2);
        assert_eq!(clock.pass(120, 95.0), 10);
    }

    #[test]
    fn a_burst_is_met_at_once_and_let_go_after_a_window() {
        let annotations = [("target", "10"), ("target-utilization-percentage", "100")];
        let mut clock = Clock::new(&annotations);
        clock.pass(60, 1.0);
        assert_eq!(clock.pass(6, 100.0), 10, "the panic window is full of it");
        assert_eq!(clock.pass(50, 1.0), 10, "nothing is let go in a panic");
        let after = clock.pass(70, 1.0);
        assert_eq!(after, 1);
    }

    #[test]
    fn pods_go_by_halves_and_the_last_after_an_idle_window() {
        let mut clock = Clock::new(&[
            ("window", "10s"),
            ("target", "1"),
            ("target-utilization-percentage", "100"),
            ("scale-to-zero-pod-retention-period", "5s"),
        ]);
        assert_eq!(clock.pass(30, 8.0), 8);
        let counts: Vec<usize> = (0..17).map(|_| clock.pass(1, 0.0)).collect();
        assert!(
            counts.windows(2).all(|pair| pair[1] >= pair[0] / 2),
            "{counts:?}"
        );
        assert_eq!(counts[13], 1, "the last is retained: {counts:?}");
        assert_eq!(counts.last(), Some(&0), "{counts:?}");
    }

    #[test]
    fn at_zero_it_waits_for_a_request() {
        let mut clock = Clock::new(&[("window", "6s")]);
        clock.pass(3, 5.0);
        clock.pods = 0;
        assert_eq!(
            clock.pass(10, 0.0),
            0,
            "what was before does not bring a pod back"
        );
        clock.pods = 1;
        assert_eq!(
            clock.pass(5, 0.0),
            1,
            "one that a request brought stays for a window"
        );
        assert_eq!(clock.pass(2, 0.0), 0);
    }

    #[test]
    fn scale_has_its_bounds() {
        let mut clock = Clock::new(&[("min-scale", "2"), ("max-scale", "3"), ("target", "1")]);
        assert_eq!(clock.pass(1, 0.0), 2);
        assert_eq!(clock.pass(60, 50.0), 3);
        clock.pods = 0;
        assert_eq!(clock.pass(1, 0.0), 2);
    }
}
