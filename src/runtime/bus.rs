//! All connections: accepting, dialling, receiving messages, sending them, closing.
//!
//! ```text
//!   accept ──► header: 256 bytes ──► inspect ──► buffer ──► body, into its final place ──► Received
//!                 ▲                                 └ none free: wait, the socket fills up      │
//!                 └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Two-step receive: the header goes to memory of the connection, the body straight to where it will
//! be journaled from. MSG_WAITALL saves completions but promises nothing, so every result is compared
//! with what was asked for and the rest is asked for again.
//!
//! Promises
//! - backpressure: while fewer than `BUFFERS_RESERVED` buffers of a size are free, clients' bodies
//!   stay in their sockets; only other replicas use the reserve;
//! - every connection that the replica has heard of is reported closed once;
//! - a slot and its memory are used again only when the kernel is done with them;
//! - bytes from outside close a connection with a counted reason, never more than that.

use std::cell::UnsafeCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::types::{Fd, Timespec};
use io_uring::{opcode, squeue};
use socket2::SockAddr;

use super::connection::{BATCH_MAX, Connection, LINGER_NS, Phase, Receive, Role, SendQueue};
use super::dial::Backoff;
use super::ring::{Completion, GENERATION_MASK, Kind, Ring, Token};
use super::socket;
use crate::limits::{BUFFERS_RESERVED, CONNECTIONS_MAX, HEADER_SIZE, REPLICAS_MAX};
use crate::message::{Message, Pool};
use crate::protocol::ReplicaIndex;
use crate::replica::ingress::Inspected;
use crate::replica::io::{ConnectionId, Input};

/// The places that are filled only by connections of which the first message says that they are
/// replicas: however many clients there are, the cluster can talk.
const PLACES_FOR_REPLICAS: usize = 2 * REPLICAS_MAX;
/// How long an accepted connection may take one of those places without a word.
const PROBATION_NS: u64 = 2_000_000_000;

/// Up to this size a direct system call costs less than an operation on the ring.
const IMMEDIATE_SIZE_MAX: usize = 8 * 1024;

const SLOTS: usize = CONNECTIONS_MAX + REPLICAS_MAX;

/// A dial that takes longer has failed; it covers one lost packet and its repetition.
static DIAL_TIMEOUT: Timespec = Timespec::new().sec(2);

/// The look at a header between the two steps of a receive.
pub(super) type Inspect = fn(&[u8; HEADER_SIZE]) -> Result<Inspected, &'static str>;

/// Memory that the kernel reads or writes for a slot, whoever holds the slot's connection.
#[repr(C)]
struct SlotMemory {
    header: UnsafeCell<[u8; HEADER_SIZE]>,
    vectors: UnsafeCell<[libc::iovec; BATCH_MAX]>,
    message: UnsafeCell<libc::msghdr>,
}

struct Slot {
    connection: Option<Connection>,
    /// Counts the connections that the slot has had.
    generation: u32,
}

/// Another replica, as a place to dial.
struct Peer {
    address: SockAddr,
    target: SocketAddr,
    slot: Option<u32>,
    retry_at: u64,
    backoff: Backoff,
}

/// What has happened since the start.
#[derive(Debug, Default, Clone)]
pub(super) struct Counters {
    pub(super) accepted: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Messages to replicas that were not connected, or did not take what we had.
    pub(super) dropped: u64,
    /// Times that a client's message had to wait for a buffer.
    pub(super) held_back: u64,
    /// Connections closed, by reason.
    pub(super) closed: BTreeMap<&'static str, u64>,
}

pub(super) struct Bus {
    pool: Pool,
    inspect: Inspect,
    listener: OwnedFd,
    accept_in_flight: bool,
    slots: Vec<Slot>,
    memory: Box<[SlotMemory]>,
    free: Vec<u32>,
    peers: Vec<Option<Peer>>,
    /// Slots whose connection waits for a buffer; each at most once.
    waiting: VecDeque<u32>,
    /// Slots whose connection got something to send in this round; each at most once.
    ready: Vec<u32>,
    /// Connections with a deadline (closing, or on probation).
    timed: usize,
    counters: Counters,
    stopping: bool,
}

