//! One shape for what the oracle expects and for what query answers, and their comparison.

use std::collections::BTreeMap;

use model::Total;

/// Which row of which table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The question, as `api_calls by subject, endpoint, method`.
    pub(super) table: String,
    /// The groups, or the window's start.
    pub(super) groups: Vec<String>,
}

impl Key {
    pub(super) fn new(table: &str, groups: Vec<String>) -> Self {
        Self {
            table: table.to_owned(),
            groups,
        }
    }
}

/// A row's numbers by name (`value`, `p50`), each as exact text.
pub(super) type Numbers = BTreeMap<String, String>;

/// Rows of all tables.
pub(super) type Rows = BTreeMap<Key, Numbers>;

/// How a number compares with the oracle's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    Equal,
    /// A percentile within one part in a hundred.
    Near,
    Different,
}

/// What the comparison of all rows has found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Rows by table: how many there are on either side, and how many of them are equal.
    pub(super) tables: BTreeMap<String, (u64, u64)>,
    /// Percentiles that are near and not equal.
    pub(super) near: u64,
    /// A line for each row that differs.
    pub(super) differences: Vec<String>,
}

impl Comparison {
    pub(super) fn of(expected: &Rows, answered: &Rows) -> Self {
        let mut comparison = Self::default();
        let only_answered = answered.keys().filter(|key| !expected.contains_key(*key));
        for key in expected.keys().chain(only_answered) {
            comparison.compare(key, expected.get(key), answered.get(key));
        }
        comparison
    }

    fn compare(&mut self, key: &Key, expected: Option<&Numbers>, answered: Option<&Numbers>) {
        let (all, equal) = self.tables.entry(key.table.clone()).or_default();
        *all += 1;
        let nothing = Numbers::new();
        let (wanted, got) = (expected.unwrap_or(&nothing), answered.unwrap_or(&nothing));
        let names = wanted
            .keys()
            .chain(got.keys().filter(|name| !wanted.contains_key(*name)));
        let mut wrong = Vec::new();
        for name in names {
            match matched(name, wanted.get(name), got.get(name)) {
                Match::Equal => {}
                Match::Near => self.near += 1,
                Match::Different => {
                    let text = |numbers: &Numbers| {
                        numbers
                            .get(name)
                            .map_or("nothing", String::as_str)
                            .to_owned()
                    };
                    wrong.push(format!(
                        "{name} is {}, the oracle says {}",
                        text(got),
                        text(wanted)
                    ));
                }
            }
        }
        if wrong.is_empty() {
            *equal += 1;
        } else {
            self.differences.push(format!(
                "{} | {}: {}",
                key.table,
                key.groups.join(" "),
                wrong.join("; ")
            ));
        }
    }

    /// Returns how many rows are equal, of how many.
    pub(super) fn sum(&self) -> (u64, u64) {
        self.tables
            .values()
            .fold((0, 0), |(equal, all), (more, more_equal)| {
                (equal + more_equal, all + more)
            })
    }

    pub(super) fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Compares two numbers by value, not by how they are written.
pub(super) fn matched(name: &str, expected: Option<&String>, answered: Option<&String>) -> Match {
    let (Some(expected), Some(answered)) = (expected, answered) else {
        return Match::Different;
    };
    if let (Ok(one), Ok(other)) = (expected.parse::<Total>(), answered.parse::<Total>())
        && one == other
    {
        return Match::Equal;
    }
    // Only percentiles may be estimates, and only they may be floats.
    let is_percentile = name.starts_with('p');
    match (expected.parse::<f64>(), answered.parse::<f64>()) {
        (Ok(one), Ok(other)) if is_percentile && (one - other).abs() <= one.abs() / 100.0 => {
            Match::Near
        }
        _ => Match::Different,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, &[(&str, &str)])]) -> Rows {
        let numbers = |numbers: &[(&str, &str)]| {
            numbers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        rows.iter()
            .map(|(group, values)| (Key::new("t", vec![(*group).to_owned()]), numbers(values)))
            .collect()
    }

    #[test]
    fn numbers_are_compared_by_value() {
        let check = |name: &str, one: &str, other: &str| {
            matched(name, Some(&one.to_owned()), Some(&other.to_owned()))
        };
        assert_eq!(check("value", "10", "1e1"), Match::Equal);
        assert_eq!(
            check("value", "0.1", "0.10000000000000001"),
            Match::Different
        );
        assert_eq!(
            check("p50", "45.1234567890123456789", "45.12345678901235"),
            Match::Near
        );
        assert_eq!(check("p50", "100", "101.5"), Match::Different);
        assert_eq!(check("value", "1", "one"), Match::Different);
        assert_eq!(
            matched("value", Some(&"1".to_owned()), None),
            Match::Different
        );
    }

    #[test]
    fn rows_that_one_side_lacks_are_differences() {
        let expected = rows(&[("a", &[("value", "1")]), ("b", &[("value", "2")])]);
        let answered = rows(&[("a", &[("value", "1.0")]), ("c", &[("value", "3")])]);
        let comparison = Comparison::of(&expected, &answered);
        assert_eq!(comparison.sum(), (1, 3));
        assert_eq!(
            comparison.differences,
            [
                "t | b: value is nothing, the oracle says 2",
                "t | c: value is 3, the oracle says nothing"
            ]
        );
    }
}
