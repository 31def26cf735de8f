//! Meters, subjects, values of dimensions, and events.

use serde_json::json;

use crate::service::Service;

const METERS: &str = "
meters:
  - slug: api_calls
    description: API call count per TPP
    eventType: api.call
    aggregation: COUNT
    groupBy: {subject: true, endpoint: $.data.endpoint}
";

async fn service() -> Service {
    let service = Service::start(METERS).await;
    let events = json!([
        {"id": "k", "type": "api.call", "time": "2024-01-01T00:00:00Z", "subject": "b", "data": {"endpoint": "/z"}},
        {"id": "s1", "type": "api.call", "time": "2024-01-02T00:00:00Z", "subject": "a", "data": {"endpoint": "/y"}},
        {"id": "s2", "type": "unknown", "time": "2024-01-03T00:00:00Z", "subject": "streaming-subject-'2'", "data": {}}
    ]);
    service.send(&events).await;
    service
}

#[tokio::test]
async fn meters_subjects_and_values_are_listed() {
    let service = service().await;
    let meter = json!({
        "id": "api_calls", "slug": "api_calls", "name": "api_calls",
        "description": "API call count per TPP", "aggregation": "COUNT",
        "eventType": "api.call", "groupBy": {"endpoint": "$.data.endpoint"}
    });
    assert_eq!(service.get("/api/v1/meters").await.json(), json!([meter]));
    assert_eq!(service.get("/api/v1/meters/api_calls").await.json(), meter);
    let of = |rest: &str| format!("/api/v1/meters/api_calls/{rest}");
    let subjects = service.get(&of("subjects")).await.json();
    assert_eq!(subjects, json!(["a", "b"]));
    let later = service
        .get(&of("subjects?from=2024-01-02T00:00:00Z"))
        .await
        .json();
    assert_eq!(later, json!(["a"]));
    let values = service.get(&of("group-by/endpoint/values")).await.json();
    assert_eq!(values, json!(["/y", "/z"]));
    service.stop().await;
}

#[tokio::test]
async fn events_are_listed_with_what_is_wrong_with_them() {
    let service = service().await;
    let listed = service
        .get("/api/v1/events?subject=streaming-subject-%272%27")
        .await
        .json();
    assert_eq!(
        listed,
        json!([{
            "event": {
                "specversion": "1.0", "id": "s2", "source": "cases", "type": "unknown",
                "subject": "streaming-subject-'2'", "time": "2024-01-03T00:00:00Z", "data": {}
            },
            "validationError": "no meter found for event type: unknown",
            "ingestedAt": "2024-01-03T00:00:00Z", "storedAt": "2024-01-03T00:00:00Z"
        }])
    );
    let all = service.get("/api/v1/events?limit=2").await.json();
    let ids: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["event"]["id"])
        .collect();
    assert_eq!(ids, ["s2", "s1"]);
    service.stop().await;
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let service = service().await;
    assert_eq!(service.get("/readyz").await.status, 200);
    service.get("/api/v1/events").await;
    let metrics = service.get("/metrics").await;
    assert!(
        metrics.text.contains("openmeter_query_latency_seconds"),
        "{}",
        metrics.text
    );
    service.stop().await;
}
