//! ClickHouse's RowBinaryWithNamesAndTypes, written.
//!
//! The crate's own serializer knows no decimals and walks each row through serde; here
//! a row is a few copies. The header names each column and its type, so the server
//! refuses a block that does not fit the table instead of misreading it.

use model::Credits;

/// A block of rows, as the server reads it.
#[derive(Debug, Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// Returns a block of these columns (name, type) with no rows, and room for `size` bytes.
    pub(crate) fn new(columns: &[(&str, &str)], size: usize) -> Self {
        let mut block = Self {
            bytes: Vec::with_capacity(size),
        };
        block.length(columns.len());
        columns.iter().for_each(|(name, _)| block.text(name));
        columns.iter().for_each(|(_, kind)| block.text(kind));
        block
    }

    /// Returns the bytes written so far, and starts afresh without the header.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let size = self.bytes.capacity();
        std::mem::replace(&mut self.bytes, Vec::with_capacity(size))
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes a String, or a LowCardinality(String).
    pub(crate) fn text(&mut self, text: &str) {
        self.string(text.as_bytes());
    }

    /// Writes a String of any bytes.
    pub(crate) fn string(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a value of fixed width, which is its little-endian bytes.
    pub(crate) fn fixed<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes.extend_from_slice(&bytes);
    }

    /// Writes a Decimal(18, 6).
    pub(crate) fn credits(&mut self, amount: Credits) {
        self.fixed(amount.micros().to_le_bytes());
    }

    /// Writes a Map of texts.
    pub(crate) fn map<'a>(&mut self, pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
        self.length(pairs.len());
        for (key, value) in pairs {
            self.text(key);
            self.text(value);
        }
    }

    /// Writes a length: 7 bits a byte, lowest first.
    fn length(&mut self, length: usize) {
        let mut rest = length;
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push((rest & 0x7f) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_written_as_clickhouse_reads_it() {
        let mut block = Block::new(&[("n", "Int16")], 64);
        assert_eq!(block.take(), b"\x01\x01n\x05Int16");
        block.fixed((-2_i16).to_le_bytes());
        block.text(&"x".repeat(300));
        block.map([("k", "v")].into_iter());
        let bytes = block.take();
        assert_eq!(bytes[..4], [0xfe, 0xff, 0xac, 0x02]);
        assert_eq!(bytes[304..], *b"\x01\x01k\x01v");
    }
}
