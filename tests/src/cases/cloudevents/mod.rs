//! Cases of CloudEvents' bindings and of Knative's brokers, run on the code that a laptop runs.
//!
//! Layout:
//! - `expected`: what the texts of the cases allow
//! - `decode`, `encode`: CloudEvents over HTTP
//! - `records`: CloudEvents over Kafka, also as a Broker and a KafkaSource have them
//! - `admission`: deliveries and filters, read
//! - `ingress`, `filters`, `routing`, `responses`: a Broker and its Triggers, which run
//! - `world`, `wire`, `objects`: what these run in, whom they reach, and their manifests
//!
//! Groups that are told in prose are skipped. Those of `delivery_scenarios`, and two of
//! `pingsource`, are tests of the runner, which name their cases; the others are not run.

mod admission;
mod decode;
mod encode;
mod expected;
mod filters;
mod ingress;
mod objects;
mod records;
mod responses;
mod routing;
mod wire;
mod world;

use futures::future::{BoxFuture, FutureExt as _, ready};
use serde_json::Value;
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{
    file::{Case, Failure, Fields, Suite},
    jobs::{self, Job, done, one_by_one},
    report::Outcome,
};

/// Returns the jobs of a group.
pub(super) fn jobs(group: &Suite) -> Vec<Job<'_>> {
    match &*group.id {
        "http_binary_decode" => one_by_one(group, |case| at_once(decode::binary(&case))),
        "http_structured_decode" => one_by_one(group, |case| at_once(decode::structured(&case))),
        "http_batch_decode" => one_by_one(group, |case| at_once(decode::batch(&case))),
        "http_binary_encode" => one_by_one(group, |case| at_once(encode::binary(&case))),
        "kafka_binding" => together(group, records::read, records::run),
        "broker_ingress" => together(group, ingress::read, ingress::run),
        "filters_dialects" => together(group, filters::read, filters::run),
        "routing" => together(group, routing::read, routing::run),
        "subscriber_response" => together(group, responses::read, responses::run),
        "delivery_spec_validation" => one_by_one(group, |case| at_once(admission::delivery(&case))),
        "filters_attribute_names" => {
            one_by_one(group, |case| at_once(admission::attribute_name(&case)))
        }
        "backoff_schedule" => one_by_one(group, |case| at_once(admission::backoff(&case))),
        _ => jobs::skipped(group, "told in prose"),
    }
}

/// Returns the jobs of a group whose cases need one world. `read` says what a case asks, or
/// what becomes of it without one.
fn together<'a, Question, Run>(
    group: &'a Suite,
    read: fn(&Case<'a>) -> Result<Question, Outcome>,
    run: fn(Vec<(usize, Question)>) -> Run,
) -> Vec<Job<'a>>
where
    Question: Send + 'static,
    Run: Future<Output = anyhow::Result<Vec<(usize, Outcome)>>> + 'static,
{
    let mut without = Vec::new();
    let mut questions = Vec::new();
    for (index, case) in group.cases() {
        match case.map_err(Outcome::from).and_then(|case| read(&case)) {
            Ok(question) => questions.push((index, question)),
            Err(outcome) => without.push((index, outcome)),
        }
    }
    if questions.is_empty() {
        return vec![done(without)];
    }
    let places: Vec<usize> = questions.iter().map(|(index, _)| *index).collect();
    let job = async move {
        let handle = Handle::current();
        // Jobs move between threads, which a start of eventing cannot.
        let world = spawn_blocking(move || handle.block_on(run(questions)));
        let outcomes = world.await.map_err(anyhow::Error::from).flatten();
        outcomes.unwrap_or_else(|error| {
            let outcome = Outcome::from(Failure::from(error));
            let failed = |index| (index, outcome.clone());
            places.into_iter().map(failed).collect()
        })
    };
    vec![done(without), job.boxed()]
}

fn at_once(outcome: impl Into<Outcome>) -> BoxFuture<'static, Outcome> {
    ready(outcome.into()).boxed()
}

/// Returns a member that the case must have.
fn needed<'a>(case: &Case<'a>, name: &str) -> Result<&'a Value, Failure> {
    let found = case.fields.get(name);
    found.ok_or_else(|| Failure::malformed(format!("has no `{name}`")))
}

