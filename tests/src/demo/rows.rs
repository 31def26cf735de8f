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

/// What the comparison of all rows has found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Rows by table: how many there are on either side, and how many of them are equal.
    pub(super) tables: BTreeMap<String, (u64, u64)>,
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
            if is_same(wanted.get(name), got.get(name)) {
                continue;
            }
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

/// Compares two numbers by value, not by how they are written. Percentiles are no
/// exception: ours are values that occurred, by the oracle's own definition.
pub(super) fn is_same(expected: Option<&String>, answered: Option<&String>) -> bool {
    let number = |text: Option<&String>| text?.parse::<Total>().ok();
    number(expected).is_some_and(|expected| number(answered) == Some(expected))
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
        let check =
            |one: &str, other: &str| is_same(Some(&one.to_owned()), Some(&other.to_owned()));
        assert!(check("10", "1e1"));
        assert!(!check("0.1", "0.10000000000000001"));
        assert!(!check("45.1234567890123456789", "45.12345678901235"));
        assert!(!check("1", "one"));
        assert!(!check("one", "one"));
        assert!(!is_same(Some(&"1".to_owned()), None));
        assert!(!is_same(None, None));
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
