//! Requests to a Broker's ingress: what is answered, and that what is taken is delivered as it
//! came.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, Method, header::CONTENT_TYPE};
use serde_json::{Value, json};

use super::{
    super::{
        file::{Case, Failure, Fields},
        report::Outcome,
    },
    expected::{self, same_bytes},
    needed_object,
    objects::{broker, trigger},
    wire::{Behaviour, SUBSCRIBER},
    world::{World, kafka, namespace},
};

/// The namespace and the Broker of the cases.
const NAMESPACE: &str = "usage";
const BROKER: &str = "metering";
const TRIGGER: &str = "all";

/// What a case asks.
pub(super) struct Question {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
    wanted: Wanted,
}

/// The answer that a case allows.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    statuses: BTreeSet<u16>,
    /// Each with values that must be among those of the answer.
    headers: Vec<(String, Vec<String>)>,
}

/// Reads a case of `broker_ingress`.
pub(super) fn read(case: &Case<'_>) -> Result<Question, Outcome> {
    case.only(&["request", "expect", "precondition"])?;
    let request = needed_object(case, "request")?;
    expected::only(request, &["method", "path", "headers", "body"])?;
    let text = |name: &str| {
        let text = request.get(name).and_then(Value::as_str);
        text.ok_or_else(|| Failure::malformed(format!("a request has no `{name}`")))
    };
    let headers = request.get("headers").map(expected::headers).transpose()?;
    let headers = headers.unwrap_or_default();
    let body = request.get("body").map(expected::bytes).transpose()?;
    let body = body.flatten().unwrap_or_default();
    let body = written_out(body, &headers)?;
    let method = text("method")?.parse().map_err(Failure::malformed)?;
    let wanted = needed_object(case, "expect")?;
    if let Some(needed) = case.text("precondition")? {
        return Err(Outcome::Skipped(format!("needs that: {needed}")));
    }
    let Some(wanted) = Wanted::read(wanted)? else {
        return Err(Outcome::Skipped("told in prose".to_owned()));
    };
    Ok(Question {
        method,
        path: text("path")?.to_owned(),
        headers,
        body,
        wanted,
    })
}

/// Writes out what stands for a large body: `<36864 x 'a'>`, `<2 MiB>`, `<body so that whole
/// event is 65536 bytes>`.
fn written_out(body: Vec<u8>, headers: &HeaderMap) -> Result<Vec<u8>, Failure> {
    let Ok(text) = std::str::from_utf8(&body) else {
        return Ok(body);
    };
    let Some(text) = text
        .strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'))
    else {
        return Ok(body);
    };
    let words: Vec<&str> = text.split(' ').collect();
    let number = |text: &str| text.parse().map_err(Failure::malformed);
    let attributes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let size: usize = match words[..] {
        [times, "x", letter] if letter.trim_matches('\'').len() == 1 => {
            return Ok(letter
                .trim_matches('\'')
                .repeat(number(times)?)
                .into_bytes());
        }
        [size, "KiB"] => number(size)? << 10,
        [size, "MiB"] => number(size)? << 20,
        ["body", "so", "that", "whole", "event", "is", size, "bytes"] => {
            number(size)?.saturating_sub(attributes.sum())
        }
        // A document in angle brackets.
        _ => return Ok(body),
    };
    Ok(vec![b'a'; size])
}

impl Wanted {
    /// Reads a status, or a text that begins with one: `405 + Allow: POST, OPTIONS`, `400 (415
    /// also acceptable)`. Nothing if it is prose.
    fn read(wanted: &Fields) -> Result<Option<Self>, Failure> {
        let text = match expected::ours(wanted)? {
            Some(Value::String(text)) if text == "as mt" => {
                wanted.get("mt").and_then(Value::as_str)
            }
            Some(Value::String(text)) => Some(&**text),
            Some(Value::Number(status)) => Some(status.as_str()),
            Some(other) => return Err(Failure::malformed(format!("expects {other}"))),
            None => None,
        };
        let Some(text) = text else { return Ok(None) };
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
        let status = |word: &str| {
            word.parse()
                .ok()
                .filter(|status| (100..600).contains(status))
        };
        let begins = words.clone().next().and_then(status);
        if begins.is_none() {
            return Ok(None);
        }
        let header = |part: &str| {
            let (name, values) = part.trim().split_once(": ")?;
            let values = values.split(',').map(|value| value.trim().to_owned());
            Some((name.to_ascii_lowercase(), values.collect()))
        };
        Ok(Some(Self {
            statuses: words.filter_map(status).collect(),
            headers: text.split(['+', ';']).filter_map(header).collect(),
        }))
    }

