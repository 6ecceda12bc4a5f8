//! Holes: entries of this replica's log that its disk has damaged, fetched again while all else goes on.
//!
//! ```text
//!   log      good   MISSING   MISSING   good
//!                      ?      checksum ◄─ parent
//!                              │
//!   any replica ◄─ get_prepares│(by checksum) ── prepare ──► restore: written, then good
//!                      ▲                            │
//!                   checksum ◄──────── parent ──────┘
//! ```
//!
//! The chain says what a missing entry must be, so it may come from anybody, in any view, and is
//! verified by its checksum alone. Of several in a row only the last is known at first: they are
//! filled from the top down.
//!
//! Until an entry is on this disk again, nothing above it is acknowledged: `durable` ends below the
//! first hole. A replica whose log may have lost entries at its end, without a trace of what they
//! were, is *unsure* from there on: it says so when it joins a view (`merge`), and learns from the
//! view's primary what the log is.

use super::reach::Inquiry;
use super::timeout::{Deadline, REPAIR_RETRY_NS};
use super::{Status, Vsr};
use crate::limits::{PIPELINE_MAX, REPAIR_WINDOW};
use crate::message::{Command, Header, Message, Op};
use crate::mutant::Mutant;
use crate::protocol::{Effect, Effects, ReadFor, ReplicaIndex, Time};

/// In `operation` of a get_prepares: those of the chain that ends with `context` at `commit`, in
/// whatever view.
pub(super) const OF_CHAIN: u8 = 2;

/// Prepares of missing entries that are on the way.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// Found, and waiting for the one after them to say whether they are right; a window at most.
    found: std::collections::BTreeMap<Op, Message>,
    /// Being written again.
    restoring: std::collections::BTreeSet<Op>,
    pub(super) retry: Deadline,
    asked: Option<ReplicaIndex>,
    pub(super) inquiry: Inquiry,
}

impl Holes {
    /// Prepares in memory.
    pub(super) fn found(&self) -> usize {
        self.found.len()
    }
}

impl Vsr {
    /// `durable` follows the journal, up to the first entry that is not there or not sure.
    pub(super) fn update_durable(&mut self) {
        let mut holes = self.log.missing();
        let hole = holes.find(|_| !Mutant::AcknowledgesOverHoles.is_on());
        let hole = hole.map_or(Op::MAX, |op| op - 1);
        let sure = self.unsure_from.map_or(Op::MAX, |op| op - 1);
        self.durable = self.written.min(hole).min(sure);
    }

    /// Whether all entries that this replica's disk has lost are known. For checkers.
    pub fn is_sure(&self) -> bool {
        self.unsure_from.is_none()
    }

    /// The head of the log and its checksum, when all of it is durable and sure.
    pub fn sound_head(&self) -> Option<(Op, u128)> {
        let head = self.log.head();
        let sound = self.durable == head && self.unsure_from.is_none();
        sound.then_some((head, self.log.checksum(head)?))
    }

    /// Own entries up to here are known to be part of the view's log.
    pub(super) fn verify_up_to(&mut self, op: Op) {
        self.verified = self.verified.max(op);
        self.unsure_from = self.unsure_from.map(|from| from.max(op + 1));
        self.update_durable();
    }

    pub(super) fn durable_moved(&mut self, now: Time, effects: &mut Effects) {
        if self.is_serving() {
            self.count_commit(effects);
        } else {
            self.complete_if_reconciled(now, effects);
            self.acknowledge(effects);
        }
        self.execute_committed(effects);
    }

    /// The journal cannot give back an entry that it held.
    pub(super) fn on_damaged(&mut self, op: Op, now: Time, effects: &mut Effects) {
        if op <= self.checkpoint_op {
            // Not needed to restart, and others have it or its effect.
            self.log.trim(op);
        } else {
            self.log.lose(op);
        }
        self.execution_read = self.execution_read.min(op - 1);
        self.update_durable();
        self.fetch_holes(now, effects);
    }

