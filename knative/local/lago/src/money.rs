//! Money in cents, credits in 10^-5, units in 10^-19: integers, as exact as Lago's columns.
//!
//! Lago's columns for credits have five places. What it computes in floats on the way there
//! is computed exactly here and rounded once.

use ethnum::I256;
use model::Decimal;

/// Money in the smallest unit of a currency of two places.
pub(crate) type Cents = i64;

/// A sum of units, or the mantissa of a [`Decimal`]: integers of 10^-19.
pub(crate) type Units = I256;

const UNIT_PLACES: u32 = model::SCALE;
const CREDIT_PLACES: u32 = 5;

/// An amount of credits, in 10^-5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Credits(pub(crate) i128);

impl Credits {
    /// Returns `value`, cut off after five places.
    pub(crate) fn floor(value: Decimal) -> Self {
        let step = 10_i128.pow(UNIT_PLACES - CREDIT_PLACES);
        Self(value.mantissa().div_euclid(step))
    }

    /// Returns what these credits are worth at `rate` money a credit, half a cent away from 0;
    /// `None` when that is beyond [`Cents`].
    pub(crate) fn money(self, rate: Decimal) -> Option<Cents> {
        let money = I256::new(self.0).checked_mul(I256::new(rate.mantissa()))?;
        let cent = power(UNIT_PLACES + CREDIT_PLACES - 2);
        Cents::try_from(rounded(money, cent)).ok()
    }

    /// Returns the credits that `cents` buy at `rate`, which is above 0.
    pub(crate) fn of_money(cents: Cents, rate: Decimal) -> Self {
        let scaled = I256::from(cents) * power(UNIT_PLACES + CREDIT_PLACES - 2);
        let credits = rounded(scaled, I256::new(rate.mantissa()));
        // |cents| < 10^19 and a rate of 10^-19 or more: below 10^41 at most, above i128's 10^38
        // only for rates that no wallet is given (they have 5 places in Lago).
        Self(i128::try_from(credits).unwrap_or(i128::MAX))
    }
}

impl std::fmt::Display for Credits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&scaled_text(I256::new(self.0), CREDIT_PLACES))
    }
}

/// Returns `value` as units.
pub(crate) fn units(value: Decimal) -> Units {
    I256::new(value.mantissa())
}

/// Returns the price of `units` at `price` a unit, half a cent away from 0 and never below 0;
/// `None` when it is beyond [`Cents`].
pub(crate) fn fee(units: Units, price: Decimal) -> Option<Cents> {
    let money = units.checked_mul(I256::new(price.mantissa()))?;
    let cents = rounded(money, power(2 * UNIT_PLACES - 2));
    Cents::try_from(cents).ok().map(|cents| cents.max(0))
}

/// Returns `percent` of an amount, half a cent away from 0.
pub(crate) fn percent_of(cents: Cents, percent: Decimal) -> Option<Cents> {
    let part = I256::from(cents) * I256::new(percent.mantissa());
    Cents::try_from(rounded(part, power(UNIT_PLACES + 2))).ok()
}

/// Writes units as Lago writes decimals: at least one digit on each side of the point.
pub(crate) fn units_text(units: Units) -> String {
    scaled_text(units, UNIT_PLACES)
}

/// As [`units_text`], of a decimal.
pub(crate) fn decimal_text(value: Decimal) -> String {
    units_text(units(value))
}

fn power(places: u32) -> I256 {
    I256::new(10).pow(places)
}

/// Rounds to a whole number, half away from 0. `divisor` is above 0.
fn rounded(dividend: I256, divisor: I256) -> I256 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let step = if dividend < 0 { -1 } else { 1 };
    if rest.abs() >= divisor - rest.abs() {
        quotient + step
    } else {
        quotient
    }
}

fn scaled_text(value: I256, places: u32) -> String {
    let places = places as usize;
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let fraction = fraction.trim_end_matches('0');
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn a_fee_is_exact_and_rounded_once() {
        for (amount, price, cents) in [
            ("3", "0.02", Some(6)),
            ("0.3", "0.02", Some(1)),
            ("0.2", "0.02", Some(0)),
            ("0.25", "0.02", Some(1)),
            ("-3", "0.02", Some(0)),
            ("9999999999999999999", "1", None),
        ] {
            assert_eq!(
                fee(units(decimal(amount)), decimal(price)),
                cents,
                "{amount}"
            );
        }
        assert_eq!(percent_of(1050, decimal("20")), Some(210));
        assert_eq!(percent_of(1, decimal("50")), Some(1));
    }

    #[test]
    fn credits_have_five_places() {
        assert_eq!(Credits::floor(decimal("1.999999")).to_string(), "1.99999");
        assert_eq!(Credits::floor(decimal("100")).to_string(), "100.0");
        assert_eq!(Credits::of_money(100, decimal("3")).to_string(), "0.33333");
        assert_eq!(
            Credits::of_money(-200, decimal("3")).to_string(),
            "-0.66667"
        );
        assert_eq!(
            Credits::floor(decimal("0.5")).money(decimal("0.01")),
            Some(1)
        );
        assert_eq!(
            Credits::floor(decimal("-0.4")).money(decimal("0.01")),
            Some(0)
        );
        assert_eq!(decimal_text(decimal("-0.05")), "-0.05");
    }

    proptest! {
        #[test]
        fn at_a_rate_of_one_money_and_credits_are_the_same_number(cents: i64) {
            let credits = Credits::of_money(cents, Decimal::ONE);
            prop_assert_eq!(credits.0, i128::from(cents) * 1000);
            prop_assert_eq!(credits.money(Decimal::ONE), Some(cents));
        }

        #[test]
        fn a_text_is_the_number_that_it_was(mantissa in -(10_i128.pow(38) - 1)..10_i128.pow(38)) {
            let value = Decimal::from_mantissa(mantissa).unwrap();
            prop_assert_eq!(decimal_text(value).parse::<Decimal>(), Ok(value));
        }
    }
}
