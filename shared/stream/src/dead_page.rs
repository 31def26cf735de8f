//! The list of dead letters, newest first, a page at a time.
//!
//! Each partition is read from its end, and the newest of the ends is taken, again and again. So
//! a cursor is where that stopped in each partition, and what is written meanwhile moves nothing.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    DeadLetter, DeadLetters, DeadTopic, ReadError,
    dead::{blocking, connect, each_letter, unread, until},
    reader::Stretch,
};

/// How long Kafka may take for a page.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

/// How many letters are read for a page, of all partitions together: what is in memory.
const WINDOW: usize = 4096;

/// Where a list goes on: of each topic and partition, the offset before which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(Vec<(usize, i32, i64)>);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (topic, partition, before)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "-" };
            write!(f, "{separator}{topic}.{partition}.{before}")?;
        }
        Ok(())
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor that was given out here")]
pub struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        fn number<T: FromStr>(text: Option<&str>) -> Result<T, NoCursor> {
            text.and_then(|text| text.parse().ok()).ok_or(NoCursor)
        }
        let place = |text: &str| {
            let mut parts = text.splitn(3, '.');
            Ok((
                number(parts.next())?,
                number(parts.next())?,
                number(parts.next())?,
            ))
        };
        text.split('-')
            .map(place)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Some of the letters, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What each was shown as. Fewer than were asked for is not yet the end.
    pub letters: Vec<T>,
    /// Where the older ones begin, if there are any.
    pub next: Option<Cursor>,
}

/// The end of a partition: what was read of it, and what was not.
struct Tail<T> {
    place: (usize, i32),
    read: Vec<(Timestamp, i64, T)>,
    // The offset before which the list goes on.
    before: i64,
    // From where it was read.
    from: i64,
    // Where the partition begins.
    first: i64,
}

impl DeadLetters {
    /// Returns up to `limit` letters from `cursor` on, each as `show` makes it of the letter and of
    /// whether it was replayed. What `show` returns is kept for thousands, so it should be small.
    pub async fn page<T: Send + 'static>(
        &self,
        limit: usize,
        cursor: Option<Cursor>,
        show: impl Fn(&DeadLetter, bool) -> T + Send + 'static,
    ) -> Result<Page<T>, ReadError> {
        let config = Arc::clone(&self.config);
        blocking(move || {
            let until = until(PAGE_WITHIN);
            let reader = connect(&config)?;
            let before: Option<HashMap<_, _>> = cursor.map(|Cursor(places)| {
                let places = places.into_iter();
                places
                    .map(|(topic, partition, before)| ((topic, partition), before))
                    .collect()
            });
            let mut topics = Vec::new();
            for (index, of) in DeadTopic::ALL.into_iter().enumerate() {
                topics.push((index, of, unread(&reader, of.name(&config), until)?));
            }
            let partitions = topics.iter().map(|(_, _, held)| held.len()).sum();
            let mut tails = Vec::new();
            for (index, of, held) in topics {
                let begin = tails.len();
                let mut replayed = HashMap::new();
                for (held, done) in held {
                    let place = (index, held.partition);
                    let before = before.as_ref().map(|known| known.get(&place).copied());
                    replayed.insert(held.partition, done);
                    tails.push(Tail::of(place, held, before, limit, partitions));
                }
                let stretches: Vec<_> = tails[begin..].iter().map(Tail::stretch).collect();
                let topic = (of, of.name(&config));
                each_letter(&reader, topic, &stretches, until, |letter| {
                    let done = replayed.get(&letter.partition).copied().unwrap_or(0);
                    let shown = show(&letter, letter.offset < done);
                    let place = (index, letter.partition);
                    if let Some(tail) = tails.iter_mut().find(|tail| tail.place == place) {
                        tail.read.push((letter.time, letter.offset, shown));
                    }
                })?;
            }
            Ok(merge(tails, limit))
        })
        .await
    }
}

