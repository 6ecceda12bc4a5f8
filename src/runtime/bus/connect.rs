//! Where connections come from: accepting those of clients and other replicas, dialling the other
//! replicas.
//!
//! Whoever dials sends; whoever was dialled receives. So two replicas have two connections, and neither
//! must find out which of two is to stay.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::types::{Fd, Timespec};
use io_uring::{opcode, squeue};

use super::super::ring::{Completion, Kind, Ring, Token};
use super::connection::{Connection, Phase, Receive, Role, SendQueue};
use super::{Bus, socket};
use crate::limits::MEMBERS_MAX;
use crate::protocol::ReplicaIndex;
use crate::replica::io::{ConnectionId, Input};

/// The places that are filled only by connections of which the first message says that they are
/// replicas: however many clients there are, the cluster can talk.
const PLACES_FOR_REPLICAS: usize = 2 * MEMBERS_MAX;

/// A dial that takes longer has failed; it covers one lost packet and its repetition.
static DIAL_TIMEOUT: Timespec = Timespec::new().sec(2);

impl Bus {
    /// Keeps one accept in the ring.
    pub(in crate::runtime) fn accept(&mut self, ring: &mut Ring) {
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

    pub(in crate::runtime) fn on_accepted(
        &mut self,
        completion: Completion,
        now: u64,
        ring: &mut Ring,
    ) {
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
        let left = self.free.len().saturating_sub(MEMBERS_MAX);
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

    pub(super) fn dial(&mut self, peer_index: usize, now: u64, ring: &mut Ring) {
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
        let replica = ReplicaIndex::try_from(peer_index).expect("at most MEMBERS_MAX");
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

    pub(in crate::runtime) fn on_connected(
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

    pub(super) fn place(&mut self, socket: OwnedFd, role: Role, now: u64) -> u32 {
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
            sending_since: None,
            is_ready: false,
        });
        index
    }
}
