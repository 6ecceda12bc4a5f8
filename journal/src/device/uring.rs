//! The real device: direct writes with data sync through io_uring.
//!
//! Two ways to use it. A program with nothing else to do lets [`UringDevice`] own a ring. A program
//! that has a ring for its sockets pushes [`write_entry`] on that one: it is the same operation,
//! and the device is then only the opened [`Files`].
//!
//! ```text
//!   WriteOp ──► write_entry ──► SQE: WRITE or WRITE_FIXED, RWF_DSYNC ──► CQE: bytes or -errno
//!               fd or fixed file,                                        └► Journal::on_written
//!               registered buffer if it has an index
//! ```
//!
//! `RWF_DSYNC` makes the write itself durable: one operation that the kernel completes without a
//! worker thread, where a write and an fdatasync are two and the second always takes a worker.
//! Registered files and buffers save 5 to 10 µs per MiB; where the kernel refuses them (the memory
//! of registered buffers counts against `RLIMIT_MEMLOCK`), everything works without.
//! Needs Linux 6.1.

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, opcode, squeue, types};

use super::files::Files;
use super::{Completion, Device, ReadAt, WriteAt};
use crate::append::WriteOp;
use crate::buffer::FrameBuffer;

/// A segment file as an operation names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An open descriptor.
    Raw(RawFd),
    /// An index in the ring's table of registered files.
    Fixed(u32),
}

/// The submission that carries out `op`, with the operation's token as user data (replace it with
/// `.user_data(..)` where the ring has its own scheme). Its completion's result goes through
/// [`result_of`] to [`Journal::on_written`](crate::Journal::on_written).
///
/// Pushing the entry is for the caller to prove safe: the buffer of `op` must live, unchanged,
/// until the completion has been seen, and its [`registered`](FrameBuffer::registered) index must
/// belong to that ring.
pub fn write_entry<B: FrameBuffer>(op: &WriteOp<B>, target: Target) -> squeue::Entry {
    let start = op.buffer.as_mut_ptr().cast_const();
    let len = u32::try_from(op.len).expect("a frame is at most FRAME_SIZE_MAX");
    macro_rules! build {
        ($file:expr) => {
            match op.buffer.registered() {
                Some(index) => opcode::WriteFixed::new($file, start, len, index)
                    .offset(op.offset)
                    .rw_flags(libc::RWF_DSYNC)
                    .build(),
                None => opcode::Write::new($file, start, len)
                    .offset(op.offset)
                    .rw_flags(libc::RWF_DSYNC)
                    .build(),
            }
        };
    }
    match target {
        Target::Raw(descriptor) => build!(types::Fd(descriptor)),
        Target::Fixed(index) => build!(types::Fixed(index)),
    }
    .user_data(op.token)
}

/// The submission that reads `len` bytes at `offset` of a segment file into a buffer, from its
/// start: what [`Journal::locate`](crate::Journal::locate) says, for
/// [`Journal::verify_read`](crate::Journal::verify_read). Sets no user data.
///
/// Pushing the entry is for the caller to prove safe: nothing else may touch the first `len` bytes
/// of the buffer until the completion has been seen.
///
/// # Panics
/// If the buffer is smaller than `len`.
pub fn read_entry<B: FrameBuffer>(
    buffer: &B,
    offset: u64,
    len: usize,
    target: Target,
) -> squeue::Entry {
    assert!(
        buffer.capacity() >= len,
        "the buffer is smaller than the read"
    );
    let start = buffer.as_mut_ptr();
    let len = u32::try_from(len).expect("a frame is at most FRAME_SIZE_MAX");
    macro_rules! build {
        ($file:expr) => {
            match buffer.registered() {
                Some(index) => opcode::ReadFixed::new($file, start, len, index)
                    .offset(offset)
                    .build(),
                None => opcode::Read::new($file, start, len).offset(offset).build(),
            }
        };
    }
    match target {
        Target::Raw(descriptor) => build!(types::Fd(descriptor)),
        Target::Fixed(index) => build!(types::Fixed(index)),
    }
}

