//! INSERTs with their data in the body, whole and broken.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::server::Server;

const TABLE: &str = "CREATE TABLE t (a UInt32, s String) ENGINE = MergeTree ORDER BY a";

#[tokio::test]
async fn data_comes_in_any_format_and_in_any_place() {
    let server = Server::start();
    server.run(TABLE).await;
    let binary = b"\x07\x00\x00\x00\x01x".to_vec();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "?query=INSERT+INTO+t+FORMAT+JSONEachRow",
            b"{\"a\":1,\"s\":\"x\"}\n{\"a\":1}".to_vec(),
        ),
        ("?query=INSERT+INTO+t+(a)+FORMAT+CSV", b"2\n".to_vec()),
        (
            "?query=INSERT+INTO+t+VALUES",
            b"(3, 'a;b'), (3, concat('a', 'b'))".to_vec(),
        ),
        ("?query=INSERT+INTO+t+VALUES+(4,'x')", Vec::new()),
        ("?query=INSERT+INTO+t", b"(5, 'x')".to_vec()),
        ("", b"INSERT INTO t VALUES (6, 'x'), (6, 'y');".to_vec()),
        ("?query=INSERT+INTO+t+FORMAT+RowBinary", binary.clone()),
        (
            "",
            [b"INSERT INTO t FORMAT RowBinary\n".to_vec(), binary].concat(),
        ),
        ("", b"INSERT INTO t SELECT 8, 'x'".to_vec()),
        ("?query=INSERT+INTO+t+SELECT", b"8, 'y'".to_vec()),
        (
            "?param_t=t",
            b"INSERT INTO {t:Identifier} FORMAT TSV\n9\tx\n".to_vec(),
        ),
    ];
    for (url, body) in cases {
        let (status, text) = server.post(url, body).await;
        assert_eq!((status, text.as_str()), (200, ""), "{url}");
    }
    let rows = server
        .run("SELECT a, count() FROM t GROUP BY a ORDER BY a")
        .await;
    assert_eq!(
        rows,
        "1\t2\n2\t1\n3\t2\n4\t1\n5\t1\n6\t2\n7\t2\n8\t2\n9\t1\n"
    );
}

#[tokio::test]
async fn the_summary_tells_what_was_written() {
    let server = Server::start();
    server.run(TABLE).await;
    let answer = reqwest::Client::new()
        .post(format!(
            "{}/?query=INSERT+INTO+t+(a)+FORMAT+TSV",
            server.url
        ))
        .body("1\n2\n3\n")
        .send()
        .await
        .unwrap();
    let summary = answer.headers()["x-clickhouse-summary"].to_str().unwrap();
    assert!(summary.contains(r#""written_rows":"3""#), "{summary}");
}

#[tokio::test]
async fn damaged_data_is_refused_whole() {
    let server = Server::start();
    server.run(TABLE).await;
    let mut packed = clickhouse_engine::native::encode(b"1\tx\n").to_vec();
    packed[28] ^= 1;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "?query=INSERT+INTO+t+FORMAT+TSV",
            b"1\tx\nnonsense\n".to_vec(),
            "Code: 27.",
        ),
        (
            "?query=INSERT+INTO+t+FORMAT+RowBinary",
            b"\x07\x00\x00".to_vec(),
            "Code: 33.",
        ),
        (
            "?query=INSERT+INTO+nowhere+FORMAT+TSV",
            b"1\n".to_vec(),
            "Code: 60.",
        ),
        (
            "?decompress=1&query=INSERT+INTO+t+FORMAT+TSV",
            packed,
            "Code: 40.",
        ),
        (
            "?decompress=1&query=INSERT+INTO+t+FORMAT+TSV",
            b"not a block, but long enough".to_vec(),
            "Code: 271.",
        ),
    ];
    for (url, body, code) in cases {
        let (status, text) = server.post(url, body).await;
        assert!(
            status >= 400 && text.starts_with(code),
            "{url}: {status} {text}"
        );
    }
    assert_eq!(server.run("SELECT count() FROM t").await, "0\n");
}

#[tokio::test]
async fn a_client_that_sends_on_after_a_refusal_gets_to_read_it() {
    let server = Server::start();
    let (status, text) = server
        .post(
            "?query=INSERT+INTO+nowhere+FORMAT+TSV",
            vec![b'1'; 64 << 20],
        )
        .await;
    assert!(
        status == 404 && text.starts_with("Code: 60."),
        "{status} {text}"
    );
}

/// Sends an INSERT of `rows` whole rows and breaks off.
fn break_off(server: &Server, head: &str, rows: &[u8]) {
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(rows).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    // The server closes when it has given up.
    socket.read_to_end(&mut Vec::new()).ok();
}

#[tokio::test]
async fn half_an_insert_leaves_no_row() {
    let server = Server::start();
    server.run(TABLE).await;
    let rows = b"1\tusage\n".repeat(300_000);
    let url = "/?query=INSERT+INTO+t+FORMAT+TSV";
    let chunk = format!("{:x}\r\n", rows.len());
    let heads = [
        format!(
            "POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            rows.len() + 1
        ),
        format!("POST {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
    ];
    for head in &heads {
        break_off(&server, head, &rows);
        assert_eq!(server.run("SELECT count() FROM t").await, "0\n", "{head}");
    }
    let packed = clickhouse_engine::native::encode(&rows);
    let head = format!(
        "POST {url}&decompress=1 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        packed.len() - 1
    );
    break_off(&server, &head, &packed[..packed.len() - 1]);
    assert_eq!(
        server.run("SELECT count() FROM t").await,
        "0\n",
        "the last block is not complete"
    );
    server.post(&url[1..], rows).await;
    assert_eq!(server.run("SELECT count() FROM t").await, "300000\n");
}

#[tokio::test]
async fn an_insert_that_the_client_drops_leaves_no_row() {
    let server = Server::start();
    server
        .run("CREATE TABLE u (a UInt32) ENGINE = MergeTree ORDER BY a")
        .await;
    #[derive(clickhouse::Row, serde::Serialize)]
    struct Usage {
        a: u32,
    }
    let client = server.client();
    let mut insert = client.insert::<Usage>("u").await.unwrap();
    for a in 0..200_000 {
        insert.write(&Usage { a }).await.unwrap();
    }
    drop(insert);
    let mut insert = client.insert::<Usage>("u").await.unwrap();
    insert.write(&Usage { a: 7 }).await.unwrap();
    insert.end().await.unwrap();
    assert_eq!(server.run("SELECT count(), max(a) FROM u").await, "1\t7\n");
}

#[tokio::test]
async fn a_bulk_of_many_blocks_arrives_whole() {
    let server = Server::start();
    server
        .run("CREATE TABLE u (a UInt32, s String) ENGINE = MergeTree ORDER BY a")
        .await;
    #[derive(clickhouse::Row, serde::Serialize)]
    struct Usage {
        a: u32,
        s: String,
    }
    let mut insert = server.client().insert::<Usage>("u").await.unwrap();
    for a in 0..400_000 {
        insert
            .write(&Usage {
                a,
                s: format!("subject-{}", a % 500),
            })
            .await
            .unwrap();
    }
    insert.end().await.unwrap();
    assert_eq!(
        server
            .run("SELECT count(), sum(a), uniqExact(s) FROM u")
            .await,
        "400000\t79999800000\t500\n"
    );
}
