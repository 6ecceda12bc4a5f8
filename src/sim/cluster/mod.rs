//! A whole cluster in one thread: machines, clients and the network between them, driven by one
//! queue of events.
//!
//! ```text
//!            ┌─────────────── queue: the next event ◄──────────────────┐
//!            ▼                                                         │
//!   tick, done, arrival ──► Host ──► Replica::on_input ──► outputs ──► network, later
//!   timer, arrival ───────► Client ──► request, retry ───────────────► network
//!   fault ────────────────► crash, cut, pause, …
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | here | the parts, and what a test may do to them: the vocabulary of scenarios |
//! | `events` | what happens at each event |
//! | `strike` | what faults do |
//! | `links` | what a test may do to the network |
//! | `rest` | how a run ends: everything mends, everybody catches up, all is counted |
//!
//! Checkers watch all along; the first violation ends the run.

mod events;
mod links;
mod rest;
mod strike;

use std::collections::BTreeSet;
use std::ops::Range;

use strike::Flap;

use super::atlas::Atlas;
use super::check::{
    Acknowledged, AtMostOnce, Digests, Files, OneLog, OnePrimary, Replies, Violation,
};
use super::client::{Bytes, Client};
use super::clock::Clock;
use super::faults::Faults;
use super::host::{Host, Later, Started, WriteFault};
use super::network::{LinkId, Network, Node, Wake};
use super::options::{Options, Report};
use super::queue::{Instant, MILLISECOND, Queue, SECOND};
use super::random::{Random, Stream};
use super::trace::{Fingerprint, Lines, Trace};
use super::transcript::Transcript;
use super::workload::Workload;
use crate::message::{Message, Op, PoolConfig};
use crate::protocol::ReplicaIndex;
use crate::replica::superblock::Identity;
use crate::replica::{Progress, TICK_NS};
use crate::store::{FileKind, FileName};

/// The cluster that is simulated.
const CLUSTER: u128 = 0x5741_4d50;

/// States are compared at operations that are multiples of this.
const DIGEST_INTERVAL: u64 = 16;

type Checked<T = ()> = Result<T, Violation>;

