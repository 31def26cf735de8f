//! Invoices: a period's fees, and the credits that wallets pay of them. A test says when a
//! period ends; the grace period and the finalisation are Lago's.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    answers::{Answer, Params, Refusal, page},
    id::LagoId,
    money::{self, Cents},
    organization::Organization,
    subscriptions::Subscription,
    time::{self, DAY, Millis},
    usage::MetricUsage,
};

/// What a test orders: the end of a subscription's period, and so its invoice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoiceOrder {
    /// Whose period ends.
    pub external_subscription_id: String,
    /// ISO 8601: the first moment that is not part of the period; now, if it is not given.
    #[serde(default)]
    pub until: Option<String>,
    /// What a coupon takes off the fees, in cents.
    #[serde(default)]
    pub coupons_amount_cents: i64,
}

pub(crate) struct Invoice {
    lago_id: LagoId,
    number: usize,
    /// The customer's external id.
    customer: String,
    /// The subscription's lago_id.
    subscription: LagoId,
    from: Millis,
    /// Not part of the period.
    until: Millis,
    coupons: Cents,
    created_at: Millis,
    /// When a draft becomes final by itself.
    due_at: Millis,
    settled: Option<Settled>,
}

/// What a final invoice says for good.
struct Settled {
    usage: Vec<MetricUsage>,
    bill: Bill,
    at: Millis,
}

/// Sums in cents.
#[derive(Clone, Copy)]
struct Bill {
    fees: Cents,
    coupons: Cents,
    taxes: Cents,
    prepaid: Cents,
}

impl Bill {
    /// What is left to pay.
    fn total(self) -> Cents {
        self.fees - self.coupons + self.taxes - self.prepaid
    }
}

impl Organization {
    /// The end of the last period that has an invoice, or the subscription's start.
    pub(crate) fn billed_until(&self, subscription: &Subscription) -> Millis {
        let its = self
            .invoices
            .iter()
            .filter(|one| one.subscription == subscription.lago_id);
        its.map(|one| one.until)
            .max()
            .unwrap_or(subscription.started_at)
    }

    /// Whether the invoice of the period in which `at` lies is final.
    pub(crate) fn is_final(&self, subscription: &Subscription, at: Millis) -> bool {
        self.invoices.iter().any(|one| {
            one.subscription == subscription.lago_id
                && one.settled.is_some()
                && (one.from..one.until).contains(&at)
        })
    }

    /// The fees of all final invoices, with the subscription's external id.
    pub(crate) fn final_fees(&self) -> impl Iterator<Item = (&str, &MetricUsage)> {
        self.invoices.iter().flat_map(|one| {
            let subscription = self.subscription_of(one);
            let id = subscription.map_or("", |subscription| &subscription.external_id);
            let usage = one.settled.iter().flat_map(|settled| &settled.usage);
            usage.map(move |usage| (id, usage))
        })
    }

    fn subscription_of(&self, invoice: &Invoice) -> Option<&Subscription> {
        let id = invoice.subscription;
        self.subscriptions.iter().find(|one| one.lago_id == id)
    }

    /// Ends a period: makes its draft, and finalises it at once where there is no grace.
    pub(crate) fn order_invoice(&mut self, order: &InvoiceOrder) -> Answer {
        let now = self.now();
        let until = order.until.as_deref().map_or(Some(now), time::from_iso);
        let until = until.ok_or_else(|| Refusal::field("until", "invalid_date"))?;
        let id = &order.external_subscription_id;
        // The moment in which a subscription ends is its own.
        let last = |one: &Subscription| one.ended_at().map_or(Millis::MAX, |end| end + 1);
        let mut named = self
            .subscriptions
            .iter()
            .filter(|one| one.external_id == *id);
        let subscription = named
            .find(|one| self.billed_until(one) < last(one))
            .ok_or(Refusal::NotFound("subscription"))?;
        let (from, until) = (
            self.billed_until(subscription),
            until.min(last(subscription)),
        );
        if until <= from || order.coupons_amount_cents < 0 {
            return Err(Refusal::field("until", "value_is_invalid"));
        }
        let invoice = Invoice {
            lago_id: LagoId::new(),
            number: self.invoices.len() + 1,
            customer: subscription.customer.clone(),
            subscription: subscription.lago_id,
            from,
            until,
            coupons: order.coupons_amount_cents,
            created_at: now,
            due_at: now + i64::from(self.settings.grace_days) * DAY,
            settled: None,
        };
        self.invoices.push(invoice);
        let place = self.invoices.len() - 1;
        if self.settings.grace_days == 0 {
            self.finalize(place)?;
        } else {
            let view = self.invoice_view(&self.invoices[place])?;
            self.announce("invoice.drafted", "invoice", &view);
        }
        self.invoice_answer(place)
    }

