//! Lago's API, as far as it is imitated.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    middleware,
    routing::{delete, get, post, put},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use crate::{
    admin,
    answers::{Answer, Params, Refusal},
    fields,
    gate::{HalfBatch, gate, says_what_it_is},
    server::Lago,
    webhooks,
};

pub(crate) type Asked = State<Arc<Lago>>;
pub(crate) type Given = Query<Params>;
pub(crate) type Id = Path<String>;

pub(crate) fn router(lago: &Arc<Lago>) -> Router {
    let api = api().layer(middleware::from_fn_with_state(Arc::clone(lago), gate));
    Router::new()
        .nest("/api/v1", api)
        .nest("/stand-in", admin::routes())
        .route("/", get(|| async { crate::gate::WHAT_IT_IS }))
        .fallback(|| async { Refusal::NotFound("resource") })
        .layer(middleware::from_fn(says_what_it_is))
        .with_state(Arc::clone(lago))
}

#[rustfmt::skip] // a line a route
fn api() -> Router<Arc<Lago>> {
    Router::new()
        .route("/events", post(create_event).get(
            async |State(lago): Asked, Query(given): Given| lago.organization().list_events(&given)))
        .route("/events/batch", post(create_events))
        .route("/events/{id}", get(
            async |State(lago): Asked, Path(id): Id| lago.organization().show_event(&id)))
        .route("/billable_metrics", post(
            async |State(lago): Asked, body: Bytes| lago.organization().create_metric(&fields::json(&body)?)).get(
            async |State(lago): Asked, Query(given): Given| lago.organization().list_metrics(&given)))
        .route("/billable_metrics/{id}", get(
            async |State(lago): Asked, Path(id): Id| lago.organization().show_metric(&id)).delete(
            async |State(lago): Asked, Path(id): Id| lago.organization().delete_metric(&id)))
        .route("/plans", post(
            async |State(lago): Asked, body: Bytes| lago.organization().create_plan(&fields::json(&body)?)))
        .route("/plans/{id}", get(
            async |State(lago): Asked, Path(id): Id| lago.organization().show_plan(&id)))
        .route("/customers", post(
            async |State(lago): Asked, body: Bytes| lago.organization().upsert_customer(&fields::json(&body)?)).get(
            async |State(lago): Asked, Query(given): Given| lago.organization().list_customers(&given)))
        .route("/customers/{id}", get(
            async |State(lago): Asked, Path(id): Id| lago.organization().show_customer(&id)))
        .route("/customers/{id}/current_usage", get(
            async |State(lago): Asked, Path(id): Id, Query(given): Given|
                lago.organization().current_usage(&id, given.get("external_subscription_id"))))
        .route("/customers/{id}/wallets", get(
            async |State(lago): Asked, Path(id): Id, Query(given): Given|
                lago.organization().list_wallets(Some(&id), &given)))
        .route("/subscriptions", post(
            async |State(lago): Asked, body: Bytes| lago.organization().create_subscription(&fields::json(&body)?)).get(
            async |State(lago): Asked, Query(given): Given| lago.organization().list_subscriptions(&given)))
        .route("/subscriptions/{id}", get(
            async |State(lago): Asked, Path(id): Id, Query(given): Given|
                lago.organization().show_subscription(&id, &given)).delete(
            async |State(lago): Asked, Path(id): Id| lago.organization().terminate_subscription(&id)))
        .route("/invoices", get(
            async |State(lago): Asked, Query(given): Given| lago.organization().list_invoices(&given)))
        .route("/invoices/{id}", get(
            async |State(lago): Asked, Path(id): Id| lago.organization().show_invoice(&id)))
        .route("/invoices/{id}/refresh", put(
            async |State(lago): Asked, Path(id): Id| lago.organization().show_invoice(&id)))
        .route("/invoices/{id}/finalize", put(
            async |State(lago): Asked, Path(id): Id| lago.organization().finalize_draft(&id)))
        .route("/wallets", post(
            async |State(lago): Asked, body: Bytes| lago.organization().create_wallet(&fields::json(&body)?)).get(
            async |State(lago): Asked, Query(given): Given|
                lago.organization().list_wallets(given.get("external_customer_id"), &given)))
        .route("/wallets/{id}", get(
            async |State(lago): Asked, Path(id): Id| lago.organization().show_wallet(&id)).put(
            async |State(lago): Asked, Path(id): Id, body: Bytes|
                lago.organization().update_wallet(&id, &fields::json(&body)?)).delete(
            async |State(lago): Asked, Path(id): Id| lago.organization().terminate_wallet(&id)))
        .route("/wallets/{id}/wallet_transactions", get(
            async |State(lago): Asked, Path(id): Id, Query(given): Given|
                lago.organization().list_transactions(&id, &given)))
        .route("/wallet_transactions", post(
            async |State(lago): Asked, body: Bytes| lago.organization().create_transactions(&fields::json(&body)?)))
        .route("/wallet_transactions/{id}", get(
            async |State(lago): Asked, Path(id): Id| lago.organization().show_transaction(&id)))
        .route("/webhook_endpoints", post(
            async |State(lago): Asked, body: Bytes| lago.organization().create_endpoint(&fields::json(&body)?)).get(
            async |State(lago): Asked, Query(given): Given| lago.organization().list_endpoints(&given)))
        .route("/webhook_endpoints/{id}", delete(
            async |State(lago): Asked, Path(id): Id| lago.organization().delete_endpoint(&id)))
        .route("/webhooks/json_public_key", get(json_public_key))
        .route("/webhooks/public_key", get(|| async { encoded_public_key() }))
        .fallback(|| async { Refusal::NotFound("resource") })
        .method_not_allowed_fallback(|| async { Refusal::NotAllowed("method_not_allowed") })
}

async fn create_event(State(lago): Asked, body: Bytes) -> Answer {
    lago.organization().create_event(&fields::json(&body)?)
}

async fn create_events(
    State(lago): Asked,
    half: Option<Extension<HalfBatch>>,
    body: Bytes,
) -> Answer {
    let body = fields::json(&body)?;
    lago.organization().create_events(&body, half.is_some())
}

async fn json_public_key() -> Answer {
    Ok(Json(
        json!({ "webhook": { "public_key": encoded_public_key() } }),
    ))
}

/// Base64 of the PEM, with line breaks, as Ruby makes it.
fn encoded_public_key() -> String {
    webhooks::in_lines(&BASE64_STANDARD.encode(webhooks::public_key_pem()), 60)
}
