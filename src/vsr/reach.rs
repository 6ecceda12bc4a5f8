//! Reach: whether the journals of the others still have what this replica lacks.
//!
//! They trim at different times, so one that has let go of an operation proves nothing: the others may
//! have it. Each is asked in turn, and it is gone when all have said so. One that cannot be heard must not
//! keep this replica waiting for ever: whoever says it for the second time was asked again after everybody
//! else.
//!
//! The log of a view that has begun elsewhere is another matter: only the target's donor can name it, so
//! what that one has trimmed is out of reach at once, whoever else has it.

use super::Vsr;
use super::timeout::Deadline;
use crate::limits::REPLICAS_MAX;
use crate::message::{Header, Op};
use crate::mutant::Mutant;
use crate::protocol::{Effects, ReplicaIndex, Time};

/// The same question to one replica after the other. Zero is no operation.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    /// From which operation on each was asked, as long as it has not answered.
    asked: [Op; REPLICAS_MAX],
    /// What each has said that it no longer has.
    gone: [Op; REPLICAS_MAX],
}

impl Inquiry {
    pub(super) fn ask(&mut self, replica: ReplicaIndex, from: Op) {
        self.asked[usize::from(replica)] = from;
    }

    /// An answer came; false if it answers nothing that was asked.
    fn answered(&mut self, replica: ReplicaIndex, from: Op) -> bool {
        let asked = &mut self.asked[usize::from(replica)];
        let answers = *asked == from;
        if answers {
            *asked = 0;
        }
        answers
    }

    /// One of the others no longer has it. Whether by that nobody has.
    fn gone(&mut self, from: ReplicaIndex, op: Op, mut others: impl Iterator<Item = u8>) -> bool {
        let said = std::mem::replace(&mut self.gone[usize::from(from)], op);
        said == op || others.all(|other| self.gone[usize::from(other)] == op)
    }
}

impl Vsr {
    /// This replica was away for longer than the others' journals reach: it cannot catch up from
    /// them.
    pub fn is_beyond_reach(&self) -> bool {
        self.beyond_reach.is_some()
    }

    /// An operation that has come after all, or is of no use any more, is not out of reach.
    pub(super) fn forget_reached(&mut self) {
        let (log, executed) = (&self.log, self.executed);
        self.beyond_reach
            .take_if(|op| *op != log.head() + 1 && !(*op > executed && log.is_missing(*op)));
    }

    /// The journal of another begins after what it was asked for.
    pub(super) fn on_gone(&mut self, header: &Header, now: Time, effects: &mut Effects) {
        let (from, base) = (header.replica, header.commit);
        let me = self.config.replica;
        let others = (0..self.config.replica_count).filter(|other| *other != me);
        if self.inquiry.answered(from, header.op) {
            let next = self.log.head() + 1;
            if base < next {
                return;
            }
            let names_log = self.target.as_ref().is_some_and(|t| t.donor == from);
            if self.inquiry.gone(from, next, others) || names_log {
                return self.put_beyond_reach(next);
            }
            self.repair_donor = self.next_donor(from);
            self.repair_retry = Deadline::after(0, 0);
            self.repair(now, effects);
        } else if self.holes.inquiry.answered(from, header.op) {
            // A hole in what has been executed waits for the next checkpoint.
            let needed = self.log.missing().find(|op| *op > self.executed);
            let Some(hole) = needed.filter(|hole| *hole <= base) else {
                return;
            };
            if self.holes.inquiry.gone(from, hole, others) {
                return self.put_beyond_reach(hole);
            }
            self.holes.retry = Deadline::after(0, 0);
            self.fetch_holes(now, effects);
        }
    }

    pub(super) fn put_beyond_reach(&mut self, op: Op) {
        if !Mutant::NeverBeyondReach.is_on() {
            self.beyond_reach = Some(op);
        }
    }
}
