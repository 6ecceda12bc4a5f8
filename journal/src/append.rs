//! Appending: payloads in, write operations out, completions in, a durable point out.
//!
//! ```text
//!   oldest                    durable                      head          limit
//!     │ durable, maybe trimmed   │ in flight, any order      │ free         │
//!  ───┴──────────────────────────┴───────────────────────────┴──────────────┴──► position
//!                                └── inflight_bytes_max ≥ ───┘
//! ```
//!
//! What is promised here:
//! - `oldest ≤ durable ≤ head ≤ limit`, and none of them ever moves back;
//! - every frame below `durable` was reported written in full by the device, with data sync;
//! - each append is one write; the order of completions does not matter;
//! - the first write that fails fences the journal for ever: `durable` stays where it is. A later
//!   write that succeeds would prove nothing, because the device may have dropped the data of the
//!   failed one and forgotten the error.
//!
//! The journal performs no I/O: it hands out each write as a [`WriteOp`] and keeps 48 bytes about
//! it. It allocates once, when it is opened.

use std::collections::VecDeque;
use std::io;

use crate::buffer::FrameBuffer;
use crate::config::Config;
use crate::frame::{Durable, FRAME_HEADER_SIZE, Header, Kind, POSITION_NONE, SECTOR, frame_size};
use crate::segment::Geometry;

/// Where an entry lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Log address of its frame: grows with every append, and is never used twice.
    pub position: u64,
    /// Bytes of its frame, header and padding included.
    pub size: u32,
}

/// One write that the journal wants done: direct, and durable when it completes.
#[derive(Debug)]
#[must_use = "the entry is written only if this operation is carried out"]
pub struct WriteOp<B> {
    /// Names the operation in [`Journal::on_written`].
    pub token: u64,
    /// Index of the segment file.
    pub file: u32,
    /// Byte offset in the file, a multiple of [`SECTOR`].
    pub offset: u64,
    /// Bytes to write from the start of the buffer, a multiple of [`SECTOR`].
    pub len: usize,
    /// The frame. Must stay as it is until the write completes.
    pub buffer: B,
}

/// Why an append was not accepted. Nothing has changed in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// All segments are in use.
    #[error("journal is full: trim it behind a newer checkpoint, or format it with more segments")]
    Full,
    /// The payload can never fit.
    #[error("payload of {size} bytes exceeds the {max} bytes that fit a frame of this journal")]
    TooLarge {
        /// Size of the payload.
        size: usize,
        /// Largest payload of this configuration.
        max: usize,
    },
    /// Too much is in flight; try again after a completion.
    #[error("too many bytes in flight: wait for a write to complete")]
    InflightLimit,
    /// A write has failed before, see [`Journal::fault`].
    #[error("journal is fenced after a failed write: restart and recover from what is durable")]
    Fenced,
}

/// The failure that fenced a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file system had no space. Preallocated segments make this rare: thin provisioning,
    /// copy-on-write file systems, quotas.
    #[error(
        "journal write at position {position}: no space left on device; segments are preallocated, \
         so look for thin provisioning, snapshots or a copy-on-write file system, free space, restart"
    )]
    NoSpace {
        /// Log address of the frame.
        position: u64,
    },
    /// The device refused the alignment of the buffer, the offset or the length.
    #[error(
        "journal write at position {position}: refused as misaligned (EINVAL); the file system \
         wants direct I/O in units larger than 4096 bytes, or the file is not opened for direct I/O"
    )]
    Misaligned {
        /// Log address of the frame.
        position: u64,
    },
    /// The device reported an error.
    #[error(
        "journal write at position {position}: I/O error (errno {errno}); the device may be \
         failing, see the kernel log; restart recovers what is durable"
    )]
    Io {
        /// Log address of the frame.
        position: u64,
        /// The number of the error, 0 if the device gave none.
        errno: i32,
    },
    /// The device wrote less than asked.
    #[error(
        "journal write at position {position}: only {written} of {expected} bytes were written; \
         the file is shorter than it was formatted, or a file size limit applies"
    )]
    Short {
        /// Log address of the frame.
        position: u64,
        /// Bytes asked for.
        expected: usize,
        /// Bytes written.
        written: usize,
    },
}

/// A frame that was handed out and is not yet below the durable point.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    position: u64,
    len: u32,
    kind: Kind,
    written: bool,
    tag: u64,
    /// The durable point in its header: recorded on disk once this frame is durable.
    records: u64,
}

/// A write-ahead journal without its I/O: see the [crate documentation](crate).
#[derive(Debug)]
pub struct Journal {
    pub(crate) config: Config,
    pub(crate) geometry: Geometry,
    /// This opening's number, in every frame it writes.
    epoch: u64,
    /// Segments before this one are recycled.
    pub(crate) oldest_segment: u64,
    /// The counters the next frame will carry.
    head: Durable,
    previous: u64,
    durable: Durable,
    durable_tag: Option<u64>,
    /// End of the last durable entry; a marker is due while the disk does not know it.
    entries_end: u64,
    /// The durable point that a scan would learn from the disk.
    recorded: u64,
    /// In order of position; the front has sequence number `durable.sequence`.
    in_flight: VecDeque<InFlight>,
    fault: Option<Fault>,
}

