//! Journal and superblock on the ring: direct writes and reads, any number at once.
//!
//! ```text
//!   JournalWrite ────┐                ┌── short: the rest again ──┐
//!   JournalRead  ────┼──► slot ──► ring ──► completion ───────────┴──► Journal…, Superblock… inputs
//!   SuperblockWrite ─┘    └ owns the memory until the kernel is done with it
//! ```
//!
//! Promises
//! - writes are data-synced by themselves (`RWF_DSYNC`): a completion means durable;
//! - a short transfer is continued, and only what the device refuses for good is reported; the
//!   bytes reported are those of the whole operation;
//! - more operations than slots wait in order.
//!
//! It does not know what a frame is, and retries nothing that failed: after an error the journal
//! decides.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::{opcode, squeue, types};
use stampede_journal::device::files::Files as JournalFiles;
use stampede_journal::device::uring::{Target, read_entry, write_entry};
use stampede_journal::{FrameBuffer, WriteOp};

use super::ring::{Completion, Kind, Ring, Token};
use crate::limits::SECTOR_SIZE;
use crate::message::{Message, MessageMut};
use crate::replica::io::{Input, Sector};

/// Operations on the ring at once. The journal's own bound is in bytes: 32 MiB of the smallest
/// frames would be 8192, more than any device works on at once.
pub(super) const OPERATIONS_MAX: usize = 1024;

/// The files of a replica that its ring works on. They are open for direct I/O.
pub struct Files {
    /// Journal segments, by index.
    journal: Vec<RawFd>,
    superblock: OwnedFd,
    /// Keeps the segments open (and locked).
    _owner: Box<dyn Any + Send>,
}

impl Files {
    /// The files of a replica.
    pub fn new(journal: JournalFiles, superblock: OwnedFd) -> Self {
        Self {
            journal: journal.descriptors(),
            superblock,
            _owner: Box::new(journal),
        }
    }

    /// Any files, for tests.
    #[cfg(test)]
    pub(super) fn of(journal: Vec<OwnedFd>, superblock: OwnedFd) -> Self {
        Self {
            journal: journal.iter().map(AsRawFd::as_raw_fd).collect(),
            superblock,
            _owner: Box::new(journal),
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} journal segments and a superblock",
            self.journal.len()
        )
    }
}

/// Memory and meaning of an operation under way.
enum Operation {
    Write(WriteOp<Message>),
    Read {
        token: u64,
        file: u32,
        offset: u64,
        size: usize,
        message: MessageMut,
    },
    Superblock {
        token: u64,
        offset: u64,
        sector: Box<Sector>,
    },
}

struct Slot {
    operation: Operation,
    /// Bytes that former submissions of this operation have transferred.
    transferred: usize,
}

pub(super) struct Disk {
    files: Files,
    files_registered: bool,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    waiting: VecDeque<Operation>,
    /// Writes that have not completed: what a stop waits for.
    writes: usize,
}

impl Disk {
    /// Takes the files, and registers them when the kernel lets us.
    pub(super) fn new(files: Files, ring: &mut Ring) -> Self {
        let mut descriptors = files.journal.clone();
        descriptors.push(files.superblock.as_raw_fd());
        let files_registered = ring.register_files(&descriptors);
        let count = u32::try_from(OPERATIONS_MAX).expect("a small constant");
        Self {
            files,
            files_registered,
            slots: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            waiting: VecDeque::new(),
            writes: 0,
        }
    }

    /// Writes that have not completed.
    pub(super) fn writes_in_flight(&self) -> usize {
        self.writes
    }

    pub(super) fn write(&mut self, write: WriteOp<Message>, ring: &mut Ring) {
        assert!(
            write.len.is_multiple_of(SECTOR_SIZE)
                && write.offset.is_multiple_of(SECTOR_SIZE as u64)
        );
        self.writes += 1;
        self.start(Operation::Write(write), ring);
    }

    pub(super) fn read(
        &mut self,
        token: u64,
        (file, offset, size): (u32, u64, usize),
        message: MessageMut,
        ring: &mut Ring,
    ) {
        assert!(size <= message.frame_capacity());
        let operation = Operation::Read {
            token,
            file,
            offset,
            size,
            message,
        };
        self.start(operation, ring);
    }

    pub(super) fn write_superblock(
        &mut self,
        token: u64,
        offset: u64,
        sector: Box<Sector>,
        ring: &mut Ring,
    ) {
        self.writes += 1;
        let operation = Operation::Superblock {
            token,
            offset,
            sector,
        };
        self.start(operation, ring);
    }

    fn start(&mut self, operation: Operation, ring: &mut Ring) {
        if !self.waiting.is_empty() || self.free.is_empty() {
            self.waiting.push_back(operation);
            return;
        }
        self.start_now(operation, ring);
    }

