//! `query`: to be written.
fn main() {}
