//! Windows of time: half-open, aligned in a time zone, without gaps.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// The sizes in which usage can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowSize {
    /// 60 seconds, aligned to the zone's full minutes.
    Minute,
    /// 3600 seconds, aligned to the zone's full hours.
    Hour,
    /// A calendar day in the zone: 23, 24 or 25 hours where summer time begins or ends.
    Day,
    /// A calendar month in the zone.
    Month,
}

/// A text that names no [`WindowSize`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of MINUTE, HOUR, DAY, MONTH")]
pub struct UnknownWindowSize;

impl FromStr for WindowSize {
    type Err = UnknownWindowSize;

    fn from_str(text: &str) -> Result<Self, UnknownWindowSize> {
        match text {
            "MINUTE" => Ok(Self::Minute),
            "HOUR" => Ok(Self::Hour),
            "DAY" => Ok(Self::Day),
            "MONTH" => Ok(Self::Month),
            _ => Err(UnknownWindowSize),
        }
    }
}

impl fmt::Display for WindowSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "MINUTE",
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Month => "MONTH",
        })
    }
}

/// A span of time: `start` is in it, `end` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first instant inside.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl Window {
    /// Returns the window of `size`, aligned in `zone`, that holds `at`.
    ///
    /// A day or month begins at the first instant that the zone has of it,
    /// which is 01:00 where the clocks skip midnight.
    pub fn holding(at: Timestamp, size: WindowSize, zone: &TimeZone) -> Self {
        match size {
            WindowSize::Minute => Self::tumbling(at, SignedDuration::from_mins(1), zone),
            WindowSize::Hour => Self::tumbling(at, SignedDuration::from_hours(1), zone),
            WindowSize::Day => {
                let date = zone.to_datetime(at).date();
                Self::of_dates(date, date.tomorrow().unwrap_or(Date::MAX), zone)
            }
            WindowSize::Month => {
                let date = zone.to_datetime(at).date();
                let next = date.last_of_month().tomorrow().unwrap_or(Date::MAX);
                Self::of_dates(date.first_of_month(), next, zone)
            }
        }
    }

    fn tumbling(at: Timestamp, length: SignedDuration, zone: &TimeZone) -> Self {
        let offset = i64::from(zone.to_offset(at).seconds());
        let seconds = length.as_secs();
        let local = at.as_second() - i64::from(at.subsec_nanosecond() < 0) + offset;
        let start = local - local.rem_euclid(seconds) - offset;
        Self {
            start: saturating(start),
            end: saturating(start + seconds),
        }
    }

    fn of_dates(first: Date, next: Date, zone: &TimeZone) -> Self {
        Self {
            start: start_of_day(first, zone),
            end: start_of_day(next, zone),
        }
    }
}

fn saturating(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(if second < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

fn start_of_day(date: Date, zone: &TimeZone) -> Timestamp {
    date.to_zoned_datetime(zone.clone())
        .and_then(|midnight| midnight.start_of_day())
        .map_or(Timestamp::MAX, |start| start.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZONES: [&str; 7] = [
        "UTC",
        "Europe/Berlin",
        "Europe/London",
        "America/Los_Angeles",
        "Asia/Kolkata",
        "America/Sao_Paulo",
        "Australia/Sydney",
    ];

    #[test]
    fn a_window_is_aligned_in_its_zone() {
        for (at, size, zone, start, end) in [
            (
                "2025-03-09T17:00:00Z",
                WindowSize::Day,
                "America/Los_Angeles",
                "2025-03-09T08:00:00Z",
                "2025-03-10T07:00:00Z",
            ),
            (
                "2025-11-02T18:00:00Z",
                WindowSize::Day,
                "America/Los_Angeles",
                "2025-11-02T07:00:00Z",
                "2025-11-03T08:00:00Z",
            ),
            (
                "2024-03-31T00:59:59Z",
                WindowSize::Hour,
                "Europe/Berlin",
                "2024-03-31T00:00:00Z",
                "2024-03-31T01:00:00Z",
            ),
            (
                "2024-02-29T23:30:00Z",
                WindowSize::Month,
                "Europe/Berlin",
                "2024-02-29T23:00:00Z",
                "2024-03-31T22:00:00Z",
            ),
            (
                "2024-01-15T10:45:00Z",
                WindowSize::Hour,
                "Asia/Kolkata",
                "2024-01-15T10:30:00Z",
                "2024-01-15T11:30:00Z",
            ),
            (
                "2018-11-04T12:00:00Z",
                WindowSize::Day,
                "America/Sao_Paulo",
                "2018-11-04T03:00:00Z",
                "2018-11-05T02:00:00Z",
            ),
            (
                "2023-12-31T23:59:59.999999Z",
                WindowSize::Minute,
                "UTC",
                "2023-12-31T23:59:00Z",
                "2024-01-01T00:00:00Z",
            ),
        ] {
            let window = Window::holding(at.parse().unwrap(), size, &TimeZone::get(zone).unwrap());
            let expected = Window {
                start: start.parse().unwrap(),
                end: end.parse().unwrap(),
            };
            assert_eq!(window, expected, "{at} {size} {zone}");
        }
    }

    proptest! {
        #[test]
        fn windows_tile_time_without_gap_or_overlap(
            second in 0_i64..10_413_792_000,
            nanosecond in 0_i32..1_000_000_000,
            size in prop::sample::select(vec![WindowSize::Minute, WindowSize::Hour, WindowSize::Day, WindowSize::Month]),
            zone in prop::sample::select(ZONES.to_vec()),
        ) {
            let zone = TimeZone::get(zone).unwrap();
            let at = Timestamp::new(second, nanosecond).unwrap();
            let window = Window::holding(at, size, &zone);
            prop_assert!(window.start <= at && at < window.end);
            prop_assert_eq!(Window::holding(window.start, size, &zone), window);
            let last = window.end - SignedDuration::from_nanos(1);
            prop_assert_eq!(Window::holding(last, size, &zone), window);
            prop_assert_eq!(Window::holding(window.end, size, &zone).start, window.end);
        }
    }
}
