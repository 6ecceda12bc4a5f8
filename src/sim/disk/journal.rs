//! The journal's disk: segments in memory, and a map of which entry lies where.
//!
//! ```text
//!   submit ──► in flight ──► complete: on the disk          damage ──► bits, sectors, whole frames
//!                  │
//!                crash: each sector of it is on the disk, or is not
//! ```
//!
//! The map is made of what the replica wrote, not of what it believes: a frame is *good* as long as
//! the very bytes that were written can be read. Three kinds of damage leave a frame that is not:
//! - bits that turn over, anywhere in it, and sectors that cannot be read;
//! - a write that was reported done and never was: what lay there before lies there again;
//! - a write that went astray: what should be in one place lies in another, over a third frame.
//!
//! The last two are done to frames afterwards. Reads before that saw what was meant to be there, as
//! reads from a drive's cache do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use stampede_journal::device::memory::MemoryDevice;
use stampede_journal::device::{Completion, Device, ReadAt, WriteAt};
use stampede_journal::{Config, FrameBuffer, WriteOp};

use super::super::random::{MILLION, Random};
use crate::limits::SECTOR_SIZE;
use crate::message::{Message, Op, checksum};
use crate::replica::open::is_restored;

/// An entry's place on the disk; markers have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub op: Op,
    /// Of the prepare, and of the one before it.
    pub prepare: u128,
    parent: u128,
    /// It stands in for a damaged one, and cuts nothing off.
    restored: bool,
    /// Address in the log.
    pub position: u64,
    pub size: usize,
    /// Of all bytes as they were written.
    bytes: u128,
    /// The write is over, and no write before it was under way when the power went, or had failed: then a
    /// start may find that it was torn off, whatever the disk has of it.
    kept: bool,
}

/// A write on its way.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    position: u64,
    size: usize,
    /// How far it says that the log is durable.
    durable: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct JournalDisk {
    device: MemoryDevice<Message>,
    segment_size: u64,
    segment_count: u64,
    /// By position.
    frames: BTreeMap<u64, Frame>,
    /// By token.
    in_flight: BTreeMap<u64, InFlight>,
    /// The first write since the start that did not end whole: the next start finds a hole there, and what
    /// lies behind it is torn off, in whatever order the writes ended.
    broken: u64,
    /// Some frame on the disk says that everything before this was durable.
    proven: u64,
    /// Positions of frames that were damaged.
    damaged: BTreeSet<u64>,
}

