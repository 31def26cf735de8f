//! Acceptance cases given as data: what other implementations of metering, of CloudEvents and
//! of Knative answer, run against ours.
//!
//! Layout:
//! - [`CaseFile`], [`Suite`], [`Case`], [`Failure`]: the file
//! - `compare`: when an answer is what a case says
//! - [`Fixture`]: the meters and events that a case stands on
//! - `jobs`: cases that can run beside each other, each on a stack that others do not see
//! - `definitions`, `parse`, `query`, `csv`, `ingest`, `events`: the suites, by family
//! - `cloudevents`: the groups of a file of CloudEvents and Knative
//! - [`Deviations`]: what we answer otherwise on purpose
//! - [`Report`]: what came of it
//!
//! A case that is not understood fails: what was never checked must not count as met.

mod cloudevents;
mod compare;
mod csv;
mod definitions;
mod deviations;
mod events;
mod file;
mod fixture;
mod ingest;
mod jobs;
mod parse;
mod query;
mod report;

use futures::StreamExt as _;
use serde_json::Value;

pub use deviations::Deviations;
pub use file::{Case, CaseFile, Failure, Fields, Format, Suite};
pub use fixture::Fixture;
pub use report::{Outcome, Report, Tally, Verdict};

use jobs::Job;

/// Stacks at a time. Most of a case is waiting for engines, and these are shared.
const PARALLEL: usize = 6;

/// Runs all cases of a file that can be run.
pub async fn run(file: &CaseFile) -> Report {
    let mut report = Report::default();
    let malformed = |what: &String| Verdict {
        suite: "the file".to_owned(),
        index: 0,
        id: None,
        name: String::new(),
        outcome: Failure::malformed(what).into(),
    };
    report.verdicts.extend(file.malformed.iter().map(malformed));
    for (_, verdict) in outcomes(file).await {
        report.verdicts.push(verdict);
    }
    report
}

async fn outcomes(file: &CaseFile) -> Vec<((usize, usize), Verdict)> {
    let of_suite = |(place, suite)| {
        let jobs = match file.format {
            Format::OpenMeter => jobs_of(suite),
            Format::CloudEvents => cloudevents::jobs(suite),
        };
        jobs.into_iter().map(move |job| (place, suite, job))
    };
    let jobs = file.suites.iter().enumerate().flat_map(of_suite);
    let runs = jobs.map(|(place, suite, job): (usize, &Suite, Job<'_>)| async move {
        let verdict = |(index, outcome)| ((place, index), suite.verdict(index, outcome));
        job.await.into_iter().map(verdict).collect::<Vec<_>>()
    });
    let mut verdicts: Vec<_> = futures::stream::iter(runs)
        .buffer_unordered(PARALLEL)
        .concat()
        .await;
    verdicts.sort_by_key(|(place, _)| *place);
    verdicts
}

impl Suite {
    fn verdict(&self, index: usize, outcome: Outcome) -> Verdict {
        let member = |name| self.cases.get(index)?.get(name);
        // Cases without a name are known by what they ask.
        let name = ["name", "title", "eventType", "query", "filter"]
            .into_iter()
            .find_map(member);
        let name = match name {
            Some(Value::String(name)) => name.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        Verdict {
            suite: self.id.clone(),
            index,
            id: member("id").and_then(Value::as_str).map(str::to_owned),
            name,
            outcome,
        }
    }
}

fn jobs_of(suite: &Suite) -> Vec<Job<'_>> {
    match &*suite.id {
        "meter_validation" => definitions::validation(suite),
        "reserved_event_types" => definitions::reserved(suite),
        "parse_event" => parse::jobs(suite),
        "aggregation" | "windowing" | "e2e_dst" | "e2e_query" => query::jobs(suite),
        "query_validation" => query::validation(suite),
        "csv_output" => csv::jobs(suite),
        "ingest_http" => ingest::http(suite),
        "e2e_ingest" => ingest::totals(suite),
        "e2e_invalid_events" => events::invalid(suite),
        "events_list" => events::listed(suite),
        id if id.ends_with("_as_of") => {
            jobs::skipped(suite, "needs a store seeded with stored times")
        }
        _ => jobs::skipped(suite, "nothing here runs this suite yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tally(text: &str) -> Tally {
        run(&CaseFile::parse(text).unwrap()).await.tally()
    }

    #[tokio::test]
    async fn what_makes_no_sense_fails_and_what_is_not_run_is_skipped() {
        let text = r#"{"suites": [
            5,
            {"cases": []},
            {"id": "portal"},
            {"id": "portal", "cases": [1, {}]},
            {"id": "windowing_as_of", "cases": [{}]},
            {"id": "windowing", "cases": [
                5,
                {},
                {"aggregation": "SUM", "query": {}},
                {"aggregation": "SUM", "query": {}, "rows": 5},
                {"aggregation": "SUM", "query": {}, "rows": [], "sort": "up"},
                {"aggregation": "SUM", "query": {"window": "HOUR"}, "rows": []},
                {"aggregation": "SUM", "query": {"storedAt": {"lt": "2024-01-01T00:00:00Z"}}, "rows": []},
                {"aggregation": "SUM", "query": {}, "rows": [], "api": "v3"},
                {"aggregation": "SUM", "query": {}, "rows": [], "api": "v9"}
            ]}
        ]}"#;
        let expected = Tally {
            passed: 0,
            failed: 3 + 7,
            skipped: 3 + 2,
        };
        assert_eq!(tally(text).await, expected);
    }

    #[tokio::test]
    async fn a_wrong_expectation_fails() {
        let case = |value: &str, error: &str| {
            format!(
                r#"{{"suites": [{{"id": "parse_event", "cases": [{{
                    "meter": {{"aggregation": "SUM", "valueProperty": "$.ms", "groupBy": {{"p": "$.p"}}}},
                    "data_raw": "{{\"ms\": \"1.50\", \"p\": \"/\"}}",
                    "expect": {{"value": {value}, "groupBy": {{"p": "/"}}, "error": {error}}}
                }}]}}]}}"#
            )
        };
        assert_eq!(tally(&case("1.5", "null")).await.passed, 1);
        for (value, error) in [("1.4", "null"), ("1.5", "\"bad\""), ("null", "null")] {
            assert_eq!(
                tally(&case(value, error)).await.failed,
                1,
                "{value} {error}"
            );
        }
    }
}
