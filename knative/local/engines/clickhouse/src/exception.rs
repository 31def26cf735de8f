//! Errors as ClickHouse words them: `Code: N. DB::Exception: ...`, and the HTTP
//! status that goes with the code.

use axum::http::StatusCode;

use crate::chdb::EngineError;

/// The text or the use of a parameter is wrong.
pub const BAD_ARGUMENTS: u32 = 36;
/// Something is not done by this engine.
pub const NOT_IMPLEMENTED: u32 = 48;
/// Ours to mend.
pub const LOGICAL_ERROR: u32 = 49;
/// The statement cannot be parsed, or is more than one.
pub const SYNTAX_ERROR: u32 = 62;
/// The request's body broke off.
pub const CANNOT_READ_ALL_DATA: u32 = 33;
/// The sender may only read.
pub const READONLY: u32 = 164;
/// The statement is too long to be held.
pub const QUERY_IS_TOO_LARGE: u32 = 229;
/// A compressed block is damaged.
pub const CANNOT_DECOMPRESS: u32 = 271;
/// A compressed block is damaged, as its checksum says.
pub const CHECKSUM_DOESNT_MATCH: u32 = 40;
/// Nobody has these credentials.
pub const AUTHENTICATION_FAILED: u32 = 516;

/// An error for the client.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Exception {
    /// ClickHouse's number for it.
    pub code: u32,
    /// The whole text, from `Code:` on.
    pub message: String,
}

impl Exception {
    /// Words an error of our own in ClickHouse's way.
    pub fn new(code: u32, text: impl std::fmt::Display) -> Self {
        Self {
            code,
            message: format!("Code: {code}. DB::Exception: {text} ({})", name(code)),
        }
    }

    /// The status that ClickHouse answers for this code.
    pub fn status(&self) -> StatusCode {
        match self.code {
            // Text, numbers, dates, types, arguments and syntax that cannot be read.
            6 | 25 | 26 | 27 | 33 | 34 | 36 | 38 | 41 | 42 | 43 | 44 | 53 | 62 | 69 | 70 | 72
            | 117 | 130 | 131 | 271 | 321 | 386 | 441 | 456 | 457 | 467 => StatusCode::BAD_REQUEST,
            // A column, table, database, function, type, format or setting that is not there.
            16 | 46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 336 => StatusCode::NOT_FOUND,
            159 => StatusCode::REQUEST_TIMEOUT,
            192 | 193 | 497 | AUTHENTICATION_FAILED => StatusCode::FORBIDDEN,
            194 => StatusCode::UNAUTHORIZED,
            QUERY_IS_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            NOT_IMPLEMENTED => StatusCode::NOT_IMPLEMENTED,
            202 | 209 | 210 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<EngineError> for Exception {
    fn from(EngineError(message): EngineError) -> Self {
        let code = message
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(code, _)| code.parse().ok());
        match code {
            Some(code) => Self { code, message },
            None => Self::new(LOGICAL_ERROR, message),
        }
    }
}

fn name(code: u32) -> &'static str {
    match code {
        BAD_ARGUMENTS => "BAD_ARGUMENTS",
        NOT_IMPLEMENTED => "NOT_IMPLEMENTED",
        SYNTAX_ERROR => "SYNTAX_ERROR",
        CANNOT_READ_ALL_DATA => "CANNOT_READ_ALL_DATA",
        READONLY => "READONLY",
        QUERY_IS_TOO_LARGE => "QUERY_IS_TOO_LARGE",
        CANNOT_DECOMPRESS => "CANNOT_DECOMPRESS",
        CHECKSUM_DOESNT_MATCH => "CHECKSUM_DOESNT_MATCH",
        AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
        _ => "LOGICAL_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_code_is_kept_and_gives_the_status() {
        let cases = [
            ("Code: 60. DB::Exception: no. (UNKNOWN_TABLE)", 60, 404),
            ("Code: 62. DB::Exception: no. (SYNTAX_ERROR)", 62, 400),
            (
                "Code: 159. DB::Exception: late. (TIMEOUT_EXCEEDED)",
                159,
                408,
            ),
            (
                "Code: 241. DB::Exception: full. (MEMORY_LIMIT_EXCEEDED)",
                241,
                500,
            ),
        ];
        for (text, code, status) in cases {
            let exception = Exception::from(EngineError(text.to_owned()));
            assert_eq!(
                (exception.code, exception.status().as_u16()),
                (code, status),
                "{text}"
            );
            assert_eq!(exception.message, text);
        }
    }

    #[test]
    fn text_without_a_code_gets_one() {
        let exception = Exception::from(EngineError("No active streaming query".to_owned()));
        assert_eq!(
            exception.message,
            "Code: 49. DB::Exception: No active streaming query (LOGICAL_ERROR)"
        );
    }
}
