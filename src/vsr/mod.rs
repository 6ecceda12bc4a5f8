//! Viewstamped Replication Revisited (Liskov and Cowling, 2012), as a pure state machine.
//!
//! | file | what it decides | paper |
//! | --- | --- | --- |
//! | `normal` | request, prepare, prepare_ok, commit, execute | §4.1 |
//! | `view_change` | exit_view, join_view, view: another primary, no committed operation lost | §4.2 |
//! | `repair` | what a replica lacks, and from whom it gets it | §5.2, §4.3 |
//! | `sessions` | at most one execution of each request | §4.1 |
//! | `clock` | cluster time, within what a majority of the clocks says | |
//! | `merge` | the log that a view begins with | §4.2 |
//! | `holes` | entries that the disk has damaged | |
//! | `reach` | when the others' journals no longer have what is lacking | |
//! | `voting` | who has forgotten promises, and may not make new ones | |
//! | `full` | what goes on while the disk is full | |
//! | `log` `quorum` `timeout` | what the above reckon with | |
//!
//! Differences from the paper, each for a reason:
//! - `view` and `log_view` are durable before a message promises them, and the log is on disk: a
//!   restarted replica forgets nothing, and all may stop at once (the paper's recovery does not
//!   survive that).
//! - The log is a hash chain. Replicas compare checksums instead of sending logs; a stretch that
//!   disagrees with the log of the new view is known to be uncommitted, and only that is truncated.
//! - A replica that hears of a later view keeps `log_view` and its log until it holds that view's
//!   log: the state transfer of the paper (§5.2) truncates first and can lose operations.
//! - A replica leaves a view only together with a quorum (`exit_view`): one that merely cannot hear
//!   the primary deposes nobody.
//! - A replica whose disk was lost or set back does not vote until the others have brought it up to
//!   date and forgotten its former votes (`voting`).
//! - A primary that restarts does not resume its view: prepares of its former life may still be on
//!   the way. It asks the others to leave the view.
//!
//! Invariants, asserted where they could break:
//! `executed <= executing <= commit <= head`, `durable <= head`, `log_view <= view`, nothing at or
//! below `commit` is ever truncated.
//!
//! ```text
//!            restart, log_view = view, not its primary            View, log complete
//!   ┌──────────────────────────► Normal ◄───────────────────────────────────┐
//!   │                            │  ▲ (as primary: donor's log complete)    │
//!   │         quorum of ExitView │  └──────────────────┐                    │
//! start ───────────────────────► ViewChange ───────────┴───────► CatchUp ───┘
//!   │     log_view < view        ▲        View received
//!   └───────► Resigned ──────────┘
//!     primary of its view
//! ```

pub mod clock;
mod full;
mod holes;
mod log;
mod merge;
mod normal;
pub mod quorum;
mod reach;
mod repair;
pub mod sessions;
#[cfg(test)]
mod sessions_test;
pub mod timeout;
mod view_change;
mod voting;
#[cfg(test)]
mod vsr_test;

use std::collections::{BTreeMap, VecDeque};

use clock::{Agreement, Clock};
use holes::Holes;
pub use log::{Entry, Log, UNKNOWN};
use merge::{Join, Target};
use normal::{EARLY_MAX, REQUESTS_MAX, SEEN_MAX};
use reach::Inquiry;
use repair::EXPECTED_MAX;
use sessions::Sessions;
use timeout::{Deadline, TICK_NS};
use voting::Voting;

use crate::limits::{EXECUTE_MAX, PIPELINE_MAX, REPAIR_WINDOW, REPLICAS_MAX, log_entries_max};
use crate::message::{Command, Header, Message, MessageMut, Op, Pool, View, checksum};
use crate::mutant::Mutant;
use crate::protocol::{Effect, Effects, Event, Promise, Protocol, ReadFor, ReplicaIndex, Time};

/// One is being written, and one waits for its turn. What is promised meanwhile goes with the next.
const PROMISES_MAX: usize = 2;

