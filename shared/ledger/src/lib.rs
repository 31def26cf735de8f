//! Valkey: which delivery of an identity is counted. (Credit accounts come here too.)
//!
//! Layout:
//! - [`Ledger`]: a connection, checked and with our functions loaded
//! - [`Registry`]: identities and their winners; `registry.lua` has its atomic steps
//!
//! What is in Valkey can be lost at any time. The registry notices that, asks the
//! store through [`model::History`] instead, and is filled again from there.

mod connection;
mod refill;
mod registry;
#[cfg(feature = "testing")]
pub mod testing;

pub use connection::{Ledger, LedgerConfig, LedgerError};
pub use registry::{JudgeError, Judged, Registry, RegistryConfig};
