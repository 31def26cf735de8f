//! What curl, Grafana and people send.

use std::time::{Duration, Instant};

use reqwest::StatusCode;

use crate::server::Server;

#[tokio::test]
async fn it_says_that_it_is_there() {
    let server = Server::start();
    for path in ["ping", "", "replicas_status"] {
        let answer = reqwest::get(format!("{}/{path}", server.url))
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.text().await.unwrap(), "Ok.\n", "/{path}");
    }
}

#[tokio::test]
async fn get_reads_and_never_writes() {
    let server = Server::start();
    let read = reqwest::get(format!("{}/?query=SELECT+1", server.url))
        .await
        .unwrap();
    assert_eq!(read.text().await.unwrap(), "1\n");
    for sql in [
        "CREATE+TABLE+t+(a+Int8)+ENGINE=Memory",
        "INSERT+INTO+t+VALUES+(1)",
        "SET+readonly=0",
    ] {
        let answer = reqwest::get(format!("{}/?query={sql}", server.url))
            .await
            .unwrap();
        assert_eq!(
            answer.headers()["x-clickhouse-exception-code"],
            "164",
            "{sql}"
        );
    }
}

#[tokio::test]
async fn a_sender_may_ask_for_fewer_rights_and_never_for_more() {
    let server = Server::start();
    for level in ["0", "1", "2"] {
        let url = format!("{}/?readonly={level}&query=SELECT+1", server.url);
        assert_eq!(
            reqwest::get(url).await.unwrap().text().await.unwrap(),
            "1\n",
            "GET, {level}"
        );
        let reader = format!("?user=grafana&password=secret&readonly={level}");
        assert_eq!(
            server.post(&reader, "SELECT 1").await,
            (200, "1\n".to_owned()),
            "reader, {level}"
        );
        let (_, text) = server
            .post(&reader, "SELECT 1 SETTINGS max_threads = 1")
            .await;
        assert!(text.starts_with("Code: 164."), "reader, {level}: {text}");
        let create = "CREATE TABLE t (a Int8) ENGINE = Memory";
        let (status, text) = server.post(&format!("?readonly={level}"), create).await;
        assert_eq!(
            status,
            if level == "0" { 200 } else { 500 },
            "default, {level}: {text}"
        );
    }
}

#[tokio::test]
async fn an_answer_carries_clickhouses_headers() {
    let server = Server::start();
    let answer = reqwest::Client::new()
        .post(format!("{}/?query_id=mine&default_format=JSON", server.url))
        .body("SELECT 1 AS one")
        .send()
        .await
        .unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-clickhouse-format"), "JSON");
    assert_eq!(header("x-clickhouse-query-id"), "mine");
    assert_eq!(header("content-type"), "application/json; charset=UTF-8");
    assert!(!header("x-clickhouse-server-display-name").is_empty());
    let summary: serde_json::Value = serde_json::from_str(&header("x-clickhouse-summary")).unwrap();
    assert!(summary["elapsed_ns"].is_string(), "{summary}");
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["data"][0]["one"], 1);
}

#[tokio::test]
async fn a_mistake_has_the_status_of_its_code() {
    let server = Server::start();
    let cases = [
        ("", "SELEC 1", 400, "Code: 62."),
        ("", "", 400, "Code: 62."),
        ("", "SELECT * FROM nowhere", 404, "Code: 60."),
        ("", "SELECT nothing", 404, "Code: 47."),
        ("?database=nowhere", "SELECT 1", 404, "Code: 81."),
        ("?no_such_setting=1", "SELECT 1", 404, "Code: 115."),
        (
            "?max_execution_time=1",
            "SELECT max(sipHash64(number)) FROM numbers(100000000000)",
            408,
            "Code: 159.",
        ),
        ("?user=default&password=x", "SELECT 1", 403, "Code: 516."),
        ("", "SELECT 1 FORMAT Nonsense", 404, "Code: 73."),
    ];
    for (url, sql, status, code) in cases {
        let (found, text) = server.post(url, sql).await;
        assert_eq!(found, status, "{sql}: {text}");
        assert!(
            text.starts_with(code) && text.contains("DB::Exception"),
            "{sql}: {text}"
        );
    }
}

#[tokio::test]
async fn several_statements_are_refused_whole() {
    let server = Server::start();
    server
        .run("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a")
        .await;
    for sql in [
        "INSERT INTO t SELECT 1; INSERT INTO t SELECT 2",
        "INSERT INTO t SELECT 1; nonsense here",
        "INSERT INTO t VALUES (1); DROP TABLE t",
        "SELECT 1; SELECT 2",
    ] {
        let (status, text) = server.post("", sql).await;
        assert_eq!(status, 400, "{sql}: {text}");
    }
    assert_eq!(server.run("SELECT count() FROM t;").await, "0\n");
}

