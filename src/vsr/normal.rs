//! Normal operation: VR Revisited §4.1, pipelined.
//!
//! ```text
//!   client     primary              backups
//!     │ request  │                     │
//!     ├─────────►│ append, prepare ───►│ append
//!     │          │◄──── prepare_ok ────┤ once durable
//!     │          │ commit (a quorum is durable), execute
//!     │◄─────────┤ reply               │
//!     │          │ commit, or the next prepare's ──►│ execute
//! ```
//!
//! The request's buffer becomes the prepare in place; its body is neither copied nor hashed again.
//! A prepare_ok is cumulative: the log is a chain and becomes durable in order. It leaves from one
//! place, [`Vsr::acknowledge`], which looks at the durable point.

use super::sessions::Check;
use super::timeout::{Deadline, HEARTBEAT_NS};
use super::{Entry, Status, Vsr, quorum};
use crate::limits::{
    CONNECTIONS_MAX, EXECUTE_MAX, MESSAGE_SIZE_MAX, PIPELINE_MAX, REPLAY_WINDOW, REPLICAS_MAX,
    SECTOR_SIZE, log_bytes,
};
use crate::message::{Claim, Command, Header, Message, MessageMut, Op};
use crate::mutant::Mutant;
use crate::protocol::{Effect, Effects, Eviction, ReadFor, Time};

/// Requests waiting for a place in the pipeline. A connection has one client and a client one
/// request, unless it invents clients. Long before that, buffers run out, and requests wait in
/// their sockets.
pub(super) const REQUESTS_MAX: usize = CONNECTIONS_MAX;

/// Requests that wait for the view to begin; clients ask again when theirs is not among them.
pub(super) const EARLY_MAX: usize = 64;

/// In `inflight`: not yet an operation.
const QUEUED: Op = Op::MAX;

/// Requests remembered by a backup to notice that a client repeats itself.
pub(super) const SEEN_MAX: usize = CONNECTIONS_MAX;

impl Vsr {
    // ── requests ────────────────────────────────────────────────────────────────────────────

    pub(super) fn on_request(&mut self, request: MessageMut, now: Time, effects: &mut Effects) {
        let header = *request.header();
        let is_register = header.operation == self.config.operation_register;
        if !self.is_serving() {
            return self.on_request_elsewhere(request, is_register, effects);
        }
        // A view that is not yet durable here may not begin; the clients in its log are not yet
        // known to be in flight. Some milliseconds, for which it waits.
        if !self.may_speak_for_view() {
            let has_room = self.early.len() < EARLY_MAX
                && self.pool.has_room(request.body().len(), Claim::PassedOn);
            if has_room {
                effects.push(Effect::Wait {
                    client: header.client,
                    request: header.request,
                });
                self.early.push_back(request);
            }
            return;
        }
        match self.sessions.check(&header, is_register) {
            Check::Accept => {}
            Check::Resend => {
                effects.push(Effect::Wait {
                    client: header.client,
                    request: header.request,
                });
                return effects.push(Effect::Reply {
                    client: header.client,
                    reply: None,
                });
            }
            Check::Drop => return,
            Check::Evict(reason) => {
                // Its register may be on the way. Or the others have executed it, in a view that this
                // replica has not heard of: only what is behind its own executions is known to be over.
                let is_over =
                    header.session <= self.executed && !self.inflight.contains_key(&header.client);
                if is_over {
                    effects.push(Effect::Evict {
                        client: header.client,
                        reason,
                    });
                }
                return;
            }
        }
        if self.refuses_for_good(header.operation) && !self.inflight.contains_key(&header.client) {
            return effects.push(Effect::Evict {
                client: header.client,
                reason: Eviction::MachineFull,
            });
        }
        effects.push(Effect::Wait {
            client: header.client,
            request: header.request,
        });
        // One request of a client at a time: this bounds the queue by the number of clients, and
        // each connection has one client.
        // What other replicas pass on has a buffer already, whatever the bus thinks of it: a queue of
        // such requests would take the last ones, and nothing in it could be prepared any more.
        let has_room = self.requests.len() < REQUESTS_MAX
            && self.pool.has_room(request.body().len(), Claim::PassedOn);
        if has_room && !self.inflight.contains_key(&header.client) {
            self.inflight.insert(header.client, QUEUED);
            self.requests.push_back(request);
            self.prepare_requests(now, effects);
        }
    }

