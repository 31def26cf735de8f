//! Exact decimals: `Decimal` for one value, `Total` for a sum of values.
//!
//! Both are integers counted in units of 10^-19. Nothing public here rounds, but
//! for [`Total::mean`], whose rule is stated there. No float is ever involved.

use std::{fmt, str::FromStr};

use ethnum::I256;

/// Digits after the point that a value can have.
pub const SCALE: u32 = 19;

/// Digits before the point that a value can have.
const INTEGER_DIGITS: i64 = 19;

const UNIT: i128 = 10_i128.pow(SCALE);

/// A metered value: exact, |v| < 10^19, at most 19 digits after the point.
///
/// The store's type for it is `Decimal(38, 19)`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(i128);

impl Decimal {
    /// The value 0.
    pub const ZERO: Self = Self(0);
    /// The value 1, what each event adds to a COUNT meter.
    pub const ONE: Self = Self(UNIT);

    /// Returns the value in units of 10^-19.
    pub fn mantissa(self) -> i128 {
        self.0
    }

    /// Returns the value of `mantissa` x 10^-19, if it is in range.
    pub fn from_mantissa(mantissa: i128) -> Option<Self> {
        (mantissa.unsigned_abs() < 10_u128.pow(38)).then_some(Self(mantissa))
    }
}

/// Why a text is no [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is no decimal number.
    #[error("not a number")]
    NotANumber,
    /// The text says NaN.
    #[error("NaN")]
    NaN,
    /// The text says infinity, of either sign.
    #[error("infinity")]
    Infinite,
    /// The magnitude is 10^19 or more.
    #[error("10^19 or more")]
    TooLarge,
    /// The number has more than 19 digits after the point.
    #[error("more than 19 decimal places")]
    TooFine,
}

impl FromStr for Decimal {
    type Err = DecimalError;

    /// Reads `[+-] digits [. digits] [e [+-] digits]`, where digits may be
    /// missing on one side of the point (as `strconv.ParseFloat`, OpenMeter's
    /// rule, has it). Zeros that change nothing are free, whatever their number.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let number = Scanned::new(text)?;
        let Some(exponent) = number.exponent() else {
            return Ok(Self::ZERO);
        };
        let digits = number.digits.as_slice();
        // Size before fineness: 1e400 and 1e-400 then get the error a reader expects.
        let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        if count.saturating_add(exponent) > INTEGER_DIGITS {
            return Err(DecimalError::TooLarge);
        }
        let shift = exponent.saturating_add(i64::from(SCALE));
        let shift = u32::try_from(shift).map_err(|_| DecimalError::TooFine)?;
        // At most 38 digits are left: count + exponent <= 19 and exponent >= -19.
        let magnitude = digits
            .iter()
            .fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'))
            * 10_i128.pow(shift);
        Ok(Self(if number.negative {
            -magnitude
        } else {
            magnitude
        }))
    }
}

/// A number's sign, significant digits and exponent, as written.
struct Scanned {
    negative: bool,
    /// Digits without leading and trailing zeros; empty for zero.
    digits: Vec<u8>,
    /// Power of ten of the digits' last place.
    power: i64,
}

impl Scanned {
    fn new(text: &str) -> Result<Self, DecimalError> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if rest.eq_ignore_ascii_case(b"nan") {
            return Err(DecimalError::NaN);
        }
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Err(DecimalError::Infinite);
        }
        let (mantissa, exponent) = match rest.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => (&rest[..at], exponent_of(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (integer, fraction) = match mantissa.iter().position(|b| *b == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        let all_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        if integer.len() + fraction.len() == 0 || !all_digits(integer) || !all_digits(fraction) {
            return Err(DecimalError::NotANumber);
        }
        let mut digits = [integer, fraction].concat();
        let kept = digits
            .iter()
            .rposition(|b| *b != b'0')
            .map_or(0, |at| at + 1);
        let trailing = digits.len() - kept;
        digits.truncate(kept);
        digits.drain(..digits.iter().take_while(|b| **b == b'0').count());
        let places = i64::try_from(trailing).unwrap_or(i64::MAX)
            - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        Ok(Self {
            negative,
            digits,
            power: exponent.saturating_add(places),
        })
    }

    /// Returns the power of ten of the last significant digit; `None` for zero.
    fn exponent(&self) -> Option<i64> {
        (!self.digits.is_empty()).then_some(self.power)
    }
}

fn exponent_of(text: &[u8]) -> Result<i64, DecimalError> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecimalError::NotANumber);
    }
    let size = digits.iter().fold(0_i64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'))
    });
    Ok(if negative { -size } else { size })
}

