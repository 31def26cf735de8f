//! Settings from the environment: typed, and wrong only once.
//!
//! A getter that meets a mistake writes it down and goes on, so an operator sees every wrong
//! variable in one go. A function's configuration then reads:
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use runtime::{ConfigError, Env, Secret};
//!
//! struct Config {
//!     brokers: Vec<String>,
//!     in_flight: NonZeroUsize,
//!     linger: Duration,
//!     password: Option<Secret>,
//! }
//!
//! impl Config {
//!     fn from_env(env: &Env) -> Result<Self, ConfigError> {
//!         let brokers = env.required("KAFKA_BROKER", "brokers, host:port, comma separated");
//!         let in_flight = env.or("IN_FLIGHT", NonZeroUsize::MIN, "requests at a time");
//!         let linger = env.or("LINGER", Duration::from_millis(5), "wait for a fuller batch");
//!         let password = env.optional("KAFKA_PASSWORD", "SASL password");
//!         env.finish(|| Some(Config { brokers: brokers?, in_flight, linger, password }))
//!     }
//! }
//!
//! let env = Env::from_pairs([("KAFKA_BROKER", "a:9092, b:9092"), ("LINGER", "20ms")]);
//! let config = Config::from_env(&env).unwrap();
//! assert_eq!(config.brokers, ["a:9092", "b:9092"]);
//! assert_eq!(config.linger, Duration::from_millis(20));
//! assert!(config.password.is_none());
//! # assert_eq!(config.in_flight.get(), 1);
//! ```
//!
//! It is no configuration framework: no files, no layers, and nothing here writes a variable.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{serve::Settings, setting::Setting};

/// Reads typed settings and remembers what was asked for and what was wrong.
///
/// An empty or blank variable counts as unset. White space around a value is dropped: it comes
/// from a secret file's last newline far more often than from intent.
pub struct Env {
    lookup: Lookup,
    // A lock only so that getters can take `&self`; it is never held across a call out.
    notes: Mutex<Notes>,
}

type Lookup = Box<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

#[derive(Default)]
struct Notes {
    asked: Vec<Variable>,
    mistakes: Vec<Mistake>,
}

/// One variable that was asked for: a row of the README's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// What holds when it is unset.
    pub unset: Unset,
    /// What it is for, in a few words.
    pub description: &'static str,
}

/// What an unset variable means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unset {
    /// The function does not start.
    Refused,
    /// The function starts without the setting.
    Nothing,
    /// This value is taken, written as one would write it in the environment.
    Default(String),
}

/// One wrong variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Name in the environment.
    pub name: String,
    /// What is wrong with it, including the value unless that is a secret.
    pub wrong: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.wrong)
    }
}

/// Every mistake in the environment, at once. [`crate::main`] turns it into exit code 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.mistakes))]
pub struct ConfigError {
    mistakes: Vec<Mistake>,
}

impl ConfigError {
    /// Returns an error about one variable, for a check made after the environment was read.
    pub fn new(name: impl Into<String>, wrong: impl Into<String>) -> Self {
        let mistake = Mistake {
            name: name.into(),
            wrong: wrong.into(),
        };
        Self {
            mistakes: vec![mistake],
        }
    }

    /// Returns the mistakes in the order in which they were found.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    lines.join("\n")
}

