//! The little that must be known of a statement before it runs: where the data
//! of an INSERT begins, which FORMAT it asks for, whether there are several.
//! It splits text into words and never judges it; the engine's parser does.

use std::ops::Range;

/// An INSERT whose data follows in some format.
#[derive(Debug, PartialEq)]
pub struct InsertHead {
    /// Where the statement ends, before FORMAT or VALUES.
    pub end: usize,
    /// The format of the data.
    pub format: String,
    /// Where the data begins.
    pub data: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// A keyword, a bare name or a number.
    Word,
    /// A name in backticks or double quotes.
    Name,
    /// A string.
    Text,
    /// Any other character.
    Sign(u8),
}

struct Token {
    kind: Kind,
    at: Range<usize>,
}

/// Splits text into tokens, leaving out spaces and comments.
struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn new(sql: &'a [u8]) -> Self {
        Self { sql, at: 0 }
    }

    fn skip_to(&mut self, end: &[u8]) {
        let rest = &self.sql[self.at..];
        let found = rest.windows(end.len()).position(|window| window == end);
        self.at += found.map_or(rest.len(), |found| found + end.len());
    }

    fn skip_blank(&mut self) {
        loop {
            match &self.sql[self.at..] {
                [byte, ..] if byte.is_ascii_whitespace() => self.at += 1,
                [b'-', b'-', ..] | [b'#', b' ' | b'!', ..] => self.skip_to(b"\n"),
                [b'/', b'*', ..] => {
                    self.at += 2;
                    self.skip_to(b"*/");
                }
                _ => return,
            }
        }
    }

    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(&byte) = self.sql.get(self.at) {
            self.at += 1;
            if byte == b'\\' {
                self.at += 1;
            } else if byte == quote {
                // A doubled quote stands for itself.
                if self.sql.get(self.at) != Some(&quote) {
                    return;
                }
                self.at += 1;
            }
        }
        self.at = self.at.min(self.sql.len());
    }

    /// `$tag$ ... $tag$`, if that is what begins here.
    fn skip_heredoc(&mut self) -> bool {
        let rest = &self.sql[self.at..];
        let Some(tag) = rest[1..].iter().position(|byte| !is_word(*byte)) else {
            return false;
        };
        if rest[1 + tag] != b'$' {
            return false;
        }
        let tag = rest[..tag + 2].to_vec();
        self.at += tag.len();
        self.skip_to(&tag);
        true
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let start = self.at;
        let first = *self.sql.get(start)?;
        let kind = match first {
            b'\'' => {
                self.skip_quoted(first);
                Kind::Text
            }
            b'"' | b'`' => {
                self.skip_quoted(first);
                Kind::Name
            }
            b'$' if self.skip_heredoc() => Kind::Text,
            byte if is_word(byte) => {
                let length = self.sql[start..].iter().position(|byte| !is_word(*byte));
                self.at += length.unwrap_or(self.sql.len() - start);
                Kind::Word
            }
            byte => {
                self.at += 1;
                Kind::Sign(byte)
            }
        };
        Some(Token {
            kind,
            at: start..self.at,
        })
    }
}

fn is_keyword(sql: &[u8], token: &Token, keyword: &str) -> bool {
    token.kind == Kind::Word && sql[token.at.clone()].eq_ignore_ascii_case(keyword.as_bytes())
}

fn word(sql: &[u8], token: &Token) -> Option<String> {
    (token.kind == Kind::Word).then(|| String::from_utf8_lossy(&sql[token.at.clone()]).into_owned())
}

/// Follows brackets; 0 is the statement itself.
fn depth_after(depth: usize, token: &Token) -> usize {
    match token.kind {
        Kind::Sign(b'(' | b'[' | b'{') => depth + 1,
        Kind::Sign(b')' | b']' | b'}') => depth.saturating_sub(1),
        _ => depth,
    }
}

/// Finds where an INSERT's data begins. `None` for any other statement, INSERT
/// ... SELECT among them. A text that ends before its data stands for VALUES,
/// as in ClickHouse.
pub fn insert_head(sql: &[u8]) -> Option<InsertHead> {
    let mut tokens = Tokens::new(sql).peekable();
    tokens.next_if(|token| is_keyword(sql, token, "insert"))?;
    tokens.next_if(|token| is_keyword(sql, token, "into"));
    tokens.next_if(|token| is_keyword(sql, token, "table"));
    tokens.next_if(|token| is_keyword(sql, token, "function"));
    // The name may be any word, even `values`: step over it, dots and all.
    let mut depth = depth_after(0, &tokens.next()?);
    let mut named = true;
    while let Some(token) =
        tokens.next_if(|token| depth > 0 || token.kind == Kind::Sign(b'.') || !named)
    {
        depth = depth_after(depth, &token);
        named = token.kind != Kind::Sign(b'.');
    }

    while let Some(token) = tokens.next() {
        depth = depth_after(depth, &token);
        if depth > 0 {
            continue;
        }
        let is = |keyword| is_keyword(sql, &token, keyword);
        if is("select") || is("with") || is("watch") || is("from") {
            return None;
        }
        if is("values") {
            return Some(InsertHead {
                end: token.at.start,
                format: "Values".to_owned(),
                data: token.at.end,
            });
        }
        if is("format") {
            let name = tokens.next()?;
            return Some(InsertHead {
                end: token.at.start,
                format: word(sql, &name)?,
                data: after_format(sql, name.at.end),
            });
        }
    }
    let selects = Tokens::new(sql).any(|token| is_keyword(sql, &token, "select"));
    (!selects).then(|| InsertHead {
        end: sql.len(),
        format: "Values".to_owned(),
        data: sql.len(),
    })
}

