//! Figures, on demand: `cargo test --release -p store -- --ignored --nocapture measure`.

use std::{collections::BTreeMap, time::Instant};

use model::{
    Catalog, Content, Decimal, History, Identity, Meter, MeterQuery, QuotaRules, WindowSize,
};
use store::{EventRow, State, Subjects, UsageRecord, testing::TestStore};

use crate::rows::by;

const BATCH: usize = 50_000;

const METERS: &str = "meters: [{slug: api_latency, eventType: api.call, aggregation: SUM, \
                      valueProperty: $.ms, groupBy: {endpoint: $.endpoint, method: $.method}}]";

fn count(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run it in release"]
async fn measure_the_store() {
    let rows = count("ROWS", 1_000_000);
    let test = TestStore::create().await;
    let catalog = Catalog::from_yaml(METERS).unwrap();
    let meter = &catalog.meters()[0];
    let attributes = BTreeMap::from([("datacontenttype".into(), "application/json".into())]);
    let subjects: Vec<_> = (0..500).map(|n| format!("tpp-{n:05}")).collect();
    let start = crate::rows::micros("2024-01-01T00:00:00Z");
    let month = 31 * 86_400_000_000_i64;
    let step = month / i64::try_from(rows).unwrap();
    let data =
        br#"{"endpoint":"/accounts","method":"GET","status_code":200,"response_time_ms":45}"#;
    let (mut for_events, mut for_usage) = (0.0, 0.0);
    for batch in 0..rows / BATCH {
        let places = batch * BATCH..(batch + 1) * BATCH;
        let ids: Vec<_> = places
            .clone()
            .map(|place| format!("9b0e4c1a-{place:012}"))
            .collect();
        let groups: Vec<_> = places
            .clone()
            .map(|place| vec![format!("/endpoint/{}", place % 20), "GET".to_owned()])
            .collect();
        let identities: Vec<_> = ids.iter().map(|id| Identity::of("gateway", id)).collect();
        let time = |place: usize| start + step * i64::try_from(place).unwrap();
        let events: Vec<_> = places
            .clone()
            .zip(&ids)
            .zip(&identities)
            .map(|((place, id), identity)| EventRow {
                identity: *identity,
                time: time(place),
                id,
                source: "gateway",
                event_type: "api.call",
                subject: &subjects[place * 7 % 500],
                data,
                attributes: &attributes,
                state: State::Valid,
                error: "",
                content: Content((place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                definitions: 7,
                ingested_at: time(place) + 5,
                stored_at: time(places.end),
                is_deleted: false,
            })
            .collect();
        let usage: Vec<_> = places
            .clone()
            .zip(&identities)
            .zip(&groups)
            .map(|((place, identity), groups)| UsageRecord {
                meter: &meter.slug,
                subject: &subjects[place * 7 % 500],
                time: time(place),
                identity: *identity,
                content: Content(place as u64),
                value: Decimal::from_mantissa(place as i128 * 10_i128.pow(17)).unwrap(),
                text: "",
                dimensions: &meter.group_by,
                groups,
                definitions: 7,
                ingested_at: time(place) + 5,
                stored_at: time(places.end),
                is_deleted: false,
            })
            .collect();
        let begun = Instant::now();
        test.store.insert_events(&events).await.unwrap();
        for_events += begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        test.store.insert_usage(&usage).await.unwrap();
        for_usage += begun.elapsed().as_secs_f64();
    }
    let per_second = |seconds: f64| rows as f64 / seconds;
    println!("events: {:.0} rows/s", per_second(for_events));
    println!("usage: {:.0} rows/s", per_second(for_usage));

    let query = MeterQuery {
        by_subject: true,
        group_by: vec!["endpoint".to_owned()],
        ..by(WindowSize::Day, "Europe/Berlin")
    };
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = test.store.usage(meter, &query).await.unwrap();
        println!(
            "day x subject x endpoint: {} rows in {:?}",
            answer.len(),
            begun.elapsed()
        );
    }
    measure_charges(&test, meter, rows).await;
    let spread = |place: usize| {
        Identity::of(
            "gateway",
            &format!("9b0e4c1a-{:012}", place * (rows / BATCH)),
        )
    };
    let old: Vec<_> = (0..BATCH).map(spread).collect();
    let new: Vec<_> = (0..BATCH)
        .map(|place| Identity::of("new", &place.to_string()))
        .collect();
    let near: Vec<_> = (0..BATCH)
        .map(|place| Identity::of("gateway", &format!("9b0e4c1a-{place:012}")))
        .collect();
    for (name, identities) in [
        ("stored, spread", &old),
        ("stored, near", &near),
        ("never stored", &new),
    ] {
        let begun = Instant::now();
        let found = test.store.seen(identities).await.unwrap();
        println!(
            "seen, {name}: {} of {BATCH} in {:?}",
            found.len(),
            begun.elapsed()
        );
    }
    let begun = Instant::now();
    let found = test.store.seen(&new[..1000]).await.unwrap();
    println!(
        "seen, never stored: {} of 1000 in {:?}",
        found.len(),
        begun.elapsed()
    );
    let begun = Instant::now();
    let (mut cursor, mut read) = (0, 0);
    while let Ok(page) = test.store.seen_after(cursor, 0).await {
        read += page.rows.len();
        let Some(next) = page.next else { break };
        cursor = next;
    }
    println!("seen_after: {read} rows in {:?}", begun.elapsed());
    let begun = Instant::now();
    let listed = test
        .store
        .events(&store::EventFilter::default())
        .await
        .unwrap();
    println!("list {} events: {:?}", listed.len(), begun.elapsed());
    if std::env::var_os("KEEP").is_none() {
        test.remove().await;
    }
}

async fn measure_charges(test: &TestStore, meter: &Meter, rows: usize) {
    let store = &test.store;
    let catalog = Catalog::from_yaml(METERS).unwrap();
    let yaml = format!(
        "prices: [{{meter: {}, versions: [{{credits_per_unit: 1, group_by: endpoint, \
         by_value: {{/endpoint/1: 2}}}}]}}]",
        meter.slug
    );
    let prices = QuotaRules::from_yaml(&yaml, &catalog).unwrap().prices;
    let span = prices.spans().next().unwrap();
    let meters = [&*meter.slug];
    let last = store.clock().await.unwrap();
    // A few late events of every subject, all over the month.
    let start = crate::rows::micros("2024-01-01T00:00:00Z");
    let ids: Vec<_> = (0..1000).map(|n| format!("late-{n}")).collect();
    let groups = vec!["/endpoint/1".to_owned(), "GET".to_owned()];
    let subjects: Vec<_> = (0..500).map(|n| format!("tpp-{n:05}")).collect();
    let late: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| UsageRecord {
            meter: &meter.slug,
            subject: &subjects[n % 500],
            time: start + n as i64 * 2_600_000_000,
            identity: Identity::of("gateway", id),
            content: Content(1),
            value: Decimal::ONE,
            text: "",
            dimensions: &meter.group_by,
            groups: &groups,
            definitions: 7,
            ingested_at: start + 40 * 86_400_000_000,
            stored_at: 1,
            is_deleted: false,
        })
        .collect();
    store.insert_usage(&late).await.unwrap();
    let all = 0..i64::MAX;
    let day = start + 86_400_000_000..start + 2 * 86_400_000_000;
    for _ in 0..2 {
        let begun = Instant::now();
        let found = store.priced_rows_inserted(&meters, last..i64::MAX).await;
        println!(
            "inserted since: {} rows in {:?}",
            found.unwrap().len(),
            begun.elapsed()
        );
        let begun = Instant::now();
        let found = store
            .priced_rows_inserted(&meters, i64::MAX - 1..i64::MAX)
            .await;
        println!(
            "inserted since: {} rows in {:?}",
            found.unwrap().len(),
            begun.elapsed()
        );
        for (name, subjects) in [("one", &subjects[..1]), ("all", &subjects[..])] {
            let these = Subjects::These(subjects);
            let begun = Instant::now();
            let found = store
                .priced_rows(&meters, day.clone(), these)
                .await
                .unwrap();
            println!(
                "a day's rows, {name}: {} in {:?}",
                found.len(),
                begun.elapsed()
            );
            let begun = Instant::now();
            let found = store.charged(&span, day.clone(), these).await.unwrap();
            println!(
                "charged, a day, {name}: {} in {:?}",
                found.len(),
                begun.elapsed()
            );
            let begun = Instant::now();
            let found = store.charged(&span, all.clone(), these).await.unwrap();
            println!(
                "charged, ever, {name}: {} in {:?}",
                found.len(),
                begun.elapsed()
            );
        }
    }
    let begun = Instant::now();
    let found = store.subjects_of(&meters).await.unwrap();
    println!(
        "who is charged, of {rows}: {} in {:?}",
        found.len(),
        begun.elapsed()
    );
}
