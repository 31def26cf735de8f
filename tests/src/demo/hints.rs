//! What a person can try while everything runs.

use super::{Options, accounts::ADMIN_TOKEN, names::Names, runner::Runner};

/// Returns command lines that work when they are pasted.
pub(super) fn hints(runner: &Runner, nginx: &str, names: &Names, options: &Options) -> String {
    let (broker, api) = (runner.broker(), runner.api());
    let quota = format!("{api}/api/v1/quota");
    let meters = format!("{api}/api/v1/meters");
    let Names {
        topic,
        dead_topic,
        ingest_dead_topic,
        database,
        ..
    } = names;
    let (kafka, clickhouse) = (&options.kafka, &options.clickhouse);
    format!(
        r#"
Events are posted to the broker, {broker},
or to the API, {api}, which also takes batches and answers questions. Try it:

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

  # post an event to the broker, and see it counted
  curl -i '{broker}' -H 'content-type: application/cloudevents+json' -d '{{
    "specversion": "1.0", "type": "api.call", "source": "by-hand", "id": "'$(date +%s%N)'", "subject": "tpp-12345",
    "data": {{"endpoint": "/accounts", "method": "GET", "status_code": 200, "response_time_ms": 45}}}}'
  sleep 1; curl -s '{meters}/api_calls/query?subject=tpp-12345'

  # what a TPP has left, and when that is gone
  curl -s '{quota}/tpp-00001'

  # a bank behind nginx: without credits 402, with ten it is let in until those are used
  curl -i -H 'x-tpp-id: my-tpp' '{nginx}/accounts'
  curl -s '{quota}/my-tpp/grants' -H 'authorization: Bearer {ADMIN_TOKEN}' -H "idempotency-key: $(date +%s%N)" \
    -H 'content-type: application/json' -d '{{"amount": "10", "note": "by hand"}}'
  for n in $(seq 15); do curl -s -o /dev/null -w '%{{http_code}} ' -H 'x-tpp-id: my-tpp' '{nginx}/accounts'; sleep 0.2; done; echo
  curl -s -X POST '{quota}/check' -H 'content-type: application/json' -d '{{"checks": [{{"subject": "my-tpp", "cost": "0.5"}}]}}'

  # dead letters, with the cause of each; and sending them once more
  curl -s '{api}/api/v1/dead-letters'
  OPENMETER_KAFKA_TOPIC={topic} OPENMETER_KAFKA_DEAD_TOPIC={dead_topic} \
    OPENMETER_KAFKA_INGEST_DEAD_TOPIC={ingest_dead_topic} make replay-dead-letters

Its data is in topic {topic} of Kafka {kafka}
and in database {database} of ClickHouse {clickhouse}.

Ctrl-C stops it and removes its data.
"#
    )
}
