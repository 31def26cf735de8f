//! The stand-in's own API, which Lago has not: what a test orders and looks at.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    answers::{Answer, Refusal},
    fields,
    routes::{Asked, Given, Id},
    server::Lago,
    time,
};

#[rustfmt::skip] // a line a route
pub(crate) fn routes() -> Router<Arc<Lago>> {
    Router::new()
        .route("/reset", post(reset))
        .route("/clock", get(
            async |State(lago): Asked| clock(&lago)).post(advance))
        .route("/units", get(units))
        .route("/faults", get(
            async |State(lago): Asked| faults(&lago)).post(order_fault).delete(clear_faults))
        .route("/invoices", post(
            async |State(lago): Asked, body: Bytes| lago.organization().order_invoice(&read(&body)?)))
        .route("/wallet_transactions/{id}/settle", post(
            async |State(lago): Asked, Path(id): Id| lago.organization().end_purchase(&id, true)))
        .route("/wallet_transactions/{id}/fail", post(
            async |State(lago): Asked, Path(id): Id| lago.organization().end_purchase(&id, false)))
        .route("/events_check", post(check_events))
        .route("/webhooks", get(
            async |State(lago): Asked, Query(given): Given| lago.organization().list_webhooks(&given)))
        .route("/webhooks/release", post(release))
        .route("/webhooks/idle", get(idle))
        .route("/webhooks/{id}/resend", post(
            async |State(lago): Asked, Path(id): Id| lago.organization().resend(&id)))
        .fallback(|| async { Refusal::NotFound("resource") })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::BadRequest(error.to_string()))
}

async fn reset(State(lago): Asked) -> Answer {
    lago.organization().reset();
    Ok(Json(json!({})))
}

fn clock(lago: &Lago) -> Answer {
    let now = lago.organization().now();
    Ok(Json(json!({ "now": time::iso_millis(now) })))
}

/// Takes `{"advance_seconds": N}`.
async fn advance(State(lago): Asked, body: Bytes) -> Answer {
    let body = fields::json(&body)?;
    let seconds = body["advance_seconds"].as_u64();
    let seconds = seconds.ok_or_else(|| Refusal::field("advance_seconds", "value_is_mandatory"))?;
    lago.advance(Duration::from_secs(seconds));
    clock(&lago)
}

async fn units(State(lago): Asked) -> Answer {
    let organization = lago.organization();
    Ok(Json(json!({
        "units": organization.units(),
        "uncounted": organization.uncounted(),
    })))
}

fn faults(lago: &Lago) -> Answer {
    Ok(Json(json!({ "faults": lago.organization().faults.all() })))
}

async fn order_fault(State(lago): Asked, body: Bytes) -> Answer {
    lago.order(read(&body)?)?;
    faults(&lago)
}

async fn clear_faults(State(lago): Asked) -> Answer {
    lago.organization().faults.clear();
    faults(&lago)
}

async fn check_events(State(lago): Asked) -> Answer {
    lago.organization().check_events();
    Ok(Json(json!({})))
}

async fn release(State(lago): Asked) -> Answer {
    lago.organization().release_all();
    Ok(Json(Value::default()))
}

/// Answers once no webhook is under way; those that are held are not.
async fn idle(State(lago): Asked) -> Answer {
    lago.webhooks_idle().await;
    Ok(Json(json!({})))
}
