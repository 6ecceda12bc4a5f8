//! State machines: what the log's operations do.
//!
//! ```text
//!   executor:  apply(op, operation, timestamp, body) ──► reply         one after another
//!              snapshot(op), capture(), capture() ... ──► Box<dyn Snapshot> ──► builder: write files
//!              published(op) ◄── the checkpoint is durable and referenced
//!   start:     an empty machine, restore(files of a manifest)
//! ```
//!
//! **Same prepares, same bytes.** A machine is a deterministic function of the operations applied to
//! it: replies, digests and checkpoint files are equal on every replica. It reads no clock, draws no
//! randomness, and knows no consensus, socket or client.

pub mod ledger;

use crate::store::Storage;
pub use crate::store::{FileEntry, Snapshot, StoreError};

/// A deterministic state machine.
pub trait Machine: Send {
    /// A bound on the reply's body, known before the operation is applied. At most
    /// [`crate::limits::BODY_SIZE_MAX`] for a body that the gateway has admitted.
    fn reply_size_max(operation: u8, body: &[u8]) -> usize
    where
        Self: Sized;

    /// Whether [`Machine::apply`] may be given this operation, at this cluster time and with this body, after one at
    /// `former`: what the gateway and the primary make sure of, for those who have it from somewhere else.
    fn admits(operation: u8, former: u64, timestamp: u64, body: &[u8]) -> bool
    where
        Self: Sized;

    /// Whether an operation may change the state; the others go on when there is no room for more.
    fn is_write(operation: u8) -> bool
    where
        Self: Sized;

    /// Applies a committed operation and writes the reply's body; returns its length.
    ///
    /// `timestamp` is the operation's cluster time, later than all before it by at least the number
    /// of events in the body: event `k` of `n` gets `timestamp - n + 1 + k`. `reply` has room for
    /// [`Machine::reply_size_max`] bytes. The body has passed the gateway's check for the operation;
    /// a body that has not is a bug, and panics.
    fn apply(
        &mut self,
        op: u64,
        operation: u8,
        timestamp: u64,
        body: &[u8],
        reply: &mut [u8],
    ) -> usize;

    /// The cluster time from which on a pulse has work; `u64::MAX` if there is none in sight.
    fn due(&self) -> u64;

    /// Whether there is no room for what [`crate::limits::PIPELINE_MAX`] more operations may bring, and never
    /// will be. Operations that need room are then refused, before they come here.
    fn is_full(&self) -> bool {
        false
    }

    /// Begins to capture the state as of `op`, the last operation applied. Does no IO. The result is written on
    /// another thread, when [`Machine::capture`] has said that it is complete.
    fn snapshot(&mut self, op: u64) -> Box<dyn Snapshot>;

    /// Goes on with the capture: a slice of the copying that it takes, between two operations. Whether it is complete.
    fn capture(&mut self) -> bool {
        true
    }

    /// A snapshot that is complete.
    fn whole_snapshot(&mut self, op: u64) -> Box<dyn Snapshot> {
        let snapshot = self.snapshot(op);
        while !self.capture() {}
        snapshot
    }

    /// The checkpoint of `op` is durable and referenced: what its files hold may leave memory.
    fn published(&mut self, op: u64);

    /// The machine as of a checkpoint, from its files. `self` is an empty one, with its settings.
    fn restore(self, storage: &dyn Storage, files: &[FileEntry]) -> Result<Self, StoreError>
    where
        Self: Sized;

    /// Work that makes later operations faster and may be done on another thread, at any time or
    /// never: called again and again by a thread that has nothing to do, a few milliseconds each time.
    fn prepare(&self) -> Option<Box<dyn FnMut() + Send>> {
        None
    }

    /// A checksum of the whole logical state, for tests and for comparing replicas. Slow.
    fn digest(&self) -> u128;
}