/// What does not change while a replica runs.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub cluster: u128,
    /// Below `replica_count` for replicas, from there on for standbys.
    pub replica: ReplicaIndex,
    pub replica_count: u8,
    pub standby_count: u8,
    /// Of the whole journal.
    pub journal_bytes: u64,
    /// A checkpoint is captured when the log has grown by this many bytes since the former one.
    /// Equal on all replicas, so that their checkpoints are.
    pub checkpoint_bytes: u64,
    /// Which operations create sessions, and which one does the work of time.
    pub operation_register: u8,
    pub operation_pulse: u8,
    /// Whether an operation may change the machine's state.
    pub is_write: fn(u8) -> bool,
    /// Timestamps that a pulse uses.
    pub pulse_events: u32,
}

/// What a replica found on its disk.
#[derive(Debug)]
pub struct Recovered {
    pub promise: Promise,
    /// The log; what the disk has damaged is missing in it.
    pub log: Log,
    /// From here on the disk may have lost entries, or replacements of entries, without a trace.
    pub unsure_from: Option<Op>,
    /// The state that the machine was restored to.
    pub checkpoint_op: Op,
    /// It could not be: there is a log, but no state. Nothing is executed and nobody served until this
    /// replica is made anew, with a state.
    pub checkpoint_lost: bool,
    pub sessions: Sessions,
    pub pulse_due: u64,
    /// The greatest commit point named by any prepare of the log.
    pub commit: Op,
    /// This replica has never run: it has no former life whose prepares may be on the way.
    pub first_start: bool,
}

/// Where a replica stands; see the drawing above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Normal,
    /// It was the primary of this view before it restarted, and waits for the next view.
    Resigned,
    /// It has left the former view; the new one has not begun.
    ViewChange,
    /// The view has begun, and this replica fetches its log.
    CatchUp,
    /// Its disk had forgotten what it promised: it waits for a view that has begun.
    Recovering,
}

/// The protocol's whole state.
#[derive(Debug)]
pub struct Vsr {
    config: Config,
    pool: Pool,
    status: Status,
    view: View,
    log_view: View,
    /// Where the log of `log_view` began: entries after it were made in that view.
    log_view_op: Op,
    /// Promises asked to be made durable, oldest first; and the newest that is.
    promising: VecDeque<Promise>,
    /// More is to be promised than these say.
    promise_due: bool,
    promised: Promise,

    voting: Voting,
    /// The views of those who have taken note of this replica's present life.
    welcomes: [Option<View>; REPLICAS_MAX],

    log: Log,
    /// The journal has written everything up to here, ...
    written: Op,
    /// ... and up to here it is all still there and sure: what may be acknowledged.
    durable: Op,
    unsure_from: Option<Op>,
    holes: Holes,
    commit: Op,
    /// Handed to the executor up to here, and back from it up to there.
    executing: Op,
    executed: Op,
    /// Prepares in memory, by op: those not yet handed to the executor.
    prepares: BTreeMap<Op, Message>,
    /// Headers of what the executor has not answered yet.
    execution: VecDeque<Header>,
    /// Reads for execution have been asked for up to here.
    execution_read: Op,
    log_bytes_since_checkpoint: u64,
    checkpoint_running: bool,
    checkpoint_op: Op,
    checkpoint_lost: bool,

    sessions: Sessions,
    /// Clients with a request in the pipeline or the queue (primary), and its latest operation.
    inflight: BTreeMap<u128, Op>,
    requests: VecDeque<MessageMut>,
    /// Those that came before the view has begun.
    early: VecDeque<MessageMut>,
    /// Requests that this backup has seen once: a second arrival is forwarded.
    seen: BTreeMap<u128, u128>,
    timestamp: u64,
    clock: Clock,
    /// The primary's heartbeat that is to be answered with a sample of this clock: what it said, and
    /// what the clock showed (backup).
    heartbeat_heard: Option<(u64, u64)>,
    pulse_due: u64,
    pulse_inflight: bool,
    /// Bytes that the journal can take now; the wiring keeps it current.
    journal_free: u64,
    /// A checkpoint waits for room.
    disk_full: bool,
    /// Nothing is executed here any more.
    halted: bool,
    /// The machine has no room for more than may be under way.
    machine_full: bool,

