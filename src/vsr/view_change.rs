//! View change: VR Revisited §4.2, with an exit quorum before it and checksums instead of logs.
//!
//! ```text
//!   backups                         next primary
//!   exit_view to all      ──────►   exit_view to all      the primary is silent
//!   a quorum wishes to leave: view + 1, durable
//!   join_view (my log)    ──────►   a quorum has joined: take the log with the greatest
//!                                   (log_view, op), fetch what is lacking, make it durable
//!                         ◄──────   view (the log's suffix)
//!   compare, truncate what disagrees, fetch, then log_view = view, durable
//!   prepare_ok            ──────►   commits what was left uncommitted, takes requests
//! ```
//!
//! Why the best log holds every committed operation: each was durable on a replication quorum with
//! `log_view` at least its view, and that quorum meets every view-change quorum (`quorum`). Logs with
//! equal `log_view` are prefixes of one another, so the longer one holds what the shorter does.

use super::merge::{Join, Merged, Target, merge};
use super::timeout::{
    Deadline, EXIT_RESEND_NS, EXIT_VOTE_NS, JOIN_RESEND_NS, PRIMARY_DEAF_NS, PRIMARY_SILENT_NS,
    STAGGER_NS, VIEW_CHANGE_NS,
};
use super::voting::Voting;
use super::{Status, Vsr, body_of, quorum};
use crate::limits::REPLICAS_MAX;
use crate::message::{Command, Header, Op, View};
use crate::mutant::Mutant;
use crate::protocol::{Effects, Time};

impl Vsr {
    // ── leaving a view ──────────────────────────────────────────────────────────────────────

    /// The replica after the primary is the next primary, and asks first.
    fn stagger(&self) -> u64 {
        let count = u64::from(self.config.replica_count);
        let (me, primary) = (u64::from(self.config.replica), u64::from(self.primary()));
        (me + count - primary + count - 1) % count * STAGGER_NS
    }

    pub(super) fn reset_primary_silent(&mut self, now: Time) {
        self.primary_silent = Deadline::after(now.monotonic, PRIMARY_SILENT_NS + self.stagger());
    }

    /// The primary of this view lives.
    pub(super) fn heard_primary(&mut self, now: Time) {
        self.exiting = false;
        self.reset_primary_silent(now);
    }

    pub(super) fn tick_exit(&mut self, now: Time, effects: &mut Effects) {
        if self.config.replica_count == 1 {
            return;
        }
        if self.primary_silent.due(now.monotonic) && !self.exiting {
            self.vote_exit(now, effects);
        } else if self.exiting && self.exit_resend.due(now.monotonic) {
            self.send_exit(now, effects);
            self.count_exit(now, effects);
        }
    }

    /// The connection from the primary broke: a hint that saves waiting for its silence. Where it was
    /// only the connection, nobody else agrees, and the wish is forgotten.
    pub(super) fn on_peer_lost(&mut self, replica: u8, now: Time, effects: &mut Effects) {
        let waits_for_it = match self.status {
            Status::Normal | Status::CatchUp | Status::ViewChange => true,
            Status::Resigned | Status::Recovering => false,
        };
        if waits_for_it
            && !self.is_arriving()
            && replica == self.primary()
            && replica != self.config.replica
        {
            self.vote_exit(now, effects);
        }
    }

    /// A primary that hears nobody, whose disk is full or who cannot execute, wants to be replaced, as long as
    /// that lasts.
    pub(super) fn tick_unfit(&mut self, now: Time, effects: &mut Effects) {
        let heard = |r: &u8| now.monotonic < self.heard[usize::from(*r)] + PRIMARY_DEAF_NS;
        let hears = 1 + self.others().filter(heard).count();
        let hears_enough = hears >= quorum::replication(self.config.replica_count);
        let hears_enough = hears_enough || Mutant::DeafPrimaryStays.is_on();
        if hears_enough && !self.is_primary_for_want_of_another() {
            self.exiting = false;
        } else if !self.exiting {
            self.vote_exit(now, effects);
        } else if self.exit_resend.due(now.monotonic) {
            self.send_exit(now, effects);
            self.count_exit(now, effects);
        }
    }

    pub(super) fn vote_exit(&mut self, now: Time, effects: &mut Effects) {
        if !self.votes() {
            return;
        }
        self.exiting = true;
        self.send_exit(now, effects);
        self.count_exit(now, effects);
    }

    /// Not before the view to be left is durable: a replica that says it is in a view is still there after
    /// a restart, so the others may follow it there.
    fn send_exit(&mut self, now: Time, effects: &mut Effects) {
        if self.promised.view < self.view {
            return;
        }
        self.exit_resend = Deadline::after(now.monotonic, EXIT_RESEND_NS);
        let mut header = self.header(Command::ExitView);
        self.explain_exit(&mut header);
        self.broadcast(header, &[], effects);
    }

