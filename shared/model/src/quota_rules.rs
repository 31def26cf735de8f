//! What usage costs and who may overdraw, read from one YAML file and checked whole.

use std::{collections::HashMap, fmt};

use jiff::Timestamp;
use serde_yaml_ng::Value;

use crate::{
    apply::text_of,
    catalog::Catalog,
    decimal::Decimal,
    event::micros,
    json::parse_json,
    meter::{Aggregation, Meter, SUBJECT},
    mistakes::{Fields, Mistakes, amount, entries, unknown_keys, write_mistakes},
    policy::Policies,
    price::{MOST_ROWS, PriceList, Version},
};

/// The rules by which usage is charged to subjects' balances.
#[derive(Clone, Debug, Default)]
pub struct QuotaRules {
    /// What usage costs.
    pub prices: PriceList,
    /// How far each subject may go below zero.
    pub policies: Policies,
}

/// Every mistake of a file of quota rules, each with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRulesError {
    /// One entry a mistake: `prices[0].meter: is required`.
    pub mistakes: Vec<String>,
}

impl fmt::Display for QuotaRulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_mistakes(f, "the quota rules", &self.mistakes)
    }
}

impl std::error::Error for QuotaRulesError {}

impl QuotaRules {
    /// Reads the top-level keys `prices` and `policies`, both optional, for the meters of
    /// `catalog`.
    ///
    /// # Errors
    /// Every mistake of the text, with its place.
    pub fn from_yaml(text: &str, catalog: &Catalog) -> Result<Self, QuotaRulesError> {
        let mut mistakes = Mistakes::default();
        let mut rules = Self::default();
        match serde_yaml_ng::from_str::<Value>(text) {
            Ok(Value::Mapping(root)) => {
                unknown_keys(&root, &["prices", "policies"], "", &mut mistakes);
                rules.prices = read_prices(root.get("prices"), catalog, &mut mistakes);
                rules.policies = Policies::read(root.get("policies"), &mut mistakes);
            }
            Ok(_) => mistakes.add("", "must be a mapping with the keys prices and policies"),
            Err(error) => mistakes.add("", format!("no valid YAML: {error}")),
        }
        mistakes
            .into_result(rules)
            .map_err(|mistakes| QuotaRulesError { mistakes })
    }
}

fn read_prices(value: Option<&Value>, catalog: &Catalog, mistakes: &mut Mistakes) -> PriceList {
    let mut prices = PriceList::default();
    let list = match value {
        None | Some(Value::Null) => return prices,
        Some(Value::Sequence(list)) => list,
        Some(_) => {
            mistakes.add("prices", "must be a list");
            return prices;
        }
    };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut of_event_type: HashMap<&str, usize> = HashMap::new();
    for (index, entry) in list.iter().enumerate() {
        let place = format!("prices[{index}]");
        let Some(entry) = entry.as_mapping() else {
            mistakes.add(&place, "must be a mapping");
            continue;
        };
        unknown_keys(entry, &["meter", "versions"], &place, mistakes);
        let mut fields = Fields {
            entry,
            place: &place,
            mistakes,
        };
        let slug = fields.required("meter", |text| !text.is_empty(), "must not be empty");
        let mut is_new = false;
        if let Some(slug) = &slug {
            if let Some(earlier) = places.get(slug) {
                fields.add("meter", format!("{slug} is also price number {earlier}"));
            }
            is_new = !places.contains_key(slug);
            places.entry(slug.clone()).or_insert(index);
        }
        let meter = slug.as_deref().and_then(|slug| {
            let meter = catalog.meter(slug);
            match meter.map(|meter| meter.aggregation) {
                None => fields.add("meter", format!("{slug} is no meter of the catalog")),
                Some(Aggregation::Count | Aggregation::Sum) => {}
                Some(other) => fields.add(
                    "meter",
                    format!("must be COUNT or SUM: one event adds no amount of its own to {other}"),
                ),
            }
            meter
        });
        if let Some(meter) = meter.filter(|_| is_new) {
            let priced = of_event_type.entry(&meter.event_type).or_default();
            *priced += 1;
            if *priced > MOST_ROWS {
                let what = format!(
                    "more than {MOST_ROWS} meters of {} have a price",
                    meter.event_type
                );
                fields.add("meter", what);
            }
        }
        let versions = read_versions(
            entry.get("versions"),
            meter.map(|meter| &**meter),
            &format!("{place}.versions"),
            mistakes,
        );
        if let Some(slug) = slug {
            prices.meters.insert(slug, versions);
        }
    }
    prices
}

