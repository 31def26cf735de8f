//! How far below zero a subject's balance may go.

use std::collections::HashMap;

use serde_yaml_ng::Value;

use crate::{
    credits::Credits,
    mistakes::{Mistakes, amount, entries, unknown_keys},
};

const HARD_STOP: &str = "hard_stop";
const UNLIMITED: &str = "unlimited";
const REFUSE: &str = "refuse";

/// What happens when a subject's balance is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The balance never goes below zero.
    #[default]
    HardStop,
    /// The balance may go below zero by this amount, which is 0 or more.
    Overdraft(Credits),
    /// The balance may go below zero by any amount.
    Unlimited,
}

impl Policy {
    /// Returns how far below zero the balance may go, 0 or more; `None` if it is unlimited.
    pub fn limit(self) -> Option<Credits> {
        match self {
            Self::HardStop => Some(Credits::ZERO),
            Self::Overdraft(credits) => Some(credits),
            Self::Unlimited => None,
        }
    }
}

/// The policy of each subject. [`crate::QuotaRules`] reads them from YAML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    unknown: Option<Policy>,
    default: Policy,
    subjects: HashMap<String, Policy>,
}

impl Policies {
    /// Returns the policy of a subject that has an account: its own, or the default one.
    pub fn of(&self, subject: &str) -> Policy {
        self.subjects.get(subject).copied().unwrap_or(self.default)
    }

    /// Returns whether `subject` has a policy of its own.
    pub fn names(&self, subject: &str) -> bool {
        self.subjects.contains_key(subject)
    }

    /// Returns who has a policy of its own, in no order.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.subjects.keys().map(String::as_str)
    }

    /// Returns the policy of a subject that has no account; `None` means that it is
    /// refused.
    pub fn unknown(&self) -> Option<Policy> {
        self.unknown
    }

    /// Reads the key `policies`: without it, every subject is stopped at zero and
    /// subjects without an account are refused.
    pub(crate) fn read(value: Option<&Value>, mistakes: &mut Mistakes) -> Self {
        let root = match value {
            None | Some(Value::Null) => return Self::default(),
            Some(Value::Mapping(root)) => root,
            Some(_) => {
                mistakes.add("policies", "must be a mapping");
                return Self::default();
            }
        };
        let known = ["unknown", "default", "plans", "subjects"];
        unknown_keys(root, &known, "policies", mistakes);
        let plans = read_plans(root.get("plans"), mistakes);
        let unknown = match root.get("unknown") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text == REFUSE => None,
            Some(value) => read_policy(value, Some(&plans), "policies.unknown", mistakes),
        };
        let default = match root.get("default") {
            None | Some(Value::Null) => None,
            Some(value) => read_policy(value, Some(&plans), "policies.default", mistakes),
        };
        let mut subjects = HashMap::new();
        for (subject, value) in entries(root.get("subjects"), "policies.subjects", mistakes) {
            if subject.is_empty() {
                mistakes.add(
                    "policies.subjects",
                    "has an empty key: no usage is without a subject",
                );
            }
            let place = format!("policies.subjects.{subject}");
            if let Some(policy) = read_policy(value, Some(&plans), &place, mistakes) {
                subjects.insert(subject.to_owned(), policy);
            }
        }
        Self {
            unknown,
            default: default.unwrap_or_default(),
            subjects,
        }
    }
}

/// The policies by plan; `None` for a plan that is a mistake, so that those who name it
/// are not told that there is none.
type Plans<'a> = HashMap<&'a str, Option<Policy>>;

fn read_plans<'a>(value: Option<&'a Value>, mistakes: &mut Mistakes) -> Plans<'a> {
    let mut plans = Plans::new();
    for (name, value) in entries(value, "policies.plans", mistakes) {
        let place = format!("policies.plans.{name}");
        if name.is_empty() || [HARD_STOP, UNLIMITED, REFUSE].contains(&name) {
            mistakes.add(&place, "must not be named so: it could not be told apart");
        }
        plans.insert(name, read_policy(value, None, &place, mistakes));
    }
    plans
}

