//! The schema is made once, however many make it.

use futures::future::join_all;
use store::{Address, Store, StoreConfig, testing::TestStore};

use crate::rows::{insert, row};

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_can_migrate_at_once_and_again() {
    let test = TestStore::without_schema();
    let stores: Vec<_> = (0..16)
        .map(|_| Store::connect(test.config.clone()))
        .collect();
    for result in join_all(stores.iter().map(Store::migrate)).await {
        result.unwrap();
    }
    test.store.migrate().await.unwrap();
    let steps = test
        .texts("SELECT DISTINCT name FROM schema_migrations ORDER BY version")
        .await;
    assert_eq!(
        steps,
        [
            "events",
            "usage",
            "events_current",
            "usage_current",
            "usage_inserted_at",
            "usage_before",
            "usage_inserted_index",
            "usage_inserted_indexed",
            "usage_inserted_now",
            "grants",
            "balances",
        ]
    );
    test.remove().await;
}

/// As a database stands that knows no credits, with rows of two months.
async fn at_step_4() -> TestStore {
    let test = TestStore::without_schema();
    test.create_database().await;
    test.run(
        "CREATE TABLE schema_migrations \
         (version UInt32, name String, applied_at DateTime64(6, 'UTC')) \
         ENGINE = ReplacingMergeTree(applied_at) ORDER BY version",
    )
    .await;
    test.run("INSERT INTO schema_migrations SELECT number + 1, '', now() FROM numbers(4)")
        .await;
    for sql in [
        include_str!("../../src/schema/1_events.sql"),
        include_str!("../../src/schema/2_usage.sql"),
        include_str!("../../src/schema/3_events_current.sql"),
        include_str!("../../src/schema/4_usage_current.sql"),
    ] {
        test.run(sql).await;
    }
    insert(
        &test.store,
        &[
            row("2024-01-01T00:00:00Z", "1"),
            row("2024-02-01T00:00:00Z", "2"),
        ],
    )
    .await;
    test
}

const INSERTED: &str = "SELECT concat(toString(value), ' ', toString(inserted_at)) FROM usage \
                        WHERE inserted_at < toDateTime64(1, 6, 'UTC') ORDER BY time";

#[tokio::test(flavor = "multi_thread")]
async fn rows_from_before_are_inserted_at_one_time_for_ever() {
    let test = at_step_4().await;
    let stores: Vec<_> = (0..8)
        .map(|_| Store::connect(test.config.clone()))
        .collect();
    for result in join_all(stores.iter().map(Store::migrate)).await {
        result.unwrap();
    }
    let before = test.store.clock().await.unwrap();
    insert(&test.store, &[row("2024-01-01T00:00:00Z", "3")]).await;
    let old = [
        "1 1970-01-01 00:00:00.000000",
        "2 1970-01-01 00:00:00.000000",
    ];
    assert_eq!(test.texts(INSERTED).await, old);
    let after = test.store.clock().await.unwrap();
    let inserted = test
        .store
        .priced_rows_inserted(&["m"], before..after + 1)
        .await;
    assert_eq!(inserted.unwrap().len(), 1);

    // Whoever began before all of that was done may do it again.
    let times = "SELECT toString(inserted_at) FROM usage ORDER BY time, value";
    let kept = test.texts(times).await;
    test.run("TRUNCATE TABLE schema_migrations").await;
    test.store.migrate().await.unwrap();
    assert_eq!(test.texts(times).await, kept);
    // What stands when parts are merged stands as it was.
    test.run("OPTIMIZE TABLE usage FINAL").await;
    assert_eq!(test.texts(times).await, kept);
    test.remove().await;
}

#[tokio::test]
async fn every_old_part_has_the_index_of_the_new_column() {
    let test = at_step_4().await;
    test.store.migrate().await.unwrap();
    let plan = test
        .texts(
            "EXPLAIN indexes = 1 SELECT count() FROM usage \
             WHERE inserted_at >= toDateTime64('2024-01-01 00:00:00', 6, 'UTC') \
             SETTINGS use_statistics_for_part_pruning = 0",
        )
        .await
        .join("\n");
    let (_, skipped) = plan.split_once("Name: inserted_at").unwrap();
    assert!(skipped.contains("Parts: 0/2"), "{plan}");
    test.remove().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_worth_another_try() {
    let address: Address = "127.0.0.1:1".parse().unwrap();
    let store = Store::connect(StoreConfig {
        address,
        ..StoreConfig::default()
    });
    let error = store.ping().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_missing_table_is_worth_another_try() {
    let test = TestStore::without_schema();
    let error = test.store.subjects("m", None, None).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}
