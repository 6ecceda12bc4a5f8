//! The superblock: who this replica is, what it has promised, and where its state begins.
//!
//! Four copies of one sector in the file `superblock`, written with direct, data-synced I/O, all four
//! for every change: first two of them, and when those are durable the other two, so that a device
//! that loses power in the middle of writes and spoils what it was writing leaves two whole copies. A
//! change is over when all four are durable; until then the former state is in force. Of the copies that
//! verify, the one with the highest sequence is read. It may be one whose change was cut off by a crash:
//! then nothing had been said on its strength, and taking it is safe. The first thing a replica does is to
//! write all four again.
//!
//! ```text
//!   change 6   copies 0 and 1, then 2 and 3 ── power lost ──►   0 1 say 6     2 3 spoiled
//!   change 7   copies 2 and 3 ── power lost again ──────────►   0 1 say 6     2 3 spoiled
//!   change 7   copies 2 and 3, then 0 and 1
//! ```
//!
//! Which two come first alternates with the sequence. Whatever a crash has spoiled is then written before
//! what is left is touched: if the first two were, the change has not happened, and its number and order
//! come again; if the others were, the next number has the other order.
//!
//! ```text
//!    0 checksum u128 · 16 magic "STMPSUPR" · 24 version u32 · 28 replica u8 · 29 replica_count u8
//!   32 sequence u64 · 40 sessions_max u32 · 44 segment_count u32 · 48 cluster u128
//!   64 journal_id u128 · 80 segment_size u64 · 88 view u32 · 92 log_view u32
//!   96 log_view_op u64 · 104 commit u64 · 112 checkpoint_checksum u128 (of its prepare)
//!  128 manifest_checksum u128 · 144 checkpoint_op u64 · 152 checkpoint_timestamp u64
//!  160 manifest_size u64 · 168 manifest_data_size u64 · 176 journal_start u64
//!  184 starts u64 · 192 life u64 · 200 standby_count u8 · 201 recovering u8 · 202 zeros
//!  208 members[12] × { starts u64 · life u64 } · 400 sound_op u64 · 408 sound_position u64
//!  416 sound_checksum u128 · 432 past[16] × u32 · 496 zeros to 4096
//! ```
//!
//! `starts` counts the starts of this replica, and `life` is a random number of the latest one; both
//! are durable before the replica speaks. `members` holds the same of every other replica, as it last
//! introduced itself: one that comes with less has lost what it promised since (`peers`). `past` tells it
//! apart from one that merely was started more often than it was heard of.

use std::collections::VecDeque;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::io::{Output, Sector};
use crate::limits::{MEMBERS_MAX, REPLICAS_MAX, SECTOR_SIZE, SESSIONS_MAX, SUPERBLOCK_COPIES};
use crate::message::checksum;
use crate::mutant::Mutant;
use crate::protocol::{Promise, ReplicaIndex};
use crate::store::ManifestRef;

const MAGIC: u64 = u64::from_le_bytes(*b"STMPSUPR");
const VERSION: u32 = 3;

/// Copies on their way to the disk at once; the others stay whole meanwhile.
const WRITES_AT_ONCE: usize = SUPERBLOCK_COPIES / 2;

/// Bytes of the superblock file.
pub const SUPERBLOCK_FILE_SIZE: usize = SUPERBLOCK_COPIES * SECTOR_SIZE;

/// The part of the sector that is not zero; see the module for offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct State {
    checksum: u128,
    magic: u64,
    version: u32,
    pub replica: u8,
    pub replica_count: u8,
    reserved: [u8; 2],
    pub sequence: u64,
    pub sessions_max: u32,
    pub segment_count: u32,
    pub cluster: u128,
    pub journal_id: u128,
    pub segment_size: u64,
    pub view: u32,
    pub log_view: u32,
    pub log_view_op: u64,
    pub commit: u64,
    /// The prepare that the checkpoint was taken after; the cluster's root for op 0.
    pub checkpoint_checksum: u128,
    pub manifest_checksum: u128,
    pub checkpoint_op: u64,
    pub checkpoint_timestamp: u64,
    /// 0 when there is no checkpoint yet.
    pub manifest_size: u64,
    pub manifest_data_size: u64,
    /// Position in the journal from which a restart reads.
    pub journal_start: u64,
    pub starts: u64,
    pub life: u64,
    pub standby_count: u8,
    /// Not zero while this replica may not vote, because its disk forgot what it had promised.
    pub recovering: u8,
    reserved_tail: [u8; 6],
    /// The latest lives of all members, by index; what this replica knows of itself is above.
    pub members: [Life; MEMBERS_MAX],
    /// What the log was, once: the journal's frames below this position make a log whose head is this
    /// operation, with this checksum. Whatever the disk does to those frames, that much is known.
    pub sound_op: u64,
    pub sound_position: u64,
    pub sound_checksum: u128,
    /// The latest lives of this replica.
    pub past: Past,
}

