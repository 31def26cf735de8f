//! Takes what there is from librdkafka and decodes it on the way.

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::UsageEvent;
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    message::{BorrowedHeaders, BorrowedMessage, Headers},
};

use crate::{
    Batch, BatchLimits, ConsumeError, DeadRecord, DecodeError, KafkaFault,
    client::MAX_RECORD_BYTES,
    consumer::Position,
    group::Group,
    kafka::{self, HEADER_OVERHEAD},
};

/// How often a consumer that waits looks whether it is to end.
const NAP: Duration = Duration::from_millis(100);

/// Waits for a first record and returns those that follow it within `limits`; nothing
/// once it is told to stop.
pub(crate) fn drain(
    client: &BaseConsumer<Group>,
    limits: BatchLimits,
    stop: &AtomicBool,
) -> Result<Batch, ConsumeError> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    let mut until: Option<Instant> = None;
    loop {
        let left = until.map_or(NAP, |until| until.saturating_duration_since(Instant::now()));
        let is_over = until.is_some() && left.is_zero();
        if is_over || stop.load(Ordering::Relaxed) {
            break;
        }
        let message = match client.poll(left) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(error)) if is_fatal(client, &error) => {
                return Err(ConsumeError::Fatal(KafkaFault(error)));
            }
            // librdkafka goes on by itself; its context has logged it.
            Some(Err(_)) => continue,
        };
        until.get_or_insert_with(|| Instant::now() + limits.wait);
        let (partition, offset) = (message.partition(), message.offset());
        // Asked for every record: a partition can go and come back between two polls, and what
        // is read after that must not be dropped with what was read before.
        let position = Position {
            next: offset + 1,
            epoch: client.context().epoch(partition),
        };
        batch.positions.insert(partition, position);
        match decode(&message) {
            Ok((event, header_bytes)) => {
                bytes += message.payload_len() + message.key_len() + header_bytes;
                batch.events.push(event);
                batch.places.push((partition, offset));
            }
            Err(reason) => {
                let record = dead(&message, reason);
                bytes += record.size();
                batch.dead.push(record);
            }
        }
        if batch.len() >= limits.records || bytes >= limits.bytes {
            break;
        }
    }
    drop_lost(&mut batch, &client.context().owned());
    Ok(batch)
}

/// Drops what was read of partitions that have moved meanwhile: their new owner reads it
/// from the last commit on.
fn drop_lost(batch: &mut Batch, owned: &HashMap<i32, u64>) {
    let is_kept =
        |partition: i32, position: &Position| owned.get(&partition) == Some(&position.epoch);
    let lost = |positions: &BTreeMap<i32, Position>, partition: i32| {
        positions
            .get(&partition)
            .is_none_or(|position| !is_kept(partition, position))
    };
    if batch
        .positions
        .iter()
        .all(|(&partition, position)| is_kept(partition, position))
    {
        return;
    }
    let positions = &batch.positions;
    let mut of_event = batch.places.iter();
    batch.events.retain(|_| {
        of_event
            .next()
            .is_some_and(|(partition, _)| !lost(positions, *partition))
    });
    batch
        .places
        .retain(|(partition, _)| !lost(positions, *partition));
    batch
        .dead
        .retain(|record| !lost(positions, record.partition));
    batch
        .positions
        .retain(|&partition, position| is_kept(partition, position));
}

/// Returns the event, and how many bytes its headers had.
fn decode(message: &BorrowedMessage<'_>) -> Result<(UsageEvent, usize), DecodeError> {
    let recorded_at = message
        .timestamp()
        .to_millis()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or_else(Timestamp::now);
    let headers = named(message)?;
    let bytes = headers.iter().copied().map(header_size).sum();
    let event = kafka::decode(headers, message.payload(), recorded_at)?;
    Ok((event, bytes))
}

/// A header's name and value.
pub(crate) type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Returns the headers, or the error that there is one whose name cannot be read.
pub(crate) fn named<'a>(message: &'a BorrowedMessage<'_>) -> Result<Vec<Header<'a>>, DecodeError> {
    let named: Option<_> = headers(message).collect();
    named.ok_or_else(|| DecodeError::whole("has a header whose name is not UTF-8"))
}