/// The result of a completion as [`Journal::on_written`](crate::Journal::on_written) takes it.
pub fn result_of(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Why a ring could not be set up, with what may be the cause.
#[derive(Debug, thiserror::Error)]
#[error("io_uring: {what}: {source}; {advice}")]
pub struct RingError {
    what: &'static str,
    source: io::Error,
    advice: String,
}

impl RingError {
    /// Explains the failure of `io_uring_setup`, for any ring.
    pub fn setup(source: io::Error) -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        let advice = advice(source.raw_os_error(), disabled.as_deref().map(str::trim));
        Self {
            what: "cannot set up a ring",
            source,
            advice,
        }
    }
}

fn advice(errno: Option<i32>, disabled: Option<&str>) -> String {
    match (errno, disabled) {
        (Some(libc::EPERM), Some("1" | "2")) => {
            let value = disabled.unwrap_or_default();
            format!(
                "kernel.io_uring_disabled is {value}: set it to 0 with sysctl, or with 1 add the \
                 user to the group of kernel.io_uring_group"
            )
        }
        (Some(libc::EPERM), _) => "a seccomp filter forbids it: containers need a profile that \
            allows io_uring_setup, io_uring_enter and io_uring_register"
            .to_owned(),
        (Some(libc::ENOSYS), _) => "either a seccomp filter hides it (containers need a profile \
            that allows io_uring_setup, io_uring_enter and io_uring_register), or the kernel is \
            built without CONFIG_IO_URING; Linux 6.1 or later is needed"
            .to_owned(),
        (Some(libc::EINVAL), _) => "the kernel does not know the options; Linux 6.1 or later is \
            needed"
            .to_owned(),
        (Some(libc::ENOMEM), _) => "not enough memory, or RLIMIT_MEMLOCK is too low (ulimit -l, \
            LimitMEMLOCK=)"
            .to_owned(),
        _ => "see the kernel log".to_owned(),
    }
}

/// A ring of its own over the segment files, for a program that has no other use for one. Belongs
/// to the thread that made it.
pub struct UringDevice<B: FrameBuffer> {
    ring: IoUring,
    files: Files,
    targets: Vec<Target>,
    /// Writes in the ring, by user data; the buffers must not be dropped before their completion.
    slots: Vec<Option<WriteOp<B>>>,
    free: Vec<usize>,
}

impl<B: FrameBuffer> UringDevice<B> {
    /// A ring for `depth` writes at once.
    pub fn new(files: Files, depth: u32) -> Result<Self, RingError> {
        // Completions are handled when this thread asks for them, never by interrupting it.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_clamp()
            .build(depth)
            .map_err(RingError::setup)?;
        let descriptors = files.descriptors();
        let targets = match ring.submitter().register_files(&descriptors) {
            Ok(()) => (0_u32..)
                .zip(&descriptors)
                .map(|(index, _)| Target::Fixed(index))
                .collect(),
            Err(_) => descriptors
                .iter()
                .map(|descriptor| Target::Raw(*descriptor))
                .collect(),
        };
        // The completion queue is twice the submission queue: it cannot overflow.
        let depth = ring.params().sq_entries().min(depth) as usize;
        let slots = (0..depth).map(|_| None).collect();
        Ok(Self {
            ring,
            files,
            targets,
            slots,
            free: (0..depth).rev().collect(),
        })
    }

