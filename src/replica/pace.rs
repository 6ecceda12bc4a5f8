//! Execution and the checkpoint being written, kept in step.
//!
//! A checkpoint must be over when the next one is due. Written as fast as the disk allows, it is a
//! burst that every journal write has to queue behind (and replicas on one disk write theirs at the
//! same operation); written too slowly, it stops everything when the next one is due. So both keep
//! to the same share of the way to the next checkpoint:
//!
//! ```text
//!   0 ──────────────── log bytes executed since the capture ────────────────► interval
//!   0 ──────────────── bytes of the checkpoint written ─────────────────────► total
//!      writing may be ahead by an eighth     execution may be ahead by a quarter
//! ```
//!
//! The bounds leave room between them: never do both wait. That holds also in front of the operation of the
//! next checkpoint, which has to wait until this one is over: what comes before it fills seven eighths of
//! the interval, as the log counts it, since a prepare takes at most an eighth. A builder that is ahead pauses at most
//! [`PAUSES_MAX`] times for each write, so that a checkpoint is finished when nothing is executed.
//!
//! What is written does not depend on the pace, only when.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{FileName, FileWriter, Map, Storage};

/// Pauses of about a millisecond before each write.
const PAUSES_MAX: u32 = 8;

/// Shares are counted in so many parts.
const WHOLE: u64 = 1 << 20;

/// Shared by the replica, which executes, and the builder, which writes.
#[derive(Debug, Default)]
pub struct Pace {
    interval: u64,
    total: u64,
    executed: AtomicU64,
    written: AtomicU64,
}

impl Pace {
    /// For a checkpoint of about `total` bytes, to be over after `interval` bytes of log. So many were
    /// `executed` while it was captured.
    pub fn new(total: u64, interval: u64, executed: u64) -> Self {
        Self {
            interval,
            total,
            executed: AtomicU64::new(executed),
            written: AtomicU64::new(0),
        }
    }

    /// A prepare that takes so much of the log went to the executor.
    pub fn executed(&self, bytes: u64) {
        self.executed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The checkpoint waits for the disk: what is written of it later is written as fast as can be.
    pub fn release(&self) {
        self.executed.store(self.interval, Ordering::Relaxed);
    }

    /// Whether the next prepare may go to the executor.
    pub fn may_execute(&self) -> bool {
        self.share_executed() <= self.share_written() + WHOLE / 4
    }

    fn may_write(&self) -> bool {
        self.share_written() <= self.share_executed() + WHOLE / 8
    }

    fn share_executed(&self) -> u64 {
        share(self.executed.load(Ordering::Relaxed), self.interval)
    }

    fn share_written(&self) -> u64 {
        share(self.written.load(Ordering::Relaxed), self.total)
    }
}

fn share(part: u64, of: u64) -> u64 {
    let share = u128::from(WHOLE) * u128::from(part) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(u64::MAX).min(WHOLE)
}

/// A storage that counts what is written to it and keeps the pace.
pub(super) struct PacedStorage<'a> {
    storage: &'a mut dyn Storage,
    pace: Arc<Pace>,
    pause: fn(),
}

impl<'a> PacedStorage<'a> {
    pub(super) fn new(storage: &'a mut dyn Storage, pace: Arc<Pace>, pause: fn()) -> Self {
        Self {
            storage,
            pace,
            pause,
        }
    }
}

struct PacedWriter {
    writer: Box<dyn FileWriter>,
    pace: Arc<Pace>,
    pause: fn(),
}
impl Storage for PacedStorage<'_> {
    fn create(&mut self, name: FileName) -> io::Result<Box<dyn FileWriter>> {
        let writer = self.storage.create(name)?;
        Ok(Box::new(PacedWriter {
            writer,
            pace: Arc::clone(&self.pace),
            pause: self.pause,
        }))
    }

    fn read(&self, name: FileName, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.storage.read(name, offset, bytes)
    }

    fn map(&self, name: FileName) -> io::Result<Map> {
        self.storage.map(name)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.storage.sync()
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        self.storage.list()
    }

    fn room(&self) -> io::Result<u64> {
        self.storage.room()
    }

    fn remove(&mut self, name: FileName) -> io::Result<()> {
        self.storage.remove(name)
    }
}

impl FileWriter for PacedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for _ in 0..PAUSES_MAX {
            if self.pace.may_write() {
                break;
            }
            (self.pause)();
        }
        self.writer.write(bytes)?;
        self.pace
            .written
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{JOURNAL_SIZE_MIN, MESSAGE_SIZE_MAX, checkpoint_bytes, log_bytes};

    #[test]
    fn neither_side_waits_for_a_side_that_waits_for_it() {
        let pace = Pace::new(1000, 4000, 0);
        for executed in (0..=4000).step_by(50) {
            for written in (0..=1000).step_by(10) {
                pace.executed.store(executed, Ordering::Relaxed);
                pace.written.store(written, Ordering::Relaxed);
                assert!(pace.may_execute() || pace.may_write());
            }
        }
    }

    #[test]
    fn nobody_waits_in_front_of_the_next_checkpoint() {
        let interval = checkpoint_bytes(JOURNAL_SIZE_MIN);
        let largest = u32::try_from(MESSAGE_SIZE_MAX).expect("a mebibyte");
        let pace = Pace::new(1000, interval, interval - log_bytes(largest));
        pace.written.store(1000, Ordering::Relaxed);
        assert!(pace.may_write());
    }

    #[test]
    fn execution_stops_a_quarter_ahead_and_goes_on_with_the_writes() {
        let pace = Pace::new(1000, 4000, 0);
        pace.executed(1000);
        assert!(pace.may_execute());
        pace.executed(100);
        assert!(!pace.may_execute());
        pace.written.store(50, Ordering::Relaxed);
        assert!(pace.may_execute());
    }
}
