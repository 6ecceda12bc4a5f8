//! A cluster of protocol cores in memory: no journal, no gateway, only the rules.
//!
//! Disks keep appended prepares in order and promises; a crash loses what was not yet durable. The
//! network loses, delays and reorders. Disks may damage frames, be set back, or be lost. Checked: no two
//! replicas execute different prepares at one operation; what a client was told is in every later log; after
//! the faults all agree.

use std::collections::{BTreeMap, VecDeque};

use super::super::sessions::{Limits, Sessions};
use super::super::*;
use crate::message::PoolConfig;

pub(super) const CLUSTER: u128 = 77;
pub(super) const REGISTER: u8 = 2;
pub(super) const PULSE: u8 = 128;

pub(super) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone)]
pub(super) struct Frame {
    pub(super) prepare: Message,
    pub(super) restored: bool,
    pub(super) damaged: bool,
}

impl Frame {
    pub(super) fn header(&self) -> &Header {
        self.prepare.header()
    }
}

#[derive(Default, Clone)]
pub(super) struct Disk {
    pub(super) promise: Promise,
    /// Frames in the order written; restored ones replace only a damaged one.
    pub(super) frames: Vec<Frame>,
    /// How many are durable, and how many promises wait.
    pub(super) durable: usize,
    pub(super) promises: VecDeque<Promise>,
    pub(super) started: bool,
}

pub(super) struct Node {
    pub(super) vsr: Option<Vsr>,
    pub(super) disk: Disk,
    pub(super) executing: VecDeque<Message>,
    pub(super) pool: Pool,
}

pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    /// Those that vote; the rest are standbys.
    pub(super) replicas: u8,
    pub(super) network: Vec<(u64, usize, Message)>,
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) lossy: bool,
    pub(super) cut: BTreeMap<(usize, usize), bool>,
    /// Checksum of what was executed first at each op.
    pub(super) history: BTreeMap<Op, u128>,
    /// What clients were told: request number of each client, and its op.
    pub(super) told: BTreeMap<(u128, u32), Op>,
    pub(super) clients: Vec<Client>,
}

pub(super) struct Client {
    pub(super) id: u128,
    pub(super) session: u64,
    pub(super) request: u32,
    pub(super) context: u128,
    pub(super) last_sent: u64,
    pub(super) done: u32,
}

/// One of so many replicas, without standbys, a checkpoint or an end of the journal.
pub(super) fn config(replica: u8, replica_count: u8) -> Config {
    Config {
        cluster: CLUSTER,
        replica,
        replica_count,
        standby_count: 0,
        journal_bytes: u64::MAX,
        checkpoint_bytes: u64::MAX,
        operation_register: REGISTER,
        operation_pulse: PULSE,
        is_write: |_| true,
        pulse_events: 0,
    }
}

/// The log as the frames make it: whole, then what is damaged is taken out again. (What a real scan can
/// know of it is `replica::scan`'s business.)
pub(super) fn recovered(disk: &Disk) -> Recovered {
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
    pub(super) fn new(replicas: u8, seed: u64) -> Self {
        Self::with_standbys(replicas, 0, seed)
    }

    pub(super) fn with_standbys(replicas: u8, standbys: u8, seed: u64) -> Self {
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

    pub(super) fn time(&self) -> Time {
        Time {
            monotonic: self.now,
            wall: self.now,
        }
    }

    pub(super) fn start(&mut self, index: usize) {
        let count = u8::try_from(self.nodes.len()).unwrap();
        let config = Config {
            standby_count: count - self.replicas,
            ..config(u8::try_from(index).unwrap(), self.replicas)
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
    pub(super) fn damage(&mut self, index: usize, frames: &[usize]) {
        let disk = &mut self.nodes[index].disk;
        for from_end in frames {
            if let Some(at) = disk.durable.checked_sub(1 + from_end) {
                disk.frames[at].damaged = true;
            }
        }
    }

    pub(super) fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.vsr = None;
        node.executing.clear();
        node.disk.frames.truncate(node.disk.durable);
        node.disk.promises.clear();
    }

    pub(super) fn event(&mut self, index: usize, event: Event) {
        let time = self.time();
        let Some(vsr) = &mut self.nodes[index].vsr else {
            return;
        };
        vsr.set_journal_free(u64::MAX);
        let mut effects = Vec::new();
        vsr.on_event(event, time, &mut effects);
        self.apply(index, effects);
    }

    pub(super) fn apply(&mut self, index: usize, effects: Vec<Effect>) {
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

    pub(super) fn transmit(&mut self, from: usize, to: usize, message: Message) {
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

    pub(super) fn reply(&mut self, index: usize, client: u128) {
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

    pub(super) fn client_steps(&mut self) {
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

    pub(super) fn step(&mut self) {
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

    pub(super) fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.step();
        }
    }

    pub(super) fn done(&self) -> u32 {
        self.clients.iter().map(|c| c.done).sum()
    }

    /// Ends all faults and checks that everybody agrees soon.
    pub(super) fn heal_and_check(&mut self) {
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

    pub(super) fn states(&self) -> String {
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

/// A message without a body.
pub(super) fn control(command: Command, from: u8, view: View) -> Message {
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
