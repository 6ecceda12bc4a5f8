//! Ends: at once for whoever is at fault or gone, gently when the replica has a last word.
//!
//! A slot is free when the kernel is done with it: a socket is shut down, which ends its operations,
//! and closed after the last of them.

use std::collections::VecDeque;
use std::net::Shutdown;

use super::super::ring::{Kind, Ring};
use super::connection::{LINGER_NS, Phase, Receive, Role};
use super::{Bus, socket};
use crate::replica::ingress::PEER_VERSION;
use crate::replica::io::{ConnectionId, Input};

impl Bus {
    /// The replica closes a connection: after what is queued for it.
    pub(in crate::runtime) fn close_gently(
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
    pub(super) fn advance_closing(
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

    /// Ends a connection whose header is none that is spoken here. An operator reads of each reason once: it is
    /// another release, another program, or a line that spoils what it carries, and comes again and again.
    pub(super) fn refuse(
        &mut self,
        index: u32,
        reason: &'static str,
        now: u64,
        inputs: &mut VecDeque<Input>,
    ) {
        if !self.counters.closed.contains_key(reason) {
            let from = socket::peer_address(&self.connection_mut(index).socket);
            let what = if reason == PEER_VERSION {
                "a replica of another release: run the same one on every machine"
            } else {
                "nothing that is understood here"
            };
            tracing::warn!(
                "refusing a connection from {from}, which sends {what} ({reason}); said once for each reason"
            );
        }
        self.close(index, reason, now, inputs);
    }

    /// Ends a connection at once.
    pub(super) fn close(
        &mut self,
        index: u32,
        reason: &'static str,
        now: u64,
        inputs: &mut VecDeque<Input>,
    ) {
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
    pub(super) fn finish(&mut self, index: u32, now: u64) {
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
    pub(in crate::runtime) fn stop_accepting(&mut self) {
        self.stopping = true;
        socket::shut_down(&self.listener, Shutdown::Both);
    }

    /// Whether something is still to be sent to a client.
    pub(in crate::runtime) fn is_sending_to_clients(&self) -> bool {
        self.slots.iter().any(|slot| {
            slot.connection
                .as_ref()
                .is_some_and(|c| c.role == Role::Client && c.is_open() && !c.queue.is_empty())
        })
    }

    /// Ends every connection; the ring has still to complete what is in flight.
    pub(in crate::runtime) fn close_all(
        &mut self,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
        self.stopping = true;
        for index in self.indexes() {
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
}
