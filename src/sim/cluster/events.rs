//! What happens at each event. Draws chance for delays only; faults come from their own stream (`strike`).

use super::super::check::{Violation, check_pipeline, check_queues, hold};
use super::super::client::Outcome;
use super::super::host::{Host, Later, Memory, Reaction};
use super::super::network::{Arrival, Lane, LinkId, Node, Wake};
use super::super::queue::{Instant, MILLISECOND};
use super::{Checked, Event, Payload, Simulation};
use crate::limits::{HEADER_SIZE, SEND_BYTES_MAX};
use crate::message::{Claim, Message, MessageMut, Pool, is_ours};
use crate::protocol::ReplicaIndex;
use crate::replica::io::{ConnectionId, Fatal, Input, Output};
use crate::replica::library::LibraryDone;
use crate::replica::{Replica, TICK_NS, ingress};

/// A dialer that was refused tries again after this, and up to as long more.
const REDIAL: Instant = 50 * MILLISECOND;

/// A receiver without buffers looks again after this.
const NO_BUFFER: Instant = MILLISECOND;

impl Simulation {
    /// Goes to the next event.
    pub(super) fn step(&mut self) -> Checked {
        let Some(event) = self.queue.pop() else {
            return Ok(());
        };
        match event {
            Event::Tick { replica, life } => {
                if self.is_running(replica, life, event) {
                    self.queue.push(self.now() + TICK_NS, event);
                    return self.input(replica, Input::Tick);
                }
            }
            Event::Done {
                replica,
                life,
                later,
            } => {
                if self.is_running(replica, life, event) {
                    return self.done(replica, later);
                }
            }
            Event::Wake(wake) => return self.on_wake(wake),
            Event::Dial { from, life, to } => {
                if self.is_running(from, life, event) {
                    return self.dial(from, life, to);
                }
            }
            Event::ClientDial { client, to } => self.client_dial(client, to),
            Event::Timer { client, timer } => self.on_timer(client, timer),
            Event::Fault if self.calm => {}
            Event::Fault => self.on_fault(),
            Event::Start { replica } => return self.start(replica),
            Event::Crash { .. } if self.calm => {}
            Event::Crash { replica, down } => {
                self.crash(replica);
                self.queue.push(self.now() + down, Event::Start { replica });
            }
            Event::Mend { from, to } => self.network.mend(from, to),
            Event::Flap(_) if self.calm => {}
            Event::Flap(index) => self.on_flap(index),
            Event::Hasten { from, to } => self.network.delay(from, to, 0),
            Event::Hurry { replica } => {
                self.hosts[usize::from(replica)].speed = self.options.speed;
            }
            Event::Room { replica } => self.set_room(replica, None),
            Event::PutBack { .. } if self.calm => {}
            Event::PutBack { replica } => {
                self.set_back(replica);
                self.queue.push(self.now(), Event::Start { replica });
            }
        }
        Ok(())
    }

    /// Whether a replica is in the life that an event belongs to. The events of a paused process
    /// wait, in their order, until it goes on.
    fn is_running(&mut self, replica: ReplicaIndex, life: u32, event: Event) -> bool {
        let host = &self.hosts[usize::from(replica)];
        if !host.is_up() || host.life != life {
            return false;
        }
        let until = self.paused[usize::from(replica)];
        if until > self.now() {
            self.queue.push(until, event);
            return false;
        }
        true
    }

    fn input(&mut self, replica: ReplicaIndex, input: Input) -> Checked {
        let now = self.now();
        let [kind, detail] = words_of(&input);
        let words = [3, u64::from(replica), kind, detail];
        self.trace
            .record(now, &words, || format!("r{replica} ◄ {input:?}"));
        let reaction = self.hosts[usize::from(replica)].input(input, now);
        self.react(replica, reaction)
    }

    fn done(&mut self, replica: ReplicaIndex, later: Later) -> Checked {
        let now = self.now();
        let (kind, token) = match later {
            Later::JournalWritten { token } => (0, token),
            Later::JournalRead { token } => (1, token),
            Later::SuperblockWritten { token } => (2, token),
            Later::Executed => (3, 0),
            Later::Built => (4, 0),
            Later::Library { librarian } => (5, librarian as u64),
        };
        let words = [4, u64::from(replica), kind, token];
        self.trace
            .record(now, &words, || format!("r{replica} ◄ {later:?}"));
        let reaction = self.hosts[usize::from(replica)].done(later, now);
        self.react(replica, reaction)
    }