/// Returns an object that the case must have.
fn needed_object<'a>(case: &Case<'a>, name: &str) -> Result<&'a Fields, Failure> {
    case.object(name)?
        .ok_or_else(|| Failure::malformed(format!("has no `{name}`")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{CaseFile, Outcome, Report, Tally, run};
    use super::*;

    const FILE: &str = include_str!("../../../cases/knative_cloudevents.json");

    async fn report(groups: &Value) -> Report {
        run(&CaseFile::parse(&json!({"groups": groups}).to_string()).unwrap()).await
    }

    /// Returns whether the first case of `report` was passed.
    fn passed(report: &Report) -> bool {
        report.verdicts[0].outcome == Outcome::Passed
    }

    #[tokio::test]
    async fn a_wrong_expectation_fails() {
        let file: Value = serde_json::from_str(FILE).unwrap();
        let mut groups = serde_json::Map::new();
        for (name, group) in file["groups"].as_object().unwrap() {
            let cases = group["cases"].as_array().unwrap().iter();
            let wrong: Vec<Value> = cases.flat_map(|case| wrongs(name, case)).collect();
            if !wrong.is_empty() {
                groups.insert(name.clone(), json!({"cases": wrong}));
            }
        }
        assert_eq!(groups.len(), 12);
        let report = report(&Value::Object(groups)).await;
        for verdict in &report.verdicts {
            assert_ne!(verdict.outcome, Outcome::Passed, "{verdict:?}");
        }
        let Tally {
            failed, skipped, ..
        } = report.tally();
        assert!(
            failed > 300 && skipped < 10,
            "{failed} failed, {skipped} skipped"
        );
    }

    /// Returns copies of a case, each of which expects one other thing; none of a case in prose.
    fn wrongs(group: &str, case: &Value) -> Vec<Value> {
        let with = |member: &str, wrong: Value| {
            let mut case = case.clone();
            case[member] = wrong;
            case
        };
        let one = |member: &str, wrong: Value| vec![with(member, wrong)];
        match group {
            "http_binary_decode"
            | "http_structured_decode"
            | "http_batch_decode"
            | "http_binary_encode"
            | "kafka_binding" => {
                let wrongs = wrong_values(&case["expect"]).into_iter();
                wrongs.map(|wrong| with("expect", wrong)).collect()
            }
            "delivery_spec_validation" | "filters_attribute_names" => {
                one("valid", json!(case["valid"] == false))
            }
            "backoff_schedule" if case.get("n").is_some() => one("expect_ms", json!(1)),
            "backoff_schedule" if case.get("retry").is_some() => one("retry", json!(9)),
            "broker_ingress" => one("expect", json!({"ours": 599})),
            "filters_dialects" => one("match", json!(case["match"] == false)),
            "routing" => {
                let mut expect = case["expect"].clone();
                for events in expect.as_object_mut().unwrap().values_mut() {
                    events.as_array_mut().unwrap().push(json!("another"));
                }
                one("expect", expect)
            }
            "subscriber_response" => {
                let kafka = case["expect"]["kafka"].as_str().unwrap();
                let wrong = match kafka.split([' ', ':']).next().unwrap() {
                    "ack" => "ack+reply",
                    "retry" | "ignored" => "fail",
                    "fail" | "failure" => "retry",
                    _ => "ack",
                };
                one("expect", json!({"kafka": wrong}))
            }
            _ => Vec::new(),
        }
    }

    /// Returns `expect` with one value at a time replaced by another.
    fn wrong_values(expect: &Value) -> Vec<Value> {
        let result = expect.get("result").and_then(Value::as_str);
        if !matches!(result, None | Some("accept" | "reject")) {
            return Vec::new();
        }
        let mut wrongs = Vec::new();
        for (name, value) in expect.as_object().unwrap() {
            let mut put = |wrong| {
                let mut expect = expect.clone();
                expect[name] = wrong;
                wrongs.push(expect);
            };
            match (&**name, value) {
                ("why" | "note" | "preferred", _) => {}
                ("result", _) => put(json!(if value == "accept" {
                    "reject"
                } else {
                    "accept"
                })),
                ("attributes" | "headers" | "extensions", Value::Object(fields)) => {
                    for name in fields.keys() {
                        let mut fields = fields.clone();
                        fields.insert(name.clone(), json!("another"));
                        put(Value::Object(fields));
                    }
                }
                ("absent", _) => put(json!(["ce-id"])),
                ("data_json", _) => put(json!({"b": 2})),
                ("data_base64", _) => put(json!("b3RoZXI=")),
                _ => put(json!("another")),
            }
        }
        wrongs
    }

    #[tokio::test]
    async fn a_shape_that_is_not_known_fails() {
        let fine = json!({"headers": [["ce-specversion", "1.0"], ["ce-id", "1"],
            ["ce-source", "/s"], ["ce-type", "t"]], "body": "", "expect": {"result": "accept"}});
        assert!(passed(
            &report(&json!({"http_binary_decode": {"cases": [fine]}})).await
        ));
        let with = |name: &str, value: Value| {
            let mut case = fine.clone();
            case[name] = value;
            case
        };
        let cases = [
            with("expect", json!({"result": "maybe"})),
            with("expect", json!({"result": "accept", "latency": 5})),
            with("expect", json!({})),
            with("expect", json!("accept")),
            with("headers", json!({"ce-id": [1]})),
            with("headers", json!([["ce-id"]])),
            with("body", json!(5)),
            with("trailers", json!([])),
            json!(5),
            json!({}),
        ];
        let number = cases.len();
        let groups = json!({
            "http_binary_decode": {"cases": cases},
            "kafka_binding": {"cases": [{"expect": {}}]},
            "prose": {"cases": [{}, {}]},
            "no group": 5,
        });
        let report = report(&groups).await;
        let expected = Tally {
            passed: 0,
            failed: number + 1 + 1,
            skipped: 2,
        };
        assert_eq!(report.tally(), expected, "{:?}", report.verdicts);
    }
}
