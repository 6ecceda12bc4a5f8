//! Repair: a replica fetches what its log lacks, while normal operation goes on.
//!
//! ```text
//!   who lacks                     who has
//!      ├── get_prepares from..=to ──►│
//!      │◄── headers (checksums) ─────┤   what belongs to the log of this view
//!      │◄── prepare, prepare, … ─────┤   from memory or from the journal
//! ```
//!
//! In normal operation a backup that missed prepares asks the primary, then the others in turn. A replica
//! that catches up with a view has a target: the log as the view's primary announced it (or, for a new
//! primary, as the replica with the best log described it). Its own entries above `verified` may have died
//! in a view change; it compares checksums first, truncates only what disagrees, then fetches the
//! rest. One request is in flight at a time, for at most `REPAIR_WINDOW` prepares.
//!
//! Prepares of former views are taken only when `expected` names their checksum: an old primary's
//! prepare that was long on the way may fit the chain and still not belong to this view.

use super::holes::OF_CHAIN;
use super::timeout::{Deadline, REPAIR_RETRY_NS};
use super::{Status, Target, UNKNOWN, Vsr, body_of};
use crate::limits::{REPAIR_WINDOW, SUFFIX_MAX};
use crate::message::{Command, Header, Message, Op, View};
use crate::mutant::Mutant;
use crate::protocol::{Effect, Effects, ReadFor, ReplicaIndex, Time};

/// Prepares of which only the checksum is known.
pub(super) const EXPECTED_MAX: usize = SUFFIX_MAX + REPAIR_WINDOW;

/// In `operation` of a get_prepares: checksums only.
const HEADERS_ONLY: u8 = 1;

impl Vsr {
    /// Begins to bring the log to the view's.
    pub(super) fn reconcile(&mut self, target: Target, now: Time, effects: &mut Effects) {
        // The log of a view holds everything committed before it: a shorter one means that a promise
        // was broken somewhere, and going on would spread the loss.
        assert!(
            target.op >= self.commit,
            "the log of view {} lacks committed operations",
            self.view
        );
        self.verified = self.commit;
        self.repair_donor = target.donor;
        self.expected.clear();
        self.ahead.clear();
        self.repair_until = 0;
        self.repair_retry = Deadline::after(0, 0);
        // What lies beyond the view's log is not in it.
        if self.log.head() > target.op && !Mutant::KeepsDeadSuffix.is_on() {
            self.truncate(target.op);
        }
        let (first, suffix) = (target.first, target.suffix.clone());
        self.target = Some(target);
        self.compare(first, &suffix);
        self.commit_verified(effects);
        self.complete_if_reconciled(now, effects);
        self.repair(now, effects);
    }

    /// Compares own entries with checksums of the view's log. The chain makes one agreement prove
    /// everything before it; the first disagreement after that is where the logs part. A last entry that
    /// is in both, and of which nothing is left here, learns what it was.
    fn compare(&mut self, first: Op, checksums: &[u128]) {
        if let Some(agreed) = self.log.last_agreement(first, checksums) {
            self.verify_up_to(agreed);
        }
        let last = first + checksums.len() as u64;
        let parts = self.verified + 1;
        if parts >= first && parts < last && parts <= self.log.head() {
            self.truncate(self.verified);
        }
        let mut shared = (first..=self.verified).zip(checksums);
        if let Some((_, checksum)) = shared.find(|(op, _)| *op == self.log.head()) {
            self.log.name_end(*checksum);
        }
        self.expect(first, checksums);
    }

    /// What is verified belongs to the view's log, and up to the target's commit point it is
    /// committed: it may be executed before the rest is here. A replica that was away for long must
    /// do so, or its journal would be full of entries that wait for later ones.
    pub(super) fn commit_verified(&mut self, effects: &mut Effects) {
        let Some(target) = &self.target else { return };
        let known = target.commit.min(self.verified).min(self.log.head());
        self.commit = self.commit.max(known);
        self.execute_committed(effects);
    }

