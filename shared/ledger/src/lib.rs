//! ledger: to be written.
