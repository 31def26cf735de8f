//! Wallet transactions: each movement of a balance, and top-ups that wait to be paid.

use axum::Json;
use model::Decimal;
use serde_json::{Value, json};

use crate::{
    answers::{Answer, Params, Refusal, page},
    fields::Fields,
    id::LagoId,
    money::{Cents, Credits},
    organization::{Organization, iso_or_null},
    time::{self, Millis},
};

/// Why a balance moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Credits that are given, at once.
    Granted,
    /// Credits that are bought, once they are paid.
    Purchased,
    /// Credits that are taken back.
    Voided,
    /// Credits that an invoice took; its lago_id.
    Invoiced(LagoId),
}

impl Kind {
    fn inbound(self) -> bool {
        matches!(self, Self::Granted | Self::Purchased)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Purchased => "purchased",
            Self::Voided => "voided",
            Self::Invoiced(_) => "invoiced",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Pending,
    Settled,
    Failed,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Settled => "settled",
            Self::Failed => "failed",
        }
    }
}

pub(crate) struct Transaction {
    lago_id: LagoId,
    /// The wallet's place; wallets are never removed.
    wallet: usize,
    kind: Kind,
    status: Status,
    credits: Credits,
    cents: Cents,
    name: Option<String>,
    created_at: Millis,
    ended_at: Option<Millis>,
}

/// What is asked for: credits to be bought, to be given, to be taken back.
pub(crate) struct TopUp {
    paid: Credits,
    granted: Credits,
    voided: Credits,
    name: Option<String>,
}

impl TopUp {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Self {
        let mut credits = |name: &str, code: &'static str| {
            let text = fields.text(name)?;
            let value: Option<Decimal> = text.parse().ok().filter(|value| *value >= Decimal::ZERO);
            if value.is_none() {
                fields.refuse(name, code);
                fields.refuse(name, "invalid_amount");
            }
            value.map(Credits::floor)
        };
        let [paid, granted, voided] = [
            credits("paid_credits", "invalid_paid_credits"),
            credits("granted_credits", "invalid_granted_credits"),
            credits("voided_credits", "invalid_voided_credits"),
        ]
        .map(Option::unwrap_or_default);
        Self {
            paid,
            granted,
            voided,
            name: fields.text("name"),
        }
    }
}

impl Organization {
    pub(crate) fn create_transactions(&mut self, body: &Value) -> Answer {
        let mut fields = Fields::of(body, "wallet_transaction")?;
        let place = self.wallet_place(&fields.required("wallet_id"));
        let wallet = place.map(|place| &self.wallets[place]);
        let top_up = TopUp::read(&mut fields);
        match wallet {
            None => fields.refuse("wallet_id", "wallet_not_found"),
            Some(wallet) if wallet.terminated_at.is_some() => {
                fields.refuse("wallet_id", "wallet_is_terminated");
            }
            Some(wallet) if top_up.voided > wallet.credits => {
                fields.refuse("voided_credits", "insufficient_credits");
            }
            Some(_) => {}
        }
        fields.finish()?;
        let made = self.top_up(place.unwrap_or_default(), &top_up)?;
        Ok(Json(json!({ "wallet_transactions": made })))
    }

    /// Makes one transaction of each kind that is asked for.
    pub(crate) fn top_up(&mut self, place: usize, top_up: &TopUp) -> Result<Vec<Value>, Refusal> {
        let rate = self.wallets[place].rate;
        let wanted = [
            (Kind::Purchased, "paid_credits", top_up.paid),
            (Kind::Granted, "granted_credits", top_up.granted),
            (Kind::Voided, "voided_credits", top_up.voided),
        ];
        let mut orders = Vec::new();
        for (kind, field, credits) in wanted {
            if credits == Credits::default() {
                continue;
            }
            let cents = credits.money(rate);
            let cents = cents.ok_or_else(|| Refusal::field(field, "value_is_out_of_range"))?;
            orders.push((kind, credits, cents));
        }
        let mut made = Vec::new();
        for (kind, credits, cents) in orders {
            let name = top_up.name.clone();
            let transaction = match kind {
                // What is bought is whole cents' worth of credits, and waits to be paid.
                Kind::Purchased => {
                    let credits = Credits::of_money(cents, rate);
                    let made = self.record(place, kind, Status::Pending, credits, cents, name);
                    self.announce_transaction("wallet_transaction.created", made);
                    made
                }
                _ => self.settle_now(place, kind, credits, cents, name),
            };
            made.push(self.transaction_view(transaction));
        }
        Ok(made)
    }