/// What a scan knows when it has found the end of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    pub(crate) head: Durable,
    pub(crate) previous: u64,
    pub(crate) epoch: u64,
    pub(crate) oldest_segment: u64,
    pub(crate) tag: Option<u64>,
    pub(crate) entries_end: u64,
    pub(crate) recorded: u64,
}

impl Journal {
    pub(crate) fn resume(config: Config, resume: Resume) -> Self {
        let frames_max = config.inflight_bytes_max / SECTOR as u64;
        let frames_max = usize::try_from(frames_max).expect("at most 16384, see config");
        Self {
            config,
            geometry: Geometry::new(&config),
            epoch: resume.epoch,
            oldest_segment: resume.oldest_segment,
            head: resume.head,
            previous: resume.previous,
            durable: resume.head,
            durable_tag: resume.tag,
            entries_end: resume.entries_end,
            recorded: resume.recorded,
            in_flight: VecDeque::with_capacity(frames_max),
            fault: None,
        }
    }

    /// Whether an append of this size would be accepted.
    pub fn accepts(&self, payload_size: usize) -> Result<(), AppendError> {
        self.place(payload_size).map(|_| ())
    }

    /// Adds an entry: writes the frame header into the headroom of `buffer`, zeros behind the
    /// payload, and gives the write to carry out. The payload lies at
    /// [`FRAME_HEADER_SIZE`]; `payload_checksum` is what the caller's
    /// [`PayloadCheck`](crate::PayloadCheck) will verify. The entry is durable once
    /// [`durable`](Self::durable) has passed the end of its location.
    ///
    /// The same memory must not be appended again before its write has completed: its header says
    /// where the frame belongs, and would be rewritten under the first write.
    ///
    /// # Panics
    /// If the buffer is not aligned to [`SECTOR`] or is smaller than the frame.
    pub fn append<B: FrameBuffer>(
        &mut self,
        tag: u64,
        payload_size: usize,
        payload_checksum: u128,
        buffer: B,
    ) -> Result<(Location, WriteOp<B>), AppendError> {
        self.write_frame(Kind::Entry, tag, payload_size, payload_checksum, buffer)
    }

    /// Whether the disk does not yet know how far the log is durable and nothing in flight will
    /// tell it. A caller that has had nothing to append for some milliseconds should then write a
    /// [`marker`](Self::marker): without it, damage to the very last entries cannot be told from a
    /// torn tail.
    pub fn marker_due(&self) -> bool {
        self.fault.is_none() && self.in_flight.is_empty() && self.recorded < self.entries_end
    }

    /// Adds a frame of one sector that only records the durable point. Takes any buffer of at
    /// least [`SECTOR`] bytes, for example `AlignedBuffer::new(SECTOR)`.
    pub fn marker<B: FrameBuffer>(
        &mut self,
        buffer: B,
    ) -> Result<(Location, WriteOp<B>), AppendError> {
        self.write_frame(Kind::Marker, 0, 0, 0, buffer)
    }

    /// Takes the completion of a write, in any order: `result` is the number of bytes written.
    /// Gives the fault if this write has failed or an earlier one had.
    ///
    /// # Panics
    /// If the token is not in flight: each operation completes exactly once.
    pub fn on_written(&mut self, token: u64, result: io::Result<usize>) -> Result<(), Fault> {
        let index = token
            .checked_sub(self.durable.sequence)
            .map(usize::try_from);
        let Some(frame) = index
            .and_then(Result::ok)
            .and_then(|index| self.in_flight.get_mut(index))
            .filter(|frame| !frame.written)
        else {
            panic!("write {token} completed but is not in flight");
        };
        if self.fault.is_none() {
            self.fault = fault_of(frame.position, frame.len as usize, result);
        }
        frame.written = true;
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.advance();
        Ok(())
    }

    /// The durable point: every frame at a lower position is durable.
    pub fn durable(&self) -> u64 {
        self.durable.position
    }

    /// The tag of the last entry below the durable point, if there is one.
    pub fn durable_tag(&self) -> Option<u64> {
        self.durable_tag
    }

    /// Frames below the durable point since the journal was formatted, markers included.
    pub fn durable_sequence(&self) -> u64 {
        self.durable.sequence - 1
    }

    /// Frames that were handed out and are not below the durable point.
    pub fn inflight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of log between the durable point and the head.
    pub fn inflight_bytes(&self) -> u64 {
        self.head.position - self.durable.position
    }

    /// The address behind the last frame handed out.
    pub fn head(&self) -> u64 {
        self.head.position
    }

