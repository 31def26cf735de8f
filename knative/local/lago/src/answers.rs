//! What Lago answers when it refuses, and lists.

use std::collections::{BTreeMap, HashMap};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Codes of a refusal, by field.
pub(crate) type Errors = BTreeMap<String, Vec<&'static str>>;

/// A body, or why there is none.
pub(crate) type Answer = Result<Json<Value>, Refusal>;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// 400: the body is no JSON, or its root key is missing.
    BadRequest(String),
    /// 401: no key, or not ours.
    Unauthorized,
    /// 404: there is no such thing; the word is the resource's name.
    NotFound(&'static str),
    /// 405: the thing is not in a state for this.
    NotAllowed(&'static str),
    /// 422: the fields and what is wrong with each.
    Invalid(Errors),
    /// 422 of a batch, by the item's index.
    InvalidItems(BTreeMap<usize, Errors>),
    /// Any other status, from a fault that a test ordered.
    Fault(StatusCode),
}

impl Refusal {
    /// 422 with one field and one code.
    pub(crate) fn field(name: &str, code: &'static str) -> Self {
        Self::Invalid(Errors::from([(name.to_owned(), vec![code])]))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, more) = match self {
            Self::BadRequest(text) => {
                let error = format!("BadRequest: {text}");
                (StatusCode::BAD_REQUEST, json!({ "error": error }))
            }
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, json!({})),
            Self::NotFound(what) => {
                let code = format!("{what}_not_found");
                (StatusCode::NOT_FOUND, json!({ "code": code }))
            }
            Self::NotAllowed(code) => (StatusCode::METHOD_NOT_ALLOWED, json!({ "code": code })),
            Self::Invalid(errors) => invalid(json!(errors)),
            Self::InvalidItems(items) => {
                let by_text: BTreeMap<_, _> = items
                    .into_iter()
                    .map(|(index, errors)| (index.to_string(), errors))
                    .collect();
                invalid(json!(by_text))
            }
            Self::Fault(status) => (status, json!({})),
        };
        let mut body = json!({
            "status": status.as_u16(),
            "error": status.canonical_reason().unwrap_or("Error"),
        });
        // The reason of 422 is worded as Lago has it, not as the newest RFC does.
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            body["error"] = json!("Unprocessable Entity");
        }
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        (status, Json(body)).into_response()
    }
}

fn invalid(details: Value) -> (StatusCode, Value) {
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        json!({ "code": "validation_errors", "error_details": details }),
    )
}

/// A query string's parameters.
pub(crate) type Params = HashMap<String, String>;

/// Answers one page of `rows` under `name`, with its place among all in `meta`.
pub(crate) fn page(name: &str, rows: Vec<Value>, params: &Params) -> Answer {
    let number = |param: &str, default: usize| {
        params
            .get(param)
            .and_then(|text| text.parse().ok())
            .filter(|number| *number > 0)
            .unwrap_or(default)
    };
    let (page, size) = (number("page", 1), number("per_page", 100));
    let count = rows.len();
    let pages = count.div_ceil(size);
    let rows: Vec<_> = rows
        .into_iter()
        .skip((page - 1).saturating_mul(size))
        .take(size)
        .collect();
    Ok(Json(json!({
        name: rows,
        "meta": {
            "current_page": page,
            "next_page": (page < pages).then_some(page + 1),
            "prev_page": (page > 1).then(|| page - 1),
            "total_pages": pages,
            "total_count": count,
        },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_its_neighbours() {
        let rows = || (0..5).map(Value::from).collect();
        let params = |page: &str| {
            Params::from([
                ("page".to_owned(), page.to_owned()),
                ("per_page".to_owned(), "2".to_owned()),
            ])
        };
        for (number, expected, next, prev) in [
            ("1", json!([0, 1]), json!(2), json!(null)),
            ("3", json!([4]), json!(null), json!(2)),
            ("9", json!([]), json!(null), json!(8)),
            ("0", json!([0, 1]), json!(2), json!(null)),
        ] {
            let Json(body) = page("rows", rows(), &params(number)).unwrap();
            assert_eq!(body["rows"], expected, "page {number}");
            assert_eq!(body["meta"]["next_page"], next, "page {number}");
            assert_eq!(body["meta"]["prev_page"], prev, "page {number}");
            assert_eq!(body["meta"]["total_count"], 5);
            assert_eq!(body["meta"]["total_pages"], 3);
        }
    }
}