#[tokio::test]
async fn the_reader_reads_and_nothing_else() {
    let server = Server::start();
    server
        .run("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a")
        .await;
    let user = "?user=grafana&password=secret&max_execution_time=10";
    for sql in [
        "SELECT 1",
        "WITH 1 AS a SELECT a",
        "SHOW TABLES",
        "DESCRIBE TABLE t",
        "EXISTS t",
        "EXPLAIN SELECT 1",
    ] {
        let (status, text) = server.post(user, sql).await;
        assert_eq!(status, 200, "{sql}: {text}");
    }
    for sql in [
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t SELECT 1",
        "DROP TABLE t",
        "CREATE TABLE u (a Int8) ENGINE = Memory",
        "ALTER TABLE t DELETE WHERE 1",
        "OPTIMIZE TABLE t",
        "SYSTEM FLUSH LOGS",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
    ] {
        let (status, text) = server.post(user, sql).await;
        assert_eq!(status, 500, "{sql}: {text}");
        assert!(text.starts_with("Code: 164."), "{sql}: {text}");
    }
}

#[tokio::test]
async fn parameters_come_by_url_and_by_form() {
    let server = Server::start();
    let by_url = server
        .post(
            "?param_n=7&param_s=a%27b",
            "SELECT {n:UInt8} + 1, {s:String}",
        )
        .await;
    assert_eq!(by_url, (200, "8\ta\\'b\n".to_owned()));
    let boundary = "x";
    let form = ["query", "param_n"]
        .iter()
        .zip(["SELECT {n:UInt8} + 1", "41"])
        .map(|(name, value)| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
        })
        .collect::<String>()
        + "--x--\r\n";
    let answer = reqwest::Client::new()
        .post(&server.url)
        .header("content-type", "multipart/form-data; boundary=x")
        .body(form)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.text().await.unwrap(), "42\n");
}

#[tokio::test]
async fn every_format_arrives_whole_streamed_or_not() {
    let server = Server::start();
    for (format, lines) in [
        ("TabSeparated", 200_000),
        ("TabSeparatedWithNames", 200_001),
        ("TSVWithNamesAndTypes", 200_002),
        ("CSVWithNames", 200_001),
        ("JSONEachRow", 200_000),
        ("JSONCompactEachRowWithNamesAndTypes", 200_002),
    ] {
        let sql = format!("SELECT number, 'a' AS a FROM numbers(200000) FORMAT {format}");
        let streamed = server.run(&sql).await;
        assert_eq!(streamed.lines().count(), lines, "{format}");
        let (_, whole) = server.post("?wait_end_of_query=1", sql).await;
        assert!(streamed == whole, "{format} differs when streamed");
    }
    let json = server
        .run("SELECT number FROM numbers(200000) FORMAT JSON")
        .await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["data"].as_array().unwrap().len(), 200_000);
}

#[tokio::test]
async fn totals_follow_the_rows() {
    let server = Server::start();
    let sql = "SELECT number % 2 AS n, count() FROM numbers(10) GROUP BY n WITH TOTALS ORDER BY n FORMAT TSVWithNames";
    assert_eq!(server.run(sql).await, "n\tcount()\n0\t5\n1\t5\n\n0\t10\n");
}

#[tokio::test]
async fn an_answer_is_packed_when_asked_for() {
    let server = Server::start();
    let answer = reqwest::Client::new()
        .post(format!("{}/?compress=1", server.url))
        .body("SELECT number FROM numbers(200000)")
        .send()
        .await
        .unwrap();
    let packed = answer.bytes().await.unwrap();
    let mut decoder = clickhouse_engine::native::Decoder::default();
    decoder.push(&packed);
    let mut text = Vec::new();
    while let Some(block) = decoder.next_block().unwrap() {
        text.extend_from_slice(&block);
    }
    assert!(decoder.is_at_rest() && packed.len() < text.len());
    assert_eq!(String::from_utf8(text).unwrap().lines().count(), 200_000);
}

#[tokio::test]
async fn queries_run_side_by_side_and_more_than_the_limit_wait() {
    let server = Server::start();
    let once = "SELECT sleep(1)";
    let started = Instant::now();
    let answers = futures::future::join_all((0..4).map(|_| server.run(once))).await;
    assert_eq!(answers, ["0\n"; 4]);
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    let many = futures::future::join_all((0..200).map(|number| {
        let server = &server;
        async move {
            (
                server.run(&format!("SELECT {number}")).await,
                format!("{number}\n"),
            )
        }
    }))
    .await;
    assert!(many.iter().all(|(found, expected)| found == expected));
}

#[tokio::test]
async fn an_exception_in_the_middle_breaks_the_answer() {
    let server = Server::start();
    let answer = reqwest::Client::new()
        .post(&server.url)
        .body("SELECT throwIf(number = 500000) FROM numbers(1000000)")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(
        answer.bytes().await.is_err(),
        "no client may take it for complete"
    );
}