fn read_versions(
    value: Option<&Value>,
    meter: Option<&Meter>,
    place: &str,
    mistakes: &mut Mistakes,
) -> Vec<Version> {
    let list = match value {
        Some(Value::Sequence(list)) if !list.is_empty() => list,
        _ => {
            mistakes.add(place, "must be a list of at least one version");
            return Vec::new();
        }
    };
    let mut versions = Vec::new();
    let mut latest = None;
    for (index, entry) in list.iter().enumerate() {
        let place = format!("{place}[{index}]");
        let Some(entry) = entry.as_mapping() else {
            mistakes.add(&place, "must be a mapping");
            continue;
        };
        let known = ["effective_from", "credits_per_unit", "group_by", "by_value"];
        unknown_keys(entry, &known, &place, mistakes);
        let mut fields = Fields {
            entry,
            place: &place,
            mistakes,
        };
        let effective_from = fields.effective_from(index == 0);
        if let Some(from) = effective_from {
            if latest.is_some_and(|latest| from <= latest) {
                fields.add(
                    "effective_from",
                    "must be later than that of the version before",
                );
            }
            latest = Some(from);
        }
        let credits_per_unit = match entry.get("credits_per_unit") {
            Some(value) => fields.unit_price("credits_per_unit", value),
            None => {
                fields.add("credits_per_unit", "is required");
                None
            }
        };
        let by_group = fields.by_group(meter);
        if let (Some(effective_from), Some(credits_per_unit)) = (effective_from, credits_per_unit) {
            versions.push(Version {
                effective_from,
                credits_per_unit,
                by_group,
            });
        }
    }
    versions
}

impl Fields<'_> {
    /// Returns microseconds since 1970; `None` when it is a mistake.
    fn effective_from(&mut self, is_first: bool) -> Option<i64> {
        let field = "effective_from";
        if self.entry.get(field).is_none_or(Value::is_null) {
            if !is_first {
                self.add(field, "is required in all versions but the first");
            }
            return is_first.then_some(i64::MIN);
        }
        let Ok(time) = self.text(field)?.parse::<Timestamp>() else {
            self.add(field, "must be an RFC 3339 time");
            return None;
        };
        // Events are counted by the microsecond: a finer edge would fall within one.
        if time.as_nanosecond() % 1000 != 0 {
            self.add(field, "must not be finer than a microsecond");
            return None;
        }
        Some(micros(time))
    }

    fn unit_price(&mut self, field: &str, value: &Value) -> Option<Decimal> {
        amount(value).map_err(|what| self.add(field, what)).ok()
    }

    /// `meter` is `None` when it is not known: its dimensions are then no mistake.
    fn by_group(&mut self, meter: Option<&Meter>) -> Option<(String, HashMap<String, Decimal>)> {
        let name = self.text("group_by");
        let has = |field| !self.entry.get(field).is_none_or(Value::is_null);
        match (has("group_by"), has("by_value")) {
            (true, false) => self.add("by_value", "is required with group_by"),
            (false, true) => self.add("group_by", "is required with by_value"),
            _ => {}
        }
        match (name.as_deref(), meter) {
            (Some(SUBJECT), _) => {
                self.add("group_by", "must not be the subject: it chooses no price");
            }
            (Some(name), Some(meter)) if !meter.has_dimension(name) => {
                self.add(
                    "group_by",
                    format!("{name} is no dimension of {}", meter.slug),
                );
            }
            _ => {}
        }
        let place = format!("{}.by_value", self.place);
        let by_value = self.entry.get("by_value");
        if matches!(by_value, Some(Value::Mapping(by_value)) if by_value.is_empty()) {
            self.mistakes.add(&place, "must name at least one value");
        }
        let mut prices = HashMap::new();
        for (group, value) in entries(by_value, &place, self.mistakes) {
            if let Some(stored) = other_text(group) {
                let what = format!("is stored as {stored}: write that");
                self.mistakes.add(&format!("{place}.{group}"), what);
            }
            if let Some(price) = self.unit_price(&format!("by_value.{group}"), value) {
                prices.insert(group.to_owned(), price);
            }
        }
        Some((name?, prices))
    }
}