    /// Those who lag behind a replica that is recovering: it left their view when it did not know yet that
    /// it had forgotten promises, joins no view now, and follows only one that is not before its own. So
    /// it says where it is.
    pub(super) fn call_forward(&mut self, primary: u8, now: Time, effects: &mut Effects) {
        if self.status == Status::Recovering && self.exit_resend.due(now.monotonic) {
            self.exit_resend = Deadline::after(now.monotonic, EXIT_RESEND_NS);
            self.send(primary, self.header(Command::ExitView), &[], effects);
        }
    }

    pub(super) fn on_exit_view(&mut self, header: &Header, now: Time, effects: &mut Effects) {
        // Who does not vote follows views that have begun: this one may never be.
        if !self.votes() {
            return;
        }
        if header.view > self.view {
            // Whoever is in that view has seen a quorum leave the ones before.
            self.leave_for(header.view, now, effects);
        }
        if header.view < self.view {
            // Whoever is behind learns of this view: from its primary if it has begun, from those
            // who have joined it otherwise.
            if self.is_serving() {
                self.send_view_to(header.replica, effects);
            } else if self.status == Status::ViewChange && self.primary() == header.replica {
                self.join(now, effects);
            }
            return;
        }
        self.exit_votes[usize::from(header.replica)] = Some(now.monotonic);
        // A primary that wants to leave its own view has restarted, or cannot go on: no use in waiting.
        if header.replica == self.primary()
            && self.status != Status::ViewChange
            && !self.exiting
            && self.agrees_with_exit(header)
        {
            return self.vote_exit(now, effects);
        }
        self.count_exit(now, effects);
    }

    /// A quorum that wishes to leave does; until then the view goes on.
    fn count_exit(&mut self, now: Time, effects: &mut Effects) {
        if !self.exiting {
            return;
        }
        let stay = Mutant::WishesStay.is_on();
        let fresh =
            |at: &Option<u64>| at.is_some_and(|at| now.monotonic < at + EXIT_VOTE_NS || stay);
        let votes = 1 + self
            .others()
            .filter(|r| fresh(&self.exit_votes[usize::from(*r)]))
            .count();
        let enough = votes >= quorum::view_change(self.config.replica_count);
        if enough || Mutant::LeavesAlone.is_on() {
            self.leave_for(self.view + 1, now, effects);
        }
    }

    /// Enters `view`, whose log is not known yet.
    fn leave_for(&mut self, view: View, now: Time, effects: &mut Effects) {
        assert!(view > self.view);
        self.enter(view, Status::ViewChange, now);
        self.joins = Default::default();
        self.primary_silent = Deadline::after(now.monotonic, VIEW_CHANGE_NS + self.stagger());
        // Joining promises not to help the former view any more: durable first.
        self.persist(effects);
    }

    fn enter(&mut self, view: View, status: Status, now: Time) {
        self.view = view;
        self.status = status;
        self.forget_view(now);
    }

    /// Forgets what belonged to the view that this replica was in.
    pub(super) fn forget_view(&mut self, now: Time) {
        self.exiting = false;
        self.exit_votes = Default::default();
        self.heartbeat_heard = None;
        self.target = None;
        self.waits_for = None;
        self.view_head = 0;
        self.expected.clear();
        self.ahead.clear();
        // What waits here is the business of the next primary; clients will ask again.
        self.requests.clear();
        self.early.clear();
        self.inflight.clear();
        self.reset_primary_silent(now);
    }

    // ── joining the next ────────────────────────────────────────────────────────────────────

    /// Tells the view's primary what this replica's log is.
    pub(super) fn join(&mut self, now: Time, effects: &mut Effects) {
        let durable = self.promised.view == self.view || Mutant::JoinsTooEarly.is_on();
        if self.status != Status::ViewChange || !durable || !self.votes() {
            return;
        }
        self.join_resend = Deadline::after(now.monotonic, JOIN_RESEND_NS);
        let (first, suffix) = self.log.suffix();
        let missing = (first..).zip(&suffix).enumerate();
        let missing = missing.fold(0u128, |bits, (bit, (op, _))| {
            bits | u128::from(self.log.is_missing(op)) << bit
        });
        let mut header = self.header(Command::JoinView);
        header.log_view = self.log_view;
        header.op = self.log.head();
        header.commit = self.commit;
        header.context = self.log.head_checksum();
        header.parent = missing;
        header.session = self.unsure_from.unwrap_or(0);
        if self.is_primary() {
            let me = usize::from(self.config.replica);
            self.joins[me] = Some(join_of(&header, suffix));
            self.count_joins(now, effects);
        } else {
            self.send(self.primary(), header, &body_of(&suffix), effects);
        }
    }

    pub(super) fn tick_join(&mut self, now: Time, effects: &mut Effects) {
        if self.join_resend.due(now.monotonic) && self.target.is_none() {
            self.join(now, effects);
        }
    }

    pub(super) fn on_join_view(
        &mut self,
        header: &Header,
        suffix: Vec<u128>,
        now: Time,
        effects: &mut Effects,
    ) {
        if header.view < self.view || !self.votes() {
            return;
        }
        if self.primary_of(header.view) != self.config.replica {
            return;
        }
        // Whoever joins a view has seen a quorum leave the one before.
        if header.view > self.view {
            self.leave_for(header.view, now, effects);
        }
        if self.is_serving() {
            return self.send_view_to(header.replica, effects);
        }
        if self.status != Status::ViewChange || header.op + 1 < suffix.len() as u64 {
            return;
        }
        self.joins[usize::from(header.replica)] = Some(join_of(header, suffix));
        self.count_joins(now, effects);
    }

