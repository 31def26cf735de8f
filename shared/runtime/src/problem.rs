//! Errors as a client sees them: `application/problem+json` (RFC 9457).
//!
//! A client's own mistake is told in full. A fault of ours becomes a bare 500 or 503: the cause
//! belongs into the log, and it is the caller who writes it there.

use std::{any::Any, fmt};

use axum::{
    extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

const CONTENT: HeaderValue = HeaderValue::from_static("application/problem+json");
const VALIDATION_ERRORS: &str = "validationErrors";

/// An error answer. Members that say nothing are left out of the JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    detail: Option<String>,
    instance: Option<String>,
    extensions: Map<String, Value>,
    retry_after: Option<u64>,
}

/// The members in the order in which they are sent.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    extensions: &'a Map<String, Value>,
}

impl Problem {
    /// Returns a problem with a status and nothing else.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            detail: None,
            instance: None,
            extensions: Map::new(),
            retry_after: None,
        }
    }

    /// 400: sending the same bytes again can never work.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST).with_detail(detail)
    }

    /// 401: no credentials, or none that we know.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED).with_detail(detail)
    }

    /// 403: known, but not allowed to.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN).with_detail(detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND).with_detail(detail)
    }

    /// 409: it contradicts what is already there.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT).with_detail(detail)
    }

    /// 413: more bytes than we take.
    pub fn payload_too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE).with_detail(detail)
    }

    /// 415: a content type that we do not read.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).with_detail(detail)
    }

    /// 429: the sender is too fast; see [`Problem::retry_after`].
    pub fn too_many_requests(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS).with_detail(detail)
    }

    /// 503: not now; see [`Problem::retry_after`].
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE).with_detail(detail)
    }

    /// 500: our fault. It takes no detail, so that no cause can slip out; log the cause.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Says what went wrong, in words for the sender. A 500 keeps quiet about it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let silent = detail.is_empty() || self.status == StatusCode::INTERNAL_SERVER_ERROR;
        self.detail = (!silent).then_some(detail);
        self
    }

    /// Names the occurrence, such as `urn:request:<request id>`.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Adds a member to `extensions`.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.into(), value.into());
        self
    }

    /// Adds one entry to the extension `validationErrors`: a machine's `code`, a `message` for
    /// people, the `field` and, in a batch, the `index` of the event that is wrong.
    #[must_use]
    pub fn with_error(
        mut self,
        code: &str,
        message: impl Into<String>,
        field: Option<&str>,
        index: Option<usize>,
    ) -> Self {
        let mut error = Map::new();
        error.insert("code".into(), code.into());
        error.insert("message".into(), message.into().into());
        if let Some(field) = field {
            error.insert("field".into(), field.into());
        }
        if let Some(index) = index {
            error.insert("index".into(), index.into());
        }
        let errors = self
            .extensions
            .entry(VALIDATION_ERRORS)
            .or_insert_with(|| json!([]));
        if let Value::Array(errors) = errors {
            errors.push(error.into());
        }
        self
    }

    /// Sends `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns what went wrong, where that is told.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Returns the JSON that is sent.
    pub fn to_json(&self) -> String {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Unknown Error"),
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            instance: self.instance.as_deref(),
            extensions: &self.extensions,
        };
        serde_json::to_string(&body).expect("strings and JSON values always serialize")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.status),
            None => write!(f, "{}", self.status),
        }
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, CONTENT);
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What axum's extractors refuse is the client's mistake, with axum's status and words. Take
/// `Result<Bytes, BytesRejection>` in a handler and put `?` on it.
macro_rules! problem_from_rejection {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status()).with_detail(rejection.body_text())
            }
        }
    )*};
}

problem_from_rejection!(BytesRejection, JsonRejection, PathRejection, QueryRejection);

/// The answer for a path that no route matches.
pub(crate) async fn unknown_route() -> Problem {
    Problem::not_found("there is nothing at this path")
}

/// The answer for a path that exists, but not with this method. axum adds `Allow`.
pub(crate) async fn unknown_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED).with_detail("this path does not take this method")
}

/// Turns a handler's panic into a bare 500, with the message in the log.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = message, "a handler panicked");
    Problem::internal().into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[test]
    fn members_that_say_nothing_are_left_out() {
        for (problem, sent) in [
            (
                Problem::bad_request("no events"),
                r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"no events"}"#,
            ),
            (
                Problem::not_found(""),
                r#"{"type":"about:blank","title":"Not Found","status":404}"#,
            ),
            (
                Problem::internal().with_detail("the password is hunter2"),
                r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#,
            ),
            (
                Problem::conflict("taken").with_instance("urn:request:7"),
                r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"taken","instance":"urn:request:7"}"#,
            ),
        ] {
            assert_eq!(problem.to_json(), sent);
        }
    }

    #[test]
    fn every_validation_error_names_its_field_and_index() {
        let problem = Problem::bad_request("2 events are not valid")
            .with_error("required", "id is empty", Some("id"), Some(0))
            .with_error("syntax", "is no event", None, Some(3))
            .with_extension("accepted", 0);
        let body: Value = serde_json::from_str(&problem.to_json()).unwrap();
        assert_eq!(
            body["extensions"],
            json!({
                "validationErrors": [
                    {"code": "required", "message": "id is empty", "field": "id", "index": 0},
                    {"code": "syntax", "message": "is no event", "index": 3},
                ],
                "accepted": 0,
            })
        );
    }

    #[tokio::test]
    async fn the_answer_carries_status_content_type_and_retry_after() {
        let problem = Problem::unavailable("kafka is away").retry_after(3);
        let sent = problem.to_json();
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        let body = to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(body, sent);
    }
}
