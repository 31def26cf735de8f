//! Customers, and their subscriptions: the life in which an event must lie to be counted.

use axum::Json;
use serde_json::{Value, json};

use crate::{
    answers::{Answer, Params, Refusal, page},
    fields::Fields,
    id::LagoId,
    organization::{Organization, iso_or_null},
    time::{self, Millis},
};

pub(crate) struct Customer {
    pub(crate) lago_id: LagoId,
    pub(crate) external_id: String,
    name: Option<String>,
    currency: Option<String>,
    created_at: Millis,
}

impl Customer {
    pub(crate) fn view(&self) -> Value {
        json!({
            "lago_id": self.lago_id,
            "external_id": self.external_id,
            "name": self.name,
            "currency": self.currency,
            "created_at": time::iso(self.created_at),
        })
    }
}

pub(crate) struct Subscription {
    pub(crate) lago_id: LagoId,
    pub(crate) external_id: String,
    /// The customer's external id.
    pub(crate) customer: String,
    pub(crate) plan: String,
    pub(crate) started_at: Millis,
    pub(crate) ending_at: Option<Millis>,
    pub(crate) terminated_at: Option<Millis>,
    created_at: Millis,
}

impl Subscription {
    /// pending until it starts, then active, then terminated.
    pub(crate) fn status(&self, now: Millis) -> &'static str {
        if self.started_at > now {
            "pending"
        } else if self.ended_at().is_some_and(|end| end <= now) {
            "terminated"
        } else {
            "active"
        }
    }

    /// When it was terminated or will end by itself.
    pub(crate) fn ended_at(&self) -> Option<Millis> {
        self.terminated_at.or(self.ending_at)
    }

    /// Whether an event of this time is this subscription's, both ends included.
    pub(crate) fn lives_at(&self, at: Millis) -> bool {
        self.started_at <= at && self.ended_at().is_none_or(|end| at <= end)
    }
}

impl Organization {
    pub(crate) fn upsert_customer(&mut self, body: &Value) -> Answer {
        let now = self.now();
        let mut fields = Fields::of(body, "customer")?;
        let external_id = fields.required("external_id");
        let (name, currency) = (fields.text("name"), fields.text("currency"));
        fields.finish()?;
        let place = self
            .customers
            .iter()
            .position(|one| one.external_id == external_id);
        let place = place.unwrap_or(self.customers.len());
        if place == self.customers.len() {
            self.customers.push(Customer {
                lago_id: LagoId::new(),
                external_id,
                name: None,
                currency: None,
                created_at: now,
            });
        }
        let customer = &mut self.customers[place];
        customer.name = name.or(customer.name.take());
        customer.currency = currency.or(customer.currency.take());
        Ok(Json(json!({ "customer": customer.view() })))
    }

    pub(crate) fn customer(&self, external_id: &str) -> Result<&Customer, Refusal> {
        let found = self
            .customers
            .iter()
            .find(|one| one.external_id == external_id);
        found.ok_or(Refusal::NotFound("customer"))
    }

    pub(crate) fn show_customer(&self, external_id: &str) -> Answer {
        let customer = self.customer(external_id)?;
        Ok(Json(json!({ "customer": customer.view() })))
    }

    pub(crate) fn list_customers(&self, params: &Params) -> Answer {
        let rows = self.customers.iter().map(Customer::view).collect();
        page("customers", rows, params)
    }

    pub(crate) fn create_subscription(&mut self, body: &Value) -> Answer {
        let now = self.now();
        let mut fields = Fields::of(body, "subscription")?;
        let customer = fields.required("external_customer_id");
        let plan = fields.required("plan_code");
        let external_id = fields.required("external_id");
        let started_at = fields.time("subscription_at").unwrap_or(now);
        let ending_at = fields.time("ending_at");
        if ending_at.is_some_and(|end| end <= started_at) {
            fields.refuse("ending_at", "invalid_date");
        }
        let overlaps = self.subscriptions.iter().any(|one| {
            one.external_id == external_id && one.ended_at().is_none_or(|end| end > started_at)
        });
        // Lago would change the plan of the running one.
        if overlaps {
            fields.refuse("external_id", "value_already_exist");
        }
        fields.finish()?;
        self.plan(&plan).ok_or(Refusal::NotFound("plan"))?;
        self.customer(&customer)?;
        let subscription = Subscription {
            lago_id: LagoId::new(),
            external_id,
            customer,
            plan,
            started_at,
            ending_at,
            terminated_at: None,
            created_at: now,
        };
        let view = self.subscription_view(&subscription);
        self.subscriptions.push(subscription);
        Ok(Json(json!({ "subscription": view })))
    }

    pub(crate) fn subscription_view(&self, one: &Subscription) -> Value {
        let now = self.now();
        let status = one.status(now);
        let (from, until) = self.current_period(one);
        json!({
            "lago_id": one.lago_id,
            "external_id": one.external_id,
            "lago_customer_id": self.customer(&one.customer).ok().map(|customer| customer.lago_id),
            "external_customer_id": one.customer,
            "plan_code": one.plan,
            "status": status,
            "billing_time": "calendar",
            "subscription_at": time::iso(one.started_at),
            "started_at": (status != "pending").then(|| time::iso_millis(one.started_at)),
            "ending_at": iso_or_null(one.ending_at),
            "terminated_at": iso_or_null(one.ended_at().filter(|_| status == "terminated")),
            "created_at": time::iso(one.created_at),
            "current_billing_period_started_at": time::iso(from),
            "current_billing_period_ending_at": time::iso(until - 1),
        })
    }

    /// The newest with this id and, unless `status` says another, an active one.
    pub(crate) fn subscription(
        &self,
        external_id: &str,
        status: Option<&str>,
    ) -> Result<&Subscription, Refusal> {
        let now = self.now();
        let status = status.unwrap_or("active");
        let mut newest_first = self.subscriptions.iter().rev();
        newest_first
            .find(|one| one.external_id == external_id && one.status(now) == status)
            .ok_or(Refusal::NotFound("subscription"))
    }

    pub(crate) fn show_subscription(&self, external_id: &str, params: &Params) -> Answer {
        let status = params.get("status").map(String::as_str);
        let found = self.subscription(external_id, status)?;
        Ok(Json(
            json!({ "subscription": self.subscription_view(found) }),
        ))
    }

    /// Active ones, or those of `status` (`status[]`, several separated by commas here).
    pub(crate) fn list_subscriptions(&self, params: &Params) -> Answer {
        let now = self.now();
        let wanted = params.get("status[]").or(params.get("status"));
        let wanted: Vec<_> = wanted.map_or("active", String::as_str).split(',').collect();
        let customer = params.get("external_customer_id");
        let found = self.subscriptions.iter().filter(|one| {
            wanted.contains(&one.status(now)) && customer.is_none_or(|id| *id == one.customer)
        });
        let rows = found.map(|one| self.subscription_view(one)).collect();
        page("subscriptions", rows, params)
    }

    pub(crate) fn terminate_subscription(&mut self, external_id: &str) -> Answer {
        let now = self.now();
        let id = self.subscription(external_id, None)?.lago_id;
        let place = self.subscriptions.iter().position(|one| one.lago_id == id);
        let place = place.ok_or(Refusal::NotFound("subscription"))?;
        self.subscriptions[place].terminated_at = Some(now);
        let view = self.subscription_view(&self.subscriptions[place]);
        self.announce("subscription.terminated", "subscription", &view);
        Ok(Json(json!({ "subscription": view })))
    }
}
