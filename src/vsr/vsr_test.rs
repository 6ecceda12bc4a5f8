//! A cluster of protocol cores in memory: no journal, no gateway, only the rules.
//!
//! Disks keep appended prepares in order and promises; a crash loses what was not yet durable. The
//! network loses, delays and reorders. Disks may damage frames, be set back, or be lost. Checked: no two replicas execute different prepares at one
//! operation; what a client was told is in every later log; after the faults all agree.

use std::collections::{BTreeMap, VecDeque};

use super::sessions::{Limits, Sessions};
use super::*;
use crate::message::{Claim, PoolConfig};

const CLUSTER: u128 = 77;
const REGISTER: u8 = 2;
const PULSE: u8 = 128;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone)]
struct Frame {
    prepare: Message,
    restored: bool,
    damaged: bool,
}

impl Frame {
    fn header(&self) -> &Header {
        self.prepare.header()
    }
}

#[derive(Default, Clone)]
struct Disk {
    promise: Promise,
    /// Frames in the order written; restored ones replace only a damaged one.
    frames: Vec<Frame>,
    /// How many are durable, and how many promises wait.
    durable: usize,
    promises: VecDeque<Promise>,
    started: bool,
}

struct Node {
    vsr: Option<Vsr>,
    disk: Disk,
    executing: VecDeque<Message>,
    pool: Pool,
}

struct Cluster {
    nodes: Vec<Node>,
    /// Those that vote; the rest are standbys.
    replicas: u8,
    network: Vec<(u64, usize, Message)>,
    now: u64,
    random: Random,
    lossy: bool,
    cut: BTreeMap<(usize, usize), bool>,
    /// Checksum of what was executed first at each op.
    history: BTreeMap<Op, u128>,
    /// What clients were told: request number of each client, and its op.
    told: BTreeMap<(u128, u32), Op>,
    clients: Vec<Client>,
}

struct Client {
    id: u128,
    session: u64,
    request: u32,
    context: u128,
    last_sent: u64,
    done: u32,
}

/// The log as the frames make it: whole, then what is damaged is taken out again. (What a real scan can
/// know of it is `replica::scan`'s business.)
fn recovered(disk: &Disk) -> Recovered {
    let mut entries: Vec<Frame> = Vec::new();
    for frame in &disk.frames[..disk.durable] {
        let op = frame.header().op;
        let place = entries.iter().position(|e| e.header().op == op);
        match place {
            Some(place) if frame.restored => {
                if entries[place].header().checksum == frame.header().checksum {
                    entries[place] = frame.clone();
                }
            }
            _ if frame.restored => {}
            _ => {
                entries.retain(|e| e.header().op < op);
                entries.push(frame.clone());
            }
        }
    }
    let promise = disk.promise;
    let died =
        |e: &Frame| e.header().op > promise.log_view_op && e.header().view < promise.log_view;
    if let Some(at) = entries.iter().position(died) {
        entries.truncate(at);
    }
    let mut log = Log::new(0, root_checksum(CLUSTER), 0);
    let mut commit = promise.commit;
    let good = |e: &Frame| !e.damaged;
    let end = entries.iter().rposition(good).map_or(0, |last| last + 1);
    let is_unsure = end < entries.len();
    for (index, frame) in entries[..end].iter().enumerate() {
        if frame.damaged {
            let next = &entries[index + 1];
            log.push_missing(if next.damaged {
                UNKNOWN
            } else {
                next.header().parent
            });
        } else {
            commit = commit.max(frame.header().commit);
            log.push(Entry::of(frame.header()));
        }
    }
    let commit = commit.min(log.head());
    Recovered {
        promise,
        log,
        unsure_from: is_unsure.then_some(commit + 1),
        checkpoint_op: 0,
        checkpoint_lost: false,
        sessions: Sessions::new(Limits {
            sessions: 16,
            reply_bytes: 1 << 20,
        }),
        pulse_due: u64::MAX,
        commit,
        first_start: !disk.started,
    }
}

impl Cluster {
    fn new(replicas: u8, seed: u64) -> Self {
        Self::with_standbys(replicas, 0, seed)
    }

