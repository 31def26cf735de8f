//! Who asks, and whether that user may write.
//!
//! The engine knows no users of its own, so they live here: `default`, with an
//! empty password and full rights, and at most one more who may only read.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::config::Credentials;
use crate::exception::{self, Exception};

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rights {
    /// Everything.
    Full,
    /// SELECT, SHOW, DESCRIBE, EXISTS and EXPLAIN on tables.
    ReadOnly,
}

/// The users there are.
#[derive(Debug, Clone)]
pub struct Users {
    read_only: Option<Credentials>,
}

/// What a request says of its sender.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// A name and a password; nothing said is `default` with an empty password.
    Password(String, String),
    /// `Authorization: Bearer`.
    Token(String),
}

impl Claim {
    /// Reads headers and URL parameters; headers win, as in ClickHouse.
    ///
    /// # Errors
    /// An Authorization header that is neither Basic nor Bearer.
    pub fn read(
        headers: &HeaderMap,
        user: Option<String>,
        password: Option<String>,
    ) -> Result<Self, Exception> {
        let header = |name: &str| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        if let Some(authorization) = header(AUTHORIZATION.as_str()) {
            return Self::authorization(&authorization).ok_or_else(|| {
                Exception::new(
                    exception::AUTHENTICATION_FAILED,
                    "Invalid authentication: Authorization takes Basic or Bearer",
                )
            });
        }
        let name = header("x-clickhouse-user")
            .or(user)
            .filter(|name| !name.is_empty());
        let password = header("x-clickhouse-key").or(password);
        Ok(Self::Password(
            name.unwrap_or_else(|| "default".to_owned()),
            password.unwrap_or_default(),
        ))
    }

    fn authorization(value: &str) -> Option<Self> {
        let (scheme, rest) = value.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Token(rest.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Self::Password(name.to_owned(), password.to_owned()))
    }
}

impl Users {
    /// `default`, and the user who may only read if there is one.
    pub fn new(read_only: Option<Credentials>) -> Self {
        Self { read_only }
    }

    /// Decides what the sender may do. A token stands for the user whose
    /// password it is, since no other secret is known here.
    ///
    /// # Errors
    /// Nobody has these credentials.
    pub fn rights(&self, claim: &Claim) -> Result<Rights, Exception> {
        let reader = self.read_only.as_ref();
        match claim {
            Claim::Password(name, password) if name == "default" && password.is_empty() => {
                Ok(Rights::Full)
            }
            Claim::Password(name, password)
                if reader.is_some_and(|user| user.name == *name && user.password == *password) =>
            {
                Ok(Rights::ReadOnly)
            }
            Claim::Token(token) if reader.is_some_and(|user| user.password == *token) => {
                Ok(Rights::ReadOnly)
            }
            Claim::Password(name, _) => Err(Exception::new(
                exception::AUTHENTICATION_FAILED,
                format!(
                    "{name}: Authentication failed: password is incorrect, or there is no user with such name."
                ),
            )),
            Claim::Token(_) => Err(Exception::new(
                exception::AUTHENTICATION_FAILED,
                "Authentication failed: no user has this token.",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users::new(Some(Credentials {
            name: "grafana".to_owned(),
            password: "secret".to_owned(),
        }))
    }

    fn rights(
        headers: &[(&'static str, &str)],
        user: Option<&str>,
        password: Option<&str>,
    ) -> Option<Rights> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let claim = Claim::read(
            &headers,
            user.map(str::to_owned),
            password.map(str::to_owned),
        )
        .ok()?;
        users().rights(&claim).ok()
    }

    /// Headers, the URL's user and password, and what they give.
    type Case = (
        &'static [(&'static str, &'static str)],
        Option<&'static str>,
        Option<&'static str>,
        Option<Rights>,
    );

    #[test]
    fn every_way_to_name_a_user_is_understood() {
        let reader = Some(Rights::ReadOnly);
        let cases: &[Case] = &[
            (&[], None, None, Some(Rights::Full)),
            (&[], Some("default"), Some(""), Some(Rights::Full)),
            (&[], Some("grafana"), Some("secret"), reader),
            (
                &[
                    ("x-clickhouse-user", "grafana"),
                    ("x-clickhouse-key", "secret"),
                ],
                None,
                None,
                reader,
            ),
            (
                &[("x-clickhouse-user", "default")],
                Some("grafana"),
                None,
                Some(Rights::Full),
            ),
            (
                &[("authorization", "Basic Z3JhZmFuYTpzZWNyZXQ=")],
                None,
                None,
                reader,
            ),
            (&[("authorization", "Bearer secret")], None, None, reader),
            (&[("authorization", "Bearer other")], None, None, None),
            (&[("authorization", "Bearer ")], None, None, None),
            (&[("authorization", "Digest x")], None, None, None),
            (&[("authorization", "Basic !!!")], None, None, None),
            (&[], Some("default"), Some("x"), None),
            (&[], Some("grafana"), None, None),
            (&[], Some("nobody"), None, None),
        ];
        for (headers, user, password, expected) in cases {
            assert_eq!(
                rights(headers, *user, *password),
                *expected,
                "{headers:?} {user:?} {password:?}"
            );
        }
    }
}