    /// Checks what a replica did, and carries out what its machine cannot do by itself.
    pub(super) fn react(&mut self, replica: ReplicaIndex, mut reaction: Reaction) -> Checked {
        let host = &mut self.hosts[usize::from(replica)];
        let life = host.life;
        for (at, later) in reaction.later.drain(..) {
            self.queue.push(
                at,
                Event::Done {
                    replica,
                    life,
                    later,
                },
            );
        }
        // The digest is of everything: it may meet damage that nobody else has.
        if let Some(executed) = reaction.executed.filter(|op| self.digests.due(*op))
            && let Some(digest) = host.digest()
        {
            self.digests.on_state(replica, executed, digest)?;
        }
        host.remember();
        if let Some(running) = host.replica() {
            let progress = running.progress();
            if self.transcript.is_on() {
                let (now, durable) = (self.queue.now(), running.vsr().durable());
                self.transcript.stands(now, replica, &progress, durable);
            }
            self.counts.views = self.counts.views.max(progress.view);
            self.counts.checkpoints.insert(progress.checkpoint);
            self.files
                .on_checkpoint(replica, running.superblock().manifest())?;
            check_pipeline(replica, &progress)?;
            check_queues(replica, &running.vsr().queues())?;
            check_queues(replica, &host.queues())?;
        }
        for prepare in reaction.committed.drain(..) {
            self.on_commit(replica, &prepare)?;
        }
        for output in reaction.outputs.drain(..) {
            self.carry_out(replica, output)?;
        }
        self.hosts[usize::from(replica)].give_back(reaction);
        Ok(())
    }

    /// A prepare was handed to an executor.
    fn on_commit(&mut self, replica: ReplicaIndex, prepare: &Message) -> Checked {
        let header = prepare.header();
        if self.log.on_execute(replica, header)? {
            self.at_most_once.on_execute(header)?;
            self.replies.on_execute(header, prepare.body());
        }
        Ok(())
    }

    fn carry_out(&mut self, replica: ReplicaIndex, output: Output) -> Checked {
        match output {
            Output::SendReplica { to, message } => {
                let (header, now) = (message.header(), self.queue.now());
                let host = &self.hosts[usize::from(replica)];
                if host.memory == Memory::Whole {
                    self.one_primary.on_send(replica, host.life, header)?;
                }
                let body = header.body_size();
                self.transcript.sent(now, replica, to, header, body);
                let size = message.header().size as usize;
                if let Some(link) = self.peers[usize::from(replica)][usize::from(to)]
                    && self.backlog(link) + size <= SEND_BYTES_MAX
                {
                    self.send(link, Lane::Forward, message, size);
                }
            }
            Output::Dial { replica: to } => {
                let life = self.hosts[usize::from(replica)].life;
                let from = replica;
                self.queue.push(self.now(), Event::Dial { from, life, to });
            }
            Output::SendClient {
                connection,
                message,
                size,
            } => {
                self.send(LinkId(connection.0), Lane::Backward, message, size);
            }
            Output::Close { connection, reason } => {
                let link = LinkId(connection.0);
                hold!(
                    self.damaged.remove(&link),
                    "connections",
                    "replica {replica} closes connection {}: {reason}",
                    link.0
                );
                return self.hang_up(replica, link, reason);
            }
            Output::Stop(fatal) => return self.on_stop(replica, &fatal),
            Output::Reopen => self.reopen(replica)?,
            Output::JournalWrite(_)
            | Output::JournalRead { .. }
            | Output::SuperblockWrite { .. }
            | Output::Task(_)
            | Output::Checkpoint(_)
            | Output::Library(_) => unreachable!("the host has carried it out"),
        }
        Ok(())
    }

    /// Bytes on their way to a replica, or waiting to be.
    fn backlog(&self, link: LinkId) -> usize {
        self.network
            .backlog(link, Lane::Forward, |payload| match payload {
                Payload::Pooled(_, size) => *size,
                Payload::Bytes(bytes) => bytes.len(),
            })
    }

    /// A replica that stops itself because of its disk is started again on it, a little later.
    fn on_stop(&mut self, replica: ReplicaIndex, fatal: &Fatal) -> Checked {
        let what = format!("replica {replica} stops: {fatal}");
        hold!(
            self.hosts[usize::from(replica)].may_stop(fatal),
            "stop",
            "{what}"
        );
        let now = self.now();
        self.trace
            .record(now, &[9, u64::from(replica)], || what.clone());
        self.crash(replica);
        let at = now + MILLISECOND + self.random.skewed(self.options.faults.duration_max);
        self.queue.push(at, Event::Start { replica });
        Ok(())
    }