    fn with_standbys(replicas: u8, standbys: u8, seed: u64) -> Self {
        let pool = PoolConfig {
            small: 65_536,
            medium: 0,
            large: 0,
            huge_pages: false,
        };
        let nodes = (0..replicas + standbys).map(|_| Node {
            vsr: None,
            disk: Disk::default(),
            executing: VecDeque::new(),
            pool: Pool::new(&pool).unwrap(),
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            replicas,
            network: Vec::new(),
            now: 1_000_000_000,
            random: Random(seed),
            lossy: false,
            cut: BTreeMap::new(),
            history: BTreeMap::new(),
            told: BTreeMap::new(),
            clients: (1..=4)
                .map(|id| Client {
                    id,
                    session: 0,
                    request: 0,
                    context: 0,
                    last_sent: 0,
                    done: 0,
                })
                .collect(),
        };
        for node in 0..cluster.nodes.len() {
            cluster.start(node);
        }
        cluster
    }

    fn time(&self) -> Time {
        Time {
            monotonic: self.now,
            wall: self.now,
        }
    }

    fn start(&mut self, index: usize) {
        let count = u8::try_from(self.nodes.len()).unwrap();
        let config = Config {
            cluster: CLUSTER,
            replica: u8::try_from(index).unwrap(),
            replica_count: self.replicas,
            standby_count: count - self.replicas,
            journal_bytes: u64::MAX,
            checkpoint_bytes: u64::MAX,
            operation_register: REGISTER,
            operation_pulse: PULSE,
            is_write: |_| true,
            pulse_events: 0,
        };
        let node = &mut self.nodes[index];
        let mut vsr = Vsr::new(config, node.pool.clone(), recovered(&node.disk));
        vsr.set_journal_free(u64::MAX);
        let mut effects = Vec::new();
        vsr.start(
            Time {
                monotonic: self.now,
                wall: self.now,
            },
            &mut effects,
        );
        node.vsr = Some(vsr);
        self.apply(index, effects);
        // Introductions, as the wiring makes them: who is there takes note at once.
        let recovering = self.nodes[index].vsr.as_ref().unwrap().is_recovering();
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            let replica = u8::try_from(index).unwrap();
            let event = Event::PeerStarted {
                replica,
                recovering,
            };
            self.event(other, event);
            if let Some(peer) = &self.nodes[other].vsr {
                let view = peer.view();
                let replica = u8::try_from(other).unwrap();
                self.event(index, Event::Welcomed { replica, view });
            }
        }
    }

    /// Damages so many of the last frames of a replica that is down, with gaps, as long as each entry
    /// keeps a good copy elsewhere: `others` are the replicas that have been damaged already.
    fn damage(&mut self, index: usize, frames: &[usize]) {
        let disk = &mut self.nodes[index].disk;
        for from_end in frames {
            if let Some(at) = disk.durable.checked_sub(1 + from_end) {
                disk.frames[at].damaged = true;
            }
        }
    }

    fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.vsr = None;
        node.executing.clear();
        node.disk.frames.truncate(node.disk.durable);
        node.disk.promises.clear();
    }

    fn event(&mut self, index: usize, event: Event) {
        let time = self.time();
        let Some(vsr) = &mut self.nodes[index].vsr else {
            return;
        };
        vsr.set_journal_free(u64::MAX);
        let mut effects = Vec::new();
        vsr.on_event(event, time, &mut effects);
        self.apply(index, effects);
    }

    fn apply(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.transmit(index, usize::from(to), message),
                Effect::Append { message } => self.nodes[index].disk.frames.push(Frame {
                    prepare: message,
                    restored: false,
                    damaged: false,
                }),
                Effect::Restore { message } => self.nodes[index].disk.frames.push(Frame {
                    prepare: message,
                    restored: true,
                    damaged: false,
                }),
                Effect::Read { op, purpose } => {
                    let disk = &self.nodes[index].disk;
                    let frame = disk.frames[..disk.durable].iter().rev();
                    let found = frame
                        .into_iter()
                        .find(|f| f.header().op == op && !f.damaged);
                    let message = found.map(|frame| frame.prepare.clone());
                    self.event(
                        index,
                        Event::Read {
                            op,
                            purpose,
                            message,
                        },
                    );
                }
                Effect::Execute { message, .. } => {
                    let header = message.header();
                    let first = *self.history.entry(header.op).or_insert(header.checksum);
                    assert_eq!(first, header.checksum, "replica {index} op {}", header.op);
                    self.nodes[index].executing.push_back(message);
                }
                Effect::Reply { client, .. } => self.reply(index, client),
                Effect::Persist(promise) => self.nodes[index].disk.promises.push_back(promise),
                Effect::Wait { .. } => {}
                Effect::Evict { client, .. } => panic!("client {client} evicted"),
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, message: Message) {
        let cut = self.cut.get(&(from, to)).copied().unwrap_or(false);
        if cut || (self.lossy && self.random.one_in(10)) {
            return;
        }
        let copies = 1 + u64::from(self.lossy && self.random.one_in(10));
        for _ in 0..copies {
            // A connection keeps the order; only faults change it.
            let spread = if self.lossy { 30_000_000 } else { 1 };
            let at = self.now + 50_000 + self.random.below(spread);
            // Another process has its own memory.
            let header = *message.header();
            let mut copy = self.nodes[to].pool.acquire(message.body().len()).unwrap();
            copy.body_mut_of_size(message.body().len())
                .copy_from_slice(message.body());
            *copy.header_mut() = header;
            self.network.push((at, to, copy.freeze()));
        }
    }

    fn reply(&mut self, index: usize, client: u128) {
        let Some(vsr) = &self.nodes[index].vsr else {
            return;
        };
        let Some(session) = vsr.sessions().get(client) else {
            return;
        };
        let state = &mut self.clients[usize::try_from(client).unwrap() - 1];
        let is_register = state.session == 0;
        if session.request != state.request || (!is_register && session.session != state.session) {
            return;
        }
        let told = *self
            .told
            .entry((client, session.request))
            .or_insert(session.op);
        assert_eq!(
            told, session.op,
            "client {client} request {} ran twice",
            session.request
        );
        if is_register {
            state.session = session.session;
        }
        state.context = session.context;
        state.request += 1;
        state.done += 1;
        state.last_sent = 0;
    }

    fn client_steps(&mut self) {
        for index in 0..self.clients.len() {
            let Client {
                id,
                session,
                request,
                context,
                last_sent,
                ..
            } = self.clients[index];
            if last_sent != 0 && self.now < last_sent + 150_000_000 {
                continue;
            }
            self.clients[index].last_sent = self.now;
            for to in 0..usize::from(self.replicas) {
                if self.nodes[to].vsr.is_none() {
                    continue;
                }
                let mut header = Header::new(Command::Request, CLUSTER, 0, 0);
                header.client = id;
                header.request = request;
                header.session = session;
                header.context = context;
                header.request_checksum = id << 32 | u128::from(request);
                header.operation = if session == 0 { REGISTER } else { 200 };
                header.events = 3;
                let Some(mut message) = self.nodes[to].pool.acquire(0) else {
                    continue;
                };
                message.fill(header, &[]);
                self.event(to, Event::Request(message));
            }
        }
    }

    fn step(&mut self) {
        self.now += 1_000_000;
        self.client_steps();
        let mut due: Vec<_> = self
            .network
            .extract_if(.., |(at, ..)| *at <= self.now)
            .collect();
        due.sort_by_key(|(at, ..)| *at);
        for (_, to, message) in due {
            if self.nodes[to].vsr.is_some() {
                self.event(to, Event::Message(message));
            }
        }
        for index in 0..self.nodes.len() {
            if self.nodes[index].vsr.is_none() {
                continue;
            }
            // Batches of writes become durable together; a slow disk makes them wait.
            let batch = if self.lossy && self.random.one_in(3) {
                0
            } else {
                8
            };
            for _ in 0..batch {
                let disk = &mut self.nodes[index].disk;
                if disk.durable == disk.frames.len() {
                    break;
                }
                disk.durable += 1;
                let frame = &disk.frames[disk.durable - 1];
                let (op, checksum) = (frame.header().op, frame.header().checksum);
                if frame.restored {
                    self.event(index, Event::Restored { op });
                } else {
                    self.event(index, Event::Durable { op, checksum });
                }
            }
            if let Some(promise) = self.nodes[index].disk.promises.pop_front() {
                self.nodes[index].disk.promise = promise;
                self.nodes[index].disk.started = true;
                self.event(index, Event::Persisted);
            }
            for _ in 0..8 {
                let Some(prepare) = self.nodes[index].executing.pop_front() else {
                    break;
                };
                let reply = self.nodes[index].pool.acquire(0).unwrap();
                let op = prepare.header().op;
                self.event(
                    index,
                    Event::Executed {
                        op,
                        reply,
                        pulse_due: u64::MAX,
                    },
                );
            }
            if self.now.is_multiple_of(10_000_000) {
                self.event(index, Event::Tick);
            }
        }
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.step();
        }
    }

    fn done(&self) -> u32 {
        self.clients.iter().map(|c| c.done).sum()
    }

    /// Ends all faults and checks that everybody agrees soon.
    fn heal_and_check(&mut self) {
        self.lossy = false;
        self.cut.clear();
        for index in 0..self.nodes.len() {
            if self.nodes[index].vsr.is_none() {
                self.start(index);
            }
        }
        let before = self.done();
        self.run(5_000);
        assert!(
            self.done() > before + 20,
            "no progress after the faults: {}",
            self.states()
        );
        let told = self.told.values().max().copied().unwrap_or(0);
        for (index, node) in self.nodes.iter().enumerate() {
            let vsr = node.vsr.as_ref().unwrap();
            assert_eq!(vsr.status(), Status::Normal, "{}", self.states());
            // Nobody waits for a standby.
            let may_lag = if index < usize::from(self.replicas) {
                0
            } else {
                64
            };
            assert!(vsr.head() + may_lag >= told, "{}", self.states());
            for (op, checksum) in self.history.range(..=vsr.executed()) {
                assert_eq!(vsr.log().checksum(*op), Some(*checksum));
            }
        }
    }

    fn states(&self) -> String {
        let state = |node: &Node| match &node.vsr {
            Some(v) => format!(
                "{:?} view {} log_view {} head {} durable {} commit {} executed {} target {:?} verified {}; ",
                v.status,
                v.view,
                v.log_view,
                v.head(),
                v.durable,
                v.commit,
                v.executed,
                v.target,
                v.verified
            ),
            None => "down; ".to_owned(),
        };
        self.nodes.iter().map(state).collect()
    }
}

