//! The host on AWS Lambda.
//!
//! What is no HTTP request (a Kafka batch of an event source mapping, an EventBridge event)
//! arrives as `POST /events` with the raw JSON. For such an event Lambda knows no status: an
//! answer is a success whatever it says, and the batch would be committed. So an answer other
//! than 2xx becomes a failed invocation, which Lambda delivers again.

use anyhow::Context as _;
use axum::{
    Router,
    http::{Method, Uri, uri::PathAndQuery},
    response::{IntoResponse as _, Response},
};
use lambda_http::{Request, RequestExt as _, request::RequestContext, service_fn};
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

async fn answer(router: Router, mut request: Request) -> Result<Response, String> {
    if let Some(uri) = without_stage(&request) {
        *request.uri_mut() = uri;
    }
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

/// Returns the URI without the name of an API's stage, which is how the API is deployed and none
/// of its paths. An HTTP API puts it in front of the path; for a REST API `lambda_http` does,
/// unless the path begins with it already.
fn without_stage(request: &Request) -> Option<Uri> {
    let prefix = match request.extensions().get::<RequestContext>()? {
        RequestContext::ApiGatewayV1(api) => {
            let prefix = format!("/{}", api.stage.as_deref()?);
            let is_path = request.raw_http_path().starts_with(&format!("{prefix}/"));
            (!is_path).then_some(prefix)?
        }
        RequestContext::ApiGatewayV2(api) => format!("/{}", api.stage.as_deref()?),
        _ => return None,
    };
    let rest = request
        .uri()
        .path_and_query()?
        .as_str()
        .strip_prefix(&prefix)?;
    let path = match rest.chars().next() {
        Some('/') => PathAndQuery::try_from(rest).ok()?,
        None | Some('?') => PathAndQuery::try_from(format!("/{rest}")).ok()?,
        Some(_) => return None,
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}