impl JournalDisk {
    /// Segments as `format` makes them.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            device: MemoryDevice::new(config),
            segment_size: config.segment_size,
            segment_count: u64::from(config.segment_count),
            frames: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            broken: u64::MAX,
            proven: 0,
            damaged: BTreeSet::new(),
        }
    }

    /// Starts a write.
    pub(crate) fn submit(&mut self, write: WriteOp<Message>) {
        let header = FrameHeader::of(&write);
        let in_flight = InFlight {
            position: header.position,
            size: write.len,
            durable: header.durable,
        };
        self.in_flight.insert(write.token, in_flight);
        // What was cut off by a start goes, and what this write's segment held a lap ago.
        while let Some(last) = self
            .frames
            .last_entry()
            .filter(|f| *f.key() >= header.position)
        {
            last.remove();
        }
        while self.damaged.last() >= Some(&header.position) {
            self.damaged.pop_last();
        }
        let lap = self.segment_size * self.segment_count;
        let end = header.position + write.len as u64;
        let lost = end.saturating_sub(lap + 1);
        while let Some(first) = self.frames.first_entry().filter(|f| *f.key() < lost) {
            first.remove();
        }
        if header.is_entry {
            let prepare = write.buffer.header();
            let frame = Frame {
                op: prepare.op,
                prepare: prepare.checksum,
                parent: prepare.parent,
                restored: is_restored(header.tag),
                position: header.position,
                size: write.len,
                bytes: checksum(frame_bytes(&write)),
                kept: false,
            };
            self.frames.insert(header.position, frame);
        }
        self.device
            .submit(write)
            .expect("the device takes any number of writes");
    }

    /// Ends a write, in whatever way it was made to.
    pub(crate) fn complete(&mut self, token: u64) -> Completion<Message> {
        let write = self.in_flight.remove(&token).expect("it was started");
        let completion = self.device.complete(token);
        let whole = matches!(&completion.result, Ok(size) if *size == write.size);
        if whole {
            self.proven = self.proven.max(write.durable);
        } else {
            self.broken = self.broken.min(write.position);
        }
        if let Some(frame) = self.frames.get_mut(&write.position) {
            frame.kept = whole;
        }
        completion
    }

    /// The power goes: of each sector in flight, chance decides.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        self.device.crash(|_| random.chance(MILLION / 2));
        self.tear(self.first_torn());
        self.in_flight.clear();
    }

    /// The next start comes without what lies behind this.
    fn tear(&mut self, torn: u64) {
        for (_, frame) in self.frames.range_mut(torn..) {
            frame.kept = false;
        }
        self.broken = u64::MAX;
    }

    /// Everything in flight is written, as it is when a process ends in order.
    pub(crate) fn finish(&mut self) {
        self.device.crash(|_| true);
        for write in std::mem::take(&mut self.in_flight).into_values() {
            self.proven = self.proven.max(write.durable);
            if let Some(frame) = self.frames.get_mut(&write.position) {
                frame.kept = true;
            }
        }
        self.tear(self.broken);
    }

    /// The same, on another disk; to be made while nothing is in flight.
    pub(crate) fn copy(&self) -> Self {
        assert!(self.in_flight.is_empty());
        Self {
            device: self.device.copy(),
            frames: self.frames.clone(),
            damaged: self.damaged.clone(),
            in_flight: BTreeMap::new(),
            ..*self
        }
    }

    /// A write in flight will fail.
    pub(crate) fn fail(&mut self, token: u64) {
        self.device.fail(token, libc::EIO);
    }

    /// A write in flight will be there and be reported as failed.
    pub(crate) fn fail_sync(&mut self, token: u64) {
        self.device.fail_sync(token, libc::EIO);
    }

    /// A write in flight will end after some sectors, or none.
    pub(crate) fn shorten(&mut self, token: u64, size: usize, random: &mut Random) {
        let sectors = random.index(size / SECTOR_SIZE);
        self.device.shorten(token, sectors * SECTOR_SIZE);
    }

    /// From here on a crash may tear off whatever the disk has.
    fn first_torn(&self) -> u64 {
        let positions = self.in_flight.values().map(|write| write.position);
        positions.min().unwrap_or(u64::MAX).min(self.broken)
    }

    /// Whether what was written can be read, now and after a crash.
    pub(crate) fn is_good(&self, frame: &Frame) -> bool {
        let mut bytes = vec![0; frame.size];
        let (file, offset) = self.place(frame.position);
        frame.kept
            && frame.position < self.first_torn()
            && self.device.read(file, offset, &mut bytes).is_ok()
            && checksum(&bytes) == frame.bytes
    }

    /// Whether a log that begins at `start` has this entry, in a good frame. A frame that is followed by
    /// one of the same or a lower operation is of no use: the log had been cut below it.
    pub(crate) fn holds(&self, op: Op, prepare: u128, start: u64) -> bool {
        let mut cut = Op::MAX;
        for (_, frame) in self.frames.range(start..).rev() {
            if frame.op == op && frame.prepare == prepare && op < cut && self.is_good(frame) {
                return true;
            }
            if !frame.restored {
                cut = cut.min(frame.op);
            }
        }
        false
    }

    /// Whether the frames on both sides are good, and the later one continues this one: then the log
    /// knows what this one was, whatever happens to it. (A restored frame says nothing of what came
    /// right before it.)
    pub(crate) fn is_bridged(&self, frame: &Frame) -> bool {
        let before = self.frames.range(..frame.position).next_back();
        let after = self.frames.range(frame.position + 1..).next();
        before.is_some_and(|(_, before)| self.is_good(before))
            && after.is_some_and(|(_, after)| {
                !after.restored && after.parent == frame.prepare && self.is_good(after)
            })
    }

    /// Frames that were damaged, as far as a log that begins at `start` goes.
    pub(crate) fn damaged_frames(&self, start: u64) -> impl Iterator<Item = &Frame> {
        self.damaged
            .range(start..)
            .filter_map(|position| self.frames.get(position))
            .filter(|frame| !self.is_good(frame))
    }

    /// Frames that no crash can have torn: some frame behind says that they were durable.
    pub(crate) fn proven_frames(&self, start: u64) -> impl Iterator<Item = &Frame> {
        let proven = move |frame: &&Frame| frame.position + frame.size as u64 <= self.proven;
        self.frames.range(start..).map(|(_, f)| f).filter(proven)
    }

    // ── damage ──────────────────────────────────────────────────────────────────────────────

    /// One bit of a frame turns over; where, chance decides, and headers are as likely as the rest.
    pub(crate) fn rot(&mut self, frame: &Frame, random: &mut Random) {
        let size = if random.chance(MILLION / 2) {
            512
        } else {
            frame.size as u64
        };
        let (file, offset) = self.place(frame.position);
        let bit = u8::try_from(random.below(8)).expect("below eight");
        self.device.flip(file, offset + random.below(size), bit);
        self.damaged.insert(frame.position);
    }

    /// A sector of a frame cannot be read any more.
    pub(crate) fn spoil(&mut self, frame: &Frame, random: &mut Random) {
        let sector = random.index(frame.size / SECTOR_SIZE) * SECTOR_SIZE;
        let (file, offset) = self.place(frame.position);
        self.device.make_unreadable(file, offset + sector as u64);
        self.damaged.insert(frame.position);
    }

    /// A frame's write was reported done and never was: zeros lie there, or what another lap left.
    pub(crate) fn unwrite(&mut self, frame: &Frame, random: &mut Random) {
        let stale = random.chance(MILLION / 2).then(|| {
            let frames: Vec<&Frame> = self
                .frames
                .range(..frame.position)
                .map(|(_, f)| f)
                .collect();
            frames.get(random.index(frames.len().max(1))).map(|f| **f)
        });
        match stale.flatten() {
            Some(other) => self.overwrite(frame, &other),
            None => self.put(frame.position, &vec![0; frame.size]),
        }
    }

    /// What was meant for one frame's place lies over another's.
    pub(crate) fn overwrite(&mut self, victim: &Frame, with: &Frame) {
        let (file, offset) = self.place(with.position);
        let mut bytes = vec![0; with.size.min(victim.size)];
        if self.device.read(file, offset, &mut bytes).is_ok() {
            self.put(victim.position, &bytes);
        }
    }

    fn put(&mut self, position: u64, bytes: &[u8]) {
        let (file, offset) = self.place(position);
        self.device
            .write_at(file, offset, bytes)
            .expect("frames lie inside their files");
        self.damaged.insert(position);
    }

    /// File and offset of a log address.
    fn place(&self, position: u64) -> (u32, u64) {
        let file = position / self.segment_size % self.segment_count;
        let file = u32::try_from(file).expect("below a segment count");
        (file, position % self.segment_size)
    }
}