    /// The failure that fenced this journal, if there was one.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where a frame would go, and how long it would be.
    fn place(&self, payload_size: usize) -> Result<(u64, usize), AppendError> {
        if self.fault.is_some() {
            return Err(AppendError::Fenced);
        }
        let max = self.config.payload_size_max();
        if payload_size > max {
            return Err(AppendError::TooLarge {
                size: payload_size,
                max,
            });
        }
        let len = frame_size(payload_size);
        let position = self.geometry.fit(self.head.position, len as u64);
        if position >= self.geometry.limit(self.oldest_segment) {
            return Err(AppendError::Full);
        }
        let end = position + len as u64;
        if end - self.durable_before(position).position > self.config.inflight_bytes_max {
            return Err(AppendError::InflightLimit);
        }
        Ok((position, len))
    }

    /// The durable point as a frame at `position` may state it. With nothing in flight there is no
    /// frame between head and `position` (at most the unused end of a segment), so it is the
    /// frame's own address, and one frame always fits the in-flight limit.
    fn durable_before(&self, position: u64) -> Durable {
        if self.in_flight.is_empty() {
            Durable {
                position,
                ..self.durable
            }
        } else {
            self.durable
        }
    }

    fn write_frame<B: FrameBuffer>(
        &mut self,
        kind: Kind,
        tag: u64,
        payload_size: usize,
        payload_checksum: u128,
        buffer: B,
    ) -> Result<(Location, WriteOp<B>), AppendError> {
        let (position, len) = self.place(payload_size)?;
        let size = u32::try_from(len).expect("a frame is at most FRAME_SIZE_MAX");
        self.durable = self.durable_before(position);
        let header = Header {
            kind,
            position,
            sequence: self.head.sequence,
            entries: self.head.entries,
            previous: self.previous,
            durable: self.durable,
            epoch: self.epoch,
            oldest: self.geometry.start(self.oldest_segment),
            tag,
            payload_size: u32::try_from(payload_size).expect("below the frame's size"),
            payload_checksum,
        };
        fill(&buffer, &header.encode(&self.config), payload_size, len);

        let token = header.sequence;
        let records = header.durable.position;
        self.in_flight.push_back(InFlight {
            position,
            len: size,
            kind,
            written: false,
            tag,
            records,
        });
        self.head = Durable {
            position: header.end(),
            sequence: header.sequence + 1,
            entries: header.entries + u64::from(kind == Kind::Entry),
        };
        self.previous = position;
        self.assert_order();
        let (file, offset) = self.geometry.place(position);
        Ok((
            Location { position, size },
            WriteOp {
                token,
                file,
                offset,
                len,
                buffer,
            },
        ))
    }

    /// Moves the durable point over every written frame that has no unwritten one before it.
    fn advance(&mut self) {
        while let Some(frame) = self
            .in_flight
            .front()
            .filter(|frame| frame.written)
            .copied()
        {
            self.in_flight.pop_front();
            let end = frame.position + u64::from(frame.len);
            assert!(self.durable.position <= frame.position);
            self.durable.position = end;
            self.durable.sequence += 1;
            self.recorded = self.recorded.max(frame.records);
            if frame.kind == Kind::Entry {
                self.durable.entries += 1;
                self.durable_tag = Some(frame.tag);
                self.entries_end = end;
            }
        }
        self.assert_order();
    }

    pub(crate) fn assert_order(&self) {
        assert!(self.geometry.start(self.oldest_segment) <= self.durable.position);
        assert!(self.durable.position <= self.head.position);
        assert!(self.head.position <= self.geometry.limit(self.oldest_segment));
        assert!(self.durable.sequence + self.in_flight.len() as u64 == self.head.sequence);
        assert!(self.recorded <= self.durable.position);
    }
}

/// Writes everything of the frame that is the journal's: the header and the padding.
fn fill<B: FrameBuffer>(
    buffer: &B,
    header: &[u8; FRAME_HEADER_SIZE],
    payload_size: usize,
    len: usize,
) {
    let start = buffer.as_mut_ptr();
    assert!(
        start.cast_const().addr().is_multiple_of(SECTOR),
        "buffer is not sector-aligned"
    );
    assert!(buffer.capacity() >= len, "buffer is smaller than its frame");
    let payload_end = FRAME_HEADER_SIZE + payload_size;
    assert!(payload_end <= len);
    // SAFETY: the contract of FrameBuffer makes `start` valid for `capacity >= len` bytes and
    // leaves the headroom and the bytes behind the payload to the journal alone; both ranges lie
    // below `len`, and do not touch the payload between them.
    unsafe {
        start.copy_from_nonoverlapping(header.as_ptr(), FRAME_HEADER_SIZE);
        start.add(payload_end).write_bytes(0, len - payload_end);
    }
}

fn fault_of(position: u64, expected: usize, result: io::Result<usize>) -> Option<Fault> {
    match result {
        Ok(written) if written == expected => None,
        Ok(written) => Some(Fault::Short {
            position,
            expected,
            written,
        }),
        Err(error) => Some(match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Fault::NoSpace { position },
            Some(libc::EINVAL) => Fault::Misaligned { position },
            errno => Fault::Io {
                position,
                errno: errno.unwrap_or(0),
            },
        }),
    }
}

/// The state of a journal without any frame.
pub(crate) const FIRST: (Durable, u64) = (
    Durable {
        position: 0,
        sequence: 1,
        entries: 0,
    },
    POSITION_NONE,
);
