//! The replica: gateway, protocol, journal, superblock and executor, wired together once.
//!
//! Both worlds, the runtime and the simulator, drive this and nothing else. It makes no system call
//! and reads no clock; see [`io`] for what it exchanges with its world.
//!
//! | file | what it connects |
//! | --- | --- |
//! | `io` | inputs and outputs |
//! | `ingress` | the first look at a header, for the world's receive |
//! | `peers` | who the other members are, and in which life |
//! | `misfit` | others that are not made as this replica is |
//! | `clients` | foreign messages ⇄ requests and replies; which client waits where |
//! | `storage` | protocol effects ⇄ journal writes and reads |
//! | `superblock` | promises and checkpoints, made durable |
//! | `executor` | committed prepares, applied on another thread |
//! | `pace` | execution and checkpoints in step |
//! | `room` | a checkpoint and a full disk |
//! | `transfer/` | a checkpoint fetched from another replica, or lent to one |
//! | `library` | blocking work on checkpoint files, for another thread |
//! | `scrub` | what lies on the disk, verified before it is needed |
//! | `open`, `scan` | all of it, from what a disk holds |
//! | `image` | checkpoint and log of a replica, for a backup |
//!
//! Promises: an effect of the protocol reaches the world in the order in which it was caused; nothing
//! is said before it is durable; a failed write stops the replica.

mod clients;
pub mod misfit;
mod pace;
mod room;
mod peers;
pub mod executor;
pub mod image;
pub mod ingress;
pub mod io;
pub mod library;
pub mod open;
mod scan;
pub mod scrub;
#[cfg(test)]
mod scan_test;
mod storage;
pub mod superblock;
mod transfer;
#[cfg(test)]
mod replica_test;

use std::collections::VecDeque;
use std::sync::Arc;

use clients::Clients;
use executor::{
    Applied, CheckpointDone, CheckpointTask, ClientTable, Done, FullDisk, Outcome, Task, Unwritten,
};
use io::{ConnectionId, Fatal, Input, Output};
use misfit::Misfits;
use pace::Pace;
use peers::{Introduction, Peers};
use room::Room;
use scrub::{Scrub, Scrubbed};
use storage::{Entries, ReadFailed, Written};
use superblock::{Change, Checkpoint, Life, Past, Superblock};
use transfer::fetch::Fetcher;
pub use transfer::fetch::Transfer;
use transfer::lend::Lender;
use transfer::mend::Mender;
use zerocopy::FromBytes;

use crate::limits::{BODY_SIZE_MAX, REPAIR_WINDOW, log_bytes};
use crate::message::{Command, Header, Message, MessageMut, Op, Pool};
use crate::mutant::Mutant;
use crate::protocol::{Effect, Effects, Event, Protocol, Time};
use crate::store::{Damage, FileName};
use crate::vsr::clock::Agreement;
pub use crate::vsr::timeout::TICK_NS;
use crate::vsr::{Status, Vsr};

/// A bound on the size of an operation's reply, from its code and its body.
pub type ReplySize = fn(operation: u8, body: &[u8]) -> usize;

/// A replica, without the world around it.
#[derive(Debug)]
pub struct Replica {
    vsr: Vsr,
    entries: Entries,
    superblock: Superblock,
    clients: Clients,
    peers: Peers,
    misfits: Misfits,
    /// The random part of the present life.
    life_number: u64,
    pool: Pool,
    /// The protocol's effects of one event; empty between events.
    effects: Effects,
    /// Committed prepares that wait for a reply buffer, in order.
    executions: VecDeque<(Message, bool)>,
    reply_size: ReplySize,
    /// A checkpoint whose files are written and which waits for its prepare to be durable here.
    checkpoint_written: Option<Checkpoint>,
    /// What the checkpoint under way was taken after.
    checkpoint_of: Option<(Op, u128, u64)>,
    /// The same one, while it is being captured.
    capturing: Option<CheckpointTask>,
    /// A checkpoint is due for every so many bytes of log.
    checkpoint_bytes: u64,
    /// Bytes of log handed to the executor since the operation of the last checkpoint.
    executed_bytes: u64,
    /// Of the checkpoint that is being written.
    pace: Option<Arc<Pace>>,
    /// The commit point that was found at the start.
    opened_commit: Op,
    /// For checkpoints, on the disk.
    room: Room,
    /// The checkpoint on this disk cannot be read: nothing is executed until another one is here.
    checkpoint_lost: bool,
    fetcher: Fetcher,
    lender: Lender,
    scrub: Scrub,
    mender: Mender,
    /// The superblock is being made to refer to a checkpoint that was fetched.
    installing: bool,
    /// The executor has met damage, and executes nothing any more.
    halted: bool,
    idle_ticks: u32,
    stopped: bool,
}

