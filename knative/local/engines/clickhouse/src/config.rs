//! The environment, read once. Reading it opens nothing.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Path of libchdb.so.
pub const LIB: &str = "OPENMETER_CLICKHOUSE_LIB";
/// Folder that holds the tables.
pub const DATA: &str = "OPENMETER_CLICKHOUSE_DATA";
/// Address to listen on.
pub const LISTEN: &str = "OPENMETER_CLICKHOUSE_LISTEN";
/// `name:password` of the user who may only read.
pub const READONLY_USER: &str = "OPENMETER_CLICKHOUSE_READONLY_USER";

/// Everything that the operator decides.
#[derive(Debug, PartialEq)]
pub struct Config {
    /// Where the library lies.
    pub library: PathBuf,
    /// Where the tables lie; made if absent.
    pub data: PathBuf,
    /// Where to listen; port 0 takes a free one, named in the start-up line.
    pub listen: SocketAddr,
    /// The user who may only read, if there is one.
    pub read_only_user: Option<Credentials>,
}

/// A name and a password. Its `Debug` does not print the password.
#[derive(Clone, PartialEq)]
pub struct Credentials {
    /// The user's name.
    pub name: String,
    /// The user's password, never empty.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ...)", self.name)
    }
}

/// Every variable that is missing or cannot be read, together.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("bad configuration:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the variables of this process.
    ///
    /// # Errors
    /// Names every variable that is wrong, not only the first.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads variables from any source, so that tests need no environment.
    ///
    /// # Errors
    /// Names every variable that is wrong, not only the first.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let given = |name: &str| lookup(name).filter(|value| !value.is_empty());

        let mut folder = |name: &str, what: &str| match given(name) {
            Some(path) => PathBuf::from(path),
            None => {
                mistakes.push(format!("{name} is not set: it takes {what}"));
                PathBuf::new()
            }
        };
        let library = folder(LIB, "the path of libchdb.so");
        let data = folder(DATA, "the folder for the tables");

        let listen = given(LISTEN).map_or(Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 8123))), |text| {
            text.parse().map_err(|_| {
                format!("{LISTEN} is {text:?}: it takes an address and a port such as 127.0.0.1:8123")
            })
        });
        let read_only_user = given(READONLY_USER)
            .map(|text| Credentials::parse(&text))
            .transpose();

        match (listen, read_only_user) {
            (Ok(listen), Ok(read_only_user)) if mistakes.is_empty() => Ok(Self {
                library,
                data,
                listen,
                read_only_user,
            }),
            (listen, user) => {
                mistakes.extend(listen.err());
                mistakes.extend(user.err());
                Err(ConfigError(mistakes))
            }
        }
    }
}

impl Credentials {
    /// The message leaves the value out, since it may hold a password.
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("default", _)) => Err(format!("{READONLY_USER} names `default`, who may write")),
            Some((name, password)) if !name.is_empty() && !password.is_empty() => Ok(Self {
                name: name.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err(format!(
                "{READONLY_USER} takes name:password, neither of them empty"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_address_defaults_to_clickhouses_own_port_on_loopback() {
        let config = config(&[(LIB, "/lib.so"), (DATA, "/data")]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8123");
        assert_eq!(config.read_only_user, None);
    }

    #[test]
    fn every_mistake_is_listed_at_once() {
        let ConfigError(mistakes) =
            config(&[(LISTEN, "here"), (READONLY_USER, "grafana:")]).unwrap_err();
        let named: Vec<_> = [LIB, DATA, LISTEN, READONLY_USER]
            .iter()
            .filter(|name| mistakes.iter().any(|mistake| mistake.starts_with(**name)))
            .collect();
        assert_eq!((named.len(), mistakes.len()), (4, 4), "{mistakes:?}");
    }

    #[test]
    fn a_password_may_hold_colons_and_is_never_printed() {
        let config = config(&[(LIB, "l"), (DATA, "d"), (READONLY_USER, "grafana:a:b")]).unwrap();
        assert_eq!(config.read_only_user.as_ref().unwrap().password, "a:b");
        assert!(!format!("{config:?}").contains("a:b"));
    }
}
