//! A database of its own for each integration test, on the real engine.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{Address, Store, StoreConfig};

/// A fresh database with our schema.
#[derive(Debug)]
pub struct TestStore {
    /// The handle.
    pub store: Store,
    /// How it was reached.
    pub config: StoreConfig,
}

impl TestStore {
    /// Makes a database on OPENMETER_CLICKHOUSE_ADDRESS, or the address of `make up`.
    ///
    /// # Panics
    /// If there is no engine: a test that cannot run has failed.
    pub async fn create() -> Self {
        let test = Self::without_schema();
        if let Err(error) = test.store.migrate().await {
            panic!(
                "no ClickHouse at {}: {error}; start the engines with `make up`, or set \
                 OPENMETER_CLICKHOUSE_ADDRESS",
                test.config.address
            );
        }
        test
    }

    /// Names a database and makes nothing.
    ///
    /// # Panics
    /// If OPENMETER_CLICKHOUSE_ADDRESS is no address.
    pub fn without_schema() -> Self {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let address: Address = std::env::var("OPENMETER_CLICKHOUSE_ADDRESS")
            .unwrap_or_else(|_| "http://127.0.0.1:8123".to_owned())
            .parse()
            .expect("OPENMETER_CLICKHOUSE_ADDRESS is an address");
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is after 1970");
        let name = format!(
            "test_{}_{}_{}",
            since.as_nanos(),
            std::process::id(),
            TESTS.fetch_add(1, Ordering::Relaxed)
        );
        let config = StoreConfig {
            address,
            database: name.parse().expect("it is a name"),
            ..StoreConfig::default()
        };
        Self {
            store: Store::connect(config.clone()),
            config,
        }
    }

    /// Makes the database without our schema.
    ///
    /// # Panics
    /// If it cannot be made.
    pub async fn create_database(&self) {
        let sql = format!("CREATE DATABASE `{}`", self.config.database);
        let query = self.store.server.query_raw(&sql);
        self.store.execute("create", query).await.expect(&sql);
    }

    /// Runs a statement in the database, for what no function of the store does.
    ///
    /// # Panics
    /// If the statement fails.
    pub async fn run(&self, sql: &str) {
        let query = self.store.client.query_raw(sql);
        self.store.execute("run", query).await.expect(sql);
    }

    /// Returns the first column of a statement's answer, as text.
    ///
    /// # Panics
    /// If the statement fails.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let query = self.store.client.query_raw(sql);
        self.store.rows("read", query).await.expect(sql)
    }

    /// Drops the database. A test that failed leaves it, to be looked at.
    ///
    /// # Panics
    /// If it cannot be dropped.
    pub async fn remove(self) {
        let sql = format!("DROP DATABASE IF EXISTS `{}` SYNC", self.config.database);
        let query = self.store.server.query_raw(&sql);
        self.store.execute("remove", query).await.expect(&sql);
    }
}