    fn count_joins(&mut self, now: Time, effects: &mut Effects) {
        // A primary must execute: the others will go on to the next view.
        if self.checkpoint_lost {
            return;
        }
        let me = usize::from(self.config.replica);
        let joined = self.joins.iter().flatten().count();
        let quorum = quorum::view_change(self.config.replica_count);
        let enough = joined >= quorum || Mutant::BeginsAlone.is_on();
        if !enough || self.joins[me].is_none() || self.target.is_some() {
            return;
        }
        match merge(&self.joins, self.config.replica, self.config.replica_count) {
            Merged::Log(target) => self.reconcile(target, now, effects),
            Merged::Wait { op } => self.waits_for = Some(op),
        }
    }

    // ── the view begins ─────────────────────────────────────────────────────────────────────

    /// The log of the view is complete here.
    pub(super) fn install_view(&mut self, op: Op, commit: Op, now: Time, effects: &mut Effects) {
        assert!(self.log_view <= self.view);
        assert!(self.durable >= op || Mutant::LogViewTooEarly.is_on());
        self.log_view = self.view;
        if !Mutant::ForgetsLogViewOp.is_on() {
            self.log_view_op = op;
        }
        self.status = Status::Normal;
        self.joins = Default::default();
        self.expected.clear();
        self.repair_donor = self.primary();
        self.commit = self.commit.max(commit.min(self.log.head()));
        self.reset_primary_silent(now);
        if self.is_recovering() && self.may_vote_again() {
            self.voting = Voting::Voter;
        }
        self.persist(effects);
        self.execute_committed(effects);
    }

    /// The view's log is durable here: it begins for everybody.
    pub(super) fn begin_as_primary(&mut self, now: Time, effects: &mut Effects) {
        assert!(self.requests.is_empty());
        self.acknowledged = Default::default();
        self.inflight.clear();
        self.pulse_inflight = false;
        for op in self.executed + 1..=self.log.head() {
            match self.log.entry(op).map_or(0, |entry| entry.client) {
                0 => self.pulse_inflight = true,
                _ if Mutant::ForgetsInFlight.is_on() => {}
                client => {
                    self.inflight.insert(client, op);
                }
            }
        }
        self.heard = [now.monotonic; REPLICAS_MAX];
        for to in self.followers() {
            self.send_view_to(to, effects);
        }
        self.clock.begin(now);
        self.send_heartbeat(now, effects);
        self.count_commit(effects);
        self.prepare_requests(now, effects);
        for request in std::mem::take(&mut self.early) {
            self.on_request(request, now, effects);
        }
    }

    fn send_view_to(&self, to: u8, effects: &mut Effects) {
        if !self.may_speak_for_view() {
            return;
        }
        let (_, suffix) = self.log.suffix();
        let mut header = self.header(Command::View);
        header.op = self.log.head();
        header.commit = self.commit;
        header.context = self.log.head_checksum();
        self.send(to, header, &body_of(&suffix), effects);
    }

    pub(super) fn on_get_view(&mut self, header: &Header, effects: &mut Effects) {
        if header.view == self.view && self.is_serving() {
            self.send_view_to(header.replica, effects);
        }
    }

    pub(super) fn on_view(
        &mut self,
        header: &Header,
        suffix: &[u128],
        now: Time,
        effects: &mut Effects,
    ) {
        let view = header.view;
        // Only the first time: later this replica's log has grown past what the message describes.
        let awaited = self.awaits_view();
        let news = view > self.view || (view == self.view && (self.log_view < view || awaited));
        if !news
            || header.replica != self.primary_of(view)
            || header.replica == self.config.replica
            || header.op + 1 < suffix.len() as u64
        {
            return;
        }
        let is_later = view > self.view;
        if !is_later && header.op < self.commit {
            // It comes late: this replica holds, from a checkpoint that it fetched in this view, what
            // the view has committed since.
            return self.get_view(view, now, effects);
        }
        if is_later || self.status == Status::ViewChange || awaited {
            self.enter(view, Status::CatchUp, now);
            if is_later {
                self.persist(effects);
            }
        }
        self.heard_primary(now);
        self.view_head = self.view_head.max(header.op);
        let target = Target {
            donor: header.replica,
            op: header.op,
            checksum: header.context,
            commit: header.commit,
            first: header.op + 1 - suffix.len() as u64,
            suffix: suffix.to_vec(),
        };
        self.reconcile(target, now, effects);
    }
}

/// A replica's log, as its join_view says.
fn join_of(header: &Header, suffix: Vec<u128>) -> Join {
    Join {
        log_view: header.log_view,
        op: header.op,
        checksum: header.context,
        commit: header.commit,
        first: header.op + 1 - suffix.len() as u64,
        suffix,
        missing: header.parent,
        unsure_from: Some(header.session).filter(|from| *from > 0),
    }
}