const _: () = assert!(size_of::<State>() == 496);

/// Starts whose lives a replica can prove to have lived. They fit the block of a device that the rest
/// of the superblock is in.
const PAST_LIVES: usize = 16;

/// The low halves of the numbers of the latest lives, each at its `starts` modulo their count; zero for
/// starts that there were not, all ones for what a replica that has forgotten cannot know.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Past([u32; PAST_LIVES]);

impl Past {
    const FORGOTTEN: u32 = u32::MAX;

    fn place(starts: u64) -> usize {
        usize::try_from(starts % PAST_LIVES as u64).expect("a small number")
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "half of it is enough to tell lives apart"
    )]
    fn fingerprint(life: Life) -> u32 {
        (life.number as u32).clamp(1, Self::FORGOTTEN - 1)
    }

    /// A life begins; between `former` and its own start there were none. `recovering`: the replica knows
    /// that it has forgotten, and has no vote in this life before a quorum has told it what it missed. It
    /// may have lived any life before this one, so that somebody whose own files are old and who remembers
    /// such a life does not take its vote away again.
    pub(super) fn begin(&mut self, former: u64, life: Life, recovering: bool) {
        if recovering {
            self.0 = [Self::FORGOTTEN; PAST_LIVES];
            self.0[Self::place(life.starts)] = Self::fingerprint(life);
            return;
        }
        let skipped = (former + 1..life.starts).rev().take(self.0.len());
        skipped.for_each(|starts| self.0[Self::place(starts)] = 0);
        self.0[Self::place(life.starts)] = Self::fingerprint(life);
    }

    /// Whether a replica that has been started `starts` times by now can have lived that life. Yes if it is
    /// too long ago to tell: one that is started again and again while nobody hears it must not lose its
    /// vote for that.
    pub fn includes(&self, life: Life, starts: u64) -> bool {
        let is_past = life.starts <= starts;
        let is_long_ago = is_past && starts - life.starts >= PAST_LIVES as u64;
        let kept = self.0[Self::place(life.starts)];
        is_long_ago || is_past && (kept == Self::FORGOTTEN || kept == Self::fingerprint(life))
    }
}

/// One start of one replica. Lives of a replica are ordered by `starts`; equal `starts` with another
/// number mean that its files were set back in between.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Life {
    pub starts: u64,
    pub number: u64,
}

/// What `format` decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub cluster: u128,
    pub replica: u8,
    pub replica_count: u8,
    pub standby_count: u8,
    pub sessions_max: u32,
    pub segment_size: u64,
    pub segment_count: u32,
    /// Made in place of one that was lost: it may not vote before the others have brought it up to
    /// date.
    pub recovering: bool,
    /// Random: tells this replica's journal from every other one.
    pub journal_id: u128,
}

/// Why a superblock cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    #[error(
        "superblock has {0} bytes instead of {SUPERBLOCK_FILE_SIZE}: the file was cut or is not a superblock"
    )]
    Size(usize),
    #[error(
        "this is not a superblock (or all four copies are damaged): was the directory formatted?"
    )]
    NoCopy,
    #[error("superblock format version {0}; this release reads version {VERSION}")]
    Version(u32),
    #[error("superblock says replica {replica} of {replica_count}, which is impossible")]
    Replica { replica: u8, replica_count: u8 },
}

impl State {
    /// The state of a replica that has just been formatted.
    pub fn format(identity: &Identity) -> Self {
        Self {
            checksum: 0,
            magic: MAGIC,
            version: VERSION,
            replica: identity.replica,
            replica_count: identity.replica_count,
            reserved: [0; 2],
            sequence: 1,
            sessions_max: identity.sessions_max,
            segment_count: identity.segment_count,
            cluster: identity.cluster,
            journal_id: identity.journal_id,
            segment_size: identity.segment_size,
            view: 0,
            log_view: 0,
            log_view_op: 0,
            commit: 0,
            checkpoint_checksum: crate::vsr::root_checksum(identity.cluster),
            manifest_checksum: 0,
            checkpoint_op: 0,
            checkpoint_timestamp: 0,
            manifest_size: 0,
            manifest_data_size: 0,
            journal_start: 0,
            starts: 0,
            life: 0,
            standby_count: identity.standby_count,
            recovering: u8::from(identity.recovering),
            reserved_tail: [0; 6],
            members: [Life::default(); MEMBERS_MAX],
            sound_op: 0,
            sound_position: 0,
            sound_checksum: crate::vsr::root_checksum(identity.cluster),
            past: Past::default(),
        }
    }

