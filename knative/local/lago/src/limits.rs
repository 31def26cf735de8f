//! Hosted Lago's rate limit, in windows of a second.

use std::time::{Duration, Instant};

use crate::settings::RateLimits;

/// What a response says of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Seconds until the window ends, at least 1.
    pub(crate) reset: u64,
    pub(crate) refused: bool,
}

pub(crate) struct Limiter {
    limits: Option<RateLimits>,
    began: Option<Instant>,
    /// Of this window: ingestion, usage, other.
    used: [u32; 3],
}

impl Limiter {
    pub(crate) fn new(limits: Option<RateLimits>) -> Self {
        Self {
            limits,
            began: None,
            used: [0; 3],
        }
    }

    /// Counts a request such as `POST /api/v1/events`; `None` where nothing is limited.
    pub(crate) fn count(&mut self, what: &str, now: Instant) -> Option<Standing> {
        let limits = self.limits?;
        let second = Duration::from_secs(1);
        if self
            .began
            .is_none_or(|began| now.duration_since(began) >= second)
        {
            self.began = Some(now);
            self.used = [0; 3];
        }
        let (group, limit) = if what.starts_with("POST /api/v1/events") {
            (0, limits.ingestion)
        } else if what.ends_with("/current_usage") {
            (1, limits.usage)
        } else {
            (2, limits.other)
        };
        let refused = self.used[group] >= limit;
        if !refused {
            self.used[group] += 1;
        }
        Some(Standing {
            limit,
            remaining: limit - self.used[group].min(limit),
            reset: 1,
            refused,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_a_limit_of_its_own_in_each_second() {
        let limits = RateLimits {
            ingestion: 2,
            usage: 1,
            other: 1,
        };
        let mut limiter = Limiter::new(Some(limits));
        let now = Instant::now();
        let events = "POST /api/v1/events/batch";
        let mut refused = |what: &str, at| limiter.count(what, at).unwrap().refused;
        assert_eq!([(); 3].map(|()| refused(events, now)), [false, false, true]);
        assert!(!refused("GET /api/v1/events", now));
        assert!(!refused("GET /api/v1/customers/a/current_usage", now));
        assert!(refused("GET /api/v1/customers/a/current_usage", now));
        assert!(!refused(events, now + Duration::from_secs(1)));
        assert_eq!(Limiter::new(None).count(events, now), None);
    }
}
