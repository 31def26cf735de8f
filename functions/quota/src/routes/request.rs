//! What is asked, read and bounded; a refusal names the field.

use axum::{
    body::Bytes,
    extract::{
        Path,
        rejection::{BytesRejection, PathRejection},
    },
};
use model::Credits;
use runtime::Problem;
use serde::de::DeserializeOwned;

/// Bytes of a subject, and of a name that a caller gives: both are kept.
pub(super) const MOST_SUBJECT: usize = 1024;
pub(super) const MOST_KEY: usize = 255;

pub(super) type SubjectPath = Result<Path<String>, PathRejection>;
pub(super) type HoldPath = Result<Path<(String, String)>, PathRejection>;
pub(super) type Body = Result<Bytes, BytesRejection>;

pub(super) fn subject_of(path: SubjectPath) -> Result<String, Problem> {
    let Path(subject) = path?;
    bounded("subject", &subject, MOST_SUBJECT)?;
    Ok(subject)
}

pub(super) fn hold_of(path: HoldPath) -> Result<(String, String), Problem> {
    let Path((subject, hold)) = path?;
    bounded("subject", &subject, MOST_SUBJECT)?;
    bounded("hold", &hold, MOST_KEY)?;
    Ok((subject, hold))
}

pub(super) fn bounded(field: &str, text: &str, most: usize) -> Result<(), Problem> {
    if text.is_empty() || text.len() > most {
        return Err(invalid(field, &format!("must have 1 to {most} bytes")));
    }
    Ok(())
}

/// Reads JSON, whatever it is said to be; a mistake names its field.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        match field.as_str() {
            "." => Problem::bad_request(error.inner().to_string()),
            field => invalid(field, &error.inner().to_string()),
        }
    })
}

/// Reads credits that are not below zero.
pub(super) fn amount(text: &str) -> Result<Credits, String> {
    match text.parse::<Credits>() {
        Ok(amount) if amount < Credits::ZERO => Err("must not be below 0".to_owned()),
        Ok(amount) => Ok(amount),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn invalid(field: &str, wrong: &str) -> Problem {
    Problem::bad_request(format!("{field}: {wrong}")).with_error(
        "invalid",
        wrong,
        Some(field),
        None,
    )
}