    /// Replicas and standbys.
    pub fn member_count(&self) -> u8 {
        self.replica_count + self.standby_count
    }

    /// Whether this is the only replica that votes: what is on its disk is on a quorum, and nobody
    /// else has what it loses.
    pub fn is_alone(&self) -> bool {
        self.replica_count == 1 && self.replica == 0
    }

    /// A member that follows without voting.
    pub fn is_standby(&self) -> bool {
        self.replica >= self.replica_count
    }

    /// The present start of this replica.
    pub fn life(&self) -> Life {
        Life {
            starts: self.starts,
            number: self.life,
        }
    }

    /// The checkpoint's manifest, if there is a checkpoint.
    pub fn manifest(&self) -> Option<ManifestRef> {
        (self.manifest_size > 0).then_some(ManifestRef {
            checksum: self.manifest_checksum,
            op: self.checkpoint_op,
            size: self.manifest_size,
            data_size: self.manifest_data_size,
            reserved: 0,
        })
    }

    /// The checkpoint in force, as it would be installed once more.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        Some(Checkpoint {
            op: self.checkpoint_op,
            prepare_checksum: self.checkpoint_checksum,
            timestamp: self.checkpoint_timestamp,
            manifest: self.manifest()?,
            journal_start: self.journal_start,
            trim_position: 0,
            trimmed: 0,
        })
    }

    pub fn promise(&self) -> Promise {
        Promise {
            view: self.view,
            log_view: self.log_view,
            log_view_op: self.log_view_op,
            commit: self.commit,
            recovering: self.recovering != 0,
        }
    }

    /// The sector that says this.
    pub fn encode(mut self) -> Box<Sector> {
        let mut sector = Box::new(Sector([0; SECTOR_SIZE]));
        self.checksum = 0;
        sector.0[..size_of::<Self>()].copy_from_slice(self.as_bytes());
        let sum = checksum(&sector.0[16..]);
        sector.0[..16].copy_from_slice(&sum.to_le_bytes());
        sector
    }

    /// The whole file: four copies.
    pub fn encode_file(self) -> Vec<u8> {
        self.encode().0.repeat(SUPERBLOCK_COPIES)
    }

    fn decode(sector: &[u8]) -> Option<Self> {
        let sum = u128::from_le_bytes(sector[..16].try_into().expect("sixteen bytes"));
        let (state, _) = Self::read_from_prefix(sector).ok()?;
        (sum == checksum(&sector[16..]) && state.magic == MAGIC).then_some(state)
    }

    /// Each copy as it was read, for people: `None` for one that does not verify.
    pub fn decode_copies(file: &[u8]) -> Vec<Option<Self>> {
        file.chunks_exact(SECTOR_SIZE)
            .take(SUPERBLOCK_COPIES)
            .map(Self::decode)
            .collect()
    }

    /// The newest state that the file holds.
    ///
    /// # Errors
    /// No copy verifies, or what it says is impossible.
    pub fn decode_file(file: &[u8]) -> Result<Self, SuperblockError> {
        if file.len() != SUPERBLOCK_FILE_SIZE {
            return Err(SuperblockError::Size(file.len()));
        }
        let newest = Self::decode_copies(file)
            .into_iter()
            .flatten()
            .max_by_key(|s| s.sequence);
        let state = newest.ok_or(SuperblockError::NoCopy)?;
        if state.version != VERSION {
            return Err(SuperblockError::Version(state.version));
        }
        let members = usize::from(state.replica_count) + usize::from(state.standby_count);
        let plausible = (1..=REPLICAS_MAX).contains(&usize::from(state.replica_count))
            && members <= MEMBERS_MAX
            && usize::from(state.replica) < members
            && (1..=SESSIONS_MAX).contains(&(state.sessions_max as usize))
            && state.log_view <= state.view;
        if !plausible {
            let (replica, replica_count) = (state.replica, state.replica_count);
            return Err(SuperblockError::Replica {
                replica,
                replica_count,
            });
        }
        Ok(state)
    }
}

/// A change of the state; told apart when it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// This replica has started, or knows that it must count higher: all four copies again.
    Start(Life),
    /// Another member has introduced itself.
    Member(ReplicaIndex, Life),
    Promise(Promise),
    Checkpoint(Checkpoint),
    /// A checkpoint that was fetched takes the place of this replica's own.
    Install(Checkpoint),
}

