//! Wallets: prepaid credits. The settled balance moves by a settled top-up, a void and a final
//! invoice; the ongoing figures only then and, with a premium licence, by the clock.

use axum::Json;
use model::Decimal;
use serde_json::{Value, json};

use crate::{
    answers::{Answer, Params, Refusal, page},
    fields::Fields,
    id::LagoId,
    money::{self, Cents, Credits},
    organization::{Organization, iso_or_null},
    time::{self, Millis},
    transactions::{Kind, TopUp},
};

/// Currencies of no or three places; the stand-in counts cents.
const WITHOUT_CENTS: &str = "BHD BIF CLP DJF GNF IQD JOD JPY KMF KRW KWD LYD MGA OMR PYG RWF \
    TND UGX VND VUV XAF XOF XPF";

pub(crate) struct Wallet {
    pub(crate) lago_id: LagoId,
    /// The customer's external id.
    pub(crate) customer: String,
    name: Option<String>,
    code: Option<String>,
    currency: String,
    /// Money a credit, above 0.
    pub(crate) rate: Decimal,
    /// 1 pays first.
    priority: u8,
    pub(crate) balance: Cents,
    pub(crate) credits: Credits,
    consumed: Credits,
    /// Usage that no invoice has yet, when it was last looked at.
    ongoing_usage: Cents,
    /// Whether it was told that the ongoing balance is used up.
    depleted: bool,
    created_at: Millis,
    expiration_at: Option<Millis>,
    pub(crate) terminated_at: Option<Millis>,
    refreshed_at: Option<Millis>,
    consumed_at: Option<Millis>,
}

impl Wallet {
    fn ongoing_balance(&self) -> Cents {
        self.balance - self.ongoing_usage
    }

    fn view(&self, customer_id: Option<LagoId>) -> Value {
        let credits = |cents| Credits::of_money(cents, self.rate).to_string();
        json!({
            "lago_id": self.lago_id,
            "lago_customer_id": customer_id,
            "external_customer_id": self.customer,
            "status": if self.terminated_at.is_some() { "terminated" } else { "active" },
            "currency": self.currency,
            "name": self.name,
            "code": self.code,
            "priority": self.priority,
            "rate_amount": money::decimal_text(self.rate),
            "balance_cents": self.balance,
            "credits_balance": self.credits.to_string(),
            "ongoing_balance_cents": self.ongoing_balance(),
            "credits_ongoing_balance": credits(self.ongoing_balance()),
            "ongoing_usage_balance_cents": self.ongoing_usage,
            "credits_ongoing_usage_balance": credits(self.ongoing_usage),
            "consumed_credits": self.consumed.to_string(),
            "created_at": time::iso(self.created_at),
            "expiration_at": iso_or_null(self.expiration_at),
            "terminated_at": iso_or_null(self.terminated_at),
            "last_balance_sync_at": iso_or_null(self.refreshed_at),
            "last_consumed_credit_at": iso_or_null(self.consumed_at),
            "invoice_requires_successful_payment": false,
            "applies_to": { "fee_types": [], "billable_metric_codes": [] },
            "recurring_transaction_rules": [],
        })
    }
}

