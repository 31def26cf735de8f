//! HTTP in and out: checks for gateways, accounts for people, grants for administrators, and what
//! Knative triggers.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, RawQuery, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use jiff::{SignedDuration, Timestamp};
use model::Credits;
use runtime::{Problem, Secret};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::Grant;

use crate::{
    books::{Books, BooksError},
    check::{Answer, Checker, Status},
    grants::{GrantError, Grants},
    reconcile::Reconcile,
    show,
};

/// Bytes of a request's body.
const BODY_LIMIT: usize = 1 << 20;

/// Subjects in one batch of checks.
const MOST_CHECKS: usize = 1000;

/// How long a hold lasts that does not say it, and the longest.
const HOLD: SignedDuration = SignedDuration::from_mins(1);
const LONGEST_HOLD: SignedDuration = SignedDuration::from_hours(24);

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Quota {
    pub(crate) books: Books,
    pub(crate) checker: Checker,
    pub(crate) grants: Grants,
    pub(crate) reconcile: Reconcile,
    pub(crate) subject_header: Arc<str>,
    pub(crate) admin_token: Option<Secret>,
}

/// Returns all routes but those that events come by.
pub(crate) fn routes(quota: Quota) -> Router {
    Router::new()
        .route("/api/v1/quota/check", get(show_check).post(check_batch))
        .route("/api/v1/quota/{subject}", get(show_account))
        .route("/api/v1/quota/{subject}/check", get(check))
        .route("/api/v1/quota/{subject}/auth", get(check_for_nginx))
        .route(
            "/api/v1/quota/{subject}/grants",
            get(list_grants).post(grant),
        )
        .route(
            "/api/v1/quota/{subject}/holds/{hold}",
            put(place_hold).delete(cancel_hold),
        )
        .route("/ext-authz", any(check_for_envoy))
        .route("/ext-authz/{*path}", any(check_for_envoy))
        .route("/reconcile", post(reconcile))
        .route("/rebuild", post(rebuild))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(quota)
}

async fn check(
    State(quota): State<Quota>,
    subject: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Path(subject) = subject?;
    let cost = cost(query.as_deref())?;
    let answer = quota.checker.check(&subject, cost).await;
    Ok(answered(&subject, answer))
}

/// nginx takes 2xx and 401 or 403 alone for an answer, and passes headers on, not bodies.
async fn check_for_nginx(
    State(quota): State<Quota>,
    subject: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Path(subject) = subject?;
    let cost = cost(query.as_deref())?;
    let answer = quota.checker.check(&subject, cost).await;
    let status = if answer.allowed {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::FORBIDDEN
    };
    Ok((status, quota_headers(answer)).into_response())
}

/// Envoy asks with the method, the path and the headers of the call itself.
async fn check_for_envoy(
    State(quota): State<Quota>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = &*quota.subject_header;
    let subject = headers.get(name).map(HeaderValue::to_str);
    let Some(Ok(subject)) = subject else {
        return Err(Problem::unauthorized(format!(
            "the header {name} must name the subject"
        )));
    };
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

async fn check_batch(
    State(quota): State<Quota>,
    body: Result<Json<Checks>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Checks { checks }) = body?;
    if checks.len() > MOST_CHECKS {
        return Err(invalid("checks", &format!("more than {MOST_CHECKS}")));
    }
    let mut wanted = Vec::with_capacity(checks.len());
    for (index, check) in checks.iter().enumerate() {
        let cost = check.cost.as_deref().map_or(Ok(Credits::ZERO), amount);
        let cost = cost.map_err(|wrong| invalid(&format!("checks[{index}].cost"), &wrong))?;
        wanted.push((check.subject.as_str(), cost));
    }
    let answers = quota.checker.check_all(&wanted).await;
    let shown: Vec<_> = (wanted.iter().zip(answers))
        .map(|((subject, _), answer)| Shown::of(subject, answer))
        .collect();
    Ok(Json(json!({ "checks": shown })).into_response())
}

/// A subject may be named like the route of batches.
async fn show_check(state: State<Quota>) -> Result<Response, Problem> {
    Box::pin(show_account(state, Ok(Path("check".to_owned())))).await
}