impl<T> Tail<T> {
    /// Returns what to read of a partition. Without a cursor that is its end; one that does not
    /// name the partition was given out before there was anything in it.
    fn of(
        place: (usize, i32),
        held: Stretch,
        before: Option<Option<i64>>,
        limit: usize,
        partitions: usize,
    ) -> Self {
        let before = match before {
            None => held.to,
            Some(before) => before.unwrap_or(0).clamp(held.from, held.to),
        };
        let most = limit.min((WINDOW / partitions.max(1)).max(1));
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        Self {
            place,
            read: Vec::new(),
            before,
            from: before.saturating_sub(most).max(held.from),
            first: held.from,
        }
    }

    fn stretch(&self) -> Stretch {
        Stretch {
            partition: self.place.1,
            from: self.from,
            to: self.before,
        }
    }

    /// Returns whether nobody knows which letter is its newest.
    fn is_unknown(&self) -> bool {
        self.read.is_empty() && self.from > self.first
    }
}

fn merge<T>(mut tails: Vec<Tail<T>>, limit: usize) -> Page<T> {
    let mut letters = Vec::new();
    while letters.len() < limit && !tails.iter().any(Tail::is_unknown) {
        let newest = tails
            .iter_mut()
            .max_by_key(|tail| tail.read.last().map(|last| last.0));
        let Some((tail, (_, offset, shown))) =
            newest.and_then(|tail| tail.read.pop().map(|last| (tail, last)))
        else {
            break;
        };
        tail.before = offset;
        letters.push(shown);
    }
    for tail in &mut tails {
        if tail.read.is_empty() {
            // Offsets can lack records: what was read to its end is done with.
            tail.before = tail.before.min(tail.from);
        }
    }
    tails.retain(|tail| tail.before > tail.first);
    let next = tails
        .iter()
        .map(|tail| (tail.place.0, tail.place.1, tail.before));
    let next = Cursor(next.collect());
    Page {
        letters,
        next: (!next.0.is_empty()).then_some(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(partitions: &[&[i64]], limit: usize) -> Vec<Vec<i64>> {
        let mut pages = Vec::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let tails = partitions.iter().enumerate().map(|(index, times)| {
                let held = Stretch {
                    partition: 0,
                    from: 0,
                    to: i64::try_from(times.len()).unwrap(),
                };
                let known = cursor.as_ref().map(|Cursor(places)| {
                    places
                        .iter()
                        .find(|place| place.0 == index)
                        .map(|place| place.2)
                });
                let mut tail = Tail::of((index, 0), held, known, limit, partitions.len());
                tail.read = (tail.from..tail.before)
                    .map(|offset| {
                        let time = times[usize::try_from(offset).unwrap()];
                        (Timestamp::from_second(time).unwrap(), offset, time)
                    })
                    .collect();
                tail
            });
            let page = merge(tails.collect(), limit);
            pages.push(page.letters);
            // It survives being written down.
            cursor = page.next.map(|next| next.to_string().parse().unwrap());
            if cursor.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn pages_go_from_new_to_old_across_partitions() {
        let pages = pages(&[&[1, 4, 5, 8], &[2, 3, 9], &[]], 3);
        assert_eq!(pages.concat(), [9, 8, 5, 4, 3, 2, 1]);
        assert!(pages.iter().all(|page| (1..=3).contains(&page.len())));
    }

    #[test]
    fn a_clock_that_went_back_loses_no_letter() {
        let mut all = pages(&[&[9, 1, 9, 1, 9], &[5, 5, 5]], 2).concat();
        all.sort_unstable();
        assert_eq!(all, [1, 1, 5, 5, 5, 9, 9, 9]);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in [
            "",
            "0",
            "0.1",
            "0.1.2.3",
            "a.b.c",
            "0.1.2-",
            "0.1.99999999999999999999",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(NoCursor), "{text}");
        }
        // Past the end of everything is an end too.
        let far: Cursor = "7.1.9223372036854775807".parse().unwrap();
        assert_eq!(far.to_string(), "7.1.9223372036854775807");
    }
}