#[test]
fn normal_operation_commits_and_replies_for_every_cluster_size() {
    for replicas in 1..=6 {
        let mut cluster = Cluster::new(replicas, 1);
        cluster.run(2_000);
        assert!(
            cluster.done() > 100,
            "{replicas} replicas: {}",
            cluster.states()
        );
        cluster.heal_and_check();
    }
}

#[test]
fn a_dead_primary_is_replaced_and_comes_back_as_a_backup() {
    let mut cluster = Cluster::new(3, 2);
    cluster.run(500);
    cluster.crash(0);
    let before = cluster.done();
    cluster.run(2_000);
    assert!(cluster.done() > before, "{}", cluster.states());
    cluster.heal_and_check();
}

#[test]
fn a_restarted_primary_leaves_its_view_to_another() {
    let mut cluster = Cluster::new(3, 3);
    cluster.run(500);
    let view = cluster.nodes[0].vsr.as_ref().unwrap().view();
    cluster.crash(0);
    cluster.start(0);
    cluster.run(300);
    assert!(
        cluster.nodes[0].vsr.as_ref().unwrap().view() > view,
        "{}",
        cluster.states()
    );
    cluster.heal_and_check();
}

#[test]
fn all_replicas_at_once_come_back_from_disk() {
    let mut cluster = Cluster::new(3, 4);
    for _ in 0..5 {
        cluster.run(700);
        for index in 0..3 {
            cluster.crash(index);
        }
        for index in 0..3 {
            cluster.start(index);
        }
    }
    cluster.heal_and_check();
}

#[test]
fn a_deaf_backup_deposes_nobody() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run(200);
    cluster.cut.insert((0, 2), true);
    cluster.run(3_000);
    assert_eq!(
        cluster.nodes[0].vsr.as_ref().unwrap().view(),
        0,
        "{}",
        cluster.states()
    );
    cluster.heal_and_check();
}

#[test]
fn random_faults_lose_nothing() {
    for seed in 0..60 {
        let replicas = [2, 3, 3, 3, 4, 5, 6][usize::try_from(seed % 7).unwrap()];
        let mut cluster = Cluster::new(replicas, 1000 + seed);
        cluster.lossy = true;
        for _ in 0..25 {
            let milliseconds = 20 + cluster.random.below(400);
            cluster.run(milliseconds);
            let index = usize::try_from(cluster.random.below(replicas.into())).unwrap();
            match cluster.random.below(6) {
                0 | 1 if cluster.nodes[index].vsr.is_some() => cluster.crash(index),
                0..=2 if cluster.nodes[index].vsr.is_none() => cluster.start(index),
                3 => {
                    for other in 0..usize::from(replicas) {
                        cluster.cut.insert((index, other), true);
                    }
                }
                4 => {
                    for other in 0..usize::from(replicas) {
                        cluster.cut.insert((other, index), true);
                    }
                }
                5 => cluster.cut.clear(),
                _ => {}
            }
        }
        cluster.heal_and_check();
    }
}

