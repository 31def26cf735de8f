//! What can go wrong with the store, and whether asking again can help.

use std::time::Duration;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server could not be reached, or the connection broke.
    #[error("{what}: no connection to clickhouse")]
    Unreachable {
        /// What was asked.
        what: &'static str,
        /// What the connection said.
        #[source]
        source: clickhouse::error::Error,
    },
    /// No answer came in time. What was asked may have been done all the same.
    #[error("{what}: no answer from clickhouse within {after:?}")]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The server answered with an error.
    #[error("{what}: clickhouse refused: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// ClickHouse's number for the error; `None` if it gave none.
        code: Option<u32>,
        /// What it said, cut: it goes into logs, answers and headers.
        message: String,
    },
    /// The answer is not what the schema promises.
    #[error("{what}: unexpected answer from clickhouse")]
    Unreadable {
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Codes that blame the rows themselves: the same rows fail again.
///
/// Everything else can pass and must not cost an event: too many parts, memory, a table
/// that is still to be made, a server that is older than our statements, a password that
/// an operator corrects, a body that broke off on its way (which reads as bad data).
const OF_THE_ROWS: &[u32] = &[
    6,   // CANNOT_PARSE_TEXT
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    128, // TOO_LARGE_ARRAY_SIZE
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    407, // DECIMAL_OVERFLOW
    469, // VIOLATED_CONSTRAINT
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

/// How much is told of what ClickHouse says.
const TOLD_CHARS: usize = 500;

/// What ClickHouse quotes the refused rows after: subjects and data of events.
const QUOTES: &str = "Column values";

impl StoreError {
    /// Returns whether the same request can succeed later: whether it was not the rows
    /// that ClickHouse refused.
    pub fn is_retryable(&self) -> bool {
        self.code().is_none_or(|code| !OF_THE_ROWS.contains(&code))
    }

    /// Returns the error of doing `what`, which may take as long as `limit`.
    pub(crate) fn of(what: &'static str, limit: Duration, error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        match error {
            source @ Error::Network(_) => Self::Unreachable { what, source },
            Error::TimedOut => Self::TimedOut { what, after: limit },
            Error::BadResponse(message) => Self::Refused {
                what,
                code: code_of(&message),
                message: told(&message),
            },
            source => Self::unreadable(what, source),
        }
    }

    pub(crate) fn unreadable(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable {
            what,
            source: source.into(),
        }
    }

    /// Returns ClickHouse's number for the error, if it was ClickHouse's.
    pub(crate) fn code(&self) -> Option<u32> {
        match self {
            Self::Refused { code, .. } => *code,
            _ => None,
        }
    }
}

/// Returns what ClickHouse said, without what it quotes of the rows.
fn told(message: &str) -> String {
    let told = message.split(QUOTES).next().unwrap_or_default();
    told.trim_end().chars().take(TOLD_CHARS).collect()
}

/// Reads the number in `Code: 252. DB::Exception: ...`.
fn code_of(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("Code: ")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use clickhouse::error::Error;

    use super::*;

    fn refused(message: &str) -> StoreError {
        StoreError::of("insert", Duration::ZERO, Error::BadResponse(message.into()))
    }

    #[test]
    fn only_a_fault_of_the_rows_is_permanent() {
        for (error, retryable) in [
            (refused("Code: 252. DB::Exception: Too many parts"), true),
            (
                refused("Code: 241. DB::Exception: Memory limit exceeded"),
                true,
            ),
            (refused("Code: 60. DB::Exception: Unknown table"), true),
            (refused("503 Service Unavailable"), true),
            (
                refused("Code: 33. DB::Exception: Cannot read all data"),
                true,
            ),
            (refused("Code: 62. DB::Exception: Syntax error"), true),
            (refused("Code: 407. DB::Exception: Decimal overflow"), false),
            (refused("Code: 131. DB::Exception: Too large string"), false),
            (
                StoreError::of("insert", Duration::ZERO, Error::Network("gone".into())),
                true,
            ),
            (
                StoreError::of("insert", Duration::ZERO, Error::TimedOut),
                true,
            ),
            (
                StoreError::of("query", Duration::ZERO, Error::NotEnoughData),
                true,
            ),
        ] {
            assert_eq!(error.is_retryable(), retryable, "{error}");
        }
    }

    #[test]
    fn what_is_told_quotes_no_row_and_is_short() {
        let said = "Code: 469. DB::Exception: Constraint `c` is violated at row 1. \
            Expression: (value < 1). Column values: subject = 'tpp-secret'. (VIOLATED_CONSTRAINT)";
        let error = refused(said);
        assert_eq!(error.code(), Some(469));
        assert!(error.to_string().contains("(value < 1)"), "{error}");
        assert!(
            !format!("{error} {error:?}").contains("secret"),
            "{error:?}"
        );
        assert!(refused(&"x".repeat(10_000)).to_string().len() < 600);
    }
}