impl Organization {
    pub(crate) fn create_wallet(&mut self, body: &Value) -> Answer {
        let mut fields = Fields::of(body, "wallet")?;
        let customer = fields.required("external_customer_id");
        let currency = fields.required("currency");
        let other = currency.len() != 3 || WITHOUT_CENTS.contains(&currency);
        if !currency.is_empty() && other {
            fields.refuse("currency", "value_is_invalid");
        }
        let rate = fields.decimal("rate_amount", |rate| rate > Decimal::ZERO);
        if rate.is_none() && fields.value("rate_amount").is_none() {
            fields.refuse("rate_amount", "value_is_mandatory");
        }
        let priority = priority(&mut fields).unwrap_or(50);
        let (name, code) = (fields.text("name"), fields.text("code"));
        let expiration_at = fields.time("expiration_at");
        // What the stand-in does not imitate is refused, or a test would believe in it.
        for unknown in [
            "applies_to",
            "recurring_transaction_rules",
            "voided_credits",
        ] {
            if fields.value(unknown).is_some() {
                fields.refuse(unknown, "value_is_invalid");
            }
        }
        let top_up = TopUp::read(&mut fields);
        fields.finish()?;
        self.customer(&customer)?;
        self.wallets.push(Wallet {
            lago_id: LagoId::new(),
            customer,
            name,
            code,
            currency,
            rate: rate.unwrap_or(Decimal::ONE),
            priority,
            balance: 0,
            credits: Credits::default(),
            consumed: Credits::default(),
            ongoing_usage: 0,
            depleted: true,
            created_at: self.now(),
            expiration_at,
            terminated_at: None,
            refreshed_at: None,
            consumed_at: None,
        });
        let place = self.wallets.len() - 1;
        let view = self.wallet_view(place);
        self.announce("wallet.created", "wallet", &view);
        self.top_up(place, &top_up)?;
        Ok(Json(json!({ "wallet": self.wallet_view(place) })))
    }

    pub(crate) fn wallet_view(&self, place: usize) -> Value {
        let wallet = &self.wallets[place];
        let customer = self.customer(&wallet.customer).ok();
        wallet.view(customer.map(|customer| customer.lago_id))
    }

    pub(crate) fn wallet_place(&self, id: &str) -> Option<usize> {
        let mut all = self.wallets.iter();
        all.position(|one| one.lago_id.to_string() == id)
    }

    fn existing_wallet(&self, id: &str) -> Result<usize, Refusal> {
        self.wallet_place(id).ok_or(Refusal::NotFound("wallet"))
    }

    pub(crate) fn show_wallet(&self, id: &str) -> Answer {
        let place = self.existing_wallet(id)?;
        Ok(Json(json!({ "wallet": self.wallet_view(place) })))
    }

    /// All of a customer's, terminated ones too.
    pub(crate) fn list_wallets(&self, customer: Option<&String>, params: &Params) -> Answer {
        let customer = self.customer(customer.map_or("", String::as_str))?;
        let places = (0..self.wallets.len())
            .filter(|place| self.wallets[*place].customer == customer.external_id);
        page(
            "wallets",
            places.map(|place| self.wallet_view(place)).collect(),
            params,
        )
    }

    pub(crate) fn update_wallet(&mut self, id: &str, body: &Value) -> Answer {
        let place = self.existing_wallet(id)?;
        let mut fields = Fields::of(body, "wallet")?;
        let (name, priority) = (fields.text("name"), priority(&mut fields));
        let expiration_at = fields.time("expiration_at");
        fields.finish()?;
        let wallet = &mut self.wallets[place];
        wallet.name = name.or(wallet.name.take());
        wallet.priority = priority.unwrap_or(wallet.priority);
        wallet.expiration_at = expiration_at.or(wallet.expiration_at);
        let view = self.wallet_view(place);
        self.announce("wallet.updated", "wallet", &view);
        Ok(Json(json!({ "wallet": view })))
    }

    /// Ends a wallet; what is left in it stays there and pays nothing more.
    pub(crate) fn terminate_wallet(&mut self, id: &str) -> Answer {
        let place = self.existing_wallet(id)?;
        self.terminate(place);
        Ok(Json(json!({ "wallet": self.wallet_view(place) })))
    }

    fn terminate(&mut self, place: usize) {
        if self.wallets[place].terminated_at.is_none() {
            self.wallets[place].terminated_at = Some(self.now());
            let view = self.wallet_view(place);
            self.announce("wallet.terminated", "wallet", &view);
        }
    }

    pub(crate) fn terminate_expired(&mut self, now: Millis) {
        for place in 0..self.wallets.len() {
            if self.wallets[place]
                .expiration_at
                .is_some_and(|at| at <= now)
            {
                self.terminate(place);
            }
        }
    }

