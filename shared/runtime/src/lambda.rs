//! The host on AWS Lambda.
//!
//! What is no HTTP request (a Kafka batch of an event source mapping, an EventBridge event)
//! arrives as `POST /events` with the raw JSON. For such an event Lambda knows no status: an
//! answer is a success whatever it says, and the batch would be committed. So an answer other
//! than 2xx becomes a failed invocation, which Lambda delivers again.

use anyhow::Context as _;
use axum::{
    Router,
    http::Method,
    response::{IntoResponse as _, Response},
};
use lambda_http::{Request, request::RequestContext, service_fn};
use tower::ServiceExt as _;

use crate::problem;

/// The path that `lambda_http` gives to what is no HTTP request.
const EVENTS: &str = "/events";

pub(crate) async fn run(router: Router) -> anyhow::Result<()> {
    let answers = service_fn(move |request| answer(router.clone(), request));
    lambda_http::run(answers)
        .await
        .map_err(anyhow::Error::from_boxed)
        .context("serve on lambda")
}

async fn answer(router: Router, request: Request) -> Result<Response, String> {
    let context = request.extensions().get::<RequestContext>();
    let is_event = matches!(context, Some(RequestContext::PassThrough));
    // A function URL is open to the world, and what comes in at `/events` is trusted to be
    // Lambda's own.
    if !is_event && request.method() == Method::POST && request.uri().path() == EVENTS {
        return Ok(problem::unknown_route().await.into_response());
    }
    let response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    if is_event && !status.is_success() {
        tracing::warn!(status = status.as_u16(), "an event failed and comes again");
        return Err(format!("the event was answered with {status}"));
    }
    Ok(response)
}
