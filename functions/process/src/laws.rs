//! What must hold of counting, whatever is sent, lost, killed and replayed: judged by the
//! real registry on a real Valkey, written to tables that are folded here as ClickHouse does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    future::Future,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use ledger::{Ledger, LedgerConfig, Registry, RegistryConfig};
use model::{Catalog, Claim, History, Identity, Prepared, Seen, SeenPage, UsageEvent};
use proptest::prelude::*;
use store::State;

use crate::{batch::Asked, rows::Rows};

mod push;

const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// A delivery of event `id`, sent with `time`, which says `what`, taken at `ingested_at`:
/// both in seconds since 1970.
pub(crate) fn delivery(id: u8, time: i64, what: u8, ingested_at: i64) -> Prepared {
    let catalog =
        Catalog::from_yaml("meters: [{slug: c, eventType: t, aggregation: COUNT}]").unwrap();
    let event = UsageEvent {
        id: id.to_string(),
        source: "s".to_owned(),
        event_type: "t".to_owned(),
        subject: Some("x".to_owned()),
        time: Timestamp::from_second(time).unwrap(),
        ingested_at: Timestamp::from_second(ingested_at).unwrap(),
        data: Some(format!("{{\"what\":{what}}}").into_bytes()),
        attributes: BTreeMap::new(),
    };
    Prepared::new(&catalog, event)
}

/// The sorting key of both tables, as far as one meter and one subject go.
type Key = (Identity, i64, u64);

/// The tables: the row with the latest `stored_at` of each key is the one that is read.
#[derive(Default)]
struct Tables(Mutex<Folded>);

#[derive(Default)]
struct Folded {
    usage: BTreeMap<Key, (i64, bool)>,
    events: BTreeMap<Key, EventRow>,
    next_version: i64,
}

struct EventRow {
    stored_at: i64,
    counts: bool,
    seen: Seen,
}

impl Tables {
    /// Returns the first of so many versions that no row has.
    fn versions(&self, count: usize) -> i64 {
        let mut tables = self.0.lock().unwrap();
        let first = tables.next_version + 1;
        tables.next_version += i64::try_from(count).unwrap();
        first
    }

    fn write(&self, batch: &[Prepared], asked: &Asked) {
        let versions = (asked.asked_at..).zip(asked.known_at..);
        let mut tables = self.0.lock().unwrap();
        let mut rows = Rows::default();
        for ((prepared, winner), (asked_at, known_at)) in
            batch.iter().zip(&asked.judged.winners).zip(versions)
        {
            rows.add(prepared, winner, asked_at, known_at);
        }
        for row in &rows.usage {
            let key = (row.identity, row.time, row.content.0);
            let newest = tables.usage.entry(key).or_default();
            *newest = (*newest).max((row.stored_at, !row.is_deleted));
        }
        for row in &rows.events {
            let key = (row.identity, row.time, row.content.0);
            let seen = Seen {
                time: row.time,
                ingested_at: row.ingested_at,
                content: row.content,
            };
            let counts = row.state != State::Conflict && !row.is_deleted;
            let row = EventRow {
                stored_at: row.stored_at,
                counts,
                seen,
            };
            if tables
                .events
                .get(&key)
                .is_none_or(|newest| newest.stored_at <= row.stored_at)
            {
                tables.events.insert(key, row);
            }
        }
    }

    fn counted(&self) -> BTreeSet<Key> {
        let tables = self.0.lock().unwrap();
        let live = tables.usage.iter().filter(|(_, (_, live))| *live);
        live.map(|(key, _)| *key).collect()
    }
}

impl History for Tables {
    type Error = Infallible;

    fn seen(
        &self,
        identities: &[Identity],
    ) -> impl Future<Output = Result<HashMap<Identity, Vec<Seen>>, Infallible>> + Send {
        let tables = self.0.lock().unwrap();
        let mut found: HashMap<Identity, Vec<Seen>> = HashMap::new();
        for ((identity, ..), row) in tables.events.iter().filter(|(_, row)| row.counts) {
            if identities.contains(identity) {
                found.entry(*identity).or_default().push(row.seen);
            }
        }
        std::future::ready(Ok(found))
    }

