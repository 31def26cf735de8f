//! What the tests of the registry share: claims, a store's memory as a list.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod credits;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    sync::{LazyLock, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ledger::{Ledger, LedgerConfig, Registry, RegistryConfig};
use model::{Claim, Content, History, Identity, Seen, SeenPage};

pub(crate) const WINDOW: Duration = Duration::from_secs(24 * 3600);
const LAG: Duration = Duration::from_secs(3600);
pub(crate) const HOUR: i64 = 3_600_000_000;

/// The store's memory, as a list.
#[derive(Default)]
pub(crate) struct Stored(pub(crate) Mutex<Vec<(Identity, Seen)>>);

impl Stored {
    pub(crate) fn add(&self, claim: &Claim, winner: Seen) {
        self.0.lock().unwrap().push((claim.identity, winner));
    }
}

impl History for Stored {
    type Error = Infallible;

    fn seen(
        &self,
        identities: &[Identity],
    ) -> impl Future<Output = Result<HashMap<Identity, Vec<Seen>>, Infallible>> + Send {
        let mut found: HashMap<Identity, Vec<Seen>> = HashMap::new();
        for (identity, seen) in self.0.lock().unwrap().iter() {
            if identities.contains(identity) {
                found.entry(*identity).or_default().push(*seen);
            }
        }
        std::future::ready(Ok(found))
    }

    /// Two rows a page; the place in the list plays `stored_at`.
    fn seen_after(
        &self,
        cursor: i64,
        ingested_from: i64,
    ) -> impl Future<Output = Result<SeenPage, Infallible>> + Send {
        let rows = self.0.lock().unwrap();
        let start = usize::try_from(cursor).unwrap();
        let page: Vec<_> = rows.iter().skip(start).take(2).copied().collect();
        let next = (!page.is_empty()).then(|| cursor + i64::try_from(page.len()).unwrap());
        let rows = page
            .into_iter()
            .filter(|(_, seen)| seen.ingested_at >= ingested_from)
            .collect();
        std::future::ready(Ok(SeenPage { rows, next }))
    }
}

pub(crate) fn url() -> String {
    std::env::var("OPENMETER_VALKEY_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

pub(crate) fn now() -> i64 {
    i64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_micros(),
    )
    .unwrap()
}

/// A claim with a time of the test's first moment and some microseconds: an older time would
/// be asked of the store.
pub(crate) fn claim(id: &str, time: i64, ingested_at: i64, content: u64) -> Claim {
    static BEGAN: LazyLock<i64> = LazyLock::new(now);
    let time = *BEGAN + time;
    let seen = Seen {
        time,
        ingested_at,
        content: Content(content),
    };
    Claim {
        identity: Identity::of("test", id),
        seen,
    }
}

/// The registry at `url`, whose keys begin with `prefix`.
pub(crate) async fn registry_at(url: &str, prefix: &str) -> Registry {
    registry_with(url, prefix, WINDOW).await
}

/// The same with a dedup window of its own.
pub(crate) async fn registry_with(url: &str, prefix: &str, window: Duration) -> Registry {
    let config = LedgerConfig {
        url: url.to_owned(),
        prefix: prefix.to_owned(),
        timeout: Duration::from_secs(5),
    };
    let ledger = Ledger::new(&config).unwrap();
    ledger.check().await.expect("a Valkey must run: make up");
    Registry::new(ledger, RegistryConfig { window, lag: LAG })
}

/// Judges, "writes" and confirms, as a function does.
pub(crate) async fn count(registry: &Registry, stored: &Stored, claims: &[Claim]) -> Vec<Seen> {
    let judged = registry.judge(claims, stored).await.unwrap();
    for (claim, winner) in claims.iter().zip(&judged.winners) {
        if claim.seen == *winner {
            stored.add(claim, *winner);
        }
    }
    assert!(registry.confirms(claims, &judged, stored).await.unwrap());
    judged.winners
}
