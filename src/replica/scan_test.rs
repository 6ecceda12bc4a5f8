//! Journals on a device in memory, damaged in every way that changes what the log is.

use stampede_journal::Journal;
use stampede_journal::device::Device;
use stampede_journal::device::memory::MemoryDevice;

use super::open::journal_config;
use super::scan::{Scan, Scanned, Strays};
use super::storage::{Entries, PrepareCheck};
use super::superblock::{Identity, State};
use crate::message::{Command, Header, Message, Op, Pool, PoolConfig, View};
use crate::vsr::root_checksum;

const CLUSTER: u128 = 3;

struct Disk {
    state: State,
    device: MemoryDevice<Message>,
    entries: Entries,
    pool: Pool,
    /// Checksums of what was appended last at each op, from op 0.
    chain: Vec<u128>,
    /// Where each frame went, in order.
    places: Vec<(u32, u64)>,
    frames: Vec<Message>,
    /// What the frames to come know to be committed.
    commit: Op,
}

impl Disk {
    fn new() -> Self {
        let state = State::format(&Identity {
            cluster: CLUSTER,
            replica: 1,
            replica_count: 3,
            standby_count: 0,
            sessions_max: 4,
            segment_size: 1 << 20,
            segment_count: 8,
            recovering: false,
            journal_id: 9,
        });
        let config = journal_config(&state);
        let mut device = MemoryDevice::new(&config);
        let (journal, _) =
            Journal::open(config, &mut device, &PrepareCheck, None, |_| {}).expect("it is blank");
        let pool = PoolConfig {
            small: 256,
            medium: 0,
            large: 0,
            huge_pages: false,
        };
        Self {
            state,
            device,
            entries: Entries::new(
                journal,
                state.segment_size,
                0,
                Default::default(),
                Strays::new(),
            ),
            pool: Pool::new(&pool).unwrap(),
            chain: vec![root_checksum(CLUSTER)],
            places: Vec::new(),
            frames: Vec::new(),
            commit: 0,
        }
    }

    fn prepare(&self, op: Op, view: View) -> Message {
        let mut header = Header::new(Command::Prepare, CLUSTER, 0, view);
        header.op = op;
        header.parent = self.chain[usize::try_from(op - 1).unwrap()];
        header.commit = self.commit.min(op - 1);
        let mut message = self.pool.acquire(0).unwrap();
        message.fill(header, &[]);
        message.freeze()
    }

    fn write(&mut self, message: Message, restored: bool) {
        let mut outputs = Vec::new();
        self.frames.push(message.clone());
        if restored {
            self.entries.restore(message, &mut outputs).unwrap();
        } else {
            self.entries.append(message, &mut outputs).unwrap();
        }
        for output in std::mem::take(&mut outputs) {
            let super::io::Output::JournalWrite(write) = output else {
                panic!("only writes");
            };
            self.places.push((write.file, write.offset));
            let token = write.token;
            self.device.submit(write).unwrap();
            let done = self.device.complete(token);
            self.entries
                .on_written(token, done.result, |_, _| true, &mut outputs)
                .unwrap();
        }
    }

    fn append(&mut self, op: Op, view: View) {
        let message = self.prepare(op, view);
        self.chain.truncate(usize::try_from(op).unwrap());
        self.chain.push(message.header().checksum);
        self.write(message, false);
    }

    /// Entries 1 to `last` of view 0.
    fn fill(last: Op) -> Self {
        Self::fill_committed(last, 0)
    }

    /// The same, and that is how far they are committed.
    fn fill_committed(last: Op, commit: Op) -> Self {
        let mut disk = Self::new();
        disk.commit = commit;
        for op in 1..=last {
            disk.append(op, 0);
        }
        disk
    }

    /// Damages the frame that was written as the n-th, from 0.
    fn damage(&mut self, frame: usize) {
        let (file, offset) = self.places[frame];
        self.device.flip(file, offset + 300, 3);
    }

    /// Damages a frame so that not even its own header is left.
    fn erase(&mut self, frame: usize) {
        let (file, offset) = self.places[frame];
        self.device.flip(file, offset + 40, 3);
    }

