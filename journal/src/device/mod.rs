//! The only place where bytes leave the process, behind three small traits.
//!
//! - [`ReadAt`] and [`WriteAt`] block; opening a journal uses them.
//! - [`Device`] carries out [`WriteOp`]s, many at a time, and reports each once.
//!
//! [`memory`] is a device that can be crashed and damaged at will, for tests and simulators;
//! [`uring`] is the real one. A caller with a ring of its own needs only `ReadAt` and `WriteAt` at
//! start, and afterwards turns `WriteOp`s into submissions with [`uring::write_entry`].

use std::io;

use crate::append::WriteOp;
use crate::buffer::FrameBuffer;

pub mod files;
pub mod memory;
pub mod uring;

/// Blocking reads of segment files.
pub trait ReadAt {
    /// Fills `bytes` from `offset` of file `file`, in full, or fails. Offset, length and address
    /// of `bytes` are multiples of [`SECTOR`](crate::SECTOR).
    fn read_at(&mut self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// Blocking, durable writes of segment files. Never used on the path of an append.
pub trait WriteAt {
    /// Writes `bytes` at `offset` of file `file`, in full and durably, or fails.
    fn write_at(&mut self, file: u32, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything durable that any earlier write to any file has brought to the device.
    fn sync(&mut self) -> io::Result<()>;
}

/// The end of a write.
#[derive(Debug)]
pub struct Completion<B> {
    /// The operation's token, for [`Journal::on_written`](crate::Journal::on_written).
    pub token: u64,
    /// Bytes written, or the error.
    pub result: io::Result<usize>,
    /// The buffer, free again.
    pub buffer: B,
}

/// Writes frames, several at once, in any order.
pub trait Device<B: FrameBuffer>: ReadAt + WriteAt {
    /// Takes a write. Gives it back if too many are in flight: then wait first.
    fn submit(&mut self, op: WriteOp<B>) -> Result<(), WriteOp<B>>;

    /// Appends what has completed to `done`, without waiting.
    fn poll(&mut self, done: &mut Vec<Completion<B>>) -> io::Result<()>;

    /// Like [`poll`](Self::poll), but waits for at least one completion if anything is in flight.
    fn wait(&mut self, done: &mut Vec<Completion<B>>) -> io::Result<()>;
}
