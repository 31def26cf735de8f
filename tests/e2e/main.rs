//! The end-to-end tests: the functions on the real engines, a module a journey.
//!
//! Each test has a topic, tables and keys of its own, so all run side by side. A missing
//! engine fails them (`make up`); none is skipped.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod binaries;
mod counted;
mod dead;
mod edges;
mod lambda;
mod lost;
mod quota;
mod settings;
mod structure;
mod support;
mod unusable;

#[path = "../../shared/runtime/tests/host/runtime_api.rs"]
mod runtime_api;
