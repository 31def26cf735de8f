//! Where Kafka is, what the topics are called, and how we sign in.
//!
//! The variables are listed here, once. Whoever has an environment asks it for each:
//!
//! ```ignore
//! let brokers = env.required(KafkaConfig::BROKER, KafkaConfig::BROKER_DESCRIPTION);
//! let kafka = KafkaConfig::read(brokers, |wanted| env.give(wanted));
//! env.finish(|| Some(Config { kafka: kafka?, .. }))
//! ```

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use jiff::{Span, SpanRelativeTo};
use model::{Password, WantedSetting};

/// Everything that a client of Kafka is told.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port` of some brokers; the rest is learned from them.
    pub brokers: Vec<String>,
    /// Topic of accepted events.
    pub topic: String,
    /// Topic of records that are no CloudEvents, and of events that nobody could count.
    pub dead_topic: String,
    /// Topic of events that a broker could not deliver to ingest.
    pub ingest_dead_topic: String,
    /// Partitions of a topic that is created.
    pub partitions: u16,
    /// Replicas of a topic that is created; `None` is the broker's default.
    pub replication: Option<u16>,
    /// How long a topic that is created keeps its records.
    pub retention: Duration,
    /// What a topic that is created has otherwise than ours have it, by Kafka's names.
    pub topic_settings: BTreeMap<String, String>,
    /// How connections are protected.
    pub security: SecurityProtocol,
    /// Who we are, for the two SASL protocols.
    pub sasl: Option<Sasl>,
    /// Certificates of those who may sign a broker's, where the system's do not do.
    pub ca_file: Option<PathBuf>,
    /// How long a record may wait for others to fill its batch.
    pub linger: Duration,
    /// How long a record may take to become durable before its sender is told to retry.
    pub delivery_timeout: Duration,
    /// After how long without a sign of life a consumer's partitions go to another.
    pub session_timeout: Duration,
}

impl KafkaConfig {
    /// The one variable that must be set.
    pub const BROKER: &'static str = "OPENMETER_KAFKA_BROKER";
    /// What it is.
    pub const BROKER_DESCRIPTION: &'static str = "Kafka brokers, host:port, comma separated";

    /// Returns the configuration for `brokers`, with every default.
    pub fn new(brokers: Vec<String>) -> Self {
        Self {
            brokers,
            topic: "openmeter.events".to_owned(),
            dead_topic: "openmeter.events.dead".to_owned(),
            ingest_dead_topic: "openmeter.ingest.dead".to_owned(),
            partitions: 12,
            replication: None,
            retention: Duration::from_secs(7 * 24 * 3600),
            topic_settings: BTreeMap::new(),
            security: SecurityProtocol::Plaintext,
            sasl: None,
            ca_file: None,
            linger: Duration::from_millis(2),
            delivery_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(10),
        }
    }

    /// Returns the configuration that `ask` finds, or `None` without `brokers`; all
    /// variables are asked for either way, so that every mistake is found at once.
    ///
    /// `ask` looks a variable up and, if it is set, gives its text to [`WantedSetting::read`],
    /// which says what is wrong with it.
    pub fn read(
        brokers: Option<Vec<String>>,
        mut ask: impl FnMut(WantedSetting<'_>),
    ) -> Option<Self> {
        let known = brokers.is_some();
        let mut config = Self::new(brokers.unwrap_or_default());
        let mut sasl = Sasl::default();
        let mut set = |name, description, secret, read: &mut dyn FnMut(&str) -> Wrong| {
            ask(WantedSetting {
                name,
                description,
                secret,
                read,
            });
        };
        set(
            "OPENMETER_KAFKA_TOPIC",
            "topic of accepted events (openmeter.events)",
            false,
            &mut |text| {
                config.topic = topic(text)?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_DEAD_TOPIC",
            "topic of records that are no CloudEvents (openmeter.events.dead)",
            false,
            &mut |text| {
                config.dead_topic = topic(text)?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_INGEST_DEAD_TOPIC",
            "topic of events that no broker could deliver to ingest (openmeter.ingest.dead)",
            false,
            &mut |text| {
                config.ingest_dead_topic = topic(text)?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_PARTITIONS",
            "partitions of a topic that is created (12)",
            false,
            &mut |text| {
                config.partitions = count(text)?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_REPLICATION",
            "replicas of a topic that is created (the broker's default)",
            false,
            &mut |text| {
                config.replication = Some(count(text)?);
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_RETENTION",
            "how long a topic that is created keeps its records (7d)",
            false,
            &mut |text| {
                config.retention = duration(text)?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_SECURITY",
            "plaintext, ssl, sasl_plaintext or sasl_ssl (plaintext)",
            false,
            &mut |text| {
                config.security = text.parse()?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_SASL_MECHANISM",
            "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 (PLAIN)",
            false,
            &mut |text| {
                sasl.mechanism = text.parse()?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_SASL_USER",
            "SASL user",
            false,
            &mut |text| {
                sasl.user = text.to_owned();
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_SASL_PASSWORD",
            "SASL password",
            true,
            &mut |text| {
                sasl.password = Password::new(text);
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_CA_FILE",
            "certificates that sign the brokers' (the system's)",
            false,
            &mut |text| {
                config.ca_file = Some(text.into());
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_LINGER",
            "how long a record waits for others to fill its batch (2ms)",
            false,
            &mut |text| {
                config.linger = duration(text)?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_DELIVERY_TIMEOUT",
            "how long a record may take to become durable (10s)",
            false,
            &mut |text| {
                config.delivery_timeout = positive(text)?;
                Ok(())
            },
        );
        set(
            "OPENMETER_KAFKA_SESSION_TIMEOUT",
            "after how long a silent consumer's partitions move (10s)",
            false,
            &mut |text| {
                config.session_timeout = positive(text)?;
                Ok(())
            },
        );
        if config.security.is_sasl() {
            config.sasl = Some(sasl);
        }
        known.then_some(config)
    }
}

/// What reading a variable says of its text.
type Wrong = Result<(), String>;

/// How connections to brokers are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Not at all.
    Plaintext,
    /// TLS.
    Ssl,
    /// A user signs in, in the clear.
    SaslPlaintext,
    /// A user signs in, over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Returns librdkafka's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl FromStr for SecurityProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [
            Self::Plaintext,
            Self::Ssl,
            Self::SaslPlaintext,
            Self::SaslSsl,
        ]
        .into_iter()
        .find(|protocol| protocol.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| "is not plaintext, ssl, sasl_plaintext or sasl_ssl".to_owned())
    }
}

/// How a user proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaslMechanism {
    /// By sending the password.
    #[default]
    Plain,
    /// By SCRAM with SHA-256.
    ScramSha256,
    /// By SCRAM with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// Returns Kafka's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl FromStr for SaslMechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Plain, Self::ScramSha256, Self::ScramSha512]
            .into_iter()
            .find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| "is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512".to_owned())
    }
}

/// Who we are to Kafka.
#[derive(Clone, Debug, Default)]
pub struct Sasl {
    /// How it is proved.
    pub mechanism: SaslMechanism,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: Password,
}

fn topic(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.len() > 249 || !text.bytes().all(allowed) {
        return Err("is not a topic's name: letters, digits, '.', '_' and '-'".to_owned());
    }
    Ok(text.to_owned())
}

fn count(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("is not a whole number from 1 to 65535".to_owned()),
        Ok(count) => Ok(count),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() {
        return Err("must be more than nothing".to_owned());
    }
    Ok(duration)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "is not a duration such as 5ms, 10s, 24h or 7d".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    duration.try_into().map_err(|_| wrong())
}
