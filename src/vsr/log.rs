//! What a replica knows of its log: one small entry for each operation still in the journal.
//!
//! The log is a hash chain: a prepare carries the checksum of the one before it, so two replicas
//! that have the same checksum at an operation have the same log up to there. A prepare that does not
//! continue the chain is not appended, so the log has no holes but those that damage to the disk made
//! in it: such an entry is *missing*. It is part of the log all the same, and what it was is known
//! from the entry after it, which names its checksum; of several missing in a row, only the last; of one at
//! the end of the log, nothing, until the view's primary says it.
//!
//! ```text
//!       base                        committed          head
//!   ──────┼───────────────────────────┼──────────────────┼
//!   gone  │ entries (in the journal)  │ may be truncated │
//! ```

use std::collections::{BTreeSet, VecDeque};

use crate::limits::SUFFIX_MAX;
use crate::message::{Header, Op};

/// In place of a checksum: nobody has said what this entry was. (No prepare's checksum is zero, but
/// with the chance of any other.)
pub const UNKNOWN: u128 = 0;

/// One operation of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Of the prepare's header; through it, of everything before. [`UNKNOWN`] for some missing ones.
    pub checksum: u128,
    /// 0 for operations that no client asked for.
    pub client: u128,
    /// Cluster time of the operation's last event.
    pub timestamp: u64,
    /// Of the whole message.
    pub size: u32,
}

impl Entry {
    /// An entry that is not on the disk, of which at most the checksum is known.
    pub fn missing(checksum: u128) -> Self {
        Self {
            checksum,
            client: 0,
            timestamp: 0,
            size: 0,
        }
    }

