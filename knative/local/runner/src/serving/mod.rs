//! What Knative Serving does: Services that start at the first request and stop when idle.
