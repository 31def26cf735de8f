//! HTTP in and out: checks for gateways, accounts for people, grants for administrators, and what
//! Knative triggers.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, RawQuery, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use jiff::{SignedDuration, Timestamp};
use model::Credits;
use runtime::{Problem, Secret};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
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

/// Bytes of a subject, of a name that a caller gives, and of a note: all are kept.
const MOST_SUBJECT: usize = 1024;
const MOST_KEY: usize = 255;
const MOST_NOTE: usize = 1000;

const BEARER: &[u8] = b"bearer ";

/// How long a hold lasts that does not say it, and the bounds.
const HOLD: SignedDuration = SignedDuration::from_mins(1);
const SHORTEST_HOLD: SignedDuration = SignedDuration::from_millis(1);
const LONGEST_HOLD: SignedDuration = SignedDuration::from_hours(24);

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Quota {
    pub(crate) books: Books,
    pub(crate) checker: Checker,
    pub(crate) grants: Grants,
    pub(crate) reconcile: Reconcile,
    pub(crate) subject_header: HeaderName,
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
        .route("/ext-authz/", any(check_for_envoy))
        .route("/ext-authz/{*path}", any(check_for_envoy))
        .route("/reconcile", post(reconcile))
        .route("/rebuild", post(rebuild))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(quota)
}

type SubjectPath = Result<Path<String>, PathRejection>;

async fn check(
    State(quota): State<Quota>,
    path: SubjectPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (subject, answer) = asked(&quota, path, query.as_deref()).await?;
    Ok(answered(&subject, answer))
}

/// nginx takes 2xx and 401 or 403 alone for an answer, and passes headers on, not bodies.
async fn check_for_nginx(
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
async fn check_for_envoy(
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

async fn check_batch(State(quota): State<Quota>, body: Body) -> Result<Response, Problem> {
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

/// A subject may be named like the route of batches.
async fn show_check(state: State<Quota>) -> Result<Response, Problem> {
    Box::pin(show_account(state, Ok(Path("check".to_owned())))).await
}

async fn show_account(State(quota): State<Quota>, path: SubjectPath) -> Result<Response, Problem> {
    let subject = subject_of(path)?;
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
    path: SubjectPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    quota.admit(&headers)?;
    let (subject, wanted) = (subject_of(path)?, read::<NewGrant>(&body?)?);
    let key = headers.get("idempotency-key").map(HeaderValue::to_str);
    let Some(Ok(key)) = key else {
        return Err(invalid("Idempotency-Key", "this header is required"));
    };
    bounded("Idempotency-Key", key, MOST_KEY)?;
    if wanted.note.len() > MOST_NOTE {
        return Err(invalid(
            "note",
            &format!("must have at most {MOST_NOTE} bytes"),
        ));
    }
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
    path: SubjectPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    quota.admit(&headers)?;
    let subject = subject_of(path)?;
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
    path: HoldPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    quota.admit(&headers)?;
    let ((subject, hold), wanted) = (hold_of(path)?, read::<NewHold>(&body?)?);
    let amount = match amount(&wanted.amount) {
        Ok(Credits::ZERO) => return Err(invalid("amount", "must not be 0")),
        amount => amount.map_err(|wrong| invalid("amount", &wrong))?,
    };
    let ends = wanted.expires_in.unwrap_or(HOLD);
    let ends = Some(ends).filter(|ends| *ends >= SHORTEST_HOLD && *ends <= LONGEST_HOLD);
    let ends = ends.and_then(|ends| Duration::try_from(ends).ok());
    let ends = ends.ok_or_else(|| invalid("expiresIn", "must be a duration of up to PT24H"))?;
    let answer = quota.checker.hold(&subject, &hold, amount, ends).await;
    Ok(answered(&subject, answer))
}

async fn cancel_hold(
    State(quota): State<Quota>,
    path: HoldPath,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    quota.admit(&headers)?;
    let (subject, hold) = hold_of(path)?;
    let cancelled = quota.checker.cancel_hold(&subject, &hold).await;
    cancelled.map_err(|error| later(error.into()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// A PingSource's event. Answers with 204 and no body: Knative takes a body for an event.
async fn reconcile(State(quota): State<Quota>) -> Result<StatusCode, Problem> {
    quota.reconcile.run().await.map_err(later)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rebuilt {
    #[serde(default)]
    subjects: Vec<String>,
}

async fn rebuild(
    State(quota): State<Quota>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    quota.admit(&headers)?;
    let Rebuilt { subjects } = read(&body?)?;
    let is_done = quota.reconcile.rebuild(subjects).await.map_err(later)?;
    Ok(if is_done {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::ACCEPTED
    })
}

impl Quota {
    /// Lets those pass who may change credits.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.admin_token else {
            return Err(Problem::forbidden(
                "nobody may: OPENMETER_ADMIN_TOKEN is not set",
            ));
        };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|given| given.split_at_checked(BEARER.len()));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(BEARER));
        let given = given.map(|(_, token)| token);
        // Hashes are compared in a time that says nothing of the token.
        let hash = |bytes: &[u8]| blake3::hash(bytes);
        match given {
            Some(given) if hash(given) == hash(token.expose().as_bytes()) => Ok(()),
            _ => Err(Problem::unauthorized(
                "this needs the token of OPENMETER_ADMIN_TOKEN",
            )),
        }
    }
}

type HoldPath = Result<Path<(String, String)>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;

fn subject_of(path: SubjectPath) -> Result<String, Problem> {
    let Path(subject) = path?;
    bounded("subject", &subject, MOST_SUBJECT)?;
    Ok(subject)
}

fn hold_of(path: HoldPath) -> Result<(String, String), Problem> {
    let Path((subject, hold)) = path?;
    bounded("subject", &subject, MOST_SUBJECT)?;
    bounded("hold", &hold, MOST_KEY)?;
    Ok((subject, hold))
}

fn bounded(field: &str, text: &str, most: usize) -> Result<(), Problem> {
    if text.is_empty() || text.len() > most {
        return Err(invalid(field, &format!("must have 1 to {most} bytes")));
    }
    Ok(())
}

/// Reads JSON, whatever it is said to be; a mistake names its field.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        match field.as_str() {
            "." => Problem::bad_request(error.inner().to_string()),
            field => invalid(field, &error.inner().to_string()),
        }
    })
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
