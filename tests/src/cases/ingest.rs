//! Suites that post events: what ingest answers, and what is counted of it.

use futures::future::{BoxFuture, FutureExt as _};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::{
    file::{Case, Failure, Suite},
    fixture::{Fixture, default_meter},
    jobs::{Job, Sharing, on_stacks},
    query,
    report::Outcome,
};
use crate::stack::{Answer, Stack};

/// The one case of the suite that tells in its name alone what is sent.
const OBJECT_AND_ARRAY: &str = "TestIngestContentTypeApplicationJSON";

/// Returns the jobs of `ingest_http`.
pub(super) fn http(suite: &Suite) -> Vec<Job<'_>> {
    let prepare = |case: &Case<'_>| {
        case.only(&[
            "content_type",
            "headers",
            "body",
            "body_raw",
            "status",
            "error",
            "detail_contains",
            "beat",
        ])?;
        post_of(case)?;
        Expected::of(case)?;
        Ok(Fixture {
            meters: vec![default_meter("COUNT")],
            events: Vec::new(),
        })
    };
    on_stacks(suite, Sharing::EqualFixtures, prepare, check_post)
}

/// Returns the jobs of `e2e_ingest`.
pub(super) fn totals(suite: &Suite) -> Vec<Job<'_>> {
    let prepare = |case: &Case<'_>| {
        if case.get("expect_total_each_namespace").is_some() {
            return Err(Outcome::Skipped("there is one namespace".to_owned()));
        }
        let sends = ["events", "generate", "events_generated"]
            .iter()
            .any(|name| case.get(name).is_some());
        if !sends && !is_object_and_array(case) {
            return Err(Failure::malformed("sends no events").into());
        }
        let meter = json!({
            "slug": "m", "eventType": "t", "aggregation": "SUM", "valueProperty": "$.duration_ms",
        });
        query::prepare(case, Some(meter))
    };
    on_stacks(suite, Sharing::Nobody, prepare, check_total)
}

fn is_object_and_array(case: &Case<'_>) -> bool {
    let name = case.fields.get("name").and_then(Value::as_str);
    name.is_some_and(|name| name.starts_with(OBJECT_AND_ARRAY))
}

/// What is posted: the headers and the body.
struct Post {
    headers: Vec<(String, String)>,
    body: String,
}

fn post_of(case: &Case<'_>) -> Result<Post, Failure> {
    let body = match (case.text("body_raw")?, case.fields.get("body")) {
        (Some(raw), None) => raw.to_owned(),
        (None, Some(body)) => body.to_string(),
        (None, None) => return Err(Failure::malformed("posts nothing")),
        (Some(_), Some(_)) => return Err(Failure::malformed("has both `body` and `body_raw`")),
    };
    let mut headers = Vec::new();
    if let Some(content_type) = case.text("content_type")? {
        headers.push((CONTENT_TYPE.to_string(), content_type.to_owned()));
    }
    for (name, value) in case.object("headers")?.into_iter().flatten() {
        let value = value.as_str();
        let value = value.ok_or_else(|| Failure::malformed(format!("header {name} is no text")))?;
        headers.push((name.clone(), value.to_owned()));
    }
    Ok(Post { headers, body })
}

/// What a case expects of the status.
enum Expected {
    Exactly(u16),
    Accepted,
    Refused,
}

impl Expected {
    fn of(case: &Case<'_>) -> Result<Self, Failure> {
        match case.text("beat")? {
            // The status is what OpenMeter answers, and `beat` how we are to be better.
            Some("accept it") => return Ok(Self::Accepted),
            Some(other) => return Err(Failure::malformed(format!("beat {other:?}"))),
            None => {}
        }
        match (case.status()?, case.error()?) {
            (Some(status), _) => Ok(Self::Exactly(status)),
            (None, Some(true)) => Ok(Self::Refused),
            (None, Some(false)) => Ok(Self::Accepted),
            (None, None) => Err(Failure::malformed("has no `status`")),
        }
    }

    fn compare(&self, answer: &Answer) -> Result<(), Failure> {
        let (is_met, said) = match self {
            Self::Exactly(status) => (answer.status == *status, status.to_string()),
            Self::Accepted => ((200..300).contains(&answer.status), "2xx".to_owned()),
            Self::Refused => ((400..500).contains(&answer.status), "4xx".to_owned()),
        };
        if is_met {
            Ok(())
        } else {
            Err(Failure::new(said, answer))
        }
    }
}

fn check_post<'s>(
    case: Case<'s>,
    _: &'s Fixture,
    stack: &'s Stack,
) -> BoxFuture<'s, Result<(), Failure>> {
    async move {
        let Post { headers, body } = post_of(&case)?;
        let url = stack.ingest_url().join("/api/v1/events");
        let mut request = stack
            .client()
            .post(url.map_err(anyhow::Error::from)?)
            .body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = Answer::to(request).await?;
        Expected::of(&case)?.compare(&answer)?;
        let is_refused = answer.status >= 400;
        if answer.status == 204 && !answer.body.is_empty() {
            return Err(Failure::new("an empty body", &answer));
        }
        if is_refused && answer.content_type != "application/problem+json" {
            let got = format!("{} {answer}", answer.content_type);
            return Err(Failure::new("application/problem+json", got));
        }
        if case.text("detail_contains")?.is_some() {
            // The words are each implementation's own; that there are some is not.
            let problem = answer.json()?;
            let detail = problem.get("detail").and_then(Value::as_str);
            if detail.is_none_or(str::is_empty) {
                return Err(Failure::new("a detail", problem));
            }
        }
        Ok(())
    }
    .boxed()
}

fn check_total<'s>(
    case: Case<'s>,
    fixture: &'s Fixture,
    stack: &'s Stack,
) -> BoxFuture<'s, Result<(), Failure>> {
    async move {
        if is_object_and_array(&case) && fixture.events.is_empty() {
            post_object_and_array(stack).await?;
        }
        query::check(case, fixture, stack).await
    }
    .boxed()
}

async fn post_object_and_array(stack: &Stack) -> anyhow::Result<()> {
    let event = |id: &str| {
        json!({
            "specversion": "1.0", "id": id, "source": "cases", "type": "t", "subject": "s",
            "time": "2024-01-01T00:00:00Z", "data": {"duration_ms": "100"},
        })
    };
    for body in [event("1"), json!([event("2"), event("3")])] {
        stack
            .post("application/json", body.to_string())
            .await?
            .accepted()?;
    }
    stack.wait_until_counted(3).await
}
