//! Meter queries.

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::service::Service;

const METERS: &str = "
meters:
  - {slug: total, eventType: t, aggregation: SUM, valueProperty: $.ms, groupBy: {method: $.method, path: $.path}}
  - {slug: calls, eventType: t, aggregation: COUNT}
  - {slug: latency, eventType: t, aggregation: QUANTILES, valueProperty: $.ms}
";

async fn service() -> Service {
    let service = Service::start(METERS).await;
    let events = json!([
        {"id": "1", "time": "2025-03-09T07:59:59.999999Z", "subject": "it's", "data": {"ms": "9999999999999999999", "method": "GET", "path": "/"}},
        {"id": "2", "time": "2025-03-09T08:00:00Z", "subject": "b", "data": {"ms": 0.1, "method": "GET", "path": "/a,\"b\""}},
        {"id": "3", "time": "2025-03-10T06:59:59Z", "subject": "b", "data": {"ms": 0.2, "method": "POST"}},
        {"id": "4", "time": "2025-03-10T07:00:00Z", "subject": "it's", "data": {"ms": "9999999999999999999", "method": "GET", "path": "/"}}
    ]);
    service.send(&events).await;
    service
}

#[tokio::test]
async fn a_day_is_a_day_of_the_zone_and_a_value_keeps_its_digits() {
    let service = service().await;
    let path = "/api/v1/meters/total/query?windowSize=DAY&windowTimeZone=America/Los_Angeles";
    let answer = service.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let rows = answer.json();
    let brief: Vec<_> = rows["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            format!(
                "{} {} {}",
                row["windowStart"], row["windowEnd"], row["value"]
            )
            .replace('"', "")
        })
        .collect();
    assert_eq!(
        brief,
        [
            "2025-03-08T08:00:00Z 2025-03-09T08:00:00Z 9999999999999999999",
            "2025-03-09T08:00:00Z 2025-03-10T07:00:00Z 0.3",
            "2025-03-10T07:00:00Z 2025-03-11T07:00:00Z 9999999999999999999",
        ]
    );
    assert_eq!(rows["windowSize"], "DAY");
    assert!(rows.get("from").is_none());
    let all = service.get("/api/v1/meters/total/query").await;
    assert!(
        all.text.contains(r#""value":19999999999999999998.3,"#),
        "{}",
        all.text
    );
    service.stop().await;
}

#[tokio::test]
async fn get_and_post_filter_and_group_alike() {
    let service = service().await;
    let by_url = service
        .get("/api/v1/meters/total/query?subject=it%27s&subject=nobody&groupBy=path,method&filterGroupBy%5Bmethod%5D=GET&clientId=c")
        .await;
    let body = json!({"subject": ["it's", "nobody"], "groupBy": ["path", "method"], "filterGroupBy": {"method": ["GET"]}});
    let by_body = service
        .ask(
            Method::POST,
            "/api/v1/meters/total/query",
            "*/*",
            &body.to_string(),
        )
        .await;
    assert_eq!(by_url.json(), by_body.json());
    let rows = by_url.json();
    assert_eq!(
        rows["data"],
        json!([{
            "value": serde_json::from_str::<serde_json::Value>("19999999999999999998").unwrap(),
            "windowStart": "2025-03-09T07:59:00Z", "windowEnd": "2025-03-10T07:01:00Z",
            "subject": "it's", "groupBy": {"method": "GET", "path": "/"}
        }])
    );
    service.stop().await;
}

#[tokio::test]
async fn csv_has_a_name_a_header_and_exact_values() {
    let service = service().await;
    let path = "/api/v1/meters/total/query?groupBy=subject&groupBy=path&windowSize=DAY&from=2025-03-09T08:00:00Z&to=2025-03-10T00:00:00Z";
    let answer = service.ask(Method::GET, path, "text/csv", "").await;
    assert_eq!(answer.content_type, "text/csv; charset=utf-8");
    assert_eq!(answer.disposition, "attachment; filename=total.csv");
    assert_eq!(
        answer.text,
        "window_start,window_end,subject,path,value\n\
         2025-03-09T00:00:00Z,2025-03-10T00:00:00Z,b,\"/a,\"\"b\"\"\",0.100000\n"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_latency_meter_tells_its_quantiles() {
    let service = service().await;
    let rows = service.get("/api/v1/meters/latency/query").await.json();
    let row = &rows["data"][0];
    assert_eq!(row["value"], row["quantiles"]["p50"]);
    assert_eq!(row["quantiles"]["p99"].to_string(), "9999999999999999999");
    service.stop().await;
}

#[tokio::test]
async fn a_count_of_nothing_is_zero_and_a_sum_of_nothing_is_no_row() {
    let service = service().await;
    let stretch = "from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z";
    let count = service
        .get(&format!("/api/v1/meters/calls/query?{stretch}"))
        .await
        .json();
    assert_eq!(
        count,
        json!({
            "from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z",
            "data": [{"value": 0, "windowStart": "2020-01-01T00:00:00Z", "windowEnd": "2020-02-01T00:00:00Z", "subject": null, "groupBy": {}}]
        })
    );
    let sum = service
        .get(&format!("/api/v1/meters/total/query?{stretch}"))
        .await
        .json();
    assert_eq!(sum["data"], json!([]));
    service.stop().await;
}

#[tokio::test]
async fn a_mistake_is_a_400_and_an_unknown_meter_a_404() {
    let service = service().await;
    for (path, status) in [
        ("/api/v1/meters/nothing/query", StatusCode::NOT_FOUND),
        (
            "/api/v1/meters/total/query?groupBy=foo",
            StatusCode::BAD_REQUEST,
        ),
        (
            "/api/v1/meters/total/query?windowTimeZone=Mars",
            StatusCode::BAD_REQUEST,
        ),
        (
            "/api/v1/meters/total/query?filterGroupBy[x]=1",
            StatusCode::BAD_REQUEST,
        ),
        (
            "/api/v1/meters/total/query?from=2024-01-01T00:00:00Z&to=2024-01-01T00:00:00Z",
            StatusCode::BAD_REQUEST,
        ),
        (
            "/api/v1/meters/total/query?advancedMeterGroupByFilters={}",
            StatusCode::BAD_REQUEST,
        ),
        (
            "/api/v1/meters/total/subjects?from=x",
            StatusCode::BAD_REQUEST,
        ),
        (
            "/api/v1/meters/total/group-by/foo/values",
            StatusCode::NOT_FOUND,
        ),
        ("/api/v1/events?limit=101", StatusCode::BAD_REQUEST),
    ] {
        let answer = service.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.content_type, "application/problem+json", "{path}");
    }
    service.stop().await;
}
