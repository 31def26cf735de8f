//! The mistakes of one request, collected so that its sender sees all of them.

use jiff::Timestamp;
use runtime::Problem;

/// What is wrong with a request: (parameter, what).
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<(String, String)>);

impl Mistakes {
    pub(crate) fn add(&mut self, parameter: &str, wrong: impl Into<String>) {
        self.0.push((parameter.to_owned(), wrong.into()));
    }

    /// Returns `value` if nothing was wrong, else a 400 that names every mistake.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Problem> {
        if self.0.is_empty() {
            return Ok(value);
        }
        let lines: Vec<_> = self
            .0
            .iter()
            .map(|(parameter, wrong)| format!("{parameter}: {wrong}"))
            .collect();
        let problem = Problem::bad_request(lines.join("; "));
        Err(self.0.iter().fold(problem, |problem, (parameter, wrong)| {
            problem.with_error("invalid_parameter", wrong, Some(parameter), None)
        }))
    }

    /// Reads a parameter that may be given once.
    pub(crate) fn one(&mut self, name: &str, values: &[String]) -> Option<String> {
        if values.len() > 1 {
            self.add(name, "must be given once");
        }
        values.first().cloned()
    }

    /// Reads a time as RFC 3339 writes it.
    pub(crate) fn time(&mut self, name: &str, text: Option<&str>) -> Option<Timestamp> {
        let text = text?;
        text.parse()
            .map_err(|_| {
                self.add(
                    name,
                    "must be a time of RFC 3339, such as 2024-01-31T00:00:00Z",
                );
            })
            .ok()
    }

    /// Checks that a stretch of time has a length.
    pub(crate) fn stretch(
        &mut self,
        (from_name, from): (&str, Option<Timestamp>),
        (to_name, to): (&str, Option<Timestamp>),
    ) {
        if let (Some(from), Some(to)) = (from, to) {
            if from == to {
                self.add(
                    from_name,
                    format!("{from_name} and {to_name} cannot be equal"),
                );
            } else if from > to {
                self.add(from_name, format!("must be before {to_name}"));
            }
        }
    }
}
