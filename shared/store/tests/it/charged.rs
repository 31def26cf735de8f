//! Usage by what decides its price.

use std::collections::BTreeSet;

use model::{Catalog, Content, Decimal, Identity, PriceList, QuotaRules};
use store::{Charged, PricedRow, Store, Subjects, UsageRecord, testing::TestStore};

use crate::rows::micros;

const METERS: &str = "meters:
  - {slug: calls, eventType: t, aggregation: COUNT, groupBy: {endpoint: $.e, method: $.m}}
  - {slug: bytes, eventType: t, aggregation: SUM, valueProperty: $.v, groupBy: {endpoint: $.e}}
  - {slug: free, eventType: t, aggregation: COUNT}
";

/// 2024-01-02T00:00:00Z, in days since 1970.
const SECOND_OF_JANUARY: i64 = 19_724;
const DAY: i64 = 86_400_000_000;

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) meter: &'static str,
    pub(crate) subject: String,
    pub(crate) id: String,
    pub(crate) time: i64,
    pub(crate) ingested_at: i64,
    pub(crate) value: &'static str,
    pub(crate) endpoint: &'static str,
    pub(crate) stored_at: i64,
    pub(crate) is_deleted: bool,
    pub(crate) content: u64,
}

pub(crate) fn row(meter: &'static str, subject: &str, id: &str, time: &str) -> Row {
    Row {
        meter,
        subject: subject.to_owned(),
        id: id.to_owned(),
        time: micros(time),
        ingested_at: micros(time),
        value: "1",
        endpoint: "/a",
        stored_at: 1,
        is_deleted: false,
        content: 1,
    }
}

pub(crate) async fn insert(store: &Store, rows: &[Row]) {
    let catalog = Catalog::from_yaml(METERS).unwrap();
    let groups: Vec<_> = rows
        .iter()
        .map(|row| vec![row.endpoint.to_owned(), "GET".to_owned()])
        .collect();
    let records: Vec<_> = rows
        .iter()
        .zip(&groups)
        .map(|(row, groups)| {
            let dimensions = &catalog.meter(row.meter).unwrap().group_by;
            UsageRecord {
                meter: row.meter,
                subject: &row.subject,
                time: row.time,
                identity: Identity::of("test", &row.id),
                content: Content(row.content),
                value: row.value.parse().unwrap(),
                text: "",
                dimensions,
                groups: &groups[..dimensions.len()],
                definitions: 7,
                ingested_at: row.ingested_at,
                stored_at: row.stored_at,
                is_deleted: row.is_deleted,
            }
        })
        .collect();
    store.insert_usage(&records).await.unwrap();
}

fn prices(versions: &str) -> PriceList {
    let catalog = Catalog::from_yaml(METERS).unwrap();
    let yaml = format!("prices: [{{meter: calls, versions: [{versions}]}}]");
    QuotaRules::from_yaml(&yaml, &catalog).unwrap().prices
}

fn one(subject: &str) -> [String; 1] {
    [subject.to_owned()]
}

pub(crate) const ALWAYS: std::ops::Range<i64> = 0..i64::MAX;

/// Each as `subject day value group rows`, days as in January of 2024.
fn counted(charged: &[Charged]) -> Vec<String> {
    charged
        .iter()
        .map(|some| {
            let Charged {
                subject,
                value,
                group,
                rows,
                ..
            } = some;
            let day = some.day - SECOND_OF_JANUARY + 2;
            format!("{subject} {day} {value} {group} {rows}")
        })
        .collect()
}

/// The whole of what is charged at these prices.
async fn charged(store: &Store, prices: &PriceList) -> Vec<String> {
    let mut all = Vec::new();
    for span in prices.spans() {
        let charged = store.charged(&span, ALWAYS, Subjects::All).await.unwrap();
        all.extend(counted(&charged));
    }
    all
}

/// Each as `subject meter value`.
pub(crate) fn listed(rows: &[PricedRow]) -> Vec<String> {
    rows.iter()
        .map(|row| format!("{} {} {}", row.subject, row.meter, row.value))
        .collect()
}

