//! The crate `clickhouse` 0.15 unmodified, LZ4 and row validation on.

use std::collections::HashMap;

use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::server::Server;

const TABLE: &str = "CREATE TABLE kinds (
    id UInt64,
    amount Decimal(38, 19),
    hash FixedString(16),
    labels Map(String, String),
    plan LowCardinality(String),
    kind Enum8('sum' = 1, 'count' = 2),
    parts Array(UInt32),
    at DateTime64(3, 'UTC'),
    note Nullable(String)
) ENGINE = MergeTree ORDER BY id";

#[derive(Row, Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Kinds {
    id: u64,
    amount: i128,
    hash: [u8; 16],
    labels: HashMap<String, String>,
    plan: String,
    kind: i8,
    parts: Vec<u32>,
    at: i64,
    note: Option<String>,
}

fn kinds(id: u64) -> Kinds {
    Kinds {
        id,
        amount: i128::from(id) * 12_345_678_901_234_567_890_123_456_789 - 1,
        hash: *b"0123456789abcdef",
        labels: HashMap::from([("endpoint".to_owned(), "/accounts".to_owned())]),
        plan: if id.is_multiple_of(2) {
            "basic"
        } else {
            "premium"
        }
        .to_owned(),
        kind: 2,
        parts: vec![1, 2, id as u32],
        at: 1_790_000_000_123 + id as i64,
        note: id.is_multiple_of(3).then(|| "third".to_owned()),
    }
}

#[tokio::test]
async fn rows_of_every_kind_come_back_as_they_went_in() {
    let server = Server::start();
    let client = server.client();
    client.query(TABLE).execute().await.unwrap();

    let rows: Vec<_> = (0..5000).map(kinds).collect();
    let mut insert = client.insert::<Kinds>("kinds").await.unwrap();
    for row in &rows {
        insert.write(row).await.unwrap();
    }
    insert.end().await.unwrap();

    let found = client
        .query("SELECT ?fields FROM kinds ORDER BY id")
        .fetch_all::<Kinds>()
        .await
        .unwrap();
    assert_eq!(found, rows);
    let exact = client
        .query("SELECT toString(max(amount)) FROM kinds")
        .fetch_one::<String>()
        .await
        .unwrap();
    assert_eq!(exact, "6171604882727.160488272716048821");
}

#[tokio::test]
async fn values_are_bound_in_the_text_and_as_parameters() {
    let server = Server::start();
    let client = server.client();
    let bound = client
        .query("SELECT ? || 'x', toUInt64(?)")
        .bind("it's \\ a\ttab")
        .bind(7)
        .fetch_one::<(String, u64)>()
        .await
        .unwrap();
    assert_eq!(bound, ("it's \\ a\ttabx".to_owned(), 7));

    let sent = client
        .query("SELECT {s:String}, {n:UInt64}, arrayStringConcat({l:Array(String)}, '|')")
        .param("s", "it's \\ a\ttab")
        .param("n", 7)
        .param("l", vec!["a", "b'c"])
        .fetch_one::<(String, u64, String)>()
        .await
        .unwrap();
    assert_eq!(sent, ("it's \\ a\ttab".to_owned(), 7, "a|b'c".to_owned()));
}

#[tokio::test]
async fn a_long_answer_streams_with_its_header_once() {
    let server = Server::start();
    let mut cursor = server
        .client()
        .query("SELECT number, toString(number) FROM numbers(700000)")
        .fetch::<(u64, String)>()
        .unwrap();
    let mut expected = 0;
    while let Some((number, text)) = cursor.next().await.unwrap() {
        assert_eq!((number, text), (expected, expected.to_string()));
        expected += 1;
    }
    assert_eq!(expected, 700_000);
}

