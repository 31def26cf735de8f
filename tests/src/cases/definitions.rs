//! Suites about meter definitions: whether the functions start with them.

use futures::future::FutureExt as _;
use model::CatalogError;
use serde_json::{Value, json};

use super::{
    file::{Case, Failure, Suite},
    jobs::{Job, one_by_one, put_away},
};
use crate::stack::Stack;

/// The patterns of `reserved_event_types`, where the file gives none.
const RESERVED: [&str; 2] = [r"^om\.", r"^_\."];

/// Returns the jobs of `meter_validation`.
pub(super) fn validation(suite: &Suite) -> Vec<Job<'_>> {
    one_by_one(suite, |case| {
        async move { check_meter(&case).await.into() }.boxed()
    })
}

/// Returns the jobs of `reserved_event_types`.
pub(super) fn reserved(suite: &Suite) -> Vec<Job<'_>> {
    one_by_one(suite, |case| {
        async move { check_reserved(&case).await.into() }.boxed()
    })
}

async fn check_meter(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["meter", "error"])?;
    // Nothing is filled in: a definition that lacks something is what is tested.
    let meter = case.object("meter")?;
    let meter = meter.ok_or_else(|| Failure::malformed("names no meter"))?;
    let is_refused = case.error()?;
    let is_refused = is_refused.ok_or_else(|| Failure::malformed("has no `error`"))?;
    let slug = meter.get("slug").and_then(Value::as_str);
    let start = start(json!({"meters": [meter]}), slug.unwrap_or_default()).await?;
    compare(is_refused, start)
}

async fn check_reserved(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["eventType", "reserved", "reservedEventTypes"])?;
    let event_type = case.text("eventType")?;
    let event_type = event_type.ok_or_else(|| Failure::malformed("has no `eventType`"))?;
    let Some(Value::Bool(is_refused)) = case.get("reserved") else {
        return Err(Failure::malformed("`reserved` is not true or false"));
    };
    let patterns = case.list("reservedEventTypes")?;
    let patterns = patterns.map_or_else(|| json!(RESERVED), |patterns| json!(patterns));
    let meter = json!({"slug": "m", "eventType": event_type, "aggregation": "COUNT"});
    let definitions = json!({"reservedEventTypes": patterns, "meters": [meter]});
    compare(*is_refused, start(definitions, "m").await?)
}

fn compare(is_refused: bool, start: Result<(), String>) -> Result<(), Failure> {
    match start {
        Ok(()) if is_refused => Err(Failure::new("refused", "accepted")),
        Err(mistakes) if !is_refused => Err(Failure::new("accepted", mistakes)),
        _ => Ok(()),
    }
}

/// Returns whether the functions start with these definitions and know the meter; the inner
/// error is what they have against them. Any other reason not to start is the outer one.
async fn start(definitions: Value, slug: &str) -> Result<Result<(), String>, Failure> {
    let stack = match Stack::start(&definitions.to_string()).await {
        Ok(stack) => stack,
        Err(error) => {
            let mistakes = error
                .chain()
                .find_map(|cause| cause.downcast_ref::<CatalogError>());
            return match mistakes {
                Some(mistakes) => Ok(Err(mistakes.to_string())),
                None => Err(error.into()),
            };
        }
    };
    let known = stack
        .get(&format!("/api/v1/meters/{slug}"), &[], "application/json")
        .await;
    put_away(stack).await;
    let known = known?;
    let told = known.accepted().and_then(|answer| answer.json())?;
    if told.get("slug").and_then(Value::as_str) == Some(slug) {
        Ok(Ok(()))
    } else {
        Err(Failure::new(format!("the meter {slug}"), told))
    }
}
