//! Suites about meter definitions: whether the functions start with them.

use futures::future::FutureExt as _;
use model::CatalogError;
use serde_json::{Value, json};

use super::{
    file::{Case, Failure, Suite},
    jobs::{Job, one_by_one, put_away},
};
use crate::stack::Stack;

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
    case.only(&["meter", "meters", "error"])?;
    let is_refused = case.error()?;
    let is_refused = is_refused.ok_or_else(|| Failure::malformed("has no `error`"))?;
    // Nothing is filled in: a definition that lacks something is what is tested.
    let meters = match (case.get("meter"), case.list("meters")?) {
        (Some(meter), None) => std::slice::from_ref(meter),
        (None, Some(meters)) => &meters[..],
        _ => return Err(Failure::malformed("names no meter")),
    };
    compare(is_refused, start(json!({"meters": meters})).await?)
}

async fn check_reserved(case: &Case<'_>) -> Result<(), Failure> {
    case.only(&["eventType", "reserved", "reservedEventTypes"])?;
    let event_type = case.text("eventType")?;
    let event_type = event_type.ok_or_else(|| Failure::malformed("has no `eventType`"))?;
    let Some(Value::Bool(is_refused)) = case.get("reserved") else {
        return Err(Failure::malformed("`reserved` is not true or false"));
    };
    let patterns = match case.list("reservedEventTypes")? {
        Some(patterns) => patterns.clone(),
        None => patterns_in(case.text("about")?.unwrap_or_default()),
    };
    if patterns.is_empty() {
        return Err(Failure::malformed("says nowhere what is reserved"));
    }
    let meter = json!({"slug": "m", "eventType": event_type, "aggregation": "COUNT"});
    let definitions = json!({"reservedEventTypes": patterns, "meters": [meter]});
    compare(*is_refused, start(definitions).await?)
}

/// Returns the patterns that a suite's description names: words that begin with `^`.
fn patterns_in(about: &str) -> Vec<Value> {
    let is_pattern = |word: &&str| word.starts_with('^');
    let pattern = |word: &str| json!(word.trim_end_matches([',', ';']));
    about
        .split_whitespace()
        .filter(is_pattern)
        .map(pattern)
        .collect()
}

fn compare(is_refused: bool, start: Result<(), String>) -> Result<(), Failure> {
    match start {
        Ok(()) if is_refused => Err(Failure::new("refused", "accepted")),
        Err(mistakes) if !is_refused => Err(Failure::new("accepted", mistakes)),
        _ => Ok(()),
    }
}

/// Returns whether the functions start with these definitions and know the meters; the inner
/// error is what they have against them. Any other reason not to start is the outer one.
async fn start(definitions: Value) -> Result<Result<(), String>, Failure> {
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
    let known = know(&stack, &definitions).await;
    put_away(stack).await;
    known.map(Ok)
}

async fn know(stack: &Stack, definitions: &Value) -> Result<(), Failure> {
    let meters = definitions["meters"].as_array();
    for meter in meters.into_iter().flatten() {
        let slug = meter["slug"].as_str().unwrap_or_default();
        let path = format!("/api/v1/meters/{slug}");
        let answer = stack.get(&path, &[], "application/json").await?;
        let told = answer.accepted()?.json()?;
        if told["slug"] != slug {
            return Err(Failure::new(format!("the meter {slug}"), told));
        }
    }
    Ok(())
}
