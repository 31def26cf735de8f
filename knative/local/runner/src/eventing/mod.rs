//! What Knative Eventing does: brokers, triggers, sources, sinks and their deliveries.
//!
//! It follows the Kafka classes of Knative (eventing-kafka-broker) to the letter where their
//! users can see it: which answers are tried again, after which waits, and what a dead letter says.
//!
//! It differs where a machine is not a cluster, or where more is lost than need be:
//! - a KafkaSource's topic that is absent is made, for nobody else would before the first event
//! - a broker's ingress answers 413, not 503, to what is too large, and 200 to OPTIONS
//! - a broker's ingress answers 400 to attributes that ingest would refuse
//! - attributes that are not plain ASCII survive each hop: they are encoded in headers, and brokers
//!   and sinks decode percent signs, where Knative does neither. So a dead letter whose attributes
//!   have a literal `%` is replayed right on a cluster, and decoded once too often here
//! - a reply that cannot be written is the delivery again, not a dead letter
//! - a record that is no event is wrapped without what no attribute holds: control characters, and
//!   a content type of events or of nothing; and without more headers and longer texts than a
//!   sink takes of its dead letter
//! - of KafkaSources, two with one consumer group are refused; of sinks, https
//! - of filters, cesql is refused
//!
//! Layout:
//! - [`Plan`]: the manifests, read and resolved; [`Eventing`]: the same, running
//! - [`Filter`], [`classify`], [`Delivery`], [`Schedule`], [`Addresses`]: the rules, without I/O
//! - the rest: what comes in, where it goes, how often it is tried

mod address;
mod answer;
mod deliver;
mod delivery;
mod dispatch;
mod filter;
mod ingress;
mod ping;
mod plan;
mod running;
mod schedule;
mod spec;
mod wrap;

pub use address::{Addresses, BROKER_INGRESS, Destination, SINK_INGRESS};
pub use answer::{Action, Replies, classify};
pub use deliver::Status;
pub use delivery::{BackoffPolicy, Delivery, DeliverySpec, Egress, backoff, merge};
pub use dispatch::Failure;
pub use filter::{Filter, is_attribute_name};
pub use plan::{KINDS, Plan};
pub use running::{Eventing, StartError};
pub use schedule::Schedule;
