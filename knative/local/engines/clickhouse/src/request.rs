//! One HTTP request taken apart: who sends it, what it sets, and its SQL.

use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use bytes::Bytes;
use futures::StreamExt;
use uuid::Uuid;

use crate::auth::Claim;
use crate::exception::{self, Exception};
use crate::native::Decoder;

/// The most that a statement may be long. Data of an INSERT does not count, nor
/// does it replace the engine's own `max_query_size`.
const LONGEST_STATEMENT: usize = 64 << 20;

/// Everything a request says except its body.
#[derive(Debug, PartialEq)]
pub struct Call {
    /// Who sends it.
    pub claim: Claim,
    /// SQL from the URL or the form; a body follows it.
    pub query: Option<String>,
    /// GET never writes.
    pub is_get: bool,
    /// The database that bare names belong to.
    pub database: Option<String>,
    /// The output's format where the SQL names none.
    pub default_format: String,
    /// Values for `{name:Type}` in the SQL.
    pub params: Vec<(String, String)>,
    /// Settings of the engine.
    pub settings: Vec<(String, String)>,
    /// Answer in ClickHouse's blocks.
    pub compress: bool,
    /// The body comes in ClickHouse's blocks.
    pub decompress: bool,
    /// Answer only when the statement has ended.
    pub wait_end_of_query: bool,
    /// Echoed; the engine does not know it.
    pub query_id: String,
}

impl Call {
    /// Reads the head of a request.
    ///
    /// # Errors
    /// A header that cannot be understood.
    pub fn read(parts: &Parts) -> Result<Self, Exception> {
        let header = |name: &str| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let mut call = Self {
            claim: Claim::Token(String::new()),
            query: None,
            is_get: parts.method != Method::POST,
            database: header("x-clickhouse-database"),
            default_format: header("x-clickhouse-format")
                .unwrap_or_else(|| "TabSeparated".to_owned()),
            params: Vec::new(),
            settings: Vec::new(),
            compress: false,
            decompress: false,
            wait_end_of_query: false,
            query_id: Uuid::new_v4().to_string(),
        };
        let (mut user, mut password) = (None, None);
        let url = parts.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(url.as_bytes()) {
            match &*name {
                "user" => user = Some(value.into_owned()),
                "password" => password = Some(value.into_owned()),
                _ => call.set(&name, value.into_owned()),
            }
        }
        call.claim = Claim::read(&parts.headers, user, password)?;
        Ok(call)
    }

    fn set(&mut self, name: &str, value: String) {
        let is_on = value != "0" && value != "false";
        match name {
            "query" => self.query = Some(value),
            "database" => self.database = Some(value).filter(|name| !name.is_empty()),
            "default_format" => self.default_format = value,
            "compress" => self.compress = is_on,
            "decompress" => self.decompress = is_on,
            "wait_end_of_query" => self.wait_end_of_query = is_on,
            "query_id" => self.query_id = value,
            // Taken and of no effect here: sessions, roles, quotas, buffers and
            // HTTP's own compression.
            "session_id"
            | "session_timeout"
            | "session_check"
            | "role"
            | "quota_key"
            | "stacktrace"
            | "buffer_size"
            | "client_protocol_version"
            | "enable_http_compression"
            | "close_session" => {}
            _ => match name.strip_prefix("param_") {
                Some(param) => self.params.push((param.to_owned(), value)),
                None => self.settings.push((name.to_owned(), value)),
            },
        }
    }

    /// Reads `multipart/form-data`, whose parts are parameters like those of the URL.
    ///
    /// # Errors
    /// A broken form, or a file in it: external tables are not done here.
    pub async fn read_form(&mut self, request: Request) -> Result<(), Exception> {
        let broken = |error: &dyn std::fmt::Display| {
            Exception::new(
                exception::BAD_ARGUMENTS,
                format!("Cannot read the form: {error}"),
            )
        };
        let mut form = Multipart::from_request(request, &())
            .await
            .map_err(|error| broken(&error.body_text()))?;
        let mut length = 0;
        while let Some(mut field) = form
            .next_field()
            .await
            .map_err(|error| broken(&error.body_text()))?
        {
            let name = field.name().unwrap_or_default().to_owned();
            if field.file_name().is_some() {
                return Err(Exception::new(
                    exception::NOT_IMPLEMENTED,
                    format!("External table {name}: not supported"),
                ));
            }
            let mut value = Vec::new();
            while let Some(chunk) = field
                .chunk()
                .await
                .map_err(|error| broken(&error.body_text()))?
            {
                length += chunk.len();
                if length > LONGEST_STATEMENT {
                    return Err(too_long());
                }
                value.extend_from_slice(&chunk);
            }
            self.set(
                &name,
                String::from_utf8(value).map_err(|error| broken(&error))?,
            );
        }
        Ok(())
    }
}