#[test]
fn entries_that_one_disk_has_damaged_are_fetched_again() {
    let mut cluster = Cluster::new(3, 7);
    cluster.run(1_000);
    for index in [0, 1, 2, 0, 1] {
        cluster.crash(index);
        cluster.damage(index, &[2, 3, 9, 30, 31, 32]);
        cluster.start(index);
        cluster.run(700);
        let vsr = cluster.nodes[index].vsr.as_ref().unwrap();
        assert_eq!(vsr.log().missing().count(), 0, "{}", cluster.states());
    }
    cluster.heal_and_check();
}

#[test]
fn different_entries_damaged_on_each_disk_heal_when_all_start_again() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 300 + seed);
        cluster.run(1_000);
        // At rest: everybody has everything.
        for client in &mut cluster.clients {
            client.last_sent = u64::MAX / 2;
        }
        cluster.run(300);
        for index in 0..3 {
            cluster.crash(index);
        }
        cluster.damage(0, &[1, 4, 5, 12, 13, 14]);
        cluster.damage(1, &[2, 6, 7, 15, 16, 17]);
        cluster.damage(2, &[3, 8, 9, 18, 19, 20]);
        for client in &mut cluster.clients {
            client.last_sent = 0;
        }
        cluster.heal_and_check();
        for node in &cluster.nodes {
            let missing = node.vsr.as_ref().unwrap().log().missing().count();
            assert_eq!(missing, 0, "seed {seed} {}", cluster.states());
        }
    }
}

#[test]
fn a_lost_end_of_one_log_loses_nothing() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 400 + seed);
        cluster.run(800);
        let victim = usize::try_from(seed % 3).unwrap();
        for index in 0..3 {
            cluster.crash(index);
        }
        cluster.damage(victim, &[0, 1, 2]);
        cluster.heal_and_check();
    }
}

#[test]
fn a_disk_that_was_set_back_does_not_vote_before_it_knows_what_it_said() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 500 + seed);
        cluster.run(500);
        let victim = usize::try_from(seed % 3).unwrap();
        let old = {
            let disk = &cluster.nodes[victim].disk;
            let mut old = disk.clone();
            old.frames.truncate(old.durable);
            old.promises.clear();
            old
        };
        cluster.run(600);
        cluster.crash(victim);
        cluster.nodes[victim].disk = old;
        cluster.start(victim);
        // Its peers know better.
        cluster.event(victim, Event::RolledBack);
        assert!(cluster.nodes[victim].vsr.as_ref().unwrap().is_recovering());
        for other in (0..3).filter(|other| *other != victim) {
            let view = cluster.nodes[other].vsr.as_ref().unwrap().view();
            let replica = u8::try_from(other).unwrap();
            cluster.event(victim, Event::Welcomed { replica, view });
        }
        cluster.heal_and_check();
        assert!(!cluster.nodes[victim].vsr.as_ref().unwrap().is_recovering());
    }
}

#[test]
fn a_lost_disk_comes_back_through_recovery() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 600 + seed);
        cluster.run(700);
        let victim = usize::try_from(seed % 3).unwrap();
        cluster.crash(victim);
        let promise = Promise {
            recovering: true,
            ..Promise::default()
        };
        cluster.nodes[victim].disk = Disk {
            promise,
            ..Disk::default()
        };
        cluster.run(100);
        cluster.start(victim);
        cluster.heal_and_check();
        assert!(!cluster.nodes[victim].vsr.as_ref().unwrap().is_recovering());
    }
}