    /// Remembers what the next prepares must be.
    fn expect(&mut self, first: Op, checksums: &[u128]) {
        let next = self.log.head() + 1;
        self.expected = self.expected.split_off(&next);
        self.expected.extend(
            (first..)
                .zip(checksums.iter().copied())
                .filter(|(op, checksum)| *op >= next && *checksum != UNKNOWN),
        );
        // Bounded: the highest are the least useful next.
        while self.expected.len() > EXPECTED_MAX {
            self.expected.pop_last();
        }
    }

    pub(super) fn complete_if_reconciled(&mut self, now: Time, effects: &mut Effects) {
        let Some(target) = &self.target else { return };
        // Durable first: entries that were truncated are still on the disk until their replacements
        // are, and `log_view` vouches for what a restart would find there.
        let durable = self.durable >= target.op || Mutant::LogViewTooEarly.is_on();
        if self.log.checksum(target.op) != Some(target.checksum) || !durable {
            return;
        }
        let (op, commit) = (target.op, target.commit);
        self.target = None;
        self.verified = self.log.head();
        self.unsure_from = None;
        self.update_durable();
        self.install_view(op, commit, now, effects);
    }

    /// Asks for what is lacking, if anything is and no request is out.
    pub(super) fn repair(&mut self, now: Time, effects: &mut Effects) {
        let head = self.log.head();
        let (from, to, donor, operation) = match (&self.target, self.status) {
            (Some(target), _) if head > self.verified => {
                let to = head.min(self.verified + SUFFIX_MAX as u64);
                (self.verified + 1, to, target.donor, HEADERS_ONLY)
            }
            // Committed, and lost: what it was, only the view's log says.
            (Some(target), _) if self.log.ends_unnamed() => {
                (head, head, target.donor, HEADERS_ONLY)
            }
            (Some(target), _) => (head + 1, target.op, self.repair_donor, 0),
            (None, Status::Normal) if !self.is_primary() => {
                // What came before its turn need not be sent again.
                let next_ahead = self.ahead.keys().next().map_or(self.view_head, |op| op - 1);
                (head + 1, next_ahead, self.repair_donor, 0)
            }
            (None, _) => return,
        };
        if from > to {
            return;
        }
        let answered = operation != HEADERS_ONLY && head >= self.repair_until;
        let lost = self.repair_retry.due(now.monotonic) && !Mutant::AsksOnce.is_on();
        if !answered && !lost {
            return;
        }
        // Whoever was asked may have lost some of its prepares, or be slow: others have them, too.
        if !answered && operation != HEADERS_ONLY {
            self.repair_donor = self.next_donor(donor);
        }
        let to = to.min(
            from + REPAIR_WINDOW.max(if operation == HEADERS_ONLY {
                SUFFIX_MAX
            } else {
                0
            }) as u64
                - 1,
        );
        self.repair_until = to;
        self.repair_retry = Deadline::after(now.monotonic, REPAIR_RETRY_NS);
        let mut header = self.header(Command::GetPrepares);
        header.op = from;
        header.commit = to;
        header.operation = operation;
        self.inquiry.ask(donor, from);
        self.send(donor, header, &[], effects);
    }

    pub(super) fn next_donor(&self, donor: ReplicaIndex) -> ReplicaIndex {
        let count = self.config.replica_count;
        let mut others = (1..=count).map(|step| (donor + step) % count);
        others.find(|r| *r != self.config.replica).unwrap_or(donor)
    }

    /// Where this log begins: whoever asks for something earlier learns that it is gone.
    pub(super) fn send_base(&self, asked: &Header, effects: &mut Effects) {
        let mut answer = self.header(Command::Headers);
        answer.op = asked.op;
        answer.commit = self.log.base();
        self.send(asked.replica, answer, &[], effects);
    }