    /// Finalises the drafts whose grace is over. One that cannot be billed stays a draft.
    pub(crate) fn finalize_due(&mut self, now: Millis) {
        for place in 0..self.invoices.len() {
            let one = &self.invoices[place];
            if one.settled.is_none()
                && one.due_at <= now
                && let Err(refusal) = self.finalize(place)
            {
                tracing::error!("invoice {place} stays a draft: {refusal:?}");
            }
        }
    }

    pub(crate) fn finalize_draft(&mut self, id: &str) -> Answer {
        let mut all = self.invoices.iter();
        let place = all.position(|one| one.settled.is_none() && one.lago_id.to_string() == id);
        let place = place.ok_or(Refusal::NotFound("invoice"))?;
        self.finalize(place)?;
        self.invoice_answer(place)
    }

    fn finalize(&mut self, place: usize) -> Result<(), Refusal> {
        let (usage, mut bill) = self.draft(&self.invoices[place])?;
        let (id, customer) = (
            self.invoices[place].lago_id,
            self.invoices[place].customer.clone(),
        );
        let subscription = self.subscription_of(&self.invoices[place]);
        let plan = subscription.and_then(|one| self.plan(&one.plan));
        let currency = plan.map_or_else(String::new, |plan| plan.currency.clone());
        bill.prepaid = self.pay_by_wallets(&customer, &currency, id, bill.total());
        let at = self.now();
        self.invoices[place].settled = Some(Settled { usage, bill, at });
        let view = self.invoice_view(&self.invoices[place])?;
        self.announce("invoice.created", "invoice", &view);
        Ok(())
    }

    /// What the invoice would say if it became final now.
    fn draft(&self, invoice: &Invoice) -> Result<(Vec<MetricUsage>, Bill), Refusal> {
        let subscription = self.subscription_of(invoice);
        let subscription = subscription.ok_or(Refusal::NotFound("subscription"))?;
        let usage = self.usage(subscription, invoice.from, invoice.until)?;
        let (fees, _) = self.with_taxes(&usage)?;
        let coupons = invoice.coupons.min(fees);
        let taxes = money::percent_of(fees - coupons, self.settings.taxes_rate)
            .ok_or_else(|| Refusal::field("taxes_amount_cents", "value_is_out_of_range"))?;
        let bill = Bill {
            fees,
            coupons,
            taxes,
            prepaid: 0,
        };
        Ok((usage, bill))
    }

    /// What the customer's drafts come to, taxes included.
    pub(crate) fn drafts_total(&self, customer: &str) -> Result<Cents, Refusal> {
        let drafts = self.invoices.iter();
        drafts
            .filter(|one| one.customer == customer && one.settled.is_none())
            .try_fold(0, |sum, one| Ok(sum + self.draft(one)?.1.total()))
    }

    fn invoice_answer(&self, place: usize) -> Answer {
        let view = self.whole_invoice(&self.invoices[place])?;
        Ok(Json(json!({ "invoice": view })))
    }

    pub(crate) fn show_invoice(&self, id: &str) -> Answer {
        let place = self
            .invoices
            .iter()
            .position(|one| one.lago_id.to_string() == id);
        self.invoice_answer(place.ok_or(Refusal::NotFound("invoice"))?)
    }