    /// Records a transaction that is settled as it is made, moves the balance and tells of it:
    /// the wallet in what is told is as it is afterwards. Returns the transaction's place.
    pub(crate) fn settle_now(
        &mut self,
        place: usize,
        kind: Kind,
        credits: Credits,
        cents: Cents,
        name: Option<String>,
    ) -> usize {
        let made = self.record(place, kind, Status::Settled, credits, cents, name);
        self.apply(made);
        self.announce_transaction("wallet_transaction.created", made);
        made
    }

    fn record(
        &mut self,
        wallet: usize,
        kind: Kind,
        status: Status,
        credits: Credits,
        cents: Cents,
        name: Option<String>,
    ) -> usize {
        let now = self.now();
        self.transactions.push(Transaction {
            lago_id: LagoId::new(),
            wallet,
            kind,
            status,
            credits,
            cents,
            name,
            created_at: now,
            ended_at: (status == Status::Settled).then_some(now),
        });
        self.transactions.len() - 1
    }

    fn apply(&mut self, transaction: usize) {
        let one = &self.transactions[transaction];
        let sign = if one.kind.inbound() { 1 } else { -1 };
        let (wallet, credits, cents) = (
            one.wallet,
            one.credits.0 * i128::from(sign),
            one.cents * sign,
        );
        self.move_balance(wallet, Credits(credits), cents);
    }

    /// A purchase is paid, or its payment failed for good.
    pub(crate) fn end_purchase(&mut self, id: &str, paid: bool) -> Answer {
        let place = self.transaction_place(id)?;
        let now = self.now();
        let one = &mut self.transactions[place];
        if one.status != Status::Pending {
            return Err(Refusal::NotAllowed("not_pending"));
        }
        if self.wallets[one.wallet].terminated_at.is_some() && paid {
            return Err(Refusal::NotAllowed("wallet_is_terminated"));
        }
        one.status = if paid {
            Status::Settled
        } else {
            Status::Failed
        };
        one.ended_at = Some(now);
        if paid {
            self.apply(place);
        }
        self.announce_transaction("wallet_transaction.updated", place);
        Ok(Json(
            json!({ "wallet_transaction": self.transaction_view(place) }),
        ))
    }

    fn announce_transaction(&mut self, webhook_type: &str, place: usize) {
        let mut view = self.transaction_view(place);
        view["wallet"] = self.wallet_view(self.transactions[place].wallet);
        self.announce(webhook_type, "wallet_transaction", &view);
    }

    fn transaction_view(&self, place: usize) -> Value {
        let one = &self.transactions[place];
        let ended_with = |status| one.ended_at.filter(|_| one.status == status);
        let invoice = match one.kind {
            Kind::Invoiced(invoice) => Some(invoice),
            _ => None,
        };
        // As text, since Lago gives amounts of money in wallets' transactions as decimals.
        let amount = Credits(i128::from(one.cents) * 1000).to_string();
        json!({
            "lago_id": one.lago_id,
            "lago_wallet_id": self.wallets[one.wallet].lago_id,
            "lago_invoice_id": invoice,
            "lago_credit_note_id": null,
            "status": one.status.name(),
            "source": "manual",
            "transaction_status": one.kind.name(),
            "transaction_type": if one.kind.inbound() { "inbound" } else { "outbound" },
            "amount": amount,
            "credit_amount": one.credits.to_string(),
            "settled_at": iso_or_null(ended_with(Status::Settled)),
            "failed_at": iso_or_null(ended_with(Status::Failed)),
            "created_at": time::iso(one.created_at),
            "name": one.name,
            "metadata": [],
        })
    }

    fn transaction_place(&self, id: &str) -> Result<usize, Refusal> {
        let mut all = self.transactions.iter();
        let place = all.position(|one| one.lago_id.to_string() == id);
        place.ok_or(Refusal::NotFound("wallet_transaction"))
    }

    pub(crate) fn show_transaction(&self, id: &str) -> Answer {
        let place = self.transaction_place(id)?;
        Ok(Json(
            json!({ "wallet_transaction": self.transaction_view(place) }),
        ))
    }

    /// Newest first.
    pub(crate) fn list_transactions(&self, wallet: &str, params: &Params) -> Answer {
        let wallet = self
            .wallet_place(wallet)
            .ok_or(Refusal::NotFound("wallet"))?;
        let asked = |name: &str, value: &str| params.get(name).is_none_or(|text| text == value);
        let rows = (0..self.transactions.len())
            .rev()
            .filter(|place| self.transactions[*place].wallet == wallet)
            .map(|place| self.transaction_view(place))
            .filter(|view| {
                ["status", "transaction_status", "transaction_type"]
                    .iter()
                    .all(|name| asked(name, view[*name].as_str().unwrap_or_default()))
            });
        page("wallet_transactions", rows.collect(), params)
    }
}