impl ReadAt for JournalDisk {
    fn read_at(&mut self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.device.read_at(file, offset, bytes)
    }
}

impl WriteAt for JournalDisk {
    fn write_at(&mut self, file: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.device.write_at(file, offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        WriteAt::sync(&mut self.device)
    }
}

/// What the map needs of a frame's header; `docs/disk-format.md` has all of it.
struct FrameHeader {
    is_entry: bool,
    position: u64,
    durable: u64,
    tag: u64,
}

impl FrameHeader {
    fn of(write: &WriteOp<Message>) -> Self {
        let bytes = frame_bytes(write);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        Self {
            is_entry: bytes[26] == 1,
            position: word(48),
            durable: word(80),
            tag: word(112),
        }
    }
}

fn frame_bytes(write: &WriteOp<Message>) -> &[u8] {
    assert!(write.buffer.capacity() >= write.len);
    // SAFETY: the contract of FrameBuffer makes `capacity` bytes valid and initialised, and nobody
    // changes the frame while its write is in flight; the slice borrows the write.
    unsafe { std::slice::from_raw_parts(write.buffer.as_mut_ptr(), write.len) }
}

#[cfg(test)]
mod tests {
    use stampede_journal::{Journal, Xxh3};

    use super::super::super::random::Stream;
    use super::*;
    use crate::message::{Command, Header, Pool, PoolConfig};
    use crate::replica::open::journal_config;
    use crate::replica::superblock::{Identity, State};

