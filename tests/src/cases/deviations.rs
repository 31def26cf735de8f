//! Cases that we answer otherwise on purpose, each with its reason.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{
    file::{CaseFile, Failure},
    report::{Outcome, Report, Verdict},
};

/// The suite under which mistakes in the list are reported.
const SUITE: &str = "deviations";

/// A reviewed list, short: whatever can be put right is not in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Deviations(Vec<Deviation>);

/// A case that we answer otherwise.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    id: String,
    reason: String,
}

impl Deviations {
    /// Reads the text of a list.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Returns a failure for each entry that names no case of `file`.
    pub fn stale(&self, file: &CaseFile) -> Vec<Verdict> {
        let cases = file.suites.iter().flat_map(|suite| &suite.cases);
        let ids: BTreeSet<_> = cases.filter_map(|case| case.get("id")?.as_str()).collect();
        let stale = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, entry)| !ids.contains(&*entry.id));
        let verdict = |(index, entry): (usize, &Deviation)| Verdict {
            suite: SUITE.to_owned(),
            index,
            id: Some(entry.id.clone()),
            name: String::new(),
            outcome: Failure::new("the id of a case", "there is none").into(),
        };
        stale.map(verdict).collect()
    }

    /// Skips the failed cases that are listed, and fails the listed ones that passed.
    pub fn apply(&self, report: &mut Report) {
        for verdict in &mut report.verdicts {
            let id = verdict.id.as_deref();
            let Some(entry) = self.0.iter().find(|entry| Some(&*entry.id) == id) else {
                continue;
            };
            verdict.outcome = match &verdict.outcome {
                Outcome::Failed(_) => Outcome::Skipped(format!("deviates: {}", entry.reason)),
                Outcome::Passed => {
                    Failure::new("a deviation", "it passes: no longer deviates").into()
                }
                Outcome::Skipped(reason) => Outcome::Skipped(reason.clone()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Tally, *};

    #[test]
    fn every_listed_case_is_there() {
        let file = include_str!("../../cases/knative_cloudevents.json");
        let list = Deviations::parse(include_str!("../../cases/deviations.json")).unwrap();
        let stale = list.stale(&CaseFile::parse(file).unwrap());
        assert!(stale.is_empty(), "{stale:?}");
        assert!(list.0.iter().all(|entry| !entry.reason.is_empty()));
    }

    #[test]
    fn a_listed_case_is_skipped_while_it_fails() {
        let text = r#"{"groups": {"g": {"cases": [{"id": "a"}, {"id": "b"}, {"id": "c"}, {}]}}}"#;
        let file = CaseFile::parse(text).unwrap();
        let list = ["a", "b", "c", "d"].map(|id| format!(r#"{{"id": "{id}", "reason": "why"}}"#));
        let list = Deviations::parse(&format!("[{}]", list.join(","))).unwrap();
        let verdict = |id: Option<&str>, outcome| Verdict {
            suite: "g".to_owned(),
            index: 0,
            id: id.map(str::to_owned),
            name: String::new(),
            outcome,
        };
        let failed = || Outcome::from(Failure::new("1", "2"));
        let mut report = Report {
            verdicts: vec![
                verdict(Some("a"), failed()),
                verdict(Some("b"), Outcome::Passed),
                verdict(Some("c"), Outcome::Skipped("not yet".to_owned())),
                verdict(None, failed()),
            ],
        };
        list.apply(&mut report);
        let of = |index: usize| &report.verdicts[index].outcome;
        assert_eq!(of(0), &Outcome::Skipped("deviates: why".to_owned()));
        assert!(matches!(of(1), Outcome::Failed(_)));
        assert_eq!(of(2), &Outcome::Skipped("not yet".to_owned()));
        assert_eq!(of(3), &failed());

        report.verdicts.extend(list.stale(&file));
        let expected = Tally {
            passed: 0,
            failed: 3,
            skipped: 2,
        };
        assert_eq!(report.tally(), expected);
    }
}