    /// Durable points of the others in this view, as they said (primary).
    acknowledged: [Op; REPLICAS_MAX],
    /// The greatest operation known to exist in this view (backup).
    view_head: Op,
    target: Option<Target>,
    /// Who is asked for the prepares that this log lacks.
    repair_donor: ReplicaIndex,
    /// Own entries up to here are known to be in the log of this view.
    verified: Op,
    /// What prepares of former views must be to belong to the log of this view.
    expected: BTreeMap<Op, u128>,
    /// Prepares that came before their turn.
    ahead: BTreeMap<Op, Message>,
    /// A repair request is out, up to this op.
    repair_until: Op,
    /// Who was asked for what comes next, and no longer has it.
    inquiry: Inquiry,
    /// What this replica lacks, and has left the journals of the others.
    beyond_reach: Option<Op>,
    /// An operation that may have been acknowledged, and that nobody who has joined this view has.
    waits_for: Option<Op>,

    exit_votes: [Option<u64>; REPLICAS_MAX],
    exiting: bool,
    joins: [Option<Join>; REPLICAS_MAX],

    /// When each replica was last heard (primary).
    heard: [u64; REPLICAS_MAX],
    last_tick: u64,
    heartbeat: Deadline,
    heartbeat_commit: Op,
    primary_silent: Deadline,
    exit_resend: Deadline,
    join_resend: Deadline,
    repair_retry: Deadline,
    get_view_retry: Deadline,
    /// The view that was asked for last.
    get_view_asked: View,
}

/// The checksum that the first prepare of a cluster names as its parent.
pub fn root_checksum(cluster: u128) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(b"stampede log 1 \0");
    bytes[16..].copy_from_slice(&cluster.to_le_bytes());
    checksum(&bytes)
}

