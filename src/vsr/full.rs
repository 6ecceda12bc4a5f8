//! What a replica still does while its disk has no room for a checkpoint, and when its machine is full.
//!
//! Its journal has its room for good, so it goes on to journal, acknowledge and execute, until the next
//! checkpoint is due: that one cannot be captured before the former one is written.
//!
//! ```text
//!   the checkpoint that has no room                       the next one would be due
//!   │◄──────────── half ───────────►│◄──────────── half ───────────►│
//!     everything is prepared          only what changes nothing       nothing is executed
//! ```
//!
//! - **As primary** it keeps the second half of that way (a sixteenth of the journal: 64 MiB, or 16,384
//!   look-ups of up to 240 ids, with the default of 1 GiB) for operations that only read. Others are
//!   dropped unanswered; clients repeat them, and they are taken when there is room. Where other
//!   replicas are, it asks them to leave its view at once, and says why: those whose disks are full too
//!   do not follow, so that primaries do not change for nothing when all disks are.
//! - **As backup** it acknowledges what is durable in its journal, until that is full as well. Then it
//!   is behind, like one that was away.
//!
//! The promise: nothing that was acknowledged waits for room anywhere but in journals.
//!
//! A machine whose tables have no more rows is full for good. It says so while there is room for all that may
//! have been prepared behind what it has executed; from then on whoever asks for more is evicted, and all
//! the others are served.

use super::Vsr;
use crate::limits::{PIPELINE_MAX, log_bytes};
use crate::message::Header;

/// In an exit_view: the sender's disk is full.
const BECAUSE_FULL: u8 = 1;

impl Vsr {
    /// The wiring says whether a checkpoint waits for room on the disk.
    pub fn set_disk_full(&mut self, full: bool) {
        self.disk_full = full;
    }

    /// The wiring says that nothing will be executed here any more: until it is opened again, this replica
    /// journals and acknowledges, and should not be the primary.
    pub fn set_halted(&mut self) {
        self.halted = true;
    }

    /// The machine says, as of the last operation executed, that it has room for no more than `PIPELINE_MAX`
    /// operations.
    pub fn set_machine_full(&mut self, full: bool) {
        self.machine_full = full;
    }

    pub fn is_machine_full(&self) -> bool {
        self.machine_full
    }

    /// Whether a new operation would take the room that is kept for those that only read, or that there is not.
    pub(super) fn refuses(&self, operation: u8) -> bool {
        let full = self.disk_full && (self.config.is_write)(operation);
        full && !self.may_prepare_writes() || self.refuses_for_good(operation)
    }

    /// Whether the machine will never have room for a client's operation. A pulse needs none.
    pub(super) fn refuses_for_good(&self, operation: u8) -> bool {
        let is_pulse = operation == self.config.operation_pulse;
        self.machine_full && !is_pulse && (self.config.is_write)(operation)
    }

    fn may_prepare_writes(&self) -> bool {
        let ahead = self.executing + 1..=self.log.head();
        if ahead.clone().count() > PIPELINE_MAX {
            return false;
        }
        let size = |op| {
            let entry = self.log.entry(op);
            entry.map_or(0, |entry| log_bytes(entry.size))
        };
        let since_checkpoint = self.log_bytes_since_checkpoint + ahead.map(size).sum::<u64>();
        since_checkpoint < self.config.checkpoint_bytes / 2
    }

    /// Another replica would be a better primary, if there is one.
    pub(super) fn is_primary_for_want_of_another(&self) -> bool {
        (self.disk_full || self.halted) && self.config.replica_count > 1
    }

    /// A wish to leave says whether a full disk is behind it.
    pub(super) fn explain_exit(&self, header: &mut Header) {
        if self.disk_full {
            header.operation = BECAUSE_FULL;
        }
    }

    /// Whether the primary, which wishes to leave, should be followed.
    pub(super) fn agrees_with_exit(&self, header: &Header) -> bool {
        header.operation != BECAUSE_FULL || !self.disk_full
    }
}
