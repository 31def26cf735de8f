//! Credits that are granted and set aside.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};
use model::Credits;
use runtime::Problem;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::Grant;

use super::{
    Quota,
    checks::answered,
    later,
    request::{
        Body, HoldPath, MOST_KEY, SubjectPath, amount, bounded, hold_of, invalid, read, subject_of,
    },
};
use crate::grants::GrantError;

/// Bytes of a note, which is kept.
const MOST_NOTE: usize = 1000;

/// How long a hold lasts that does not say it, and the bounds.
const HOLD: SignedDuration = SignedDuration::from_mins(1);
const SHORTEST_HOLD: SignedDuration = SignedDuration::from_millis(1);
const LONGEST_HOLD: SignedDuration = SignedDuration::from_hours(24);

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

pub(super) async fn grant(
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

pub(super) async fn list_grants(
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

pub(super) async fn place_hold(
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

pub(super) async fn cancel_hold(
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
