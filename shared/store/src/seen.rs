//! What was counted before: the store's side of [`model::History`].

use std::collections::HashMap;

use model::{History, Identity, Seen, SeenPage};

use crate::{connection::Store, error::StoreError};

impl History for Store {
    type Error = StoreError;

    async fn seen(
        &self,
        _identities: &[Identity],
    ) -> Result<HashMap<Identity, Vec<Seen>>, StoreError> {
        Ok(HashMap::new())
    }

    async fn seen_after(&self, _cursor: i64, _ingested_from: i64) -> Result<SeenPage, StoreError> {
        Ok(SeenPage {
            rows: Vec::new(),
            next: None,
        })
    }
}
