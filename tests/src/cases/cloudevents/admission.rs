//! What of a delivery and of a filter Knative admits, and how long it waits between attempts.

use std::time::Duration;

use jiff::SignedDuration;
use runner::{
    eventing::{self, BackoffPolicy, Delivery, Plan},
    manifests::Object,
};
use serde_json::{Value, json};

use super::{
    super::{
        file::{Case, Failure},
        report::Outcome,
    },
    needed, needed_object,
    objects::{broker, trigger},
};

/// Checks a case of `delivery_spec_validation`: a Broker's delivery, and a Trigger's.
pub(super) fn delivery(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["delivery", "valid"])?;
    let delivery = needed_object(case, "delivery")?;
    let mut of_broker = base();
    of_broker[1].value["spec"]["delivery"] = json!(delivery);
    let of_trigger = with_trigger(json!({"delivery": delivery}));
    [of_broker, of_trigger]
        .iter()
        .try_for_each(|objects| admits(case, objects))
}

/// Checks a case of `filters_attribute_names`: in `filters`, and in the older `filter`.
pub(super) fn attribute_name(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["name", "valid"])?;
    let name = case.text("name")?;
    let attributes = json!({name.ok_or_else(|| Failure::malformed("has no `name`"))?: "x"});
    [
        json!({"filters": [{"exact": attributes}]}),
        json!({"filter": {"attributes": attributes}}),
    ]
    .into_iter()
    .try_for_each(|spec| admits(case, &with_trigger(spec)))
}

/// Runs a case of `backoff_schedule`.
pub(super) fn backoff(case: &Case<'_>) -> Outcome {
    let text = |name| case.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("id").ends_with("-go") {
        return Outcome::Skipped("describes the other broker".to_owned());
    }
    if text("policy") == "both" {
        return Outcome::Skipped("told in prose".to_owned());
    }
    waits(case).into()
}

fn waits(case: &Case<'_>) -> Result<(), Failure> {
    let number = |name: &str| {
        let number = needed(case, name)?;
        let found = number.as_u64().and_then(|number| number.try_into().ok());
        found.ok_or_else(|| Failure::malformed(format!("{name}: {number}")))
    };
    let policy: BackoffPolicy =
        serde_json::from_value(needed(case, "policy")?.clone()).map_err(Failure::malformed)?;
    let delay = Duration::from_millis(u32::into(number("delay_ms")?));
    if case.get("retry").is_some() {
        case.only(&["policy", "delay_ms", "retry", "timeout"])?;
        let timeout: SignedDuration = (case.text("timeout")?.unwrap_or_default())
            .parse()
            .map_err(Failure::malformed)?;
        let wanted = Delivery {
            retry: number("retry")?,
            policy,
            delay,
            timeout: timeout.try_into().map_err(Failure::malformed)?,
            dead_letter: None,
        };
        return same(&wanted, &Delivery::of_kafka_source());
    }
    case.only(&["policy", "delay_ms", "n", "expect_ms"])?;
    let wanted = Duration::from_millis(number("expect_ms")?.into());
    same(&wanted, &eventing::backoff(policy, delay, number("n")?))
}

fn same<T: PartialEq + std::fmt::Debug>(wanted: &T, found: &T) -> Result<(), Failure> {
    if wanted == found {
        return Ok(());
    }
    Err(Failure::new(format!("{wanted:?}"), format!("{found:?}")))
}

fn base() -> Vec<Object> {
    broker("cases", "usage", "kafka:9092")
}

fn with_trigger(mut spec: Value) -> Vec<Object> {
    spec["subscriber"] = json!({"uri": "http://subscriber.example"});
    [base(), vec![trigger("cases", "trigger", "usage", spec)]].concat()
}

fn admits(case: &Case<'_>, objects: &[Object]) -> Result<(), Failure> {
    let valid = needed(case, "valid")?.as_bool();
    let valid = valid.ok_or_else(|| Failure::malformed("`valid` is neither true nor false"))?;
    match Plan::read(objects) {
        Ok(_) if valid => Ok(()),
        Ok(_) => Err(Failure::new("an admission error", "it was admitted")),
        Err(_) if !valid => Ok(()),
        Err(mistakes) => {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            Err(Failure::new("no admission error", mistakes.join("; ")))
        }
    }
}
