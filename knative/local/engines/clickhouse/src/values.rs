//! Watches the data of INSERT ... VALUES for a semicolon with more behind it.
//!
//! The engine stops reading at the semicolon and says nothing, so without this
//! a second statement would be left out in silence. The data may be larger than
//! memory and cut anywhere, hence a state machine and not [`crate::sql`].

use crate::sql;

/// What follows the semicolon is kept up to this length; spaces and remarks fit.
const LONGEST_TAIL: usize = 64 << 10;

/// Sees all data of one INSERT, piece by piece.
#[derive(Default)]
pub struct ValuesWatch {
    state: State,
    tail: Vec<u8>,
}

#[derive(Default, Clone, Copy)]
enum State {
    #[default]
    Plain,
    /// After a character that may open a comment.
    Opening(u8),
    Quoted(u8),
    Escaped(u8),
    LineComment,
    BlockComment {
        closing: bool,
    },
    /// Behind the semicolon.
    Tail,
}

impl ValuesWatch {
    /// Looks at the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        for (at, &byte) in piece.iter().enumerate() {
            self.state = match (self.state, byte) {
                (State::Tail, _) => {
                    let rest = &piece[at..];
                    let room = (LONGEST_TAIL + 1).saturating_sub(self.tail.len());
                    self.tail.extend_from_slice(&rest[..rest.len().min(room)]);
                    return;
                }
                (State::Quoted(quote), b'\\') => State::Escaped(quote),
                (State::Quoted(quote), _) if byte == quote => State::Plain,
                (State::Escaped(quote), _) => State::Quoted(quote),
                (State::LineComment, b'\n') => State::Plain,
                (State::BlockComment { closing: true }, b'/') => State::Plain,
                (State::BlockComment { .. }, _) => State::BlockComment {
                    closing: byte == b'*',
                },
                (State::Quoted(_) | State::LineComment, _) => self.state,
                (State::Opening(b'-'), b'-') => State::LineComment,
                (State::Opening(b'/'), b'*') => State::BlockComment { closing: false },
                (_, b'\'' | b'"' | b'`') => State::Quoted(byte),
                (_, b'-' | b'/') => State::Opening(byte),
                (_, b';') => State::Tail,
                _ => State::Plain,
            };
        }
    }

    /// Whether a statement follows the data.
    pub fn is_several(&self) -> bool {
        self.tail.len() > LONGEST_TAIL || !sql::is_empty(&self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_behind_a_semicolon_is_a_second_statement() {
        let cases = [
            ("(1), (2)", false),
            ("(1);\n -- that is all\n;", false),
            ("('a;b', 'it''s; \\'; x'), (1 - 2 / 3);", false),
            (
                "(1 /* it's ; * fine */), ('a;b') -- it's; fine\n, (3)",
                false,
            ),
            ("(1); DROP TABLE t", true),
            ("('\\\\'); x", true),
            ("(1 /* a */ - 2);x", true),
        ];
        for (data, several) in cases {
            for cut in [1, 3, 1000] {
                let mut watch = ValuesWatch::default();
                data.as_bytes()
                    .chunks(cut)
                    .for_each(|piece| watch.push(piece));
                assert_eq!(watch.is_several(), several, "{data} cut at {cut}");
            }
        }
    }
}
