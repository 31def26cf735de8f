//! What `registry.lua` reads and answers.

use std::sync::Arc;

use model::{Content, Seen};
use redis::Value;

use crate::connection::LedgerError;

pub(super) fn encode(seen: &Seen) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&seen.time.to_le_bytes());
    bytes[8..16].copy_from_slice(&seen.ingested_at.to_le_bytes());
    bytes[16..].copy_from_slice(&seen.content.0.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Seen> {
    let bytes: &[u8; 24] = bytes.try_into().ok()?;
    let (time, rest) = bytes.split_first_chunk::<8>()?;
    let (ingested_at, content) = rest.split_first_chunk::<8>()?;
    Some(Seen {
        time: i64::from_le_bytes(*time),
        ingested_at: i64::from_le_bytes(*ingested_at),
        content: Content(u64::from_le_bytes(content.try_into().ok()?)),
    })
}

/// The reply of `om_register`.
pub(super) struct Reply {
    pub(super) epoch: Arc<str>,
    /// `None`: the claim itself. Empty where the bucket is not to be trusted.
    pub(super) winners: Vec<Option<Seen>>,
}

impl Reply {
    pub(super) fn read(reply: Value) -> Result<Self, LedgerError> {
        Self::parse(reply).ok_or(LedgerError::Unexpected("om_register"))
    }

    fn parse(reply: Value) -> Option<Self> {
        let Value::Array(parts) = reply else {
            return None;
        };
        let [Value::BulkString(epoch), Value::Array(winners)] =
            <[Value; 2]>::try_from(parts).ok()?
        else {
            return None;
        };
        let winner = |value: Value| match value {
            Value::BulkString(bytes) if bytes.is_empty() => Some(None),
            Value::BulkString(bytes) => decode(&bytes).map(Some),
            _ => None,
        };
        Some(Self {
            epoch: String::from_utf8(epoch).ok()?.into(),
            winners: winners.into_iter().map(winner).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_winner_is_read_as_it_was_written() {
        for seen in [
            Seen {
                time: -1,
                ingested_at: i64::MAX,
                content: Content(u64::MAX),
            },
            Seen {
                time: 1_705_314_600_000_000,
                ingested_at: 0,
                content: Content(7),
            },
        ] {
            assert_eq!(decode(&encode(&seen)), Some(seen));
        }
        assert_eq!(decode(&[0; 23]), None);
    }
}
