//! Runs [`quota`] on Knative, on Lambda or as a member of a consumer group.

fn main() {}
