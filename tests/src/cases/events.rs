//! Suites about the events as they are kept: those that no meter can use, and the list.

use futures::future::{BoxFuture, FutureExt as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    compare,
    file::{Case, Failure, Fields, Suite},
    fixture::{Fixture, default_meter},
    jobs::{Job, Sharing, on_stacks},
    report::Outcome,
};
use crate::stack::Stack;

/// The subjects that `events_list` names by letters. One has what SQL must not trip over.
const SUBJECTS: [(&str, &str); 3] = [
    ("K", "streaming-customer"),
    ("S1", "streaming-subject-1"),
    ("S2", "streaming-subject-'2'"),
];

/// Returns the jobs of `e2e_invalid_events`.
pub(super) fn invalid(suite: &Suite) -> Vec<Job<'_>> {
    let prepare = |case: &Case<'_>| {
        case.only(&["meter", "meters", "aggregation", "send", "expect"])?;
        sends(case)?;
        expectation(case)?;
        let meter = json!({
            "slug": "m", "eventType": "ingest_invalid", "aggregation": "SUM",
            "valueProperty": "$.duration_ms",
        });
        let fixture = Fixture::of(case, Some(meter))?;
        fixture.asked(case)?;
        Ok(fixture)
    };
    on_stacks(suite, Sharing::Nobody, prepare, check_invalid)
}

/// Returns the jobs of `events_list`.
pub(super) fn listed(suite: &Suite) -> Vec<Job<'_>> {
    let prepare = |case: &Case<'_>| {
        let filter = case.object("filter")?;
        if filter.is_some_and(|filter| filter.contains_key("customerId")) {
            return Err(Outcome::Skipped("there are no customers yet".to_owned()));
        }
        case.only(&["filter", "events", "event_type", "validationError"])?;
        let shape = ["events", "validationError"].map(|name| case.fields.contains_key(name));
        match (filter, case.text("event_type")?, shape) {
            (Some(_), None, [true, false]) | (None, Some(_), [false, true]) => {}
            _ => return Err(Failure::malformed("neither a filter nor a type of events").into()),
        }
        Ok(Fixture {
            meters: vec![default_meter("COUNT")],
            events: Vec::new(),
        })
    };
    on_stacks(suite, Sharing::Nobody, prepare, check_listed)
}

/// One event of `e2e_invalid_events`, and what becomes of it.
struct Send {
    what: String,
    /// Its data and data's type.
    members: Fields,
    status: u64,
    /// Whether it is listed with an error; `None` when nothing is said of it.
    error: Option<bool>,
}

fn sends(case: &Case<'_>) -> Result<Vec<Send>, Failure> {
    let sends = case.list("send")?;
    let sends = sends.ok_or_else(|| Failure::malformed("sends nothing"))?;
    sends.iter().map(Send::read).collect()
}

impl Send {
    fn read(send: &Value) -> Result<Self, Failure> {
        let malformed = |what: &str| Failure::malformed(format!("{what}: {send}"));
        let known = ["what", "status", "listed_error_contains"];
        let fields = send.as_object().ok_or_else(|| malformed("no object"))?;
        if fields.keys().any(|name| !known.contains(&&**name)) {
            return Err(malformed("unknown member"));
        }
        let what = fields.get("what").and_then(Value::as_str);
        let what = what.ok_or_else(|| malformed("no `what`"))?;
        let members = match what {
            "xml data" => json!({"datacontenttype": "application/xml", "data": "<xml></xml>"}),
            "data is a string" => json!({"data": "text"}),
            "data null" => json!({"data": null}),
            "no data" => json!({}),
            "data {}" => json!({"data": {}}),
            text => match serde_json::from_str::<Value>(text) {
                Ok(data) => json!({"data": data}),
                Err(_) => return Err(malformed("unknown kind of event")),
            },
        };
        let status = fields.get("status").and_then(Value::as_u64);
        Ok(Self {
            what: what.to_owned(),
            members: members.as_object().cloned().unwrap_or_default(),
            status: status.ok_or_else(|| malformed("no `status`"))?,
            error: match fields.get("listed_error_contains") {
                None => None,
                Some(Value::Null) => Some(false),
                Some(Value::String(_)) => Some(true),
                Some(_) => return Err(malformed("listed_error_contains is no text")),
            },
        })
    }
}

/// Returns the total of the meter and the number of listed events, where the case names them.
fn expectation<'a>(case: &Case<'a>) -> Result<[Option<&'a Value>; 2], Failure> {
    let expected = case.object("expect")?;
    let expected = expected.ok_or_else(|| Failure::malformed("has no `expect`"))?;
    let names = ["meter_total", "listed_events"];
    match expected.keys().find(|name| !names.contains(&&***name)) {
        Some(name) => Err(Failure::malformed(format!("expects a `{name}`"))),
        None => Ok(names.map(|name| expected.get(name))),
    }
}

