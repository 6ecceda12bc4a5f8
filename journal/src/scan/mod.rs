//! Opening a log: finding its end, and telling a torn tail from damage.
//!
//! The scan follows the chain of frames from the start of a segment: each must lie where the one
//! before it ends (or begin the next segment), name it as its predecessor and count one further.
//! At the first frame that is bad it *surveys* what lies behind: any valid header there tells how
//! far the log had been durable when it was written.
//!
//! ```text
//!   good  good  BAD   ?  good(durable: d)      position of BAD < d: it had been acknowledged:
//!   ├─────┼─────┼───────┼────────┤             corrupt, reported; go on at the next good frame
//!                  d ─►
//!   good  good  BAD   ?  good(durable: d)      position of BAD ≥ d: it was in flight:
//!   ├─────┼─────┼───────┼────────┤             torn tail, cut off here
//!           d ─►
//! ```
//!
//! How far the survey must look: a frame handed out is at most `INFLIGHT_BYTES_LIMIT` ahead of the
//! durable point, and so of the cut; the survey goes that far, to the end of the segment, and to
//! the end of the newest segment whose first frame can be read, whichever is furthest.
//!
//! **Nothing valid survives behind the cut.** A frame that was in flight may be whole on the disk
//! although one before it is torn. Its position, its predecessor and its count could all fit what
//! is appended next, so that after another crash it would be taken for live. Before the journal
//! accepts an append, opening therefore
//!
//! 1. writes a marker at the head, which records as durable what was found: the frames about to be
//!    erased may have been the only proof of it;
//! 2. overwrites the header sector of every frame behind it with zeros, durably.
//!
//! A crash in between only repeats the scan: the marker is of a newer *epoch* (one per opening,
//! counted on from the newest found), and no frame follows one of a newer epoch than its own. So
//! every valid frame behind the head of an earlier opening was written after that opening. The
//! epoch alone would not do: a scan that starts behind the frame that first states it cannot know.
//!
//! A position given as start is vouched for by the caller: damage below it is not reported, and
//! the log is never cut below it.

mod chain;
mod reader;
mod survey;
mod verdict;

use std::io;

use crate::append::{AppendError, Journal, Location};
use crate::buffer::AlignedBuffer;
use crate::check::PayloadCheck;
use crate::config::Config;
use crate::device::{ReadAt, WriteAt};
use crate::frame::{Header, SECTOR};
use crate::recovery::{OpenError, Recovery};
use chain::{Outcome, Scanner};

/// An entry as it was read back and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The tag given with the append. A later entry whose tag is not higher usually supersedes
    /// earlier ones; that is for the caller to say.
    pub tag: u64,
    /// Where it lies.
    pub location: Location,
    /// Its number among all frames of the journal, markers included.
    pub sequence: u64,
    /// The checksum given with the append.
    pub checksum: u128,
    /// The payload, byte for byte.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    pub(crate) fn of(header: &Header, frame: &'a [u8]) -> Self {
        let size = u32::try_from(frame.len()).expect("a frame is at most FRAME_SIZE_MAX");
        Self {
            tag: header.tag,
            location: Location {
                position: header.position,
                size,
            },
            sequence: header.sequence,
            checksum: header.payload_checksum,
            payload: header.payload(frame),
        }
    }
}

impl Journal {
    /// Opens the journal on `device`: reads it from `start`, hands every entry from there on to
    /// `visit` in order of position, cuts off a torn tail, and gives the journal, ready to append,
    /// with an account of what was found. Zeroed segments are an empty journal.
    ///
    /// `start` is a position that the caller knows to have been durable: where its checkpoint
    /// ends, or the location of the first entry after it. `None` begins at the oldest segment that
    /// the newest one refers to; a segment that was being recycled at the crash may then be
    /// reported as corrupt, so a caller that ever trims should keep the position.
    ///
    /// Blocks for as long as reading takes. Entries count as durable once this has returned.
    pub fn open<D: ReadAt + WriteAt>(
        config: Config,
        device: &mut D,
        check: &impl PayloadCheck,
        start: Option<u64>,
        mut visit: impl FnMut(Entry<'_>),
    ) -> Result<(Self, Recovery), OpenError> {
        let outcome = Scanner::begin(config, device, check, start)?.run(&mut visit)?;
        let Outcome {
            resume,
            recovery,
            wipe,
        } = outcome;
        let mut journal = Self::resume(config, resume);
        // What was read may so far only be in a volatile cache of the device: a write that was cut
        // short by the death of a process, not of the machine, was never followed by its flush.
        let failed = |position| move |source| OpenError::Write { position, source };
        device.sync().map_err(failed(recovery.head))?;
        if journal.marker_due() || !wipe.is_empty() {
            journal.mark_now(device).map_err(failed(recovery.head))?;
        }
        let zeros = AlignedBuffer::new(SECTOR);
        for position in wipe
            .into_iter()
            .filter(|position| *position >= journal.head())
        {
            let (file, offset) = journal.geometry.place(position);
            device
                .write_at(file, offset, zeros.as_slice())
                .map_err(failed(position))?;
        }
        Ok((journal, recovery))
    }

    /// Writes a marker and waits for it. A full journal goes without: nothing can lie behind its
    /// head, and a marker is due once it is trimmed.
    fn mark_now<D: WriteAt>(&mut self, device: &mut D) -> io::Result<()> {
        let op = match self.marker(AlignedBuffer::new(SECTOR)) {
            Ok((_, op)) => op,
            Err(AppendError::Full) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        };
        device.write_at(op.file, op.offset, op.buffer.as_slice())?;
        self.on_written(op.token, Ok(op.len))
            .map_err(io::Error::other)
    }
}

/// Reads a journal without changing anything: what [`Journal::open`] would find.
pub fn scan<D: ReadAt>(
    config: Config,
    device: &mut D,
    check: &impl PayloadCheck,
    start: Option<u64>,
    mut visit: impl FnMut(Entry<'_>),
) -> Result<Recovery, OpenError> {
    Ok(Scanner::begin(config, device, check, start)?
        .run(&mut visit)?
        .recovery)
}
