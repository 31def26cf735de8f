//! A request's way to a pod, and what it is answered when there is none.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use futures::future::join_all;
use http_body_util::BodyExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    ask, container, direct, echo, eventually, get, in_time, ready, scaled, signal, start, text,
};

#[tokio::test]
async fn the_first_request_waits_for_a_pod_and_is_measured() {
    let running = start(&[echo(|_| ())]);
    let service = running.service();
    assert!(service.pods().is_empty());

    let answers = join_all((0..5).map(|_| ask(&service, "/x"))).await;

    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(service.pods().len(), 1);
    let cold_starts = service.cold_starts();
    assert_eq!(cold_starts.count, 1, "all waited, one was the first");
    assert!(cold_starts.last_millis[0] >= cold_starts.last_start_millis[0]);
    running.stop().await;
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let running = start(&[echo(|_| ())]);
    let mut request = get("/a/b?c=%20d").map(|_| "body".into());
    *request.method_mut() = http::Method::PUT;
    request.headers_mut().insert("ce-id", "1".parse().unwrap());

    let answer = in_time(running.service().ask(request)).await.unwrap();

    let told: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(told["method"], "PUT");
    assert_eq!(told["uri"], "/a/b?c=%20d");
    assert_eq!(told["body"], "body");
    assert_eq!(told["headers"]["ce-id"], "1");
    assert_eq!(told["headers"]["host"], "echo.ns.svc.cluster.local");
    running.stop().await;
}

#[tokio::test]
async fn no_more_requests_are_in_a_pod_than_it_takes() {
    let running = start(&[echo(|template| {
        template["spec"]["containerConcurrency"] = json!(2);
        scaled(template, &[("max-scale", "1")]);
    })]);
    let service = running.service();

    let answers = join_all((0..10).map(|_| ask(&service, "/sleep/20"))).await;

    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(text(&service, "/peak").await, "2");
    running.stop().await;
}

#[tokio::test]
async fn without_a_limit_all_requests_are_in_the_pod() {
    let running = start(&[echo(|template| scaled(template, &[("max-scale", "1")]))]);
    let service = running.service();

    let held = join_all((0..150).map(|_| ask(&service, "/hold")));
    let released = async {
        eventually(async || text(&service, "/held").await == "150").await;
        ask(&service, "/release").await
    };
    tokio::join!(held, released);
    running.stop().await;
}

#[tokio::test]
async fn requests_go_to_the_pod_that_has_the_fewest() {
    let running = start(&[echo(|template| {
        scaled(template, &[("min-scale", "2"), ("max-scale", "2")]);
    })]);
    let service = running.service();
    ready(&service, 2).await;

    let held = ask(&service, "/hold");
    let others = async {
        let ports: Vec<u16> = service.pods().iter().map(|pod| pod.port).collect();
        eventually(async || {
            let pair = tokio::join!(direct(ports[0], "/held"), direct(ports[1], "/held"));
            [pair.0, pair.1].contains(&"1".to_owned())
        })
        .await;
        // One at a time, they all find the pod that holds nothing.
        for _ in 0..10 {
            assert_eq!(text(&service, "/held").await, "0");
        }
        running.cluster.stop(Duration::ZERO).await;
    };
    let (held, ()) = tokio::join!(held, others);
    assert_eq!(held.status(), 502, "its pod was killed");
    drop(running);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_504() {
    let running = start(&[echo(|template| {
        template["spec"]["timeoutSeconds"] = json!(1)
    })]);
    let service = running.service();
    let sent = Instant::now();

    assert_eq!(ask(&service, "/hold").await.status(), 504);

    assert!(sent.elapsed().as_secs() >= 1);
    running.stop().await;
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_cut() {
    let running = start(&[echo(|template| {
        template["spec"]["timeoutSeconds"] = json!(2)
    })]);
    let service = running.service();

    let answer = in_time(service.send(get("/drip").map(Body::from))).await;

    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let first = in_time(body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "drip");
    assert!(in_time(body.frame()).await.unwrap().is_err());
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_does_not_become_ready_in_time_is_504() {
    let running = start(&[echo(|template| {
        template["spec"]["timeoutSeconds"] = json!(1);
        container(template)["env"] = json!([{"name": "START_MILLIS", "value": "60000"}]);
    })]);

    assert_eq!(ask(&running.service(), "/x").await.status(), 504);

    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_dies_in_the_middle_is_502() {
    let running = start(&[echo(|_| ())]);
    let service = running.service();
    let pid: u32 = text(&service, "/pid").await.parse().unwrap();

    let held = ask(&service, "/hold");
    let killed = async {
        eventually(async || text(&service, "/held").await == "1").await;
        signal(pid, Signal::KILL);
    };
    let (answer, ()) = tokio::join!(held, killed);

    assert_eq!(answer.status(), 502);
    in_time(service.until(|pods| pods[0].restarts == 1)).await;
    assert_ne!(text(&service, "/pid").await, pid.to_string());
    running.stop().await;
}

#[tokio::test]
async fn who_gives_up_leaves_the_place_to_others() {
    let running = start(&[echo(|template| {
        template["spec"]["containerConcurrency"] = json!(1);
        scaled(template, &[("max-scale", "1")]);
    })]);
    let service = running.service();
    ask(&service, "/x").await;

    // One has the place, three wait, and all of them go away.
    let impatient: Vec<_> = (0..4)
        .map(|_| {
            let service = Arc::clone(&service);
            tokio::spawn(async move { service.ask(get("/hold")).await })
        })
        .collect();
    let port = service.pods()[0].port;
    eventually(async || direct(port, "/held").await == "1").await;
    impatient.iter().for_each(tokio::task::JoinHandle::abort);

    assert_eq!(ask(&service, "/x").await.status(), 200);
    running.stop().await;
}
