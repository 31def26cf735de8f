//! Routing: which subscribers see which events, and which replies.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use runner::manifests::Object;
use serde_json::{Map, Value, json};
use stream::CloudEvent;

use super::{
    super::{
        file::{Case, Failure},
        report::Outcome,
    },
    expected, needed, needed_object,
    objects::{broker, trigger},
    wire::{Behaviour, SUBSCRIBER, Seen},
    world::{World, kafka, namespace},
};

/// What a case asks.
pub(super) struct Question {
    triggers: BTreeMap<String, Trigger>,
    /// As they are written: a type, then attributes like `a=b`.
    events: Vec<String>,
    wanted: BTreeMap<String, Vec<String>>,
}

struct Trigger {
    attributes: Map<String, Value>,
    reply: Option<Reply>,
}

#[derive(Clone)]
struct Reply {
    event_type: String,
    /// There is no second one.
    once: bool,
    given: Arc<AtomicBool>,
}

/// Reads a case of `routing`.
pub(super) fn read(case: &Case<'_>) -> Result<Question, Outcome> {
    case.only(&["triggers", "events", "expect"])?;
    let triggers = needed_object(case, "triggers")?.iter();
    let triggers = triggers.map(|(name, value)| Ok((name.clone(), Trigger::read(value)?)));
    let triggers: BTreeMap<_, _> = triggers.collect::<Result<_, Failure>>()?;
    let texts = |value| {
        let texts = expected::texts(value)?.into_iter();
        Ok::<_, Failure>(texts.map(str::to_owned).collect::<Vec<_>>())
    };
    let wanted = needed_object(case, "expect")?.iter();
    let wanted = wanted.map(|(name, value)| Ok((name.clone(), texts(value)?)));
    let wanted: BTreeMap<_, _> = wanted.collect::<Result<_, Failure>>()?;
    if !wanted.keys().eq(triggers.keys()) {
        return Err(Failure::malformed("expects something of other triggers").into());
    }
    let events = texts(needed(case, "events")?)?;
    for (place, text) in events.iter().enumerate() {
        event(place, text)?;
    }
    Ok(Question {
        triggers,
        events,
        wanted,
    })
}

impl Trigger {
    fn read(value: &Value) -> Result<Self, Failure> {
        let malformed = || Failure::malformed(format!("a trigger {value}"));
        let mut attributes = match value {
            Value::Null => Map::new(),
            Value::Object(attributes) => attributes.clone(),
            _ => return Err(malformed()),
        };
        let reply = match attributes.remove("reply") {
            None => None,
            Some(Value::String(text)) => match text.split(' ').collect::<Vec<_>>()[..] {
                [event_type] => Some(Reply::new(event_type, false)),
                [event_type, "once"] => Some(Reply::new(event_type, true)),
                _ => return Err(malformed()),
            },
            Some(_) => return Err(malformed()),
        };
        Ok(Self { attributes, reply })
    }
}

impl Reply {
    fn new(event_type: &str, once: bool) -> Self {
        Self {
            event_type: event_type.to_owned(),
            once,
            given: Arc::default(),
        }
    }

    fn behaviour(&self, to: &Seen) -> Behaviour {
        if to.attribute("type") == self.event_type {
            return Behaviour::done();
        }
        if self.given.swap(true, Ordering::Relaxed) && self.once {
            return Behaviour::done();
        }
        let reply = CloudEvent::new("reply", "/subscriber", &*self.event_type);
        match stream::http::encode(&reply) {
            Ok((headers, body)) => Behaviour::Answers(200, headers, body),
            Err(_) => Behaviour::done(),
        }
    }
}

/// Returns the event that a text tells, with its place as its id.
fn event(place: usize, text: &str) -> Result<CloudEvent, Failure> {
    let mut words = text.split(' ');
    let event_type = words.next().unwrap_or_default();
    let event = CloudEvent::new(place.to_string(), "/cases", event_type);
    words.try_fold(event, |event, word| match word.split_once('=') {
        Some((name, value)) => Ok(event.with_extension(name, value)),
        None => Err(Failure::malformed(format!("an event {text:?}"))),
    })
}

/// Answers all questions at once, with a Broker for each case.
pub(super) async fn run(
    questions: Vec<(usize, Question)>,
) -> anyhow::Result<Vec<(usize, Outcome)>> {
    let namespace = namespace();
    let mut objects = Vec::new();
    let mut replies = Vec::new();
    for (index, question) in &questions {
        let broker_name = broker_name(*index);
        objects.extend(broker(&namespace, &broker_name, &kafka()));
        for (name, trigger) in &question.triggers {
            let name = trigger_name(*index, name);
            objects.push(object(&namespace, &name, &broker_name, trigger));
            replies.extend(trigger.reply.clone().map(|reply| (name, reply)));
        }
    }
    let script = move |seen: &Seen| {
        let reply = replies.iter().find(|(name, _)| seen.is_for(name));
        reply.map_or_else(Behaviour::done, |(_, reply)| reply.behaviour(seen))
    };
    let world = World::start(&objects, Box::new(script)).await?;
    let mut outcomes = Vec::new();
    for (index, question) in &questions {
        let delivered = deliver(&world, &namespace, *index, question).await;
        let outcome = match delivered {
            Ok(()) => judge(*index, question, &world.seen()).into(),
            Err(error) => Failure::from(error).into(),
        };
        outcomes.push((*index, outcome));
    }
    world.stop().await;
    Ok(outcomes)
}

fn object(namespace: &str, name: &str, broker: &str, of: &Trigger) -> Object {
    let mut spec = json!({"subscriber": {"uri": format!("http://{SUBSCRIBER}/{name}")}});
    if !of.attributes.is_empty() {
        spec["filter"] = json!({"attributes": of.attributes});
    }
    trigger(namespace, name, broker, spec)
}

async fn deliver(
    world: &World,
    namespace: &str,
    index: usize,
    question: &Question,
) -> anyhow::Result<()> {
    for (place, text) in question.events.iter().enumerate() {
        let event = event(place, text).map_err(|failure| anyhow::anyhow!(failure.got))?;
        world.post(namespace, &broker_name(index), &event).await?;
    }
    let names = question.triggers.keys();
    let names: Vec<String> = names.map(|name| trigger_name(index, name)).collect();
    world.settled(&names, question.events.len() as u64).await
}

/// Compares in any order: there is none between an event and a reply to an earlier one.
fn judge(index: usize, question: &Question, seen: &[Seen]) -> Result<(), Failure> {
    for (name, wanted) in &question.wanted {
        let name = trigger_name(index, name);
        let text = |seen: &Seen| {
            let place: Option<usize> = seen.attribute("id").parse().ok();
            let posted = place.and_then(|place| question.events.get(place));
            posted.map_or_else(|| seen.attribute("type").to_owned(), Clone::clone)
        };
        let mut found: Vec<String> = seen
            .iter()
            .filter(|seen| seen.is_for(&name))
            .map(text)
            .collect();
        let mut wanted = wanted.clone();
        found.sort();
        wanted.sort();
        if found != wanted {
            return Err(Failure::new(
                format!("{name}: {wanted:?}"),
                format!("{found:?}"),
            ));
        }
    }
    Ok(())
}

fn broker_name(index: usize) -> String {
    format!("routing-{index}")
}

fn trigger_name(index: usize, name: &str) -> String {
    format!("routing-{index}-{name}")
}
