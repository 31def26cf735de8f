//! The stand-in over HTTP. Each test names the part of Lago's behaviour that it holds the
//! stand-in to, in the words of what is known of Lago's API.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod clickhouse;
mod door;
mod faults;
mod invoices;
mod postgres;
mod support;
mod usage;
mod wallets;
mod webhooks;