#[tokio::test]
async fn rows_are_counted_by_subject_ingest_day_value_and_group() {
    let test = TestStore::create().await;
    let at = |id, ingested: &str| Row {
        ingested_at: micros(ingested),
        ..row("calls", "a", id, "2024-01-01T12:00:00Z")
    };
    insert(
        &test.store,
        &[
            at("last of a day", "2024-01-01T23:59:59.999999Z"),
            at("first of a day", "2024-01-02T00:00:00Z"),
            at("as dear", "2024-01-02T13:00:00Z"),
            Row {
                value: "0.0000000000000000001",
                ..at("other value", "2024-01-02T13:00:00Z")
            },
            Row {
                endpoint: "",
                ..at("other group", "2024-01-02T13:00:00Z")
            },
            Row {
                subject: "b".to_owned(),
                ..at("other subject", "2024-01-02T13:00:00Z")
            },
            Row {
                meter: "bytes",
                ..at("other meter", "2024-01-02T13:00:00Z")
            },
            // Of an event far older than the others that day.
            Row {
                ingested_at: micros("2024-01-02T01:00:00Z"),
                ..row("calls", "b", "late", "2022-05-01T00:00:00Z")
            },
        ],
    )
    .await;
    let by_endpoint = prices("{credits_per_unit: 1, group_by: endpoint, by_value: {/a: 2}}");
    assert_eq!(
        charged(&test.store, &by_endpoint).await,
        [
            "a 1 1 /a 1",
            "a 2 0.0000000000000000001 /a 1",
            "a 2 1  1",
            "a 2 1 /a 2",
            "b 2 1 /a 2",
        ]
    );
    let alike = prices("{credits_per_unit: 1}");
    assert_eq!(
        charged(&test.store, &alike).await,
        [
            "a 1 1  1",
            "a 2 0.0000000000000000001  1",
            "a 2 1  3",
            "b 2 1  2"
        ]
    );
    let span = alike.spans().next().unwrap();
    let second = SECOND_OF_JANUARY * DAY..(SECOND_OF_JANUARY + 1) * DAY;
    let first = second.start - DAY..second.start;
    for (ingested, subjects, expected) in [
        (first, Subjects::All, vec!["a 1 1  1"]),
        (second.clone(), Subjects::These(&one("b")), vec!["b 2 1  2"]),
        (second.clone(), Subjects::These(&one("c")), vec![]),
        (second.clone(), Subjects::These(&[]), vec![]),
        (second.end..i64::MAX, Subjects::All, vec![]),
    ] {
        let charged = test.store.charged(&span, ingested, subjects).await.unwrap();
        assert_eq!(counted(&charged), expected);
    }
    test.remove().await;
}

#[tokio::test]
async fn a_version_of_a_price_has_the_rows_of_its_times() {
    let test = TestStore::create().await;
    insert(
        &test.store,
        &[
            row("calls", "a", "1", "1970-01-01T00:00:00Z"),
            row("calls", "a", "2", "2023-12-31T23:59:59.999999Z"),
            row("calls", "a", "3", "2024-01-01T00:00:00Z"),
            row("calls", "a", "4", "2299-12-31T23:59:59.999999Z"),
        ],
    )
    .await;
    let prices = prices(
        "{credits_per_unit: 1}, {effective_from: 2024-01-01T00:00:00Z, credits_per_unit: 2}",
    );
    for (span, (from, expected)) in prices.spans().zip([
        (i64::MIN, ["1970-01-01", "2023-12-31"]),
        (micros("2024-01-01T00:00:00Z"), ["2024-01-01", "2299-12-31"]),
    ]) {
        assert_eq!(span.from, from);
        let charged = test
            .store
            .charged(&span, ALWAYS, Subjects::All)
            .await
            .unwrap();
        let days: Vec<_> = charged.iter().map(|some| some.day).collect();
        let expected = expected.map(|day| micros(&format!("{day}T00:00:00Z")) / DAY);
        assert_eq!(days, expected);
    }
    test.remove().await;
}

