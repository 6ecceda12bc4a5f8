//! The protocol's log on the journal: which operation lies where, what is on its way to the disk,
//! what is being read back.
//!
//! Appends go to the journal in order; a lower operation than the last one replaces the log from
//! there on, and the journal simply holds both (the later frame wins when the log is read again).
//! Durable points come back as operations with their checksums, so that a replaced entry is never
//! taken for its replacement.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use stampede_journal::{AppendError, Journal, Location, PayloadCheck};
use zerocopy::FromBytes;

use super::io::{Fatal, Output};
use crate::limits::{
    CHECKPOINT_JOURNAL_SHARE, HEADER_SIZE, HEADROOM_SIZE, MESSAGE_SIZE_MAX, READS_MAX,
    REPLAY_WINDOW, SECTOR_SIZE,
};
use crate::message::{Command, Header, Message, MessageMut, Op, Pool};
use crate::protocol::{Event, ReadFor};

/// Verifies prepares that are read back: the frame's checksum is the prepare's, which covers the
/// body through its header.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PrepareCheck;

impl PayloadCheck for PrepareCheck {
    fn verify(&self, payload: &[u8], checksum: u128) -> bool {
        let Some((header, body)) = split(payload) else {
            return false;
        };
        header.checksum == checksum
            && header.verify() == Ok(Command::Prepare)
            && header.verify_body(body).is_ok()
    }
}

/// A payload as header and body.
pub(super) fn split(payload: &[u8]) -> Option<(Header, &[u8])> {
    let (header, body) = payload.split_at_checked(HEADER_SIZE)?;
    Some((Header::read_from_bytes(header).ok()?, body))
}

#[derive(Debug)]
struct Reading {
    op: Op,
    purpose: ReadFor,
    location: Location,
}

#[derive(Debug)]
struct Appending {
    end: u64,
    op: Op,
    checksum: u128,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Entries {
    journal: Journal,
    segment_size: u64,
    /// Where the entries after `base` lie.
    base: Op,
    locations: VecDeque<Location>,
    /// On their way to the disk, in order.
    appending: VecDeque<Appending>,
    /// Waiting because too much is in flight, in order. At most a pipeline.
    waiting: VecDeque<Message>,
    waiting_bytes: u64,
    reads: BTreeMap<u64, Reading>,
    read_token: u64,
    /// Reads for execution that wait for a buffer. Bounded by the protocol's window.
    reads_waiting: VecDeque<Op>,
}

impl Entries {
    pub(super) fn new(
        journal: Journal,
        segment_size: u64,
        base: Op,
        locations: VecDeque<Location>,
    ) -> Self {
        Self {
            journal,
            segment_size,
            base,
            locations,
            appending: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            reads: BTreeMap::new(),
            read_token: 0,
            reads_waiting: VecDeque::new(),
        }
    }

    /// Bytes that the journal can still take, with what waits already subtracted, and the largest
    /// stretch that a segment's end may waste.
    pub(super) fn free(&self) -> u64 {
        let waste = 2 * (MESSAGE_SIZE_MAX + SECTOR_SIZE) as u64;
        self.journal
            .free_bytes()
            .saturating_sub(self.waiting_bytes + waste)
    }

    fn location(&self, op: Op) -> Option<Location> {
        let index = op.checked_sub(self.base + 1)?;
        self.locations.get(usize::try_from(index).ok()?).copied()
    }