#[test]
fn standbys_follow_and_never_count() {
    let mut cluster = Cluster::with_standbys(3, 2, 8);
    cluster.run(1_000);
    // Two replicas are down: however many standbys there are, nothing commits.
    cluster.crash(0);
    cluster.crash(1);
    cluster.run(1_000);
    let before = cluster.done();
    cluster.run(2_000);
    assert_eq!(cluster.done(), before);
    cluster.heal_and_check();
    cluster.run(500);
    let executed = |index: usize| cluster.nodes[index].vsr.as_ref().unwrap().executed();
    assert!(executed(4) + 20 > executed(0), "{}", cluster.states());
    // One replica and a standby: the replica is enough, whatever the standby does.
    let mut cluster = Cluster::with_standbys(1, 1, 9);
    cluster.run(300);
    cluster.crash(1);
    let before = cluster.done();
    cluster.run(500);
    assert!(cluster.done() > before);
    cluster.heal_and_check();
}

#[test]
fn requests_that_others_pass_on_leave_buffers_for_what_they_need_themselves() {
    let mut cluster = Cluster::new(3, 9);
    cluster.run(500);
    let Node { vsr, pool, .. } = &mut cluster.nodes[0];
    let vsr = vsr.as_mut().unwrap();
    assert!(vsr.is_serving());
    // Most buffers are in use elsewhere: the queue could hold nearly all of the rest.
    let mut elsewhere = Vec::new();
    while pool.has_room(0, Claim::PassedOn) {
        elsewhere.push(pool.acquire(0).unwrap());
    }
    elsewhere.truncate(elsewhere.len() - 1_000);
    let (mut passed_on, queued) = (1_000, vsr.queue_len());
    while let Some(mut message) = pool.acquire(0) {
        let mut header = Header::new(Command::Request, CLUSTER, 1, 0);
        header.client = passed_on;
        header.operation = REGISTER;
        message.fill(header, &[]);
        let now = Time {
            monotonic: cluster.now,
            wall: cluster.now,
        };
        let mut effects = Vec::new();
        vsr.on_event(Event::Message(message.freeze()), now, &mut effects);
        passed_on += 1;
        if passed_on == 100_000 {
            break;
        }
    }
    assert!(vsr.queue_len() > queued);
    assert!(pool.has_room(0, Claim::Behind), "{pool:?}");
}

/// A replica that comes back with these entries after `base`, in view 1, whose primary is replica 1.
fn comes_back(replica: u8, log_view: u32, base: Op, entries: &[u128], commit: Op) -> Vsr {
    let promise = Promise {
        view: 1,
        log_view,
        ..Promise::default()
    };
    let mut recovered = recovered(&Disk {
        promise,
        ..Disk::default()
    });
    recovered.log = Log::new(base, 1000 + u128::from(base), 0);
    for checksum in entries {
        recovered.log.push(Entry {
            checksum: *checksum,
            client: 0,
            timestamp: 0,
            size: 256,
        });
    }
    (recovered.checkpoint_op, recovered.commit) = (base, commit);
    let pool = Pool::new(&PoolConfig {
        small: 64,
        medium: 0,
        large: 0,
        huge_pages: false,
    });
    let config = Config {
        cluster: CLUSTER,
        replica,
        replica_count: 3,
        standby_count: 0,
        journal_bytes: u64::MAX,
        checkpoint_bytes: u64::MAX,
        operation_register: REGISTER,
        operation_pulse: PULSE,
        is_write: |_| true,
        pulse_events: 0,
    };
    Vsr::new(config, pool.unwrap(), recovered)
}

/// What a replica says to an event, as replica 1 would say it.
fn answers(vsr: &mut Vsr, event: Event) -> Vec<Message> {
    let mut effects = Vec::new();
    let time = Time {
        monotonic: 1_000_000_000,
        wall: 0,
    };
    vsr.on_event(event, time, &mut effects);
    let sent = effects.into_iter().filter_map(|effect| {
        let Effect::Send { message, .. } = effect else {
            return None;
        };
        Some(message)
    });
    let as_primary = sent.map(|message| {
        let mut copy = vsr.pool.acquire(message.body().len()).unwrap();
        let mut header = *message.header();
        header.replica = 1;
        copy.fill(header, message.body());
        copy.freeze()
    });
    as_primary.collect()
}

