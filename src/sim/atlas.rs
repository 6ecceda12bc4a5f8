//! How much the disks may do: faults are bounded by what replication promises to survive.
//!
//! ```text
//!               op 41     op 42     op 43              may be damaged
//!   replica 0   good      damaged   good, unproven     41
//!   replica 1   good      good      good               41, 43
//!   replica 2   good      absent    good               41, 43
//! ```
//!
//! - **One good copy**: of every operation that any replica has executed, some replica whose memory is
//!   whole keeps a readable frame that its log still reaches. It is the only copy that a damaged
//!   entry can be fetched from.
//! - **Never the unproven tail**: a frame that no later frame on the same disk says to have been
//!   durable looks, once damaged, like a write that a crash has torn, and is cut off as such. No log
//!   can tell the two apart; nor can ours.
//! - **The end of the log** may be damaged (the last frame, or one where the log had been cut) on so
//!   many replicas at once that the others can say what was never there: a nack quorum.
//! - **Checkpoints**: another replica has the same one whole, or a later one.
//! - **Superblocks** keep one good copy of the first two and one of the last two, which are never
//!   written at the same time: a crash may spoil all that is being written besides.
//! - **Forgetting** (a lost disk, or an older copy of one) is for so many replicas at once that the
//!   others are still a quorum of both kinds, and for machines whose entries all have a copy elsewhere.
//!   An older copy is made while its machine is off, and counts from the next start on: one that is
//!   made under a running replica and put back before it starts again is not noticed by anybody. It is put
//!   back when all others know, durably, of a later start: a replica that meets none who does, because
//!   those are down or cut off, has no way to notice, and with 150 ms of patience it votes.
//!
//! A frame whose operation was replaced in a view change is of use to nobody and may always be damaged.

use super::check::OneLog;
use super::disk::Frame;
use super::host::{Host, Memory};
use super::random::Random;
use crate::limits::SUPERBLOCK_COPIES;
use crate::message::Op;
use crate::protocol::ReplicaIndex;
use crate::replica::superblock::State;
use crate::vsr::quorum;

/// Frames that are looked at before a fault is given up: most of what was written may be damaged.
const PICKS_MAX: usize = 8;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Atlas<'a> {
    hosts: &'a [Host],
    log: &'a OneLog,
}

impl<'a> Atlas<'a> {
    pub(crate) fn new(hosts: &'a [Host], log: &'a OneLog) -> Self {
        Self { hosts, log }
    }

    /// A frame of this replica that may be damaged, if chance finds one; mostly a late one.
    pub(crate) fn pick_frame(&self, replica: ReplicaIndex, random: &mut Random) -> Option<Frame> {
        let host = &self.hosts[usize::from(replica)];
        let start = host.state().journal_start;
        let frames: Vec<Frame> = host.journal.proven_frames(start).copied().collect();
        if self.count() == 1 || frames.is_empty() {
            return None;
        }
        let mut picks = (0..PICKS_MAX).map(|_| {
            let back = random.skewed(frames.len() as u64);
            frames[frames.len() - 1 - usize::try_from(back).expect("an index")]
        });
        picks.find(|frame| self.may_damage(replica, frame))
    }

    /// The frame of one operation in the journal of this replica, if it may be damaged.
    pub(crate) fn frame_of(&self, replica: ReplicaIndex, op: Op) -> Option<Frame> {
        let host = &self.hosts[usize::from(replica)];
        let mut frames = host.journal.proven_frames(host.state().journal_start);
        let frame = frames.find(|frame| frame.op == op).copied();
        frame.filter(|frame| self.may_damage(replica, frame))
    }

    fn may_damage(&self, replica: ReplicaIndex, frame: &Frame) -> bool {
        let Some(executed) = self.log.entry(frame.op) else {
            return false;
        };
        let replaced = executed.checksum != frame.prepare;
        (replaced || self.held_elsewhere(replica, frame.op))
            && (!self.leaves_doubt(replica, frame) || self.others_can_nack(replica))
    }