/// Writes a JSON number's value so that equal numbers give equal bytes,
/// whatever their size: `1`, `1.0` and `10e-1` all give `1e0`.
///
/// Texts that are no number come out as they are.
pub(crate) fn write_canonical(out: &mut Vec<u8>, text: &str) {
    let Ok(number) = Scanned::new(text) else {
        out.extend_from_slice(text.as_bytes());
        return;
    };
    let Some(exponent) = number.exponent() else {
        out.extend_from_slice(b"0e0");
        return;
    };
    if number.negative {
        out.push(b'-');
    }
    out.extend_from_slice(&number.digits);
    out.push(b'e');
    out.extend_from_slice(exponent.to_string().as_bytes());
}

impl fmt::Display for Decimal {
    /// Writes plain digits, no exponent, no trailing zeros after the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0 < 0, &self.0.unsigned_abs().to_string())
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes a magnitude in units of 10^-19 as plain digits, no trailing zeros after the point.
pub(crate) fn write_scaled(
    f: &mut fmt::Formatter<'_>,
    negative: bool,
    magnitude: &str,
) -> fmt::Result {
    let padded = format!("{magnitude:0>width$}", width = SCALE as usize + 1);
    let (integer, fraction) = padded.split_at(padded.len() - SCALE as usize);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    f.pad_integral(!negative, "", &format!("{integer}{point}{fraction}"))
}

/// A sum of values: exact, at most 57 digits before the point.
///
/// The store's type for it is `Decimal(76, 19)`: 10^38 values of the largest
/// size fit, so a sum of real rows cannot overflow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Total(I256);

impl Total {
    /// The sum of nothing.
    pub const ZERO: Self = Self(I256::ZERO);

    /// Returns the sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Returns this sum divided by `count`, rounded half-even at 19 places;
    /// `None` when `count` is 0.
    pub fn mean(self, count: u64) -> Option<Self> {
        if count == 0 {
            return None;
        }
        let divisor = I256::from(count);
        Some(Self(divide_half_even(self.0, divisor)))
    }
}

/// Returns the quotient rounded to a whole number, a tie to the even one. `divisor` is
/// above 0 and at most half of the largest I256.
pub(crate) fn divide_half_even(dividend: I256, divisor: I256) -> I256 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let doubled = rest.abs() * 2;
    let away = doubled > divisor || (doubled == divisor && quotient % 2 != 0);
    let step = if dividend < 0 { -1 } else { 1 };
    if away { quotient + step } else { quotient }
}

impl From<Decimal> for Total {
    fn from(value: Decimal) -> Self {
        Self(I256::from(value.0))
    }
}

impl From<u64> for Total {
    fn from(count: u64) -> Self {
        Self(I256::from(count) * I256::from(UNIT))
    }
}

impl FromStr for Total {
    type Err = DecimalError;

    /// Reads plain digits with an optional sign and point, as the store prints them.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let number = Scanned::new(text)?;
        let Some(exponent) = number.exponent() else {
            return Ok(Self::ZERO);
        };
        let shift = exponent.saturating_add(i64::from(SCALE));
        let shift = u32::try_from(shift).map_err(|_| DecimalError::TooFine)?;
        let count = u32::try_from(number.digits.len()).map_err(|_| DecimalError::TooLarge)?;
        if count.saturating_add(shift) > 76 {
            return Err(DecimalError::TooLarge);
        }
        let magnitude = number
            .digits
            .iter()
            .fold(I256::ZERO, |sum, digit| sum * 10 + I256::from(digit - b'0'))
            * I256::new(10).pow(shift);
        Ok(Self(if number.negative {
            -magnitude
        } else {
            magnitude
        }))
    }
}

impl fmt::Display for Total {
    /// Writes plain digits, no exponent, no trailing zeros after the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0 < 0, &self.0.unsigned_abs().to_string())
    }
}

