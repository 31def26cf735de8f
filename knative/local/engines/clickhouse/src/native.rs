//! ClickHouse's compressed blocks, in requests (`decompress=1`) and answers
//! (`compress=1`): a checksum of 16 bytes, a method byte, the size with this
//! 9 byte header, the size unpacked (little endian), then the data.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::exception::{self, Exception};

const CHECKSUM: usize = 16;
const HEADER: usize = 9;
const LZ4: u8 = 0x82;
const ZSTD: u8 = 0x90;
const NONE: u8 = 0x02;

/// Above this a size is damage, not data: clients cut blocks at 1 MiB or less,
/// and a block must be held in memory to be checked.
const LARGEST: usize = 256 << 20;
/// How much an answer packs into one block, as ClickHouse does.
const BLOCK: usize = 1 << 20;

/// Unpacks blocks from a body that may be cut anywhere.
#[derive(Default)]
pub struct Decoder {
    waiting: BytesMut,
}

impl Decoder {
    /// Takes the next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
    }

    /// The next block that is complete, unpacked.
    ///
    /// # Errors
    /// The block is damaged.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, Exception> {
        if self.waiting.len() < CHECKSUM + HEADER {
            return Ok(None);
        }
        let mut header = &self.waiting[..CHECKSUM + HEADER];
        let checksum = header.get_u128_le();
        let method = header.get_u8();
        let packed = header.get_u32_le() as usize;
        let unpacked = header.get_u32_le() as usize;
        if !(HEADER..=LARGEST).contains(&packed) || unpacked > LARGEST {
            return Err(damaged(format!(
                "block of {packed} bytes, {unpacked} unpacked"
            )));
        }
        if self.waiting.len() < CHECKSUM + packed {
            return Ok(None);
        }
        let block = self.waiting.split_to(CHECKSUM + packed).freeze();
        if checksum_of(&block[CHECKSUM..]) != checksum {
            return Err(Exception::new(
                exception::CHECKSUM_DOESNT_MATCH,
                "Checksum doesn't match: corrupted data",
            ));
        }
        unpack(method, block.slice(CHECKSUM + HEADER..), unpacked).map(Some)
    }

    /// Whether the body ended between two blocks.
    pub fn is_at_rest(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn unpack(method: u8, data: Bytes, size: usize) -> Result<Bytes, Exception> {
    let unpacked = match method {
        NONE => data,
        LZ4 => lz4_flex::block::decompress(&data, size)
            .map_err(damaged)?
            .into(),
        ZSTD => zstd::bulk::decompress(&data, size).map_err(damaged)?.into(),
        other => return Err(damaged(format!("unknown method {other:#04x}"))),
    };
    if unpacked.len() != size {
        return Err(damaged(format!(
            "{} bytes where {size} were announced",
            unpacked.len()
        )));
    }
    Ok(unpacked)
}

fn damaged(what: impl std::fmt::Display) -> Exception {
    Exception::new(
        exception::CANNOT_DECOMPRESS,
        format!("Cannot decompress: {what}"),
    )
}

/// Packs bytes into LZ4 blocks.
pub fn encode(bytes: &[u8]) -> Bytes {
    let mut blocks = BytesMut::new();
    for part in bytes.chunks(BLOCK) {
        let data = lz4_flex::block::compress(part);
        let mut body = Vec::with_capacity(HEADER + data.len());
        body.put_u8(LZ4);
        // Both are below 2 MiB, as `part` is at most 1 MiB.
        body.put_u32_le((HEADER + data.len()) as u32);
        body.put_u32_le(part.len() as u32);
        body.extend_from_slice(&data);
        blocks.put_u128_le(checksum_of(&body));
        blocks.extend_from_slice(&body);
    }
    blocks.freeze()
}

/// CityHash 1.0.2, its halves in ClickHouse's order.
fn checksum_of(block: &[u8]) -> u128 {
    cityhash_rs::cityhash_102_128(block).rotate_right(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(method: u8, data: &[u8], unpacked: usize) -> Vec<u8> {
        let mut body = vec![method];
        body.put_u32_le((HEADER + data.len()) as u32);
        body.put_u32_le(unpacked as u32);
        body.extend_from_slice(data);
        let mut frame = checksum_of(&body).to_le_bytes().to_vec();
        frame.extend(body);
        frame
    }

    fn decode(frames: &[u8], cut: usize) -> Result<Vec<u8>, Exception> {
        let mut decoder = Decoder::default();
        let mut unpacked = Vec::new();
        for piece in frames.chunks(cut) {
            decoder.push(piece);
            while let Some(block) = decoder.next_block()? {
                unpacked.extend_from_slice(&block);
            }
        }
        assert!(decoder.is_at_rest());
        Ok(unpacked)
    }

    #[test]
    fn every_method_is_unpacked_wherever_the_body_is_cut() {
        let text = b"usage usage usage usage usage".repeat(100);
        let mut frames = frame(NONE, &text, text.len());
        frames.extend(frame(LZ4, &lz4_flex::block::compress(&text), text.len()));
        frames.extend(frame(
            ZSTD,
            &zstd::bulk::compress(&text, 1).unwrap(),
            text.len(),
        ));
        for cut in [1, 7, 25, 4096, 1 << 20] {
            assert_eq!(
                decode(&frames, cut).unwrap(),
                text.repeat(3),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn what_is_packed_here_is_unpacked_here() {
        let text: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
        assert_eq!(decode(&encode(&text), 100_000).unwrap(), text);
        assert!(encode(b"").is_empty());
    }

    #[test]
    fn a_block_made_by_clickhouse_is_unpacked() {
        let block = [
            245, 5, 222, 235, 225, 158, 59, 108, 225, 31, 65, 215, 66, 66, 36, 92, 0x82, 34, 0, 0,
            0, 23, 0, 0, 0, 240, 8, 1, 0, 2, 255, 255, 255, 255, 0, 1, 1, 1, 115, 6, 83, 116, 114,
            105, 110, 103, 3, 97, 98, 99,
        ];
        assert_eq!(
            decode(&block, 5).unwrap(),
            b"\x01\x00\x02\xff\xff\xff\xff\x00\x01\x01\x01s\x06String\x03abc"
        );
    }

    #[test]
    fn a_damaged_block_is_refused() {
        let mut flipped = frame(LZ4, &lz4_flex::block::compress(b"usage usage usage"), 17);
        flipped[30] ^= 1;
        let cases = [
            (flipped, exception::CHECKSUM_DOESNT_MATCH),
            (
                frame(LZ4, b"\xff\xff\xff", 17),
                exception::CANNOT_DECOMPRESS,
            ),
            (
                frame(LZ4, &lz4_flex::block::compress(b"short"), 17),
                exception::CANNOT_DECOMPRESS,
            ),
            (frame(0x77, b"x", 1), exception::CANNOT_DECOMPRESS),
            (frame(LZ4, b"x", LARGEST + 1), exception::CANNOT_DECOMPRESS),
        ];
        for (frames, code) in cases {
            assert_eq!(decode(&frames, 1 << 20).unwrap_err().code, code);
        }
    }
}