#[test]
fn logs_are_compared_where_the_other_begins_if_it_begins_above_what_is_verified() {
    let checksums: Vec<u128> = (1..=20).map(|op| 1000 + op).collect();
    for (mine, agrees) in [(1000, true), (2000, false)] {
        // Committed up to 5 for all it knows, the rest of 12 may have died; the other's log begins
        // after 8.
        let entries: Vec<u128> = (1..=12)
            .map(|op| op + if op <= 6 { 1000 } else { mine })
            .collect();
        let mut lacking = comes_back(2, 0, 0, &entries, 5);
        let mut other = comes_back(0, 1, 8, &checksums[8..], 20);
        let mut view = lacking.pool.acquire(3 * 16).unwrap();
        let mut header = Header::new(Command::View, CLUSTER, 1, 1);
        (header.op, header.commit, header.context) = (20, 20, checksums[19]);
        view.fill(header, &body_of(&checksums[17..]));
        let asked = answers(&mut lacking, Event::Message(view.freeze()));
        let asked = asked
            .iter()
            .find(|m| m.header().command() == Some(Command::GetPrepares));
        let told = answers(&mut other, Event::Message(asked.unwrap().clone()));
        assert_eq!(told[0].header().command(), Some(Command::Headers));
        answers(&mut lacking, Event::Message(told[0].clone()));
        assert_eq!(lacking.is_beyond_reach(), !agrees);
        assert_eq!(lacking.commit(), if agrees { 12 } else { 5 });
    }
}

fn control(command: Command, from: u8, view: View) -> Message {
    let pool = PoolConfig {
        small: 1,
        medium: 0,
        large: 0,
        huge_pages: false,
    };
    let mut message = Pool::new(&pool).unwrap().acquire(0).unwrap();
    message.fill(Header::new(command, CLUSTER, from, view), &[]);
    message.freeze()
}

/// The commands that a replica sends when it hears nothing for so long, a tick after the other.
fn says_within(vsr: &mut Vsr, now: &mut u64, milliseconds: u64) -> Vec<Command> {
    let mut effects = Vec::new();
    for _ in 0..milliseconds.div_ceil(TICK_NS / 1_000_000) {
        *now += TICK_NS;
        let (monotonic, wall) = (*now, *now);
        vsr.on_event(Event::Tick, Time { monotonic, wall }, &mut effects);
    }
    let sent = effects.iter().filter_map(|effect| {
        let Effect::Send { message, .. } = effect else {
            return None;
        };
        message.header().command()
    });
    sent.collect()
}

#[test]
fn a_view_that_is_not_durable_is_not_spoken_of() {
    let mut vsr = comes_back(0, 1, 0, &[], 0);
    let mut now = 1_000_000_000;
    let (monotonic, wall) = (now, now);
    vsr.start(Time { monotonic, wall }, &mut Vec::new());
    says_within(&mut vsr, &mut now, 180);
    let (monotonic, wall) = (now, now);
    let later = Event::Message(control(Command::ExitView, 2, 4));
    vsr.on_event(later, Time { monotonic, wall }, &mut Vec::new());
    assert_eq!(vsr.view(), 4);
    assert_eq!(says_within(&mut vsr, &mut now, 2_000), []);
    let (monotonic, wall) = (now, now);
    vsr.on_event(Event::Persisted, Time { monotonic, wall }, &mut Vec::new());
    assert!(says_within(&mut vsr, &mut now, 100).contains(&Command::ExitView));
}

#[test]
fn a_standby_follows_no_view_that_has_not_begun() {
    let mut cluster = Cluster::with_standbys(3, 1, 8);
    cluster.run(500);
    for command in [Command::ExitView, Command::JoinView] {
        cluster.event(3, Event::Message(control(command, 1, 9)));
    }
    assert_eq!(cluster.nodes[3].vsr.as_ref().unwrap().view(), 0);
    cluster.heal_and_check();
}

#[test]
fn one_that_recovers_in_a_later_view_calls_the_others_there() {
    for view in [4, 5, 6] {
        let mut cluster = Cluster::new(3, 8);
        cluster.run(500);
        cluster.crash(2);
        let promise = &mut cluster.nodes[2].disk.promise;
        (promise.view, promise.recovering) = (view, true);
        cluster.start(2);
        cluster.run(3_000);
        let vsr = cluster.nodes[2].vsr.as_ref().unwrap();
        assert!(
            !vsr.is_recovering() && vsr.view() >= view,
            "{}",
            cluster.states()
        );
        cluster.heal_and_check();
    }
}

