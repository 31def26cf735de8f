//! Knative on one machine: reads the manifests that are deployed and does what they say.
//!
//! It is for laptops and tests; production is Knative itself.
//!
//! Layout:
//! - [`manifests`]: kustomize folders, rendered to objects
//! - [`serving`]: Services (and Deployments) as processes, ConfigMaps and Secrets, routes
//! - [`eventing`]: brokers, triggers, Kafka sources and sinks, ping sources, deliveries
//! - [`network`]: who answers to a name, between the two
//! - [`cluster`]: all of it, running

pub mod cluster;
pub mod eventing;
pub mod manifests;
pub mod network;
pub mod serving;
