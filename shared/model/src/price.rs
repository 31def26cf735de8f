//! Prices: what a metered row costs at its time.

use std::collections::HashMap;

use ethnum::I256;

use crate::{
    apply::Usage,
    credits::Credits,
    decimal::{Decimal, divide_half_even},
};

/// The most that one row can cost, in micro-credits: 10^9 credits.
const MAX_OF_ROW: u64 = 10_u64.pow(15);

/// The most rows of one event that can have a price: as many of the dearest as fit
/// [`Credits::MAX`] together.
pub(crate) const MOST_ROWS: usize = 9;

/// A product of two [`Decimal`]s has 38 places; micro-credits have 6.
const PRODUCT_TO_MICROS: u32 = 32;

/// What each meter costs, by time. [`crate::QuotaRules`] reads it from YAML.
#[derive(Clone, Debug, Default)]
pub struct PriceList {
    /// By the meter's slug; the versions in the order of their time.
    pub(crate) meters: HashMap<String, Vec<Version>>,
}

/// A meter's price from some time on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// Microseconds since 1970; `i64::MIN` for a price that was always in force.
    pub(crate) effective_from: i64,
    /// What one unit costs, in credits; 0 or more.
    pub(crate) credits_per_unit: Decimal,
    /// The dimension whose value chooses another price, and those prices.
    pub(crate) by_group: Option<(String, HashMap<String, Decimal>)>,
}

/// Why a row has no price that can be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// It costs more than 10^9 credits, or gives back more.
    #[error("the price of one row is more than 10^9 credits")]
    TooLarge,
}

/// What the rows of one event cost together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventPrice {
    /// The sum; `None` when no row has a price.
    pub credits: Option<Credits>,
    /// How many rows were left out since they cost too much.
    pub too_large: usize,
}

/// One version of a meter's price, and when it is in force.
#[derive(Clone, Copy, Debug)]
pub struct PriceSpan<'a> {
    /// The meter's slug.
    pub meter: &'a str,
    /// The first time at which it is in force, in microseconds since 1970; `i64::MIN` when
    /// it always was.
    pub from: i64,
    /// The time from which on it no longer is; `i64::MAX` when it still is.
    pub until: i64,
    /// The dimension whose value chooses the price.
    pub group_by: Option<&'a str>,
    version: &'a Version,
}

impl PriceList {
    /// Returns what one row of `meter` costs that is counted at `time` (microseconds since
    /// 1970): its value times the unit price in force, rounded half-even to the
    /// micro-credit. A negative value gives a negative price.
    ///
    /// `group` gives the row's value of a dimension; one that it lacks is an empty one.
    ///
    /// `None` when the meter has no price, or none in force at that time.
    ///
    /// # Errors
    /// [`PriceError::TooLarge`] when the rounded price exceeds 10^9 credits in magnitude.
    pub fn price_of<'a>(
        &self,
        meter: &str,
        value: Decimal,
        time: i64,
        group: impl FnOnce(&str) -> Option<&'a str>,
    ) -> Result<Option<Credits>, PriceError> {
        let Some(version) = self.in_force(meter, time) else {
            return Ok(None);
        };
        let chosen = version.group_by().and_then(group).unwrap_or_default();
        version.price(value, chosen).map(Some)
    }

    /// Returns what one row costs that is counted at `time`: see [`PriceList::price_of`].
    ///
    /// # Errors
    /// [`PriceError::TooLarge`] as there.
    pub fn price(&self, usage: &Usage, time: i64) -> Result<Option<Credits>, PriceError> {
        let group = |name: &str| {
            let groups = &usage.meter.group_by;
            let place = groups.iter().position(|group| group.name == name)?;
            usage.groups.get(place).map(String::as_str)
        };
        self.price_of(&usage.meter.slug, usage.value, time, group)
    }

    /// Returns what these rows of one event cost together that is counted at `time`
    /// (microseconds since 1970). Each is rounded on its own, so that the sum is that of
    /// the rows' prices. One that costs too much is left out and counted, since the event
    /// is still worth what the others are.
    pub fn price_of_event<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a Usage>,
        time: i64,
    ) -> EventPrice {
        let mut event = EventPrice::default();
        for row in rows {
            let price = match self.price(row, time) {
                Ok(None) => continue,
                Ok(Some(price)) => Some(price),
                Err(PriceError::TooLarge) => None,
            };
            // The sum of as many rows as the rules allow an event always fits.
            let sum = event.credits.unwrap_or_default();
            match price.and_then(|price| sum.checked_plus(price)) {
                Some(sum) => event.credits = Some(sum),
                None => event.too_large += 1,
            }
        }
        event
    }

    /// Returns each version of each priced meter, a meter's in the order of their time.
    pub fn spans(&self) -> impl Iterator<Item = PriceSpan<'_>> {
        self.meters.iter().flat_map(|(meter, versions)| {
            let next = versions.iter().skip(1).map(|next| next.effective_from);
            let ends = next.chain([i64::MAX]);
            versions
                .iter()
                .zip(ends)
                .map(move |(version, until)| PriceSpan {
                    meter,
                    from: version.effective_from,
                    until,
                    group_by: version.group_by(),
                    version,
                })
        })
    }

    /// Returns the slugs of the meters that have a price.
    pub fn meters(&self) -> impl Iterator<Item = &str> {
        self.meters.keys().map(String::as_str)
    }

    fn in_force(&self, meter: &str, time: i64) -> Option<&Version> {
        let versions = self.meters.get(meter)?;
        let begun = versions.partition_point(|version| version.effective_from <= time);
        versions[..begun].last()
    }
}

