//! One event to one address: attempts, waits, replies, and the dead letter sink.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use serde::Serialize;
use stream::{
    CloudEvent, Receipt,
    http::{encode_header, into_request},
};
use tokio_util::sync::CancellationToken;

use super::{
    address::{BROKER_INGRESS, SINK_INGRESS},
    answer::{Action, Replies, classify},
    delivery::{Delivery, backoff},
    ingress::{Ingress, Outlet},
};
use crate::network::{Network, Unanswered};

/// How much of an answer a dead letter tells.
const ERROR_DATA_BYTES: usize = 1024;

/// Everybody who can be reached: ourselves, and all others.
#[derive(Clone)]
pub(super) struct Roads {
    pub(super) ingress: Arc<Ingress>,
    pub(super) network: Arc<dyn Network>,
}

impl Roads {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        match request.uri().host() {
            Some(BROKER_INGRESS | SINK_INGRESS) => Ok(self.ingress.take(request).await),
            _ => self.network.send(request).await,
        }
    }
}

/// What became of events so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) delivered: AtomicU64,
    pub(super) filtered: AtomicU64,
    pub(super) replies: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) in_flight: AtomicU64,
}

/// What became of a trigger's or a source's events since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `Trigger`, `KafkaSource` or `PingSource`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Events that somebody took.
    pub delivered: u64,
    /// Events that did not pass the filter.
    pub filtered: u64,
    /// Events that came back in answers.
    pub replies: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Events that could not be delivered: dead letters, and what was lost.
    pub failed: u64,
    /// Events that the dead letter sink took.
    pub dead_letters: u64,
    /// Events that nobody took. Each is in the log.
    pub lost: u64,
    /// Events under way.
    pub in_flight: u64,
    /// Records that are not finished, known to the second; nothing until it is known.
    pub lag: Option<u64>,
}

/// What was made of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Somebody has the event, or nobody ever will.
    Settled,
    /// We end before that is known, or another member of the group has the event now.
    Interrupted,
}

/// How one trigger or source delivers.
pub(super) struct Deliverer {
    /// `Trigger open-banking/ingest`, for the log.
    pub(super) whose: String,
    pub(super) namespace: HeaderValue,
    pub(super) roads: Roads,
    pub(super) to: String,
    pub(super) delivery: Delivery,
    /// Where replies go; without it nobody looks at them.
    pub(super) replies: Option<Outlet>,
    pub(super) counts: Arc<Counts>,
    /// No new attempts.
    pub(super) stop: CancellationToken,
}

enum Attempts {
    Done,
    Failed(Result<Response<Bytes>, Unanswered>),
    Interrupted,
}

impl Deliverer {
    /// Delivers an event, if need be as a dead letter, while its record, if it is of one, is ours.
    pub(super) async fn deliver(&self, event: CloudEvent, receipt: Option<&Receipt>) -> Fate {
        self.counts.in_flight.fetch_add(1, Relaxed);
        let fate = self.attempt_all(event, receipt).await;
        self.counts.in_flight.fetch_sub(1, Relaxed);
        fate
    }

    async fn attempt_all(&self, event: CloudEvent, receipt: Option<&Receipt>) -> Fate {
        let id = event.id().to_owned();
        let (mut headers, body) = match into_request(event) {
            Ok(request) => request,
            Err(error) => {
                // Not one that was read: the decoders refuse what they could not pass on.
                self.lose(&id, &error.to_string());
                return Fate::Settled;
            }
        };
        headers.insert("prefer", HeaderValue::from_static("reply"));
        headers.insert("kn-namespace", self.namespace.clone());
        let answer = match self.attempts(&self.to, &headers, &body, receipt).await {
            Attempts::Done => {
                self.counts.delivered.fetch_add(1, Relaxed);
                return Fate::Settled;
            }
            Attempts::Interrupted => return Fate::Interrupted,
            Attempts::Failed(answer) => answer,
        };
        let why = describe(&answer);
        let Some(sink) = &self.delivery.dead_letter else {
            self.lose(&id, &why);
            return Fate::Settled;
        };
        add_error(&mut headers, &self.to, answer.as_ref().ok());
        match self.attempts(sink, &headers, &body, receipt).await {
            Attempts::Done => {
                self.counts.failed.fetch_add(1, Relaxed);
                self.counts.dead_letters.fetch_add(1, Relaxed);
                tracing::warn!(whose = self.whose, id, why, "event is a dead letter");
            }
            Attempts::Failed(answer) => {
                self.lose(&id, &format!("{why}; dead letter: {}", describe(&answer)));
            }
            Attempts::Interrupted => return Fate::Interrupted,
        }
        Fate::Settled
    }