    /// Registers memory with the ring; the buffers inside part `i` then give `Some(i)` as
    /// [`registered`](FrameBuffer::registered). `Ok(false)`: the kernel refused because of a memory
    /// limit, and everything works without.
    ///
    /// # Safety
    /// The memory must stay mapped as long as this device lives.
    pub unsafe fn register_memory(&mut self, parts: &[(*mut u8, usize)]) -> io::Result<bool> {
        let parts: Vec<libc::iovec> = parts
            .iter()
            .map(|(start, len)| libc::iovec {
                iov_base: start.cast(),
                iov_len: *len,
            })
            .collect();
        // SAFETY: the caller keeps the memory mapped for the life of the ring.
        match unsafe { self.ring.submitter().register_buffers(&parts) } {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOMEM | libc::EPERM | libc::EOPNOTSUPP) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Whether the kernel accepted the files as registered files.
    pub fn files_registered(&self) -> bool {
        matches!(self.targets.first(), Some(Target::Fixed(_)))
    }

    /// The files below.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Writes handed to the ring and not yet reported.
    pub fn inflight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // Completions must be reaped first; the caller does so next.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn reap(&mut self, done: &mut Vec<Completion<B>>) {
        for entry in self.ring.completion() {
            let slot = usize::try_from(entry.user_data()).expect("user data is a slot");
            let op = self.slots[slot].take().expect("a slot completes once");
            self.free.push(slot);
            let result = result_of(entry.result());
            done.push(Completion {
                token: op.token,
                result,
                buffer: op.buffer,
            });
        }
    }
}

impl<B: FrameBuffer> Device<B> for UringDevice<B> {
    /// The write starts at the next [`poll`](Device::poll) or [`wait`](Device::wait), together
    /// with all that were submitted before it.
    fn submit(&mut self, op: WriteOp<B>) -> Result<(), WriteOp<B>> {
        let Some(slot) = self.free.pop() else {
            return Err(op);
        };
        let target = self.targets[op.file as usize];
        let entry = write_entry(&op, target).user_data(slot as u64);
        self.slots[slot] = Some(op);
        // SAFETY: the operation, and with it the buffer, stays in its slot until its completion has
        // been reaped (or the ring is dropped after that); FrameBuffer promises that moving it does
        // not move the memory, that nobody changes the frame meanwhile, and that a registered index
        // is one of this ring's.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the queue has an entry for every slot");
        Ok(())
    }

    fn poll(&mut self, done: &mut Vec<Completion<B>>) -> io::Result<()> {
        self.enter(0)?;
        self.reap(done);
        Ok(())
    }

    fn wait(&mut self, done: &mut Vec<Completion<B>>) -> io::Result<()> {
        let want = usize::from(self.inflight() > 0 && self.ring.completion().is_empty());
        self.enter(want)?;
        self.reap(done);
        Ok(())
    }
}

impl<B: FrameBuffer> ReadAt for UringDevice<B> {
    fn read_at(&mut self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.files.read_at(file, offset, bytes)
    }
}

impl<B: FrameBuffer> WriteAt for UringDevice<B> {
    fn write_at(&mut self, file: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.files.write_at(file, offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.sync()
    }
}

impl<B: FrameBuffer> Drop for UringDevice<B> {
    /// Waits for what is in flight: the kernel still reads from those buffers.
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.inflight() > 0 {
            if self.wait(&mut done).is_err() {
                // The kernel may go on reading: leak the buffers rather than free them.
                self.slots.drain(..).flatten().for_each(std::mem::forget);
                self.free.clear();
                return;
            }
            done.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setup_errors_name_the_likely_cause() {
        assert!(advice(Some(libc::EPERM), Some("2")).contains("kernel.io_uring_disabled is 2"));
        assert!(advice(Some(libc::EPERM), Some("0")).contains("seccomp"));
        assert!(advice(Some(libc::EPERM), None).contains("seccomp"));
        assert!(advice(Some(libc::ENOSYS), None).contains("seccomp"));
        assert!(advice(Some(libc::ENOSYS), None).contains("6.1"));
        assert!(advice(Some(libc::ENOMEM), None).contains("RLIMIT_MEMLOCK"));
    }

    #[test]
    fn results_are_bytes_or_errors() {
        assert_eq!(result_of(4096).expect("bytes"), 4096);
        let error = result_of(-libc::EIO).expect_err("an error");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
}