    /// Whether a frame's damage may leave its replica in doubt of what it has lost.
    fn leaves_doubt(&self, replica: ReplicaIndex, frame: &Frame) -> bool {
        let executed = self.log.entry(frame.op);
        let replaced = executed.is_none_or(|executed| executed.checksum != frame.prepare);
        replaced || !self.hosts[usize::from(replica)].journal.is_bridged(frame)
    }

    fn others_can_nack(&self, replica: ReplicaIndex) -> bool {
        let nacks = usize::from(self.count()) - quorum::replication(self.count()) + 1;
        self.others(replica).filter(|h| self.is_sure(h)).count() >= nacks
    }

    /// Whether a replica knows where its log ends, now and whenever it is started again.
    fn is_sure(&self, host: &Host) -> bool {
        let start = host.state().journal_start;
        let doubtful = |frame: &Frame| self.leaves_doubt(host.index, frame);
        host.memory == Memory::Whole
            && host.replica().is_none_or(|replica| replica.vsr().is_sure())
            && !host.journal.damaged_frames(start).any(doubtful)
    }

    fn count(&self) -> u8 {
        let replicas = self.hosts.iter().filter(|host| !host.is_standby());
        u8::try_from(replicas.count()).expect("at most six")
    }

    /// Another replica, whose memory is whole, can give an executed operation to others.
    fn held_elsewhere(&self, replica: ReplicaIndex, op: Op) -> bool {
        let Some(executed) = self.log.entry(op) else {
            return false;
        };
        self.others(replica).any(|host| {
            let start = host.state().journal_start;
            host.memory == Memory::Whole && host.journal.holds(op, executed.checksum, start)
        })
    }

    /// Whether the disk of a replica may forget: be lost, or be an older one.
    pub(crate) fn may_forget(&self, replica: ReplicaIndex) -> bool {
        let needed = quorum::replication(self.count()).max(quorum::view_change(self.count()));
        let whole = self.others(replica).filter(|h| h.memory == Memory::Whole);
        if whole.clone().count() < needed || !self.others_can_nack(replica) {
            return false;
        }
        let first = whole.filter_map(Host::whole_checkpoint).max().unwrap_or(0) + 1;
        (first..=self.log.head()).all(|op| self.held_elsewhere(replica, op))
    }

    /// Whether all others have taken note of the latest start of a replica, so that whoever it meets with
    /// an older copy of its disk tells it.
    pub(crate) fn is_known(&self, replica: ReplicaIndex) -> bool {
        let starts = self.hosts[usize::from(replica)].state().starts;
        self.others(replica).all(|host| {
            host.superblock.is_quiet()
                && host.state().members[usize::from(replica)].starts >= starts
        })
    }

    /// Whether a replica's checkpoint may be damaged: another one has it, or a later one.
    pub(crate) fn may_damage_checkpoint(&self, replica: ReplicaIndex) -> bool {
        let Some(op) = self.hosts[usize::from(replica)].whole_checkpoint() else {
            return false;
        };
        let has = |host: &Host| {
            host.memory == Memory::Whole && host.whole_checkpoint().is_some_and(|other| other >= op)
        };
        self.others(replica).any(has) && self.others_can_nack(replica)
    }

    /// Superblock copies that may be damaged now: all but one of each two.
    pub(crate) fn superblock_copies(&self, replica: ReplicaIndex) -> Vec<usize> {
        let host = &self.hosts[usize::from(replica)];
        if !host.superblock.is_quiet() {
            return Vec::new();
        }
        let newest = host.state().sequence;
        let copies = State::decode_copies(host.superblock.image());
        let good = |copy: &usize| copies[*copy].is_some_and(|state| state.sequence == newest);
        (0..SUPERBLOCK_COPIES)
            .filter(|copy| good(copy) && good(&(copy ^ 1)))
            .collect()
    }

    /// The other replicas. Standbys have copies, but no say, and nobody need ask them.
    fn others(&self, replica: ReplicaIndex) -> impl Iterator<Item = &'a Host> + Clone {
        let others = self.hosts.iter().filter(move |host| host.index != replica);
        others.filter(|host| !host.is_standby())
    }
}