    async fn attempts(
        &self,
        to: &str,
        headers: &HeaderMap,
        body: &Bytes,
        receipt: Option<&Receipt>,
    ) -> Attempts {
        let Delivery {
            retry,
            policy,
            delay,
            timeout,
            ..
        } = self.delivery;
        let replies = match self.replies {
            Some(_) => Replies::Taken,
            None => Replies::Discarded,
        };
        let mut tried = 0;
        loop {
            // Else it would be tried for as long as it is, beside who has it now.
            if receipt.is_some_and(|receipt| !receipt.is_ours()) {
                return Attempts::Interrupted;
            }
            let answer = self.attempt(to, headers, body, timeout).await;
            match classify(&answer, replies) {
                Action::Ack(None) => return Attempts::Done,
                // A reply that cannot be written is the subscriber's work undone: again.
                Action::Ack(Some(reply)) if self.reply(&reply).await => return Attempts::Done,
                Action::Fail => return Attempts::Failed(answer),
                Action::Retry | Action::Ack(Some(_)) => {}
            }
            if tried == retry {
                return Attempts::Failed(answer);
            }
            tried += 1;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Attempts::Interrupted,
                () = tokio::time::sleep(backoff(policy, delay, tried)) => {}
            }
            self.counts.retries.fetch_add(1, Relaxed);
        }
    }

    async fn attempt(
        &self,
        to: &str,
        headers: &HeaderMap,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Unanswered> {
        let uri: Uri = to
            .parse()
            .map_err(|_| Unanswered::Unreachable(format!("{to:?} is no address")))?;
        let mut request = Request::new(body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        let sent = tokio::time::timeout(timeout, self.roads.send(request)).await;
        sent.unwrap_or(Err(Unanswered::TimedOut))
    }

    async fn reply(&self, reply: &CloudEvent) -> bool {
        let Some(outlet) = &self.replies else {
            return true;
        };
        match outlet.write(reply).await {
            Ok(()) => {
                self.counts.replies.fetch_add(1, Relaxed);
                true
            }
            Err(error) => {
                tracing::warn!(whose = self.whose, %error, "reply was not written");
                false
            }
        }
    }

    fn lose(&self, id: &str, why: &str) {
        self.counts.failed.fetch_add(1, Relaxed);
        self.counts.lost.fetch_add(1, Relaxed);
        tracing::error!(whose = self.whose, id, why, "event is lost");
    }
}

fn describe(answer: &Result<Response<Bytes>, Unanswered>) -> String {
    match answer {
        Ok(answer) if answer.status().is_success() => {
            format!("answered {} with a body that is no event", answer.status())
        }
        Ok(answer) => format!("answered {}", answer.status()),
        Err(error) => error.to_string(),
    }
}

/// Adds what was wrong to a dead letter, as extensions.
fn add_error(headers: &mut HeaderMap, to: &str, answer: Option<&Response<Bytes>>) {
    let mut add = |name: &str, text: &str| {
        if let Ok((name, value)) = encode_header(name, text) {
            headers.insert(name, value);
        }
    };
    add("knativeerrordest", to);
    let Some(answer) = answer else { return };
    add("knativeerrorcode", answer.status().as_str());
    for (name, value) in answer.headers() {
        if let Some(name) = told(name)
            && let Ok(value) = value.to_str()
        {
            add(name, value);
        }
    }
    let body = answer.body();
    if !body.is_empty() {
        let start = &body[..body.len().min(ERROR_DATA_BYTES)];
        add("knativeerrordata", &STANDARD.encode(start));
    }
}

/// Returns the name of the extension that a function gives its dead letters by a header `kne-`,
/// if it may: it must stay the event that it was.
fn told(header: &HeaderName) -> Option<&str> {
    let name = header.as_str().strip_prefix("kne-")?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_core = matches!(
        name,
        "specversion"
            | "id"
            | "source"
            | "type"
            | "subject"
            | "time"
            | "datacontenttype"
            | "dataschema"
            | "data"
    );
    (!name.is_empty() && name.bytes().all(allowed) && !is_core).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_says_what_was_answered() {
        let body = vec![b'x'; 3000];
        let answer = Response::builder()
            .status(422)
            .header("Kne-Reason", "too late")
            .header("kne-id", "another")
            .header("kne-a_b", "no name")
            .header("x-other", "1")
            .body(Bytes::from(body.clone()))
            .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("ce-id", HeaderValue::from_static("1"));
        add_error(&mut headers, "http://s.n.svc.cluster.local", Some(&answer));
        let expected = [
            ("ce-id", "1"),
            ("ce-knativeerrordest", "http://s.n.svc.cluster.local"),
            ("ce-knativeerrorcode", "422"),
            ("ce-reason", "too%20late"),
            ("ce-knativeerrordata", &STANDARD.encode(&body[..1024])),
        ];
        for (name, value) in expected {
            assert_eq!(headers.get(name).unwrap(), value, "{name}");
        }
        assert_eq!(headers.len(), expected.len());

        let mut headers = HeaderMap::new();
        add_error(&mut headers, "http://gone.invalid/", None);
        assert_eq!(headers.len(), 1);
    }
}
