//! Valkey: which delivery of an identity is counted, and what each subject may still spend.
//!
//! Layout:
//! - [`Ledger`]: a connection, checked and with our functions loaded
//! - [`Registry`]: identities and their winners; `registry.lua` has its atomic steps
//! - [`Accounts`]: prepaid credits; `credits.lua` has their atomic steps, and the contract that
//!   API gateways call
//!
//! What is in Valkey can be lost at any time. The registry notices that, asks the
//! store through [`model::History`] instead, and is filled again from there.

mod accounts;
mod connection;
mod refill;
mod registry;
mod settings;
#[cfg(feature = "testing")]
pub mod testing;

pub use accounts::{
    Account, Accounts, Check, DayDebits, Debit, Debited, Outcome, Seal, Standing, Telling,
};
pub use connection::{Ledger, LedgerConfig, LedgerError};
pub use registry::{JudgeError, Judged, Registry, RegistryConfig};
