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
//! - backpressure: while buffers of a size are short, clients' bodies stay in their sockets;
//! - nobody who does not read keeps the last buffers from the others: replicas get no more of them, and
//!   clients are disconnected (see [`Claim`]);
//! - every connection that the replica has heard of is reported closed once;
//! - a slot and its memory are used again only when the kernel is done with them;
//! - bytes from outside close a connection with a counted reason, never more than that.

mod close;
mod connect;
mod connection;
mod dial;
mod receive;
mod send;
mod socket;

use std::cell::UnsafeCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::SockAddr;

pub(in crate::runtime) use socket::listen;

use super::ring::{Completion, GENERATION_MASK, Kind, Ring, Token};
use crate::limits::{HEADER_SIZE, MEMBERS_MAX};
use crate::message::{Claim, Pool, SIZES};
use crate::protocol::ReplicaIndex;
use crate::replica::ingress::Inspected;
use crate::replica::io::{ConnectionId, Input};
use connection::{BATCH_MAX, Connection, Role};
use dial::Backoff;

/// How long an accepted connection may take one of those places without a word.
const PROBATION_NS: u64 = 2_000_000_000;

/// Up to this size a direct system call costs less than an operation on the ring.
const IMMEDIATE_SIZE_MAX: usize = 8 * 1024;

/// While buffers are short, a client may take so long to read what is being sent to it.
const STALLED_NS: u64 = 1_000_000_000;

/// The look at a header between the two steps of a receive.
pub(in crate::runtime) type Inspect = fn(&[u8; HEADER_SIZE]) -> Result<Inspected, &'static str>;

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
pub(in crate::runtime) struct Counters {
    pub(in crate::runtime) accepted: u64,
    pub(in crate::runtime) received: u64,
    pub(in crate::runtime) sent: u64,
    /// Messages to replicas that were not connected, or did not take what we had.
    pub(in crate::runtime) dropped: u64,
    /// Times that a client's message had to wait for a buffer.
    pub(in crate::runtime) held_back: u64,
    /// Connections closed, by reason.
    pub(in crate::runtime) closed: BTreeMap<&'static str, u64>,
}

pub(in crate::runtime) struct Bus {
    pool: Pool,
    inspect: Inspect,
    listener: OwnedFd,
    accept_in_flight: bool,
    slots: Vec<Slot>,
    memory: Box<[SlotMemory]>,
    free: Vec<u32>,
    peers: Vec<Option<Peer>>,
    /// Connections that wait for a buffer, each once: by the buffer's size, those of replicas apart,
    /// so that whoever cannot go on is in front of nobody who can.
    waiting: [VecDeque<ConnectionId>; 2 * SIZES],
    /// Slots whose connection got something to send in this round; each at most once.
    ready: Vec<u32>,
    /// Connections with a deadline (closing, or on probation).
    timed: usize,
    counters: Counters,
    stopping: bool,
}

impl Bus {
    /// Listens on `addresses[replica]`, and will dial the others. Has room for so many connections
    /// besides those that it dials.
    pub(in crate::runtime) fn new(
        connections_max: usize,
        replica: ReplicaIndex,
        addresses: &[SocketAddr],
        listener: OwnedFd,
        pool: Pool,
        inspect: Inspect,
        seed: u64,
    ) -> Self {
        let slots = connections_max + MEMBERS_MAX;
        let count = u32::try_from(slots).expect("at most CONNECTIONS_MAX, and a few");
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
            waiting: Default::default(),
            ready: Vec::with_capacity(slots),
            timed: 0,
            counters: Counters::default(),
            stopping: false,
        }
    }

    pub(in crate::runtime) fn counters(&self) -> &Counters {
        &self.counters
    }

    // ── time ────────────────────────────────────────────────────────────────────────────────────

    /// Dials, accepts again after a shortage of descriptors, and ends what has taken too long.
    pub(in crate::runtime) fn on_tick(
        &mut self,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
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
        if !self.pool.has_room_everywhere(Claim::Client) {
            self.take_back(now, inputs);
        }
    }

    /// Clients wait for buffers: ends the connections of those that hold some and do not read.
    /// They lose nothing: they connect again, and ask again.
    fn take_back(&mut self, now: u64, inputs: &mut VecDeque<Input>) {
        for index in self.indexes() {
            let Some(connection) = &self.slots[index as usize].connection else {
                continue;
            };
            let is_stalled = connection
                .sending_since
                .is_some_and(|since| since + STALLED_NS <= now);
            if connection.role == Role::Client && connection.is_open() && is_stalled {
                self.close(index, "does_not_read", now, inputs);
            }
        }
    }

    /// Dials a replica that has shown that it is there, unless that is under way.
    pub(in crate::runtime) fn dial_now(
        &mut self,
        replica: ReplicaIndex,
        now: u64,
        ring: &mut Ring,
    ) {
        let index = usize::from(replica);
        if let Some(Some(peer)) = self.peers.get(index)
            && peer.slot.is_none()
            && !self.stopping
        {
            self.dial(index, now, ring);
        }
    }

    fn expire(&mut self, now: u64, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        for index in self.indexes() {
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

    // ── slots ───────────────────────────────────────────────────────────────────────────────────

    fn indexes(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.slots.len()).expect("counted in 32 bits")
    }

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

/// A name for the counters. Everything that is not listed is rare.
fn error_name(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE) => "reset",
        Some(libc::ETIMEDOUT) => "timed_out",
        _ => "socket_error",
    }
}
