//! From events to units: which event is counted where, and what a period comes to.

use std::collections::BTreeMap;

use axum::Json;
use model::Decimal;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    answers::{Answer, Refusal},
    events::Event,
    metrics::{Aggregation, Metric},
    money::{self, Cents, Units},
    organization::Organization,
    subscriptions::Subscription,
    time::{self, Millis},
};

/// Why an event that was accepted is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Uncounted {
    /// No metric has its code.
    UnknownCode,
    /// No subscription has its external id.
    UnknownSubscription,
    /// Its time is before the subscription started or after it ended.
    OutsideSubscription,
    /// The subscription's plan has no price for the metric.
    NotInPlan,
    /// The property that the metric sums is missing or no number.
    BadValue,
}

/// What a period comes to for one metric.
pub(crate) struct MetricUsage {
    pub(crate) code: String,
    pub(crate) units: Units,
    pub(crate) events: u64,
    pub(crate) price: Decimal,
    pub(crate) amount_cents: Cents,
}

/// All units of one metric and subscription, as decimal texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnitsRow {
    /// The subscription's external id.
    pub external_subscription_id: String,
    /// The metric's code.
    pub code: String,
    /// Events that are counted.
    pub events: u64,
    /// Their units, billed or not.
    pub units: String,
    /// Of these, what final invoices contain.
    pub invoiced: String,
    /// Of these, what an invoice to come will contain: in a draft's period or after the last one.
    pub open: String,
    /// Of these, what came too late for its period's invoice, and nobody will ever bill.
    pub missed: String,
}

impl Organization {
    /// Says where an event is counted and with how many units.
    pub(crate) fn place(&self, event: &Event) -> Result<(&Subscription, Units), Uncounted> {
        let metric = self.metric(&event.code).ok_or(Uncounted::UnknownCode)?;
        let named = |one: &&Subscription| Some(&one.external_id) == event.subscription.as_ref();
        // Where one ends as the next starts, both ends included, the later one has it.
        let mut newest_first = self.subscriptions.iter().rev().filter(named).peekable();
        newest_first.peek().ok_or(Uncounted::UnknownSubscription)?;
        let alive = newest_first.find(|one| one.lives_at(event.at));
        let subscription = alive.ok_or(Uncounted::OutsideSubscription)?;
        let plan = self.plan(&subscription.plan);
        plan.and_then(|plan| plan.charge(&event.code))
            .ok_or(Uncounted::NotInPlan)?;
        let units = units(event, metric).ok_or(Uncounted::BadValue)?;
        Ok((subscription, units))
    }

    /// What `from..until` comes to, a row for each price of the plan.
    pub(crate) fn usage(
        &self,
        subscription: &Subscription,
        from: Millis,
        until: Millis,
    ) -> Result<Vec<MetricUsage>, Refusal> {
        let mut sums: BTreeMap<&str, (Units, u64)> = BTreeMap::new();
        for event in self.visible_events() {
            // Before `place`, which looks through all subscriptions.
            let its = event.subscription.as_ref() == Some(&subscription.external_id);
            if !its || !(from..until).contains(&event.at) {
                continue;
            }
            if let Ok((place, units)) = self.place(event)
                && place.lago_id == subscription.lago_id
            {
                let (sum, events) = sums.entry(&event.code).or_default();
                *sum += units;
                *events += 1;
            }
        }
        let plan = self.plan(&subscription.plan);
        let charges = plan.into_iter().flat_map(|plan| &plan.charges);
        charges
            .map(|charge| {
                let (units, events) = sums.get(charge.code.as_str()).copied().unwrap_or_default();
                let amount_cents = money::fee(units, charge.price)
                    .ok_or_else(|| Refusal::field("amount_cents", "value_is_out_of_range"))?;
                Ok(MetricUsage {
                    code: charge.code.clone(),
                    units,
                    events,
                    price: charge.price,
                    amount_cents,
                })
            })
            .collect()
    }

    /// The period that no invoice has yet: from the last one's end, or the subscription's start,
    /// to the end of this month or of the subscription. Its end is not part of it.
    pub(crate) fn current_period(&self, subscription: &Subscription) -> (Millis, Millis) {
        let now = self.now();
        let from = self.billed_until(subscription);
        let month_end = time::next_month(now.max(from));
        // The moment of the end belongs to the subscription.
        let end = subscription.ended_at().map(|end| end.saturating_add(1));
        (
            from,
            end.map_or(month_end, |end| end.min(month_end)).max(from),
        )
    }

