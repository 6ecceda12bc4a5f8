//! What a replica exchanges with the world it lives in: the runtime's kernel or the simulator.
//!
//! Inputs are completions and arrivals, outputs are operations to start. The world has no wiring of
//! its own: it moves bytes, keeps time, and runs [`Task`]s one after another in the order given.
//!
//! ```text
//!            ┌────────────────────────── world ──────────────────────────┐
//!   Received │ Closed │ JournalWritten │ JournalRead │ Superblock… │ Done │ Tick
//!            └───────────────┬──────────────────────────────▲────────────┘
//!                            ▼                              │
//!                 Replica::on_input(input, time, &mut Vec<Output>)
//! ```
//!
//! Rules for worlds
//! - Buffers in an output stay with the world until the operation is over, then come back or drop.
//! - `SendReplica` may lose, but does not reorder on one connection. The world keeps one outgoing
//!   connection to each replica, dials again with backoff, and drops what does not fit the queue.
//! - `JournalWrite`s are independent: start them all at once, complete them in any order, durable.
//! - `Task`s go to one executor, in order; `Checkpoint`s to one builder beside it; `Library` tasks to the
//!   librarian that each names, in order.
//! - After `Reopen` the replica takes nothing more: what is under way is finished, then the directory is
//!   opened again, as after a restart.

use std::io;

use stampede_journal::WriteOp;

use super::executor::{CheckpointDone, CheckpointTask, Done, Task};
use super::library::{LibraryDone, LibraryTask};
use crate::limits::SECTOR_SIZE;
use crate::message::{Message, MessageMut};
use crate::protocol::ReplicaIndex;

/// A connection that was accepted; never used twice by one world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// From the world to the replica.
#[derive(Debug)]
pub enum Input {
    /// About every [`super::TICK_NS`].
    Tick,
    /// A whole message has arrived on an accepted connection. Its header has passed
    /// [`super::ingress::inspect`]; nothing else has been checked. The body is in place.
    Received {
        connection: ConnectionId,
        message: MessageMut,
    },
    /// An accepted connection is gone.
    Closed { connection: ConnectionId },
    /// The outgoing connection to a member was established (true) or lost (false).
    Peer {
        replica: ReplicaIndex,
        connected: bool,
    },
    /// A journal write is over: bytes written, or the error.
    JournalWritten {
        token: u64,
        result: io::Result<usize>,
    },
    /// A journal read is over: bytes read into the buffer's frame, or the error.
    JournalRead {
        token: u64,
        message: MessageMut,
        result: io::Result<usize>,
    },
    /// One copy of the superblock was written.
    SuperblockWritten {
        token: u64,
        result: io::Result<usize>,
    },
    /// The executor has finished a task.
    Done(Done),
    /// The builder has written a checkpoint, or failed to.
    CheckpointDone(CheckpointDone),
    /// A librarian has finished a task.
    Library(LibraryDone),
}

/// From the replica to the world.
#[derive(Debug)]
pub enum Output {
    /// Send header and body (our form: `message.header().size` bytes) to another replica.
    SendReplica { to: ReplicaIndex, message: Message },
    /// Dial a replica at once, if it is not being dialled: it has just shown that it is there.
    Dial { replica: ReplicaIndex },
    /// Send the first `size` bytes of header and body (foreign form) on a connection.
    SendClient {
        connection: ConnectionId,
        message: Message,
        size: usize,
    },
    /// Close a connection; `reason` has been counted, and is for the log.
    Close {
        connection: ConnectionId,
        reason: &'static str,
    },
    /// One direct, data-synced write of a journal frame.
    JournalWrite(WriteOp<Message>),
    /// Read `size` bytes of journal file `file` at `offset` into the start of the buffer's frame.
    JournalRead {
        token: u64,
        file: u32,
        offset: u64,
        size: usize,
        message: MessageMut,
    },
    /// One direct, data-synced write of a superblock sector at `offset` of the superblock file.
    SuperblockWrite {
        token: u64,
        offset: u64,
        sector: Box<Sector>,
    },
    /// For the executor.
    Task(Task),
    /// For the builder.
    Checkpoint(CheckpointTask),
    /// For its librarian.
    Library(LibraryTask),
    /// End this replica in order, and open it again: its superblock refers to another checkpoint.
    Reopen,
    /// The replica has found that it must not go on: stop the process, with this reason.
    Stop(Fatal),
}

/// A sector in memory, aligned for direct I/O.
#[derive(Debug, Clone)]
#[repr(C, align(4096))]
pub struct Sector(pub [u8; SECTOR_SIZE]);

/// Why a replica stops itself: what happened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error(
        "journal write failed: {0}; nothing more is acknowledged from this journal. Check the disk, then start again: \
         what was acknowledged is recovered from the journal"
    )]
    Journal(String),
    #[error("superblock write failed: {0}; check the disk, then start again")]
    Superblock(io::Error),
    #[error("checkpoint of op {op} failed: {error}; check the disk, then start again")]
    Checkpoint { op: u64, error: String },
    #[error("{0}. There is no other replica to fetch it from: restore a backup")]
    Damaged(String),
    #[error("journal entry of op {op} could not be read back: {error}")]
    Read { op: u64, error: String },
}