/// What a checkpoint changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub op: u64,
    pub prepare_checksum: u128,
    pub timestamp: u64,
    pub manifest: ManifestRef,
    pub journal_start: u64,
    /// Not stored: the journal's bytes before this position, and log entries up to and with this
    /// one, are gone once it is durable.
    pub trim_position: u64,
    pub trimmed: u64,
}

/// The superblock of a running replica: one change at a time is on its way to the disk.
#[derive(Debug)]
pub struct Superblock {
    state: State,
    /// Changes in order; the first one is being written.
    queue: VecDeque<Change>,
    writes_left: usize,
}

impl Superblock {
    pub fn new(state: State) -> Self {
        Self {
            state,
            queue: VecDeque::new(),
            writes_left: 0,
        }
    }

    /// The same, with a journal that ends here. It may have lost its end: what is known of the log stays known,
    /// as of what is left.
    pub(super) fn of_journal(mut state: State, head: u64) -> Self {
        state.sound_position = state.sound_position.min(head);
        Self::new(state)
    }

    /// What is durable, or being made so.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The log is sound as of this journal position: to be written with the next change.
    pub fn set_sound(&mut self, position: u64, op: u64, checksum: u128) {
        assert!(position >= self.state.sound_position);
        self.state.sound_position = position;
        self.state.sound_op = op;
        self.state.sound_checksum = checksum;
    }