impl PriceSpan<'_> {
    /// Returns what one row of this meter and these times costs: see
    /// [`PriceList::price_of`]. `group` is its value of [`PriceSpan::group_by`], empty
    /// where it lacks one.
    ///
    /// # Errors
    /// [`PriceError::TooLarge`] as there.
    pub fn price(&self, value: Decimal, group: &str) -> Result<Credits, PriceError> {
        self.version.price(value, group)
    }
}

impl Version {
    fn group_by(&self) -> Option<&str> {
        self.by_group.as_ref().map(|(name, _)| name.as_str())
    }

    fn price(&self, value: Decimal, group: &str) -> Result<Credits, PriceError> {
        let by_value = self.by_group.as_ref().map(|(_, prices)| prices);
        let unit_price = by_value
            .and_then(|prices| prices.get(group))
            .unwrap_or(&self.credits_per_unit);
        // Both are below 10^38 in magnitude, and 10^76 is below I256's end, 5.7 x 10^76.
        let product = I256::from(value.mantissa()) * I256::from(unit_price.mantissa());
        let micros = divide_half_even(product, I256::new(10).pow(PRODUCT_TO_MICROS));
        if micros.abs() > I256::from(MAX_OF_ROW) {
            return Err(PriceError::TooLarge);
        }
        let credits = i64::try_from(micros).ok().and_then(Credits::from_micros);
        credits.ok_or(PriceError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{catalog::Catalog, quota_rules::QuotaRules};

    const METERS: &str = r"
meters:
  - {slug: calls, eventType: t, aggregation: COUNT, groupBy: {a: $.a, endpoint: $.e}}
  - {slug: bytes, eventType: t, aggregation: SUM, valueProperty: $.v}
  - {slug: free, eventType: t, aggregation: COUNT}
";
    /// 2024-01-01T00:00:00Z
    const YEAR_2024: i64 = 1_704_067_200_000_000;

    fn prices(yaml: &str) -> PriceList {
        let catalog = Catalog::from_yaml(METERS).unwrap();
        QuotaRules::from_yaml(yaml, &catalog).unwrap().prices
    }

    fn price_of_bytes(unit_price: &str) -> PriceList {
        prices(&format!(
            "prices: [{{meter: bytes, versions: [{{credits_per_unit: '{unit_price}'}}]}}]"
        ))
    }

    fn row(meter: &str, value: &str, groups: &[&str]) -> Usage {
        let catalog = Catalog::from_yaml(METERS).unwrap();
        Usage {
            meter: catalog.meter(meter).unwrap().clone(),
            value: value.parse().unwrap(),
            text: String::new(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        }
    }

    fn printed(price: Result<Option<Credits>, PriceError>) -> Result<String, PriceError> {
        price.map(|price| price.map_or_else(|| "none".to_owned(), |credits| credits.to_string()))
    }

    #[test]
    fn a_row_costs_its_value_times_the_unit_price() {
        for (value, unit_price, expected) in [
            ("0", "5", Ok("0")),
            ("3", "0", Ok("0")),
            ("3", "0.1", Ok("0.3")),
            ("-3", "0.1", Ok("-0.3")),
            // Ties go to the even micro-credit, whatever the sign.
            ("1", "0.0000005", Ok("0")),
            ("3", "0.0000005", Ok("0.000002")),
            ("5", "0.0000005", Ok("0.000002")),
            ("-1", "0.0000005", Ok("0")),
            ("-3", "0.0000005", Ok("-0.000002")),
            ("-5", "0.0000005", Ok("-0.000002")),
            ("1", "0.0000005000000000001", Ok("0.000001")),
            ("1", "0.0000004999999999999", Ok("0")),
            ("0.0000000000000000001", "0.0000000000000000001", Ok("0")),
            ("1000000000", "1", Ok("1000000000")),
            ("-1000000000", "1", Ok("-1000000000")),
            ("1000000000.0000005", "1", Ok("1000000000")),
            ("1000000000.000001", "1", Err(PriceError::TooLarge)),
            ("-1000000000.000001", "1", Err(PriceError::TooLarge)),
            (
                "9999999999999999999.9999999999999999999",
                "9999999999999999999.9999999999999999999",
                Err(PriceError::TooLarge),
            ),
            (
                "-9999999999999999999.9999999999999999999",
                "9999999999999999999.9999999999999999999",
                Err(PriceError::TooLarge),
            ),
        ] {
            let price = price_of_bytes(unit_price).price(&row("bytes", value, &[]), 0);
            assert_eq!(
                printed(price),
                expected.map(str::to_owned),
                "{value} x {unit_price}"
            );
        }
    }

    #[test]
    fn the_version_in_force_at_the_time_decides() {
        let first_without = "prices: [{meter: bytes, versions: [{credits_per_unit: 1}, {effective_from: 2024-01-01T00:00:00Z, credits_per_unit: 2}, {effective_from: 2024-01-01T00:00:00.000001Z, credits_per_unit: 3}]}]";
        let first_with = "prices: [{meter: bytes, versions: [{effective_from: 2024-01-01T00:00:00Z, credits_per_unit: 2}]}]";
        for (yaml, time, expected) in [
            (first_without, i64::MIN, "1"),
            (first_without, 0, "1"),
            (first_without, YEAR_2024 - 1, "1"),
            (first_without, YEAR_2024, "2"),
            (first_without, YEAR_2024 + 1, "3"),
            (first_without, i64::MAX, "3"),
            (first_with, YEAR_2024 - 1, "none"),
            (first_with, YEAR_2024, "2"),
        ] {
            let price = prices(yaml).price(&row("bytes", "1", &[]), time);
            assert_eq!(printed(price), Ok(expected.to_owned()), "{time} of {yaml}");
        }
    }

    #[test]
    fn a_group_value_chooses_the_unit_price() {
        let prices = prices(
            "prices: [{meter: calls, versions: [{credits_per_unit: 1, group_by: endpoint, by_value: {/payments: 5, '': 0}}]}]",
        );
        for (groups, expected) in [
            (["", "/payments"], "5"),
            (["/payments", "/accounts"], "1"),
            (["/payments", ""], "0"),
        ] {
            let price = prices.price(&row("calls", "1", &groups), 0);
            assert_eq!(printed(price), Ok(expected.to_owned()), "{groups:?}");
        }
    }

    #[test]
    fn a_dimension_that_a_row_lacks_is_an_empty_one() {
        let prices = prices(
            "prices: [{meter: calls, versions: [{credits_per_unit: 1, group_by: endpoint, by_value: {'': 7}}]}]",
        );
        let lacking = prices.price_of("calls", Decimal::ONE, 0, |_| None);
        assert_eq!(printed(lacking), Ok("7".to_owned()));
        let stored_before = prices.price(&row("calls", "1", &[]), 0);
        assert_eq!(printed(stored_before), Ok("7".to_owned()));
    }

    #[test]
    fn an_event_costs_the_sum_of_its_priced_rows() {
        let yaml = "prices: [{meter: calls, versions: [{credits_per_unit: 1}]}, {meter: bytes, versions: [{credits_per_unit: '0.0000005'}]}]";
        let prices = prices(yaml);
        let call = row("calls", "1", &["", ""]);
        let byte = row("bytes", "1", &[]);
        let free = row("free", "1", &[]);
        let billion = row("calls", "1000000000", &["", ""]);
        let too_large = row("calls", "1000000001", &["", ""]);
        let nine = vec![billion; MOST_ROWS];
        for (rows, credits, left_out) in [
            (vec![], None, 0),
            (vec![free.clone()], None, 0),
            (vec![call.clone(), free], Some("1"), 0),
            // Rounded one by one: the exact sum would be a whole micro-credit.
            (vec![byte.clone(), byte], Some("0"), 0),
            (nine, Some("9000000000"), 0),
            (vec![too_large.clone()], None, 1),
            (vec![too_large.clone(), call, too_large], Some("1"), 2),
        ] {
            let price = prices.price_of_event(&rows, 0);
            let paid = price.credits.map(|credits| credits.to_string());
            assert_eq!(paid.as_deref(), credits, "{rows:?}");
            assert_eq!(price.too_large, left_out, "{rows:?}");
        }
    }

    #[test]
    fn a_span_ends_where_the_next_begins() {
        let prices = prices(
            "prices: [{meter: calls, versions: [{effective_from: 2024-01-01T00:00:00Z, credits_per_unit: 1, group_by: a, by_value: {b: 1}}]}, {meter: bytes, versions: [{credits_per_unit: 1}, {effective_from: 2024-01-01T00:00:00Z, credits_per_unit: 2}]}]",
        );
        let mut spans: Vec<_> = prices
            .spans()
            .map(|span| (span.meter, span.from, span.until, span.group_by))
            .collect();
        spans.sort_unstable();
        assert_eq!(
            spans,
            [
                ("bytes", i64::MIN, YEAR_2024, None),
                ("bytes", YEAR_2024, i64::MAX, None),
                ("calls", YEAR_2024, i64::MAX, Some("a")),
            ]
        );
        let mut meters: Vec<_> = prices.meters().collect();
        meters.sort_unstable();
        assert_eq!(meters, ["bytes", "calls"]);
    }

    proptest! {
        #[test]
        fn a_price_is_the_nearest_micro_credit(
            value in -1_000_000_i64..1_000_000,
            value_places in 0_u32..=6,
            unit_price in 0_i64..1_000_000,
            price_places in 0_u32..=6,
        ) {
            let prices = price_of_bytes(&format!("{unit_price}e-{price_places}"));
            let usage = row("bytes", &format!("{value}e-{value_places}"), &[]);
            let paid = prices.price(&usage, 0);
            // In units of 10^-12 credit the exact price is a whole number.
            let exact = i128::from(value)
                * i128::from(unit_price)
                * 10_i128.pow(12 - value_places - price_places);
            if exact.abs() > 1_000_000_000 * 10_i128.pow(12) {
                prop_assert_eq!(paid, Err(PriceError::TooLarge));
            } else {
                let paid = i128::from(paid.unwrap().unwrap().micros());
                let off = (paid * 1_000_000 - exact).abs();
                prop_assert!(off < 500_000 || (off == 500_000 && paid % 2 == 0));
            }
        }

        #[test]
        fn an_events_price_is_the_sum_of_its_rows(
            values in prop::collection::vec(-1_000_000_i64..1_000_000, 1..6),
            unit_price in 0_i64..1_000_000,
        ) {
            let prices = price_of_bytes(&format!("{unit_price}e-9"));
            let rows: Vec<_> = values
                .iter()
                .map(|value| row("bytes", &value.to_string(), &[]))
                .collect();
            let sum: i64 = rows
                .iter()
                .map(|row| prices.price(row, 0).unwrap().unwrap().micros())
                .sum();
            let paid = prices.price_of_event(&rows, 0);
            prop_assert_eq!(paid.credits.unwrap().micros(), sum);
            prop_assert_eq!(paid.too_large, 0);
        }

        /// As the sealing of a day sums it, by span, value and group, and as debits do.
        #[test]
        fn prices_by_span_and_by_row_agree(
            rows in prop::collection::vec(
                (-2_i64..4, 0_usize..4, -3_i64..4, prop::bool::weighted(0.05)),
                0..40,
            ),
            has_first in any::<bool>(),
        ) {
            let first = if has_first { "{credits_per_unit: '0.0000015'}, " } else { "" };
            let prices = prices(&format!(
                "prices: [{{meter: calls, versions: [{first}\
                 {{effective_from: 1970-01-01T00:00:00.000001Z, credits_per_unit: '0.0000005', group_by: endpoint, by_value: {{x: '0.7', '': 3}}}}, \
                 {{effective_from: 1970-01-01T00:00:00.000002Z, credits_per_unit: 2, group_by: a, by_value: {{x: 0}}}}]}}]"
            ));
            let groups = |place: usize| [["", "x"], ["x", ""], ["y", "x"], ["x", "y"]][place];
            let (mut by_row, mut counts) = (0_i64, HashMap::new());
            for (time, place, value, is_large) in rows {
                let factor = if is_large { 1_000_000_000 } else { 1 };
                let usage = row("calls", &(value * factor).to_string(), &groups(place));
                if let Ok(Some(price)) = prices.price(&usage, time) {
                    by_row += price.micros();
                }
                for (index, span) in prices.spans().enumerate() {
                    if (span.from..span.until).contains(&time) {
                        let chosen = match span.group_by {
                            Some("a") => usage.groups[0].clone(),
                            Some(_) => usage.groups[1].clone(),
                            None => String::new(),
                        };
                        *counts.entry((index, usage.value, chosen)).or_insert(0_i64) += 1;
                    }
                }
            }
            let spans: Vec<_> = prices.spans().collect();
            let by_span: i64 = counts
                .iter()
                .filter_map(|((span, value, group), rows)| {
                    Some(spans[*span].price(*value, group).ok()?.micros() * rows)
                })
                .sum();
            prop_assert_eq!(by_span, by_row);
        }
    }
}
