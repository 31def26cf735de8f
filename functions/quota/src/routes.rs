//! HTTP in and out.
//!
//! Layout:
//! - [`routes`]: all of them, and those that show accounts and that Knative triggers
//! - `checks`: those of gateways; `credits`: those that change what there is
//! - `request`: what is asked, read and bounded

mod checks;
mod credits;
mod request;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use runtime::{Problem, Secret};
use serde::Deserialize;

use self::{
    checks::{check, check_batch, check_for_envoy, check_for_nginx},
    credits::{cancel_hold, grant, list_grants, place_hold},
    request::{Body, SubjectPath, read, subject_of},
};
use crate::{
    books::{Books, BooksError},
    check::Checker,
    grants::Grants,
    reconcile::Reconcile,
    show,
};

/// Bytes of a request's body.
const BODY_LIMIT: usize = 1 << 20;

const BEARER: &[u8] = b"bearer ";

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

fn later(error: BooksError) -> Problem {
    let error = anyhow::Error::from(error);
    tracing::warn!(error = format!("{error:#}"), "cannot be done yet");
    Problem::unavailable("the accounts cannot be reached now").retry_after(1)
}
