//! The protocol's log on the journal: which operation lies where, what is on its way to the disk,
//! what is being read back.
//!
//! Appends go to the journal in order; a lower operation than the last one replaces the log from
//! there on, and the journal simply holds both (the later frame wins when the log is read again).
//! Durable points come back as operations with their checksums, so that a replaced entry is never
//! taken for its replacement. A prepare that is *restored*, in place of a damaged entry, is a frame
//! like any other, with a mark in its tag: it replaces nothing but that entry.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use stampede_journal::{AppendError, Journal, Location, PayloadCheck};
use zerocopy::FromBytes;

use super::io::{Fatal, Output};
use super::scan::Strays;
use crate::limits::{
    HEADER_SIZE, HEADROOM_SIZE, MESSAGE_SIZE_MAX, READS_MAX, REPLAY_WINDOW, SECTOR_SIZE,
    checkpoint_bytes,
};
use crate::message::{Claim, Command, Header, Message, MessageMut, Op, Pool};
use crate::mutant::Mutant;
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

/// In a frame's tag, which is otherwise the operation: it was restored.
const RESTORED: u64 = 1 << 63;

/// Whether a frame with this tag stands in for a damaged one.
pub(crate) fn is_restored(tag: u64) -> bool {
    tag & RESTORED != 0
}

/// The operation that a frame with this tag holds.
pub(crate) fn op_of_tag(tag: u64) -> Op {
    tag & !RESTORED
}

#[derive(Debug)]
struct Reading {
    op: Op,
    purpose: Purpose,
    location: Location,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Protocol(ReadFor),
    /// Of a frame that the log had not named: as if somebody had sent it.
    Stray,
}

#[derive(Debug)]
struct Appending {
    end: u64,
    op: Op,
    checksum: u128,
    restored: bool,
}

/// What has become durable.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// The newest operation that was appended and that is still in force, and its prepare's checksum.
    pub newest: Option<(Op, u128)>,
    /// Those that were restored. Allocates only when a disk is being mended.
    pub restored: Vec<Op>,
}

/// What a checkpoint leaves of the journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// Position from which a restart reads. What lies before it is only for others, who can do without
    /// while this replica lives: reading it at a start would take several times as long.
    pub restart: u64,
    /// Position from which on the journal stays as it is.
    pub position: u64,
    /// The last operation given up.
    pub trimmed: Op,
}

/// Why a read gave nothing.
#[derive(Debug)]
pub(super) enum ReadFailed {
    /// The entry was replaced or trimmed meanwhile.
    Replaced,
    /// The disk has damaged the entry.
    Damaged { op: Op, error: String },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Entries {
    journal: Journal,
    segment_size: u64,
    /// Where the entries after `base` lie.
    base: Op,
    locations: VecDeque<Option<Location>>,
    /// On their way to the disk, in order.
    appending: VecDeque<Appending>,
    /// Waiting because too much is in flight, in order. At most a pipeline.
    waiting: VecDeque<(Message, bool)>,
    waiting_bytes: u64,
    reads: BTreeMap<u64, Reading>,
    read_token: u64,
    /// Reads for execution that wait for a buffer. Bounded by the protocol's window.
    reads_waiting: VecDeque<Op>,
    /// Found by the scan and taken for nothing; at most one for each frame of the journal.
    strays: Strays,
}

impl Entries {
    pub(super) fn new(
        journal: Journal,
        segment_size: u64,
        base: Op,
        locations: VecDeque<Option<Location>>,
        strays: Strays,
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
            strays,
        }
    }

