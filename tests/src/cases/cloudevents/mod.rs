//! Cases of CloudEvents' bindings and of Knative's brokers, run on the code that a laptop runs.
//!
//! Layout:
//! - `expected`: what the texts of the cases allow
//! - `decode`, `encode`: CloudEvents over HTTP
//! - `records`: CloudEvents over Kafka
//! - `ingress`, `filters`, `routing`, `responses`: a Broker and its Triggers, which run
//! - `world`, `objects`: what these run in, and their manifests
//!
//! Groups that are told in prose are skipped: the runner's own tests name their cases.

mod decode;
mod encode;
mod expected;
mod filters;
mod ingress;
mod objects;
mod records;
mod responses;
mod routing;
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
        "kafka_binding" => one_by_one(group, |case| at_once(records::check(&case))),
        "broker_ingress" => together(group, ingress::read, ingress::run),
        "filters_dialects" => together(group, filters::read, filters::run),
        "routing" => together(group, routing::read, routing::run),
        "subscriber_response" => together(group, responses::read, responses::run),
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

fn at_once(result: Result<(), Failure>) -> BoxFuture<'static, Outcome> {
    ready(result.into()).boxed()
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

    fn group(name: &str) -> Vec<Value> {
        let file: Value = serde_json::from_str(FILE).unwrap();
        file["groups"][name]["cases"].as_array().unwrap().clone()
    }

    /// Returns whether the first case of `report` was passed.
    fn passed(report: &Report) -> bool {
        report.verdicts[0].outcome == Outcome::Passed
    }

    #[tokio::test]
    async fn the_opposite_of_what_a_case_expects_fails() {
        for name in [
            "http_binary_decode",
            "http_structured_decode",
            "http_batch_decode",
        ] {
            for mut case in group(name) {
                let opposite = match case["expect"]["result"].as_str().unwrap() {
                    "accept" => "reject",
                    "reject" => "accept",
                    _ => continue,
                };
                case["expect"]["result"] = json!(opposite);
                let report = report(&json!({name: {"cases": [case]}})).await;
                assert!(!passed(&report), "{:?}", report.verdicts[0]);
            }
        }
    }

    #[tokio::test]
    async fn every_value_that_a_case_names_is_compared() {
        for name in [
            "http_binary_decode",
            "http_structured_decode",
            "http_binary_encode",
            "kafka_binding",
        ] {
            for case in group(name) {
                let allowed = case["expect"]["result"].as_str().unwrap_or("accept");
                if case["record"].get("topic").is_some() || allowed != "accept" {
                    continue;
                }
                for wrong in wrongs(&case["expect"]) {
                    let mut case = case.clone();
                    case["expect"] = wrong;
                    let report = report(&json!({name: {"cases": [case.clone()]}})).await;
                    assert!(!passed(&report), "{case}");
                }
            }
        }
    }

    /// Returns `expect` with one value at a time replaced by another.
    fn wrongs(expect: &Value) -> Vec<Value> {
        let mut wrongs = Vec::new();
        for (name, value) in expect.as_object().unwrap() {
            let mut put = |wrong| {
                let mut expect = expect.clone();
                expect[name] = wrong;
                wrongs.push(expect);
            };
            match (&**name, value) {
                ("why" | "note" | "preferred", _) => {}
                ("attributes" | "headers", Value::Object(fields)) => {
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
