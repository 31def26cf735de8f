//! How far the work on a partition's records has come, when each is finished by itself and in
//! any order.

use std::collections::BTreeMap;

/// When a partition is read no further until work is finished.
const MANY: usize = 1000;
const MUCH: usize = 8 << 20;

/// The records of one partition that were handed out, under one assignment.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Changes whenever the partition is assigned anew.
    pub(crate) epoch: u64,
    /// How many records Kafka last had after the committed offset.
    pub(crate) uncommitted: Option<u64>,
    // After the last record that was read; `None` before the first.
    next: Option<i64>,
    // Each with its bytes.
    unfinished: BTreeMap<i64, usize>,
    bytes: usize,
}

impl Progress {
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            uncommitted: None,
            next: None,
            unfinished: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub(crate) fn read(&mut self, offset: i64, bytes: usize) {
        self.next = Some(offset + 1);
        self.unfinished.insert(offset, bytes);
        self.bytes += bytes;
    }

    pub(crate) fn finish(&mut self, offset: i64) {
        if let Some(bytes) = self.unfinished.remove(&offset) {
            self.bytes -= bytes;
        }
    }

    /// Returns where a successor has to begin: at the first record that is not finished.
    pub(crate) fn position(&self) -> Option<i64> {
        let first = self.unfinished.keys().next().copied();
        first.or(self.next)
    }

    /// Returns how many records are not finished. Those that were read are part of what is not
    /// committed, but newer than what is known of it.
    pub(crate) fn lag(&self) -> Option<u64> {
        let unfinished = self.unfinished.len() as u64;
        self.uncommitted
            .map(|uncommitted| uncommitted.max(unfinished))
    }

    /// Returns whether so much is under way that no more should be read.
    pub(crate) fn is_full(&self) -> bool {
        self.unfinished.len() >= MANY || self.bytes >= MUCH
    }

    /// Returns whether enough is finished to read on for a while.
    pub(crate) fn has_room(&self) -> bool {
        self.unfinished.len() <= MANY / 4 && self.bytes <= MUCH / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_beyond_the_first_unfinished_record_is_committed() {
        let mut progress = Progress::new(1);
        assert_eq!(progress.position(), None);
        // 13 is missing: Kafka leaves gaps.
        for offset in [10, 11, 12, 14] {
            progress.read(offset, 1);
        }
        progress.finish(11);
        progress.finish(12);
        assert_eq!(progress.position(), Some(10));
        progress.finish(10);
        assert_eq!(progress.position(), Some(14));
        progress.finish(14);
        assert_eq!(progress.position(), Some(15));
        progress.finish(14);
        assert_eq!((progress.position(), progress.bytes), (Some(15), 0));
    }

    #[test]
    fn a_record_that_is_read_and_not_finished_is_behind_once() {
        let mut progress = Progress::new(1);
        progress.read(10, 1);
        assert_eq!(progress.lag(), None);
        progress.uncommitted = Some(5);
        assert_eq!(progress.lag(), Some(5));
        progress.uncommitted = Some(0);
        assert_eq!(progress.lag(), Some(1));
    }

    #[test]
    fn a_partition_is_full_by_records_or_by_bytes() {
        let mut progress = Progress::new(1);
        progress.read(0, MUCH - 1);
        assert!(!progress.is_full());
        progress.read(1, 1);
        assert!(progress.is_full());
        progress.finish(0);
        assert!(!progress.is_full() && progress.has_room());

        for offset in 2..1000 {
            progress.read(offset, 1);
        }
        assert!(!progress.is_full());
        progress.read(1000, 1);
        assert!(progress.is_full() && !progress.has_room());
        for offset in 1..=750 {
            progress.finish(offset);
        }
        assert!(progress.has_room());
    }
}
