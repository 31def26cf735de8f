//! ClickHouse's windows are the model's, for any instant and zone.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use model::{MeterQuery, Window, WindowSize};
use proptest::prelude::*;
use store::testing::TestStore;

use crate::rows::{by, everything, insert, meter, row, shown};

const ZONES: [&str; 16] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "Pacific/Apia",
    "Pacific/Kiritimati",
];

const SIZES: [WindowSize; 4] = [
    WindowSize::Minute,
    WindowSize::Hour,
    WindowSize::Day,
    WindowSize::Month,
];

/// The last microsecond that can be counted.
const LAST: i64 = 10_413_791_999_999_999;

/// Writes one event of value 1 at each instant, asks for every zone and size, and compares
/// with the counts that the model's windows give.
async fn compare(times: &[i64], query: &MeterQuery) {
    let test = TestStore::create().await;
    let rows: Vec<_> = times
        .iter()
        .enumerate()
        .map(|(place, time)| {
            let mut row = row("1970-01-01T00:00:00Z", "1");
            row.id = place.to_string();
            row.time = *time;
            row
        })
        .collect();
    insert(&test.store, &rows).await;
    let is_in = |at: &Timestamp| {
        query.from.is_none_or(|from| *at >= from) && query.to.is_none_or(|to| *at < to)
    };
    for zone in ZONES {
        for size in SIZES {
            let asked = MeterQuery {
                window_size: Some(size),
                zone: TimeZone::get(zone).unwrap(),
                ..query.clone()
            };
            let mut expected: BTreeMap<(Timestamp, Timestamp), u64> = BTreeMap::new();
            let instants = times
                .iter()
                .map(|time| Timestamp::from_microsecond(*time).unwrap());
            for at in instants.filter(is_in) {
                let window = Window::holding(at, size, &asked.zone);
                *expected.entry((window.start, window.end)).or_default() += 1;
            }
            let expected: Vec<_> = expected
                .into_iter()
                .map(|((start, end), count)| format!("{start} {end} {count}"))
                .collect();
            let found = test.store.usage(&meter("COUNT"), &asked).await.unwrap();
            assert_eq!(shown(&found), expected, "{size} {zone}");
        }
    }
    test.remove().await;
}

fn run(times: &[i64], query: &MeterQuery) {
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(compare(times, query));
}

/// An instant anywhere, or within hours of a change of some zone.
fn instants() -> impl Strategy<Value = i64> {
    let anywhere = 0..=LAST;
    let changes: Vec<i64> = ZONES
        .iter()
        .flat_map(|zone| {
            let zone = TimeZone::get(zone).unwrap();
            let changes: Vec<_> = zone
                .following(Timestamp::UNIX_EPOCH)
                .map(|change| change.timestamp().as_microsecond())
                .take_while(|at| *at < LAST)
                .collect();
            changes
        })
        .collect();
    let near = (
        prop::sample::select(changes),
        -50_000_000_000..50_000_000_000_i64,
    )
        .prop_map(|(change, apart)| (change + apart).clamp(0, LAST));
    let at = (prop::sample::select(changes_exact()), -1..=1_i64)
        .prop_map(|(change, apart)| (change + apart).clamp(0, LAST));
    prop_oneof![anywhere, near, at]
}

fn changes_exact() -> Vec<i64> {
    [
        "Europe/Berlin",
        "Africa/Casablanca",
        "Australia/Lord_Howe",
        "Pacific/Apia",
    ]
    .iter()
    .flat_map(|zone| {
        TimeZone::get(zone)
            .unwrap()
            .following(Timestamp::UNIX_EPOCH)
            .map(|change| change.timestamp().as_microsecond())
            .take_while(|at| *at < LAST)
            .collect::<Vec<_>>()
    })
    .collect()
}

proptest! {
    // Each case asks for 16 zones and 4 sizes.
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn any_instant_is_counted_in_the_models_window(
        times in prop::collection::vec(instants(), 300),
    ) {
        run(&times, &everything());
    }

    #[test]
    fn bounds_do_not_move_windows(
        times in prop::collection::vec(1_500_000_000_000_000_i64..1_800_000_000_000_000, 300),
        from in 1_500_000_000_000_000_i64..1_600_000_000_000_000,
        to in 1_600_000_000_000_000_i64..1_800_000_000_000_000,
    ) {
        let query = MeterQuery {
            from: Some(Timestamp::from_microsecond(from).unwrap()),
            to: Some(Timestamp::from_microsecond(to).unwrap()),
            ..everything()
        };
        run(&times, &query);
    }
}

#[test]
fn the_first_and_the_last_instant_have_windows() {
    run(&[0, 1, 59_999_999, LAST - 1, LAST], &everything());
}

#[tokio::test]
async fn summer_time_makes_days_of_23_and_25_hours() {
    let test = TestStore::create().await;
    insert(
        &test.store,
        &[
            row("2024-03-31T21:59:59.999999Z", "1"),
            row("2024-03-31T22:00:00Z", "2"),
            row("2024-10-27T22:59:59.999999Z", "4"),
            row("2024-10-27T23:00:00Z", "8"),
        ],
    )
    .await;
    let found = test
        .store
        .usage(&meter("SUM"), &by(WindowSize::Day, "Europe/Berlin"))
        .await
        .unwrap();
    assert_eq!(
        shown(&found),
        [
            "2024-03-30T23:00:00Z 2024-03-31T22:00:00Z 1",
            "2024-03-31T22:00:00Z 2024-04-01T22:00:00Z 2",
            "2024-10-26T22:00:00Z 2024-10-27T23:00:00Z 4",
            "2024-10-27T23:00:00Z 2024-10-28T23:00:00Z 8",
        ]
    );
    test.remove().await;
}

#[tokio::test]
async fn months_from_1970_to_2299_are_kept_apart() {
    let test = TestStore::create().await;
    let rows: Vec<_> = [1970, 2037, 2038, 2106, 2107, 2200, 2299]
        .iter()
        .flat_map(|year| {
            [
                row(&format!("{year}-01-01T00:00:00Z"), "1"),
                row(&format!("{year}-12-31T23:59:59.999999Z"), "2"),
            ]
        })
        .collect();
    insert(&test.store, &rows).await;
    test.run("OPTIMIZE TABLE usage FINAL").await;
    let found = test
        .store
        .usage(&meter("SUM"), &by(WindowSize::Month, "UTC"))
        .await
        .unwrap();
    assert_eq!(found.len(), 14);
    assert_eq!(
        shown(&found)[13],
        "2299-12-01T00:00:00Z 2300-01-01T00:00:00Z 2"
    );
    test.remove().await;
}
