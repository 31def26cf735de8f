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

/// The row in a README's table, so that a test can look for it there.
impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, description, ..
        } = self;
        match &self.unset {
            Unset::Refused => write!(f, "| `{name}` | required | {description} |"),
            Unset::Nothing => write!(f, "| `{name}` | | {description} |"),
            Unset::Default(text) => write!(f, "| `{name}` | `{text}` | {description} |"),
        }
    }
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

    /// Gives a shared crate the setting that it wants, if it is there.
    pub fn give(&self, wanted: model::WantedSetting<'_>) {
        self.optional_with(wanted.name, wanted.description, wanted.read, wanted.secret);
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
            // A URL or an address that cannot be read may still hold a password before the `@`.
            Err(wrong) if secret || text.contains('@') => {
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

#[cfg(test)]
mod tests {
    use std::{os::unix::ffi::OsStringExt as _, time::Duration};

    use url::Url;

    use super::*;
    use crate::Secret;

    #[test]
    fn a_blank_variable_counts_as_unset() {
        let env = Env::from_pairs([("A", ""), ("B", " \n")]);
        assert_eq!(env.optional::<u16>("A", ""), None);
        assert_eq!(env.or("B", "default".to_string(), ""), "default");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let env = Env::from_pairs([
            ("COUNT", "many"),
            ("BROKER", "  "),
            ("PORT", "http"),
            ("OPENMETER_TRIGGER", "push"),
            ("OPENMETER_LOG", "a=b=c"),
        ]);
        let broker = env.required::<String>("BROKER", "");
        let count = env.or("COUNT", 5_u32, "");
        assert_eq!(count, 5);
        env.mistake("A, B", "exclude each other");
        let error = env.finish(|| broker).unwrap_err();
        let names: Vec<&str> = error.mistakes().iter().map(|one| &*one.name).collect();
        assert_eq!(
            names,
            [
                "BROKER",
                "COUNT",
                "A, B",
                "OPENMETER_LOG",
                "PORT",
                "OPENMETER_TRIGGER"
            ]
        );
        assert!(error.to_string().starts_with(
            "BROKER: is required\n\
             COUNT: is not a whole number from 0 to 4294967295 (got \"many\")\n\
             A, B: exclude each other\n"
        ));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let env = Env::from_pairs([
            ("PIN", "hunter2"),
            ("STORE", "//me:hunter2@store"),
            ("TOKEN", "hunter2"),
        ]);
        let pin = env.optional::<Secret<u32>>("PIN", "");
        let store = env.optional::<Url>("STORE", "");
        let token = env.required::<Secret>("TOKEN", "").unwrap();
        assert_eq!(token.expose(), "hunter2");
        let report = env.finish(|| pin.zip(store)).unwrap_err();
        assert_eq!(
            report.to_string(),
            "PIN: is not a whole number from 0 to 4294967295 (value hidden)\n\
             STORE: is not a URL: relative URL without a base (value hidden)"
        );
        let printed = format!("{report:?} {env:?} {token} {token:?} {:?}", env.variables());
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn text_that_is_no_utf_8_is_a_mistake() {
        let env = Env::from_pairs([("X", OsString::from_vec(vec![0xff]))]);
        let value = env.optional::<String>("X", "");
        let error = env.finish(|| value).unwrap_err();
        assert_eq!(error.to_string(), "X: is not UTF-8 text");
    }

    #[test]
    fn a_part_that_is_missing_for_no_reason_is_an_error_and_no_panic() {
        let env = Env::from_pairs::<&str, &str>([]);
        assert!(env.finish(|| None::<()>).is_err());
    }

    #[test]
    fn a_type_of_another_crate_is_read_by_its_own_function() {
        let env = Env::from_pairs([("X", "0x1f"), ("Y", "31")]);
        let parse = |text: &str| {
            let digits = text.strip_prefix("0x").ok_or("has no 0x")?;
            u8::from_str_radix(digits, 16).map_err(|error| error.to_string())
        };
        assert_eq!(env.optional_with("X", "", parse, false), Some(31));
        assert_eq!(env.optional_with("Y", "", parse, false), None);
        let error = env.finish(|| Some(())).unwrap_err();
        assert_eq!(error.to_string(), "Y: has no 0x (got \"31\")");
    }

    #[test]
    fn what_was_asked_for_is_listed_once_with_its_default() {
        let env = Env::from_pairs([("LINGER", "5s")]);
        let broker = env.required::<String>("BROKER", "brokers");
        env.or("LINGER", Duration::from_millis(5), "wait");
        env.or("LINGER", Duration::from_millis(5), "wait");
        env.optional::<Secret>("TOKEN", "token");
        assert!(env.finish(|| broker).is_err());
        let rows: Vec<String> = env.variables().iter().map(Variable::to_string).collect();
        assert_eq!(
            rows,
            [
                "| `BROKER` | required | brokers |",
                "| `LINGER` | `5ms` | wait |",
                "| `TOKEN` | | token |",
                "| `RUST_LOG` | `info` | what is logged, if OPENMETER_LOG is unset |",
                "| `OPENMETER_LOG` | | what is logged: info, or warn,process=debug |",
                "| `PORT` | `8080` | port to listen on; set by Knative |",
                "| `OPENMETER_TRIGGER` | `http` | where events come from: http, or kafka for a \
                 consumer group |",
                "| `OPENMETER_DRAIN_TIMEOUT` | `25s` | how long requests in flight are waited \
                 for at the end |",
            ]
        );
    }
}