#[tokio::test]
async fn what_is_charged_is_what_stands() {
    let test = TestStore::create().await;
    let first = row("calls", "a", "1", "2024-01-02T00:00:00Z");
    let taken = row("calls", "a", "2", "2024-01-02T00:00:00Z");
    insert(&test.store, &[first.clone(), taken.clone()]).await;
    // Written again, with another ingest day and group, and taken away.
    let rewritten = Row {
        stored_at: 3,
        ingested_at: micros("2024-01-03T00:00:00Z"),
        endpoint: "/b",
        ..first.clone()
    };
    let gone = Row {
        stored_at: 3,
        is_deleted: true,
        ..taken.clone()
    };
    insert(&test.store, &[rewritten.clone(), gone]).await;
    // Judged before those and inserted after them.
    let overtaken = Row {
        stored_at: 2,
        ..first
    };
    insert(
        &test.store,
        &[
            overtaken,
            Row {
                stored_at: 2,
                ..taken
            },
        ],
    )
    .await;

    let by_endpoint = prices("{credits_per_unit: 1, group_by: endpoint, by_value: {/a: 2}}");
    assert_eq!(charged(&test.store, &by_endpoint).await, ["a 3 1 /b 1"]);
    let span = by_endpoint.spans().next().unwrap();
    let second = SECOND_OF_JANUARY * DAY..(SECOND_OF_JANUARY + 1) * DAY;
    let old = test
        .store
        .charged(&span, second.clone(), Subjects::All)
        .await;
    assert!(old.unwrap().is_empty());
    let old = test
        .store
        .priced_rows(&["calls"], second, Subjects::All)
        .await;
    assert!(old.unwrap().is_empty());
    let rows = test
        .store
        .priced_rows(&["calls"], ALWAYS, Subjects::All)
        .await;
    let groups = [("endpoint", "/b"), ("method", "GET")];
    assert_eq!(
        rows.unwrap(),
        [PricedRow {
            subject: "a".to_owned(),
            identity: Identity::of("test", "1"),
            meter: "calls".to_owned(),
            time: rewritten.time,
            value: Decimal::ONE,
            groups: groups
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            ingested_at: rewritten.ingested_at,
        }]
    );
    test.remove().await;
}

#[tokio::test]
async fn a_subject_may_be_any_text() {
    let test = TestStore::create().await;
    let odd = [
        "it's",
        "\"q\"",
        "a\\'b",
        "a,b",
        "ÄÖ",
        "日本",
        "\0\n\t",
        "{x:String}",
        "--",
        "%",
        "?",
    ];
    let rows: Vec<_> = odd
        .iter()
        .map(|subject| row("calls", subject, subject, "2024-01-02T00:00:00Z"))
        .collect();
    insert(&test.store, &rows).await;
    let prices = prices("{credits_per_unit: 1}");
    let span = prices.spans().next().unwrap();
    for subject in odd {
        let these = one(subject);
        let these = Subjects::These(&these);
        let charged = test.store.charged(&span, ALWAYS, these).await.unwrap();
        assert_eq!(counted(&charged), [format!("{subject} 2 1  1")]);
        let rows = test.store.priced_rows(&["calls"], ALWAYS, these).await;
        assert_eq!(listed(&rows.unwrap()), [format!("{subject} calls 1")]);
    }
    let all = test.store.subjects_of(&["calls"]).await.unwrap();
    let sorted: BTreeSet<_> = odd.map(str::to_owned).into();
    assert_eq!(all, sorted.into_iter().collect::<Vec<_>>());
    test.remove().await;
}

#[tokio::test]
async fn any_number_of_subjects_can_be_asked_for() {
    let test = TestStore::create().await;
    let name = |n: usize| format!("{n:06}-{}", "x".repeat(150));
    let rows: Vec<_> = (0..20_000)
        .map(|n| row("calls", &name(n), "e", "2024-01-02T00:00:00Z"))
        .collect();
    insert(&test.store, &rows).await;
    let prices = prices("{credits_per_unit: 1}");
    let span = prices.spans().next().unwrap();
    // Twice each, in disorder, and as many of whom there is nothing.
    let asked: Vec<_> = (0..20_000).rev().chain(5_000..25_000).map(name).collect();
    let these = Subjects::These(&asked);
    let charged = test.store.charged(&span, ALWAYS, these).await.unwrap();
    assert_eq!(charged.len(), 20_000);
    assert!(charged.iter().all(|some| some.rows == 1));
    let rows = test
        .store
        .priced_rows(&["calls"], ALWAYS, these)
        .await
        .unwrap();
    assert_eq!(rows.len(), 20_000);
    assert!(rows.is_sorted_by_key(|row| row.subject.clone()));
    test.remove().await;
}
