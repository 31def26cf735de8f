//! What a person can try while everything runs.

use super::{Options, names::Names, options::Ports};

/// Returns command lines that work when they are pasted.
pub(super) fn hints(ports: Ports, names: &Names, options: &Options) -> String {
    let (api, ingest) = (
        format!("http://127.0.0.1:{}", ports.query),
        format!("http://127.0.0.1:{}", ports.ingest),
    );
    let meters = format!("{api}/api/v1/meters");
    let Names {
        topic, database, ..
    } = names;
    let (kafka, clickhouse) = (&options.kafka, &options.clickhouse);
    format!(
        r#"
Try it:

  # the meters
  curl -s '{meters}'

  # one TPP's calls, by day as Berlin has them
  curl -s '{meters}/api_calls/query?subject=tpp-00001&windowSize=DAY&windowTimeZone=Europe/Berlin'

  # percentiles of the latency by endpoint
  curl -s '{meters}/api_latency_quantiles/query?groupBy=endpoint'

  # only GET, by hour, as CSV
  curl -gs -H 'accept: text/csv' '{meters}/api_calls/query?windowSize=HOUR&groupBy=endpoint&filterGroupBy[method]=GET'

  # events that no meter can use, each with its validationError
  curl -s '{api}/api/v1/events?type=consent.revoked&limit=5'

  # post an event, and see it counted
  curl -i '{ingest}/api/v1/events' -H 'content-type: application/cloudevents+json' -d '{{
    "specversion": "1.0", "type": "api.call", "source": "by-hand", "id": "'$(date +%s%N)'", "subject": "tpp-12345",
    "data": {{"endpoint": "/accounts", "method": "GET", "status_code": 200, "response_time_ms": 45}}}}'
  sleep 1; curl -s '{meters}/api_calls/query?subject=tpp-12345'

Its data is in topic {topic} of Kafka {kafka}
and in database {database} of ClickHouse {clickhouse}.

Ctrl-C stops it and removes its data.
"#
    )
}
