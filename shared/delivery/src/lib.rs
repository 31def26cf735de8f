//! Events as Knative, Lambda or a consumer group bring them, handed to a function in batches.
