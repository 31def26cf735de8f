//! The runner with real processes: those of a small HTTP server, `echo-function`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail, and clippy sees only test functions as tests"
)]

mod api;
mod binary;
mod manifests;
mod pods;
mod requests;
mod support;