/// For status lines, checkers and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub status: Status,
    pub view: u32,
    pub head: Op,
    pub commit: Op,
    pub executed: Op,
    pub checkpoint: Op,
    pub serving: bool,
    /// It lacks operations that the journals of the others no longer hold.
    pub beyond_reach: bool,
    /// Its disk had forgotten what it promised: it does not vote.
    pub recovering: bool,
    /// Entries of its log that its disk has damaged, and that are being fetched again.
    pub missing: u64,
    /// The view cannot begin without this operation, which nobody who has joined it has whole.
    pub waits_for: Option<Op>,
    /// How its clock stands to those of the others, while it is the primary.
    pub clock: Agreement,
    /// A checkpoint waits for room on its disk.
    pub full: Option<FullDisk>,
    /// Its machine has no room for more, and never will.
    pub machine_full: bool,
    /// Its own checkpoint cannot be read.
    pub checkpoint_lost: bool,
    /// A checkpoint is being fetched.
    pub transfer: Option<Transfer>,
    /// What the scrub and execution have found.
    pub scrubbed: Scrubbed,
    /// It executes nothing until that is mended.
    pub halted: bool,
    /// A damaged file of the checkpoint that is being fetched again.
    pub mending: Option<FileName>,
    /// Operations of its view that this backup has yet to execute.
    pub behind: Option<u64>,
}

impl Replica {
    /// To be called once before the first input.
    pub fn start(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let life = Life {
            starts: self.superblock.state().starts + 1,
            number: self.life_number,
        };
        self.begin_life(life, outputs);
        self.vsr.set_journal_free(self.entries.free());
        let mut effects = std::mem::take(&mut self.effects);
        self.vsr.start(now, &mut effects);
        self.effects = effects;
        self.drain(now, outputs);
    }

    /// A life is durable before anybody hears of it.
    fn begin_life(&mut self, life: Life, outputs: &mut Vec<Output>) {
        self.peers.begin_life(life);
        self.superblock.change(Change::Start(life), outputs);
    }

    pub fn progress(&self) -> Progress {
        Progress {
            status: self.vsr.status(),
            view: self.vsr.view(),
            head: self.vsr.head(),
            commit: self.vsr.commit(),
            executed: self.vsr.executed(),
            checkpoint: self.superblock.state().checkpoint_op,
            serving: self.vsr.is_serving(),
            beyond_reach: self.vsr.is_beyond_reach(),
            recovering: self.vsr.is_recovering(),
            missing: self.vsr.log().missing().len() as u64,
            waits_for: self.vsr.waits_for(),
            clock: self.vsr.clock_agreement(),
            full: self.room.lacking(),
            checkpoint_lost: self.checkpoint_lost,
            transfer: self.fetcher.progress(),
            scrubbed: self.scrubbed(),
            halted: self.halted,
            machine_full: self.vsr.is_machine_full(),
            mending: self.mender.file(),
            behind: self.vsr.behind(),
        }
    }

    fn is_alone(&self) -> bool {
        self.superblock.state().is_alone()
    }

    /// The protocol, for checkers.
    pub fn vsr(&self) -> &Vsr {
        &self.vsr
    }

    pub fn superblock(&self) -> &superblock::State {
        self.superblock.state()
    }

