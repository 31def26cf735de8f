//! Are the manifests right? Checks a rendered folder without a cluster: against the schemas of
//! its kinds, against what the runner reads, and against rules of our own, for what a cluster
//! would take and then do something else than was meant.
//!
//! Layout:
//! - [`check`]: a folder, rendered and checked
//! - `schemas`: the kinds' JSON schemas (`tests/schemas`)
//! - `set`: what the rules ask about objects
//! - `serving`, `eventing`, `references`, `settings`: the rules

mod eventing;
#[cfg(test)]
mod image;
mod references;
mod schemas;
mod serving;
mod set;
mod settings;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path};

use runner::manifests::{Mistake, Object, render};
use set::Set;

/// The folders that must be right, by the names under which `tests/manifests/broken.yaml` makes
/// examples of them, seen from the project's folder: the overlays, and what is made of them with
/// the components.
pub const GOOD: [(&str, &str); 6] = [
    ("local", "knative/overlays/local"),
    ("production", "knative/overlays/production"),
    ("both", "tests/manifests/both"),
    ("pull", "tests/manifests/pull"),
    ("demo", "tests/manifests/demo"),
    ("production-pull", "tests/manifests/production-pull"),
];

/// A rule: what is wrong in a set, if anything is.
type Rule = fn(&Set) -> Vec<Mistake>;

/// Our own rules by name; `tests/manifests/broken.yaml` has an example against each.
const RULES: [(&str, Rule); 18] = [
    ("autoscaling", serving::autoscaling),
    ("scale", serving::scale),
    ("image", serving::image),
    ("reserved", serving::reserved),
    ("security", serving::security),
    ("visibility", serving::visibility),
    ("broker-class", eventing::broker_class),
    ("delivery-order", eventing::delivery_order),
    ("delivery", eventing::delivery),
    ("retry-after", eventing::retry_after),
    ("times", eventing::times),
    ("in-sync", eventing::in_sync),
    ("initial-offset", eventing::initial_offset),
    ("consumer-group", eventing::consumer_group),
    ("reference", references::references),
    ("namespace", references::namespace),
    ("setting", settings::settings),
    ("one-kafka", settings::one_kafka),
];

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// How many objects there are.
    pub objects: usize,
    /// What is wrong, by rule.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// `render`, `schema`, `runner`, or one of our own rules.
    pub rule: &'static str,
    /// What is wrong.
    pub mistake: Mistake,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.mistake, self.rule)
    }
}

/// Renders a folder and checks everything in it.
pub fn check(folder: &Path) -> Report {
    match render(folder) {
        Ok(objects) => Report {
            objects: objects.len(),
            findings: check_objects(objects),
        },
        Err(mistakes) => Report {
            objects: 0,
            findings: of_rule("render", mistakes).collect(),
        },
    }
}

fn check_objects(objects: Vec<Object>) -> Vec<Finding> {
    let mut findings: Vec<_> = of_rule("schema", schemas::check(&objects)).collect();
    findings.extend(of_rule("runner", read_by_the_runner(&objects)));
    let set = Set::new(objects);
    for (name, rule) in RULES {
        findings.extend(of_rule(name, rule(&set)));
    }
    findings
}

/// What is read where the same files run on one machine.
fn read_by_the_runner(objects: &[Object]) -> Vec<Mistake> {
    // What has an effect on a cluster only.
    let local: Vec<_> = objects
        .iter()
        .filter(|object| object.kind != "ScaledObject")
        .cloned()
        .collect();
    let serving = runner::serving::Plan::read(&local).err();
    let eventing = runner::eventing::Plan::read(&local).err();
    serving.into_iter().chain(eventing).flatten().collect()
}

fn of_rule(rule: &'static str, mistakes: Vec<Mistake>) -> impl Iterator<Item = Finding> {
    mistakes
        .into_iter()
        .map(move |mistake| Finding { rule, mistake })
}
