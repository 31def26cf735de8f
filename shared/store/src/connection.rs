//! The handle: one pool of connections, and a limit in time on whatever is asked.

use std::{future::Future, str::FromStr, time::Duration};

use clickhouse::{Client, Compression, RowOwned, RowRead, query::Query};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};

use model::{Password, WantedSetting};

use crate::{
    address::{Address, Database},
    error::StoreError,
};

/// ClickHouse closes idle connections after 3 s by default; we let go of them before,
/// so that no request is sent into a closing one.
const IDLE: Duration = Duration::from_secs(2);

/// The longest statement that is asked, in bytes.
const MAX_STATEMENT: &str = "16777216";

/// How the store is reached.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The HTTP interface.
    pub address: Address,
    /// Where the tables are; made by [`Store::migrate`].
    pub database: Database,
    /// Who asks.
    pub user: String,
    /// The user's password; empty for none.
    pub password: Password,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long an insert may take. A block that timed out may be stored all the same;
    /// writing it again is harmless.
    pub insert_timeout: Duration,
    /// How long a question, or a step of the migration, may take.
    pub query_timeout: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            address: Address::default(),
            database: Database::default(),
            user: "default".to_owned(),
            password: Password::default(),
            connect_timeout: Duration::from_secs(5),
            insert_timeout: Duration::from_secs(60),
            query_timeout: Duration::from_secs(30),
        }
    }
}

impl StoreConfig {
    /// Returns the configuration that `ask` finds the settings of; what it does not find
    /// keeps its default.
    pub fn read(mut ask: impl FnMut(WantedSetting<'_>)) -> Self {
        let mut config = Self::default();
        ask(WantedSetting {
            name: "OPENMETER_CLICKHOUSE_ADDRESS",
            description: "ClickHouse's HTTP interface, a URL or host:port (127.0.0.1:8123)",
            secret: false,
            read: &mut |text| set(&mut config.address, text),
        });
        ask(WantedSetting {
            name: "OPENMETER_CLICKHOUSE_DATABASE",
            description: "ClickHouse's database (openmeter)",
            secret: false,
            read: &mut |text| set(&mut config.database, text),
        });
        ask(WantedSetting {
            name: "OPENMETER_CLICKHOUSE_USER",
            description: "ClickHouse's user (default)",
            secret: false,
            read: &mut |text| set(&mut config.user, text),
        });
        ask(WantedSetting {
            name: "OPENMETER_CLICKHOUSE_PASSWORD",
            description: "the password of ClickHouse's user",
            secret: true,
            read: &mut |text| {
                config.password = Password::new(text);
                Ok(())
            },
        });
        config
    }
}

fn set<T: FromStr<Err: std::fmt::Display>>(place: &mut T, text: &str) -> Result<(), String> {
    *place = text.parse().map_err(|error: T::Err| error.to_string())?;
    Ok(())
}

/// A handle on ClickHouse. Clones are cheap and share their connections.
#[derive(Clone)]
pub struct Store {
    /// Names no database, for it may not be there yet.
    pub(crate) server: Client,
    /// Names our database.
    pub(crate) client: Client,
    pub(crate) database: Database,
    pub(crate) insert_timeout: Duration,
    pub(crate) query_timeout: Duration,
}

impl Store {
    /// Returns a handle. It opens no connection: the first question does.
    pub fn connect(config: StoreConfig) -> Self {
        if config.address.was_native() {
            tracing::info!(
                address = %config.address,
                "the native port was given: asking the HTTP port of the same host"
            );
        }
        let mut http = HttpConnector::new();
        // Small inserts wait 20 ms for an acknowledgement otherwise.
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(60)));
        http.set_connect_timeout(Some(config.connect_timeout));
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let pool = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        let seconds = config.query_timeout.as_secs().max(1).to_string();
        let mut server = Client::with_http_client(pool)
            .with_url(config.address.url().as_str())
            .with_user(config.user)
            .with_compression(Compression::Lz4)
            // A client that is gone does not stop a question; this does.
            .with_setting("max_execution_time", seconds);
        if !config.password.expose().is_empty() {
            server = server.with_password(config.password.expose());
        }
        Self {
            client: server.clone().with_database(config.database.as_str()),
            server,
            database: config.database,
            insert_timeout: config.insert_timeout,
            query_timeout: config.query_timeout,
        }
    }

    /// Succeeds if the server answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.execute("ping", self.server.query_raw("SELECT 1"))
            .await
    }

    /// Returns a question in our database, with nothing left to a version's default.
    pub(crate) fn ask(&self, sql: &str) -> Query {
        self.client
            .query_raw(sql)
            // Parts of different months hold different rows: each can be merged alone.
            // A part's newest version of a row must not be skipped for what it says.
            .with_setting("use_skip_indexes_if_final", "0")
            .with_setting("do_not_merge_across_partitions_select_final", "1")
            .with_setting("output_format_decimal_trailing_zeros", "0")
            .with_setting("session_timezone", "UTC")
            // A constant among the keys is a constant, not the number of a column.
            .with_setting("enable_positional_arguments", "0")
            // Identities and the offsets of 330 years are longer than the 256 KiB by default.
            .with_setting("max_query_size", MAX_STATEMENT)
    }

    pub(crate) async fn rows<T: RowOwned + RowRead>(
        &self,
        what: &'static str,
        query: Query,
    ) -> Result<Vec<T>, StoreError> {
        within(what, self.query_timeout, query.fetch_all()).await
    }

    pub(crate) async fn execute(&self, what: &'static str, query: Query) -> Result<(), StoreError> {
        within(what, self.query_timeout, query.execute()).await
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// Waits for an answer, but not longer than `limit`.
pub(crate) async fn within<T>(
    what: &'static str,
    limit: Duration,
    answer: impl Future<Output = clickhouse::error::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(StoreError::of(what, limit, error)),
        Err(_) => Err(StoreError::TimedOut { what, after: limit }),
    }
}
