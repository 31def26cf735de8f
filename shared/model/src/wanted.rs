//! How a shared crate is configured without knowing where settings come from.

use std::fmt;

/// One setting that a shared crate wants from whoever uses it.
///
/// A crate's configuration hands each of these to its caller, who looks the name up and,
/// if it is set, gives its text to `read`. So names, defaults and rules stand once, in the
/// crate that they are about, and mistakes are collected where the environment is known.
pub struct WantedSetting<'a> {
    /// Name in the environment.
    pub name: &'static str,
    /// What it is, with its default in parentheses.
    pub description: &'static str,
    /// Whether its text must never be printed.
    pub secret: bool,
    /// Takes the text if the setting is there, or says what is wrong with it.
    pub read: &'a mut dyn FnMut(&str) -> Result<(), String>,
}

impl fmt::Debug for WantedSetting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WantedSetting")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A password, which does not print.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Returns the password `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_print() {
        assert_eq!(format!("{:?}", Password::new("secret")), "***");
    }
}
