//! A connection to Valkey that knows our functions.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Once},
    time::Duration,
};

use redis::{
    Client, Cmd, ErrorKind, Pipeline, RedisError, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

/// Where Valkey is.
#[derive(Clone)]
pub struct LedgerConfig {
    /// `redis://[user:password@]host:port[/db]`; never logged, since it may hold a password.
    pub url: String,
    /// What our keys begin with, so that several deployments can share a Valkey.
    pub prefix: String,
    /// How long one round trip may take.
    pub timeout: Duration,
}

/// What can go wrong with Valkey.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Valkey could not be reached or did not answer in time.
    #[error("valkey does not answer")]
    Unavailable(#[source] RedisError),
    /// Valkey refused what it was asked.
    #[error("valkey refused a command")]
    Refused(#[source] RedisError),
    /// The same key was used before, for something else.
    #[error("the idempotency key was used with another amount")]
    Conflict(#[source] RedisError),
    /// Valkey answered something that our functions never answer.
    #[error("valkey gave an unexpected answer to {0}")]
    Unexpected(&'static str),
    /// Valkey may throw keys away when memory runs out.
    #[error(
        "valkey's maxmemory-policy is {0}: it must be noeviction, or counted events would be forgotten"
    )]
    Evicts(String),
}

impl LedgerError {
    /// Returns whether the same request can succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<RedisError> for LedgerError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("CONFLICT") => return Self::Conflict(error),
            // What our own functions say of arguments, and Valkey of a key that is none of ours.
            Some("INVALID" | "WRONGTYPE") => return Self::Refused(error),
            _ => {}
        }
        let refused = matches!(
            error.kind(),
            ErrorKind::Server(
                redis::ServerErrorKind::ResponseError | redis::ServerErrorKind::ExecAbort
            ) | ErrorKind::InvalidClientConfig
                | ErrorKind::AuthenticationFailed
                | ErrorKind::UnexpectedReturnType
        );
        if refused {
            Self::Refused(error)
        } else {
            Self::Unavailable(error)
        }
    }
}

/// A library of Valkey functions, under names that change with its code.
#[derive(Clone)]
struct Library {
    version: String,
    code: String,
}

impl Library {
    fn new(code: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        code.hash(&mut hasher);
        let version = format!("{:016x}", hasher.finish());
        Self {
            code: code.replace("VERSION", &version),
            version,
        }
    }
}

/// A connection to Valkey. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Ledger {
    connection: ConnectionManager,
    prefix: String,
    registry: Arc<Library>,
    told: Arc<Once>,
}

impl Ledger {
    /// Prepares a connection; Valkey may be away for now.
    pub fn new(config: &LedgerConfig) -> Result<Self, LedgerError> {
        let client = Client::open(config.url.as_str())?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(Some(config.timeout))
            .set_max_delay(Duration::from_secs(1));
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client, settings)?,
            prefix: config.prefix.clone(),
            registry: Arc::new(Library::new(include_str!("registry.lua"))),
            told: Arc::new(Once::new()),
        })
    }

    /// Returns an error if Valkey is away or may forget keys.
    pub async fn check(&self) -> Result<(), LedgerError> {
        let answer: Result<Vec<String>, RedisError> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("maxmemory-policy")
            .query_async(&mut self.connection.clone())
            .await;
        match answer.map_err(LedgerError::from) {
            Ok(pair) => match pair.get(1) {
                Some(policy) if policy != "noeviction" => Err(LedgerError::Evicts(policy.clone())),
                _ => Ok(()),
            },
            // Managed services hide CONFIG; they document their policy instead.
            Err(LedgerError::Refused(error)) => {
                // Readiness asks every few seconds; once is enough to be told.
                self.told.call_once(|| {
                    tracing::warn!(%error, "cannot read valkey's maxmemory-policy: it must be noeviction");
                });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the name under which Valkey knows the registry's function `name`.
    pub(crate) fn function(&self, name: &str) -> String {
        format!("{name}_{}", self.registry.version)
    }

    /// Runs one command of Valkey's own.
    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value, LedgerError> {
        Ok(command.query_async(&mut self.connection.clone()).await?)
    }

    /// Runs calls of our functions, and loads the functions first where Valkey
    /// lacks them (it is new, or came back empty). All calls must be idempotent.
    pub(crate) async fn call(&self, calls: Pipeline) -> Result<Vec<Value>, LedgerError> {
        let replies = self.call_each(calls, &self.registry.code).await?;
        replies.into_iter().collect()
    }

    /// The same for functions that `code` has. What Valkey refuses of one call is the answer to
    /// that call; an error is what can be tried again, with all of the calls.
    pub(crate) async fn call_each(
        &self,
        mut calls: Pipeline,
        code: &str,
    ) -> Result<Vec<Result<Value, LedgerError>>, LedgerError> {
        let mut replies = self.run(&mut calls).await?;
        // Only these: of one that was made, another answer would come.
        let missing: Vec<_> = (0..replies.len())
            .filter(|at| is_function_missing(&replies[*at]))
            .collect();
        if !missing.is_empty() {
            self.load(code).await?;
            let commands: Vec<_> = calls.cmd_iter().collect();
            let mut again = Pipeline::new();
            for at in &missing {
                again.add_command(commands[*at].clone());
            }
            for (at, reply) in missing.into_iter().zip(self.run(&mut again).await?) {
                replies[at] = reply;
            }
        }
        let answers = replies.into_iter().map(|reply| match reply {
            Value::ServerError(error) => match LedgerError::from(RedisError::from(error)) {
                error if error.is_retryable() => Err(error),
                refused => Ok(Err(refused)),
            },
            reply => Ok(Ok(reply)),
        });
        answers.collect()
    }

    /// Returns one reply for each call; [`Value::ServerError`] where it failed.
    async fn run(&self, calls: &mut Pipeline) -> Result<Vec<Value>, LedgerError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        calls.ignore_errors();
        let replies: Vec<_> = calls.query_async(&mut self.connection.clone()).await?;
        if replies.len() == calls.len() {
            Ok(replies)
        } else {
            Err(LedgerError::Unexpected("a pipeline"))
        }
    }

    pub(crate) async fn load(&self, code: &str) -> Result<(), LedgerError> {
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(code);
        let name: String = load.query_async(&mut self.connection.clone()).await?;
        tracing::info!(library = name, "loaded functions into valkey");
        Ok(())
    }
}

fn is_function_missing(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error)
        if error.details().is_some_and(|details| details.contains("Function not found")))
}
