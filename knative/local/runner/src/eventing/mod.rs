//! What Knative Eventing does: brokers, triggers, sources, sinks and their deliveries.