/// Spaces and one line break after the format's name belong to the statement,
/// everything behind them to the data.
fn after_format(sql: &[u8], at: usize) -> usize {
    let mut data = at;
    let is = |at: usize, bytes: &[u8]| sql.get(at).is_some_and(|byte| bytes.contains(byte));
    if is(data, b";") {
        data += 1;
    }
    while is(data, b" \t\x0c") {
        data += 1;
    }
    if is(data, b"\r") {
        data += 1;
    }
    if is(data, b"\n") {
        data += 1;
    }
    data
}

/// The format that a statement asks for itself.
pub fn output_format(sql: &[u8]) -> Option<String> {
    let mut depth = 0;
    let mut format = None;
    let mut tokens = Tokens::new(sql).peekable();
    while let Some(token) = tokens.next() {
        depth = depth_after(depth, &token);
        if depth == 0 && is_keyword(sql, &token, "format") {
            format = tokens.peek().and_then(|name| word(sql, name)).or(format);
        }
    }
    format
}

/// Whether a word stands anywhere outside strings and comments.
pub fn has_word(sql: &[u8], wanted: &str) -> bool {
    Tokens::new(sql).any(|token| is_keyword(sql, &token, wanted))
}

/// Whether anything follows a semicolon.
pub fn is_several(sql: &[u8]) -> bool {
    let mut ended = false;
    Tokens::new(sql).any(|token| {
        let sign = token.kind == Kind::Sign(b';');
        let follows = ended && !sign;
        ended |= sign;
        follows
    })
}

/// Whether there is nothing but spaces, comments and semicolons.
pub fn is_empty(sql: &[u8]) -> bool {
    Tokens::new(sql).all(|token| token.kind == Kind::Sign(b';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_is_split_into_statement_format_and_data() {
        let cases = [
            (
                "INSERT INTO t FORMAT RowBinary",
                "INSERT INTO t ",
                "RowBinary",
                "",
            ),
            (
                "insert into db.`t 1`(a, `values`) format CSV \r\n1,2\n",
                "insert into db.`t 1`(a, `values`) ",
                "CSV",
                "1,2\n",
            ),
            (
                "INSERT INTO t VALUES (1)",
                "INSERT INTO t ",
                "Values",
                " (1)",
            ),
            (
                "INSERT INTO t SETTINGS async_insert=1, x='format' FORMAT TSV\n\n1",
                "INSERT INTO t SETTINGS async_insert=1, x='format' ",
                "TSV",
                "\n1",
            ),
            (
                "-- a note\nINSERT /* select */ INTO TABLE format.values (a) VALUES(1)",
                "-- a note\nINSERT /* select */ INTO TABLE format.values (a) ",
                "Values",
                "(1)",
            ),
            (
                "INSERT INTO FUNCTION file('x', 'CSV') FORMAT CSV 1",
                "INSERT INTO FUNCTION file('x', 'CSV') ",
                "CSV",
                "1",
            ),
            (
                "INSERT INTO {t:Identifier} FORMAT TSV",
                "INSERT INTO {t:Identifier} ",
                "TSV",
                "",
            ),
            ("INSERT INTO t", "INSERT INTO t", "Values", ""),
            (
                "INSERT INTO values VALUES (1)",
                "INSERT INTO values ",
                "Values",
                " (1)",
            ),
        ];
        for (sql, head, format, data) in cases {
            let found = insert_head(sql.as_bytes()).unwrap_or_else(|| panic!("no insert: {sql}"));
            assert_eq!(
                (&sql[..found.end], found.format.as_str(), &sql[found.data..]),
                (head, format, data),
                "{sql}"
            );
        }
    }

    #[test]
    fn a_statement_without_data_is_no_data_insert() {
        for sql in [
            "SELECT 1 FORMAT CSV",
            "INSERT INTO t SELECT 1 FORMAT CSV",
            "INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x",
            "INSERT INTO t (a) (SELECT 1)",
            "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
            "EXPLAIN INSERT INTO t VALUES (1)",
            "WITH 1 AS a INSERT INTO t SELECT a",
            "",
        ] {
            assert_eq!(insert_head(sql.as_bytes()), None, "{sql}");
        }
    }

    #[test]
    fn the_outermost_format_counts() {
        let cases = [
            ("SELECT 1 FORMAT JSON", Some("JSON")),
            ("SELECT 1 format TSV SETTINGS max_threads = 1;", Some("TSV")),
            ("SELECT * FROM (SELECT 1 FORMAT JSON)", None),
            ("SELECT ' FORMAT JSON' -- FORMAT CSV", None),
            ("SELECT $x$ FORMAT JSON $x$, \"FORMAT\" FROM t", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(output_format(sql.as_bytes()).as_deref(), expected, "{sql}");
        }
    }

    #[test]
    fn a_semicolon_at_the_end_is_no_second_statement() {
        let cases = [
            ("SELECT 1;", false),
            ("SELECT 1; -- end\n ;", false),
            ("SELECT ';', 1", false),
            ("SELECT 1; x", true),
        ];
        for (sql, several) in cases {
            assert_eq!(is_several(sql.as_bytes()), several, "{sql}");
        }
        assert!(is_empty(b" -- nothing\n;"));
    }

    #[test]
    fn broken_quotes_end_with_the_text() {
        for sql in [
            "SELECT 'a",
            "SELECT \"a\\",
            "SELECT /* a",
            "$a",
            "$",
            "SELECT $a$ x",
        ] {
            assert!(Tokens::new(sql.as_bytes()).count() > 0, "{sql}");
        }
    }
}