impl Bus {
    /// Listens on `addresses[replica]`, and will dial the others.
    pub(super) fn new(
        replica: ReplicaIndex,
        addresses: &[SocketAddr],
        listener: OwnedFd,
        pool: Pool,
        inspect: Inspect,
        seed: u64,
    ) -> Self {
        let count = u32::try_from(SLOTS).expect("a small constant");
        let peers = addresses.iter().enumerate().map(|(index, address)| {
            (index != usize::from(replica)).then(|| Peer {
                address: SockAddr::from(*address),
                target: *address,
                slot: None,
                retry_at: 0,
                backoff: Backoff::new(seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            })
        });
        Self {
            pool,
            inspect,
            listener,
            accept_in_flight: false,
            slots: (0..count)
                .map(|_| Slot {
                    connection: None,
                    generation: 0,
                })
                .collect(),
            memory: (0..count).map(|_| SlotMemory::new()).collect(),
            free: (0..count).rev().collect(),
            peers: peers.collect(),
            waiting: VecDeque::with_capacity(SLOTS),
            ready: Vec::with_capacity(SLOTS),
            timed: 0,
            counters: Counters::default(),
            stopping: false,
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    // ── time ────────────────────────────────────────────────────────────────────────────────────

    /// Dials, accepts again after a shortage of descriptors, and ends what has taken too long.
    pub(super) fn on_tick(&mut self, now: u64, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        if self.stopping {
            return self.expire(now, ring, inputs);
        }
        self.accept(ring);
        for index in 0..self.peers.len() {
            if let Some(peer) = &self.peers[index]
                && peer.slot.is_none()
                && peer.retry_at <= now
            {
                self.dial(index, now, ring);
            }
        }
        if self.timed > 0 {
            self.expire(now, ring, inputs);
        }
    }

    fn expire(&mut self, now: u64, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        for index in 0..u32::try_from(SLOTS).expect("a small constant") {
            let Some(connection) = &self.slots[index as usize].connection else {
                continue;
            };
            if connection
                .deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                self.close(index, "closed_by_replica", now, inputs);
            } else if connection.on_probation && connection.since + PROBATION_NS <= now {
                self.close(index, "connections_max", now, inputs);
            } else if connection.is_draining() {
                self.advance_closing(index, now, ring, inputs);
            }
        }
    }

    // ── accepting and dialling ──────────────────────────────────────────────────────────────────

    /// Keeps one accept in the ring.
    pub(super) fn accept(&mut self, ring: &mut Ring) {
        if self.accept_in_flight || self.stopping {
            return;
        }
        let entry = opcode::Accept::new(
            Fd(self.listener.as_raw_fd()),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
        .flags(libc::SOCK_CLOEXEC)
        .build();
        self.accept_in_flight = true;
        // SAFETY: the operation names no memory.
        unsafe { ring.push([(Token::new(Kind::Accept, 0, 0), entry)]) };
    }

    pub(super) fn on_accepted(&mut self, completion: Completion, now: u64, ring: &mut Ring) {
        self.accept_in_flight = false;
        let descriptor = match completion.result() {
            Ok(_) => completion.result,
            Err(error) => {
                // The connection was gone before it was taken: take the next. No descriptors, no
                // memory: the next tick tries again, when some may have come back.
                match error.raw_os_error() {
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN) => self.accept(ring),
                    _ if self.stopping => {}
                    _ => tracing::warn!("cannot accept connections: {error}; trying again"),
                }
                return;
            }
        };
        // SAFETY: the completion of an accept gives a new descriptor, to us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        self.counters.accepted += 1;
        if self.stopping {
            return;
        }
        self.accept(ring);
        let left = self.free.len().saturating_sub(REPLICAS_MAX);
        if left == 0 {
            *self.counters.closed.entry("connections_max").or_default() += 1;
            return;
        }
        if let Err(error) = socket::prepare(&socket) {
            tracing::debug!("an accepted connection is gone already: {error}");
            return;
        }
        let index = self.place(socket, Role::Unknown, now);
        let connection = self.connection_mut(index);
        connection.on_probation = left <= PLACES_FOR_REPLICAS;
        self.timed += usize::from(left <= PLACES_FOR_REPLICAS);
        self.receive_header(index, 0, ring);
    }

    fn dial(&mut self, peer_index: usize, now: u64, ring: &mut Ring) {
        let peer = self.peers[peer_index]
            .as_mut()
            .expect("dialled peers exist");
        let socket = match socket::outgoing(peer.target) {
            Ok(socket) => socket,
            Err(error) => {
                peer.retry_at = now + peer.backoff.next(0);
                tracing::warn!("cannot dial {}: {error}", peer.target);
                return;
            }
        };
        let replica = ReplicaIndex::try_from(peer_index).expect("at most REPLICAS_MAX");
        let descriptor = Fd(socket.as_raw_fd());
        let index = self.place(socket, Role::Outgoing(replica), now);
        let token = self.token(Kind::Connect, index);
        let peer = self.peers[peer_index]
            .as_mut()
            .expect("dialled peers exist");
        peer.slot = Some(index);
        let (address, length) = (peer.address.as_ptr(), peer.address.len());
        let connect = opcode::Connect::new(descriptor, address.cast(), length)
            .build()
            .flags(squeue::Flags::IO_LINK);
        let timeout = opcode::LinkTimeout::new(&raw const DIAL_TIMEOUT).build();
        let timeout_token = self.token(Kind::Aside, index);
        self.connection_mut(index).in_flight += 1;
        // SAFETY: the address lives in the peer, which is never moved or dropped while the ring
        // runs, and the timeout is static; the kernel copies both when it takes the entries.
        unsafe { ring.push([(token, connect), (timeout_token, timeout)]) };
    }

    pub(super) fn on_connected(
        &mut self,
        completion: Completion,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
        let index = self.landed(completion);
        let connection = self.connection_mut(index);
        let Role::Outgoing(replica) = connection.role else {
            unreachable!("only outgoing connections are dialled");
        };
        if connection.phase == Phase::Closing {
            return self.finish(index, now);
        }
        let failed = match completion.result() {
            Ok(_) if socket::is_own_echo(&connection.socket) => Some("own_echo"),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(replica, "dialling failed: {error}");
                Some("dial_failed")
            }
        };
        if let Some(reason) = failed {
            return self.close(index, reason, now, inputs);
        }
        connection.phase = Phase::Open;
        connection.since = now;
        tracing::info!("reached replica {replica}");
        inputs.push_back(Input::Peer {
            replica,
            connected: true,
        });
        // Nothing ever comes on an outgoing connection but its end.
        self.receive_header(index, 0, ring);
    }

    fn place(&mut self, socket: OwnedFd, role: Role, now: u64) -> u32 {
        let index = self.free.pop().expect("the caller has looked");
        let slot = &mut self.slots[index as usize];
        assert!(slot.connection.is_none());
        slot.generation = slot.generation.wrapping_add(1);
        slot.connection = Some(Connection {
            socket,
            id: ConnectionId(u64::from(slot.generation) << 32 | u64::from(index)),
            role,
            phase: match role {
                Role::Outgoing(_) => Phase::Connecting,
                Role::Unknown | Role::Client | Role::Replica => Phase::Open,
            },
            receive: Receive::Idle,
            queue: SendQueue::default(),
            in_flight: 0,
            since: now,
            on_probation: false,
            is_ready: false,
        });
        index
    }

    // ── receiving ───────────────────────────────────────────────────────────────────────────────

    fn receive_header(&mut self, index: u32, filled: usize, ring: &mut Ring) {
        let token = self.token(Kind::Receive, index);
        let start = self.memory[index as usize].header.get().cast::<u8>();
        let connection = self.connection_mut(index);
        connection.receive = Receive::Header { filled };
        connection.in_flight += 1;
        let entry = receive(
            &connection.socket,
            start.wrapping_add(filled),
            HEADER_SIZE - filled,
        );
        // SAFETY: the slot's memory outlives the ring's operations, and is not looked at before the
        // completion.
        unsafe { ring.push([(token, entry)]) };
    }

    fn receive_body(&mut self, index: u32, ring: &mut Ring) {
        let token = self.token(Kind::Receive, index);
        let connection = self.connection_mut(index);
        let Receive::Body {
            message,
            size,
            filled,
        } = &mut connection.receive
        else {
            unreachable!("the caller has a body to receive");
        };
        let rest = &mut message.body_mut_of_size(*size - HEADER_SIZE)[*filled..];
        let (start, length) = (rest.as_mut_ptr(), rest.len());
        connection.in_flight += 1;
        let entry = receive(&connection.socket, start, length);
        // SAFETY: the connection owns the buffer until the completion, and does not look into it.
        unsafe { ring.push([(token, entry)]) };
    }

    pub(super) fn on_received(
        &mut self,
        completion: Completion,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
        let index = self.landed(completion);
        let connection = self.connection_mut(index);
        if connection.phase == Phase::Closing {
            return self.finish(index, now);
        }
        let count = match completion.result() {
            Ok(0) => return self.close(index, "end", now, inputs),
            Ok(count) => count,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => 0,
            Err(error) => return self.close(index, error_name(&error), now, inputs),
        };
        if connection.is_draining() {
            // Read and forgotten, so that the other side sees an end and not a reset.
            return self.receive_header(index, 0, ring);
        }
        if matches!(connection.role, Role::Outgoing(_)) && count > 0 {
            return self.close(index, "unexpected_bytes", now, inputs);
        }
        match &mut connection.receive {
            Receive::Header { filled } => {
                let filled = *filled + count;
                assert!(filled <= HEADER_SIZE);
                if filled < HEADER_SIZE {
                    return self.receive_header(index, filled, ring);
                }
                self.on_header(index, now, ring, inputs);
            }
            Receive::Body { size, filled, .. } => {
                *filled += count;
                assert!(*filled <= *size - HEADER_SIZE);
                if *filled < *size - HEADER_SIZE {
                    return self.receive_body(index, ring);
                }
                self.deliver(index, ring, inputs);
            }
            Receive::Idle | Receive::Waiting { .. } => unreachable!("nothing was being received"),
        }
    }

    /// A whole header is in the slot's memory.
    fn on_header(&mut self, index: u32, now: u64, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        // SAFETY: the receive has completed, so the kernel is done with these bytes.
        let header = unsafe { &*self.memory[index as usize].header.get() };
        let Inspected { size, ours } = match (self.inspect)(header) {
            Ok(inspected) => inspected,
            Err(reason) => return self.close(index, reason, now, inputs),
        };
        assert!((HEADER_SIZE..=crate::limits::MESSAGE_SIZE_MAX).contains(&size));
        let connection = self.connection_mut(index);
        if connection.role == Role::Unknown {
            connection.role = if ours { Role::Replica } else { Role::Client };
            if std::mem::take(&mut connection.on_probation) {
                self.timed -= 1;
                if !ours {
                    return self.close(index, "connections_max", now, inputs);
                }
            }
        }
        self.connection_mut(index).receive = Receive::Waiting { size };
        if !self.start_body(index, ring, inputs) {
            self.counters.held_back += 1;
            self.waiting.push_back(index);
        }
    }

    /// Takes a buffer for the message whose header is here, if there is one.
    fn start_body(&mut self, index: u32, ring: &mut Ring, inputs: &mut VecDeque<Input>) -> bool {
        let connection = self.slots[index as usize]
            .connection
            .as_mut()
            .expect("a connection that has a header");
        let Receive::Waiting { size } = connection.receive else {
            unreachable!("a header is here");
        };
        let body_size = size - HEADER_SIZE;
        let reserve = if connection.role == Role::Replica {
            0
        } else {
            BUFFERS_RESERVED
        };
        if self.pool.free(body_size) <= reserve {
            return false;
        }
        let Some(mut message) = self.pool.acquire(body_size) else {
            return false;
        };
        // SAFETY: no receive of this slot is in flight.
        let header = unsafe { &*self.memory[index as usize].header.get() };
        message.header_bytes_mut().copy_from_slice(header);
        connection.receive = Receive::Body {
            message,
            size,
            filled: 0,
        };
        if body_size <= IMMEDIATE_SIZE_MAX && self.receive_at_once(index) {
            self.deliver(index, ring, inputs);
        } else {
            self.receive_body(index, ring);
        }
        true
    }

    /// Takes what is there of a small body, which nearly always came with its header: then this
    /// saves a completion, and a turn of the loop. Gives whether the message is whole.
    fn receive_at_once(&mut self, index: u32) -> bool {
        let connection = self.connection_mut(index);
        let Receive::Body {
            message,
            size,
            filled,
        } = &mut connection.receive
        else {
            unreachable!("the caller has a body to receive");
        };
        let body = message.body_mut_of_size(*size - HEADER_SIZE);
        if !body.is_empty() {
            let socket = connection.socket.as_raw_fd();
            let start = body.as_mut_ptr().cast();
            // SAFETY: writes at most the body's length into the body.
            let received = unsafe { libc::recv(socket, start, body.len(), libc::MSG_DONTWAIT) };
            // Nothing yet, the end, an error: the receive in the ring will see it too.
            *filled = usize::try_from(received).unwrap_or(0);
        }
        *filled == body.len()
    }

    /// A message is whole.
    fn deliver(&mut self, index: u32, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        let connection = self.connection_mut(index);
        let Receive::Body { message, .. } =
            std::mem::replace(&mut connection.receive, Receive::Idle)
        else {
            unreachable!("a body is here");
        };
        inputs.push_back(Input::Received {
            connection: connection.id,
            message,
        });
        self.counters.received += 1;
        if !self.stopping || self.connection_mut(index).role == Role::Replica {
            self.receive_header(index, 0, ring);
        }
    }

    /// Whether a connection waits for a buffer.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Buffers may have come back: lets waiting connections go on, the longest wait first.
    pub(super) fn resume(&mut self, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        for _ in 0..self.waiting.len() {
            let index = self.waiting.pop_front().expect("counted");
            let connection = &self.slots[index as usize].connection;
            let waits = connection
                .as_ref()
                .is_some_and(|c| matches!(c.receive, Receive::Waiting { .. }));
            if waits && !self.start_body(index, ring, inputs) {
                self.waiting.push_back(index);
            }
        }
    }

    // ── sending ─────────────────────────────────────────────────────────────────────────────────

    /// Sends to another replica, if it is connected and keeps up.
    pub(super) fn send_replica(&mut self, to: ReplicaIndex, message: Message) {
        let peer = self.peers.get(usize::from(to)).and_then(Option::as_ref);
        let size = message.header().size as usize;
        if let Some(index) = peer.and_then(|peer| peer.slot)
            && self.connection_mut(index).is_open()
            && self.connection_mut(index).queue.push(message, size).is_ok()
        {
            self.want_to_send(index);
        } else {
            self.counters.dropped += 1;
        }
    }

    /// Sends to a client; one that does not read what it asked for is disconnected.
    pub(super) fn send_client(
        &mut self,
        id: ConnectionId,
        (message, size): (Message, usize),
        now: u64,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(index) = self.index_of(id) else {
            return;
        };
        let connection = self.connection_mut(index);
        if !connection.is_open() {
            return;
        }
        if connection.queue.push(message, size).is_err() {
            return self.close(index, "does_not_read", now, inputs);
        }
        self.want_to_send(index);
    }

    /// Remembers to send at the end of the round: what comes until then leaves together.
    fn want_to_send(&mut self, index: u32) {
        let connection = self.connection_mut(index);
        if !connection.queue.is_sending() && !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push(index);
        }
    }