    /// Refusals since the start, by name.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.clients.refusals()
    }

    /// The misfits that have been refused since this was asked last.
    pub fn take_misfits(&mut self) -> Misfits {
        std::mem::take(&mut self.misfits)
    }

    /// Takes one input and appends what the world is to do.
    pub fn on_input(&mut self, input: Input, now: Time, outputs: &mut Vec<Output>) {
        // Once a fetched checkpoint is being installed nothing matters but that this becomes durable.
        let ignored = self.installing && !matches!(input, Input::SuperblockWritten { .. });
        if self.stopped || ignored {
            return;
        }
        match input {
            Input::Tick => {
                self.idle(outputs);
                outputs.extend(self.room.due(now.monotonic).map(Output::Checkpoint));
                self.deliver(Event::Tick, now, outputs);
                self.tick_transfer(now, outputs);
                self.tick_scrub(now, outputs);
                self.recall(outputs);
            }
            Input::Received {
                connection,
                message,
            } => {
                self.on_received(connection, message, now, outputs);
            }
            Input::Closed { connection } => {
                self.clients.closed(connection);
                if let Some(replica) = self.peers.closed(connection) {
                    self.deliver(Event::PeerLost { replica }, now, outputs);
                }
            }
            Input::Peer { replica, connected } => self.peers.connected(replica, connected),
            Input::JournalWritten { token, result } => {
                // What a view change has cut was replaced on purpose; what came before it still counts.
                let log = self.vsr.log();
                let in_force = |op, checksum| log.checksum(op) == Some(checksum);
                match self.entries.on_written(token, result, in_force, outputs) {
                    Ok(Written { newest, restored }) => {
                        if let Some((op, checksum)) = newest {
                            self.deliver(Event::Durable { op, checksum }, now, outputs);
                        }
                        for op in restored {
                            self.deliver(Event::Restored { op }, now, outputs);
                        }
                    }
                    Err(fatal) => self.stop(fatal, outputs),
                }
            }
            Input::JournalRead {
                token,
                message,
                result,
            } => match self.entries.on_read(token, message, result) {
                Ok(event) => self.deliver(event, now, outputs),
                Err(ReadFailed::Replaced) => {}
                // Others have it, too; alone there is nobody to ask.
                Err(ReadFailed::Damaged { op, error }) if self.is_alone() => {
                    self.stop(Fatal::Read { op, error }, outputs);
                }
                Err(ReadFailed::Damaged { op, error: _ }) => {
                    self.deliver(Event::Damaged { op }, now, outputs);
                }
            },
            Input::SuperblockWritten { token: _, result } => {
                self.on_superblock_written(result, now, outputs);
            }
            Input::Done(done) => self.on_done(done, now, outputs),
            Input::CheckpointDone(done) => self.on_checkpoint_written(done, now, outputs),
            Input::Library(done) => self.on_library(done, now, outputs),
        }
        if self.installing {
            return;
        }
        self.tell_peers(now, outputs);
        self.persist_checkpoint(outputs);
        self.entries.retry_reads(&self.pool, outputs);
        self.start_executions(outputs);
    }

    fn deliver(&mut self, event: Event, now: Time, outputs: &mut Vec<Output>) {
        self.vsr.set_journal_free(self.entries.free());
        let mut effects = std::mem::take(&mut self.effects);
        self.vsr.on_event(event, now, &mut effects);
        self.effects = effects;
        self.drain(now, outputs);
    }

    /// Carries out the protocol's effects.
    fn drain(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => outputs.push(Output::SendReplica { to, message }),
                Effect::Append { message } => {
                    if let Err(fatal) = self.entries.append(message, outputs) {
                        self.stop(fatal, outputs);
                    }
                }
                Effect::Restore { message } => {
                    if let Err(fatal) = self.entries.restore(message, outputs) {
                        self.stop(fatal, outputs);
                    }
                }
                Effect::Read { op, purpose } => {
                    self.entries.read(op, purpose, &self.pool, outputs);
                }
                Effect::Execute {
                    message,
                    checkpoint,
                } => {
                    self.executions.push_back((message, checkpoint));
                }
                Effect::Wait { client, request } => self.clients.wait(client, request),
                Effect::Reply { client, reply } => {
                    let view = self.vsr.view_begun();
                    if let Some(session) = self.vsr.sessions().get(client) {
                        let client = (client, session);
                        self.clients.reply(client, reply, view, &self.pool, outputs);
                    }
                }
                Effect::Evict { client, reason } => {
                    let view = self.vsr.view_begun();
                    self.clients
                        .evict(client, reason, view, &self.pool, outputs);
                }
                Effect::Persist(promise) => {
                    self.note_sound();
                    self.superblock.change(Change::Promise(promise), outputs);
                }
            }
        }
        let _ = now;
        self.effects = effects;
        self.start_executions(outputs);
    }

    // ── messages ────────────────────────────────────────────────────────────────────────────

    fn on_received(
        &mut self,
        connection: ConnectionId,
        message: MessageMut,
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        if crate::message::is_ours(message.header_bytes()) {
            match self.clients.check_peer(&message) {
                Ok(command) => self.on_peer_message(connection, command, message, now, outputs),
                Err(reason) => {
                    // One of another cluster fails here.
                    self.fits(message.header());
                    outputs.push(Output::Close { connection, reason });
                }
            }
            return;
        }
        if self.superblock.state().is_standby() {
            let reason = self.clients.refuse_peer("standby");
            return outputs.push(Output::Close { connection, reason });
        }
        let standing = clients::Standing {
            view: self.vsr.view_begun(),
            // Without its checkpoint this replica knows of no session, and takes none for ended.
            commit: if self.checkpoint_lost {
                0
            } else {
                self.vsr.executed()
            },
            sessions: self.vsr.sessions(),
            serving: self.vsr.is_serving(),
        };
        let request = self
            .clients
            .receive(connection, message, &standing, &self.pool, outputs);
        if let Some(request) = request {
            self.clients.arriving(Some(connection));
            self.deliver(Event::Request(request), now, outputs);
            self.clients.arriving(None);
        }
    }

    fn on_peer_message(
        &mut self,
        connection: ConnectionId,
        command: Command,
        message: MessageMut,
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        let header = *message.header();
        if command == Command::Hello {
            let past = Past::read_from_bytes(message.body()).ok();
            return self.on_hello(connection, &header, past, now, outputs);
        }
        // From a former life, or before an introduction: whatever it was is said again.
        let Some(speaker) = self.peers.speaker(connection) else {
            return;
        };
        // A prepare keeps the index of the primary that made it, whoever passes it on.
        if speaker != header.replica && command != Command::Prepare {
            let reason = self.clients.refuse_peer("peer_replica");
            return outputs.push(Output::Close { connection, reason });
        }
        match command {
            Command::Welcome => self.on_welcome(&header, now, outputs),
            Command::Request => self.deliver(Event::Request(message), now, outputs),
            Command::GetCheckpoint | Command::Checkpoint | Command::GetBlock | Command::Block => {
                self.on_transfer(message.freeze(), now, outputs);
            }
            Command::Hello
            | Command::Prepare
            | Command::PrepareOk
            | Command::Commit
            | Command::GetPrepares
            | Command::Headers
            | Command::ExitView
            | Command::JoinView
            | Command::View
            | Command::GetView
            | Command::Reply => self.deliver(Event::Message(message.freeze()), now, outputs),
        }
    }

    // ── introductions ───────────────────────────────────────────────────────────────────────

    fn hello(&self) -> Header {
        let recovering = self.vsr.is_recovering();
        peers::hello(self.superblock.state(), self.vsr.view(), recovering)
    }

    /// Whether this may be the hello of another member; takes note of one that is not.
    fn fits(&mut self, header: &Header) -> bool {
        if header.command() != Some(Command::Hello) {
            return false;
        }
        let differences = misfit::differences(header, &self.hello());
        let fits = differences.is_empty();
        if !fits {
            self.misfits.insert(header.replica, differences);
        }
        fits
    }

    fn on_hello(
        &mut self,
        connection: ConnectionId,
        header: &Header,
        past: Option<Past>,
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        let fits = self.fits(header);
        let Some(past) = past.filter(|_| fits) else {
            let reason = self.clients.refuse_peer("peer_configuration");
            return outputs.push(Output::Close { connection, reason });
        };
        let replica = header.replica;
        let introduction = self.peers.introduce(connection, header, &past);
        if let Introduction::New { life, recovering } = introduction {
            let change = Change::Member(replica, life);
            self.superblock.change(change, outputs);
            let event = Event::PeerStarted {
                replica,
                recovering,
            };
            self.deliver(event, now, outputs);
        }
        if !self.peers.is_connected(replica) {
            // It is there: no use in waiting for the next attempt.
            outputs.push(Output::Dial { replica });
        }
    }

    fn on_welcome(&mut self, header: &Header, now: Time, outputs: &mut Vec<Output>) {
        let (replica, view) = (header.replica, header.view);
        match self.peers.on_welcome(header) {
            None => {}
            Some(true) => self.deliver(Event::Welcomed { replica, view }, now, outputs),
            Some(false) => {
                // First that it may not vote, then the life in which it says so.
                self.deliver(Event::RolledBack, now, outputs);
                let life = self.peers.life_after(header.op);
                self.begin_life(life, outputs);
            }
        }
    }

    fn tell_peers(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let (hello, view) = (self.hello(), self.vsr.view());
        let (pool, past) = (&self.pool, &self.superblock.state().past);
        self.peers
            .tell(&hello, view, now.monotonic, past, |to, header, body| {
                let Some(mut message) = pool.acquire(body.len()) else {
                    return false;
                };
                message.fill(header, body);
                let message = message.freeze();
                outputs.push(Output::SendReplica { to, message });
                true
            });
    }

    // ── execution and checkpoints ───────────────────────────────────────────────────────────

    /// Hands prepares to the executor, in order, as reply buffers are free.
    fn start_executions(&mut self, outputs: &mut Vec<Output>) {
        if self.halted {
            return;
        }
        while let Some((prepare, _)) = self.executions.front() {
            let header = prepare.header();
            // What is executed again after a start keeps nobody's pace: all wait for the end of it.
            let again = header.op <= self.opened_commit;
            if !again && self.pace.as_ref().is_some_and(|pace| !pace.may_execute()) {
                return;
            }
            let size = if header.operation >= executor::OPERATION_MACHINE_MIN {
                (self.reply_size)(header.operation, prepare.body()).min(BODY_SIZE_MAX)
            } else {
                executor::REGISTER_REPLY_SIZE
            };
            let Some(reply) = self.pool.acquire(size) else {
                return;
            };
            let Some((prepare, checkpoint)) = self.executions.pop_front() else {
                return;
            };
            let header = prepare.header();
            let bytes = log_bytes(header.size);
            self.executed_bytes += bytes;
            if let Some(pace) = &self.pace {
                pace.executed(bytes);
            }
            if checkpoint {
                self.executed_bytes = 0;
                self.checkpoint_of = Some((header.op, header.checksum, header.timestamp));
            }
            outputs.push(Output::Task(Task::Apply {
                prepare,
                reply,
                checkpoint,
            }));
        }
    }

    fn on_done(&mut self, done: Done, now: Time, outputs: &mut Vec<Output>) {
        let Done { op, result } = done;
        match result {
            Ok(Outcome::Applied(applied)) => self.on_applied(op, applied, now, outputs),
            Ok(Outcome::Captured { complete: false }) => {
                outputs.push(Output::Task(Task::Capture { op }));
            }
            Ok(Outcome::Captured { complete: true }) => {
                let task = self.capturing.take().expect("it was being captured");
                assert_eq!(task.op, op);
                outputs.push(Output::Checkpoint(task));
            }
            Err(damage) => self.on_not_executed(op, damage, outputs),
        }
    }

    fn on_applied(&mut self, op: Op, applied: Applied, now: Time, outputs: &mut Vec<Output>) {
        let Applied {
            reply,
            pulse_due,
            full,
            snapshot,
        } = applied;
        self.vsr.set_machine_full(full);
        self.deliver(
            Event::Executed {
                op,
                reply,
                pulse_due,
            },
            now,
            outputs,
        );
        if let Some(snapshot) = snapshot {
            // The client table is as of `op`: the executor's answers come in order.
            let sessions = ClientTable::Captured(self.vsr.sessions().clone());
            let former = self.superblock.state().manifest();
            let former = former.filter(|_| !Mutant::SweepsTooEarly.is_on());
            let lent = self.lender.kept(now.monotonic);
            // What is being fetched belongs to no checkpoint yet: nothing is swept meanwhile.
            let keep =
                (!self.fetcher.is_active()).then(|| former.into_iter().chain(lent).collect());
            let size = snapshot.size() + sessions.encoded_size() as u64;
            let pace = Arc::new(Pace::new(size, self.checkpoint_bytes, self.executed_bytes));
            self.pace = Some(Arc::clone(&pace));
            self.capturing = Some(CheckpointTask {
                op,
                snapshot,
                sessions,
                keep,
                pace,
            });
            outputs.push(Output::Task(Task::Capture { op }));
        }
    }

    /// Execution has met a file that is not what was written: it is over until that has been mended, and all
    /// has been opened again. As primary, this replica is of no use to anybody meanwhile.
    fn on_not_executed(&mut self, op: Op, damage: Damage, outputs: &mut Vec<Output>) {
        // A checkpoint that was to be captured with this operation or a later one never will be, nor what is
        // left of one.
        self.checkpoint_of.take_if(|(of, ..)| *of >= op);
        self.capturing.take_if(|task| task.op >= op);
        if !self.halted {
            self.halted = true;
            self.vsr.set_halted();
            self.on_damage(damage, outputs);
        }
    }

    fn on_checkpoint_written(
        &mut self,
        done: CheckpointDone,
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        let op = done.op;
        let manifest = match done.result {
            Ok(manifest) => manifest,
            Err(Unwritten::Full { task, disk }) => {
                // Execution goes on until the next one is due.
                task.pace.release();
                self.pace = None;
                self.room.wait(task, disk, now.monotonic);
                return self.vsr.set_disk_full(true);
            }
            Err(Unwritten::Failed(error)) => {
                return self.stop(Fatal::Checkpoint { op, error }, outputs);
            }
        };
        self.room.found();
        self.vsr.set_disk_full(false);
        let (of, prepare_checksum, timestamp) = self
            .checkpoint_of
            .take()
            .expect("one checkpoint is under way");
        assert_eq!(of, op);
        self.pace = None;
        self.checkpoint_written = Some(Checkpoint {
            op,
            prepare_checksum,
            timestamp,
            manifest,
            journal_start: 0,
            trim_position: 0,
            trimmed: 0,
        });
    }

    /// Refers to a written checkpoint once a restart could go on from it: its operation must be
    /// durable in this journal. What the disk has damaged up to there need not be mended first: nobody
    /// may have it any more whose checkpoint is further, and with this one it is not needed.
    fn persist_checkpoint(&mut self, outputs: &mut Vec<Output>) {
        let Some(mut checkpoint) = self.checkpoint_written else {
            return;
        };
        if self.vsr.written() < checkpoint.op {
            return;
        }
        self.checkpoint_written = None;
        // Nobody else may need what is kept of the log.
        let alone = self.superblock.state().member_count() == 1;
        let kept = self.entries.keep(checkpoint.op, alone);
        checkpoint.journal_start = kept.restart;
        checkpoint.trim_position = kept.position;
        checkpoint.trimmed = kept.trimmed;
        self.note_sound();
        self.superblock
            .change(Change::Checkpoint(checkpoint), outputs);
    }

    /// Where nothing is on its way to the journal and nothing in it is in doubt, what the log is now is
    /// worth knowing after the next damage.
    fn note_sound(&mut self) {
        if let (Some(position), Some((op, checksum))) = (self.entries.end(), self.vsr.sound_head())
        {
            self.superblock.set_sound(position, op, checksum);
        }
    }

    fn on_superblock_written(
        &mut self,
        result: std::io::Result<usize>,
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        match result {
            Ok(crate::limits::SECTOR_SIZE) => {}
            Ok(short) => {
                let error = std::io::Error::other(format!("only {short} bytes were written"));
                return self.stop(Fatal::Superblock(error), outputs);
            }
            Err(error) => return self.stop(Fatal::Superblock(error), outputs),
        }
        match self.superblock.on_written(outputs) {
            None => {}
            Some(Change::Install(_)) => {
                self.stopped = true;
                outputs.push(Output::Reopen);
            }
            // Nobody will hear of it: the next life begins with what is on the disk.
            Some(_) if self.installing => {}
            Some(Change::Start(life)) => self.peers.life_is_durable(life),
            Some(Change::Member(replica, life)) => self.peers.noted(replica, life),
            Some(Change::Promise(_)) => self.deliver(Event::Persisted, now, outputs),
            Some(Change::Checkpoint(checkpoint)) => {
                self.entries
                    .trim(checkpoint.trim_position, checkpoint.trimmed);
                outputs.push(Output::Task(Task::Published { op: checkpoint.op }));
                let (op, trimmed) = (checkpoint.op, checkpoint.trimmed);
                self.deliver(Event::Checkpointed { op, trimmed }, now, outputs);
            }
        }
    }

    /// Entries that the log lacks, and that the scan has seen without knowing that the log would name them.
    fn recall(&mut self, outputs: &mut Vec<Output>) {
        if !self.entries.has_strays() {
            return;
        }
        let log = self.vsr.log();
        for op in log.missing().take(REPAIR_WINDOW) {
            if let Some(checksum) = log.checksum(op) {
                self.entries.recall(op, checksum, &self.pool, outputs);
            }
        }
    }

    /// An idle journal says on disk how far it is durable.
    fn idle(&mut self, outputs: &mut Vec<Output>) {
        self.idle_ticks = if self.entries.marker_due() {
            self.idle_ticks + 1
        } else {
            0
        };
        if self.idle_ticks >= 2
            && let Some(buffer) = self.pool.acquire(0)
        {
            self.idle_ticks = 0;
            self.entries.marker(buffer.freeze(), outputs);
        }
    }

    fn stop(&mut self, fatal: Fatal, outputs: &mut Vec<Output>) {
        self.stopped = true;
        outputs.push(Output::Stop(fatal));
    }
}