    fn send(&mut self, link: LinkId, lane: Lane, message: Message, size: usize) {
        let now = self.now();
        let [a, b] = halves(message.header_bytes());
        self.trace.record(now, &[5, link.0, a, b], || {
            format!("link {} {lane:?}: {}", link.0, describe(&message, size))
        });
        let wake = self
            .network
            .send(link, lane, Payload::Pooled(message, size), now);
        self.arm(wake);
    }

    // ── arrivals ────────────────────────────────────────────────────────────────────────────

    fn on_wake(&mut self, wake: Wake) -> Checked {
        let Some((dialer, listener)) = self.network.ends(wake.link) else {
            return Ok(());
        };
        let to = match wake.lane {
            Lane::Forward => listener,
            Lane::Backward => dialer,
        };
        if let Node::Replica(replica) = to {
            let until = self.paused[usize::from(replica)];
            if until > self.now() {
                self.queue.push(until, Event::Wake(wake));
                return Ok(());
            }
        }
        let (arrival, again) = self.network.take(wake);
        self.arm(again);
        match (arrival, to) {
            (None, _) => Ok(()),
            (Some(Arrival::Message(payload)), Node::Replica(replica)) => {
                self.on_arrival(replica, wake, payload)
            }
            (Some(Arrival::Message(payload)), Node::Client(client)) => {
                let Payload::Pooled(message, size) = payload else {
                    return Ok(());
                };
                self.on_answer(client, &message, size)
            }
            (Some(Arrival::Closed), Node::Replica(replica)) => {
                self.on_closed(replica, wake.link, wake.lane)
            }
            (Some(Arrival::Closed), Node::Client(client)) => {
                let links = &mut self.clients[client as usize].links;
                let replica = links.iter().position(|link| *link == Some(wake.link));
                if let Some(replica) = replica {
                    links[replica] = None;
                    self.client_redial(client, u8::try_from(replica).expect("at most six"));
                }
                Ok(())
            }
        }
    }

    fn on_arrival(&mut self, replica: ReplicaIndex, wake: Wake, payload: Payload) -> Checked {
        let Some(pool) = self.hosts[usize::from(replica)].pool() else {
            return Ok(());
        };
        let Some(mut message) = copy_into(pool, &payload) else {
            let at = self.now() + NO_BUFFER;
            let wake = self.network.put_back(wake.link, wake.lane, payload, at);
            self.arm(wake);
            return Ok(());
        };
        let noisy = self.damage_noisy(wake.link, replica, &mut message);
        if self.foreign.contains(&wake.link) && !noisy {
            translate(&mut message);
            let refused = ingress::inspect(message.header_bytes());
            hold!(
                refused == Err(ingress::PEER_VERSION),
                "connections",
                "replica {replica} takes a message of another release: {refused:?}"
            );
            return self.hang_up(replica, wake.link, "it is of another release");
        }
        let inspected = ingress::inspect(message.header_bytes());
        if noisy && inspected.is_err() {
            return self.hang_up(replica, wake.link, "a message was damaged");
        }
        if noisy {
            self.damaged.insert(wake.link);
        }
        hold!(
            inspected.is_ok(),
            "connections",
            "replica {replica} would refuse {message:?}: {inspected:?}"
        );
        let connection = ConnectionId(wake.link.0);
        self.input(
            replica,
            Input::Received {
                connection,
                message,
            },
        )
    }

    /// Turns over a bit of a message, if it came over a noisy link; whether it did.
    fn damage_noisy(
        &mut self,
        link: LinkId,
        replica: ReplicaIndex,
        message: &mut MessageMut,
    ) -> bool {
        let Some((from, to)) = self.network.ends(link) else {
            return false;
        };
        if to != Node::Replica(replica) || !self.network.is_noisy(from, to) {
            return false;
        }
        let inspected = ingress::inspect(message.header_bytes());
        let size = inspected.map_or(HEADER_SIZE, |inspected| inspected.size);
        let at = self.random.index(size);
        let bit = 1 << self.random.below(8);
        match at.checked_sub(HEADER_SIZE) {
            None => message.header_bytes_mut()[at] ^= bit,
            Some(at) => message.body_mut_of_size(size - HEADER_SIZE)[at] ^= bit,
        }
        true
    }

    /// The listener ends a connection, as the bus does when something is wrong with what came over it.
    fn hang_up(&mut self, replica: ReplicaIndex, link: LinkId, why: &str) -> Checked {
        let now = self.now();
        self.trace
            .record(now, &[13, u64::from(replica), link.0], || {
                format!("r{replica} hangs up link {}: {why}", link.0)
            });
        let wake = self.network.close(link, Node::Replica(replica), now);
        self.arm(wake);
        let connection = ConnectionId(link.0);
        self.input(replica, Input::Closed { connection })
    }

