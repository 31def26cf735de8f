//! Billable metrics, and plans that say what a unit costs.

use axum::Json;
use model::Decimal;
use serde_json::{Value, json};

use crate::{
    answers::{Answer, Params, Refusal, page},
    fields::Fields,
    id::LagoId,
    money,
    organization::Organization,
    time::{self, Millis},
};

/// How the events of a metric become units. Lago has more; the stand-in refuses those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregation {
    /// One unit an event.
    Count,
    /// The sum of one property.
    Sum,
}

pub(crate) struct Metric {
    lago_id: LagoId,
    name: String,
    pub(crate) code: String,
    pub(crate) aggregation: Aggregation,
    /// The property that is summed; not for a count.
    pub(crate) field: Option<String>,
    created_at: Millis,
}

impl Metric {
    fn view(&self) -> Value {
        let aggregation = match self.aggregation {
            Aggregation::Count => "count_agg",
            Aggregation::Sum => "sum_agg",
        };
        json!({
            "lago_id": self.lago_id,
            "name": self.name,
            "code": self.code,
            "aggregation_type": aggregation,
            "field_name": self.field,
            "recurring": false,
            "created_at": time::iso(self.created_at),
        })
    }
}

/// What a subscription to it pays, by usage alone.
pub(crate) struct Plan {
    lago_id: LagoId,
    name: String,
    pub(crate) code: String,
    pub(crate) currency: String,
    pub(crate) charges: Vec<Charge>,
    created_at: Millis,
}

/// A price for a metric's units.
pub(crate) struct Charge {
    lago_id: LagoId,
    metric_id: LagoId,
    /// The metric's code.
    pub(crate) code: String,
    /// Money a unit.
    pub(crate) price: Decimal,
}

impl Plan {
    pub(crate) fn charge(&self, code: &str) -> Option<&Charge> {
        self.charges.iter().find(|charge| charge.code == code)
    }

    fn view(&self) -> Value {
        let charges: Vec<_> = self.charges.iter().map(Charge::view).collect();
        json!({
            "lago_id": self.lago_id,
            "name": self.name,
            "code": self.code,
            "interval": "monthly",
            "amount_cents": 0,
            "amount_currency": self.currency,
            "pay_in_advance": false,
            "charges": charges,
            "created_at": time::iso(self.created_at),
        })
    }
}

impl Charge {
    fn view(&self) -> Value {
        json!({
            "lago_id": self.lago_id,
            "lago_billable_metric_id": self.metric_id,
            "billable_metric_code": self.code,
            "charge_model": "standard",
            "properties": { "amount": money::decimal_text(self.price) },
        })
    }
}

impl Organization {
    pub(crate) fn create_metric(&mut self, body: &Value) -> Answer {
        let mut fields = Fields::of(body, "billable_metric")?;
        let code = fields.required("code");
        let name = fields.required("name");
        let aggregation = match fields.required("aggregation_type").as_str() {
            "sum_agg" => Aggregation::Sum,
            "count_agg" => Aggregation::Count,
            other => {
                if !other.is_empty() {
                    fields.refuse("aggregation_type", "value_is_invalid");
                }
                Aggregation::Count
            }
        };
        let field = match aggregation {
            Aggregation::Sum => Some(fields.required("field_name")),
            Aggregation::Count => None,
        };
        if self.metric(&code).is_some() {
            fields.refuse("code", "value_already_exist");
        }
        fields.finish()?;
        let metric = Metric {
            lago_id: LagoId::new(),
            name,
            code,
            aggregation,
            field,
            created_at: self.now(),
        };
        let view = metric.view();
        self.metrics.push(metric);
        Ok(Json(json!({ "billable_metric": view })))
    }

    pub(crate) fn metric(&self, code: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.code == code)
    }

    pub(crate) fn show_metric(&self, code: &str) -> Answer {
        let metric = self.metric(code);
        let metric = metric.ok_or(Refusal::NotFound("billable_metric"))?;
        Ok(Json(json!({ "billable_metric": metric.view() })))
    }

    pub(crate) fn list_metrics(&self, params: &Params) -> Answer {
        let rows = self.metrics.iter().map(Metric::view).collect();
        page("billable_metrics", rows, params)
    }

    pub(crate) fn delete_metric(&mut self, code: &str) -> Answer {
        let place = self.metrics.iter().position(|metric| metric.code == code);
        let place = place.ok_or(Refusal::NotFound("billable_metric"))?;
        let metric = self.metrics.remove(place);
        Ok(Json(json!({ "billable_metric": metric.view() })))
    }

    pub(crate) fn create_plan(&mut self, body: &Value) -> Answer {
        let mut fields = Fields::of(body, "plan")?;
        let code = fields.required("code");
        let name = fields.required("name");
        let currency = fields.required("amount_currency");
        if fields.required("interval") != "monthly" {
            fields.refuse("interval", "value_is_invalid");
        }
        // Usage is what is billed here; a plan with a price of its own would be another test.
        let amount = fields.decimal("amount_cents", |amount| amount == Decimal::ZERO);
        if amount.is_none() && fields.value("amount_cents").is_none() {
            fields.refuse("amount_cents", "value_is_mandatory");
        }
        if self.plan(&code).is_some() {
            fields.refuse("code", "value_already_exist");
        }
        let mut charges = Vec::new();
        let wanted = fields.value("charges").and_then(Value::as_array);
        for wanted in wanted.into_iter().flatten() {
            match self.charge(wanted) {
                Some(charge) => charges.push(charge),
                None => fields.refuse("charges", "value_is_invalid"),
            }
        }
        fields.finish()?;
        let plan = Plan {
            lago_id: LagoId::new(),
            name,
            code,
            currency,
            charges,
            created_at: self.now(),
        };
        let view = plan.view();
        self.plans.push(plan);
        Ok(Json(json!({ "plan": view })))
    }

    fn charge(&self, wanted: &Value) -> Option<Charge> {
        let id = wanted["billable_metric_id"].as_str()?;
        let mut metrics = self.metrics.iter();
        let metric = metrics.find(|metric| metric.lago_id.to_string() == id)?;
        let price: Decimal = wanted["properties"]["amount"].as_str()?.parse().ok()?;
        (wanted["charge_model"] == "standard" && price >= Decimal::ZERO).then(|| Charge {
            lago_id: LagoId::new(),
            metric_id: metric.lago_id,
            code: metric.code.clone(),
            price,
        })
    }

    pub(crate) fn plan(&self, code: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.code == code)
    }

    pub(crate) fn show_plan(&self, code: &str) -> Answer {
        let plan = self.plan(code).ok_or(Refusal::NotFound("plan"))?;
        Ok(Json(json!({ "plan": plan.view() })))
    }
}
