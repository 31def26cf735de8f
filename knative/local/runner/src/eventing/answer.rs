//! What an answer to a delivery means: done, again, or failed.

use bytes::Bytes;
use http::{Response, StatusCode};
use stream::{CloudEvent, http::decode_one};

use crate::network::Unanswered;

/// What is done with the body of an answer that says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// It must be empty or an event, which goes back to the broker: a Trigger.
    Taken,
    /// Nobody looks at it: a KafkaSource.
    Discarded,
}

/// What an answer means for a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is delivered. There may be an event in return.
    Ack(Option<Box<CloudEvent>>),
    /// The same again may succeed.
    Retry,
    /// It never will: off to the dead letter sink.
    Fail,
}

/// Judges an answer as the Kafka broker's dispatcher does.
pub fn classify(answer: &Result<Response<Bytes>, Unanswered>, replies: Replies) -> Action {
    let Ok(answer) = answer else {
        return Action::Retry;
    };
    let status = answer.status();
    if !status.is_success() {
        return if is_retried(status) {
            Action::Retry
        } else {
            Action::Fail
        };
    }
    if replies == Replies::Discarded {
        return Action::Ack(None);
    }
    match decode_one(answer.headers(), answer.body()) {
        Ok(reply) => Action::Ack(Some(Box::new(reply))),
        Err(_) if answer.body().is_empty() => Action::Ack(None),
        // The function did its work, and still Knative takes a body that is no event for a failure.
        Err(_) => Action::Fail,
    }
}

fn is_retried(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::NOT_FOUND
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::CONFLICT
                | StatusCode::TOO_MANY_REQUESTS
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(
        status: u16,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Result<Response<Bytes>, Unanswered> {
        let mut answer = Response::builder().status(status);
        for &(name, value) in headers {
            answer = answer.header(name, value);
        }
        Ok(answer.body(Bytes::from_static(body.as_bytes())).unwrap())
    }

    #[test]
    fn a_status_says_whether_it_is_tried_again() {
        for status in [200, 201, 202, 204] {
            let action = classify(&answer(status, &[], ""), Replies::Taken);
            assert_eq!(action, Action::Ack(None), "{status}");
        }
        for status in [404, 408, 409, 429, 500, 501, 502, 503, 504, 505] {
            let action = classify(&answer(status, &[], "later"), Replies::Taken);
            assert_eq!(action, Action::Retry, "{status}");
        }
        for status in [301, 302, 304, 400, 401, 402, 403, 405, 410, 413, 422, 451] {
            let action = classify(&answer(status, &[], ""), Replies::Taken);
            assert_eq!(action, Action::Fail, "{status}");
        }
        for unanswered in [
            Unanswered::TimedOut,
            Unanswered::Unreachable("gone".to_owned()),
        ] {
            assert_eq!(classify(&Err(unanswered), Replies::Taken), Action::Retry);
        }
    }

    #[test]
    fn a_triggers_body_is_an_event_or_a_failure() {
        let event = [
            ("ce-specversion", "1.0"),
            ("ce-id", "r1"),
            ("ce-source", "/fn"),
            ("ce-type", "reply"),
        ];
        let structured = [("content-type", "application/cloudevents+json")];
        let reply = Action::Ack(Some(Box::new(CloudEvent::new("r1", "/fn", "reply"))));
        for (headers, body, expected) in [
            (&event[..], "", &reply),
            (
                &structured,
                r#"{"specversion":"1.0","id":"r1","source":"/fn","type":"reply"}"#,
                &reply,
            ),
            (&structured, "{}", &Action::Fail),
            (&[("content-type", "text/plain")], "ok", &Action::Fail),
            // An event that is none, but nothing is lost with it.
            (&event[..1], "", &Action::Ack(None)),
        ] {
            let answer = answer(200, headers, body);
            assert_eq!(&classify(&answer, Replies::Taken), expected, "{body}");
            assert_eq!(classify(&answer, Replies::Discarded), Action::Ack(None));
        }
    }
}