    fn scan(&mut self) -> Scanned {
        // An idle journal says how far it is durable.
        let mut outputs = Vec::new();
        if self.entries.marker_due() {
            let buffer = self.pool.acquire(0).unwrap().freeze();
            self.entries.marker(buffer, &mut outputs);
        }
        for output in outputs {
            let super::io::Output::JournalWrite(write) = output else {
                panic!("only writes");
            };
            let token = write.token;
            self.device.submit(write).unwrap();
            self.device.complete(token);
        }
        let mut scan = Scan::default();
        let config = journal_config(&self.state);
        let start = Some(self.state.journal_start);
        let opened = Journal::open(config, &mut self.device, &PrepareCheck, start, |frame| {
            scan.visit(&frame);
        });
        let (_, recovery) = opened.unwrap();
        scan.finish(&self.state, &recovery).unwrap()
    }

    fn assert_chain(&self, scanned: &Scanned) {
        self.assert_chain_from(0, scanned);
    }

    fn assert_after_checkpoint(&self, scanned: &Scanned) {
        self.assert_chain_from(self.state.checkpoint_op, scanned);
    }

    fn assert_chain_from(&self, first: Op, scanned: &Scanned) {
        for op in first..=scanned.log.head() {
            let known = scanned.log.checksum(op);
            let expected = self.chain[usize::try_from(op).unwrap()];
            assert!(known.is_none_or(|known| known == expected), "op {op}");
            assert!(known.is_some() || scanned.log.is_missing(op), "op {op}");
        }
    }
}

fn missing(scanned: &Scanned) -> Vec<Op> {
    scanned.log.missing().collect()
}

#[test]
fn a_whole_journal_is_a_whole_log() {
    let mut disk = Disk::fill(20);
    let scanned = disk.scan();
    assert_eq!((scanned.log.head(), missing(&scanned)), (20, vec![]));
    assert_eq!(scanned.unsure_from, None);
    disk.assert_chain(&scanned);
}

#[test]
fn damaged_frames_are_missing_and_known_by_what_follows() {
    for frame in 0..19 {
        for erased in [false, true] {
            let mut disk = Disk::fill(20);
            if erased {
                disk.erase(frame);
            } else {
                disk.damage(frame);
            }
            let scanned = disk.scan();
            let op = frame as Op + 1;
            assert_eq!((scanned.log.head(), missing(&scanned)), (20, vec![op]));
            assert_eq!(scanned.log.checksum(op), Some(disk.chain[frame + 1]));
            assert_eq!(scanned.unsure_from, None);
            disk.assert_chain(&scanned);
        }
    }
}

#[test]
fn several_in_a_row_are_counted() {
    let mut disk = Disk::fill(20);
    for frame in [4, 5, 6, 11] {
        disk.erase(frame);
    }
    let scanned = disk.scan();
    assert_eq!(missing(&scanned), [5, 6, 7, 12]);
    assert_eq!(scanned.log.checksum(5), None);
    assert_eq!(scanned.unsure_from, None);
    disk.assert_chain(&scanned);
}

#[test]
fn a_lost_end_makes_what_is_not_committed_unsure() {
    for damaged in [1, 3] {
        let mut disk = Disk::fill_committed(20, 12);
        disk.state.commit = 12;
        for frame in 20 - damaged..20 {
            disk.erase(frame);
        }
        let scanned = disk.scan();
        assert_eq!(scanned.log.head(), 20 - damaged as Op);
        assert_eq!(scanned.unsure_from, Some(13));
    }
}

#[test]
fn restored_frames_take_the_place_of_damaged_ones() {
    let mut disk = Disk::fill(20);
    for frame in [4, 5, 11] {
        disk.erase(frame);
    }
    for frame in [5, 4, 11] {
        let message = disk.frames[frame].clone();
        disk.write(message, true);
    }
    disk.append(21, 0);
    let scanned = disk.scan();
    assert_eq!((scanned.log.head(), missing(&scanned)), (21, vec![]));
    disk.assert_chain(&scanned);
    assert!(scanned.locations.iter().all(Option::is_some));
    // The position to keep from is that of the lowest frame still needed, not of the first entry's.
    let fifth = scanned.locations[4].unwrap().position;
    assert!(fifth > scanned.locations[19].unwrap().position);
}

#[test]
fn damage_to_what_a_view_change_had_replaced_costs_nothing() {
    // 1..20 of view 0; view 1 begins at 17 and goes on with other entries.
    let mut disk = Disk::fill(20);
    for op in 18..=24 {
        disk.append(op, 1);
    }
    (disk.state.view, disk.state.log_view, disk.state.log_view_op) = (1, 1, 17);
    for frame in [18, 19] {
        disk.erase(frame);
    }
    let scanned = disk.scan();
    assert_eq!((scanned.log.head(), missing(&scanned)), (24, vec![]));
    disk.assert_chain(&scanned);
}