    /// Whether frames are known that the log has not named.
    pub(super) fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }

    /// The log names an entry that it does not have: reads it if there was a frame of it after all.
    pub(super) fn recall(
        &mut self,
        op: Op,
        checksum: u128,
        pool: &Pool,
        outputs: &mut Vec<Output>,
    ) {
        if let Some(location) = self.strays.get(&(op, checksum)).copied()
            && self.read_at(op, location, Purpose::Stray, pool, outputs)
        {
            self.strays.remove(&(op, checksum));
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
        self.locations.get(usize::try_from(index).ok()?).copied()?
    }

    pub(super) fn append(
        &mut self,
        message: Message,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Fatal> {
        self.take(message, false, outputs)
    }

    /// Appends a prepare once more, in place of its damaged entry.
    pub(super) fn restore(
        &mut self,
        message: Message,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Fatal> {
        self.take(message, true, outputs)
    }

    fn take(
        &mut self,
        message: Message,
        restored: bool,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Fatal> {
        if !self.waiting.is_empty() {
            self.wait(message, restored);
            return Ok(());
        }
        self.append_now(message, restored, outputs)
    }

    fn wait(&mut self, message: Message, restored: bool) {
        self.waiting_bytes += u64::from(message.header().size) + 2 * SECTOR_SIZE as u64;
        self.waiting.push_back((message, restored));
    }

    fn append_now(
        &mut self,
        message: Message,
        restored: bool,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Fatal> {
        let header = *message.header();
        let size = header.size as usize;
        if self.journal.accepts(size) == Err(AppendError::InflightLimit) {
            self.wait(message, restored);
            return Ok(());
        }
        // What was trimmed, or cut off by a view change, while it waited need not be restored.
        let Some(index) = header.op.checked_sub(self.base + 1) else {
            return Ok(());
        };
        let index = usize::try_from(index).expect("in memory");
        let marked = restored && !Mutant::RestoredCutsOff.is_on();
        let tag = header.op | if marked { RESTORED } else { 0 };
        let appended = self.journal.append(tag, size, header.checksum, message);
        let (location, write) = appended.map_err(|error| Fatal::Journal(error.to_string()))?;
        if restored {
            if let Some(place) = self.locations.get_mut(index) {
                *place = Some(location);
            }
        } else {
            assert!(index <= self.locations.len(), "the log has no gaps");
            self.locations.truncate(index);
            self.locations.push_back(Some(location));
        }
        self.appending.push_back(Appending {
            end: location.position + u64::from(location.size),
            op: header.op,
            checksum: header.checksum,
            restored,
        });
        outputs.push(Output::JournalWrite(write));
        Ok(())
    }

    /// A write is over. Gives what is durable with all before it, as far as that has changed.
    pub(super) fn on_written(
        &mut self,
        token: u64,
        result: io::Result<usize>,
        in_force: impl Fn(Op, u128) -> bool,
        outputs: &mut Vec<Output>,
    ) -> Result<Written, Fatal> {
        self.journal
            .on_written(token, result)
            .map_err(|fault| Fatal::Journal(fault.to_string()))?;
        let mut written = Written::default();
        let durable = self.journal.durable();
        while self.appending.front().is_some_and(|a| a.end <= durable) {
            let Some(done) = self.appending.pop_front() else {
                break;
            };
            if done.restored {
                written.restored.push(done.op);
            } else if in_force(done.op, done.checksum) {
                written.newest = Some((done.op, done.checksum));
            }
        }
        while let Some((message, _)) = self.waiting.front() {
            let size = message.header().size;
            if self.journal.accepts(size as usize) == Err(AppendError::InflightLimit) {
                break;
            }
            let Some((message, restored)) = self.waiting.pop_front() else {
                break;
            };
            self.waiting_bytes -= u64::from(size) + 2 * SECTOR_SIZE as u64;
            self.append_now(message, restored, outputs)?;
        }
        Ok(written)
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
            // One that turned out to be damaged is fetched from others, and asked for again.
            if self.location(op).is_some() && !self.start_read(op, ReadFor::Execute, pool, outputs)
            {
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
        let Some(location) = self.location(op) else {
            return false;
        };
        self.read_at(op, location, Purpose::Protocol(purpose), pool, outputs)
    }

    fn read_at(
        &mut self,
        op: Op,
        location: Location,
        purpose: Purpose,
        pool: &Pool,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let is_urgent = purpose == Purpose::Protocol(ReadFor::Execute);
        let limit = if is_urgent {
            READS_MAX
        } else {
            READS_MAX - REPLAY_WINDOW
        };
        if self.reads.len() >= limit {
            return false;
        }
        let Some(extent) = self.journal.locate(location) else {
            return false;
        };
        let body_size =
            (extent.len - HEADROOM_SIZE - HEADER_SIZE).min(crate::limits::BODY_SIZE_MAX);
        if !is_urgent && !pool.has_room(body_size, Claim::Behind) {
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
    ) -> Result<Event, ReadFailed> {
        let Reading {
            op,
            purpose,
            location,
        } = self.reads.remove(&token).expect("a read was in flight");
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
        let purpose = match (purpose, &problem) {
            (Purpose::Protocol(purpose), _) => purpose,
            (Purpose::Stray, None) => return Ok(Event::Message(message.freeze())),
            (Purpose::Stray, Some(_)) => return Err(ReadFailed::Replaced),
        };
        // Replaced or trimmed while it was read: of no use to anybody.
        if self.location(op) != Some(location) {
            return Err(ReadFailed::Replaced);
        }
        match problem {
            None => Ok(Event::Read {
                op,
                purpose,
                message: Some(message.freeze()),
            }),
            Some(error) => {
                let index = usize::try_from(op - self.base - 1).expect("it has a location");
                self.locations[index] = None;
                Err(ReadFailed::Damaged { op, error })
            }
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

    /// What of the journal is needed when the checkpoint of `op` is durable: for a restart, what comes
    /// after it. Replicas that were away are served from what is kept besides, so all is but what the
    /// next two checkpoints fill, unless nobody else is there.
    pub(super) fn keep(&self, op: Op, alone: bool) -> Kept {
        let share = checkpoint_bytes(self.journal.capacity());
        let used_max = self
            .journal
            .capacity()
            .saturating_sub(self.reserve(2 * share));
        let head = self.journal.head();
        // Entries that were restored lie behind those that follow them: what an entry needs kept is
        // the lowest position from it on.
        let mut lowest = head;
        let mut starts: Vec<u64> = Vec::with_capacity(self.locations.len() + 1);
        starts.push(head);
        for location in self.locations.iter().rev() {
            lowest = location.map_or(lowest, |l| l.position.min(lowest));
            starts.push(lowest);
        }
        starts.reverse();
        let start_of = |op: Op| {
            let index = usize::try_from(op - self.base - 1).expect("entries are in memory");
            starts.get(index).copied().unwrap_or(head)
        };
        let restart = start_of(op + 1 + u64::from(Mutant::StartsTooLate.is_on()));
        let mut trimmed = if alone { op } else { self.base };
        while trimmed < op && head - start_of(trimmed + 1) > used_max {
            trimmed += 1;
        }
        Kept {
            restart,
            position: start_of(trimmed + 1),
            trimmed,
        }
    }

    /// Whether everything before this position of the journal is durable.
    pub(super) fn is_durable(&self, position: u64) -> bool {
        self.journal.durable() >= position
    }

    /// Where the journal ends, if everything in it is durable.
    pub(super) fn end(&self) -> Option<u64> {
        let idle = self.appending.is_empty() && self.waiting.is_empty();
        (idle && self.journal.durable() == self.journal.head()).then(|| self.journal.head())
    }

    /// The checkpoint that allows it is durable.
    pub(super) fn trim(&mut self, position: u64, op: Op) {
        self.journal.trim(position.min(self.journal.durable()));
        while self.base < op && self.locations.pop_front().is_some() {
            self.base += 1;
        }
    }
}
