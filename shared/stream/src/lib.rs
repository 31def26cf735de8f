//! CloudEvents in motion: over HTTP and over Kafka.
//!
//! Layout:
//! - [`CloudEvent`]: one event between HTTP and Kafka, its data's bytes untouched
//! - [`http`]: CloudEvents in requests: binary, structured and batch mode
//! - [`kafka`]: CloudEvents in records, and records into [`model::UsageEvent`]
//! - [`Producer`]: sends, and says so only when it is durable
//! - [`Consumer`], [`Batch`]: a member of a consumer group that takes records by the thousand
//! - [`Subscription`]: a member of a consumer group whose records are finished one by one
//! - [`Graves`]: where records that are no CloudEvents end
//! - [`DeadLetters`]: what ended there and in ingest's, listed and sent again
//! - [`create_topics`]: topics, where they are absent
//! - [`KafkaConfig`]: brokers, topics and credentials, read from variables
//!
//! Only this crate knows the SDK of CloudEvents and librdkafka. It knows neither
//! meters nor what an event is counted for.

mod attributes;
mod client;
mod config;
mod consumer;
mod dead;
mod dead_page;
mod drain;
mod error;
mod event;
mod graves;
mod group;
pub mod http;
mod json;
pub mod kafka;
mod member;
mod original;
mod producer;
mod progress;
mod reader;
mod subscription;
mod syntax;
mod topics;

pub use client::MAX_DEAD_BYTES;
pub use config::{KafkaConfig, Sasl, SaslMechanism, SecurityProtocol};
pub use consumer::{Batch, BatchLimits, Committed, ConsumeError, Consumer};
pub use dead::{Cause, DeadLetter, DeadLetters, DeadTopic, Piece, Replay};
pub use dead_page::{Cursor, NoCursor, Page};
pub use error::{DecodeError, KafkaFault};
pub use event::CloudEvent;
pub use graves::Graves;
pub use kafka::{DeadRecord, Record};
pub use producer::{ProduceError, Producer};
pub use reader::ReadError;
pub use subscription::{Arrival, Foreign, Lag, Receipt, Start, Subscription, fix_start};
pub use topics::{TopicError, create_topics};
