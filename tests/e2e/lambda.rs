//! The functions' own binaries on AWS Lambda, invoked with the events that AWS documents.

use std::process::Stdio;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use tests::stack::Stack;
use tokio::process::{Child, Command};

use crate::{
    binaries::binary,
    runtime_api::{RuntimeApi, Said},
    support::{METERS, call, total},
};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// A function as a process on Lambda.
struct Function {
    api: RuntimeApi,
    process: Child,
}

impl Function {
    /// Starts one more of a stack's functions.
    async fn start(name: &str, stack: &Stack) -> Self {
        let api = RuntimeApi::start().await;
        let settings = stack.settings();
        // Lambda reads Kafka itself.
        let settings = settings
            .into_iter()
            .filter(|(name, _)| *name != "OPENMETER_TRIGGER");
        let process = Command::new(binary(name))
            .env_clear()
            .envs(settings)
            .envs(api.env(name))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { api, process }
    }

    /// Sends a request through an API in front of the function.
    async fn request(&mut self, api: Api, request: &Request<'_>) -> Answer {
        let said = self.api.invoke(api.event(request)).await;
        assert_eq!(said.kind, "response", "{said:?}");
        Answer(said.body)
    }

    /// Invokes it with records of Kafka.
    async fn records(&mut self, records: Value) -> Said {
        let mut event: Value = serde_json::from_str(include_str!("lambda/msk.json")).unwrap();
        event["records"] = records;
        self.api.invoke(event).await
    }

    /// Ends it, if it has not ended by itself.
    async fn end(mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None, "it lives on");
        self.process.kill().await.unwrap();
    }
}

/// What is in front of a function.
#[derive(Clone, Copy, Debug)]
enum Api {
    Rest,
    Http,
    FunctionUrl,
}

const APIS: [Api; 3] = [Api::Rest, Api::Http, Api::FunctionUrl];

struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
}

impl Api {
    fn event(self, request: &Request<'_>) -> Value {
        let text = match self {
            Self::Rest => include_str!("lambda/rest_api.json"),
            Self::Http => include_str!("lambda/http_api.json"),
            Self::FunctionUrl => include_str!("lambda/function_url.json"),
        };
        let mut event: Value = serde_json::from_str(text).unwrap();
        let Request { method, path, .. } = request;
        if !request.body.is_empty() {
            // A REST API passes text on as it is, unless it is told that it is binary.
            let plain = std::str::from_utf8(request.body)
                .ok()
                .filter(|_| matches!(self, Self::Rest));
            event["isBase64Encoded"] = plain.is_none().into();
            event["body"] = match plain {
                Some(text) => text.into(),
                None => BASE64_STANDARD.encode(request.body).into(),
            };
        }
        if let Self::Rest = self {
            event["path"] = (*path).into();
            event["httpMethod"] = (*method).into();
            event["requestContext"]["path"] = format!("/prod{path}").into();
            for (name, value) in request.headers {
                event["headers"][name] = (*value).into();
                event["multiValueHeaders"][name] = json!([value]);
            }
            let (mut one, mut many) = (Map::new(), Map::new());
            for (name, value) in request.query {
                one.insert((*name).to_owned(), (*value).into());
                let many = many.entry(*name).or_insert_with(|| json!([]));
                many.as_array_mut().unwrap().push((*value).into());
            }
            event["queryStringParameters"] = one.into();
            event["multiValueQueryStringParameters"] = many.into();
            return event;
        }
        let stage = if matches!(self, Self::Http) {
            "/prod"
        } else {
            ""
        };
        event["rawPath"] = format!("{stage}{path}").into();
        event["requestContext"]["http"]["path"] = event["rawPath"].clone();
        event["requestContext"]["http"]["method"] = (*method).into();
        for (name, value) in request.headers {
            event["headers"][name.to_ascii_lowercase()] = (*value).into();
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        event["rawQueryString"] = query.extend_pairs(request.query).finish().into();
        event
    }
}

/// What a function answered, in Lambda's words.
struct Answer(Value);

impl Answer {
    fn status(&self) -> u64 {
        self.0["statusCode"].as_u64().unwrap()
    }

    /// A header, which a REST API may have as one of many.
    fn header(&self, name: &str) -> &str {
        let one = self.0["headers"][name].as_str();
        one.or_else(|| self.0["multiValueHeaders"][name][0].as_str())
            .unwrap_or_else(|| panic!("{name} in {}", self.0))
    }

    fn text(&self) -> String {
        let body = self.0["body"].as_str().unwrap_or_default();
        if self.0["isBase64Encoded"] == true {
            return String::from_utf8(BASE64_STANDARD.decode(body).unwrap()).unwrap();
        }
        body.to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }
}

fn post<'a>(path: &'a str, headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Request<'a> {
    Request {
        method: "POST",
        path,
        query: &[],
        headers,
        body,
    }
}

