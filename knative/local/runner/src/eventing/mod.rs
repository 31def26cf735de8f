//! What Knative Eventing does: brokers, triggers, sources, sinks and their deliveries.
//!
//! It follows the Kafka classes of Knative (eventing-kafka-broker) to the letter where their
//! users can see it: which answers are tried again, after which waits, and what a dead letter says.

mod address;
mod answer;
mod delivery;
mod filter;

pub use address::{Addresses, BROKER_INGRESS, Destination, SINK_INGRESS};
pub use answer::{Action, Replies, classify};
pub use delivery::{BackoffPolicy, Delivery, DeliverySpec, Egress, backoff, merge};
pub use filter::{Filter, is_attribute_name};