    /// Newest first, without fees and periods, which only a single invoice shows.
    pub(crate) fn list_invoices(&self, params: &Params) -> Answer {
        let (customer, status) = (params.get("external_customer_id"), params.get("status"));
        let found = self.invoices.iter().rev().filter(|one| {
            customer.is_none_or(|id| *id == one.customer)
                && status.is_none_or(|status| status == one.status())
        });
        let rows: Result<_, _> = found.map(|one| self.invoice_view(one)).collect();
        page("invoices", rows?, params)
    }

    fn invoice_view(&self, invoice: &Invoice) -> Result<Value, Refusal> {
        let bill = match &invoice.settled {
            Some(settled) => settled.bill,
            None => self.draft(invoice)?.1,
        };
        let paid = invoice.settled.is_some() && bill.total() == 0;
        let plan = self
            .subscription_of(invoice)
            .and_then(|one| self.plan(&one.plan));
        let updated = invoice
            .settled
            .as_ref()
            .map_or(invoice.created_at, |settled| settled.at);
        Ok(json!({
            "lago_id": invoice.lago_id,
            "sequential_id": invoice.number,
            "number": format!("LAG-{:03}", invoice.number),
            "issuing_date": time::day(invoice.due_at),
            "invoice_type": "subscription",
            "status": invoice.status(),
            "payment_status": if paid { "succeeded" } else { "pending" },
            "currency": plan.map(|plan| &plan.currency),
            "fees_amount_cents": bill.fees,
            "coupons_amount_cents": bill.coupons,
            "taxes_amount_cents": bill.taxes,
            "sub_total_excluding_taxes_amount_cents": bill.fees - bill.coupons,
            "sub_total_including_taxes_amount_cents": bill.fees - bill.coupons + bill.taxes,
            "prepaid_credit_amount_cents": bill.prepaid,
            "total_amount_cents": bill.total(),
            "created_at": time::iso(invoice.created_at),
            "updated_at": time::iso(updated),
            "customer": self.customer(&invoice.customer)?.view(),
        }))
    }

    fn whole_invoice(&self, invoice: &Invoice) -> Result<Value, Refusal> {
        let mut view = self.invoice_view(invoice)?;
        let subscription = self.subscription_of(invoice);
        let subscription = subscription.ok_or(Refusal::NotFound("subscription"))?;
        let drafted;
        let usage = match &invoice.settled {
            Some(settled) => &settled.usage,
            None => {
                drafted = self.draft(invoice)?.0;
                &drafted
            }
        };
        let fees = usage.iter().map(|usage| invoice.fee(subscription, usage));
        view["fees"] = fees.collect();
        view["subscriptions"] = json!([self.subscription_view(subscription)]);
        let (from, to) = (time::iso(invoice.from), time::iso(invoice.until - 1));
        view["billing_periods"] = json!([{
            "lago_subscription_id": subscription.lago_id,
            "external_subscription_id": subscription.external_id,
            "subscription_from_datetime": from,
            "subscription_to_datetime": to,
            "charges_from_datetime": from,
            "charges_to_datetime": to,
            "invoicing_reason": "subscription_periodic",
        }]);
        Ok(view)
    }
}

impl Invoice {
    fn status(&self) -> &'static str {
        if self.settled.is_some() {
            "finalized"
        } else {
            "draft"
        }
    }

    fn fee(&self, subscription: &Subscription, usage: &MetricUsage) -> Value {
        json!({
            "lago_invoice_id": self.lago_id,
            "lago_subscription_id": subscription.lago_id,
            "external_subscription_id": subscription.external_id,
            "external_customer_id": self.customer,
            "item": { "type": "charge", "code": usage.code },
            "units": money::units_text(usage.units),
            "events_count": usage.events,
            "precise_unit_amount": money::decimal_text(usage.price),
            "amount_cents": usage.amount_cents,
            "from_date": time::iso(self.from),
            "to_date": time::iso(self.until - 1),
        })
    }
}