/// Reads a policy, or a plan's name where `plans` are given.
fn read_policy(
    value: &Value,
    plans: Option<&Plans<'_>>,
    place: &str,
    mistakes: &mut Mistakes,
) -> Option<Policy> {
    let or_plan = if plans.is_some() {
        " or a plan's name"
    } else {
        ""
    };
    match value {
        Value::String(text) if text == HARD_STOP => Some(Policy::HardStop),
        Value::String(text) if text == UNLIMITED => Some(Policy::Unlimited),
        Value::String(text) => match plans.and_then(|plans| plans.get(text.as_str())) {
            Some(plan) => *plan,
            None => {
                mistakes.add(
                    place,
                    format!(
                        "must be hard_stop, unlimited, {{overdraft: credits}}{or_plan} \
                         (is {text:?})"
                    ),
                );
                None
            }
        },
        Value::Mapping(entry) => {
            unknown_keys(entry, &["overdraft"], place, mistakes);
            let place = format!("{place}.overdraft");
            let Some(value) = entry.get("overdraft") else {
                mistakes.add(&place, "is required");
                return None;
            };
            amount(value)
                .map_err(|what| mistakes.add(&place, what))
                .ok()
                .map(Policy::Overdraft)
        }
        _ => {
            mistakes.add(
                place,
                format!("must be hard_stop, unlimited, {{overdraft: credits}}{or_plan}"),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Policies, Vec<String>> {
        let mut mistakes = Mistakes::default();
        let value: Value = serde_yaml_ng::from_str(text).unwrap();
        let policies = Policies::read(Some(&value), &mut mistakes);
        mistakes.into_result(policies)
    }

    fn overdraft(text: &str) -> Policy {
        Policy::Overdraft(text.parse().unwrap())
    }

    #[test]
    fn a_subject_has_its_own_policy_or_the_default() {
        let policies = read(
            r#"
unknown: small
default: {overdraft: 7}
plans: {small: {overdraft: "0.5"}, internal: unlimited}
subjects: {a: small, b: internal, c: hard_stop, d: {overdraft: "2"}}
"#,
        )
        .unwrap();
        for (subject, expected) in [
            ("a", overdraft("0.5")),
            ("b", Policy::Unlimited),
            ("c", Policy::HardStop),
            ("d", overdraft("2")),
            ("else", overdraft("7")),
        ] {
            assert_eq!(policies.of(subject), expected, "{subject}");
        }
        assert_eq!(policies.unknown(), Some(overdraft("0.5")));
    }

    #[test]
    fn what_is_not_said_is_strict() {
        for text in ["{}", "~", "{unknown: refuse, default: hard_stop}"] {
            let policies = read(text).unwrap();
            assert_eq!(policies.unknown(), None, "{text}");
            assert_eq!(policies.of("a"), Policy::HardStop, "{text}");
        }
    }

    #[test]
    fn a_limit_is_how_far_below_zero_a_balance_may_go() {
        assert_eq!(Policy::HardStop.limit(), Some(Credits::ZERO));
        assert_eq!(overdraft("3").limit(), "3".parse().ok());
        assert_eq!(Policy::Unlimited.limit(), None);
    }

    #[test]
    fn every_mistake_is_listed_with_its_place() {
        let mistakes = read(
            r#"
colour: red
unknown: gone
default: none
plans:
  refuse: unlimited
  hard_stop: hard_stop
  chained: broken
  broken: {overdraft: 0.1}
subjects:
  a: broken
  b: {overdraft: "-1"}
  c: {overdraft: "0.0000001"}
  d: {overdraft: "1e30", extra: 1}
  e: {}
  f: 5
  7: unlimited
  "": unlimited
"#,
        )
        .unwrap_err();
        let one_of = "must be hard_stop, unlimited, {overdraft: credits}";
        let expected = [
            "policies.colour: is not known".to_owned(),
            "policies.plans.refuse: must not be named so".to_owned(),
            "policies.plans.hard_stop: must not be named so".to_owned(),
            format!("policies.plans.chained: {one_of} (is \"broken\")"),
            "policies.plans.broken.overdraft: must be in quotes".to_owned(),
            format!("policies.unknown: {one_of} or a plan's name (is \"gone\")"),
            format!("policies.default: {one_of} or a plan's name (is \"none\")"),
            "policies.subjects: has a key that is no text".to_owned(),
            "policies.subjects.b.overdraft: must be 0 or more".to_owned(),
            "policies.subjects.c.overdraft: more than 6 decimal places".to_owned(),
            "policies.subjects.d.extra: is not known".to_owned(),
            "policies.subjects.d.overdraft: more than 9007199254.740991".to_owned(),
            "policies.subjects.e.overdraft: is required".to_owned(),
            format!("policies.subjects.f: {one_of} or a plan's name"),
            "policies.subjects: has an empty key".to_owned(),
        ];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, start) in mistakes.iter().zip(&expected) {
            assert!(mistake.starts_with(start), "{start} is not {mistake}");
        }
    }
}
