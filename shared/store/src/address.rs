//! Where the store is and who asks: values that a configuration reads.

use std::{fmt, str::FromStr};

use url::Url;

/// ClickHouse's HTTP port.
const HTTP_PORT: u16 = 8123;

/// ClickHouse's native port, which the crate does not speak.
const NATIVE_PORT: u16 = 9000;

/// The HTTP interface of a ClickHouse server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: Url,
    was_native: bool,
}

/// Why a text is no [`Address`] or [`Database`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is neither a URL nor host:port.
    #[error("must be a URL such as http://host:8123, or host:port")]
    NotAnAddress,
    /// The URL carries what has a place of its own.
    #[error("must not carry user, password, path or query: they have settings of their own")]
    TooMuch,
    /// The name is none that can stand unquoted in SQL.
    #[error("must be a name of letters, digits and _, not beginning with a digit")]
    NotAName,
}

impl Address {
    /// Returns the URL of the HTTP interface.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns whether the native port was given and the HTTP port is asked instead.
    pub fn was_native(&self) -> bool {
        self.was_native
    }
}

impl Default for Address {
    fn default() -> Self {
        "127.0.0.1:8123".parse().expect("it is host:port")
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads a URL, or host:port. The native port 9000 is read as the HTTP port of
    /// the same host, since deployments know ClickHouse by that address.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let mut url = Url::parse(&with_scheme).map_err(|_| AddressError::NotAnAddress)?;
        let has_host = url.host_str().is_some_and(|host| !host.is_empty());
        if !matches!(url.scheme(), "http" | "https") || !has_host {
            return Err(AddressError::NotAnAddress);
        }
        let is_bare = url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none();
        if !is_bare {
            return Err(AddressError::TooMuch);
        }
        let was_native = url.port() == Some(NATIVE_PORT);
        // A URL means what it says; a bare host means ClickHouse's port, not the web's.
        if was_native || (!text.contains("://") && url.port().is_none()) {
            url.set_port(Some(HTTP_PORT))
                .map_err(|()| AddressError::NotAnAddress)?;
        }
        Ok(Self { url, was_native })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.url, f)
    }
}

/// The name of a database: it stands in SQL as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database(String);

impl Database {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Database {
    fn default() -> Self {
        Self("openmeter".to_owned())
    }
}

impl FromStr for Database {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut bytes = text.bytes();
        let begins = bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if begins && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            Ok(Self(text.to_owned()))
        } else {
            Err(AddressError::NotAName)
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_or_a_host_with_a_port() {
        for (text, expected) in [
            (
                "http://127.0.0.1:8123",
                Ok(("http://127.0.0.1:8123/", false)),
            ),
            (
                "clickhouse.databases.svc:9000",
                Ok(("http://clickhouse.databases.svc:8123/", true)),
            ),
            ("clickhouse:8124", Ok(("http://clickhouse:8124/", false))),
            ("clickhouse", Ok(("http://clickhouse:8123/", false))),
            (
                "https://clickhouse.example",
                Ok(("https://clickhouse.example/", false)),
            ),
            ("[::1]:9000", Ok(("http://[::1]:8123/", true))),
            ("tcp://clickhouse:9000", Err(AddressError::NotAnAddress)),
            ("", Err(AddressError::NotAnAddress)),
            (
                "http://user:secret@clickhouse:8123",
                Err(AddressError::TooMuch),
            ),
            (
                "http://clickhouse:8123/?database=x",
                Err(AddressError::TooMuch),
            ),
        ] {
            let address = text.parse::<Address>();
            let read = address
                .as_ref()
                .map(|address| (address.url().as_str(), address.was_native()));
            assert_eq!(read, expected.as_ref().map(|pair| *pair), "{text}");
        }
    }

    #[test]
    fn a_database_name_cannot_leave_its_place_in_sql() {
        assert!("openmeter_2".parse::<Database>().is_ok());
        for text in ["", "2open", "a-b", "a`b", "a.b", "a b", "ä"] {
            assert_eq!(
                text.parse::<Database>(),
                Err(AddressError::NotAName),
                "{text}"
            );
        }
    }
}
