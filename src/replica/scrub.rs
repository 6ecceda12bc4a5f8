//! When the next block of the checkpoint in force is verified, and what is done about one that is not what
//! was written.
//!
//! The pace is a number of bytes per second, given at the start: a disk of gigabytes is read in minutes to
//! hours, beside everything else. Damage that execution runs into first (`store::mapped`) is treated alike,
//! but that nothing is executed until it is mended. With peers, a damaged file is mended (`transfer::mend`);
//! alone there is nobody to ask, and a replica that would hand out what it cannot vouch for stops instead.

use super::Replica;
use super::io::{Fatal, Output};
use super::library::LibraryTask;
use crate::protocol::Time;
use crate::store::{BLOCK_SIZE, Damage, ScrubStep};
use crate::vsr::timeout::Deadline;

/// Bytes per second that a scrub reads unless told otherwise.
pub const SCRUB_RATE: u64 = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Scrub {
    /// Between two blocks; `None` for no scrub.
    interval: Option<u64>,
    next: Deadline,
    under_way: bool,
    /// Rounds over all files since the start, and damaged files found.
    rounds: u64,
    damaged: u64,
}

impl Default for Scrub {
    fn default() -> Self {
        Self::with_rate(SCRUB_RATE)
    }
}

impl Scrub {
    /// As many bytes per second; 0 for no scrub at all.
    pub(super) fn with_rate(bytes_per_second: u64) -> Self {
        let block = BLOCK_SIZE as u64 * 1_000_000_000;
        Self {
            interval: block.checked_div(bytes_per_second),
            next: Deadline::after(0, 0),
            under_way: false,
            rounds: 0,
            damaged: 0,
        }
    }
}

/// What the scrub and execution have found since the start, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scrubbed {
    pub rounds: u64,
    pub damaged: u64,
}

impl Replica {
    /// Reads so many bytes per second of the checkpoint to verify them; 0 for none.
    pub fn set_scrub_rate(&mut self, bytes_per_second: u64) {
        self.scrub = Scrub::with_rate(bytes_per_second);
    }

    pub(super) fn scrubbed(&self) -> Scrubbed {
        Scrubbed {
            rounds: self.scrub.rounds,
            damaged: self.scrub.damaged,
        }
    }

    pub(super) fn tick_scrub(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let (Some(interval), Some(in_force)) =
            (self.scrub.interval, self.superblock.state().manifest())
        else {
            return;
        };
        // What is being fetched is verified as it comes.
        if self.scrub.under_way || self.checkpoint_lost || self.fetcher.is_active() {
            return;
        }
        if self.scrub.next.due(now.monotonic) {
            self.scrub.next = Deadline::after(now.monotonic, interval);
            self.scrub.under_way = true;
            outputs.push(Output::Library(LibraryTask::Scrub { in_force }));
        }
    }

    pub(super) fn on_scrubbed(&mut self, step: ScrubStep, outputs: &mut Vec<Output>) {
        self.scrub.under_way = false;
        match step {
            ScrubStep::Sound => {}
            ScrubStep::Round { .. } => self.scrub.rounds += 1,
            ScrubStep::Gone { of, .. } if self.superblock.state().manifest() != Some(of) => {}
            ScrubStep::Damaged(damage) | ScrubStep::Gone { damage, .. } => {
                self.on_damage(damage, outputs);
            }
        }
    }

    /// A file of the checkpoint in force is not what was written: the scrub says so, or the executor.
    pub(super) fn on_damage(&mut self, damage: Damage, outputs: &mut Vec<Output>) {
        // Found again while it is being mended, it is the same one.
        if self.mender.file() != Some(damage.entry.name) {
            self.scrub.damaged += 1;
        }
        if self.is_alone() {
            return self.stop(Fatal::Damaged(damage.what), outputs);
        }
        self.mender.add(damage.entry);
    }
}