    fn on_closed(&mut self, replica: ReplicaIndex, link: LinkId, lane: Lane) -> Checked {
        let host = &self.hosts[usize::from(replica)];
        if !host.is_up() {
            return Ok(());
        }
        if lane == Lane::Forward {
            return self.input(
                replica,
                Input::Closed {
                    connection: ConnectionId(link.0),
                },
            );
        }
        let life = host.life;
        let peers = &mut self.peers[usize::from(replica)];
        let Some(to) = peers.iter().position(|peer| *peer == Some(link)) else {
            return Ok(());
        };
        peers[to] = None;
        let to = u8::try_from(to).expect("at most six replicas");
        self.redial(replica, life, to);
        self.input(
            replica,
            Input::Peer {
                replica: to,
                connected: false,
            },
        )
    }

    // ── connections ─────────────────────────────────────────────────────────────────────────

    fn accepts(&self, replica: ReplicaIndex) -> bool {
        let paused = self.paused[usize::from(replica)] > self.now();
        self.hosts[usize::from(replica)].is_up() && !paused
    }

    fn dial(&mut self, from: ReplicaIndex, life: u32, to: ReplicaIndex) -> Checked {
        if self.peers[usize::from(from)][usize::from(to)].is_some() {
            return Ok(());
        }
        let dialed = if self.accepts(to) {
            self.network.dial(Node::Replica(from), Node::Replica(to))
        } else {
            None
        };
        let Some(link) = dialed else {
            self.redial(from, life, to);
            return Ok(());
        };
        let release = |replica: ReplicaIndex| self.hosts[usize::from(replica)].release;
        if release(from) != release(to) {
            self.foreign.insert(link);
        }
        self.peers[usize::from(from)][usize::from(to)] = Some(link);
        self.input(
            from,
            Input::Peer {
                replica: to,
                connected: true,
            },
        )
    }

    fn redial(&mut self, from: ReplicaIndex, life: u32, to: ReplicaIndex) {
        let at = self.now() + REDIAL + self.random.below(REDIAL);
        self.queue.push(at, Event::Dial { from, life, to });
    }

    fn client_dial(&mut self, client: u32, to: ReplicaIndex) {
        let dialed = if self.accepts(to) {
            self.network.dial(Node::Client(client), Node::Replica(to))
        } else {
            None
        };
        match dialed {
            Some(link) => self.clients[client as usize].links[usize::from(to)] = Some(link),
            None => self.client_redial(client, to),
        }
    }

    fn client_redial(&mut self, client: u32, to: ReplicaIndex) {
        let at = self.now() + REDIAL + self.random.below(REDIAL);
        self.queue.push(at, Event::ClientDial { client, to });
    }

    // ── clients ─────────────────────────────────────────────────────────────────────────────

    fn on_timer(&mut self, index: u32, timer: u64) {
        let client = &mut self.clients[index as usize];
        if timer != client.timer || client.is_done() {
            return;
        }
        if !client.is_waiting() {
            client.begin(self.acknowledged.highest());
            self.asked[index as usize] = self.queue.now();
        }
        self.transmit(index);
    }

    /// Sends what a client has in flight, if anything.
    pub(super) fn transmit(&mut self, index: u32) {
        let now = self.now();
        let client = &mut self.clients[index as usize];
        let Some((to, bytes, wait)) = client.transmit() else {
            return;
        };
        let (timer, again) = (client.timer, client.is_asking_again());
        let links: Vec<LinkId> = to
            .iter()
            .filter_map(|replica| client.links[*replica])
            .collect();
        let ping = client.ping(now);
        let pinged: Vec<LinkId> = client.links.iter().flatten().copied().collect();
        self.queue.push(
            now + wait,
            Event::Timer {
                client: index,
                timer,
            },
        );
        let [a, b] = halves(bytes.first_chunk().expect("a message has a header"));
        self.trace.record(now, &[6, u64::from(index), a, b], || {
            format!("c{index} asks {to:?}, {} bytes", bytes.len())
        });
        if self.transcript.is_on() {
            let to: Vec<String> = to.iter().map(|replica| format!("r{replica}")).collect();
            let who = format!("c{index} → {}", to.join(", "));
            let what = if again { "request, again" } else { "request" };
            self.transcript.note(now, who, what);
        }
        for link in links {
            let wake = self
                .network
                .send(link, Lane::Forward, Payload::Bytes(bytes.clone()), now);
            self.arm(wake);
        }
        if let Some(ping) = ping {
            for link in pinged {
                let wake =
                    self.network
                        .send(link, Lane::Forward, Payload::Bytes(ping.clone()), now);
                self.arm(wake);
            }
        }
    }

