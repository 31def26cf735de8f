//! Credits: what usage is charged in, in whole micro-credits.

use std::{fmt, str::FromStr};

use crate::decimal::{Decimal, DecimalError, SCALE, write_scaled};

/// Digits of a credit after the point.
const PLACES: u32 = 6;

/// A micro-credit's mantissa as a [`Decimal`].
const MICRO: i128 = 10_i128.pow(SCALE - PLACES);

/// An amount of credits of either sign: exact, in units of 10^-6 credit, never beyond
/// [`Credits::MAX`] in magnitude.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Credits(i64);

impl Credits {
    /// No credits.
    pub const ZERO: Self = Self(0);
    /// The largest amount: 2^53 - 1 micro-credits (9007199254.740991 credits). Balances
    /// are kept by Valkey scripts, and Lua's numbers there are doubles: they hold every
    /// integer up to this one, and not every one beyond. The smallest is its negative.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Returns `micros` x 10^-6 credits; `None` when it is beyond [`Credits::MAX`] in
    /// magnitude.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (micros.unsigned_abs() <= Self::MAX.0.unsigned_abs()).then_some(Self(micros))
    }

    /// Returns the amount in micro-credits.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Returns the sum of both; `None` when it is beyond [`Credits::MAX`] in magnitude.
    pub fn checked_plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::from_micros)
    }
}

/// Why a text is no [`Credits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreditsError {
    /// The text is no decimal number.
    #[error("not a number of credits")]
    NotANumber,
    /// The number has more than 6 digits after the point.
    #[error("more than 6 decimal places of a credit")]
    TooFine,
    /// The magnitude is above [`Credits::MAX`].
    #[error("more than {} credits", Credits::MAX)]
    TooLarge,
}

impl From<DecimalError> for CreditsError {
    fn from(error: DecimalError) -> Self {
        match error {
            DecimalError::NotANumber | DecimalError::NaN | DecimalError::Infinite => {
                Self::NotANumber
            }
            DecimalError::TooLarge => Self::TooLarge,
            DecimalError::TooFine => Self::TooFine,
        }
    }
}

impl FromStr for Credits {
    type Err = CreditsError;

    /// Reads what [`Decimal`] reads, of at most 6 places and within [`Credits::MAX`].
    fn from_str(text: &str) -> Result<Self, CreditsError> {
        let mantissa = text.parse::<Decimal>()?.mantissa();
        if mantissa % MICRO != 0 {
            return Err(CreditsError::TooFine);
        }
        i64::try_from(mantissa / MICRO)
            .ok()
            .and_then(Self::from_micros)
            .ok_or(CreditsError::TooLarge)
    }
}

impl fmt::Display for Credits {
    /// Writes plain digits, no exponent, no trailing zeros after the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = u128::from(self.0.unsigned_abs()) * MICRO.unsigned_abs();
        write_scaled(f, self.0 < 0, &magnitude.to_string())
    }
}

impl fmt::Debug for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: i64 = 9_007_199_254_740_991;

    #[test]
    fn a_text_is_read_exactly_or_refused() {
        for (text, expected) in [
            ("0", Ok("0")),
            ("-0", Ok("0")),
            ("100", Ok("100")),
            ("1.500000", Ok("1.5")),
            ("1.5000000000", Ok("1.5")),
            ("-0.000001", Ok("-0.000001")),
            ("1e3", Ok("1000")),
            ("9007199254.740991", Ok("9007199254.740991")),
            ("-9007199254.740991", Ok("-9007199254.740991")),
            ("9007199254.740992", Err(CreditsError::TooLarge)),
            ("-9007199254.740992", Err(CreditsError::TooLarge)),
            ("9999999999999999999", Err(CreditsError::TooLarge)),
            ("1e30", Err(CreditsError::TooLarge)),
            ("0.0000001", Err(CreditsError::TooFine)),
            ("1e-30", Err(CreditsError::TooFine)),
            ("", Err(CreditsError::NotANumber)),
            ("ten", Err(CreditsError::NotANumber)),
            ("NaN", Err(CreditsError::NotANumber)),
            ("inf", Err(CreditsError::NotANumber)),
        ] {
            let read = text.parse::<Credits>().map(|credits| credits.to_string());
            assert_eq!(read, expected.map(str::to_owned), "{text}");
        }
        assert_eq!(
            CreditsError::TooLarge.to_string(),
            "more than 9007199254.740991 credits"
        );
    }

    #[test]
    fn nothing_goes_beyond_what_a_double_counts() {
        let credits = |micros| Credits::from_micros(micros);
        for micros in [MAX + 1, -MAX - 1, i64::MAX, i64::MIN] {
            assert_eq!(credits(micros), None, "{micros}");
        }
        let one = credits(1).unwrap();
        assert_eq!(credits(MAX), Some(Credits::MAX));
        assert_eq!(Credits::MAX.checked_plus(one), None);
        assert_eq!(credits(MAX - 1).unwrap().checked_plus(one), credits(MAX));
        assert_eq!(
            credits(-MAX).unwrap().checked_plus(credits(-1).unwrap()),
            None
        );
        assert_eq!(format!("{one:?}"), "0.000001");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(micros in -MAX..=MAX) {
            let credits = Credits::from_micros(micros).unwrap();
            prop_assert_eq!(credits.micros(), micros);
            prop_assert_eq!(credits.to_string().parse::<Credits>(), Ok(credits));
        }
    }
}