/// Returns the headers up to the first whose name is not UTF-8, in whose place is nothing: the
/// binding panics on it, and anyone who may write to the topic can send thousands.
pub(crate) fn headers<'a>(
    message: &'a BorrowedMessage<'_>,
) -> impl Iterator<Item = Option<Header<'a>>> {
    message.headers().into_iter().flat_map(readable)
}

fn readable(headers: &impl Headers) -> impl Iterator<Item = Option<Header<'_>>> {
    let mut is_over = false;
    (0..headers.count()).map_while(move |index| {
        if is_over {
            return None;
        }
        let header = catch_unwind(AssertUnwindSafe(|| headers.get(index)));
        is_over = header.is_err();
        Some(header.ok().map(|header| (header.key, header.value)))
    })
}

/// Returns the bytes of all headers. Those that cannot be counted are as large as they can be.
pub(crate) fn header_bytes(message: &BorrowedMessage<'_>) -> usize {
    let sizes = headers(message).map(|header| header.map(header_size));
    sizes.sum::<Option<usize>>().unwrap_or(MAX_RECORD_BYTES)
}

fn header_size((name, value): Header<'_>) -> usize {
    HEADER_OVERHEAD + name.len() + value.map_or(0, <[u8]>::len)
}

fn dead(message: &BorrowedMessage<'_>, reason: DecodeError) -> DeadRecord {
    DeadRecord {
        partition: message.partition(),
        offset: message.offset(),
        reason,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        header_bytes: header_bytes(message),
        headers: message.headers().map(BorrowedHeaders::detach),
    }
}

pub(crate) fn is_fatal<C: ConsumerContext>(client: &BaseConsumer<C>, error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || client.client().fatal_error().is_some()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Headers of which only the first can be read.
    struct Unreadable {
        asked: Cell<usize>,
    }

    impl Headers for Unreadable {
        fn count(&self) -> usize {
            1000
        }

        fn try_get(&self, index: usize) -> Option<rdkafka::message::Header<'_, &[u8]>> {
            self.asked.set(self.asked.get() + 1);
            assert_eq!(index, 0, "is not UTF-8");
            let (key, value) = ("first", Some(&b"1"[..]));
            Some(rdkafka::message::Header { key, value })
        }
    }

    #[test]
    fn no_header_is_read_after_one_that_cannot_be() {
        let headers = Unreadable {
            asked: Cell::new(0),
        };
        let read: Vec<_> = readable(&headers).collect();
        assert_eq!(read, [Some(("first", Some(&b"1"[..]))), None]);
        assert_eq!(headers.asked.get(), 2);
    }

    fn event(id: &str) -> UsageEvent {
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "/gw"),
            ("ce_type", "t"),
        ];
        let headers = headers.map(|(name, value)| (name, Some(value.as_bytes())));
        kafka::decode(headers, None, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn dead(partition: i32) -> DeadRecord {
        DeadRecord {
            partition,
            offset: 0,
            reason: DecodeError::whole("is dead"),
            key: None,
            value: None,
            headers: None,
            header_bytes: 0,
        }
    }

    #[test]
    fn what_was_read_of_a_partition_that_moved_is_dropped() {
        let read = || Batch {
            events: vec![event("a0"), event("b0"), event("a1"), event("c0")],
            places: vec![(0, 0), (1, 0), (0, 1), (2, 0)],
            dead: vec![dead(0), dead(1)],
            positions: (0..3)
                .map(|partition| (partition, Position { next: 2, epoch: 7 }))
                .collect(),
        };
        let mut all = read();
        drop_lost(&mut all, &HashMap::from([(0, 7), (1, 7), (2, 7)]));
        assert_eq!(all.len(), 6);

        // Partition 1 is gone, and 2 came back meanwhile: it is read again from its commit.
        let mut some = read();
        drop_lost(&mut some, &HashMap::from([(0, 7), (2, 8)]));
        let ids: Vec<_> = some.events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids, ["a0", "a1"]);
        assert_eq!(some.places, [(0, 0), (0, 1)]);
        assert_eq!(some.dead.len(), 1);
        assert_eq!(some.positions.keys().collect::<Vec<_>>(), [&0]);
    }
}
