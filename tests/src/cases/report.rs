//! What became of each case, and how it is told.

use std::{collections::BTreeMap, fmt, io};

use super::file::Failure;

/// Texts longer than this are cut: a thousand rows help nobody.
const LONGEST: usize = 2000;

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was run, and all that it expects came.
    Passed,
    /// It was run, or could not be understood.
    Failed(Failure),
    /// It was not run, for this reason.
    Skipped(String),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Result<(), Failure>> for Outcome {
    fn from(result: Result<(), Failure>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

/// One case with its outcome.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The suite that it belongs to.
    pub suite: String,
    /// Its place in the suite.
    pub index: usize,
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its name, or nothing.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// The verdicts on a file.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the file.
    pub verdicts: Vec<Verdict>,
}

/// How many cases passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases of which all that they expect came.
    pub passed: usize,
    /// Cases that expect something else than what came, or that make no sense.
    pub failed: usize,
    /// Cases that were not run.
    pub skipped: usize,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Report {
    /// Returns the numbers of all suites together.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.verdicts
            .iter()
            .for_each(|verdict| tally.add(&verdict.outcome));
        tally
    }

    /// Writes a line a failed case, a line a group of skipped ones, a line a suite, and the
    /// tally as the last line.
    pub fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        for verdict in &self.verdicts {
            if let Outcome::Failed(failure) = &verdict.outcome {
                let Verdict { suite, name, .. } = verdict;
                let id = verdict.id.clone();
                let which = id.unwrap_or_else(|| verdict.index.to_string());
                let expected = one_line(&failure.expected);
                let got = one_line(&failure.got);
                writeln!(
                    out,
                    "FAILED {suite} {which} {name:?}: expected {expected}, got {got}"
                )?;
            }
        }
        for ((suite, reason), cases) in self.skipped() {
            writeln!(out, "skipped {suite}: {reason}: {cases}")?;
        }
        for (suite, tally) in self.suites() {
            writeln!(out, "{suite}: {tally}")?;
        }
        writeln!(out, "{}", self.tally())
    }

    fn skipped(&self) -> BTreeMap<(&str, &str), usize> {
        let mut groups = BTreeMap::new();
        for verdict in &self.verdicts {
            if let Outcome::Skipped(reason) = &verdict.outcome {
                *groups.entry((&*verdict.suite, &**reason)).or_default() += 1;
            }
        }
        groups
    }

    fn suites(&self) -> Vec<(&str, Tally)> {
        let mut suites: Vec<(&str, Tally)> = Vec::new();
        for verdict in &self.verdicts {
            let known = suites.iter().position(|(suite, _)| *suite == verdict.suite);
            let place = known.unwrap_or_else(|| {
                suites.push((&verdict.suite, Tally::default()));
                suites.len() - 1
            });
            suites[place].1.add(&verdict.outcome);
        }
        suites
    }
}

fn one_line(text: &str) -> String {
    let line = text.trim_end().replace('\n', "\\n");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_every_case_once() {
        let verdict = |suite: &str, outcome| Verdict {
            suite: suite.to_owned(),
            index: 3,
            id: (suite == "c").then(|| "c-007".to_owned()),
            name: "a name".to_owned(),
            outcome,
        };
        let report = Report {
            verdicts: vec![
                verdict("a", Outcome::Passed),
                verdict("a", Outcome::Failed(Failure::new("5", "6\n7"))),
                verdict("b", Outcome::Skipped("not yet".to_owned())),
                verdict("b", Outcome::Skipped("not yet".to_owned())),
                verdict("c", Outcome::Failed(Failure::new("7", "8"))),
            ],
        };
        let mut text = Vec::new();
        report.write(&mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "FAILED a 3 \"a name\": expected 5, got 6\\n7\n\
             FAILED c c-007 \"a name\": expected 7, got 8\n\
             skipped b: not yet: 2\n\
             a: 1 passed, 1 failed, 0 skipped\n\
             b: 0 passed, 0 failed, 2 skipped\n\
             c: 0 passed, 1 failed, 0 skipped\n\
             1 passed, 2 failed, 2 skipped\n"
        );
    }
}