    pub fn of(prepare: &Header) -> Self {
        Self {
            checksum: prepare.checksum,
            client: prepare.client,
            timestamp: prepare.timestamp,
            size: prepare.size,
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Log {
    base: Op,
    base_checksum: u128,
    base_timestamp: u64,
    entries: VecDeque<Entry>,
    /// Entries whose prepares are not on this disk.
    missing: BTreeSet<Op>,
}

impl Log {
    /// An empty log that continues after `base`.
    pub fn new(base: Op, base_checksum: u128, base_timestamp: u64) -> Self {
        Self {
            base,
            base_checksum,
            base_timestamp,
            entries: VecDeque::new(),
            missing: BTreeSet::new(),
        }
    }

    /// The last operation.
    pub fn head(&self) -> Op {
        self.base + self.entries.len() as u64
    }

    /// Entries up to and with this operation are gone.
    pub fn base(&self) -> Op {
        self.base
    }

    pub fn entry(&self, op: Op) -> Option<&Entry> {
        let index = op.checked_sub(self.base + 1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// The checksum of the prepare at `op`, if it is known.
    pub fn checksum(&self, op: Op) -> Option<u128> {
        if op == self.base {
            Some(self.base_checksum)
        } else {
            self.entry(op)
                .map(|e| e.checksum)
                .filter(|checksum| *checksum != UNKNOWN)
        }
    }

    pub fn head_checksum(&self) -> u128 {
        self.entries
            .back()
            .map_or(self.base_checksum, |e| e.checksum)
    }

    pub fn head_timestamp(&self) -> u64 {
        self.entries
            .back()
            .map_or(self.base_timestamp, |e| e.timestamp)
    }

    /// Whether this prepare is the next one of the chain.
    pub fn continues_with(&self, prepare: &Header) -> bool {
        prepare.op == self.head() + 1 && prepare.parent == self.head_checksum()
    }

    pub fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Appends an entry that is not on the disk.
    pub fn push_missing(&mut self, checksum: u128) {
        self.push(Entry::missing(checksum));
        self.missing.insert(self.head());
    }

    pub fn is_missing(&self, op: Op) -> bool {
        self.missing.contains(&op)
    }

    /// The operations whose prepares are not on this disk, ascending.
    pub fn missing(&self) -> impl ExactSizeIterator<Item = Op> + '_ {
        self.missing.iter().copied()
    }

    /// Nobody has said yet what the last entry was, so nothing can be known to continue it.
    pub fn ends_unnamed(&self) -> bool {
        self.entries.back().is_some_and(|e| e.checksum == UNKNOWN)
    }

    /// Somebody knows what the last entry was: of use where nobody has said that yet.
    pub fn name_end(&mut self, checksum: u128) {
        if self.ends_unnamed()
            && let Some(end) = self.entries.back_mut()
        {
            *end = Entry::missing(checksum);
        }
    }

    /// The prepare at `op` cannot be read back.
    pub fn lose(&mut self, op: Op) {
        if self.entry(op).is_some() {
            self.missing.insert(op);
        }
    }

    /// The prepare of a missing entry has been found; it stays missing until [`Log::restored`]. If the
    /// entry before it is another one than the prepare continues, that one had been replaced, and its
    /// replacement is missing.
    ///
    /// # Panics
    /// When the entry is not missing, or is known to have been another one.
    pub fn fill(&mut self, prepare: &Header) {
        let op = prepare.op;
        assert!(self.is_missing(op));
        assert!(
            self.checksum(op)
                .is_none_or(|known| known == prepare.checksum)
        );
        let index = usize::try_from(op - self.base - 1).expect("entries are in memory");
        self.entries[index] = Entry::of(prepare);
        if let Some(before) = index.checked_sub(1)
            && self.entries[before].checksum != prepare.parent
        {
            self.entries[before] = Entry::missing(prepare.parent);
            self.missing.insert(op - 1);
        }
    }

    /// A prepare that had been missing is durable.
    pub fn restored(&mut self, op: Op) {
        self.missing.remove(&op);
    }

    /// Forgets everything after `op`.
    pub fn truncate(&mut self, op: Op) {
        self.missing.split_off(&(op + 1));
        assert!(op >= self.base);
        self.entries
            .truncate(usize::try_from(op - self.base).expect("entries are in memory"));
    }

    /// Forgets everything up to and with `op`, which the journal no longer has.
    pub fn trim(&mut self, op: Op) {
        while self.base < op {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.base += 1;
            self.base_checksum = entry.checksum;
            self.base_timestamp = entry.timestamp;
        }
        self.missing = self.missing.split_off(&(self.base + 1));
    }

    /// The first operation and the checksums of the last entries, at most [`SUFFIX_MAX`].
    pub fn suffix(&self) -> (Op, Vec<u128>) {
        let count = self.entries.len().min(SUFFIX_MAX);
        let first = self.head() + 1 - count as u64;
        (first, self.checksums(first, count))
    }

    /// The checksums of up to `count` entries from `first` on.
    pub fn checksums(&self, first: Op, count: usize) -> Vec<u128> {
        (first..)
            .take(count)
            .map_while(|op| self.entry(op))
            .map(|e| e.checksum)
            .collect()
    }

    /// The highest operation at which this log agrees with `checksums`, which start at `first`.
    pub fn last_agreement(&self, first: Op, checksums: &[u128]) -> Option<Op> {
        (first..)
            .zip(checksums)
            .filter(|(op, checksum)| self.checksum(*op) == Some(**checksum))
            .map(|(op, _)| op)
            .last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(checksum: u128) -> Entry {
        Entry {
            checksum,
            client: 0,
            timestamp: 0,
            size: 256,
        }
    }

    #[test]
    fn entries_are_found_by_op_across_trim_and_truncate() {
        let mut log = Log::new(10, 100, 0);
        for checksum in 101..=105 {
            log.push(entry(checksum));
        }
        assert_eq!(log.head(), 15);
        log.trim(12);
        assert_eq!(
            (log.base(), log.checksum(12), log.checksum(11)),
            (12, Some(102), None)
        );
        log.truncate(13);
        assert_eq!((log.head(), log.head_checksum()), (13, 103));
        assert_eq!(log.suffix(), (13, vec![103]));
    }

    #[test]
    fn a_missing_entry_is_known_by_the_one_after_it_and_says_what_came_before() {
        let prepare = |op: Op, parent: u128| {
            let mut header = Header::new(crate::message::Command::Prepare, 0, 0, 0);
            (header.op, header.parent, header.checksum) = (op, parent, u128::from(op) + 100);
            header
        };
        let mut log = Log::new(0, 100, 0);
        log.push(Entry::of(&prepare(1, 100)));
        log.push(entry(999));
        log.push_missing(UNKNOWN);
        log.push_missing(104);
        log.push(Entry::of(&prepare(5, 104)));
        assert_eq!((log.checksum(3), log.checksum(4)), (None, Some(104)));
        log.fill(&prepare(4, 103));
        assert_eq!(log.checksum(3), Some(103));
        assert!(log.is_missing(4), "not durable yet");
        log.restored(4);
        // What was at 2 had been replaced; the replacement is what 3 continues.
        log.fill(&prepare(3, 102));
        assert_eq!(log.checksum(2), Some(102));
        assert_eq!(log.missing().collect::<Vec<_>>(), [2, 3]);
        log.truncate(2);
        assert_eq!(log.missing().collect::<Vec<_>>(), [2]);
        log.trim(2);
        assert_eq!(log.missing().count(), 0);
    }

    #[test]
    fn a_name_is_for_an_end_that_has_none() {
        let mut log = Log::new(10, 100, 0);
        assert!(!log.ends_unnamed());
        log.push(entry(101));
        log.push_missing(102);
        log.push_missing(UNKNOWN);
        assert!(log.ends_unnamed());
        log.name_end(103);
        log.name_end(104);
        assert_eq!(log.suffix(), (11, vec![101, 102, 103]));
        assert!(!log.ends_unnamed());
        assert_eq!(log.missing().collect::<Vec<_>>(), [12, 13]);
    }

    #[test]
    fn agreement_is_the_highest_common_op() {
        let mut log = Log::new(0, 1, 0);
        for checksum in [11, 12, 13] {
            log.push(entry(checksum));
        }
        assert_eq!(log.last_agreement(1, &[11, 12, 99, 14]), Some(2));
        assert_eq!(log.last_agreement(2, &[99, 98]), None);
    }
}