    pub(crate) fn current_usage(&self, customer: &str, subscription: Option<&String>) -> Answer {
        self.customer(customer)?;
        let id = subscription
            .ok_or_else(|| Refusal::field("external_subscription_id", "value_is_mandatory"))?;
        let subscription = self.subscription(id, None)?;
        if subscription.customer != customer {
            return Err(Refusal::NotFound("subscription"));
        }
        let (from, until) = self.current_period(subscription);
        let usage = self.usage(subscription, from, until)?;
        let (amount, taxes) = self.with_taxes(&usage)?;
        let plan = self.plan(&subscription.plan);
        Ok(Json(json!({ "customer_usage": {
            "from_datetime": time::iso(from),
            "to_datetime": time::iso(until - 1),
            "issuing_date": time::day(until - 1),
            "currency": plan.map(|plan| &plan.currency),
            "amount_cents": amount,
            "taxes_amount_cents": taxes,
            "total_amount_cents": amount + taxes,
            "charges_usage": usage.iter().map(MetricUsage::view).collect::<Vec<_>>(),
        }})))
    }

    /// The sum of the fees, and the taxes on it.
    pub(crate) fn with_taxes(&self, usage: &[MetricUsage]) -> Result<(Cents, Cents), Refusal> {
        let out_of_range = || Refusal::field("amount_cents", "value_is_out_of_range");
        let amount = usage
            .iter()
            .try_fold(0_i64, |sum, row| sum.checked_add(row.amount_cents))
            .ok_or_else(out_of_range)?;
        let taxes = money::percent_of(amount, self.settings.taxes_rate);
        Ok((amount, taxes.ok_or_else(out_of_range)?))
    }

    /// Every unit that was ever accepted, by subscription and metric.
    pub(crate) fn units(&self) -> Vec<UnitsRow> {
        #[derive(Default)]
        struct Sums {
            events: u64,
            units: Units,
            invoiced: Units,
            open: Units,
        }
        let mut sums: BTreeMap<(String, String), Sums> = BTreeMap::new();
        for event in self.events_of_all_times() {
            let Ok((subscription, units)) = self.place(event) else {
                continue;
            };
            let key = (subscription.external_id.clone(), event.code.clone());
            let row = sums.entry(key).or_default();
            row.events += 1;
            row.units += units;
            if !self.is_final(subscription, event.at) {
                row.open += units;
            }
        }
        for (subscription, usage) in self.final_fees() {
            let key = (subscription.to_owned(), usage.code.clone());
            sums.entry(key).or_default().invoiced += usage.units;
        }
        let text = money::units_text;
        sums.into_iter()
            .map(|((external_subscription_id, code), row)| UnitsRow {
                external_subscription_id,
                code,
                events: row.events,
                units: text(row.units),
                invoiced: text(row.invoiced),
                open: text(row.open),
                missed: text(row.units - row.invoiced - row.open),
            })
            .collect()
    }

    /// The transaction_ids of the events that are not counted, by the reason.
    pub(crate) fn uncounted(&self) -> BTreeMap<Uncounted, Vec<String>> {
        let mut found: BTreeMap<Uncounted, Vec<String>> = BTreeMap::new();
        for event in self.events_of_all_times() {
            if let Err(reason) = self.place(event) {
                let ids = found.entry(reason).or_default();
                ids.push(event.transaction_id.clone());
            }
        }
        found
    }

    /// Lago's hourly check: tells about events that came to nothing, if there are any.
    pub(crate) fn check_events(&mut self) {
        let mut found = self.uncounted();
        let mut ids = |reason| found.remove(&reason).unwrap_or_default();
        let invalid_code = ids(Uncounted::UnknownCode);
        let missing = ids(Uncounted::BadValue);
        if invalid_code.is_empty() && missing.is_empty() {
            return;
        }
        let view = json!({
            "invalid_code": invalid_code,
            "missing_aggregation_property": missing,
            "missing_group_key": [],
            "invalid_filter_values": [],
        });
        self.announce("events.errors", "events_errors", &view);
    }
}

impl MetricUsage {
    fn view(&self) -> Value {
        json!({
            "units": money::units_text(self.units),
            "total_aggregated_units": money::units_text(self.units),
            "events_count": self.events,
            "amount_cents": self.amount_cents,
            "billable_metric": { "code": self.code },
            "filters": [],
            "grouped_usage": [],
        })
    }
}

/// The units of an event; `None` when what it should sum is no number.
fn units(event: &Event, metric: &Metric) -> Option<Units> {
    let value = match metric.aggregation {
        Aggregation::Count => Decimal::ONE,
        Aggregation::Sum => match event.properties.get(metric.field.as_deref()?)? {
            Value::String(text) => text.parse().ok()?,
            Value::Number(number) => number.to_string().parse().ok()?,
            _ => return None,
        },
    };
    Some(money::units(value))
}