    /// Asks for what is missing, one stretch at a time, from one replica after the other.
    pub(super) fn fetch_holes(&mut self, now: Time, effects: &mut Effects) {
        let wanted = |op: &Op| !self.holes.restoring.contains(op);
        let Some(first) = self.log.missing().find(wanted) else {
            return;
        };
        if !self.holes.retry.due(now.monotonic) {
            return;
        }
        let last = (first..)
            .take_while(|op| self.log.is_missing(*op))
            .last()
            .expect("the first one is");
        let Some(checksum) = self.log.checksum(last) else {
            return;
        };
        let me = self.config.replica;
        let next = self.holes.asked.map_or(me, |asked| asked) + 1;
        let count = self.config.replica_count;
        let donor = (0..count)
            .map(|step| (next + step) % count)
            .find(|r| *r != me);
        let Some(donor) = donor else { return };
        self.holes.asked = Some(donor);
        self.holes.retry = Deadline::after(now.monotonic, REPAIR_RETRY_NS);
        let mut header = self.header(Command::GetPrepares);
        header.op = first.max((last + 1).saturating_sub(REPAIR_WINDOW as u64));
        header.commit = last;
        header.context = checksum;
        header.operation = OF_CHAIN;
        self.holes.inquiry.ask(donor, header.op);
        self.send(donor, header, &[], effects);
    }

    /// Somebody asks for entries of a chain that we may have, too.
    pub(super) fn on_get_chain(&mut self, header: &Header, effects: &mut Effects) {
        let (first, last) = (header.op, header.commit);
        if last <= self.log.base() {
            return self.send_base(header, effects);
        }
        if self.log.checksum(last) != Some(header.context) {
            return;
        }
        for op in (first..=last).take(REPAIR_WINDOW) {
            if let Some(message) = self.prepares.get(&op) {
                let (to, message) = (header.replica, message.clone());
                effects.push(Effect::Send { to, message });
            } else if self.is_readable(op) {
                let purpose = ReadFor::Replica(header.replica);
                effects.push(Effect::Read { op, purpose });
            }
        }
    }

    /// The journal can give back the prepare at `op`.
    pub(super) fn is_readable(&self, op: Op) -> bool {
        op > self.log.base() && op <= self.written && !self.log.is_missing(op)
    }

    /// A prepare at or below our head: of use only where an entry is missing.
    pub(super) fn on_prepare_for_hole(
        &mut self,
        message: Message,
        now: Time,
        effects: &mut Effects,
    ) {
        let op = message.header().op;
        if self.holes.restoring.contains(&op) {
            return;
        }
        if self.holes.found.len() < REPAIR_WINDOW {
            self.holes.found.insert(op, message);
        }
        let mut filled = false;
        while let Some(op) = self.next_to_fill() {
            let Some(message) = self.holes.found.remove(&op) else {
                break;
            };
            self.fill(message, effects);
            filled = true;
        }
        if filled {
            self.holes.retry = Deadline::after(0, 0);
            self.fetch_holes(now, effects);
            self.execute_committed(effects);
        }
    }

    /// The highest one found that is what the chain says; those that are not are dropped.
    fn next_to_fill(&mut self) -> Option<Op> {
        let log = &self.log;
        self.holes.found.retain(|op, message| {
            let is_other = |known| known != message.header().checksum;
            log.is_missing(*op) && !log.checksum(*op).is_some_and(is_other)
        });
        let known = |(op, _): &(&Op, &Message)| log.checksum(**op).is_some();
        let mut found = self.holes.found.iter().rev();
        let (op, message) = found.find(known)?;
        self.journal_has_room(message.header().size as usize)
            .then_some(*op)
    }

    fn fill(&mut self, message: Message, effects: &mut Effects) {
        let header = *message.header();
        let op = header.op;
        self.take_journal_room(header.size as usize);
        self.log.fill(&header);
        self.timestamp = self.timestamp.max(header.timestamp);
        self.holes.restoring.insert(op);
        if op > self.executing && op <= self.executing + PIPELINE_MAX as u64 {
            self.prepares.insert(op, message.clone());
        }
        // The entry before it may turn out to be missing as well.
        self.update_durable();
        effects.push(Effect::Restore { message });
    }

    /// A missing entry is on the disk again.
    pub(super) fn on_restored(&mut self, op: Op, now: Time, effects: &mut Effects) {
        if !self.holes.restoring.remove(&op) {
            return;
        }
        self.log.restored(op);
        self.update_durable();
        self.durable_moved(now, effects);
    }

    /// After a truncation or a trim: what is gone need not be found.
    pub(super) fn forget_holes(&mut self) {
        let log = &self.log;
        self.holes.restoring.retain(|op| log.is_missing(*op));
        self.holes.found.retain(|op, _| log.is_missing(*op));
    }

    /// Whether this replica waits to be told what the log of its view is.
    pub(super) fn awaits_view(&self) -> bool {
        match self.status {
            Status::Recovering => true,
            Status::CatchUp => self.target.is_none(),
            Status::Normal | Status::Resigned | Status::ViewChange => false,
        }
    }
}