    /// A backup answers what it can, and passes on what the primary would otherwise not get.
    fn on_request_elsewhere(
        &mut self,
        mut request: MessageMut,
        is_register: bool,
        effects: &mut Effects,
    ) {
        if self.status != Status::Normal || self.checkpoint_lost {
            return;
        }
        let header = *request.header();
        match self.sessions.check(&header, is_register) {
            Check::Resend => {
                effects.push(Effect::Wait {
                    client: header.client,
                    request: header.request,
                });
                effects.push(Effect::Reply {
                    client: header.client,
                    reply: None,
                });
                return;
            }
            Check::Drop => return,
            // The table of a backup may be behind: only the primary evicts.
            Check::Accept | Check::Evict(_) => {}
        }
        // Clients send each request to the primary they know and to one other replica. One that
        // knows this view has sent it to the right place; if it comes again, that did not help.
        let knows_primary = header.view == self.view && !is_register;
        let again = self.seen.insert(header.client, header.request_checksum)
            == Some(header.request_checksum);
        if self.seen.len() > SEEN_MAX {
            self.seen.pop_first();
        }
        if knows_primary && !again {
            return;
        }
        effects.push(Effect::Wait {
            client: header.client,
            request: header.request,
        });
        request.header_mut().replica = self.config.replica;
        request.header_mut().seal_header();
        effects.push(Effect::Send {
            to: self.primary(),
            message: request.freeze(),
        });
    }

    /// The journal has room for what is in flight and this one more.
    pub(super) fn journal_has_room(&self, size: usize) -> bool {
        self.journal_free >= (size + 2 * SECTOR_SIZE) as u64
    }

    pub(super) fn take_journal_room(&mut self, size: usize) {
        self.journal_free -= (size + SECTOR_SIZE) as u64;
    }

    pub(super) fn prepare_requests(&mut self, now: Time, effects: &mut Effects) {
        if !self.is_serving() || !self.may_speak_for_view() || !self.clock.is_ready(now) {
            return;
        }
        let time = self.clock.cluster_time(now);
        let bounded = !Mutant::PipelineWithoutEnd.is_on();
        while (self.log.head() - self.executed < PIPELINE_MAX as u64 || !bounded)
            && self.journal_has_room(MESSAGE_SIZE_MAX)
        {
            if self.pulse_is_due(time) && !self.refuses(self.config.operation_pulse) {
                let Some(pulse) = self.pool.acquire(0) else {
                    return;
                };
                self.pulse_inflight = true;
                self.prepare_pulse(pulse, time, effects);
                continue;
            }
            let Some(request) = self.requests.pop_front() else {
                return;
            };
            if self.refuses(request.header().operation) {
                self.inflight.remove(&request.header().client);
                continue;
            }
            self.prepare(request, time, effects);
        }
    }

    fn pulse_is_due(&self, time: u64) -> bool {
        !self.pulse_inflight && self.pulse_due <= time.max(self.timestamp)
    }

    fn prepare_pulse(&mut self, mut pulse: MessageMut, time: u64, effects: &mut Effects) {
        let mut header = self.header(Command::Request);
        header.operation = self.config.operation_pulse;
        header.events = self.config.pulse_events;
        pulse.fill(header, &[]);
        self.prepare(pulse, time, effects);
    }

    /// Makes the request the next operation of the log, at this cluster time or later.
    fn prepare(&mut self, mut request: MessageMut, time: u64, effects: &mut Effects) {
        let events = u64::from(request.header().events);
        let former = self.timestamp * u64::from(!Mutant::TimeGoesBack.is_on());
        self.timestamp = (former + 1).max(time) + events;
        let (op, parent) = (self.log.head() + 1, self.log.head_checksum());
        let (view, commit, timestamp) = (self.view, self.commit, self.timestamp);
        let replica = self.config.replica;
        let header = request.header_mut();
        assert_eq!(header.command, Command::Request as u8);
        header.command = Command::Prepare as u8;
        header.replica = replica;
        header.view = view;
        header.op = op;
        header.parent = parent;
        header.commit = commit;
        header.timestamp = timestamp;
        header.seal_header();
        if header.client != 0 {
            self.inflight.insert(header.client, op);
        }
        let prepare = request.freeze();
        for to in self.followers() {
            effects.push(Effect::Send {
                to,
                message: prepare.clone(),
            });
        }
        self.append(prepare, effects);
    }

