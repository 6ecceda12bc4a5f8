//! What a replica knows of its log: one small entry for each operation still in the journal.
//!
//! The log is a hash chain: a prepare carries the checksum of the one before it, so two replicas
//! that have the same checksum at an operation have the same log up to there. Entries are whole and
//! in order, without holes: a prepare that does not continue the chain is not appended.
//!
//! ```text
//!       base                        committed          head
//!   ──────┼───────────────────────────┼──────────────────┼
//!   gone  │ entries (in the journal)  │ may be truncated │
//! ```

use std::collections::VecDeque;

use crate::limits::SUFFIX_MAX;
use crate::message::{Header, Op};

/// One operation of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Of the prepare's header; through it, of everything before.
    pub checksum: u128,
    /// 0 for operations that no client asked for.
    pub client: u128,
    /// Cluster time of the operation's last event.
    pub timestamp: u64,
    /// Of the whole message.
    pub size: u32,
}

impl Entry {
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
}

impl Log {
    /// An empty log that continues after `base`.
    pub fn new(base: Op, base_checksum: u128, base_timestamp: u64) -> Self {
        Self {
            base,
            base_checksum,
            base_timestamp,
            entries: VecDeque::new(),
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
            self.entry(op).map(|e| e.checksum)
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

    /// Forgets everything after `op`.
    pub fn truncate(&mut self, op: Op) {
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
    fn agreement_is_the_highest_common_op() {
        let mut log = Log::new(0, 1, 0);
        for checksum in [11, 12, 13] {
            log.push(entry(checksum));
        }
        assert_eq!(log.last_agreement(1, &[11, 12, 99, 14]), Some(2));
        assert_eq!(log.last_agreement(2, &[99, 98]), None);
    }
}
