//! When a PingSource fires: standard cron, with an optional field of seconds in front.

use cronexpr::{Crontab, MakeTimestamp};
use jiff::Timestamp;

/// When something is due, over and over.
#[derive(Clone, Debug)]
pub struct Schedule {
    minutes: Crontab,
    // Seconds of such a minute, never none.
    seconds: Vec<i64>,
}

impl Schedule {
    /// Reads five fields, six of which the first is seconds, or a descriptor such as `@hourly`;
    /// without a time zone it is UTC.
    pub fn read(text: &str, timezone: Option<&str>) -> Result<Self, String> {
        let fields = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => {
                return Err(format!("{other:?} is not supported by PingSource"));
            }
            other => other,
        };
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        if let Some(field) = fields.iter().find(|field| !is_standard(field)) {
            return Err(format!("{field:?} is not standard cron"));
        }
        let (seconds, minutes) = match fields.as_slice() {
            [seconds, minutes @ ..] if minutes.len() == 5 => (*seconds, minutes),
            minutes if minutes.len() == 5 => ("0", minutes),
            _ => return Err("has neither five fields nor six".to_owned()),
        };
        let parse = |text: &str| cronexpr::parse_crontab(text).map_err(|error| error.to_string());
        let minutes = minutes.join(" ").replace('?', "*");
        let minutes = parse(&format!("{minutes} {}", timezone.unwrap_or("UTC")))?;
        // A minute of an hour is what a second of a minute is.
        let hour = parse(&format!("{} * * * * UTC", seconds.replace('?', "*")))?;
        let seconds = (0..60).filter(|second| {
            let minute = MakeTimestamp::from_second(second * 60);
            minute.is_ok_and(|minute| hour.matches(minute).unwrap_or(false))
        });
        let schedule = Self {
            minutes,
            seconds: seconds.collect(),
        };
        match schedule.next(Timestamp::now()) {
            Some(_) => Ok(schedule),
            None => Err("never comes".to_owned()),
        }
    }

    /// Returns when it is due next after `now`, if it ever is.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.as_second();
        let minute = now - now.rem_euclid(60);
        let this = self
            .minutes
            .matches(MakeTimestamp::from_second(minute).ok()?);
        let left = self.seconds.iter().find(|&&second| minute + second > now);
        let next = match left {
            Some(second) if this.unwrap_or(false) => minute + second,
            _ => {
                let next = self
                    .minutes
                    .find_next(MakeTimestamp::from_second(minute).ok()?);
                next.ok()?.timestamp().as_second() + self.seconds.first()?
            }
        };
        Timestamp::from_second(next).ok()
    }
}

/// The library reads more than Knative's does.
fn is_standard(field: &str) -> bool {
    field.split([',', '-', '/']).all(|part| {
        matches!(part, "*" | "?")
            || !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
            || part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_when_cron_says() {
        for (schedule, zone, now, next) in [
            (
                "*/5 * * * *",
                None,
                "2026-01-31T10:20:30Z",
                "2026-01-31T10:25:00Z",
            ),
            (
                "20 10 * * *",
                None,
                "2026-01-31T10:20:00Z",
                "2026-02-01T10:20:00Z",
            ),
            (
                "*/5 * * * * *",
                None,
                "2026-01-31T10:20:30Z",
                "2026-01-31T10:20:35Z",
            ),
            (
                "*/5 * * * * *",
                None,
                "2026-01-31T10:20:55.5Z",
                "2026-01-31T10:21:00Z",
            ),
            (
                "10,40 20 10 * * ?",
                None,
                "2026-01-31T10:20:10Z",
                "2026-01-31T10:20:40Z",
            ),
            (
                "10,40 20 10 * * ?",
                None,
                "2026-01-31T10:20:40Z",
                "2026-02-01T10:20:10Z",
            ),
            (
                "@hourly",
                None,
                "2026-01-31T10:20:30Z",
                "2026-01-31T11:00:00Z",
            ),
            (
                "@weekly",
                None,
                "2026-01-31T10:20:30Z",
                "2026-02-01T00:00:00Z",
            ),
            (
                "0 9 * * MON-FRI",
                Some("Europe/Berlin"),
                "2026-07-04T00:00:00Z",
                "2026-07-06T07:00:00Z",
            ),
        ] {
            let schedule = Schedule::read(schedule, zone).unwrap();
            let found = schedule.next(now.parse().unwrap()).unwrap();
            assert_eq!(found.to_string(), next, "{schedule:?}");
        }
    }

    #[test]
    fn what_knative_does_not_read_is_refused() {
        for schedule in [
            "@every 1m",
            "61 * * * *",
            "* * * *",
            "* * * * * * *",
            "0 0 L * *",
            "0 0 * * 5#3",
            "0 0 1W * *",
            "0 0 31 2 *",
            "",
        ] {
            assert!(Schedule::read(schedule, None).is_err(), "{schedule}");
        }
        assert!(Schedule::read("* * * * *", Some("Nowhere/At/All")).is_err());
    }
}