    fn start_now(&mut self, operation: Operation, ring: &mut Ring) {
        let index = self.free.pop().expect("the caller has looked");
        let slot = &mut self.slots[index as usize];
        assert!(slot.is_none());
        *slot = Some(Slot {
            operation,
            transferred: 0,
        });
        self.submit(index, ring);
    }

    /// Puts what is left of a slot's operation on the ring.
    fn submit(&mut self, index: u32, ring: &mut Ring) {
        let slot = self.slots[index as usize]
            .as_ref()
            .expect("the slot is in use");
        let entry = entry(slot, &self.files, self.files_registered);
        // SAFETY: the slot owns the memory and keeps it until the completion; a frame does not
        // change while it is being written, and nobody looks into a buffer that is being read into.
        unsafe { ring.push([(Token::new(Kind::Disk, 0, index), entry)]) };
    }

    /// Takes a completion; gives the input that it makes, unless there is more to transfer.
    pub(super) fn on_completion(
        &mut self,
        completion: Completion,
        ring: &mut Ring,
    ) -> Option<Input> {
        let index = completion.token.index;
        let slot = self.slots[index as usize]
            .as_mut()
            .expect("a completion of an operation under way");
        let total = slot.operation.size();
        let result = match completion.result() {
            Ok(0) if slot.transferred < total => Ok(slot.transferred),
            Ok(count) => {
                slot.transferred += count;
                assert!(
                    slot.transferred <= total,
                    "more was transferred than asked for"
                );
                if slot.transferred < total && count.is_multiple_of(SECTOR_SIZE) {
                    self.submit(index, ring);
                    return None;
                }
                Ok(slot.transferred)
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {
                self.submit(index, ring);
                return None;
            }
            Err(error) => Err(error),
        };
        let operation = self.slots[index as usize]
            .take()
            .expect("it is in use")
            .operation;
        self.free.push(index);
        if let Some(next) = self.waiting.pop_front() {
            self.start_now(next, ring);
        }
        Some(self.input(operation, result))
    }

    fn input(&mut self, operation: Operation, result: io::Result<usize>) -> Input {
        match operation {
            Operation::Write(write) => {
                self.writes -= 1;
                Input::JournalWritten {
                    token: write.token,
                    result,
                }
            }
            Operation::Superblock { token, .. } => {
                self.writes -= 1;
                Input::SuperblockWritten { token, result }
            }
            Operation::Read { token, message, .. } => Input::JournalRead {
                token,
                message,
                result,
            },
        }
    }
}

impl Operation {
    fn size(&self) -> usize {
        match self {
            Self::Write(write) => write.len,
            Self::Read { size, .. } => *size,
            Self::Superblock { .. } => SECTOR_SIZE,
        }
    }
}

/// The submission of an operation, or of what is left of it.
fn entry(slot: &Slot, files: &Files, files_registered: bool) -> squeue::Entry {
    let (index, file) = match &slot.operation {
        Operation::Write(WriteOp { file, .. }) | Operation::Read { file, .. } => {
            (*file as usize, files.journal[*file as usize])
        }
        Operation::Superblock { .. } => (files.journal.len(), files.superblock.as_raw_fd()),
    };
    let target = if files_registered {
        Target::Fixed(u32::try_from(index).expect("at most some thousand files"))
    } else {
        Target::Raw(file)
    };
    if slot.transferred > 0 {
        return rest(slot, file);
    }
    match &slot.operation {
        // The journal's own: what its tests and benchmarks have tried is what is done here.
        Operation::Write(write) => write_entry(write, target),
        Operation::Read {
            offset,
            size,
            message,
            ..
        } => read_entry(&**message, *offset, *size, target),
        Operation::Superblock { offset, sector, .. } => {
            let length = u32::try_from(SECTOR_SIZE).expect("4096");
            plain_write(file, (sector.0.as_ptr(), length), *offset)
        }
    }
}

/// What is left of a short transfer: so rare that it may do without registration.
fn rest(slot: &Slot, file: RawFd) -> squeue::Entry {
    let done = slot.transferred;
    let length = u32::try_from(slot.operation.size() - done).expect("at most a large buffer");
    match &slot.operation {
        Operation::Write(write) => {
            let start = write.buffer.as_mut_ptr().wrapping_add(done);
            plain_write(file, (start, length), write.offset + done as u64)
        }
        Operation::Superblock { offset, sector, .. } => {
            let start = sector.0.as_ptr().wrapping_add(done);
            plain_write(file, (start, length), offset + done as u64)
        }
        Operation::Read {
            offset, message, ..
        } => {
            let start = message.as_mut_ptr().wrapping_add(done);
            opcode::Read::new(types::Fd(file), start, length)
                .offset(offset + done as u64)
                .build()
        }
    }
}

fn plain_write(file: RawFd, (start, length): (*const u8, u32), offset: u64) -> squeue::Entry {
    opcode::Write::new(types::Fd(file), start, length)
        .offset(offset)
        .rw_flags(libc::RWF_DSYNC)
        .build()
}