impl Env {
    /// Returns the environment of this process.
    pub fn process() -> Self {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Returns an environment that holds exactly these variables.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<OsString>,
    {
        let pairs: HashMap<String, OsString> = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self::from_lookup(move |name| pairs.get(name).cloned())
    }

    /// Returns an environment that asks `lookup` for each variable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self {
            lookup: Box::new(lookup),
            notes: Mutex::default(),
        }
    }

    /// Returns a variable without which the function cannot start.
    ///
    /// `None` means that a mistake was written down; [`Env::finish`] then fails.
    pub fn required<T: Setting>(&self, name: &'static str, description: &'static str) -> Option<T> {
        self.note_asked(name, Unset::Refused, description);
        match self.read(name, T::parse, T::SECRET) {
            Read::Unset => {
                self.mistake(name, "is required");
                None
            }
            Read::Value(value) => Some(value),
            Read::Mistake => None,
        }
    }

    /// Returns a variable, or `default` where it is unset.
    ///
    /// A mistake also returns the default, so that the call site needs no case for it:
    /// [`Env::finish`] fails and the value is never used.
    pub fn or<T: Setting>(&self, name: &'static str, default: T, description: &'static str) -> T {
        self.note_asked(name, Unset::Default(default.show()), description);
        match self.read(name, T::parse, T::SECRET) {
            Read::Value(value) => value,
            Read::Unset | Read::Mistake => default,
        }
    }

    /// Returns a variable that may be unset.
    pub fn optional<T: Setting>(&self, name: &'static str, description: &'static str) -> Option<T> {
        self.optional_with(name, description, T::parse, T::SECRET)
    }

    /// Returns a variable that may be unset, read by `parse`, for a type of another crate.
    ///
    /// The error of `parse` is what is wrong with the value. `secret` keeps the value out of
    /// the report.
    pub fn optional_with<T>(
        &self,
        name: &'static str,
        description: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        secret: bool,
    ) -> Option<T> {
        self.note_asked(name, Unset::Nothing, description);
        match self.read(name, parse, secret) {
            Read::Value(value) => Some(value),
            Read::Unset | Read::Mistake => None,
        }
    }

    /// Writes down a mistake which only the caller can see, such as two settings that exclude
    /// each other.
    pub fn mistake(&self, name: impl Into<String>, wrong: impl Into<String>) {
        let mistake = Mistake {
            name: name.into(),
            wrong: wrong.into(),
        };
        let mut notes = self.notes();
        // Two parts of a configuration may ask for the same variable; one line is enough.
        if !notes.mistakes.contains(&mistake) {
            notes.mistakes.push(mistake);
        }
    }

    /// Returns what `build` makes of the settings, or every mistake that was made.
    ///
    /// `build` may use `?` on what [`Env::required`] returned: with no mistakes there is none
    /// missing. The settings which every function shares (PORT, OPENMETER_TRIGGER and so on)
    /// are read here too, so that they are in the same report. Parts of a configuration that
    /// share an `Env` return `Option` themselves; only the outermost one calls `finish`.
    pub fn finish<T>(&self, build: impl FnOnce() -> Option<T>) -> Result<T, ConfigError> {
        Settings::read(self);
        self.close(build)
    }

    pub(crate) fn close<T>(&self, build: impl FnOnce() -> Option<T>) -> Result<T, ConfigError> {
        let mistakes = std::mem::take(&mut self.notes().mistakes);
        if !mistakes.is_empty() {
            return Err(ConfigError { mistakes });
        }
        build().ok_or_else(|| {
            ConfigError::new(
                "configuration",
                "a required part was left out and not reported",
            )
        })
    }

    /// Returns every variable that was asked for so far, each once, in the order of asking.
    pub fn variables(&self) -> Vec<Variable> {
        self.notes().asked.clone()
    }

    fn read<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        secret: bool,
    ) -> Read<T> {
        let Some(raw) = (self.lookup)(name) else {
            return Read::Unset;
        };
        let Some(text) = raw.to_str() else {
            self.mistake(name, "is not UTF-8 text");
            return Read::Mistake;
        };
        let text = text.trim();
        if text.is_empty() {
            return Read::Unset;
        }
        match parse(text) {
            Ok(value) => Read::Value(value),
            Err(wrong) if secret => {
                self.mistake(name, format!("{wrong} (value hidden)"));
                Read::Mistake
            }
            Err(wrong) => {
                self.mistake(name, format!("{wrong} (got {text:?})"));
                Read::Mistake
            }
        }
    }

    fn note_asked(&self, name: &'static str, unset: Unset, description: &'static str) {
        let mut notes = self.notes();
        if notes.asked.iter().all(|variable| variable.name != name) {
            notes.asked.push(Variable {
                name,
                unset,
                description,
            });
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Notes are whole after every push, so a panic elsewhere cannot have left them half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The lookup may reach secrets, so only the names that were asked for are shown.
        let asked: Vec<&str> = self.notes().asked.iter().map(|asked| asked.name).collect();
        f.debug_struct("Env").field("asked", &asked).finish()
    }
}

enum Read<T> {
    Unset,
    Value(T),
    Mistake,
}