    /// Starts the sends of this round.
    pub(super) fn flush(&mut self, now: u64, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        let mut ready = std::mem::take(&mut self.ready);
        for index in ready.drain(..) {
            let connection = &mut self.slots[index as usize].connection;
            // It may be gone, or another one, since it got something to send.
            if let Some(connection) = connection
                && std::mem::take(&mut connection.is_ready)
                && connection.phase != Phase::Closing
            {
                self.send(index, now, ring, inputs);
            }
        }
        self.ready = ready;
    }

    /// Sends what is queued, unless a send is in flight: small things at once, as they nearly always
    /// fit the socket's buffer and need no completion then; the rest through the ring.
    fn send(&mut self, index: u32, now: u64, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        let token = self.token(Kind::Send, index);
        let memory = &self.memory[index as usize];
        let connection = self.slots[index as usize]
            .connection
            .as_mut()
            .expect("a connection that sends");
        while !connection.queue.is_sending() && !connection.queue.is_empty() {
            let size = memory.gather(&mut connection.queue);
            if size <= IMMEDIATE_SIZE_MAX {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                let socket = connection.socket.as_raw_fd();
                // SAFETY: `gather` has made the message whole, and the call keeps nothing of it.
                let sent = unsafe { libc::sendmsg(socket, memory.message.get(), flags) };
                if let Ok(sent @ 1..) = usize::try_from(sent) {
                    self.counters.sent += 1;
                    connection.queue.on_sent(sent);
                    continue;
                }
                // No room: the ring waits for it. An error: it will come again there.
            }
            let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
            let socket = Fd(connection.socket.as_raw_fd());
            let entry = opcode::SendMsg::new(socket, memory.message.get())
                .flags(u32::try_from(flags).expect("flags are positive"))
                .build();
            connection.in_flight += 1;
            // SAFETY: the queue holds the messages until the completion, and the slot the vectors,
            // which are not written again while a send is in flight.
            unsafe { ring.push([(token, entry)]) };
        }
        if connection.is_draining() && connection.queue.is_empty() {
            self.advance_closing(index, now, ring, inputs);
        }
    }