    fn seen_after(
        &self,
        cursor: i64,
        ingested_from: i64,
    ) -> impl Future<Output = Result<SeenPage, Infallible>> + Send {
        let tables = self.0.lock().unwrap();
        let mut rows: Vec<_> = tables
            .events
            .iter()
            .filter(|(_, row)| {
                row.counts && row.stored_at > cursor && row.seen.ingested_at >= ingested_from
            })
            .map(|((identity, ..), row)| (row.stored_at, *identity, row.seen))
            .collect();
        rows.sort_by_key(|(stored_at, ..)| *stored_at);
        rows.truncate(2);
        let page = SeenPage {
            next: rows
                .last()
                .filter(|_| rows.len() == 2)
                .map(|(stored_at, ..)| *stored_at),
            rows: rows
                .into_iter()
                .map(|(_, identity, seen)| (identity, seen))
                .collect(),
        };
        std::future::ready(Ok(page))
    }
}

/// The rule in its simplest form: in the order of the log, an event is counted unless it is
/// one that is counted, or comes less than the window after one with its identity.
fn expected(log: &[Prepared]) -> BTreeSet<Key> {
    let mut winners: Vec<Claim> = Vec::new();
    for Prepared { claim, .. } in log {
        let is_known = winners.iter().any(|winner| {
            let same_row =
                winner.seen.time == claim.seen.time && winner.seen.content == claim.seen.content;
            winner.identity == claim.identity && (same_row || claim.is_within(WINDOW, &winner.seen))
        });
        if !is_known {
            winners.push(*claim);
        }
    }
    winners
        .iter()
        .map(|claim| (claim.identity, claim.seen.time, claim.seen.content.0))
        .collect()
}

/// What goes wrong between two batches, or in one.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// Valkey forgets everything before the batch is judged.
    LostBefore,
    /// Valkey forgets everything after the batch was judged.
    LostWithin,
    /// The process is killed before it acknowledges, and the batch comes again.
    Killed,
    /// Both, in the worst order.
    LostWithinAndKilled,
}

struct World {
    registry: Registry,
    prefix: String,
    tables: Tables,
}

impl World {
    fn new(lag: Duration) -> Self {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let prefix = format!("laws:{}:{:x}:{number}", std::process::id(), now());
        Self {
            registry: registry(&prefix, lag),
            prefix,
            tables: Tables::default(),
        }
    }

    async fn forget(&self) {
        let beginning = format!("{}:", self.prefix);
        ledger::testing::forget(&url(), &beginning).await.unwrap();
    }

    async fn judge(&self, batch: &[Prepared]) -> Asked {
        ask(&self.registry, &self.tables, batch).await
    }

    /// Counts a batch as `Process` does.
    async fn count(&self, batch: &[Prepared], fault: Fault) {
        let claims: Vec<_> = batch.iter().map(|prepared| prepared.claim).collect();
        if matches!(fault, Fault::LostBefore) {
            self.forget().await;
        }
        let mut asked = self.judge(batch).await;
        if matches!(fault, Fault::LostWithin | Fault::LostWithinAndKilled) {
            self.forget().await;
        }
        self.tables.write(batch, &asked);
        if matches!(fault, Fault::Killed | Fault::LostWithinAndKilled) {
            asked = self.judge(batch).await;
            self.tables.write(batch, &asked);
        }
        while !self
            .registry
            .confirms(&claims, &asked.judged, &self.tables)
            .await
            .unwrap()
        {
            asked = self.judge(batch).await;
            self.tables.write(batch, &asked);
        }
    }

    async fn count_all(&self, log: &[Prepared], plan: &[(usize, Fault)]) {
        let mut rest = log;
        for (size, fault) in plan.iter().cycle() {
            if rest.is_empty() {
                return;
            }
            let (batch, more) = rest.split_at((*size).min(rest.len()));
            self.count(batch, *fault).await;
            rest = more;
        }
    }
}

/// Judges a batch as `Process` does.
async fn ask(registry: &Registry, tables: &Tables, batch: &[Prepared]) -> Asked {
    let asked_at = tables.versions(batch.len());
    let claims: Vec<_> = batch.iter().map(|prepared| prepared.claim).collect();
    let judged = registry.judge(&claims, tables).await;
    let judged = judged.expect("a Valkey must run: make up");
    Asked {
        judged,
        asked_at,
        known_at: tables.versions(batch.len()),
    }
}

/// Returns the registry as one instance sees it.
fn registry(prefix: &str, lag: Duration) -> Registry {
    let config = LedgerConfig {
        url: url(),
        prefix: prefix.to_owned(),
        timeout: Duration::from_secs(5),
    };
    let window = WINDOW;
    Registry::new(
        Ledger::new(&config).unwrap(),
        RegistryConfig { window, lag },
    )
}