impl Vsr {
    /// A replica as it was when it stopped.
    ///
    /// # Panics
    /// When `recovered` contradicts itself: whoever read the disk has checked.
    pub fn new(config: Config, pool: Pool, recovered: Recovered) -> Self {
        let Recovered {
            promise,
            log,
            unsure_from,
            checkpoint_op,
            checkpoint_lost,
            sessions,
            pulse_due,
            commit,
            first_start,
        } = recovered;
        assert!(promise.log_view <= promise.view);
        assert!((1..=REPLICAS_MAX).contains(&usize::from(config.replica_count)));
        assert!(config.replica < config.replica_count + config.standby_count);
        assert!(log.base() <= checkpoint_op && checkpoint_op <= log.head());
        let head = log.head();
        let alone = config.replica_count == 1 && config.replica == 0;
        // Alone, what is on disk is on a quorum.
        let commit = if alone {
            head
        } else {
            commit.max(checkpoint_op).min(head)
        };
        let is_primary =
            promise.view % View::from(config.replica_count) == View::from(config.replica);
        let is_standby = config.replica >= config.replica_count;
        let voting = match (is_standby, promise.recovering) {
            (true, _) => Voting::Standby,
            (false, true) => Voting::Recovering,
            (false, false) => Voting::Voter,
        };
        // What it had sent before its own disk had it, others may have; alone nobody else counts, but
        // standbys follow.
        let resumes = alone && config.standby_count == 0;
        let status = if promise.recovering {
            Status::Recovering
        } else if promise.log_view < promise.view {
            Status::ViewChange
        } else if is_primary && !resumes && !first_start && !Mutant::ResumesItsView.is_on() {
            Status::Resigned
        } else if unsure_from.is_some() {
            Status::CatchUp
        } else {
            Status::Normal
        };
        let timestamp = log.head_timestamp();
        let mut vsr = Self {
            config,
            pool,
            status,
            view: promise.view,
            log_view: promise.log_view,
            log_view_op: promise.log_view_op,
            promising: VecDeque::new(),
            promise_due: false,
            promised: promise,
            voting,
            welcomes: [None; REPLICAS_MAX],
            log,
            written: head,
            durable: 0,
            unsure_from,
            holes: Holes::default(),
            commit,
            executing: checkpoint_op,
            executed: checkpoint_op,
            prepares: BTreeMap::new(),
            execution: VecDeque::new(),
            execution_read: checkpoint_op,
            log_bytes_since_checkpoint: 0,
            checkpoint_running: false,
            checkpoint_op,
            checkpoint_lost,
            sessions,
            inflight: BTreeMap::new(),
            requests: VecDeque::new(),
            early: VecDeque::new(),
            seen: BTreeMap::new(),
            timestamp,
            clock: Clock::new(config.replica, config.replica_count),
            heartbeat_heard: None,
            pulse_due,
            pulse_inflight: false,
            journal_free: 0,
            disk_full: false,
            halted: false,
            machine_full: false,
            acknowledged: [0; REPLICAS_MAX],
            view_head: 0,
            target: None,
            repair_donor: 0,
            verified: commit,
            expected: BTreeMap::new(),
            ahead: BTreeMap::new(),
            repair_until: 0,
            inquiry: Inquiry::default(),
            beyond_reach: None,
            waits_for: None,
            exit_votes: [None; REPLICAS_MAX],
            exiting: false,
            joins: Default::default(),
            heard: [0; REPLICAS_MAX],
            last_tick: 0,
            heartbeat: Deadline::after(0, 0),
            heartbeat_commit: 0,
            primary_silent: Deadline::NEVER,
            exit_resend: Deadline::after(0, 0),
            join_resend: Deadline::after(0, 0),
            repair_retry: Deadline::after(0, 0),
            get_view_retry: Deadline::after(0, 0),
            get_view_asked: 0,
        };
        vsr.repair_donor = vsr.primary();
        vsr.update_durable();
        vsr
    }

    /// To be called once, before the first event: starts the timers and whatever was under way.
    pub fn start(&mut self, now: Time, effects: &mut Effects) {
        self.last_tick = now.monotonic;
        self.arrive(now, effects);
        self.execute_committed(effects);
    }

