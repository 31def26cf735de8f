//! `ingest`: to be written.
fn main() {}