    const CLUSTER: u128 = 5;

    /// A blank disk with three entries on their way: their checksums.
    fn three_in_flight() -> (JournalDisk, [u128; 3]) {
        let state = State::format(&Identity {
            cluster: CLUSTER,
            replica: 0,
            replica_count: 3,
            standby_count: 0,
            sessions_max: 4,
            segment_size: 4 << 20,
            segment_count: 8,
            recovering: false,
            journal_id: 9,
        });
        let config = journal_config(&state);
        let mut disk = JournalDisk::new(&config);
        let opened = Journal::open(config, &mut disk, &Xxh3, None, |_| {});
        let (mut journal, _) = opened.unwrap();
        let pool = PoolConfig {
            small: 4,
            medium: 0,
            large: 0,
            huge_pages: false,
        };
        let pool = Pool::new(&pool).unwrap();
        let checksums = [1, 2, 3].map(|op| {
            let mut message = pool.acquire(0).unwrap();
            let mut header = Header::new(Command::Prepare, CLUSTER, 0, 0);
            header.op = op;
            message.fill(header, &[]);
            let message = message.freeze();
            let header = *message.header();
            let size = header.size as usize;
            let appended = journal.append(op, size, header.checksum, message);
            disk.submit(appended.unwrap().1);
            header.checksum
        });
        (disk, checksums)
    }

    fn held(disk: &JournalDisk, checksums: [u128; 3]) -> [bool; 3] {
        let ops = [1, 2, 3];
        ops.map(|op| disk.holds(op, checksums[usize::try_from(op).unwrap() - 1], 0))
    }

    fn token(disk: &JournalDisk, number: usize) -> u64 {
        *disk.in_flight.keys().nth(number).unwrap()
    }

    #[test]
    fn what_is_written_behind_a_write_that_failed_is_torn_off() {
        for ends_in_order in [false, true] {
            let mut random = Random::new(5, Stream::Disks, 0);
            let (mut disk, checksums) = three_in_flight();
            let [first, second, third] = [0, 1, 2].map(|number| token(&disk, number));
            disk.complete(third);
            disk.complete(second);
            assert_eq!(held(&disk, checksums), [false; 3]);
            let size = disk.in_flight[&first].size;
            disk.shorten(first, size, &mut random);
            disk.complete(first);
            assert_eq!(held(&disk, checksums), [false; 3]);
            if ends_in_order {
                disk.finish();
            } else {
                disk.crash(&mut random);
            }
            assert_eq!(held(&disk, checksums), [false; 3]);
        }
    }

    #[test]
    fn what_is_written_in_front_of_one_that_is_under_way_stays() {
        let mut random = Random::new(5, Stream::Disks, 0);
        let (mut disk, checksums) = three_in_flight();
        let [first, third] = [0, 2].map(|number| token(&disk, number));
        disk.complete(first);
        disk.complete(third);
        assert_eq!(held(&disk, checksums), [true, false, false]);
        disk.crash(&mut random);
        assert_eq!(held(&disk, checksums), [true, false, false]);
    }
}