    // ── the log ─────────────────────────────────────────────────────────────────────────────

    /// Appends a prepare that continues the chain.
    pub(super) fn append(&mut self, prepare: Message, effects: &mut Effects) {
        let header = prepare.header();
        assert!(self.log.continues_with(header));
        self.log.push(Entry::of(header));
        if !Mutant::ForgetsTimestamps.is_on() {
            self.timestamp = self.timestamp.max(header.timestamp);
        }
        let op = header.op;
        effects.push(Effect::Append {
            message: prepare.clone(),
        });
        // Far ahead of execution (a restarted replica that replays its log) a prepare would only
        // hold a buffer that reading back the earlier ones needs: it is in the journal.
        if op <= self.executing + PIPELINE_MAX as u64 && !self.checkpoint_lost {
            self.prepares.insert(op, prepare);
        }
    }

    /// Forgets uncommitted entries that the log of the view does not have.
    pub(super) fn truncate(&mut self, op: Op) {
        assert!(op >= self.commit);
        self.log.truncate(op);
        self.written = self.written.min(op);
        self.forget_holes();
        self.update_durable();
        self.prepares.split_off(&(op + 1));
        self.ahead.clear();
    }

    pub(super) fn on_prepare(&mut self, message: Message, now: Time, effects: &mut Effects) {
        let header = *message.header();
        if self.log.is_missing(header.op) {
            return self.on_prepare_for_hole(message, now, effects);
        }
        if header.view > self.view {
            return self.get_view(header.view, now, effects);
        }
        let reconciling = self.target.is_some();
        if self.is_primary() && !reconciling {
            return;
        }
        if matches!(self.status, Status::Resigned | Status::Recovering)
            || (self.status == Status::ViewChange && !reconciling)
        {
            return;
        }
        if header.view == self.view {
            self.heard_primary(now);
            if header.op > self.view_head {
                self.view_head = header.op;
                self.clock.follow(header.timestamp, now);
            }
        }
        let belongs = header.view == self.view
            || self.expected.get(&header.op) == Some(&header.checksum)
            || Mutant::TakesOldPrepares.is_on();
        if header.op <= self.log.head() {
            return self.acknowledge(effects);
        }
        if !belongs {
            return;
        }
        if header.op > self.log.head() + 1 {
            // A large body out of turn takes a buffer that the one in turn may need.
            let spare = self.pool.free(message.header().body_size()) > PIPELINE_MAX / 2;
            if header.op <= self.log.head() + PIPELINE_MAX as u64 && spare {
                // The donor may not know what its own damaged entries were; the chain does.
                self.expected.entry(header.op - 1).or_insert(header.parent);
                self.ahead.insert(header.op, message);
            }
            return self.repair(now, effects);
        }
        if !self.accept(message, effects) {
            return;
        }
        while let Some(next) = self.ahead.remove(&(self.log.head() + 1)) {
            if !self.accept(next, effects) {
                break;
            }
        }
        if self.target.is_some() {
            self.verify_up_to(self.log.head());
            self.commit_verified(effects);
            self.complete_if_reconciled(now, effects);
        }
        let hasty = Mutant::CommitsThePrepared.is_on();
        let commit = if hasty { header.op } else { header.commit };
        self.advance_commit_to(commit, effects);
        self.repair(now, effects);
    }

    fn accept(&mut self, prepare: Message, effects: &mut Effects) -> bool {
        let header = prepare.header();
        let size = header.size as usize;
        if !self.log.continues_with(header) || !self.journal_has_room(size) {
            return false;
        }
        self.take_journal_room(size);
        self.expected.remove(&header.op);
        self.append(prepare, effects);
        true
    }

    pub(super) fn on_durable(&mut self, op: Op, checksum: u128, now: Time, effects: &mut Effects) {
        // An entry that was replaced while its write was on the way is no promise.
        if self.log.checksum(op) != Some(checksum) || op <= self.written {
            return;
        }
        self.written = op;
        self.update_durable();
        self.durable_moved(now, effects);
    }