/// A message on its way.
#[derive(Debug, Clone)]
enum Payload {
    /// From a replica, in its own buffer: so many bytes of header and body.
    Pooled(Message, usize),
    /// From a client.
    Bytes(Bytes),
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Tick {
        replica: ReplicaIndex,
        life: u32,
    },
    Done {
        replica: ReplicaIndex,
        life: u32,
        later: Later,
    },
    Wake(Wake),
    /// A replica dials another.
    Dial {
        from: ReplicaIndex,
        life: u32,
        to: ReplicaIndex,
    },
    ClientDial {
        client: u32,
        to: ReplicaIndex,
    },
    /// A client wants to ask, or to ask again.
    Timer {
        client: u32,
        timer: u64,
    },
    /// The next fault is due.
    Fault,
    Start {
        replica: ReplicaIndex,
    },
    Crash {
        replica: ReplicaIndex,
        down: Instant,
    },
    Mend {
        from: Node,
        to: Node,
    },
    /// A link that flaps does what it did not do until now: an index.
    Flap(usize),
    /// Messages are no longer delayed.
    Hasten {
        from: Node,
        to: Node,
    },
    Hurry {
        replica: ReplicaIndex,
    },
    /// Checkpoint files have room again.
    Room {
        replica: ReplicaIndex,
    },
    /// The copy of a disk is put back.
    PutBack {
        replica: ReplicaIndex,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Simulation {
    options: Options,
    queue: Queue<Event>,
    trace: Trace,
    transcript: Transcript,
    network: Network<Payload>,
    hosts: Vec<Host>,
    clients: Vec<Client>,
    faults: Faults,
    /// Delays of dialing, thinking and the like.
    random: Random,
    /// What exactly is damaged.
    random_disks: Random,
    /// By dialer and listener.
    peers: Vec<Vec<Option<LinkId>>>,
    /// Connections over which a damaged message has come that looks whole: they may be closed.
    damaged: BTreeSet<LinkId>,
    /// Connections between replicas of different releases: nothing that comes over them is taken.
    foreign: BTreeSet<LinkId>,
    /// Links that flap, or have: events would be twice as large with them.
    flaps: Vec<Flap>,
    /// Processes that do not run, and until when.
    paused: Vec<Instant>,
    /// Nothing is drawn any more; what is broken mends.
    calm: bool,
    log: OneLog,
    one_primary: OnePrimary,
    at_most_once: AtMostOnce,
    acknowledged: Acknowledged,
    replies: Replies,
    digests: Digests,
    files: Files,
    counts: Counts,
    /// When each client asked for what it waits for, and how long others have waited.
    asked: Vec<Instant>,
    latencies: Vec<Instant>,
}

#[derive(Debug, Default)]
struct Counts {
    starts: u64,
    checkpoints: BTreeSet<u64>,
    views: u32,
    damaged: u64,
    set_back: u64,
    lost_disks: u64,
    evictions: u64,
    transfers: u64,
    settled: Instant,
}

impl Simulation {
    /// A cluster with formatted disks, switched on, and clients that have not begun.
    ///
    /// # Errors
    /// A replica that does not start.
    pub fn new(options: Options, seed: u64) -> Checked<Self> {
        Self::traced(options, seed, Lines::none())
    }

    /// The same, with lines to read.
    ///
    /// # Errors
    /// A replica that does not start.
    pub fn traced(options: Options, seed: u64, lines: Lines) -> Checked<Self> {
        let stream = |stream, index| Random::new(seed, stream, index);
        let mut clocks = stream(Stream::Clocks, 0);
        let hosts = (0..options.member_count()).map(|replica| {
            let drift = i64::try_from(clocks.below(400)).expect("small") - 200;
            let offset = i64::try_from(clocks.below(SECOND)).expect("small");
            let clock = Clock::new(drift, clocks.below(1_000 * SECOND), offset);
            let identity = Identity {
                cluster: CLUSTER,
                replica,
                replica_count: options.replica_count,
                standby_count: options.standby_count,
                sessions_max: options.sessions_max,
                segment_size: options.segment_size,
                segment_count: options.segment_count,
                recovering: false,
                journal_id: u128::from(replica) + 1,
            };
            let pool = PoolConfig {
                huge_pages: false,
                ..PoolConfig::REPLICA
            };
            let random = [Stream::Disks, Stream::Files].map(|of| stream(of, u64::from(replica)));
            let mut host = Host::new(
                &identity,
                pool,
                options.chunk_rows_log2,
                options.speed,
                clock,
                random,
            );
            host.spoiled_copies = options.faults.spoiled_copies;
            host
        });
        let clients = (0..options.client_count).map(|index| {
            let work = stream(Stream::Clients, u64::from(index));
            let workload = Workload::new(options.mixture, u64::from(index), work);
            let random = stream(Stream::Clients, 1_000 + u64::from(index));
            let (count, requests) = (options.replica_count, options.requests);
            Client::new(index, CLUSTER, count, requests, workload, random)
        });
        let count = usize::from(options.member_count());
        let faults = stream(Stream::Faults, 0);
        let mut simulation = Self {
            options,
            queue: Queue::default(),
            trace: Trace::new(lines),
            transcript: Transcript::default(),
            network: Network::new(options.quality, stream(Stream::Network, 0)),
            hosts: hosts.collect(),
            clients: clients.collect(),
            faults: Faults::new(options.faults, options.member_count(), faults),
            random: stream(Stream::Network, 1),
            random_disks: stream(Stream::Disks, 1_000),
            peers: vec![vec![None; count]; count],
            damaged: BTreeSet::new(),
            foreign: BTreeSet::new(),
            flaps: Vec::new(),
            paused: vec![0; count],
            calm: false,
            log: OneLog::new(options.member_count(), crate::vsr::root_checksum(CLUSTER)),
            one_primary: OnePrimary::new(options.member_count()),
            at_most_once: AtMostOnce::default(),
            acknowledged: Acknowledged::default(),
            replies: Replies::default(),
            digests: Digests::new(DIGEST_INTERVAL),
            files: Files::new(options.member_count()),
            counts: Counts::default(),
            asked: vec![0; options.client_count as usize],
            latencies: Vec::new(),
        };
        for replica in simulation.members() {
            simulation.start(replica)?;
        }
        for client in 0..options.client_count {
            for to in 0..options.replica_count {
                simulation.queue.push(0, Event::ClientDial { client, to });
            }
        }
        Ok(simulation)
    }

    // ── the run ─────────────────────────────────────────────────────────────────────────────

    /// Lets the clients ask, breaks things as planned, lets them mend, and looks at the result.
    ///
    /// # Errors
    /// The first property that did not hold.
    pub fn run(&mut self) -> Checked<Report> {
        self.begin_clients();
        if let Some(wait) = self.faults.wait() {
            self.queue.push(wait, Event::Fault);
        }
        if self.options.faults_for > 0 {
            self.run_for(self.options.faults_for)?;
        } else {
            self.run_until(self.options.calm_max, Self::clients_done)?;
        }
        self.finish()
    }

    /// Runs for a time.
    ///
    /// # Errors
    /// The first property that did not hold.
    pub fn run_for(&mut self, duration: Instant) -> Checked {
        let end = self.now() + duration;
        while self.queue.next_at().is_some_and(|at| at <= end) {
            self.step()?;
        }
        self.queue.advance(end);
        Ok(())
    }

    /// Runs until something is so, for at most `bound`; whether it came to be.
    ///
    /// # Errors
    /// The first property that did not hold.
    pub fn run_until(
        &mut self,
        bound: Instant,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Checked<bool> {
        let end = self.now() + bound;
        while !condition(self) {
            if self.now() >= end {
                return Ok(false);
            }
            self.run_for(TICK_NS / 2)?;
        }
        Ok(true)
    }

    /// The replicas, and the standbys behind them.
    fn members(&self) -> Range<ReplicaIndex> {
        0..self.options.member_count()
    }

    pub fn now(&self) -> Instant {
        self.queue.now()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.trace.fingerprint()
    }

    // ── transcripts ─────────────────────────────────────────────────────────────────────────

    /// From here on, writes down who says what to whom.
    pub fn transcribe(&mut self) {
        self.transcript.begin(self.hosts.len());
        for (replica, host) in (0u8..).zip(&self.hosts) {
            if let Some(running) = host.replica() {
                let (progress, durable) = (running.progress(), running.vsr().durable());
                let now = self.queue.now();
                self.transcript.stands(now, replica, &progress, durable);
            }
        }
    }

    /// What was said since.
    pub fn transcript(&self) -> String {
        self.transcript.text()
    }

    // ── the vocabulary of scenarios ─────────────────────────────────────────────────────────

    /// All clients begin to ask, as long as they have requests left.
    pub fn begin_clients(&mut self) {
        for client in &self.clients {
            let at = self.queue.now() + self.random.below(100 * MILLISECOND);
            let (client, timer) = (client.index, client.timer);
            self.queue.push(at, Event::Timer { client, timer });
        }
    }

    /// Gives every client so many more requests, and lets it begin.
    pub fn submit(&mut self, requests: u64) {
        for client in &mut self.clients {
            client.requests_left += requests;
        }
        self.begin_clients();
    }

    /// Gives one client so many more requests, and lets it begin.
    pub fn submit_by(&mut self, client: u32, requests: u64) {
        self.clients[client as usize].requests_left += requests;
        self.begin_clients();
    }

    /// Nobody waits and nobody has anything left to ask.
    pub fn clients_done(&self) -> bool {
        self.clients.iter().all(Client::is_done)
    }

    /// Answers that clients have got.
    pub fn replies(&self) -> u64 {
        self.clients.iter().map(|client| client.replies).sum()
    }

    /// Answers that one client has got.
    pub fn replies_to(&self, client: u32) -> u64 {
        self.clients[client as usize].replies
    }

    /// The last operation that any replica has committed.
    pub fn committed(&self) -> u64 {
        self.log.head()
    }

    /// Where a replica stands; `None` when it is off.
    pub fn progress(&self, replica: ReplicaIndex) -> Option<Progress> {
        Some(self.hosts[usize::from(replica)].replica()?.progress())
    }

    /// The last operation that a replica's journal does not reach back to; `None` when it is off.
    pub fn trimmed(&self, replica: ReplicaIndex) -> Option<u64> {
        Some(
            self.hosts[usize::from(replica)]
                .replica()?
                .vsr()
                .log()
                .base(),
        )
    }

    /// The replica that takes requests, in the latest view that has one.
    pub fn primary(&self) -> Option<ReplicaIndex> {
        (0..self.options.replica_count)
            .filter_map(|replica| Some((self.progress(replica)?, replica)))
            .filter(|(progress, _)| progress.serving)
            .max_by_key(|(progress, _)| progress.view)
            .map(|(_, replica)| replica)
    }

    /// The latest view that any member is in, of those that are up.
    pub fn latest_view(&self) -> u32 {
        let running = self.hosts.iter().filter_map(Host::replica);
        running.map(|r| r.vsr().view()).max().unwrap_or(0)
    }

    /// Power off, at this instant.
    pub fn crash(&mut self, replica: ReplicaIndex) {
        let now = self.now();
        let host = &mut self.hosts[usize::from(replica)];
        if !host.is_up() {
            return;
        }
        host.crash();
        self.transcript.forget(replica);
        self.transcript
            .note(now, format!("r{replica}"), "LOSES POWER");
        self.trace.record(now, &[1, u64::from(replica)], || {
            format!("r{replica} crashes")
        });
        self.disconnect(replica);
    }

    /// A replica has fetched a checkpoint: it ends and starts again, as its process would.
    pub(super) fn reopen(&mut self, replica: ReplicaIndex) -> Checked {
        let now = self.now();
        self.hosts[usize::from(replica)].close();
        self.trace.record(now, &[7, u64::from(replica)], || {
            format!("r{replica} has another checkpoint")
        });
        self.counts.transfers += 1;
        self.disconnect(replica);
        self.start(replica)
    }

    /// All connections of a replica break.
    fn disconnect(&mut self, replica: ReplicaIndex) {
        let now = self.now();
        self.peers[usize::from(replica)].fill(None);
        let node = Node::Replica(replica);
        for link in self.network.links_of(node) {
            let wake = self.network.close(link, node, now);
            self.arm(wake);
        }
    }

    /// Power on, if it is off.
    ///
    /// # Errors
    /// A replica that refuses to start.
    pub fn start(&mut self, replica: ReplicaIndex) -> Checked {
        let now = self.now();
        let host = &mut self.hosts[usize::from(replica)];
        if host.is_up() {
            return Ok(());
        }
        let started = host.start(now).map_err(|error| {
            Violation::new(
                "start",
                format!("replica {replica} refuses to start: {error}"),
            )
        })?;
        let life = host.life;
        self.transcript.note(now, format!("r{replica}"), "STARTS");
        self.counts.starts += 1;
        let Started {
            checkpoint,
            recovery,
            reaction,
        } = started;
        let what = [2, u64::from(replica), checkpoint, recovery.head];
        let unsure = host.replica().is_some_and(|r| !r.vsr().is_sure());
        self.trace.record(now, &what, || {
            let mut line = format!("r{replica} starts from op {checkpoint}");
            if unsure {
                line += ", unsure of its log's end";
            }
            for corruption in &recovery.corruptions {
                line += &format!("; damaged: {corruption}");
            }
            if let Some(running) = host.replica() {
                let log = running.vsr().log();
                let missing: Vec<Op> = log.missing().collect();
                line += &format!("; log up to op {}, missing {missing:?}", log.head());
            }
            line
        });
        self.log.on_start(replica, checkpoint)?;
        self.queue
            .push(now + TICK_NS, Event::Tick { replica, life });
        for to in self.members().filter(|to| *to != replica) {
            self.queue.push(
                now,
                Event::Dial {
                    from: replica,
                    life,
                    to,
                },
            );
        }
        self.react(replica, reaction)
    }

    /// Power off; from the next start on it runs another release, or the former one again. Replicas of
    /// different releases do not talk.
    pub fn change_release(&mut self, replica: ReplicaIndex) {
        self.crash(replica);
        self.hosts[usize::from(replica)].release ^= 1;
    }

    /// Whether some replica has executed a client's latest request and does not keep the reply any more.
    pub fn reply_is_dropped(&self, client: u32) -> bool {
        let id = self.clients[client as usize].session.client();
        let mut running = self.hosts.iter().filter_map(Host::replica);
        running.any(|replica| {
            let session = replica.vsr().sessions().get(id);
            session.is_some_and(|session| session.reply().is_none())
        })
    }

    /// A process does not run for a while; the rest of its machine does.
    pub fn pause(&mut self, replica: ReplicaIndex, duration: Instant) {
        let until = self.now() + duration;
        let paused = &mut self.paused[usize::from(replica)];
        *paused = until.max(*paused);
    }

    /// What the disk does to the next write of the journal or the superblock: the replica stops itself,
    /// and is started again.
    pub fn fail_write(&mut self, replica: ReplicaIndex, fault: WriteFault) {
        self.hosts[usize::from(replica)].set_next_write(Some(fault));
    }

    /// All writes of checkpoints fail but the next few, until the replica starts again.
    pub fn fail_checkpoints(&mut self, replica: ReplicaIndex, after: u64) {
        self.hosts[usize::from(replica)].fail_checkpoints(after);
    }

    /// Damages the checkpoint of a replica, on its disk.
    pub fn damage_checkpoint(&mut self, replica: ReplicaIndex) {
        self.hosts[usize::from(replica)].damage_checkpoint();
    }

    /// Flips a bit in a page of the n-th file of full chunks of a replica's checkpoint, on its disk; false if
    /// there is no such page. Who has read the page before does not notice.
    pub fn damage_segment(&mut self, replica: ReplicaIndex, number: u64, page: usize) -> bool {
        let name = FileName::new(FileKind::Transfers, number);
        self.hosts[usize::from(replica)].damage_file(name, page)
    }

    /// The same in a file of ids, the n-th.
    pub fn damage_run(&mut self, replica: ReplicaIndex, number: u64, page: usize) -> bool {
        let name = FileName::new(FileKind::TransferRun, number);
        self.hosts[usize::from(replica)].damage_file(name, page)
    }

    /// The same in the n-th of the checkpoint's files of accounts, oldest first.
    pub fn damage_accounts(&mut self, replica: ReplicaIndex, number: usize) -> bool {
        let host = &mut self.hosts[usize::from(replica)];
        let name = host.files(FileKind::Accounts).nth(number);
        name.is_some_and(|name| host.damage_file(name, 0))
    }

    /// The same in the list of the checkpoint's files.
    pub fn damage_manifest(&mut self, replica: ReplicaIndex) -> bool {
        self.hosts[usize::from(replica)].damage_manifest()
    }

    /// Whether every file of a replica's checkpoint is on its disk as it was written.
    pub fn has_whole_files(&self, replica: ReplicaIndex) -> bool {
        self.hosts[usize::from(replica)].has_whole_files()
    }

    /// Full chunks of transfers in the checkpoint on a replica's disk.
    pub fn segments(&self, replica: ReplicaIndex) -> usize {
        self.hosts[usize::from(replica)].segments()
    }

    /// Sets the wall clock of a machine forward, or back.
    pub fn set_clock(&mut self, replica: ReplicaIndex, jump: i64) {
        self.hosts[usize::from(replica)].clock.jump(jump);
    }

    /// The disk of a machine has room for so many bytes more; `None` for any number. Only checkpoints
    /// need any.
    pub fn set_room(&mut self, replica: ReplicaIndex, bytes: Option<u64>) {
        self.hosts[usize::from(replica)].set_room(bytes);
    }

    /// Everything about a machine takes so many times longer: its disk, its executor, its links.
    pub fn slow_down(&mut self, replica: ReplicaIndex, factor: u64) {
        self.hosts[usize::from(replica)].speed = self.options.speed.slower(factor);
        self.network.set_slow(Node::Replica(replica), factor);
    }

    /// How long clients have waited for their answers so far, the shortest first.
    pub fn latencies(&self) -> Vec<Instant> {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        latencies
    }

    /// Both clocks of a machine run so much faster, or slower.
    pub fn set_drift(&mut self, replica: ReplicaIndex, ppm: i64) {
        let now = self.now();
        self.hosts[usize::from(replica)].clock.set_drift(ppm, now);
    }

    /// What the wall clock of a machine shows.
    pub fn wall(&self, replica: ReplicaIndex) -> u64 {
        self.hosts[usize::from(replica)].clock.at(self.now()).wall
    }

    /// Cluster time of the last operation in a replica's log; `None` when it is off.
    pub fn timestamp(&self, replica: ReplicaIndex) -> Option<u64> {
        Some(
            self.hosts[usize::from(replica)]
                .replica()?
                .vsr()
                .timestamp(),
        )
    }

    /// Switches a replica off and keeps a copy of its disk.
    pub fn copy_disk(&mut self, replica: ReplicaIndex) {
        self.crash(replica);
        self.hosts[usize::from(replica)].make_copy();
    }

    /// Switches a replica off and puts the copy of its disk back, if the others can do without what
    /// it forgets and can tell it that it has; whether they can.
    pub fn set_back(&mut self, replica: ReplicaIndex) -> bool {
        let index = usize::from(replica);
        let atlas = Atlas::new(&self.hosts, &self.log);
        let allowed = atlas.may_forget(replica) && atlas.is_known(replica);
        if allowed && self.hosts[index].copy.is_some() {
            self.crash(replica);
            self.hosts[index].put_back();
            self.counts.set_back += 1;
            let now = self.now();
            self.transcript.note(
                now,
                format!("r{replica}"),
                "AN OLDER COPY OF ITS DISK IS PUT BACK",
            );
            self.trace.record(now, &[11, u64::from(replica)], || {
                format!("r{replica}: an older copy of its disk is put back")
            });
        }
        allowed
    }

    /// Switches a replica off and gives it a new disk, as `recover` makes it, if the others can do
    /// without what the old one held; whether they can.
    pub fn lose_disk(&mut self, replica: ReplicaIndex) -> bool {
        let allowed = Atlas::new(&self.hosts, &self.log).may_forget(replica);
        if allowed {
            self.crash(replica);
            self.hosts[usize::from(replica)].replace_disk();
            self.counts.lost_disks += 1;
            let now = self.now();
            self.transcript.note(
                now,
                format!("r{replica}"),
                "ITS DISK IS LOST, AND A NEW ONE MADE",
            );
            self.trace.record(now, &[12, u64::from(replica)], || {
                format!("r{replica}: its disk is lost, and a new one is there")
            });
        }
        allowed
    }

    fn arm(&mut self, wake: Option<Wake>) {
        if let Some(wake) = wake {
            self.queue.push(wake.at, Event::Wake(wake));
        }
    }
}