fn url() -> String {
    std::env::var("OPENMETER_VALKEY_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

fn now() -> i64 {
    i64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap()
}

/// A log of four days: few identities, times that are sent again, gaps around the window.
fn log() -> impl Strategy<Value = Vec<Prepared>> {
    let hours = prop::sample::select(vec![0_i64, 1, 5, 12, 23, 25, 30]);
    let age = prop::sample::select(vec![0_i64, 600, 40 * 3600]);
    let one = (
        0_u8..2,
        hours,
        age,
        0_u8..2,
        prop::option::of(any::<prop::sample::Index>()),
    );
    prop::collection::vec(one, 1..9).prop_map(|steps| {
        let total: i64 = steps.iter().map(|(_, hours, ..)| hours * 3600).sum();
        let mut ingested_at = now() - total - 60;
        let mut sent: Vec<(u8, i64, u8)> = Vec::new();
        let mut log = Vec::new();
        for (place, (id, hours, age, what, again)) in steps.into_iter().enumerate() {
            ingested_at += hours * 3600 + 1;
            let fresh = (id, ingested_at - age, what);
            let event = match again {
                Some(index) if place > 0 => *index.get(&sent),
                _ => fresh,
            };
            sent.push(event);
            log.push(delivery(event.0, event.1, event.2, ingested_at));
        }
        log
    })
}

fn plan() -> impl Strategy<Value = Vec<(usize, Fault)>> {
    let faults = vec![
        Fault::None,
        Fault::None,
        Fault::LostBefore,
        Fault::LostWithin,
        Fault::Killed,
        Fault::LostWithinAndKilled,
    ];
    prop::collection::vec((1_usize..5, prop::sample::select(faults)), 1..5)
}

/// Each delivery as `id says what at time, taken at`, in hours before now.
fn shown(log: &[Prepared]) -> String {
    let hours = |micros: i64| (now() - micros / 1_000_000) as f64 / 3600.0;
    let shown = log.iter().map(|prepared| {
        let Claim { identity, seen } = prepared.claim;
        let (time, taken) = (hours(seen.time), hours(seen.ingested_at));
        format!(
            "{:.2} says {} at -{time:.2} h, taken at -{taken:.2} h",
            identity.0[0],
            seen.content.0 % 100
        )
    });
    shown.collect::<Vec<_>>().join("; ")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_log_alone_decides_what_is_counted(
        log in log(),
        first in plan(),
        second in plan(),
        lag_hours in prop::sample::select(vec![1_u64, 6, 1000]),
        rebuild in any::<bool>(),
    ) {
        block_on(async {
            let mut world = World::new(Duration::from_secs(lag_hours * 3600));
            world.count_all(&log, &first).await;
            prop_assert_eq!(world.tables.counted(), expected(&log), "once: {}", shown(&log));
            if rebuild {
                world.forget().await;
                world.tables = Tables::default();
            }
            world.count_all(&log, &second).await;
            prop_assert_eq!(world.tables.counted(), expected(&log), "again: {}", shown(&log));
            world.forget().await;
            Ok(())
        })?;
    }

    #[test]
    fn two_functions_at_once_count_an_event_once(
        one in (0_i64..3, 0_u8..2),
        other in (0_i64..3, 0_u8..2),
        losses in prop::collection::vec(any::<bool>(), 3),
        killed in any::<bool>(),
    ) {
        block_on(async {
            let world = World::new(Duration::from_secs(6 * 3600));
            let (time, taken) = (now() - 100, now() - 50);
            let mine = [delivery(1, time + one.0, one.1, taken)];
            let others = [delivery(1, time + other.0, other.1, taken + 1)];
            let asked = world.judge(&mine).await;
            if losses[0] {
                world.forget().await;
            }
            world.count(&others, Fault::None).await;
            if losses[1] {
                world.forget().await;
            }
            world.tables.write(&mine, &asked);
            let claims = [mine[0].claim];
            if killed {
                if losses[2] {
                    world.forget().await;
                }
                world.count(&mine, Fault::None).await;
            } else if !world.registry.confirms(&claims, &asked.judged, &world.tables).await.unwrap() {
                world.count(&mine, Fault::None).await;
            }
            prop_assert_eq!(world.tables.counted().len(), 1);
            world.forget().await;
            Ok(())
        })?;
    }
}