impl fmt::Debug for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Result<String, DecimalError> {
        text.parse::<Decimal>().map(|value| value.to_string())
    }

    #[test]
    fn a_number_keeps_every_digit_or_is_refused() {
        for (text, expected) in [
            ("0", Ok("0")),
            ("-0.0", Ok("0")),
            ("45", Ok("45")),
            ("+5", Ok("5")),
            (".5", Ok("0.5")),
            ("5.", Ok("5")),
            ("1e3", Ok("1000")),
            ("1.25E-2", Ok("0.0125")),
            ("12345678901234567890e-1", Ok("1234567890123456789")),
            ("0.1234567890123456789", Ok("0.1234567890123456789")),
            (
                "9999999999999999999.9999999999999999999",
                Ok("9999999999999999999.9999999999999999999"),
            ),
            (
                "-9999999999999999999.9999999999999999999",
                Ok("-9999999999999999999.9999999999999999999"),
            ),
            ("0.10000000000000000000000000000000000000000000", Ok("0.1")),
            ("0e999999999999999999999999", Ok("0")),
            ("10000000000000000000", Err(DecimalError::TooLarge)),
            ("1e19", Err(DecimalError::TooLarge)),
            ("1e999999999999999999999999", Err(DecimalError::TooLarge)),
            ("0.12345678901234567891", Err(DecimalError::TooFine)),
            ("1e-20", Err(DecimalError::TooFine)),
            ("1e-999999999999999999999999", Err(DecimalError::TooFine)),
            ("NaN", Err(DecimalError::NaN)),
            ("-Inf", Err(DecimalError::Infinite)),
            ("+infinity", Err(DecimalError::Infinite)),
            ("", Err(DecimalError::NotANumber)),
            (".", Err(DecimalError::NotANumber)),
            ("-", Err(DecimalError::NotANumber)),
            ("1e", Err(DecimalError::NotANumber)),
            ("1 ", Err(DecimalError::NotANumber)),
            ("1_000", Err(DecimalError::NotANumber)),
            ("0x10", Err(DecimalError::NotANumber)),
            ("1.2.3", Err(DecimalError::NotANumber)),
        ] {
            assert_eq!(decimal(text), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_mean_is_rounded_half_even_at_nineteen_places() {
        let total = |text: &str| text.parse::<Total>().unwrap();
        for (sum, count, mean) in [
            ("1", 3, "0.3333333333333333333"),
            ("2", 3, "0.6666666666666666667"),
            ("-2", 3, "-0.6666666666666666667"),
            ("0.0000000000000000001", 2, "0"),
            ("0.0000000000000000003", 2, "0.0000000000000000002"),
            ("-0.0000000000000000003", 2, "-0.0000000000000000002"),
            ("123.4567890123456789", 2, "61.72839450617283945"),
        ] {
            assert_eq!(
                total(sum).mean(count).unwrap().to_string(),
                mean,
                "{sum}/{count}"
            );
        }
        assert_eq!(total("1").mean(0), None);
    }

    #[test]
    fn equal_numbers_have_one_canonical_form() {
        let canonical = |text: &str| {
            let mut out = Vec::new();
            write_canonical(&mut out, text);
            String::from_utf8(out).unwrap()
        };
        for text in ["45", "45.0", "4.5e1", "450e-1", "0.45E+2"] {
            assert_eq!(canonical(text), "45e0");
        }
        assert_eq!(canonical("-0.0"), "0e0");
        assert_eq!(canonical("1e400"), "1e400");
        assert_ne!(canonical("1e400"), canonical("1e401"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(mantissa in -(10_i128.pow(38) - 1)..10_i128.pow(38)) {
            let value = Decimal::from_mantissa(mantissa).unwrap();
            prop_assert_eq!(value.to_string().parse::<Decimal>().unwrap(), value);
            let total = Total::from(value).plus(Total::from(value));
            prop_assert_eq!(total.to_string().parse::<Total>().unwrap(), total);
        }

        #[test]
        fn an_exponent_moves_the_point_and_nothing_else(
            mantissa in -(10_i128.pow(19) - 1)..10_i128.pow(19),
            places in 0_u32..=19,
        ) {
            let scaled = format!("{mantissa}e-{places}").parse::<Decimal>().unwrap();
            prop_assert_eq!(scaled.mantissa(), mantissa * 10_i128.pow(SCALE - places));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "[-+0-9.eE]{0,60}") {
            let _parsed: Result<Decimal, _> = text.parse();
            let _parsed: Result<Total, _> = text.parse();
        }
    }
}