    /// Moves a settled balance, and with it the ongoing one.
    pub(crate) fn move_balance(&mut self, place: usize, credits: Credits, cents: Cents) {
        let now = self.now();
        let wallet = &mut self.wallets[place];
        wallet.balance += cents;
        wallet.credits.0 += credits.0;
        if credits.0 < 0 {
            wallet.consumed.0 -= credits.0;
            wallet.consumed_at = Some(now);
        }
        let view = self.wallet_view(place);
        self.announce("wallet.updated", "wallet", &view);
        self.tell_depletion(place);
    }

    /// Tells once that the ongoing balance is used up, and again after it was above 0.
    fn tell_depletion(&mut self, place: usize) {
        let wallet = &mut self.wallets[place];
        let used_up = wallet.ongoing_balance() <= 0;
        let before = std::mem::replace(&mut wallet.depleted, used_up);
        if used_up && !before {
            let view = self.wallet_view(place);
            self.announce("wallet.depleted_ongoing_balance", "wallet", &view);
        }
    }

    /// The customer's active wallets of this currency, in the order in which they pay.
    fn paying_wallets(&self, customer: &str, currency: &str) -> Vec<usize> {
        let mut places: Vec<_> = (0..self.wallets.len())
            .filter(|place| {
                let wallet = &self.wallets[*place];
                wallet.customer == customer
                    && wallet.currency == currency
                    && wallet.terminated_at.is_none()
            })
            .collect();
        places.sort_by_key(|place| self.wallets[*place].priority);
        places
    }

    /// Takes up to `total` for an invoice, by an outbound transaction of each wallet that pays.
    /// Returns what was taken.
    pub(crate) fn pay_by_wallets(
        &mut self,
        customer: &str,
        currency: &str,
        invoice: LagoId,
        total: Cents,
    ) -> Cents {
        let mut left = total;
        for place in self.paying_wallets(customer, currency) {
            let wallet = &self.wallets[place];
            let cents = left.min(wallet.balance);
            if cents > 0 {
                let credits = Credits::of_money(cents, wallet.rate);
                self.settle_now(place, Kind::Invoiced(invoice), credits, cents, None);
                left -= cents;
            }
        }
        total - left
    }

    /// What the clock does with a premium licence. No `wallet.updated` is sent for it.
    pub(crate) fn refresh_ongoing_balances(&mut self) {
        let now = self.now();
        let mut seen = std::collections::HashSet::new();
        for place in 0..self.wallets.len() {
            let wallet = &self.wallets[place];
            let (customer, currency) = (wallet.customer.clone(), wallet.currency.clone());
            if wallet.terminated_at.is_some() || !seen.insert((customer.clone(), currency.clone()))
            {
                continue;
            }
            let mut usage = match self.ongoing_usage(&customer) {
                Ok(usage) => usage,
                Err(refusal) => {
                    tracing::error!("{customer}'s ongoing balances stay as they are: {refusal:?}");
                    continue;
                }
            };
            let places = self.paying_wallets(&customer, &currency);
            for (index, place) in places.iter().enumerate() {
                let wallet = &mut self.wallets[*place];
                let last = index + 1 == places.len();
                // The last one takes what is more than all of them hold.
                let part = if last {
                    usage
                } else {
                    usage.min(wallet.balance.max(0))
                };
                usage -= part;
                wallet.ongoing_usage = part;
                wallet.refreshed_at = Some(now);
                self.tell_depletion(*place);
            }
        }
    }

    /// Usage without an invoice and drafts, taxes included.
    fn ongoing_usage(&self, customer: &str) -> Result<Cents, Refusal> {
        let its = self
            .subscriptions
            .iter()
            .filter(|one| one.customer == customer);
        its.map(|one| {
            let (from, until) = self.current_period(one);
            let (fees, taxes) = self.with_taxes(&self.usage(one, from, until)?)?;
            Ok(fees + taxes)
        })
        .sum::<Result<Cents, _>>()
        .and_then(|usage| Ok(usage + self.drafts_total(customer)?))
    }
}

fn priority(fields: &mut Fields<'_>) -> Option<u8> {
    let text = fields.text("priority")?;
    let priority = text
        .parse()
        .ok()
        .filter(|priority| (1..=50).contains(priority));
    if priority.is_none() {
        fields.refuse("priority", "value_is_invalid");
    }
    priority
}