    fn on_answer(&mut self, index: u32, message: &Message, size: usize) -> Checked {
        let client = &mut self.clients[index as usize];
        let id = client.session.client();
        match client.receive(message, size) {
            Outcome::Nothing => return Ok(()),
            Outcome::Violated(what) => {
                return Err(Violation::new(
                    "client protocol",
                    format!("client {index}: {what}"),
                ));
            }
            Outcome::Answered {
                op,
                request_checksum,
                after,
                register,
            } => {
                self.acknowledged
                    .on_reply(&self.log, op, id, request_checksum, after)?;
                if !register {
                    let body = message.body_of_size(size - HEADER_SIZE);
                    if self.options.canary {
                        let spoiled: Vec<u8> = body.iter().map(|byte| byte ^ 1).collect();
                        self.replies.on_reply(op, &spoiled)?;
                    }
                    self.replies.on_reply(op, body)?;
                    let asked = self.asked[index as usize];
                    self.latencies.push(self.queue.now() - asked);
                }
                let words = [7, u64::from(index), op];
                let now = self.queue.now();
                self.transcript
                    .note(now, format!("c{index}"), format!("IS TOLD: op {op}"));
                self.trace
                    .record(now, &words, || format!("c{index} is told of op {op}"));
            }
            Outcome::Evicted(reason) => {
                let now = self.queue.now();
                self.transcript
                    .note(now, format!("c{index}"), format!("IS EVICTED: {reason}"));
                self.counts.evictions += 1;
                let crowded = self.options.client_count > self.options.sessions_max;
                let running = self.hosts.iter().filter_map(Host::replica);
                let drops = |r: &Replica| r.vsr().sessions().replies_from() > 0;
                hold!(
                    crowded || running.into_iter().any(drops),
                    "sessions",
                    "client {index} is evicted ({reason}) although there is room for all sessions and replies"
                );
                client.renew();
            }
        }
        let timer = self.clients[index as usize].timer;
        let at = self.now() + self.random.below(self.options.think_max.max(1));
        self.queue.push(
            at,
            Event::Timer {
                client: index,
                timer,
            },
        );
        Ok(())
    }
}

/// The message in a buffer of the receiver; `None` when it has none to spare.
fn copy_into(pool: &Pool, payload: &Payload) -> Option<MessageMut> {
    let (header, body): (&[u8; HEADER_SIZE], &[u8]) = match payload {
        Payload::Pooled(message, size) => (
            message.header_bytes(),
            message.body_of_size(size - HEADER_SIZE),
        ),
        Payload::Bytes(bytes) => bytes.split_first_chunk().expect("a message has a header"),
    };
    if !is_ours(header) && !pool.has_room(body.len(), Claim::Client) {
        return None;
    }
    let mut message = pool.acquire(body.len())?;
    message.header_bytes_mut().copy_from_slice(header);
    message.body_mut_of_size(body.len()).copy_from_slice(body);
    Some(message)
}

/// A message as a replica of the next release would have made it.
fn translate(message: &mut MessageMut) {
    let header = message.header_mut();
    header.version += 1;
    header.seal_header();
}

/// A number that tells messages apart: their header's checksum.
fn halves(header: &[u8; HEADER_SIZE]) -> [u64; 2] {
    let half = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    [half(0), half(8)]
}

fn words_of(input: &Input) -> [u64; 2] {
    match input {
        Input::Tick => [0, 0],
        Input::Received {
            connection: _,
            message,
        } => [1, halves(message.header_bytes())[0]],
        Input::Closed { connection } => [2, connection.0],
        Input::Peer { replica, connected } => [3, u64::from(*replica) * 2 + u64::from(*connected)],
        Input::JournalWritten { token, .. } => [4, *token],
        Input::JournalRead { token, .. } => [5, *token],
        Input::SuperblockWritten { token, .. } => [6, *token],
        Input::Done(done) => [7, done.op],
        Input::CheckpointDone(done) => [8, done.op],
        Input::Library(LibraryDone::Read { to, .. }) => [9, u64::from(*to)],
        Input::Library(done) => [10, u64::from(done.plan().unwrap_or(0))],
    }
}

fn describe(message: &Message, size: usize) -> String {
    if is_ours(message.header_bytes()) {
        format!("{message:?}")
    } else {
        format!("{size} bytes to a client")
    }
}