    /// Goes on where it stopped.
    fn begin(&mut self, now: Time, effects: &mut Effects) {
        self.reset_primary_silent(now);
        self.heard = [now.monotonic; REPLICAS_MAX];
        match self.status {
            // The promise comes first even here: from its first prepare on, a primary has a former
            // life, and the disk must know.
            Status::Normal if self.is_primary() => self.persist(effects),
            Status::Normal | Status::Recovering => {}
            Status::Resigned => self.vote_exit(now, effects),
            Status::ViewChange => self.join(now, effects),
            Status::CatchUp => self.get_view(self.view, now, effects),
        }
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn view(&self) -> View {
        self.view
    }

    /// The latest view that has begun here and that a restart would not forget. Clients are told this
    /// one: they never go back, a request that names a view which nobody remembers is ignored for ever,
    /// and one that reaches the primary of a view before it has begun is lost.
    pub fn view_begun(&self) -> View {
        self.promised.log_view
    }

    pub fn log_view(&self) -> View {
        self.log_view
    }

    pub fn head(&self) -> Op {
        self.log.head()
    }

    pub fn commit(&self) -> Op {
        self.commit
    }

    /// The journal holds everything up to and with this operation.
    pub fn durable(&self) -> Op {
        self.durable
    }

    /// The journal has written everything up to and with this operation, whatever its disk has damaged
    /// since.
    pub fn written(&self) -> Op {
        self.written
    }

    pub fn executed(&self) -> Op {
        self.executed
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Whether this replica is the primary of its view, and the view is under way here.
    pub fn is_serving(&self) -> bool {
        self.status == Status::Normal && self.is_primary()
    }

    /// How many operations of its view this backup has not executed yet, once it has heard of any.
    pub fn behind(&self) -> Option<u64> {
        let hears = self.status == Status::Normal && !self.is_primary() && self.view_head > 0;
        hears.then(|| self.view_head.saturating_sub(self.executed))
    }

    /// How the clock of this replica stands to the others, if it is the primary.
    pub fn clock_agreement(&self) -> Agreement {
        if self.is_serving() {
            self.clock.agreement()
        } else {
            Agreement::Unheard
        }
    }

    /// The cluster time of the last operation of the log.
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// The wiring says how many bytes the journal can take before it is full.
    pub fn set_journal_free(&mut self, bytes: u64) {
        self.journal_free = bytes;
    }

    /// An operation without which the view cannot begin: it may have been acknowledged, and nobody who
    /// has joined has it whole.
    pub fn waits_for(&self) -> Option<Op> {
        self.waits_for
    }

    /// What grows and shrinks here: its name, its length, and its bound. For checkers.
    pub fn queues(&self) -> [(&'static str, usize, usize); 11] {
        let entries =
            usize::try_from(log_entries_max(self.config.journal_bytes)).unwrap_or(usize::MAX);
        let log = usize::try_from(self.log.head() - self.log.base()).unwrap_or(usize::MAX);
        [
            ("requests", self.requests.len(), REQUESTS_MAX),
            ("early requests", self.early.len(), EARLY_MAX),
            (
                "clients in flight",
                self.inflight.len(),
                REQUESTS_MAX + PIPELINE_MAX,
            ),
            ("requests seen", self.seen.len(), SEEN_MAX),
            ("prepares to execute", self.prepares.len(), PIPELINE_MAX),
            ("prepares ahead", self.ahead.len(), PIPELINE_MAX),
            (
                "prepares expected",
                self.expected.len(),
                EXPECTED_MAX + PIPELINE_MAX,
            ),
            ("promises under way", self.promising.len(), PROMISES_MAX),
            ("entries found again", self.holes.found(), REPAIR_WINDOW),
            ("executions", self.execution.len(), EXECUTE_MAX),
            ("log entries", log, entries),
        ]
    }

    /// Requests waiting, for bounds checks.
    pub fn queue_len(&self) -> usize {
        self.requests.len()
    }

    fn primary_of(&self, view: View) -> ReplicaIndex {
        u8::try_from(view % View::from(self.config.replica_count)).expect("below replica_count")
    }

    fn primary(&self) -> ReplicaIndex {
        self.primary_of(self.view)
    }

    fn is_primary(&self) -> bool {
        self.primary() == self.config.replica
    }

    /// The other replicas.
    fn others(&self) -> impl Iterator<Item = ReplicaIndex> + use<> {
        let me = self.config.replica;
        (0..self.config.replica_count).filter(move |r| *r != me)
    }

    /// The other replicas, and the standbys.
    fn followers(&self) -> impl Iterator<Item = ReplicaIndex> + use<> {
        let me = self.config.replica;
        let members = self.config.replica_count + self.config.standby_count;
        (0..members).filter(move |r| *r != me)
    }

    /// The view's log is whole here, and that is on disk: messages may say so.
    fn may_speak_for_view(&self) -> bool {
        self.status == Status::Normal
            && self.promising.is_empty()
            && self.promised.view == self.view
            && self.promised.log_view == self.view
    }

    fn persist(&mut self, effects: &mut Effects) {
        self.promise_due = self.promising.len() >= PROMISES_MAX;
        if self.promise_due {
            return;
        }
        let promise = Promise {
            view: self.view,
            log_view: self.log_view,
            log_view_op: self.log_view_op,
            // Beyond that the disk may still hold what died in a view change: its replacements are on
            // their way.
            commit: self.commit.min(self.durable),
            recovering: self.is_recovering(),
        };
        self.promising.push_back(promise);
        effects.push(Effect::Persist(promise));
    }

    fn header(&self, command: Command) -> Header {
        Header::new(command, self.config.cluster, self.config.replica, self.view)
    }

    /// Sends a control message. Without a free buffer it is not sent: timers will try again.
    fn send(&self, to: ReplicaIndex, header: Header, body: &[u8], effects: &mut Effects) {
        if let Some(mut message) = self.pool.acquire(body.len()) {
            message.fill(header, body);
            effects.push(Effect::Send {
                to,
                message: message.freeze(),
            });
        }
    }

    /// Sends a control message to everybody who follows.
    fn broadcast(&self, header: Header, body: &[u8], effects: &mut Effects) {
        if self.followers().next().is_none() {
            return;
        }
        if let Some(mut message) = self.pool.acquire(body.len()) {
            message.fill(header, body);
            let message = message.freeze();
            for to in self.followers() {
                effects.push(Effect::Send {
                    to,
                    message: message.clone(),
                });
            }
        }
    }

    fn on_message(&mut self, message: Message, now: Time, effects: &mut Effects) {
        let header = *message.header();
        let from = header.replica;
        // A prepare keeps the index of the primary that made it, whoever passes it on.
        let members = self.config.replica_count + self.config.standby_count;
        if from >= members || header.cluster != self.config.cluster {
            return;
        }
        let Some(command) = header.command() else {
            return;
        };
        if from == self.config.replica && !matches!(command, Command::Prepare | Command::Request) {
            return;
        }
        if from >= self.config.replica_count
            && !matches!(
                command,
                Command::GetPrepares | Command::GetView | Command::Request
            )
            && !Mutant::StandbyCounts.is_on()
        {
            // Standbys have no say.
            return;
        }
        if let Some(heard) = self.heard.get_mut(usize::from(from)) {
            *heard = now.monotonic;
        }
        match command {
            Command::Request => {
                if let Ok(request) = message.try_unique() {
                    self.on_request(request, now, effects);
                }
            }
            Command::Prepare => self.on_prepare(message, now, effects),
            Command::PrepareOk => self.on_prepare_ok(&header, now, effects),
            Command::Commit => self.on_commit(&header, now, effects),
            Command::GetPrepares => self.on_get_prepares(&header, effects),
            Command::Headers => self.on_headers(&header, &suffix_of(&message), now, effects),
            Command::ExitView => self.on_exit_view(&header, now, effects),
            Command::JoinView => self.on_join_view(&header, suffix_of(&message), now, effects),
            Command::View => self.on_view(&header, &suffix_of(&message), now, effects),
            Command::GetView => self.on_get_view(&header, effects),
            Command::Hello | Command::Welcome | Command::Reply => {}
            // Not consensus: files.
            Command::GetCheckpoint | Command::Checkpoint | Command::GetBlock | Command::Block => {}
        }
    }

    fn on_tick(&mut self, now: Time, effects: &mut Effects) {
        // Ticks that came late: this replica did not run, and whoever it did not hear may have spoken.
        let late = now.monotonic.saturating_sub(self.last_tick + TICK_NS);
        self.last_tick = now.monotonic;
        if late > TICK_NS {
            self.primary_silent = self.primary_silent.postponed(late);
            for heard in &mut self.heard {
                *heard += late;
            }
        }
        self.tick_arrival(now, effects);
        match self.status {
            _ if self.is_arriving() => return,
            Status::Normal if self.is_primary() => self.tick_primary(now, effects),
            Status::Normal | Status::CatchUp => {
                self.tick_exit(now, effects);
                if self.awaits_view() {
                    self.get_view(self.view, now, effects);
                }
                self.repair(now, effects);
            }
            Status::Resigned => self.tick_exit(now, effects),
            Status::Recovering => {}
            Status::ViewChange => {
                self.tick_exit(now, effects);
                self.tick_join(now, effects);
                self.repair(now, effects);
            }
        }
        self.fetch_holes(now, effects);
        self.execute_committed(effects);
    }

    fn on_persisted(&mut self, now: Time, effects: &mut Effects) {
        let Some(promise) = self.promising.pop_front() else {
            return;
        };
        self.promised = promise;
        if self.promise_due {
            self.persist(effects);
        }
        if promise.view != self.view {
            return;
        }
        match self.status {
            Status::ViewChange => self.join(now, effects),
            Status::Normal if promise.log_view == self.view => {
                if self.is_primary() {
                    self.begin_as_primary(now, effects);
                } else {
                    self.acknowledge(effects);
                }
            }
            Status::Normal | Status::CatchUp | Status::Resigned | Status::Recovering => {}
        }
    }

    fn on_checkpointed(&mut self, op: Op, trimmed: Op) {
        assert!(op <= self.executed);
        self.checkpoint_running = false;
        self.checkpoint_op = op;
        self.log.trim(trimmed.min(op));
        // What is missing below the checkpoint is needed by nobody here.
        if let Some(hole) = self.log.missing().take_while(|hole| *hole <= op).last() {
            self.log.trim(hole);
        }
        self.forget_holes();
        self.update_durable();
    }

    fn assert_invariants(&self) {
        assert!(self.executed <= self.executing);
        assert!(self.executing <= self.commit);
        assert!(self.commit <= self.log.head());
        assert!(self.durable <= self.written);
        assert!(self.written <= self.log.head());
        assert!(self.log_view <= self.view);
        assert!(self.log.base() <= self.checkpoint_op);
    }
}

/// The checksums that a message's body lists.
fn suffix_of(message: &Message) -> Vec<u128> {
    message
        .body()
        .as_chunks::<16>()
        .0
        .iter()
        .take(crate::limits::SUFFIX_MAX)
        .map(|bytes| u128::from_le_bytes(*bytes))
        .collect()
}

/// A body that lists checksums.
fn body_of(checksums: &[u128]) -> Vec<u8> {
    checksums
        .iter()
        .flat_map(|checksum| checksum.to_le_bytes())
        .collect()
}

impl Protocol for Vsr {
    fn on_event(&mut self, event: Event, now: Time, effects: &mut Effects) {
        match event {
            Event::Tick => self.on_tick(now, effects),
            // Whoever has just started hears nothing until it may answer: all is said again.
            Event::Request(_) | Event::Message(_) if self.is_arriving() => {}
            Event::Request(request) => self.on_request(request, now, effects),
            Event::Message(message) => self.on_message(message, now, effects),
            Event::PeerStarted {
                replica,
                recovering: _,
            } => self.on_peer_started(replica),
            Event::PeerLost { replica } => self.on_peer_lost(replica, now, effects),
            Event::Welcomed { replica, view } => self.on_welcomed(replica, view, now, effects),
            Event::RolledBack => self.on_rolled_back(now, effects),
            Event::Durable { op, checksum } => self.on_durable(op, checksum, now, effects),
            Event::Restored { op } => self.on_restored(op, now, effects),
            Event::Damaged { op } => self.on_damaged(op, now, effects),
            Event::Read {
                op,
                purpose,
                message,
            } => match purpose {
                ReadFor::Execute => self.on_read_for_execution(op, message, effects),
                ReadFor::Replica(to) => self.on_read_for_replica(op, to, message, effects),
            },
            Event::Executed {
                op,
                reply,
                pulse_due,
            } => {
                self.on_executed(op, reply, pulse_due, now, effects);
            }
            Event::Persisted => self.on_persisted(now, effects),
            Event::Checkpointed { op, trimmed } => {
                self.on_checkpointed(op, trimmed);
                self.durable_moved(now, effects);
            }
        }
        self.forget_reached();
        self.assert_invariants();
    }
}