    fn check(&self, status: u16, headers: &HeaderMap) -> Result<(), Failure> {
        let found = format!("{status} with {headers:?}");
        let has = |(name, wanted): &(String, Vec<String>)| {
            let values = headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok());
            let values: Vec<&str> = values
                .flat_map(|value| value.split(','))
                .map(str::trim)
                .collect();
            wanted.iter().all(|wanted| values.contains(&&**wanted))
        };
        if self.statuses.contains(&status) && self.headers.iter().all(has) {
            Ok(())
        } else {
            Err(Failure::new(format!("{self:?}"), found))
        }
    }
}

/// Sends all requests, one after the other. Whatever is taken must arrive, and nothing else.
pub(super) async fn run(
    questions: Vec<(usize, Question)>,
) -> anyhow::Result<Vec<(usize, Outcome)>> {
    let namespace = namespace();
    let mut objects = broker(&namespace, BROKER, &kafka());
    let spec = json!({"subscriber": {"uri": format!("http://{SUBSCRIBER}/{TRIGGER}")}});
    objects.push(trigger(&namespace, TRIGGER, BROKER, spec));
    let world = World::start(&objects, Box::new(|_| Behaviour::done())).await?;
    let mut outcomes = Vec::new();
    let mut taken = 0;
    for (index, question) in questions {
        let outcome = match send(&world, &namespace, &question, &mut taken).await {
            Ok(result) => result.into(),
            Err(error) => Failure::from(error).into(),
        };
        outcomes.push((index, outcome));
    }
    world.stop().await;
    Ok(outcomes)
}

async fn send(
    world: &World,
    namespace: &str,
    question: &Question,
    taken: &mut u64,
) -> anyhow::Result<Result<(), Failure>> {
    let path = match question.path.strip_prefix(&format!("/{NAMESPACE}/")) {
        Some(broker) => format!("/{namespace}/{broker}"),
        None => question.path.clone(),
    };
    let request = reqwest::Client::new()
        .request(question.method.clone(), world.url(&path))
        .headers(question.headers.clone())
        .body(question.body.clone());
    let answer = request.send().await?;
    let is_event = question.method == Method::POST && answer.status().is_success();
    *taken += u64::from(is_event);
    world.settled(&[TRIGGER.to_owned()], *taken).await?;
    let result = question
        .wanted
        .check(answer.status().as_u16(), answer.headers());
    let arrived = world.seen();
    Ok(match arrived.last() {
        Some(last) if result.is_ok() && is_event && question.headers.contains_key("ce-id") => {
            let content_type = question.headers.get(CONTENT_TYPE);
            let content_type = content_type
                .map(|value| value.as_bytes())
                .unwrap_or_default();
            same_bytes("body", &question.body, Some(&last.body))
                .and_then(|()| same_bytes("type", content_type, Some(last.content_type())))
        }
        _ => result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_may_stand_in_a_text() {
        let read = |ours: Value| {
            let wanted = json!({"ours": ours, "mt": "200; Allow: POST, OPTIONS; X: *"});
            Wanted::read(wanted.as_object().unwrap()).unwrap()
        };
        let statuses = |ours: &str| read(json!(ours)).unwrap().statuses.into_iter().collect();
        let none: Vec<u16> = statuses("202 keeping 0.3, or 400 if 0.3 is unsupported");
        assert_eq!(none, [202, 400]);
        assert_eq!(statuses("404"), [404]);
        assert_eq!(statuses("400 (415 also acceptable); never 20"), [400, 415]);
        assert_eq!(read(json!("same names if we add 200")), None);
        assert_eq!(read(json!(202)).unwrap().statuses, BTreeSet::from([202]));
        let as_mt = read(json!("as mt")).unwrap();
        assert_eq!(as_mt.statuses, BTreeSet::from([200]));
        let mut headers = HeaderMap::new();
        assert!(as_mt.check(200, &headers).is_err());
        headers.insert("allow", "OPTIONS,POST".parse().unwrap());
        headers.insert("x", "*".parse().unwrap());
        assert_eq!(as_mt.check(200, &headers), Ok(()));
        assert!(as_mt.check(202, &headers).is_err());
    }

    #[test]
    fn a_large_body_is_written_out() {
        let mut headers = HeaderMap::new();
        headers.insert("ce-id", "1234".parse().unwrap());
        let of = |text: &str| written_out(text.as_bytes().to_vec(), &headers).unwrap();
        assert_eq!(of("<3 x 'b'>"), b"bbb");
        assert_eq!(of("<2 MiB>").len(), 2 << 20);
        assert_eq!(
            of("<body so that whole event is 65536 bytes>").len(),
            65536 - 9
        );
        assert_eq!(of("<a>1</a>"), b"<a>1</a>");
    }
}