    /// The one place from which a backup acknowledges. The first word after a heartbeat brings a sample
    /// of the clock along, even when nothing may be acknowledged yet.
    pub(super) fn acknowledge(&mut self, effects: &mut Effects) {
        if self.is_primary() || !self.votes() {
            return;
        }
        let mut header = self.header(Command::PrepareOk);
        let hasty = Mutant::AcknowledgesTooEarly.is_on();
        let op = if hasty { self.log.head() } else { self.durable };
        let durable = self.log.checksum(op);
        if let Some(checksum) = durable.filter(|_| self.may_speak_for_view()) {
            header.op = op;
            header.context = checksum;
        } else if self.heartbeat_heard.is_none() {
            return;
        }
        if let Some((heartbeat, wall)) = self.heartbeat_heard.take() {
            header.session = heartbeat;
            header.timestamp = wall;
        }
        self.send(self.primary(), header, &[], effects);
    }

    // ── commit ──────────────────────────────────────────────────────────────────────────────

    pub(super) fn on_prepare_ok(&mut self, header: &Header, now: Time, effects: &mut Effects) {
        if header.view > self.view {
            return self.get_view(header.view, now, effects);
        }
        if header.view < self.view || !self.is_serving() {
            return;
        }
        if header.session > 0 {
            let (heartbeat, wall) = (header.session, header.timestamp);
            self.clock.sample(header.replica, heartbeat, wall, now);
        }
        if self.log.checksum(header.op) == Some(header.context) {
            let acknowledged = &mut self.acknowledged[usize::from(header.replica)];
            *acknowledged = (*acknowledged).max(header.op);
            self.count_commit(effects);
        }
        self.prepare_requests(now, effects);
    }

    /// Commits what a quorum holds on disk.
    pub(super) fn count_commit(&mut self, effects: &mut Effects) {
        if !self.may_speak_for_view() {
            return;
        }
        let count = if Mutant::StandbyCounts.is_on() {
            REPLICAS_MAX
        } else {
            usize::from(self.config.replica_count)
        };
        let mut durable = self.acknowledged;
        durable[usize::from(self.config.replica)] = self.durable;
        let durable = &mut durable[..count];
        durable.sort_unstable_by(|a, b| b.cmp(a));
        let one_short = usize::from(Mutant::CommitsOneShort.is_on());
        let agreed = durable[quorum::replication(self.config.replica_count) - 1 - one_short];
        self.advance_commit_to(agreed, effects);
    }

    /// The commit point as the primary knows it. Until this replica holds the view's log, nothing
    /// of its own log may be taken for committed on somebody else's word.
    pub(super) fn advance_commit_to(&mut self, commit: Op, effects: &mut Effects) {
        if self.status == Status::Normal || Mutant::BelievesCommitEarly.is_on() {
            self.commit = self.commit.max(commit.min(self.log.head()));
        }
        self.execute_committed(effects);
    }

    pub(super) fn on_commit(&mut self, header: &Header, now: Time, effects: &mut Effects) {
        if header.view > self.view {
            return self.get_view(header.view, now, effects);
        }
        if header.view < self.view {
            return self.call_forward(header.replica, now, effects);
        }
        if self.is_primary() || header.replica != self.primary() {
            return;
        }
        if matches!(self.status, Status::ViewChange | Status::Recovering) {
            // The view has begun without this replica noticing.
            return self.get_view(header.view, now, effects);
        }
        self.heard_primary(now);
        self.heartbeat_heard = Some((header.timestamp, now.wall));
        self.view_head = self.view_head.max(header.op);
        self.advance_commit_to(header.commit, effects);
        if self.status == Status::Normal && self.durable < header.op {
            self.repair(now, effects);
        }
        self.acknowledge(effects);
    }

    pub(super) fn tick_primary(&mut self, now: Time, effects: &mut Effects) {
        if !self.may_speak_for_view() {
            return;
        }
        self.tick_unfit(now, effects);
        // It may just have left the view.
        if !self.may_speak_for_view() {
            return;
        }
        let idle_news = self.commit > self.heartbeat_commit && self.commit == self.log.head();
        // Operations wait for the first samples of the others' clocks: none may be lost for long.
        let due = self.heartbeat.due(now.monotonic) && !Mutant::ForgetsHeartbeats.is_on();
        if due || idle_news || !self.clock.is_ready(now) {
            self.send_heartbeat(now, effects);
        }
        self.prepare_requests(now, effects);
    }

