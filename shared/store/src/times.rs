//! Instants as the store has them: whole microseconds since 1970.

use jiff::Timestamp;

/// The first microsecond after the years that can be counted (2300-01-01T00:00:00Z).
pub(crate) const END_OF_TIME: i64 = 10_413_792_000_000_000;

/// Returns the first whole microsecond that is not before `at`: a stored time is at or
/// after it exactly if it is at or after `at`.
pub(crate) fn micros_at_or_after(at: Timestamp) -> i64 {
    let micros =
        at.as_nanosecond().div_euclid(1000) + i128::from(at.as_nanosecond().rem_euclid(1000) != 0);
    i64::try_from(micros).expect("a timestamp's microseconds fit")
}

/// Returns the instant of a stored time.
pub(crate) fn instant(micros: i64) -> Result<Timestamp, jiff::Error> {
    Timestamp::from_microsecond(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_between_two_microseconds_is_the_later_one() {
        for (text, micros) in [
            ("1970-01-01T00:00:00.000001Z", 1),
            ("1970-01-01T00:00:00.000001000Z", 1),
            ("1970-01-01T00:00:00.000001001Z", 2),
            ("1969-12-31T23:59:59.9999995Z", 0),
            ("2300-01-01T00:00:00Z", END_OF_TIME),
        ] {
            let at: Timestamp = text.parse().unwrap();
            assert_eq!(micros_at_or_after(at), micros, "{text}");
        }
    }
}
