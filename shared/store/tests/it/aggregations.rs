//! Each aggregation, exactly; filters, groups and bounds.

use model::{Aggregation, MeterQuery, WindowSize};
use store::testing::TestStore;

use crate::rows::{between, by, everything, insert, meter, row, shown};

#[tokio::test]
async fn each_aggregation_is_exact() {
    let test = TestStore::create().await;
    let rows: Vec<_> = ["10", "0.1", "0.2", "-3.0000000000000000001", "10"]
        .iter()
        .enumerate()
        .map(|(place, value)| row(&format!("2024-01-01T00:00:0{place}Z"), value))
        .collect();
    insert(&test.store, &rows).await;
    for (aggregation, expected) in [
        (Aggregation::Count, "5"),
        (Aggregation::Sum, "17.2999999999999999999"),
        (Aggregation::Avg, "3.46"),
        (Aggregation::Min, "-3.0000000000000000001"),
        (Aggregation::Max, "10"),
        (Aggregation::UniqueCount, "4"),
        (Aggregation::Latest, "10"),
        (Aggregation::Quantiles, "0.2"),
    ] {
        let found = test
            .store
            .usage(&meter(aggregation.name()), &everything())
            .await
            .unwrap();
        let span = "2024-01-01T00:00:00Z 2024-01-01T00:01:00Z";
        assert_eq!(
            shown(&found),
            [format!("{span} {expected}")],
            "{aggregation}"
        );
    }
    test.remove().await;
}

#[tokio::test]
async fn sums_beyond_the_range_of_a_value_neither_wrap_nor_round() {
    let test = TestStore::create().await;
    let largest = "9999999999999999999.9999999999999999999";
    let mut rows: Vec<_> = (0..30)
        .map(|second| row(&format!("2024-01-01T00:00:{second:02}Z"), largest))
        .collect();
    insert(&test.store, &rows).await;
    let sum = test
        .store
        .usage(&meter("SUM"), &everything())
        .await
        .unwrap();
    assert_eq!(
        sum[0].value.to_string(),
        "299999999999999999999.999999999999999997"
    );
    let mean = test
        .store
        .usage(&meter("AVG"), &everything())
        .await
        .unwrap();
    assert_eq!(mean[0].value.to_string(), largest);

    for row in &mut rows {
        row.value = format!("-{largest}").parse().unwrap();
        row.subject = "negative".to_owned();
    }
    insert(&test.store, &rows).await;
    let query = MeterQuery {
        by_subject: true,
        ..everything()
    };
    let sums = test.store.usage(&meter("SUM"), &query).await.unwrap();
    assert_eq!(
        sums[0].value.to_string(),
        "-299999999999999999999.999999999999999997"
    );
    assert_eq!(
        sums[1].value.to_string(),
        "299999999999999999999.999999999999999997"
    );
    let all = test
        .store
        .usage(&meter("SUM"), &everything())
        .await
        .unwrap();
    assert_eq!(all[0].value.to_string(), "0");
    test.remove().await;
}

#[tokio::test]
async fn a_quantile_is_the_value_at_its_place() {
    let test = TestStore::create().await;
    let rows: Vec<_> = (1..=20)
        .map(|value| {
            row(
                &format!("2024-01-01T00:00:{value:02}Z"),
                &format!("{value}.5"),
            )
        })
        .collect();
    insert(&test.store, &rows).await;
    let found = test
        .store
        .usage(&meter("QUANTILES"), &everything())
        .await
        .unwrap();
    let quantiles = found[0].quantiles.unwrap().map(|value| value.to_string());
    assert_eq!(quantiles, ["11.5", "19.5", "20.5", "20.5"]);
    assert_eq!(found[0].value.to_string(), "11.5");
    test.remove().await;
}

#[tokio::test]
async fn the_latest_of_one_instant_is_always_the_same() {
    let test = TestStore::create().await;
    let mut rows = vec![
        row("2024-01-01T00:00:01Z", "1"),
        row("2024-01-01T00:00:01Z", "2"),
    ];
    rows.push(row("2024-01-01T00:00:00Z", "3"));
    insert(&test.store, &rows).await;
    let first = test
        .store
        .usage(&meter("LATEST"), &everything())
        .await
        .unwrap();
    assert_ne!(first[0].value.to_string(), "3");
    test.run("OPTIMIZE TABLE usage FINAL").await;
    let again = test
        .store
        .usage(&meter("LATEST"), &everything())
        .await
        .unwrap();
    assert_eq!(first, again);
    test.remove().await;
}

#[tokio::test]
async fn from_is_in_and_to_is_out_to_the_microsecond() {
    let test = TestStore::create().await;
    let rows = [
        row("2024-01-01T00:00:00.000001Z", "1"),
        row("2024-01-01T00:00:00.000002Z", "10"),
        row("2024-01-01T00:00:00.000003Z", "100"),
    ];
    insert(&test.store, &rows).await;
    for (from, to, expected) in [
        ("000001", "000003", "11"),
        ("000002", "000003", "10"),
        ("0000011", "0000031", "110"),
        ("000001", "000004", "111"),
    ] {
        let query = between(
            &format!("2024-01-01T00:00:00.{from}Z"),
            &format!("2024-01-01T00:00:00.{to}Z"),
        );
        let found = test.store.usage(&meter("SUM"), &query).await.unwrap();
        assert_eq!(found[0].value.to_string(), expected, "{from} {to}");
        assert_eq!(Some(found[0].window.start), query.from);
        assert_eq!(Some(found[0].window.end), query.to);
    }
    test.remove().await;
}