/// Returns the text that a number's group has when it is not `text`, one of its others.
fn other_text(text: &str) -> Option<String> {
    let number = parse_json(text.as_bytes()).filter(serde_json::Value::is_number)?;
    // Blanks around it are no part of a number, so this is some other text.
    let is_all = text.trim() == text;
    Some(text_of(&number)).filter(|stored| is_all && stored != text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::tests::SEED, policy::Policy};

    fn read(text: &str) -> Result<QuotaRules, Vec<String>> {
        let max =
            "  - {slug: slowest, eventType: api.call, aggregation: MAX, valueProperty: $.data.t}\n";
        let catalog = Catalog::from_yaml(&format!("{SEED}{max}")).unwrap();
        QuotaRules::from_yaml(text, &catalog).map_err(|error| error.mistakes)
    }

    #[test]
    fn prices_and_policies_are_read_from_one_file() {
        let rules = read(
            r#"
prices:
  - meter: api_calls
    versions:
      - effective_from: 2024-01-01T00:00:00Z
        credits_per_unit: "1"
        group_by: endpoint
        by_value: {/payments: "5"}
policies:
  unknown: refuse
  default: hard_stop
  plans:
    gold: {overdraft: "500"}
    internal: unlimited
  subjects:
    tpp-00001: gold
"#,
        )
        .unwrap();
        let [version] = &rules.prices.meters["api_calls"][..] else {
            panic!("{rules:?}")
        };
        assert_eq!(version.effective_from, 1_704_067_200_000_000);
        assert_eq!(version.credits_per_unit, Decimal::ONE);
        let five = "5".parse().ok();
        let (group, by_value) = version.by_group.as_ref().unwrap();
        assert_eq!(
            (group.as_str(), by_value.get("/payments").copied()),
            ("endpoint", five)
        );
        let gold = Policy::Overdraft("500".parse().unwrap());
        assert_eq!(rules.policies.of("tpp-00001"), gold);
    }

    #[test]
    fn every_mistake_is_listed_with_its_place() {
        let mistakes = read(
            r#"
extra: 1
prices:
  - meter: api_calls
    colour: red
    versions:
      - {credits_per_unit: 0.1}
      - {credits_per_unit: 1}
      - {effective_from: 2024-01-02T00:00:00Z, credits_per_unit: "-1"}
      - {effective_from: 2024-01-02T00:00:00Z, credits_per_unit: 1e-3}
      - {effective_from: 2024-01-01T00:00:00Z, credits_per_unit: "1e-20"}
      - {effective_from: 2024-01-03, credits_per_unit: one}
      - {effective_from: 2024-01-04T00:00:00.0000001Z, credits_per_unit: [1]}
      - {effective_from: 2024-01-05T00:00:00Z, price: 1}
      - {effective_from: 2024-01-06T00:00:00Z, credits_per_unit: 1, group_by: subject, by_value: {a: 1}}
      - {effective_from: 2024-01-07T00:00:00Z, credits_per_unit: 1, group_by: region, by_value: {a: 0.5, 200: 1}}
      - {effective_from: 2024-01-08T00:00:00Z, credits_per_unit: 1, group_by: method}
      - {effective_from: 2024-01-09T00:00:00Z, credits_per_unit: 1, by_value: {a: 1}}
      - {effective_from: 2024-01-10T00:00:00Z, credits_per_unit: 1, group_by: 5, by_value: [a]}
      - {effective_from: 2024-01-11T00:00:00Z, credits_per_unit: 1, group_by: method, by_value: {}}
      - {effective_from: 2024-01-12T00:00:00Z, credits_per_unit: 1, group_by: method, by_value: {"200.0": 1, "200": 1, "2e2": 2, " 200.0": 1, "007": 1, "true": 1, "1e400": 1, "": 1, "-0": x}}
      - 5
  - {meter: api_calls, versions: []}
  - {meter: slowest, versions: 5}
  - {meter: gone, versions: [{credits_per_unit: 2.5}]}
  - {versions: [{credits_per_unit: 1}]}
  - 5
policies: {default: refuse}
"#,
        )
        .unwrap_err();
        let expected = [
            "extra: is not known",
            "prices[0].colour: is not known",
            "prices[0].versions[0].credits_per_unit: must be in quotes",
            "prices[0].versions[1].effective_from: is required in all",
            "prices[0].versions[2].credits_per_unit: must be 0 or more",
            "prices[0].versions[3].effective_from: must be later",
            "prices[0].versions[3].credits_per_unit: must be in quotes",
            "prices[0].versions[4].effective_from: must be later",
            "prices[0].versions[4].credits_per_unit: more than 19 decimal places",
            "prices[0].versions[5].effective_from: must be an RFC 3339 time",
            "prices[0].versions[5].credits_per_unit: not a number",
            "prices[0].versions[6].effective_from: must not be finer",
            "prices[0].versions[6].credits_per_unit: must be a decimal number",
            "prices[0].versions[7].price: is not known",
            "prices[0].versions[7].credits_per_unit: is required",
            "prices[0].versions[8].group_by: must not be the subject",
            "prices[0].versions[9].group_by: region is no dimension of api_calls",
            "prices[0].versions[9].by_value: has a key that is no text",
            "prices[0].versions[9].by_value.a: must be in quotes",
            "prices[0].versions[10].by_value: is required with group_by",
            "prices[0].versions[11].group_by: is required with by_value",
            "prices[0].versions[12].group_by: must be a text",
            "prices[0].versions[12].by_value: must be a mapping",
            "prices[0].versions[13].by_value: must name at least one",
            "prices[0].versions[14].by_value.200.0: is stored as 200: write that",
            "prices[0].versions[14].by_value.2e2: is stored as 200: write that",
            "prices[0].versions[14].by_value.-0: is stored as 0: write that",
            "prices[0].versions[14].by_value.-0: not a number",
            "prices[0].versions[15]: must be a mapping",
            "prices[1].meter: api_calls is also price number 0",
            "prices[1].versions: must be a list of at least one",
            "prices[2].meter: must be COUNT or SUM",
            "prices[2].versions: must be a list of at least one",
            "prices[3].meter: gone is no meter",
            "prices[3].versions[0].credits_per_unit: must be in quotes",
            "prices[4].meter: is required",
            "prices[5]: must be a mapping",
            "policies.default: must be hard_stop",
        ];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, start) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(start), "{start} is not {mistake}");
        }
    }

    #[test]
    fn the_rows_of_one_event_that_have_a_price_are_nine_at_most() {
        let meters = |event_type: &str, count: usize| -> String {
            (0..count)
                .map(|n| {
                    format!("  - {{slug: {event_type}{n}, eventType: {event_type}, aggregation: COUNT}}\n")
                })
                .collect()
        };
        let catalog = format!("meters:\n{}{}", meters("a", 11), meters("b", 9));
        let catalog = Catalog::from_yaml(&catalog).unwrap();
        let priced = |slugs: &[String]| {
            let prices = slugs.iter().map(|slug| {
                format!("  - {{meter: {slug}, versions: [{{credits_per_unit: 1}}]}}\n")
            });
            let text = format!("prices:\n{}", prices.collect::<String>());
            QuotaRules::from_yaml(&text, &catalog).map_err(|error| error.mistakes)
        };
        let slugs = |event_type: &str, count: usize| -> Vec<_> {
            (0..count).map(|n| format!("{event_type}{n}")).collect()
        };
        assert!(priced(&[slugs("a", 9), slugs("b", 9)].concat()).is_ok());
        assert_eq!(
            priced(&slugs("a", 11)).unwrap_err(),
            [
                "prices[9].meter: more than 9 meters of a have a price",
                "prices[10].meter: more than 9 meters of a have a price",
            ]
        );
        // A meter that is listed twice is one.
        let twice = priced(&[slugs("a", 9), slugs("a", 1)].concat()).unwrap_err();
        assert_eq!(twice, ["prices[9].meter: a0 is also price number 0"]);
    }

    #[test]
    fn what_is_no_file_of_rules_is_refused() {
        for text in ["", "5", "prices: [", "prices: 5", "policies: 5"] {
            let catalog = Catalog::default();
            let error = QuotaRules::from_yaml(text, &catalog).unwrap_err();
            let heading = "1 mistake in the quota rules:\n  ";
            assert!(error.to_string().starts_with(heading), "{text}");
        }
        assert!(read("{prices: , policies: }").is_ok());
    }
}
