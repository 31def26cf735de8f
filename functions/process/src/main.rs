//! `process`: to be written.
fn main() {}