/// Whether the body is a form.
pub fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .to_ascii_lowercase()
                .starts_with("multipart/form-data")
        })
}

/// A request's body, unpacked piece by piece.
pub struct Plain {
    stream: axum::body::BodyDataStream,
    decoder: Option<Decoder>,
}

impl Plain {
    /// # Errors
    /// The body is packed in a way that is not done here.
    pub fn new(headers: &HeaderMap, body: Body, decompress: bool) -> Result<Self, Exception> {
        match headers.get(CONTENT_ENCODING) {
            Some(encoding) if encoding != "identity" => Err(Exception::new(
                exception::NOT_IMPLEMENTED,
                format!("Content-Encoding {encoding:?}: not supported, use decompress=1"),
            )),
            _ => Ok(Self {
                stream: body.into_data_stream(),
                decoder: decompress.then(Decoder::default),
            }),
        }
    }

    /// The next piece, or `None` at a proper end.
    ///
    /// # Errors
    /// The body broke off, or is damaged.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Exception> {
        loop {
            if let Some(block) = self
                .decoder
                .as_mut()
                .map_or(Ok(None), Decoder::next_block)?
            {
                return Ok(Some(block));
            }
            let piece = match self.stream.next().await {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Err(broken_off(error)),
                None if self
                    .decoder
                    .as_ref()
                    .is_some_and(|decoder| !decoder.is_at_rest()) =>
                {
                    return Err(broken_off("the last block is not complete"));
                }
                None => return Ok(None),
            };
            match &mut self.decoder {
                Some(decoder) => decoder.push(&piece),
                None if piece.is_empty() => {}
                None => return Ok(Some(piece)),
            }
        }
    }

    /// Appends pieces to `text` until it is `enough` long; true if the body ended.
    ///
    /// # Errors
    /// The body broke off, or is damaged.
    pub async fn fill(&mut self, text: &mut Vec<u8>, enough: usize) -> Result<bool, Exception> {
        while text.len() < enough {
            match self.next().await? {
                Some(piece) => text.extend_from_slice(&piece),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Appends everything that is left.
    ///
    /// # Errors
    /// The body broke off, is damaged, or longer than any statement.
    pub async fn read_statement(&mut self, text: &mut Vec<u8>) -> Result<(), Exception> {
        match self.fill(text, LONGEST_STATEMENT).await? {
            true => Ok(()),
            false => Err(too_long()),
        }
    }

    /// Reads what is left and forgets it, so that a client still sending comes
    /// to read the answer.
    pub async fn drain(&mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

fn broken_off(error: impl std::fmt::Display) -> Exception {
    Exception::new(
        exception::CANNOT_READ_ALL_DATA,
        format!("Cannot read the request's body: {error}"),
    )
}

fn too_long() -> Exception {
    Exception::new(
        exception::QUERY_IS_TOO_LARGE,
        format!("Statement longer than {LONGEST_STATEMENT} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, url: &str) -> Call {
        let (parts, ()) = axum::http::Request::builder()
            .method(method)
            .uri(url)
            .body(())
            .unwrap()
            .into_parts();
        Call::read(&parts).unwrap()
    }

    #[test]
    fn a_url_is_sorted_into_query_parameters_and_settings() {
        let call = call(
            Method::POST,
            "/?query=SELECT+%7Bx%3AUInt8%7D&param_x=1&database=o&default_format=JSON&compress=1&decompress=0\
             &wait_end_of_query=1&query_id=q&max_threads=2&session_id=s&user=a&password=b",
        );
        assert_eq!(call.query.as_deref(), Some("SELECT {x:UInt8}"));
        assert_eq!(call.params, [("x".to_owned(), "1".to_owned())]);
        assert_eq!(call.settings, [("max_threads".to_owned(), "2".to_owned())]);
        assert_eq!(call.claim, Claim::Password("a".to_owned(), "b".to_owned()));
        assert_eq!(
            (
                call.database.as_deref(),
                call.default_format.as_str(),
                call.query_id.as_str()
            ),
            (Some("o"), "JSON", "q")
        );
        assert!(call.compress && !call.decompress && call.wait_end_of_query && !call.is_get);
    }

    #[test]
    fn a_bare_request_is_the_default_user_and_tab_separated() {
        let call = call(Method::GET, "/");
        assert_eq!(
            call.claim,
            Claim::Password("default".to_owned(), String::new())
        );
        assert_eq!(
            (call.default_format.as_str(), call.is_get),
            ("TabSeparated", true)
        );
    }
}