    pub(super) fn on_sent(
        &mut self,
        completion: Completion,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
        let index = self.landed(completion);
        let connection = self.connection_mut(index);
        let result = match completion.result() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => Ok(0),
            result => result,
        };
        connection.queue.on_sent(*result.as_ref().unwrap_or(&0));
        if connection.phase == Phase::Closing {
            return self.finish(index, now);
        }
        if let Err(error) = result {
            return self.close(index, error_name(&error), now, inputs);
        }
        self.counters.sent += 1;
        self.send(index, now, ring, inputs);
    }

    // ── closing ─────────────────────────────────────────────────────────────────────────────────

    /// The replica closes a connection: after what is queued for it.
    pub(super) fn close_gently(
        &mut self,
        id: ConnectionId,
        reason: &'static str,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(index) = self.index_of(id) else {
            return;
        };
        let connection = self.connection_mut(index);
        if !connection.is_open() {
            return;
        }
        tracing::debug!(reason, "closing a connection");
        connection.phase = Phase::Flushing {
            deadline: now + LINGER_NS,
        };
        self.timed += 1;
        *self.counters.closed.entry(reason).or_default() += 1;
        self.advance_closing(index, now, ring, inputs);
    }

    /// Goes on with a gentle close.
    fn advance_closing(
        &mut self,
        index: u32,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
        let connection = self.connection_mut(index);
        // A message that was waiting for a buffer is not wanted any more.
        let restart = matches!(connection.receive, Receive::Waiting { .. } | Receive::Idle);
        if let Phase::Flushing { deadline } = connection.phase
            && connection.queue.is_empty()
        {
            socket::shut_down(&connection.socket, Shutdown::Write);
            connection.phase = Phase::Draining { deadline };
        }
        if restart {
            self.receive_header(index, 0, ring);
        }
        if self.stopping {
            self.close(index, "stopping", now, inputs);
        }
    }

    /// Ends a connection at once.
    fn close(&mut self, index: u32, reason: &'static str, now: u64, inputs: &mut VecDeque<Input>) {
        let connection = self.connection_mut(index);
        if connection.phase == Phase::Closing {
            return;
        }
        let was = std::mem::replace(&mut connection.phase, Phase::Closing);
        let gently = matches!(was, Phase::Flushing { .. } | Phase::Draining { .. });
        let timed = gently || std::mem::take(&mut connection.on_probation);
        socket::shut_down(&connection.socket, Shutdown::Both);
        connection.queue.abandon();
        if matches!(connection.receive, Receive::Waiting { .. }) {
            connection.receive = Receive::Idle;
        }
        match connection.role {
            Role::Outgoing(replica) => {
                if was == Phase::Open {
                    tracing::info!(reason, "lost replica {replica}");
                    inputs.push_back(Input::Peer {
                        replica,
                        connected: false,
                    });
                }
            }
            Role::Unknown | Role::Client | Role::Replica => {
                inputs.push_back(Input::Closed {
                    connection: connection.id,
                });
            }
        }
        self.timed -= usize::from(timed);
        if !gently {
            *self.counters.closed.entry(reason).or_default() += 1;
        }
        self.finish(index, now);
    }

    /// Frees the slot of a closing connection once the kernel is done with it.
    fn finish(&mut self, index: u32, now: u64) {
        let connection = self.connection_mut(index);
        assert_eq!(connection.phase, Phase::Closing);
        if connection.in_flight > 0 {
            return;
        }
        let (role, since) = (connection.role, connection.since);
        self.slots[index as usize].connection = None;
        self.free.push(index);
        if let Role::Outgoing(replica) = role {
            let peer = self.peers[usize::from(replica)]
                .as_mut()
                .expect("dialled peers exist");
            peer.slot = None;
            peer.retry_at = now + peer.backoff.next(now.saturating_sub(since));
        }
    }

    /// Takes no more connections and no more requests; what is under way goes on.
    pub(super) fn stop_accepting(&mut self) {
        self.stopping = true;
        socket::shut_down(&self.listener, Shutdown::Both);
    }

    /// Whether something is still to be sent to a client.
    pub(super) fn is_sending_to_clients(&self) -> bool {
        self.slots.iter().any(|slot| {
            slot.connection
                .as_ref()
                .is_some_and(|c| c.role == Role::Client && c.is_open() && !c.queue.is_empty())
        })
    }

    /// Ends every connection; the ring has still to complete what is in flight.
    pub(super) fn close_all(&mut self, now: u64, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        self.stopping = true;
        for index in 0..u32::try_from(SLOTS).expect("a small constant") {
            let Some(connection) = &self.slots[index as usize].connection else {
                continue;
            };
            if connection.phase == Phase::Connecting {
                // A socket that is being connected does not mind being shut down.
                ring.cancel(self.token(Kind::Connect, index));
            }
            self.close(index, "stopping", now, inputs);
        }
    }

    // ── slots ───────────────────────────────────────────────────────────────────────────────────

    fn connection_mut(&mut self, index: u32) -> &mut Connection {
        self.slots[index as usize]
            .connection
            .as_mut()
            .expect("a slot with operations in flight has a connection")
    }

    fn index_of(&self, id: ConnectionId) -> Option<u32> {
        let index = u32::try_from(id.0 & u64::from(u32::MAX)).expect("32 bits");
        let connection = self.slots.get(index as usize)?.connection.as_ref()?;
        (connection.id == id).then_some(index)
    }

    fn token(&self, kind: Kind, index: u32) -> Token {
        Token::new(kind, self.slots[index as usize].generation, index)
    }

    /// An operation of a slot is over.
    fn landed(&mut self, completion: Completion) -> u32 {
        let index = completion.token.index;
        let generation = self.slots[index as usize].generation & GENERATION_MASK;
        assert_eq!(completion.token.generation, generation);
        let connection = self.connection_mut(index);
        connection.in_flight = connection
            .in_flight
            .checked_sub(1)
            .expect("an operation was in flight");
        index
    }
}