#[test]
fn a_session_that_may_be_newer_than_what_was_executed_here_is_not_over() {
    let mut cluster = Cluster::new(3, 9);
    cluster.run(500);
    let executed = cluster.nodes[0].vsr.as_ref().unwrap().executed();
    for (session, is_over) in [(executed, true), (executed + 1, false)] {
        let Node { vsr, pool, .. } = &mut cluster.nodes[0];
        let mut request = pool.acquire(0).unwrap();
        let mut header = Header::new(Command::Request, CLUSTER, 0, 0);
        (header.client, header.session, header.request) = (99, session, 1);
        request.fill(header, &[]);
        let (monotonic, wall) = (cluster.now, cluster.now);
        let mut effects = Vec::new();
        let vsr = vsr.as_mut().unwrap();
        let event = Event::Request(request);
        vsr.on_event(event, Time { monotonic, wall }, &mut effects);
        let evicts = |effect: &Effect| matches!(effect, Effect::Evict { .. });
        assert_eq!(effects.iter().any(evicts), is_over);
    }
}

#[test]
fn a_restart_is_not_told_that_what_has_died_on_its_disk_was_committed() {
    // The disk has three entries that died; the view's log has others there, which are not on it yet.
    let mut vsr = comes_back(2, 0, 0, &[2001, 2002, 2003], 0);
    vsr.set_journal_free(1 << 20);
    let mut parent = 1000;
    let prepares = (1..=3).map(|op| {
        let mut prepare = vsr.pool.acquire(0).unwrap();
        let mut header = Header::new(Command::Prepare, CLUSTER, 1, 1);
        (header.op, header.parent, header.timestamp) = (op, parent, op);
        prepare.fill(header, &[]);
        parent = prepare.header().checksum;
        prepare.freeze()
    });
    let prepares: Vec<Message> = prepares.collect();
    let checksums: Vec<u128> = prepares.iter().map(|p| p.header().checksum).collect();
    let mut view = vsr.pool.acquire(3 * 16).unwrap();
    let mut header = Header::new(Command::View, CLUSTER, 1, 1);
    (header.op, header.commit, header.context) = (3, 3, checksums[2]);
    view.fill(header, &body_of(&checksums));
    answers(&mut vsr, Event::Message(view.freeze()));
    for prepare in prepares {
        answers(&mut vsr, Event::Message(prepare));
    }
    assert_eq!((vsr.commit(), vsr.durable), (3, 0));
    let durable = |op: Op| Event::Durable {
        op,
        checksum: checksums[usize::try_from(op).unwrap() - 1],
    };
    for (then, view, commit) in [(None, 2, 0), (Some(durable(2)), 3, 2)] {
        if let Some(event) = then {
            answers(&mut vsr, event);
        }
        answers(
            &mut vsr,
            Event::Message(control(Command::ExitView, 0, view)),
        );
        let promise = vsr.promising.back().unwrap();
        assert_eq!((promise.view, promise.commit), (view, commit));
    }
}

#[test]
fn an_entry_that_nobody_has_any_more_is_not_needed_once_its_checkpoint_is_there() {
    let checksums = [1001, 1002, 1003];
    let mut vsr = comes_back(2, 0, 0, &checksums, 3);
    (vsr.executing, vsr.executed) = (3, 3);
    vsr.log.lose(2);
    vsr.update_durable();
    let mut view = vsr.pool.acquire(3 * 16).unwrap();
    let mut header = Header::new(Command::View, CLUSTER, 1, 1);
    (header.op, header.commit, header.context) = (3, 3, 1003);
    view.fill(header, &body_of(&checksums));
    answers(&mut vsr, Event::Message(view.freeze()));
    assert_eq!((vsr.status(), vsr.durable()), (Status::CatchUp, 1));
    let (op, trimmed) = (3, 0);
    answers(&mut vsr, Event::Checkpointed { op, trimmed });
    assert_eq!((vsr.status(), vsr.durable()), (Status::Normal, 3));
}

#[test]
fn waiting_for_its_own_view_keeps_nobody_from_a_later_one() {
    let mut vsr = comes_back(0, 1, 0, &[], 0);
    vsr.status = Status::CatchUp;
    let asked = answers(&mut vsr, Event::Tick);
    let views = |sent: &[Message]| {
        let sent = sent.iter().map(Message::header);
        let asks = sent.filter(|h| h.command() == Some(Command::GetView));
        asks.map(|h| h.view).collect::<Vec<_>>()
    };
    assert_eq!(views(&asked), [1]);
    let begun = || Event::Message(control(Command::Commit, 2, 8));
    assert_eq!(views(&answers(&mut vsr, begun())), [8]);
    assert!(views(&answers(&mut vsr, begun())).is_empty());
}
