//! Which subjects a question is about, as SQL.

use std::collections::BTreeSet;

/// Whom a question is about.
#[derive(Clone, Copy, Debug)]
pub enum Subjects<'a> {
    /// Everyone.
    All,
    /// These, in whatever order; none if there are none.
    These(&'a [String]),
}

/// Digits of subjects in one term: a statement names them twice, and is then well under the
/// longest that is asked.
const DIGITS: usize = 4 << 20;

impl Subjects<'_> {
    /// Returns SQL terms on the column `subject`, for one statement each. No subject passes
    /// two of them; one that passes a later one comes later in the order of bytes.
    ///
    /// The subjects stand in the text as one literal of hex digits, as identities do: a
    /// parameter may not be longer than 128 KiB, and nothing has to be quoted.
    pub(crate) fn terms(self) -> Vec<String> {
        let Self::These(subjects) = self else {
            return vec!["1".to_owned()];
        };
        let mut lists: Vec<String> = Vec::new();
        for subject in subjects.iter().collect::<BTreeSet<_>>() {
            match lists.last_mut() {
                Some(list) if list.len() + subject.len() * 2 < DIGITS => list.push(','),
                _ => lists.push(String::new()),
            }
            if let Some(list) = lists.last_mut() {
                push_hex(list, subject.as_bytes());
            }
        }
        lists
            .iter()
            .map(|list| format!("subject IN (SELECT unhex(arrayJoin(splitByChar(',', '{list}'))))"))
            .collect()
    }
}

/// Appends the hex digits of `bytes`.
pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(subjects: &[&str]) -> Vec<String> {
        let subjects: Vec<_> = subjects.iter().map(|&subject| subject.to_owned()).collect();
        Subjects::These(&subjects).terms()
    }

    #[test]
    fn nobody_is_no_statement_and_everyone_is_one() {
        assert!(terms(&[]).is_empty());
        assert_eq!(Subjects::All.terms(), ["1"]);
    }

    #[test]
    fn a_subject_is_named_once_whatever_is_in_it() {
        let named = terms(&["b'", "", "b'", "ä"]);
        assert_eq!(
            named,
            ["subject IN (SELECT unhex(arrayJoin(splitByChar(',', ',6227,c3a4'))))"]
        );
    }

    #[test]
    fn what_is_too_long_for_one_statement_is_several() {
        let long = ["a", "b", "c"].map(|letter| letter.repeat(DIGITS / 4));
        let long: Vec<_> = long.iter().map(String::as_str).collect();
        let named = terms(&[long[2], long[0], long[1], "0"]);
        assert_eq!(named.len(), 3);
        assert!(named[0].contains("'30,6161") && named[2].contains("'6363"));
        // One that is longer than that on its own is still asked for.
        assert_eq!(terms(&["0", &"x".repeat(DIGITS)]).len(), 2);
    }
}