fn check_invalid<'s>(
    case: Case<'s>,
    fixture: &'s Fixture,
    stack: &'s Stack,
) -> BoxFuture<'s, Result<(), Failure>> {
    async move {
        let sends = sends(&case)?;
        let event_type = &fixture.meters[0]["eventType"];
        let mut accepted = Vec::new();
        // Each is a minute older than the one before, so the list has them in this order.
        let mut time = Timestamp::now();
        for (index, send) in sends.iter().enumerate() {
            time -= SignedDuration::from_mins(1);
            let subject = "s";
            let mut event = event(&index.to_string(), subject, event_type, time);
            event.extend(send.members.clone());
            let body = Value::Object(event).to_string();
            let answer = stack.post("application/cloudevents+json", body).await?;
            if u64::from(answer.status) != send.status {
                let said = format!("{} for {}", send.status, send.what);
                return Err(Failure::new(said, answer));
            }
            if answer.status < 400 {
                accepted.push((index.to_string(), send));
            }
        }
        stack.wait_until_counted(accepted.len() as u64).await?;
        let [total, listed] = expectation(&case)?;
        let events = list(stack, &[]).await?;
        if let Some(listed) = listed
            && !compare::same(listed, Some(&json!(events.len())))
        {
            return Err(Failure::new(format!("{listed} events"), json!(events)));
        }
        for (place, (id, send)) in accepted.iter().enumerate() {
            let kept = events.get(place).unwrap_or(&Value::Null);
            let has_error = kept
                .get("validationError")
                .is_some_and(|error| !error.is_null());
            let is_it = kept["event"]["id"] == **id;
            if !is_it || send.error.is_some_and(|error| error != has_error) {
                let error = if send.error == Some(true) { "an" } else { "no" };
                let said = format!("event {id} ({}) in place {place}, {error} error", send.what);
                return Err(Failure::new(said, kept));
            }
        }
        if let Some(total) = total {
            let rows = stack.query(fixture.asked(&case)?, &[]).await?;
            compare::rows(&[json!({"value": total})], &rows, false)?;
        }
        Ok(())
    }
    .boxed()
}

fn check_listed<'s>(
    case: Case<'s>,
    _: &'s Fixture,
    stack: &'s Stack,
) -> BoxFuture<'s, Result<(), Failure>> {
    async move {
        match case.text("event_type")? {
            Some(event_type) => check_type(&case, stack, event_type).await,
            None => check_filter(&case, stack).await,
        }
    }
    .boxed()
}

async fn check_type(case: &Case<'_>, stack: &Stack, event_type: &str) -> Result<(), Failure> {
    let sent = event("0", "s", &json!(event_type), Timestamp::now());
    stack.post_events(&[Value::Object(sent)]).await?;
    stack.wait_until_counted(1).await?;
    let events = list(stack, &[]).await?;
    let [kept] = &events[..] else {
        return Err(Failure::new("one event", json!(events)));
    };
    let wanted = case
        .get("validationError")
        .is_some_and(|error| !error.is_null());
    let has_error = kept
        .get("validationError")
        .is_some_and(|error| !error.is_null());
    if wanted == has_error && kept["event"]["type"] == event_type {
        Ok(())
    } else {
        let error = if wanted { "an" } else { "no" };
        Err(Failure::new(
            format!("an event of type {event_type} with {error} error"),
            kept,
        ))
    }
}

async fn check_filter(case: &Case<'_>, stack: &Stack) -> Result<(), Failure> {
    let now = Timestamp::now();
    let sent: Vec<_> = SUBJECTS
        .iter()
        .map(|(id, subject)| Value::Object(event(id, subject, &json!("t"), now)))
        .collect();
    stack.post_events(&sent).await?;
    stack.wait_until_counted(sent.len() as u64).await?;
    let mut parameters = Vec::new();
    for (name, value) in case.object("filter")?.into_iter().flatten() {
        let value = value.as_str();
        let value = value.ok_or_else(|| Failure::malformed(format!("filter {name} is no text")))?;
        parameters.push((name.clone(), subject_of(value).to_owned()));
    }
    let events = list(stack, &parameters).await?;
    let named = |event: &Value| {
        event
            .as_str()
            .map(subject_of)
            .map(|subject| json!({"event": {"subject": subject}}))
    };
    let expected: Option<Vec<_>> = case
        .list("events")?
        .into_iter()
        .flatten()
        .map(named)
        .collect();
    let expected = expected.ok_or_else(|| Failure::malformed("an event is no text"))?;
    compare::rows(&expected, &events, true)
}

fn subject_of(name: &str) -> &str {
    let known = SUBJECTS.iter().find(|(letters, _)| *letters == name);
    known.map_or(name, |(_, subject)| subject)
}

fn event(id: &str, subject: &str, event_type: &Value, time: Timestamp) -> Fields {
    let event = json!({
        "specversion": "1.0", "id": id, "source": "cases", "type": event_type,
        "subject": subject, "time": time.to_string(),
    });
    event.as_object().cloned().unwrap_or_default()
}

async fn list(stack: &Stack, parameters: &[(String, String)]) -> Result<Vec<Value>, Failure> {
    let answer = stack
        .get("/api/v1/events", parameters, "application/json")
        .await?;
    let answer = answer.accepted()?;
    match answer.json()? {
        Value::Array(events) => Ok(events),
        _ => Err(Failure::new("a list of events", answer)),
    }
}