    /// Whether all changes so far are durable.
    pub(super) fn is_settled(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a change.
    pub fn change(&mut self, change: Change, outputs: &mut Vec<Output>) {
        self.queue.push_back(change);
        if self.queue.len() == 1 {
            self.write(outputs);
        }
    }

    /// One copy is durable. Gives the change that is over, if this was the last copy.
    pub fn on_written(&mut self, outputs: &mut Vec<Output>) -> Option<Change> {
        self.writes_left = self
            .writes_left
            .checked_sub(1)
            .expect("a copy was being written");
        let half = self.writes_left == SUPERBLOCK_COPIES - WRITES_AT_ONCE;
        if half && !Mutant::CopiesAtOnce.is_on() {
            self.write_copies(WRITES_AT_ONCE - self.first_copy(), outputs);
        }
        if self.writes_left > 0 {
            return None;
        }
        let done = self.queue.pop_front();
        if !self.queue.is_empty() {
            self.write(outputs);
        }
        done
    }

    fn write(&mut self, outputs: &mut Vec<Output>) {
        let Some(change) = self.queue.front() else {
            return;
        };
        let state = &mut self.state;
        state.sequence += 1;
        match change {
            Change::Start(life) => {
                assert!(life.starts > state.starts);
                state.past.begin(state.starts, *life, state.recovering != 0);
                (state.starts, state.life) = (life.starts, life.number);
            }
            Change::Member(replica, life) => state.members[usize::from(*replica)] = *life,
            Change::Promise(promise) => {
                assert!(promise.view >= state.view && promise.log_view >= state.log_view);
                state.recovering = u8::from(promise.recovering);
                state.view = promise.view;
                state.log_view = promise.log_view;
                state.log_view_op = promise.log_view_op;
                state.commit = state.commit.max(promise.commit);
            }
            Change::Checkpoint(checkpoint) | Change::Install(checkpoint) => {
                // One that was damaged here may be installed again.
                let again = matches!(change, Change::Install(_));
                assert!(checkpoint.op + u64::from(again) > state.checkpoint_op);
                state.checkpoint_op = checkpoint.op;
                state.checkpoint_checksum = checkpoint.prepare_checksum;
                state.checkpoint_timestamp = checkpoint.timestamp;
                state.manifest_size = checkpoint.manifest.size;
                state.manifest_data_size = checkpoint.manifest.data_size;
                state.manifest_checksum = checkpoint.manifest.checksum;
                state.journal_start = checkpoint.journal_start;
                state.commit = state.commit.max(checkpoint.op);
            }
        }
        self.writes_left = SUPERBLOCK_COPIES;
        self.write_copies(self.first_copy(), outputs);
        if Mutant::CopiesAtOnce.is_on() {
            self.write_copies(WRITES_AT_ONCE - self.first_copy(), outputs);
        }
    }

    /// The first of the two copies that are written first; see the module.
    fn first_copy(&self) -> usize {
        if self.state.sequence.is_multiple_of(2) || Mutant::SameHalfFirst.is_on() {
            0
        } else {
            WRITES_AT_ONCE
        }
    }

    fn write_copies(&self, first: usize, outputs: &mut Vec<Output>) {
        for copy in first..first + WRITES_AT_ONCE {
            let copy = copy as u64;
            outputs.push(Output::SuperblockWrite {
                token: self.state.sequence * SUPERBLOCK_COPIES as u64 + copy,
                offset: copy * SECTOR_SIZE as u64,
                sector: self.state.encode(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::format(&Identity {
            cluster: 7,
            replica: 1,
            replica_count: 3,
            standby_count: 0,
            sessions_max: 64,
            segment_size: 1 << 26,
            segment_count: 16,
            recovering: false,
            journal_id: 99,
        })
    }

    #[test]
    fn any_one_good_copy_is_enough() {
        let good = state().encode_file();
        for survivor in 0..SUPERBLOCK_COPIES {
            let mut file = good.clone();
            for copy in (0..SUPERBLOCK_COPIES).filter(|copy| *copy != survivor) {
                file[copy * SECTOR_SIZE + 40] ^= 1;
            }
            assert_eq!(State::decode_file(&file).unwrap().cluster, 7);
        }
        assert_eq!(
            State::decode_file(&[0; SUPERBLOCK_FILE_SIZE]),
            Err(SuperblockError::NoCopy)
        );
        assert_eq!(
            State::decode_file(&good[1..]),
            Err(SuperblockError::Size(16383))
        );
    }

    #[test]
    fn every_bit_flip_of_a_copy_is_noticed() {
        let sector = state().encode();
        for bit in 0..SECTOR_SIZE * 8 {
            let mut bytes = sector.0;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(State::decode(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn the_newest_copy_is_read_after_a_write_that_was_cut_off() {
        let mut file = state().encode_file();
        let mut newer = state();
        newer.sequence += 1;
        newer.view = 5;
        file[2 * SECTOR_SIZE..3 * SECTOR_SIZE].copy_from_slice(&newer.encode().0);
        assert_eq!(State::decode_file(&file).unwrap().view, 5);
    }

    /// A crash in each half of a change, and what the next start writes first: never the last good half.
    #[test]
    fn what_a_crash_has_spoiled_is_written_first() {
        for (spoiled_half, whole_half) in [(0, 2), (2, 0)] {
            let mut superblock = Superblock::new(state());
            let mut file = state().encode_file();
            let mut outputs = Vec::new();
            superblock.change(
                Change::Start(Life {
                    starts: 1,
                    number: 1,
                }),
                &mut outputs,
            );
            if spoiled_half == 2 {
                for output in outputs.drain(..) {
                    put(&mut file, output);
                }
                superblock.on_written(&mut outputs);
                superblock.on_written(&mut outputs);
            }
            file[spoiled_half * SECTOR_SIZE..][..2 * SECTOR_SIZE].fill(0xa5);
            let mut next = Superblock::new(State::decode_file(&file).expect("a half is whole"));
            outputs.clear();
            next.change(
                Change::Start(Life {
                    starts: 2,
                    number: 2,
                }),
                &mut outputs,
            );
            assert_eq!(outputs.len(), 2);
            for output in outputs {
                let Output::SuperblockWrite { offset, .. } = output else {
                    panic!("{output:?}");
                };
                let copy = usize::try_from(offset).unwrap() / SECTOR_SIZE;
                assert_ne!(copy / 2 * 2, whole_half, "the last whole half is at risk");
            }
        }
    }

    fn put(file: &mut [u8], output: Output) {
        let Output::SuperblockWrite { offset, sector, .. } = output else {
            panic!("{output:?}");
        };
        file[usize::try_from(offset).unwrap()..][..SECTOR_SIZE].copy_from_slice(&sector.0);
    }

    #[test]
    fn changes_are_written_one_after_the_other() {
        let mut superblock = Superblock::new(state());
        let mut outputs = Vec::new();
        let promise = Promise {
            view: 1,
            log_view: 0,
            log_view_op: 0,
            commit: 0,
            recovering: false,
        };
        superblock.change(Change::Promise(promise), &mut outputs);
        superblock.change(Change::Member(0, Life::default()), &mut outputs);
        // Two copies stay as they are until the first two are durable.
        assert_eq!(outputs.len(), 2);
        assert_eq!(superblock.on_written(&mut outputs), None);
        assert_eq!(outputs.len(), 2);
        assert_eq!(superblock.on_written(&mut outputs), None);
        assert_eq!(outputs.len(), 4);
        assert_eq!(superblock.on_written(&mut outputs), None);
        let done = superblock.on_written(&mut outputs);
        assert_eq!(done, Some(Change::Promise(promise)));
        assert_eq!(outputs.len(), 6);
    }
}
