//! The kinds of Knative Eventing that we honour, field by field, as they are written.
//!
//! A field that is not here is a mistake: a manifest must not say what only a cluster does.

use std::{collections::BTreeMap, num::NonZeroU16};

use serde::Deserialize;

use super::{
    address::{Destination, Reference},
    delivery::DeliverySpec,
    filter::Filter,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BrokerSpec {
    pub(super) config: Reference,
    pub(super) delivery: Option<DeliverySpec>,
}

/// `data` of the ConfigMap that a Broker names.
#[derive(Deserialize)]
pub(super) struct BrokerConfig {
    #[serde(rename = "bootstrap.servers")]
    pub(super) bootstrap_servers: String,
    #[serde(rename = "default.topic.partitions")]
    pub(super) partitions: Option<String>,
    #[serde(rename = "default.topic.replication.factor")]
    pub(super) replication: Option<String>,
    /// Settings of its topic, each under `default.topic.config.`; another key is a mistake.
    #[serde(flatten)]
    pub(super) topic: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TriggerSpec {
    pub(super) broker: String,
    pub(super) subscriber: Destination,
    pub(super) filter: Option<LegacyFilter>,
    #[serde(default)]
    pub(super) filters: Vec<Filter>,
    pub(super) delivery: Option<DeliverySpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LegacyFilter {
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct KafkaSourceSpec {
    pub(super) bootstrap_servers: Vec<String>,
    pub(super) topics: Vec<String>,
    // A cluster makes a random one if it is absent, and counts from there: not for money.
    pub(super) consumer_group: String,
    pub(super) consumers: Option<NonZeroU16>,
    #[serde(default)]
    pub(super) initial_offset: InitialOffset,
    #[serde(default)]
    pub(super) ordering: Ordering,
    pub(super) delivery: Option<DeliverySpec>,
    pub(super) sink: Destination,
    pub(super) ce_overrides: Option<Overrides>,
    pub(super) net: Option<Net>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum InitialOffset {
    Earliest,
    #[default]
    Latest,
}

/// Whether a partition's events wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ordering {
    /// They do.
    #[default]
    Ordered,
    /// They do not.
    Unordered,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overrides {
    #[serde(default)]
    pub(super) extensions: BTreeMap<String, String>,
}

/// Accepted where it is off; a machine's own Kafka has neither.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Net {
    pub(super) sasl: Option<Enable>,
    pub(super) tls: Option<Enable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enable {
    #[serde(default)]
    pub(super) enable: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct KafkaSinkSpec {
    pub(super) bootstrap_servers: Vec<String>,
    pub(super) topic: String,
    #[serde(default)]
    pub(super) content_mode: ContentMode,
    pub(super) num_partitions: Option<NonZeroU16>,
    pub(super) replication_factor: Option<NonZeroU16>,
}

/// How a KafkaSink writes events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ContentMode {
    /// Attributes as headers.
    #[default]
    Binary,
    /// The whole event as JSON.
    Structured,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PingSourceSpec {
    pub(super) schedule: String,
    pub(super) timezone: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) data: Option<String>,
    pub(super) data_base64: Option<String>,
    pub(super) sink: Destination,
    pub(super) ce_overrides: Option<Overrides>,
}
