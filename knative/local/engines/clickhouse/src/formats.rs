//! Which output can be streamed, and under what content type.
//!
//! The engine formats each piece of a stream as if it were the whole. For some
//! formats the pieces simply follow one another; for some they begin with a
//! header that must be left out from the second piece on; all others (JSON,
//! Parquet, Pretty, ...) are one document and are not streamed.

/// How the pieces of a format become one output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Joint {
    /// They follow one another.
    Plain,
    /// Each begins with this many lines of names and types.
    Lines(usize),
    /// Each begins with this many CSV lines, where quotes may hold line breaks.
    CsvLines(usize),
    /// Each begins with RowBinary's names, and with types as well if true.
    Binary(bool),
}

/// How a format's pieces join, or `None` if it cannot be streamed.
pub fn joint(format: &str) -> Option<Joint> {
    let joint = match format.to_ascii_lowercase().as_str() {
        "tabseparated" | "tsv" | "tabseparatedraw" | "tsvraw" | "raw" | "csv" | "rowbinary"
        | "native" | "jsoneachrow" | "jsonlines" | "ndjson" | "jsoncompacteachrow"
        | "jsonstringseachrow" | "lineasstring" | "rawblob" => Joint::Plain,
        "tabseparatedwithnames"
        | "tsvwithnames"
        | "tabseparatedrawwithnames"
        | "tsvrawwithnames"
        | "jsoncompacteachrowwithnames" => Joint::Lines(1),
        "tabseparatedwithnamesandtypes"
        | "tsvwithnamesandtypes"
        | "tabseparatedrawwithnamesandtypes"
        | "tsvrawwithnamesandtypes"
        | "jsoncompacteachrowwithnamesandtypes" => Joint::Lines(2),
        "csvwithnames" => Joint::CsvLines(1),
        "csvwithnamesandtypes" => Joint::CsvLines(2),
        "rowbinarywithnames" => Joint::Binary(false),
        "rowbinarywithnamesandtypes" => Joint::Binary(true),
        _ => return None,
    };
    Some(joint)
}

impl Joint {
    /// How long the header of a first piece is.
    pub fn header_len(self, piece: &[u8]) -> usize {
        match self {
            Self::Plain => 0,
            Self::Lines(count) => lines(piece, count, false),
            Self::CsvLines(count) => lines(piece, count, true),
            Self::Binary(types) => binary_header(piece, types).unwrap_or(0),
        }
    }
}

fn lines(piece: &[u8], count: usize, quotes: bool) -> usize {
    let mut left = count;
    let mut quoted = false;
    for (at, byte) in piece.iter().enumerate() {
        match byte {
            b'"' if quotes => quoted = !quoted,
            b'\n' if !quoted => {
                left -= 1;
                if left == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    0
}

fn binary_header(piece: &[u8], types: bool) -> Option<usize> {
    let mut rest = piece;
    let columns = varint(&mut rest)?;
    let texts = if types {
        columns.checked_mul(2)?
    } else {
        columns
    };
    for _ in 0..texts {
        let length = varint(&mut rest)?;
        rest = rest.get(length..)?;
    }
    Some(piece.len() - rest.len())
}

fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The content type that ClickHouse gives for a format.
pub fn content_type(format: &str) -> &'static str {
    let format = format.to_ascii_lowercase();
    if format == "json"
        || format == "jsoncompact"
        || format == "jsonstrings"
        || format.starts_with("jsoncolumns")
    {
        "application/json; charset=UTF-8"
    } else if format.starts_with("json") || format == "ndjson" {
        "application/x-ndjson; charset=UTF-8"
    } else if format.starts_with("csvwithnames") {
        "text/csv; charset=UTF-8; header=present"
    } else if format == "csv" {
        "text/csv; charset=UTF-8; header=absent"
    } else if format.starts_with("tabseparated") || format.starts_with("tsv") {
        "text/tab-separated-values; charset=UTF-8"
    } else if ["rowbinary", "native", "rawblob"]
        .iter()
        .any(|binary| format.starts_with(binary))
    {
        "application/octet-stream"
    } else {
        "text/plain; charset=UTF-8"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_is_measured_and_data_is_not() {
        let cases: &[(&str, &[u8], usize)] = &[
            ("TSV", b"a\tb\n", 0),
            ("TabSeparatedWithNames", b"a\tb\n1\t2\n", 4),
            ("TSVWithNamesAndTypes", b"a\nInt8\n1\n", 7),
            ("CSVWithNames", b"\"a\nb\"\"\n\",c\n1,2\n", 11),
            ("RowBinaryWithNames", b"\x01\x01nDATA", 3),
            ("RowBinaryWithNamesAndTypes", b"\x01\x01n\x05UInt8DATA", 9),
        ];
        for (format, piece, expected) in cases {
            assert_eq!(
                joint(format).unwrap().header_len(piece),
                *expected,
                "{format}"
            );
        }
    }

    #[test]
    fn formats_that_are_one_document_are_not_streamed() {
        for format in [
            "JSON",
            "JSONCompact",
            "Parquet",
            "PrettyCompact",
            "Values",
            "XML",
            "Null",
        ] {
            assert_eq!(joint(format), None, "{format}");
        }
    }
}