    pub(super) fn send_heartbeat(&mut self, now: Time, effects: &mut Effects) {
        self.heartbeat = Deadline::after(now.monotonic, HEARTBEAT_NS);
        self.heartbeat_commit = self.commit;
        let mut header = self.header(Command::Commit);
        header.op = self.log.head();
        header.commit = self.commit;
        header.context = self.log.checksum(self.commit).unwrap_or(0);
        header.timestamp = now.monotonic;
        self.broadcast(header, &[], effects);
    }

    // ── execution ───────────────────────────────────────────────────────────────────────────

    /// Hands committed prepares to the executor, in order; reads back those not in memory.
    pub(super) fn execute_committed(&mut self, effects: &mut Effects) {
        if self.checkpoint_lost {
            return;
        }
        while self.executing < self.commit && self.execution.len() < EXECUTE_MAX {
            // The checkpoint of an operation must be over before the next one is due; replicas
            // would otherwise choose different operations.
            let entry_size = {
                let entry = self.log.entry(self.executing + 1);
                log_bytes(entry.expect("committed entries are in the log").size)
            };
            let grown = self.log_bytes_since_checkpoint + entry_size;
            let checkpoint = grown >= self.config.checkpoint_bytes;
            if checkpoint && self.checkpoint_running {
                break;
            }
            let op = self.executing + 1;
            let Some(prepare) = self.prepares.remove(&op) else {
                break;
            };
            assert_eq!(Some(prepare.header().checksum), self.log.checksum(op));
            self.executing = op;
            self.execution.push_back(*prepare.header());
            self.log_bytes_since_checkpoint = if checkpoint { 0 } else { grown };
            self.checkpoint_running |= checkpoint;
            effects.push(Effect::Execute {
                message: prepare,
                checkpoint,
            });
        }
        self.read_ahead(effects);
    }

    fn read_ahead(&mut self, effects: &mut Effects) {
        const WINDOW: u64 = REPLAY_WINDOW as u64;
        self.execution_read = self.execution_read.max(self.executing);
        // What is not durable here is in memory, or on its way to the disk and not to be read yet.
        let readable = self.commit.min(self.durable);
        while self.execution_read < readable.min(self.executing + WINDOW) {
            let op = self.execution_read + 1;
            self.execution_read = op;
            if !self.prepares.contains_key(&op) {
                effects.push(Effect::Read {
                    op,
                    purpose: ReadFor::Execute,
                });
            }
        }
    }

    pub(super) fn on_read_for_execution(
        &mut self,
        op: Op,
        message: Option<Message>,
        effects: &mut Effects,
    ) {
        match message {
            Some(message) => {
                assert_eq!(Some(message.header().checksum), self.log.checksum(op));
                self.prepares.insert(op, message);
            }
            // No buffer was free: ask again from here on.
            None => self.execution_read = self.execution_read.min(op - 1),
        }
        self.execute_committed(effects);
    }

    pub(super) fn on_executed(
        &mut self,
        op: Op,
        reply: MessageMut,
        pulse_due: u64,
        now: Time,
        effects: &mut Effects,
    ) {
        let header = self
            .execution
            .pop_front()
            .expect("an execution was asked for");
        assert_eq!(header.op, op);
        assert_eq!(op, self.executed + 1);
        self.executed = op;
        self.pulse_due = pulse_due;
        if header.operation == self.config.operation_pulse {
            self.pulse_inflight = false;
        }
        if header.client != 0 {
            // A log suffix taken over from another primary may hold the client's next request too.
            if self.inflight.get(&header.client) == Some(&op) {
                self.inflight.remove(&header.client);
            }
            let is_register = header.operation == self.config.operation_register;
            let forgets = Mutant::OnlyThePrimaryKeepsReplies.is_on() && !self.is_primary();
            let body = if forgets { &[] } else { reply.body() };
            let is_latest = self.sessions.commit(&header, is_register, body);
            effects.push(Effect::Reply {
                client: header.client,
                reply: is_latest.then_some(reply),
            });
        }
        self.execute_committed(effects);
        self.prepare_requests(now, effects);
    }
}