fn get<'a>(
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    accept: &'a [(&'a str, &'a str)],
) -> Request<'a> {
    Request {
        method: "GET",
        path,
        query,
        headers: accept,
        body: b"",
    }
}

#[tokio::test]
async fn ingest_takes_events_behind_every_api() {
    let stack = Stack::start(METERS).await.unwrap();
    let mut ingest = Function::start("ingest", &stack).await;
    let event = |id: &str, api: Api| {
        call(
            &format!("{id} {api:?}"),
            "tpp-1",
            "2024-01-15T10:30:00Z",
            10,
        )
    };
    for api in APIS {
        let id = format!("binary {api:?}").replace(' ', "%20");
        let headers = [
            ("CE-SpecVersion", "1.0"),
            ("CE-Id", id.as_str()),
            ("CE-Source", "open-banking-api"),
            ("CE-Type", "api.call"),
            ("CE-Subject", "tpp-%C3%A9"),
            ("CE-Time", "2024-01-15T10:30:00Z"),
            ("Content-Type", "application/json"),
        ];
        let data = event("binary", api)["data"].to_string();
        let answer = ingest
            .request(api, &post("/", &headers, data.as_bytes()))
            .await;
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (202, ""),
            "{api:?}"
        );

        let structured = [("Content-Type", STRUCTURED)];
        let body = event("structured", api).to_string();
        let request = post("/api/v1/events", &structured, body.as_bytes());
        assert_eq!(ingest.request(api, &request).await.status(), 204, "{api:?}");

        let batch = [("Content-Type", BATCH)];
        let body = json!([event("one", api), event("two", api)]).to_string();
        let request = post("/api/v1/events", &batch, body.as_bytes());
        assert_eq!(ingest.request(api, &request).await.status(), 204, "{api:?}");

        // Nothing of a batch with a bad one is taken.
        let mut bad = event("bad", api);
        bad["id"] = "".into();
        let body = json!([event("good", api), bad]).to_string();
        let answer = ingest
            .request(api, &post("/api/v1/events", &batch, body.as_bytes()))
            .await;
        assert_eq!(answer.status(), 400, "{api:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem = answer.json();
        assert_eq!(
            problem["detail"], "event 1: id must not be empty",
            "{problem}"
        );

        for path in ["/events", "/nothing"] {
            let answer = ingest.request(api, &post(path, &structured, b"{}")).await;
            assert_eq!(answer.status(), 404, "{api:?} {path}");
        }
    }
    // Each 2xx is an event in Kafka, and there is nothing else.
    stack.wait_until_counted(12).await.unwrap();
    let rows = stack
        .query("api_calls", &[("groupBy", "subject")])
        .await
        .unwrap();
    let mut counts: Vec<_> = rows
        .iter()
        .map(|row| (row["subject"].to_string(), row["value"].to_string()))
        .collect();
    counts.sort();
    let expected = [("\"tpp-1\"", "9"), ("\"tpp-\u{e9}\"", "3")];
    assert_eq!(
        counts,
        expected.map(|(subject, count)| (subject.to_owned(), count.to_owned()))
    );
    ingest.end().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn ingest_without_kafka_says_so_and_lives_on() {
    let stack = Stack::start(METERS).await.unwrap();
    let api = RuntimeApi::start().await;
    let process = Command::new(binary("ingest"))
        .env_clear()
        .env("OPENMETER_KAFKA_BROKER", "127.0.0.1:1")
        .envs(api.env("ingest"))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut ingest = Function { api, process };
    let structured = [("Content-Type", STRUCTURED)];
    let body = call("1", "tpp-1", "2024-01-15T10:30:00Z", 10).to_string();
    for _ in 0..2 {
        let request = post("/api/v1/events", &structured, body.as_bytes());
        let answer = ingest.request(Api::Http, &request).await;
        assert_eq!(answer.status(), 503);
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    ingest.end().await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn query_answers_behind_every_api() {
    let stack = Stack::start(METERS).await.unwrap();
    let events: Vec<_> = (1..=4)
        .map(|id| {
            call(
                &id.to_string(),
                "tpp 1/\u{e9}",
                "2024-01-15T10:30:00Z",
                10 * id,
            )
        })
        .collect();
    stack.post_events(&events).await.unwrap();
    stack.wait_until_counted(4).await.unwrap();
    let mut query = Function::start("query", &stack).await;
    let path = "/api/v1/meters/api_latency/query";
    for api in APIS {
        let asked = [
            ("from", "2024-01-15T00:00:00Z"),
            ("to", "2024-01-16T00:00:00Z"),
            ("groupBy", "endpoint"),
            ("groupBy", "subject"),
            ("subject", "tpp 1/\u{e9}"),
        ];
        let answer = query
            .request(api, &get(path, &asked, &[("Accept", "application/json")]))
            .await;
        assert_eq!(answer.status(), 200, "{api:?}: {}", answer.text());
        let json = answer.json();
        assert_eq!(json["data"].as_array().unwrap().len(), 1, "{json}");
        let row = &json["data"][0];
        assert_eq!(row["value"].to_string(), "100", "{api:?}");
        assert_eq!(row["groupBy"]["endpoint"], "/accounts", "{api:?}: {json}");
        assert_eq!(row["subject"], "tpp 1/\u{e9}", "{api:?}: {json}");

        let answer = query
            .request(api, &get(path, &asked, &[("Accept", "text/csv")]))
            .await;
        assert_eq!(answer.status(), 200, "{api:?}");
        assert!(answer.header("content-type").starts_with("text/csv"));
        assert!(answer.text().contains("/accounts"), "{}", answer.text());
        assert_eq!(answer.text().lines().count(), 2);

        let answer = query
            .request(api, &get(path, &[("windowSize", "WEEK")], &[]))
            .await;
        assert_eq!(answer.status(), 400, "{api:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(
            answer.json()["detail"]
                .as_str()
                .unwrap()
                .contains("windowSize")
        );
        for path in ["/api/v1/meters/none/query", "/nothing"] {
            assert_eq!(
                query.request(api, &get(path, &[], &[])).await.status(),
                404,
                "{api:?} {path}"
            );
        }
    }
    query.end().await;
    stack.stop().await.unwrap();
}

/// A record as an event source mapping has it. Java's bytes have a sign.
fn record(offset: i64, headers: &[(&str, &str)], value: &[u8]) -> Value {
    let header = |(name, text): &(&str, &str)| {
        let bytes: Vec<_> = text.bytes().map(u8::cast_signed).collect();
        json!({*name: bytes})
    };
    json!({
        "topic": "openmeter.events",
        "partition": 0,
        "offset": offset,
        "timestamp": 1_705_314_600_000_i64,
        "timestampType": "CREATE_TIME",
        "key": BASE64_STANDARD.encode("key"),
        "value": BASE64_STANDARD.encode(value),
        "headers": headers.iter().map(header).collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn process_counts_records_of_an_event_source_mapping_once() {
    let stack = Stack::start(METERS).await.unwrap();
    let mut process = Function::start("process", &stack).await;
    let data = call("", "", "", 10)["data"].to_string();
    let event = |offset: i64, id: &str| {
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "open-banking-api"),
            ("ce_type", "api.call"),
            ("ce_subject", "tpp-\u{e9}"),
            ("ce_time", "2024-01-15T10:30:00Z"),
            ("ce_ingestedat", "2024-01-15T10:30:01.000000Z"),
            ("content-type", "application/json"),
        ];
        record(offset, &headers, data.as_bytes())
    };
    let records = json!({
        "openmeter.events-0": [event(15, "1"), record(16, &[("trace", "x")], b"\xff"), event(17, "2")],
        "openmeter.events-1": [event(3, "3")],
    });
    // The same batch comes again when Lambda did not hear of its end.
    for _ in 0..2 {
        let said = process.records(records.clone()).await;
        assert_eq!(said.kind, "response", "{said:?}");
        assert_eq!(total(&stack, "api_calls").await, "3");
    }
    // What is no batch of records is said to have failed, and not taken for one of none.
    let said = process
        .api
        .invoke(json!({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}))
        .await;
    assert_eq!(said.kind, "error");
    assert!(
        said.body["errorMessage"].as_str().unwrap().contains("503"),
        "{said:?}"
    );
    // A record that cannot be read is buried, and those that came with it are counted.
    let bad = json!({"partition": "none"});
    let said = process
        .records(json!({"openmeter.events-0": [bad, event(18, "4")]}))
        .await;
    assert_eq!(said.kind, "response", "{said:?}");
    assert_eq!(total(&stack, "api_calls").await, "4");
    let rows = stack
        .query("api_calls", &[("groupBy", "subject")])
        .await
        .unwrap();
    assert_eq!(rows[0]["subject"], "tpp-\u{e9}");

    let page = stack
        .get("/api/v1/dead-letters", &[], "application/json")
        .await;
    let page = page.unwrap().accepted().unwrap().json().unwrap();
    let letters = page["items"].as_array().unwrap();
    let mut causes: Vec<_> = letters.iter().map(|letter| &letter["cause"]).collect();
    causes.sort_by_key(|cause| cause["record"].to_string());
    assert_eq!(
        causes.len(),
        3,
        "one of them once for each time that it came"
    );
    assert_eq!(causes[0]["record"], "openmeter.events/0/-1");
    assert_eq!(causes[1]["record"], "openmeter.events/0/16");
    assert_eq!(causes[1]["message"], "specversion is required");
    process.end().await;
    stack.stop().await.unwrap();
}
