//! The schema is made once, however many make it.

use futures::future::join_all;
use store::{Address, Store, StoreConfig, testing::TestStore};

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
        ["events", "usage", "events_current", "usage_current"]
    );
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