#[test]
fn damage_to_what_replaced_others_trusts_nothing_uncommitted_before_it() {
    let mut disk = Disk::fill_committed(20, 15);
    for op in 18..=24 {
        disk.append(op, 1);
    }
    (disk.state.view, disk.state.log_view, disk.state.log_view_op) = (1, 1, 17);
    disk.state.commit = 15;
    // 18, 19, 20 of view 1 are lost; what view 0 had there is still on the disk.
    for frame in [20, 21, 22] {
        disk.erase(frame);
    }
    let scanned = disk.scan();
    assert_eq!(scanned.log.head(), 24);
    assert_eq!(missing(&scanned), [16, 17, 18, 19, 20]);
    disk.assert_chain(&scanned);
}

#[test]
fn a_lost_beginning_is_missing_from_the_checkpoint_on() {
    let mut disk = Disk::fill(20);
    for frame in [0, 1, 2] {
        disk.erase(frame);
    }
    let scanned = disk.scan();
    assert_eq!((scanned.log.base(), missing(&scanned)), (0, vec![1, 2, 3]));
    // Up to a checkpoint nobody needs them.
    disk.state.checkpoint_op = 5;
    disk.state.checkpoint_checksum = disk.chain[5];
    let scanned = disk.scan();
    assert_eq!((scanned.log.base(), missing(&scanned)), (3, vec![]));
}

#[test]
fn what_the_log_was_once_is_known_whatever_is_damaged_below() {
    let mut disk = Disk::fill_committed(20, 12);
    (disk.state.sound_op, disk.state.sound_checksum) = (20, disk.chain[20]);
    disk.state.sound_position = disk.entries.end().expect("all is written");
    disk.state.commit = 12;
    for frame in [17, 18, 19] {
        disk.erase(frame);
    }
    let scanned = disk.scan();
    assert_eq!((scanned.log.head(), scanned.unsure_from), (20, None));
    assert_eq!(
        missing(&scanned)[missing(&scanned).len() - 3..],
        [18, 19, 20]
    );
    assert_eq!(scanned.log.checksum(20), Some(disk.chain[20]));
    disk.assert_chain(&scanned);
}

#[test]
fn what_lies_before_a_counted_loss_is_trusted() {
    let mut disk = Disk::fill_committed(20, 12);
    (disk.state.sound_op, disk.state.sound_checksum) = (18, disk.chain[18]);
    disk.state.sound_position = disk.scan().locations[18].unwrap().position;
    disk.state.commit = 12;
    for frame in [16, 17] {
        disk.erase(frame);
    }
    let scanned = disk.scan();
    assert_eq!((scanned.log.head(), scanned.unsure_from), (20, None));
    assert_eq!(missing(&scanned), [17, 18]);
    disk.assert_chain(&scanned);
}

#[test]
fn an_end_that_is_gone_without_a_trace_is_missing_all_the_same() {
    let mut disk = Disk::fill_committed(20, 18);
    let end = disk.entries.end().expect("all is written");
    (disk.state.sound_op, disk.state.sound_checksum) = (21, 777);
    disk.state.sound_position = end + 8192;
    disk.state.commit = 18;
    let scanned = disk.scan();
    assert_eq!(
        (scanned.log.head(), missing(&scanned)),
        (21, vec![19, 20, 21])
    );
    assert_eq!(scanned.log.checksum(21), Some(777));
    // Also after another restart, which has written on from there.
    disk.state.sound_position = end;
    let scanned = disk.scan();
    assert_eq!(
        (scanned.log.head(), missing(&scanned)),
        (21, vec![19, 20, 21])
    );
}

#[test]
fn damage_to_a_stand_in_puts_nothing_else_in_doubt() {
    let mut disk = Disk::fill(20);
    disk.erase(4);
    let message = disk.frames[4].clone();
    disk.write(message, true);
    disk.damage(20);
    let scanned = disk.scan();
    assert_eq!((scanned.log.head(), missing(&scanned)), (20, vec![5]));
    assert_eq!(scanned.unsure_from, None);
}

#[test]
fn an_entry_that_was_not_trusted_is_there_once_the_chain_names_it() {
    let mut disk = Disk::fill(3);
    let sound = disk.scan().locations[2].unwrap().position;
    (disk.state.sound_op, disk.state.sound_position) = (3, sound + 1);
    disk.state.sound_checksum = disk.chain[3];
    for frame in [0, 2] {
        disk.erase(frame);
    }
    let message = disk.frames[2].clone();
    disk.write(message, true);
    let scanned = disk.scan();
    assert_eq!((scanned.log.head(), missing(&scanned)), (3, vec![1]));
    assert_eq!(scanned.log.checksum(1), Some(disk.chain[1]));
    disk.assert_chain(&scanned);
}