async fn show_account(
    State(quota): State<Quota>,
    subject: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(subject) = subject?;
    let shown = show::show(&quota.books, &quota.checker, &subject).await;
    match shown.map_err(later)? {
        Some(shown) => Ok(Json(shown).into_response()),
        None => Err(Problem::not_found(format!(
            "there is no account of {subject:?}"
        ))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    amount: String,
    #[serde(default)]
    note: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownGrant {
    id: String,
    amount: String,
    note: String,
    granted_at: Option<Timestamp>,
}

impl From<Grant> for ShownGrant {
    fn from(grant: Grant) -> Self {
        Self {
            id: grant.id,
            amount: grant.amount.to_string(),
            note: grant.note,
            granted_at: Timestamp::from_microsecond(grant.granted_at).ok(),
        }
    }
}

async fn grant(
    State(quota): State<Quota>,
    subject: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Json<NewGrant>, JsonRejection>,
) -> Result<Response, Problem> {
    quota.admit(&headers)?;
    let (Path(subject), Json(wanted)) = (subject?, body?);
    let key = headers.get("idempotency-key").map(HeaderValue::to_str);
    let Some(Ok(key)) = key.filter(|key| key.as_ref().is_ok_and(|key| !key.is_empty())) else {
        return Err(invalid("Idempotency-Key", "this header is required"));
    };
    let amount: Credits = match wanted.amount.parse() {
        Ok(Credits::ZERO) => return Err(invalid("amount", "must not be 0")),
        Ok(amount) => amount,
        Err(error) => return Err(invalid("amount", &format!("{error}"))),
    };
    let (grants, key) = (quota.grants.clone(), key.to_owned());
    // It goes on when its client is gone: half of it would be done.
    let granting =
        tokio::spawn(async move { grants.grant(&subject, &key, amount, wanted.note).await });
    match granting.await.map_err(|_| Problem::internal())? {
        Ok((grant, is_new)) => {
            let status = if is_new {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            Ok((status, Json(ShownGrant::from(grant))).into_response())
        }
        Err(error @ GrantError::Conflict) => Err(Problem::conflict(error.to_string())),
        Err(error @ GrantError::TooMuch) => Err(invalid("amount", &error.to_string())),
        Err(GrantError::Away(error)) => Err(later(error)),
    }
}

async fn list_grants(
    State(quota): State<Quota>,
    subject: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    quota.admit(&headers)?;
    let Path(subject) = subject?;
    let grants = quota.grants.list(&subject).await.map_err(later)?;
    let items: Vec<_> = grants.into_iter().map(ShownGrant::from).collect();
    Ok(Json(json!({ "items": items })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewHold {
    amount: String,
    expires_in: Option<SignedDuration>,
}

async fn place_hold(
    State(quota): State<Quota>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Json<NewHold>, JsonRejection>,
) -> Result<Response, Problem> {
    let (Path((subject, hold)), Json(wanted)) = (path?, body?);
    let amount = amount(&wanted.amount).map_err(|wrong| invalid("amount", &wrong))?;
    let ends = wanted.expires_in.unwrap_or(HOLD);
    let ends = Some(ends).filter(|ends| ends.is_positive() && *ends <= LONGEST_HOLD);
    let ends = ends.and_then(|ends| Duration::try_from(ends).ok());
    let ends = ends.ok_or_else(|| invalid("expiresIn", "must be a duration of up to PT24H"))?;
    let answer = quota.checker.hold(&subject, &hold, amount, ends).await;
    Ok(answered(&subject, answer))
}

async fn cancel_hold(
    State(quota): State<Quota>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path((subject, hold)) = path?;
    let cancelled = quota.checker.cancel_hold(&subject, &hold).await;
    cancelled.map_err(|error| later(error.into()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// A PingSource's event. Answers with 204 and no body: Knative takes a body for an event.
async fn reconcile(State(quota): State<Quota>) -> Result<StatusCode, Problem> {
    quota.reconcile.run().await.map_err(later)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rebuilt {
    subjects: Vec<String>,
}

async fn rebuild(
    State(quota): State<Quota>,
    headers: HeaderMap,
    body: Result<Json<Rebuilt>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    quota.admit(&headers)?;
    let Json(Rebuilt { subjects }) = body?;
    quota.reconcile.rebuild(subjects).await.map_err(later)?;
    Ok(StatusCode::NO_CONTENT)
}

impl Quota {
    /// Lets administrators pass.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.admin_token else {
            return Err(Problem::forbidden(
                "there are no administrators: OPENMETER_ADMIN_TOKEN is not set",
            ));
        };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|given| given.strip_prefix(b"Bearer "));
        // Hashes are compared in a time that says nothing of the token.
        let hash = |bytes: &[u8]| blake3::hash(bytes);
        match given {
            Some(given) if hash(given) == hash(token.expose().as_bytes()) => Ok(()),
            _ => Err(Problem::unauthorized("this needs an administrator's token")),
        }
    }
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

/// Reads credits that are not below zero.
fn amount(text: &str) -> Result<Credits, String> {
    match text.parse::<Credits>() {
        Ok(amount) if amount < Credits::ZERO => Err("must not be below 0".to_owned()),
        Ok(amount) => Ok(amount),
        Err(error) => Err(error.to_string()),
    }
}

fn answered(subject: &str, answer: Answer) -> Response {
    let headers = quota_headers(answer);
    if answer.allowed {
        return (headers, Json(Shown::of(subject, answer))).into_response();
    }
    let (status, detail) = match answer.status {
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

fn invalid(field: &str, wrong: &str) -> Problem {
    Problem::bad_request(format!("{field}: {wrong}")).with_error(
        "invalid",
        wrong,
        Some(field),
        None,
    )
}

fn later(error: BooksError) -> Problem {
    let error = anyhow::Error::from(error);
    tracing::warn!(error = format!("{error:#}"), "cannot be done yet");
    Problem::unavailable("the accounts cannot be reached now").retry_after(1)
}
