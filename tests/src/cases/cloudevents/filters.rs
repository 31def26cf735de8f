//! Filters of Triggers: which events they take, and which of them Knative does not admit.

use runner::{eventing::Plan, manifests::Object};
use serde_json::{Value, json};

use super::{
    super::{
        file::{Case, Failure},
        report::Outcome,
    },
    expected, needed,
    objects::{broker, trigger},
    wire::{Behaviour, SUBSCRIBER},
    world::{World, kafka, namespace},
};

const BROKER: &str = "filters";

/// What a case asks.
pub(super) struct Question {
    trigger: Value,
    cesql: bool,
    /// Whether the event is taken, or nothing if there can be no such Trigger.
    wanted: Option<bool>,
}

/// Reads a case of `filters_dialects`.
pub(super) fn read(case: &Case<'_>) -> Result<Question, Outcome> {
    case.only(&["filters", "legacy_filter", "match"])?;
    let filters = needed(case, "filters")?;
    let mut trigger = json!({"filters": filters});
    if let Some(legacy) = case.fields.get("legacy_filter") {
        trigger["filter"] = legacy.clone();
    }
    let wanted = match needed(case, "match")? {
        Value::Bool(wanted) => Some(*wanted),
        Value::String(text) if text == "admission error" => None,
        other => return Err(Failure::malformed(format!("match: {other}")).into()),
    };
    Ok(Question {
        trigger,
        cesql: names_cesql(filters),
        wanted,
    })
}

/// Answers all questions at once: one event, and a Trigger for each case.
pub(super) async fn run(
    questions: Vec<(usize, Question)>,
) -> anyhow::Result<Vec<(usize, Outcome)>> {
    let namespace = namespace();
    let base = broker(&namespace, BROKER, &kafka());
    let object = |index: usize, question: &Question| {
        let name = name(index);
        let mut spec = question.trigger.clone();
        spec["subscriber"] = json!({"uri": format!("http://{SUBSCRIBER}/{name}")});
        trigger(&namespace, &name, BROKER, spec)
    };
    let is_admitted = |object: &Object| {
        let objects = [base.clone(), vec![object.clone()]].concat();
        Plan::read(&objects).is_ok()
    };
    let triggers = questions
        .iter()
        .map(|(index, question)| object(*index, question));
    let triggers: Vec<Object> = triggers.filter(is_admitted).collect();
    let names: Vec<String> = triggers.iter().map(|object| object.name.clone()).collect();
    let world = World::start(
        &[base.clone(), triggers].concat(),
        Box::new(|_| Behaviour::done()),
    )
    .await?;
    let delivered = deliver(&world, &namespace, &names).await;
    let seen = world.seen();
    world.stop().await;
    delivered?;
    let outcome = |(index, question): (usize, Question)| {
        let name = name(index);
        let taken = names
            .contains(&name)
            .then(|| seen.iter().any(|seen| seen.is_for(&name)));
        (index, judge(&question, taken))
    };
    Ok(questions.into_iter().map(outcome).collect())
}

async fn deliver(world: &World, namespace: &str, names: &[String]) -> anyhow::Result<()> {
    // The event that the group's remark tells.
    let event = json!({"attributes": {
        "specversion": "1.0", "id": "1", "source": "/gw/eu-1", "type": "com.ex.usage.v1",
        "tppid": "acme", "n": 5,
    }});
    let event = expected::event_of(&event).map_err(|failure| anyhow::anyhow!(failure.got))?;
    world.post(namespace, BROKER, &event).await?;
    world.settled(names, 1).await
}

fn name(index: usize) -> String {
    format!("filter-{index}")
}

fn judge(question: &Question, taken: Option<bool>) -> Outcome {
    if taken.is_none() && question.cesql {
        return Outcome::Skipped("the runner refuses CESQL".to_owned());
    }
    let says = |taken: Option<bool>| match taken {
        Some(taken) => format!("match {taken}"),
        None => "an admission error".to_owned(),
    };
    if question.wanted == taken {
        Outcome::Passed
    } else {
        Failure::new(says(question.wanted), says(taken)).into()
    }
}

fn names_cesql(filters: &Value) -> bool {
    match filters {
        Value::Array(filters) => filters.iter().any(names_cesql),
        Value::Object(dialects) => {
            dialects.contains_key("cesql") || dialects.values().any(names_cesql)
        }
        _ => false,
    }
}