    pub(super) fn append(
        &mut self,
        message: Message,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Fatal> {
        if !self.waiting.is_empty() {
            self.wait(message);
            return Ok(());
        }
        self.append_now(message, outputs)
    }

    fn wait(&mut self, message: Message) {
        self.waiting_bytes += u64::from(message.header().size) + 2 * SECTOR_SIZE as u64;
        self.waiting.push_back(message);
    }

    fn append_now(&mut self, message: Message, outputs: &mut Vec<Output>) -> Result<(), Fatal> {
        let header = *message.header();
        let size = header.size as usize;
        if self.journal.accepts(size) == Err(AppendError::InflightLimit) {
            self.wait(message);
            return Ok(());
        }
        let appended = self
            .journal
            .append(header.op, size, header.checksum, message);
        let (location, write) = appended.map_err(|error| Fatal::Journal(error.to_string()))?;
        let keep = usize::try_from(header.op - self.base - 1).expect("in memory");
        assert!(keep <= self.locations.len(), "the log has no holes");
        self.locations.truncate(keep);
        self.locations.push_back(location);
        self.appending.push_back(Appending {
            end: location.position + u64::from(location.size),
            op: header.op,
            checksum: header.checksum,
        });
        outputs.push(Output::JournalWrite(write));
        Ok(())
    }

    /// A write is over. Gives the newest operation that is durable with all before it, if it has
    /// changed.
    pub(super) fn on_written(
        &mut self,
        token: u64,
        result: io::Result<usize>,
        outputs: &mut Vec<Output>,
    ) -> Result<Option<(Op, u128)>, Fatal> {
        self.journal
            .on_written(token, result)
            .map_err(|fault| Fatal::Journal(fault.to_string()))?;
        let mut newest = None;
        while self
            .appending
            .front()
            .is_some_and(|a| a.end <= self.journal.durable())
        {
            newest = self.appending.pop_front().map(|a| (a.op, a.checksum));
        }
        while let Some(message) = self.waiting.front() {
            let size = message.header().size;
            if self.journal.accepts(size as usize) == Err(AppendError::InflightLimit) {
                break;
            }
            let Some(message) = self.waiting.pop_front() else {
                break;
            };
            self.waiting_bytes -= u64::from(size) + 2 * SECTOR_SIZE as u64;
            self.append_now(message, outputs)?;
        }
        Ok(newest)
    }

    pub(super) fn marker_due(&self) -> bool {
        self.journal.marker_due() && self.waiting.is_empty()
    }

    pub(super) fn marker(&mut self, buffer: Message, outputs: &mut Vec<Output>) {
        // A journal without room for one sector is about to be trimmed: no harm in skipping.
        if let Ok((_, write)) = self.journal.marker(buffer) {
            outputs.push(Output::JournalWrite(write));
        }
    }

    /// Starts a read. For a replica it is dropped when too many are in flight (it will ask again);
    /// for execution it waits for a buffer.
    pub(super) fn read(
        &mut self,
        op: Op,
        purpose: ReadFor,
        pool: &Pool,
        outputs: &mut Vec<Output>,
    ) {
        let started = self.start_read(op, purpose, pool, outputs);
        if !started && purpose == ReadFor::Execute {
            self.reads_waiting.push_back(op);
        }
    }

    pub(super) fn retry_reads(&mut self, pool: &Pool, outputs: &mut Vec<Output>) {
        while let Some(op) = self.reads_waiting.front().copied() {
            if !self.start_read(op, ReadFor::Execute, pool, outputs) {
                return;
            }
            self.reads_waiting.pop_front();
        }
    }

    fn start_read(
        &mut self,
        op: Op,
        purpose: ReadFor,
        pool: &Pool,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let limit = if purpose == ReadFor::Execute {
            READS_MAX
        } else {
            READS_MAX - REPLAY_WINDOW
        };
        if self.reads.len() >= limit {
            return false;
        }
        let Some(location) = self.location(op) else {
            return false;
        };
        let Some(extent) = self.journal.locate(location) else {
            return false;
        };
        let body_size =
            (extent.len - HEADROOM_SIZE - HEADER_SIZE).min(crate::limits::BODY_SIZE_MAX);
        if purpose != ReadFor::Execute && pool.free(body_size) < crate::limits::BUFFERS_RESERVED {
            return false;
        }
        let Some(message) = pool.acquire(body_size) else {
            return false;
        };
        let token = self.read_token;
        self.read_token += 1;
        self.reads.insert(
            token,
            Reading {
                op,
                purpose,
                location,
            },
        );
        let (file, offset, size) = (extent.file, extent.offset, extent.len);
        outputs.push(Output::JournalRead {
            token,
            file,
            offset,
            size,
            message,
        });
        true
    }

    /// A read is over: the event for the protocol.
    pub(super) fn on_read(
        &mut self,
        token: u64,
        message: MessageMut,
        result: io::Result<usize>,
    ) -> Result<Option<Event>, Fatal> {
        let Reading {
            op,
            purpose,
            location,
        } = self.reads.remove(&token).expect("a read was in flight");
        // Replaced or trimmed while it was read: of no use to anybody.
        if self.location(op) != Some(location) {
            return Ok(None);
        }
        let problem = match result {
            Ok(size) => {
                let bytes = message.frame(size.min(location.size as usize));
                match self.journal.verify_read(location, bytes, &PrepareCheck) {
                    Ok(_) => None,
                    Err(error) => Some(error.to_string()),
                }
            }
            Err(error) => Some(error.to_string()),
        };
        match (problem, purpose) {
            (None, _) => Ok(Some(Event::Read {
                op,
                purpose,
                message: Some(message.freeze()),
            })),
            (Some(error), ReadFor::Execute) => Err(Fatal::Read { op, error }),
            // The other replica will ask again, and elsewhere.
            (Some(_), ReadFor::Replica(_)) => Ok(None),
        }
    }

    /// Bytes that must be free so that entries of `entry_bytes` can be appended, whatever their sizes:
    /// an entry that does not fit the rest of a segment leaves it unused, only whole segments are
    /// given up, and appends stop before the last entry that could still fit.
    fn reserve(&self, entry_bytes: u64) -> u64 {
        let entry_max = (MESSAGE_SIZE_MAX + SECTOR_SIZE) as u64;
        let useful = self.segment_size.saturating_sub(entry_max).max(1);
        let filled = entry_bytes.saturating_mul(self.segment_size) / useful;
        filled + self.segment_size + 4 * entry_max
    }

    /// Where the journal may be cut when the checkpoint of `op` is durable: the position to restart
    /// from, and the last operation given up. Replicas that were away are served from what is kept,
    /// so all is but what the next two checkpoints fill, unless nobody else is there.
    pub(super) fn keep_from(&self, op: Op, alone: bool) -> (u64, Op) {
        let share = self.journal.capacity() / CHECKPOINT_JOURNAL_SHARE;
        let used_max = self
            .journal
            .capacity()
            .saturating_sub(self.reserve(2 * share));
        let head = self.journal.head();
        let start_of = |op: Op| self.location(op).map_or(head, |location| location.position);
        if alone {
            return (start_of(op + 1), op);
        }
        let mut trimmed = self.base;
        while trimmed < op && head - start_of(trimmed + 1) > used_max {
            trimmed += 1;
        }
        (start_of(trimmed + 1), trimmed)
    }

    /// The checkpoint that allows it is durable.
    pub(super) fn trim(&mut self, position: u64, op: Op) {
        self.journal.trim(position.min(self.journal.durable()));
        while self.base < op && self.locations.pop_front().is_some() {
            self.base += 1;
        }
    }
}