#[tokio::test]
async fn nothing_is_no_row_but_for_counts_of_a_stretch_of_time() {
    let test = TestStore::create().await;
    let hour = between("2024-01-01T01:00:00Z", "2024-01-01T02:00:00Z");
    let windowed = MeterQuery {
        window_size: Some(WindowSize::Minute),
        ..hour.clone()
    };
    for aggregation in Aggregation::ALL {
        let counts = matches!(aggregation, Aggregation::Count | Aggregation::UniqueCount);
        let meter = meter(aggregation.name());
        let found = test.store.usage(&meter, &hour).await.unwrap();
        let expected: &[&str] = if counts {
            &["2024-01-01T01:00:00Z 2024-01-01T02:00:00Z 0"]
        } else {
            &[]
        };
        assert_eq!(shown(&found), expected, "{aggregation}");
        for query in [
            everything(),
            windowed.clone(),
            by(WindowSize::Day, "Europe/Berlin"),
        ] {
            let found = test.store.usage(&meter, &query).await.unwrap();
            assert!(found.is_empty(), "{aggregation}: {found:?}");
        }
    }
    test.remove().await;
}

#[tokio::test]
async fn any_text_can_be_a_subject_or_a_group() {
    let test = TestStore::create().await;
    let odd = [
        "it's",
        "a\\b",
        "tab\tnew\nline\r",
        "\"quoted\", `ticked` [x]",
        "{meter:String} ? ??",
        "nul\0 bell\u{7} üñ 漢 🦀",
        "' OR 1 = 1 --",
        "\\N",
        "",
    ];
    let rows: Vec<_> = odd
        .iter()
        .enumerate()
        .map(|(place, text)| {
            let mut row = row(&format!("2024-01-01T00:00:0{place}Z"), "1");
            row.subject = format!("s{text}");
            row.groups[0] = (*text).to_owned();
            row
        })
        .collect();
    insert(&test.store, &rows).await;
    for text in odd {
        let query = MeterQuery {
            subjects: vec![format!("s{text}"), "nobody".to_owned()],
            by_subject: true,
            group_by: vec!["endpoint".to_owned()],
            filters: [("endpoint".to_owned(), vec!["x".to_owned(), text.to_owned()])].into(),
            ..everything()
        };
        let found = test.store.usage(&meter("COUNT"), &query).await.unwrap();
        assert_eq!(found.len(), 1, "{text:?}");
        assert_eq!(found[0].subject.as_deref(), Some(&*format!("s{text}")));
        assert_eq!(found[0].groups, [text]);
    }
    let mut sorted = odd.map(str::to_owned);
    sorted.sort();
    let values = test
        .store
        .group_values("m", "endpoint", None, None)
        .await
        .unwrap();
    assert_eq!(values, sorted);
    let subjects = test.store.subjects("m", None, None).await.unwrap();
    assert_eq!(subjects, sorted.map(|text| format!("s{text}")));
    let none = test
        .store
        .subjects("m", Some("2025-01-01T00:00:00Z".parse().unwrap()), None)
        .await
        .unwrap();
    assert!(none.is_empty());
    test.remove().await;
}

#[tokio::test]
async fn rows_come_by_window_then_subject_then_groups() {
    let test = TestStore::create().await;
    let mut rows = Vec::new();
    for day in ["02", "01"] {
        for subject in ["b", "a"] {
            for endpoint in ["/z", "/y"] {
                let mut row = row(&format!("2024-01-{day}T00:00:00Z"), "2");
                row.id = format!("{day}{subject}{endpoint}");
                row.subject = subject.to_owned();
                row.groups[0] = endpoint.to_owned();
                rows.push(row);
            }
        }
    }
    insert(&test.store, &rows).await;
    let query = MeterQuery {
        by_subject: true,
        group_by: vec!["endpoint".to_owned()],
        ..by(WindowSize::Day, "UTC")
    };
    let found = test.store.usage(&meter("SUM"), &query).await.unwrap();
    let shown = shown(&found);
    assert_eq!(shown.len(), 8);
    assert!(shown.is_sorted(), "{shown:?}");
    test.remove().await;
}

#[tokio::test]
async fn a_row_that_is_written_again_counts_once_and_a_tombstone_takes_it_away() {
    let test = TestStore::create().await;
    let mut first = row("2024-01-01T00:00:00Z", "5");
    insert(&test.store, &[first.clone(), first.clone()]).await;
    first.stored_at = 2;
    insert(&test.store, std::slice::from_ref(&first)).await;
    let sum = test
        .store
        .usage(&meter("SUM"), &everything())
        .await
        .unwrap();
    assert_eq!(sum[0].value.to_string(), "5");
    assert_eq!(
        test.texts("SELECT toString(count()) FROM usage_current")
            .await,
        ["1"]
    );

    first.stored_at = 3;
    first.is_deleted = true;
    insert(&test.store, &[first]).await;
    let sum = test
        .store
        .usage(&meter("SUM"), &everything())
        .await
        .unwrap();
    assert!(sum.is_empty(), "{sum:?}");
    test.remove().await;
}
