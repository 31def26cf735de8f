//! A function as a process on the HTTP host: start, signals, exit codes.

use tokio::net::TcpListener;

use crate::{
    child::{Child, messages},
    http::get,
};

#[tokio::test]
async fn sigterm_ends_the_process_in_order_and_with_success() {
    let mut child = Child::start([("PORT", "0"), ("HELLO_NAME", "you")]);
    let address = child.address().await;
    let answer = get(address, "/").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("hello you"), "{answer}");
    child.signal("TERM").await;
    let (code, log) = child.end().await;
    assert_eq!(code, Some(0));
    assert_eq!(messages(&log), ["stopping", "flushed"]);
    assert!(log.iter().all(|line| line["function"] == "hello"));
}

#[tokio::test]
async fn with_the_kafka_trigger_the_loop_runs_until_the_process_is_told_to_stop() {
    let mut child = Child::start([("PORT", "0"), ("OPENMETER_TRIGGER", "kafka")]);
    child.wait_for("pulling").await;
    child.signal("INT").await;
    let (code, log) = child.end().await;
    assert_eq!(code, Some(0));
    let messages = messages(&log);
    assert!(
        messages.ends_with(&["stopping", "pulled", "flushed"]),
        "{messages:?}"
    );
}

#[tokio::test]
async fn a_loop_that_fails_ends_the_process_with_an_error() {
    let child = Child::start([
        ("PORT", "0"),
        ("OPENMETER_TRIGGER", "kafka"),
        ("HELLO_FAIL", "true"),
    ]);
    let (code, log) = child.end().await;
    assert_eq!(code, Some(1));
    let last = log.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    assert_eq!(last["error"], "take events from kafka: the broker is gone");
}

#[tokio::test]
async fn a_wrong_environment_exits_with_64_and_names_every_variable() {
    let child = Child::start([
        ("PORT", "http"),
        ("OPENMETER_TRIGGER", "push"),
        ("OPENMETER_LOG", "a=b=c"),
        ("HELLO_PIN", "hunter2"),
    ]);
    let (code, log) = child.end().await;
    assert_eq!(code, Some(64));
    let variables: Vec<&str> = log
        .iter()
        .map(|line| line["variable"].as_str().unwrap())
        .collect();
    assert_eq!(
        variables,
        ["HELLO_PIN", "OPENMETER_LOG", "PORT", "OPENMETER_TRIGGER"]
    );
    assert!(!format!("{log:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_port_that_is_taken_exits_with_1() {
    let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, log) = Child::start([("PORT", port.as_str())]).end().await;
    assert_eq!(code, Some(1));
    let error = log.last().unwrap()["error"].as_str().unwrap();
    assert!(
        error.starts_with(&format!("listen on port {port}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn requests_are_logged_at_debug_and_not_at_info() {
    for (level, is_logged) in [("debug", true), ("info", false)] {
        let mut child = Child::start([("PORT", "0"), ("OPENMETER_LOG", level)]);
        let address = child.address().await;
        get(address, "/").await;
        child.signal("TERM").await;
        let (_, log) = child.end().await;
        let answered = log.iter().find(|line| line["message"] == "answered");
        assert_eq!(answered.is_some(), is_logged, "{log:?}");
        if let Some(line) = answered {
            assert_eq!(line["path"], "/");
            assert_eq!(line["status"], 200);
        }
    }
}