#[tokio::test]
async fn no_rows_are_no_error() {
    let server = Server::start();
    let client = server.client();
    let sql = "SELECT number FROM numbers(10) WHERE number > 10";
    assert_eq!(
        client.query(sql).fetch_all::<u64>().await.unwrap(),
        Vec::<u64>::new()
    );
    assert_eq!(
        client.query(sql).fetch_optional::<u64>().await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_database_of_the_client_is_where_bare_names_belong() {
    let server = Server::start();
    server.run("CREATE DATABASE metering").await;
    let client = server.client().with_database("metering");
    client
        .query("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
        .execute()
        .await
        .unwrap();
    #[derive(Row, Serialize, Deserialize)]
    struct Id {
        id: u64,
    }
    let mut insert = client.insert::<Id>("t").await.unwrap();
    insert.write(&Id { id: 1 }).await.unwrap();
    insert.end().await.unwrap();
    assert_eq!(server.run("SELECT id FROM metering.t").await, "1\n");
}

#[tokio::test]
async fn a_mistake_is_told_with_its_code() {
    let server = Server::start();
    let client = server.client();
    let error = client
        .query("SELECT * FROM nowhere")
        .fetch_all::<u64>()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Code: 60.") && error.contains("UNKNOWN_TABLE"),
        "{error}"
    );
    let error = client
        .query("SELECT throwIf(number = 500000) FROM numbers(1000000)")
        .fetch_all::<u8>()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Code: 395."),
        "in the middle of the output: {error}"
    );
}

#[tokio::test]
async fn the_latest_version_of_a_row_wins_and_a_deleted_one_is_gone() {
    let server = Server::start();
    let client = server.client();
    client
        .query(
            "CREATE TABLE versions (id UInt64, value Decimal(38, 19), version UInt64, is_deleted UInt8)
             ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY id",
        )
        .execute()
        .await
        .unwrap();
    #[derive(Row, Serialize, Deserialize)]
    struct Version {
        id: u64,
        value: i128,
        version: u64,
        is_deleted: u8,
    }
    for (id, value, version, is_deleted) in [
        (1, 5, 2, 0),
        (1, 4, 1, 0),
        (2, 7, 1, 0),
        (2, 7, 2, 1),
        (1, 5, 2, 0),
    ] {
        let mut insert = client.insert::<Version>("versions").await.unwrap();
        insert
            .write(&Version {
                id,
                value,
                version,
                is_deleted,
            })
            .await
            .unwrap();
        insert.end().await.unwrap();
    }
    let rows = client
        .query("SELECT id, value FROM versions FINAL")
        .fetch_all::<(u64, i128)>()
        .await
        .unwrap();
    assert_eq!(rows, [(1, 5)]);
}

#[tokio::test]
async fn two_hundred_months_go_into_one_insert() {
    let server = Server::start();
    let client = server
        .client()
        .with_setting("max_partitions_per_insert_block", "0")
        .with_setting("async_insert", "1")
        .with_setting("wait_for_async_insert", "1");
    client
        .query("CREATE TABLE months (at DateTime64(3, 'UTC')) ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY at")
        .execute()
        .await
        .unwrap();
    #[derive(Row, Serialize, Deserialize)]
    struct Month {
        at: i64,
    }
    let mut insert = client.insert::<Month>("months").await.unwrap();
    for month in 0..200 {
        insert
            .write(&Month {
                at: month * 31 * 86_400_000,
            })
            .await
            .unwrap();
    }
    insert.end().await.unwrap();
    let parts = client
        .query("SELECT count(), uniqExact(partition) FROM system.parts WHERE table = 'months' AND active")
        .fetch_one::<(u64, u64)>()
        .await
        .unwrap();
    assert_eq!(parts, (200, 200));
}

#[tokio::test]
async fn users_of_the_client_have_their_rights() {
    let server = Server::start();
    server
        .run("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
        .await;
    let reader = server.client().with_user("grafana").with_password("secret");
    assert_eq!(
        reader
            .query("SELECT count() FROM t")
            .fetch_one::<u64>()
            .await
            .unwrap(),
        0
    );
    let error = reader
        .query("DROP TABLE t")
        .execute()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("Code: 164."), "{error}");
    let bearer = server.client().with_access_token("secret");
    assert_eq!(
        bearer
            .query("SELECT count() FROM t")
            .fetch_one::<u64>()
            .await
            .unwrap(),
        0
    );
    let nobody = server.client().with_user("nobody");
    let error = nobody
        .query("SELECT 1")
        .fetch_one::<u8>()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("Code: 516."), "{error}");
}
