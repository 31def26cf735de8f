//! Answers of subscribers, and what a Trigger makes of them: done, again, or a dead letter.

use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use serde_json::{Value, json};
use stream::CloudEvent;

use super::{
    super::{
        file::{Case, Failure, Fields},
        report::Outcome,
    },
    expected, needed_object,
    objects::{broker, trigger},
    wire::{Behaviour, DEAD, SUBSCRIBER, Seen},
    world::{World, kafka, namespace},
};

const BROKER: &str = "responses";
const TRIGGER: &str = "responses";

/// What a case asks.
pub(super) struct Question {
    behaviour: Behaviour,
    wanted: Wanted,
}

/// What is to become of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    fate: Fate,
    /// The answer is an event itself, and goes to the Broker.
    reply: bool,
    /// The next attempt comes sooner.
    sooner_than: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Ack,
    Retry,
    Fail,
}

/// Reads a case of `subscriber_response`.
pub(super) fn read(case: &Case<'_>) -> Result<Question, Outcome> {
    case.only(&["response", "expect"])?;
    let behaviour = behaviour(needed_object(case, "response")?)?;
    let Some(text) = expected::ours(needed_object(case, "expect")?)? else {
        return Err(Outcome::Skipped("no source settles it".to_owned()));
    };
    let text = text.as_str().ok_or_else(|| Failure::malformed(text))?;
    Ok(Question {
        wanted: Wanted::read(text, &behaviour)?,
        behaviour,
    })
}

fn behaviour(response: &Fields) -> Result<Behaviour, Outcome> {
    let Some(error) = response.get("error") else {
        expected::only(response, &["status", "headers", "body"])?;
        let status = response.get("status").and_then(Value::as_u64);
        let status = status.and_then(|status| u16::try_from(status).ok());
        let status = status.ok_or_else(|| Failure::malformed("a response has no `status`"))?;
        let headers = response.get("headers").map(expected::headers).transpose()?;
        let body = response.get("body").map(expected::bytes).transpose()?;
        let body = body.flatten().unwrap_or_default();
        return Ok(Behaviour::Answers(
            status,
            headers.unwrap_or_default(),
            body,
        ));
    };
    expected::only(response, &["error"])?;
    let text = error.as_str().unwrap_or_default().to_ascii_lowercase();
    let says = |word: &str| text.contains(word);
    if says("oidc") {
        let reason = "needs OIDC, which the runner does not have";
        return Err(Outcome::Skipped(reason.to_owned()));
    }
    if says("dns") {
        Ok(Behaviour::IsUnknown)
    } else if says("refused") {
        Ok(Behaviour::Refuses)
    } else if says("reset") || says("closed") {
        Ok(Behaviour::Breaks)
    } else if says("timeout") || says("time out") || says("timed out") {
        Ok(Behaviour::Hangs)
    } else {
        Err(Failure::malformed(format!("an error {error}")).into())
    }
}

impl Wanted {
    /// Reads what the Kafka broker does: `ack`, `ack+reply`, `failure without retry`.
    fn read(text: &str, behaviour: &Behaviour) -> Result<Self, Failure> {
        let wanted = |fate, reply| Self {
            fate,
            reply,
            sooner_than: None,
        };
        let begins = |word: &str| text.starts_with(word);
        if begins("ack+reply") || begins("reply processed") {
            Ok(wanted(Fate::Ack, true))
        } else if begins("ack") {
            Ok(wanted(Fate::Ack, false))
        } else if begins("retr") {
            Ok(wanted(Fate::Retry, false))
        } else if begins("fail") {
            Ok(wanted(Fate::Fail, false))
        } else if begins("ignored")
            && let Behaviour::Answers(_, headers, _) = behaviour
            && let Some(seconds) = headers.get(RETRY_AFTER)
            && let Some(seconds) = seconds.to_str().ok().and_then(|text| text.parse().ok())
        {
            // Of the answer, this header is what is ignored.
            Ok(Self {
                sooner_than: Some(Duration::from_secs(seconds)),
                ..wanted(Fate::Retry, false)
            })
        } else {
            Err(Failure::malformed(format!("expects {text:?}")))
        }
    }
}

/// Answers all questions, one after the other, with one Trigger.
pub(super) async fn run(
    questions: Vec<(usize, Question)>,
) -> anyhow::Result<Vec<(usize, Outcome)>> {
    let namespace = namespace();
    let mut objects = broker(&namespace, BROKER, &kafka());
    let spec = json!({
        "subscriber": {"uri": format!("http://{SUBSCRIBER}/{TRIGGER}")},
        "delivery": {
            "retry": 1,
            "backoffPolicy": "linear",
            "backoffDelay": "PT0.01S",
            "timeout": "PT5S",
            "deadLetterSink": {"uri": format!("http://{DEAD}/")},
        },
    });
    objects.push(trigger(&namespace, TRIGGER, BROKER, spec));
    let behaviours = questions.iter();
    let behaviours: Vec<_> = behaviours
        .map(|(index, question)| (index.to_string(), question.behaviour.clone()))
        .collect();
    let script = move |seen: &Seen| {
        let id = seen.attribute("id");
        let of_case = behaviours
            .iter()
            .find(|(known, _)| known == id && !seen.is_dead());
        of_case.map_or_else(Behaviour::done, |(_, behaviour)| behaviour.clone())
    };
    let world = World::start(&objects, Box::new(script)).await?;
    let mut outcomes = Vec::new();
    let mut before = 0;
    for (posted, (index, question)) in (1..).zip(&questions) {
        let event = CloudEvent::new(index.to_string(), "/cases", "com.example.api.request");
        let delivered = async {
            world.post(&namespace, BROKER, &event).await?;
            world.settled(&[TRIGGER.to_owned()], posted).await
        };
        let outcome = match delivered.await {
            Ok(()) => judge(event.id(), question.wanted, &world.seen()[before..]).into(),
            Err(error) => Failure::from(error).into(),
        };
        before = world.seen().len();
        outcomes.push((*index, outcome));
    }
    world.stop().await;
    Ok(outcomes)
}

fn judge(id: &str, wanted: Wanted, seen: &[Seen]) -> Result<(), Failure> {
    let is_ours = |seen: &&Seen| seen.is_for(TRIGGER) && seen.attribute("id") == id;
    let attempts: Vec<&Seen> = seen.iter().filter(is_ours).collect();
    let dead = seen.iter().filter(|seen| seen.is_dead()).count();
    let fate = match (attempts.len(), dead) {
        (1, 0) => Fate::Ack,
        (2, 1) => Fate::Retry,
        (1, 1) => Fate::Fail,
        (attempts, dead) => {
            let got = format!("{attempts} attempts and {dead} dead letters");
            return Err(Failure::new(format!("{wanted:?}"), got));
        }
    };
    let others = seen.iter().filter(|seen| !is_ours(seen) && !seen.is_dead());
    let replies = others.count();
    let waited = attempts[attempts.len() - 1].at - attempts[0].at;
    let in_time = wanted.sooner_than.is_none_or(|limit| waited < limit);
    if (fate, replies, in_time) == (wanted.fate, usize::from(wanted.reply), true) {
        Ok(())
    } else {
        let got = format!("{fate:?} with {replies} replies, {waited:?} between attempts");
        Err(Failure::new(format!("{wanted:?}"), got))
    }
}