impl SlotMemory {
    /// Begins a send: points the message header to what is to be sent. Gives its size.
    fn gather(&self, queue: &mut SendQueue) -> usize {
        let vectors: *mut libc::iovec = self.vectors.get().cast();
        let mut size = 0;
        let count = queue.start(|at, stretch| {
            assert!(at < BATCH_MAX);
            size += stretch.len();
            // SAFETY: below BATCH_MAX, and no send is in flight: `start` has checked.
            unsafe {
                vectors.add(at).write(libc::iovec {
                    iov_base: stretch.as_ptr().cast_mut().cast(),
                    iov_len: stretch.len(),
                });
            }
        });
        // SAFETY: no send is in flight, so nobody else looks at it.
        let message = unsafe { &mut *self.message.get() };
        message.msg_iov = vectors;
        message.msg_iovlen = count;
        size
    }

    fn new() -> Self {
        // SAFETY: all-zero vectors and an all-zero message header are valid: nulls and zeros.
        let (vectors, message) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            header: UnsafeCell::new([0; HEADER_SIZE]),
            vectors: UnsafeCell::new(vectors),
            message: UnsafeCell::new(message),
        }
    }
}

fn receive(socket: &OwnedFd, start: *mut u8, length: usize) -> squeue::Entry {
    let length = u32::try_from(length).expect("at most a mebibyte");
    opcode::Recv::new(Fd(socket.as_raw_fd()), start, length)
        .flags(libc::MSG_WAITALL)
        .build()
}

/// A name for the counters. Everything that is not listed is rare.
fn error_name(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE) => "reset",
        Some(libc::ETIMEDOUT) => "timed_out",
        _ => "socket_error",
    }
}