#[test]
fn a_stand_in_says_how_far_the_log_went_when_the_frame_itself_is_lost() {
    for lost in [17, 18, 19] {
        let mut disk = Disk::fill(20);
        let message = disk.frames[lost].clone();
        disk.write(message, true);
        for frame in lost..20 {
            disk.erase(frame);
        }
        let scanned = disk.scan();
        let op = lost as Op + 1;
        assert_eq!((scanned.log.head(), missing(&scanned)), (op, vec![]));
        assert_eq!(scanned.unsure_from, Some(1), "what came after it is lost");
        disk.assert_chain(&scanned);
    }
    // What follows is counted from there.
    let mut disk = Disk::fill(20);
    let message = disk.frames[18].clone();
    disk.write(message, true);
    disk.append(21, 0);
    for frame in [18, 19] {
        disk.erase(frame);
    }
    let scanned = disk.scan();
    assert_eq!((scanned.log.head(), missing(&scanned)), (21, vec![20]));
    disk.assert_chain(&scanned);
}

#[test]
fn what_was_missing_right_after_the_checkpoint_leaves_no_gap() {
    let mut disk = Disk::fill(20);
    for frame in [5, 6, 7] {
        disk.erase(frame);
    }
    // A restart reads from the first frame that is there, and the stand-ins come later.
    disk.state.journal_start = disk.scan().locations[8].unwrap().position;
    disk.state.checkpoint_op = 5;
    disk.state.checkpoint_checksum = disk.chain[5];
    let scanned = disk.scan();
    assert_eq!((scanned.log.base(), scanned.log.head()), (5, 20));
    assert_eq!(missing(&scanned), [6, 7, 8]);
    disk.assert_after_checkpoint(&scanned);
    for frame in [7, 6] {
        let message = disk.frames[frame].clone();
        disk.write(message, true);
    }
    let scanned = disk.scan();
    assert_eq!((scanned.log.base(), missing(&scanned)), (5, vec![6]));
    assert_eq!(scanned.log.checksum(6), Some(disk.chain[6]));
    disk.assert_after_checkpoint(&scanned);
    disk.write(disk.frames[5].clone(), true);
    let scanned = disk.scan();
    assert_eq!((scanned.log.base(), missing(&scanned)), (5, vec![]));
    disk.assert_after_checkpoint(&scanned);
}

/// Damage on both sides of the position at which the superblock says what the log was, in one stretch.
#[test]
fn a_stretch_of_damage_lies_across_what_is_known() {
    let mut disk = Disk::fill_committed(20, 8);
    (disk.state.sound_op, disk.state.sound_checksum) = (10, disk.chain[10]);
    disk.state.sound_position = disk.scan().locations[10].unwrap().position;
    disk.state.commit = 8;
    for frame in 8..12 {
        disk.erase(frame);
    }
    let scanned = disk.scan();
    assert_eq!(scanned.log.head(), 20);
    // Of the eighth, nothing before the damage says that it is committed.
    assert_eq!(missing(&scanned), vec![8, 9, 10, 11, 12]);
    disk.assert_chain(&scanned);
}

/// A view change cuts the log while its end is on the way to the disk, and the writes end in one go: what
/// is still in force is durable, although the last of them is not.
#[test]
fn what_was_cut_while_it_was_written_hides_nothing_before_it() {
    let mut disk = Disk::new();
    let mut outputs = Vec::new();
    for op in 1..=3 {
        let message = disk.prepare(op, 0);
        disk.chain.push(message.header().checksum);
        disk.entries.append(message, &mut outputs).unwrap();
    }
    let mut writes = Vec::new();
    for output in outputs.drain(..) {
        let super::io::Output::JournalWrite(write) = output else {
            panic!("only writes");
        };
        writes.push((write.token, write.len));
    }
    let chain = disk.chain.clone();
    let in_force = |op: Op, checksum| op < 3 && chain[usize::try_from(op).unwrap()] == checksum;
    let mut newest = Vec::new();
    for (token, size) in writes.into_iter().rev() {
        let written = disk
            .entries
            .on_written(token, Ok(size), in_force, &mut outputs)
            .unwrap();
        newest.push(written.newest);
    }
    assert_eq!(newest, vec![None, None, Some((2, chain[2]))]);
}
