//! What `/metrics` says.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
    routing::get,
};
use runtime::App;
use tower::ServiceExt as _;

fn app() -> Router {
    let routes = Router::new().route("/meters/{slug}", get(async || "a meter"));
    App::new("metrics-test", routes).into_router()
}

async fn call(method: &str, path: &str) -> String {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty())
        .unwrap();
    let response = app().oneshot(request).await.unwrap();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    call("GET", "/meters/a").await;
    call("GET", "/meters/b").await;
    call("DELETE", "/meters/b").await;
    call("GET", "/unknown/1").await;
    call("BREW", "/unknown/2").await;
    let text = call("GET", "/metrics").await;
    let name = "http_server_request_duration_seconds";
    for (method, route, status, count) in [
        ("GET", "/meters/{slug}", "200", 2.0),
        ("DELETE", "/meters/{slug}", "405", 1.0),
        ("GET", "other", "404", 1.0),
        ("other", "other", "404", 1.0),
    ] {
        let labels = format!(
            "function=\"metrics-test\",method=\"{method}\",route=\"{route}\",status=\"{status}\""
        );
        assert_eq!(value(&text, &format!("{name}_count{{{labels}}}")), count);
        let slowest = format!("{name}_bucket{{{labels},le=\"30\"}}");
        assert_eq!(value(&text, &slowest), count);
    }
    assert!(!text.contains("/meters/a"), "{text}");
}

#[tokio::test]
async fn the_process_and_its_build_are_described() {
    let text = call("GET", "/metrics").await;
    let build = "openmeter_build_info{function=\"metrics-test\",version=\"0.1.0\"}";
    assert_eq!(value(&text, build), 1.0);
    // Later than the year 2001, and with more than a megabyte.
    assert!(value(&text, "process_start_time_seconds ") > 1e9);
    assert!(value(&text, "process_resident_memory_bytes ") > 1e6);
    assert!(value(&text, "process_cpu_seconds_total ") >= 0.0);
}

#[tokio::test]
async fn the_log_and_the_recorder_may_be_installed_twice() {
    runtime::telemetry::install("metrics-test");
    runtime::telemetry::install("metrics-test");
    metrics::counter!("openmeter_test_total").increment(2);
    metrics::histogram!("openmeter_test_batch_events").record(150.0);
    let text = call("GET", "/metrics").await;
    assert_eq!(value(&text, "openmeter_test_total "), 2.0);
    let bucket = "openmeter_test_batch_events_bucket{le=\"300\"}";
    assert_eq!(value(&text, bucket), 1.0);
}