    pub(super) fn on_get_prepares(&mut self, header: &Header, effects: &mut Effects) {
        if header.operation == OF_CHAIN && header.op > 0 {
            return self.on_get_chain(header, effects);
        }
        // In a view change, only who has joined the view describes its log, which then stands still.
        let speaks = match self.status {
            Status::Normal => self.log_view == self.view,
            Status::ViewChange => self.target.is_none(),
            Status::CatchUp | Status::Resigned | Status::Recovering => false,
        };
        if header.view != self.view || !speaks || header.op == 0 || header.commit < header.op {
            return;
        }
        let headers_only = header.operation == HEADERS_ONLY;
        let window = if headers_only {
            SUFFIX_MAX
        } else {
            REPAIR_WINDOW
        };
        let wanted = usize::try_from(header.commit - header.op + 1)
            .unwrap_or(window)
            .min(window);
        let base = self.log.base();
        let is_trimmed = header.op <= base;
        // Who compares is told what is still known: where the logs agree there, they agree before.
        let (first, checksums) = if is_trimmed && headers_only {
            let known = self.log.checksum(base).into_iter();
            let after = self.log.checksums(base + 1, window - 1);
            (base, known.chain(after).collect())
        } else {
            (header.op, self.log.checksums(header.op, wanted))
        };
        if (checksums.is_empty() && !is_trimmed) || first == 0 {
            return;
        }
        let mut answer = self.header(Command::Headers);
        answer.op = first;
        // Where this log begins: whoever asks for something earlier learns that it is gone.
        answer.commit = base;
        self.send(header.replica, answer, &body_of(&checksums), effects);
        if headers_only {
            return;
        }
        for op in (header.op..).take(checksums.len()) {
            if let Some(message) = self.prepares.get(&op) {
                effects.push(Effect::Send {
                    to: header.replica,
                    message: message.clone(),
                });
            } else if self.is_readable(op) {
                effects.push(Effect::Read {
                    op,
                    purpose: ReadFor::Replica(header.replica),
                });
            }
        }
    }

    pub(super) fn on_read_for_replica(
        &mut self,
        op: Op,
        to: ReplicaIndex,
        message: Option<Message>,
        effects: &mut Effects,
    ) {
        if let Some(message) = message
            && self.log.checksum(op) == Some(message.header().checksum)
        {
            effects.push(Effect::Send { to, message });
        }
    }

    pub(super) fn on_headers(
        &mut self,
        header: &Header,
        checksums: &[u128],
        now: Time,
        effects: &mut Effects,
    ) {
        let first = header.op;
        if header.view != self.view || first == 0 {
            return;
        }
        if checksums.is_empty() {
            return self.on_gone(header, now, effects);
        }
        match &self.target {
            Some(target) if target.donor == header.replica => {
                self.compare(first, checksums);
                // Not even the first that the other knows: what lies before it would have to be
                // compared, and has left its journal.
                let unnamed = self.log.ends_unnamed() && first > self.log.head();
                self.beyond_reach = None;
                if first > self.verified + 1 || unnamed {
                    self.put_beyond_reach(self.log.head() + 1);
                }
                self.commit_verified(effects);
                self.complete_if_reconciled(now, effects);
                self.repair(now, effects);
            }
            // Only the target's donor can say what belongs to the log that is fetched: that others have
            // earlier entries is of no use.
            Some(_) => {}
            None if self.status == Status::Normal && header.replica == self.primary() => {
                self.expect(first, checksums);
            }
            None => {}
        }
    }

    /// A view has begun: ask its primary how. Who waits for its own view asks again and again, which
    /// must not keep it from asking for a later one.
    pub(super) fn get_view(&mut self, view: View, now: Time, effects: &mut Effects) {
        let primary = self.primary_of(view);
        let waits = !self.get_view_retry.due(now.monotonic) && view <= self.get_view_asked;
        if primary == self.config.replica || waits {
            return;
        }
        self.get_view_asked = view;
        self.get_view_retry = Deadline::after(now.monotonic, REPAIR_RETRY_NS);
        let mut header = self.header(Command::GetView);
        header.view = view;
        self.send(primary, header, &[], effects);
    }
}
