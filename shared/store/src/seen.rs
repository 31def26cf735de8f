//! What was counted before: the store's side of [`model::History`].

use std::collections::HashMap;

use clickhouse::Row;
use model::{Content, History, Identity, Seen, SeenPage};
use serde::Deserialize;

use crate::{connection::Store, error::StoreError, subjects::push_hex};

/// Identities asked for in one statement: 32 characters each, well under the megabytes at
/// which a parser begins to mind.
const AT_A_TIME: usize = 50_000;

/// Up to so many identities the bloom filters are asked first. For more, asking each filter
/// for each identity takes longer than reading the column: at 10 million rows 0.26 s and
/// 0.13 s for 50,000, 0.03 s and 0.08 s for 1,000.
const FEW: usize = 10_000;

/// Rows of a page of [`History::seen_after`], about: rows stored at one instant are not
/// divided.
const PAGE: u64 = 250_000;

#[derive(Row, Deserialize)]
struct SeenRow {
    identity: [u8; 16],
    event_time: i64,
    content: u64,
    ingested: i64,
    stored: i64,
}

impl SeenRow {
    fn seen(&self) -> (Identity, Seen) {
        let seen = Seen {
            time: self.event_time,
            ingested_at: self.ingested,
            content: Content(self.content),
        };
        (Identity(self.identity), seen)
    }
}

impl History for Store {
    type Error = StoreError;

    async fn seen(
        &self,
        identities: &[Identity],
    ) -> Result<HashMap<Identity, Vec<Seen>>, StoreError> {
        let mut found: HashMap<Identity, Vec<Seen>> = HashMap::new();
        for some in identities.chunks(AT_A_TIME) {
            let use_filters = if some.len() <= FEW { "1" } else { "0" };
            let query = self
                .ask(&seen_sql(some))
                .with_setting("use_skip_indexes", use_filters);
            for row in self.rows::<SeenRow>("look up identities", query).await? {
                let (identity, seen) = row.seen();
                found.entry(identity).or_default().push(seen);
            }
        }
        Ok(found)
    }

    async fn seen_after(&self, cursor: i64, ingested_from: i64) -> Result<SeenPage, StoreError> {
        let query = self
            .ask(
                "SELECT identity, toUnixTimestamp64Micro(time) AS event_time, content, \
                    toUnixTimestamp64Micro(ingested_at) AS ingested, \
                    toUnixTimestamp64Micro(stored_at) AS stored \
                 FROM events FINAL \
                 WHERE stored_at > fromUnixTimestamp64Micro({cursor:Int64}, 'UTC') \
                   AND ingested_at >= fromUnixTimestamp64Micro({ingested_from:Int64}, 'UTC') \
                   AND state != 'conflict' \
                 ORDER BY stored_at LIMIT {page:UInt64} WITH TIES",
            )
            .param("cursor", cursor)
            .param("ingested_from", ingested_from)
            .param("page", PAGE);
        let rows = self.rows::<SeenRow>("read counted events", query).await?;
        let is_full = rows.len() as u64 >= PAGE;
        let last = rows.last().map(|row| row.stored);
        Ok(SeenPage {
            rows: rows.iter().map(SeenRow::seen).collect(),
            next: last.filter(|_| is_full),
        })
    }
}

/// The identities stand in the text as one literal of hex digits: a parameter may not be
/// longer than 128 KiB, and a list of literals takes the parser longer than the lookup.
///
/// Without FINAL, which would merge the whole table: only the rows that were found are
/// folded, the latest stored of each key.
fn seen_sql(identities: &[Identity]) -> String {
    let mut hex = String::with_capacity(identities.len() * 32);
    for identity in identities {
        push_hex(&mut hex, &identity.0);
    }
    format!(
        "SELECT identity, toUnixTimestamp64Micro(time) AS event_time, content, \
            toUnixTimestamp64Micro(argMax(ingested_at, stored_at)) AS ingested, \
            toUnixTimestamp64Micro(max(stored_at)) AS stored \
         FROM events \
         WHERE identity IN ( \
            SELECT toFixedString(unhex(substring('{hex}', number * 32 + 1, 32)), 16) \
            FROM numbers({count})) \
         GROUP BY identity, time, content \
         HAVING argMax(is_deleted, stored_at) = 0 AND argMax(state, stored_at) != 'conflict'",
        count = identities.len(),
    )
}
