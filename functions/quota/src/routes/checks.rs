//! Checks, in the form of each gateway.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use model::Credits;
use runtime::Problem;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Quota,
    request::{Body, MOST_SUBJECT, SubjectPath, amount, bounded, invalid, read, subject_of},
};
use crate::check::{Answer, Status};

/// Subjects in one batch of checks.
const MOST_CHECKS: usize = 1000;

pub(super) async fn check(
    State(quota): State<Quota>,
    path: SubjectPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (subject, answer) = asked(&quota, path, query.as_deref()).await?;
    Ok(answered(&subject, answer))
}

/// nginx takes 2xx and 401 or 403 alone for an answer, and passes headers on, not bodies.
pub(super) async fn check_for_nginx(
    State(quota): State<Quota>,
    path: SubjectPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (_, answer) = asked(&quota, path, query.as_deref()).await?;
    let status = if answer.allowed {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::FORBIDDEN
    };
    Ok((status, quota_headers(answer)).into_response())
}

async fn asked(
    quota: &Quota,
    path: SubjectPath,
    query: Option<&str>,
) -> Result<(String, Answer), Problem> {
    let (subject, cost) = (subject_of(path)?, cost(query)?);
    let answer = quota.checker.check(&subject, cost).await;
    Ok((subject, answer))
}

/// Envoy asks with the method, the path and the headers of the call itself.
pub(super) async fn check_for_envoy(
    State(quota): State<Quota>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = &quota.subject_header;
    let mut subjects = headers.get_all(name).iter();
    // One of two might be the one that the bank reads, and the other the one that is asked about.
    let subject = match (subjects.next().map(HeaderValue::to_str), subjects.next()) {
        (Some(Ok(subject)), None) if !subject.is_empty() => subject,
        _ => {
            return Err(Problem::unauthorized(format!(
                "the header {name} must name the subject, once"
            )));
        }
    };
    bounded("subject", subject, MOST_SUBJECT)?;
    let answer = quota.checker.check(subject, Credits::ZERO).await;
    Ok(answered(subject, answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checks {
    checks: Vec<Wanted>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    subject: String,
    cost: Option<String>,
}

/// One answer of a batch, or of a check alone.
#[derive(Serialize)]
struct Shown<'a> {
    subject: &'a str,
    allowed: bool,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<String>,
}

impl<'a> Shown<'a> {
    fn of(subject: &'a str, answer: Answer) -> Self {
        Self {
            subject,
            allowed: answer.allowed,
            status: answer.status.word(),
            remaining: answer.remaining.map(|remaining| remaining.to_string()),
        }
    }
}

pub(super) async fn check_batch(
    State(quota): State<Quota>,
    body: Body,
) -> Result<Response, Problem> {
    let Checks { checks } = read(&body?)?;
    if checks.len() > MOST_CHECKS {
        return Err(invalid("checks", &format!("more than {MOST_CHECKS}")));
    }
    let mut wanted = Vec::with_capacity(checks.len());
    for (index, check) in checks.iter().enumerate() {
        let cost = check.cost.as_deref().map_or(Ok(Credits::ZERO), amount);
        let cost = cost.map_err(|wrong| invalid(&format!("checks[{index}].cost"), &wrong))?;
        bounded(
            &format!("checks[{index}].subject"),
            &check.subject,
            MOST_SUBJECT,
        )?;
        wanted.push((check.subject.as_str(), cost));
    }
    let answers = quota.checker.check_all(&wanted).await;
    let shown: Vec<_> = (wanted.iter().zip(answers))
        .map(|((subject, _), answer)| Shown::of(subject, answer))
        .collect();
    Ok(Json(json!({ "checks": shown })).into_response())
}

fn cost(query: Option<&str>) -> Result<Credits, Problem> {
    let mut cost = Credits::ZERO;
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    for (name, value) in pairs {
        if name != "cost" {
            return Err(invalid(&name, "is no parameter of a check"));
        }
        cost = amount(&value).map_err(|wrong| invalid("cost", &wrong))?;
    }
    Ok(cost)
}

pub(super) fn answered(subject: &str, answer: Answer) -> Response {
    let headers = quota_headers(answer);
    if answer.allowed {
        return (headers, Json(Shown::of(subject, answer))).into_response();
    }
    let (status, detail) = match answer.status {
        Status::Conflict => (
            StatusCode::CONFLICT,
            "another amount is held under this name".to_owned(),
        ),
        Status::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the account cannot be looked at now".to_owned(),
        ),
        Status::Unknown => (
            StatusCode::PAYMENT_REQUIRED,
            format!("there is no account of {subject:?}"),
        ),
        Status::Ok | Status::Spent | Status::Unlimited => (
            StatusCode::PAYMENT_REQUIRED,
            format!("the credits of {subject:?} do not suffice"),
        ),
    };
    let mut problem = Problem::new(status)
        .with_detail(detail)
        .with_extension("subject", subject)
        .with_extension("status", answer.status.word());
    if let Some(remaining) = answer.remaining {
        problem = problem.with_extension("remaining", remaining.to_string());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        problem = problem.retry_after(1);
    }
    (headers, problem).into_response()
}

fn quota_headers(answer: Answer) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-quota-status",
        HeaderValue::from_static(answer.status.word()),
    );
    let remaining = answer.remaining.map(|remaining| remaining.to_string());
    if let Some(Ok(remaining)) = remaining.map(|text| HeaderValue::from_str(&text)) {
        headers.insert("x-quota-remaining", remaining);
    }
    headers
}
