//! The registry on a real Valkey (`OPENMETER_VALKEY_URL`, else the local one).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ledger::{Ledger, LedgerConfig, Registry, RegistryConfig};
use model::{Claim, Content, History, Identity, Seen, SeenPage};

const WINDOW: Duration = Duration::from_secs(24 * 3600);
const LAG: Duration = Duration::from_secs(3600);
const HOUR: i64 = 3_600_000_000;

/// The store's memory, as a list.
#[derive(Default)]
struct Stored(Mutex<Vec<(Identity, Seen)>>);

impl Stored {
    fn add(&self, claim: &Claim, winner: Seen) {
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

fn url() -> String {
    std::env::var("OPENMETER_VALKEY_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

fn now() -> i64 {
    i64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_micros(),
    )
    .unwrap()
}

fn claim(id: &str, time: i64, ingested_at: i64, content: u64) -> Claim {
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

/// A registry of its own on the shared Valkey.
async fn registry(test: &str) -> (Registry, Wipe) {
    let prefix = format!("test:{test}:{}:{:x}", std::process::id(), now());
    let ledger = Ledger::new(&LedgerConfig {
        url: url(),
        prefix: prefix.clone(),
        timeout: Duration::from_secs(5),
    })
    .unwrap();
    ledger.check().await.expect("a Valkey must run: make up");
    (
        Registry::new(
            ledger,
            RegistryConfig {
                window: WINDOW,
                lag: LAG,
            },
        ),
        Wipe(prefix),
    )
}

/// Makes Valkey forget one registry, as a FLUSHALL would.
struct Wipe(String);

impl Wipe {
    async fn all(&self) {
        let mut connection = redis::Client::open(url())
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg(format!("{}:*", self.0))
            .query_async(&mut connection)
            .await
            .unwrap();
        if !keys.is_empty() {
            let _count: i64 = redis::cmd("DEL")
                .arg(keys)
                .query_async(&mut connection)
                .await
                .unwrap();
        }
    }
}

/// Judges, "writes" and confirms, as a function does.
async fn count(registry: &Registry, stored: &Stored, claims: &[Claim]) -> Vec<Seen> {
    let judged = registry.judge(claims, stored).await.unwrap();
    for (claim, winner) in claims.iter().zip(&judged.winners) {
        if claim.seen == *winner {
            stored.add(claim, *winner);
        }
    }
    assert!(registry.confirms(claims, &judged).await.unwrap());
    judged.winners
}

#[tokio::test]
async fn the_first_delivery_wins_also_within_one_batch() {
    let (registry, _wipe) = registry("first").await;
    let (stored, t) = (Stored::default(), now());
    let batch = [
        claim("a", 1, t, 7),
        claim("b", 2, t, 8),
        claim("a", 3, t + 1, 7),
    ];
    let winners = count(&registry, &stored, &batch).await;
    assert_eq!(winners, [batch[0].seen, batch[1].seen, batch[0].seen]);
    let again = count(&registry, &stored, &[claim("b", 9, t + 2, 1)]).await;
    assert_eq!(
        again,
        [batch[1].seen],
        "the winner is told also to a conflict"
    );
}

#[tokio::test]
async fn a_registry_that_was_wiped_is_filled_from_the_store() {
    let (registry, wipe) = registry("wiped").await;
    let (stored, t) = (Stored::default(), now());
    let first: Vec<_> = (0..500).map(|i| claim(&i.to_string(), i, t, 1)).collect();
    count(&registry, &stored, &first).await;
    wipe.all().await;
    let repeats: Vec<_> = (0..500)
        .map(|i| claim(&i.to_string(), i + 1000, t + 5, 1))
        .collect();
    let half = count(&registry, &stored, &repeats[..250]).await;
    assert!(
        half.iter()
            .zip(&first)
            .all(|(winner, first)| *winner == first.seen),
        "asked of the store"
    );
    stored.0.lock().unwrap().clear();
    let rest = count(&registry, &stored, &repeats[250..]).await;
    assert!(
        rest.iter()
            .zip(&first[250..])
            .all(|(winner, first)| *winner == first.seen),
        "filled again"
    );
}

#[tokio::test]
async fn a_loss_between_judging_and_writing_is_noticed() {
    let (registry, wipe) = registry("between").await;
    let (stored, t) = (Stored::default(), now());
    count(&registry, &stored, &[claim("warm", 1, t, 1)]).await;
    let mine = [claim("a", 10, t, 1)];
    let judged = registry.judge(&mine, &stored).await.unwrap();
    wipe.all().await;
    let other = [claim("a", 20, t + 1, 1)];
    count(&registry, &stored, &other).await;
    assert!(
        !registry.confirms(&mine, &judged).await.unwrap(),
        "another has won meanwhile"
    );
    let again = registry.judge(&mine, &stored).await.unwrap();
    assert_eq!(again.winners, [other[0].seen]);
    assert!(registry.confirms(&mine, &again).await.unwrap());
}

#[tokio::test]
async fn a_loss_that_nobody_used_leaves_the_winner_in_place() {
    let (registry, wipe) = registry("unused").await;
    let (stored, t) = (Stored::default(), now());
    count(&registry, &stored, &[claim("warm", 1, t, 1)]).await;
    let mine = [claim("a", 10, t, 1)];
    let judged = registry.judge(&mine, &stored).await.unwrap();
    wipe.all().await;
    assert!(registry.confirms(&mine, &judged).await.unwrap());
    let late = registry
        .judge(&[claim("a", 20, t + 1, 1)], &stored)
        .await
        .unwrap();
    assert_eq!(
        late.winners,
        [mine[0].seen],
        "confirming put the winner back"
    );
}

#[tokio::test]
async fn a_resend_after_the_window_is_a_new_event() {
    let (registry, _wipe) = registry("resend").await;
    let (stored, t) = (Stored::default(), now());
    let old = claim("a", 1, t - 30 * HOUR, 1);
    let repeat_of_old = claim("a", 2, t - 29 * HOUR, 1);
    let fresh = claim("a", 3, t, 1);
    let repeat_of_fresh = claim("a", 4, t + 1, 1);
    let winners = count(
        &registry,
        &stored,
        &[old, repeat_of_old, fresh, repeat_of_fresh],
    )
    .await;
    assert_eq!(winners, [old.seen, old.seen, fresh.seen, fresh.seen]);
    let replay = count(
        &registry,
        &stored,
        &[old, repeat_of_old, fresh, repeat_of_fresh],
    )
    .await;
    assert_eq!(replay, winners);
}

#[tokio::test]
async fn old_and_fresh_events_find_their_own_repeats_in_any_order() {
    let (registry, _wipe) = registry("any-order").await;
    let (stored, t) = (Stored::default(), now());
    count(&registry, &stored, &[claim("warm", 1, t, 1)]).await;
    let fresh = [claim("a", 3, t, 1), claim("a", 4, t + 1, 1)];
    let old = [
        claim("a", 1, t - 30 * HOUR, 1),
        claim("a", 2, t - 29 * HOUR, 1),
    ];
    assert_eq!(
        count(&registry, &stored, &fresh).await,
        [fresh[0].seen, fresh[0].seen]
    );
    assert_eq!(
        count(&registry, &stored, &old).await,
        [old[0].seen, old[0].seen]
    );
    let mixed = [old[1], fresh[1], old[0], fresh[0]];
    assert_eq!(
        count(&registry, &stored, &mixed).await,
        [old[0].seen, fresh[0].seen, old[0].seen, fresh[0].seen]
    );
}

#[tokio::test]
async fn many_functions_at_once_agree_on_every_winner() {
    let (registry, wipe) = registry("agree").await;
    let stored = std::sync::Arc::new(Stored::default());
    let t = now();
    let mut tasks = Vec::new();
    for function in 0..8_i64 {
        let (registry, stored) = (registry.clone(), stored.clone());
        tasks.push(tokio::spawn(async move {
            let claims: Vec<_> = (0..200)
                .map(|i| claim(&i.to_string(), function, t + function, 1))
                .collect();
            registry.judge(&claims, &*stored).await.unwrap().winners
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    assert!(answers.iter().all(|answer| answer == &answers[0]));
    wipe.all().await;
}
