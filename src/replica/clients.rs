//! Connections: what a foreign message becomes, and which client waits where for its reply.
//!
//! A reply goes to the connection on which the client's request last arrived, on whichever replica
//! that is: the primary's, or a backup's that passed the request on. A connection that sends
//! something no client or replica of this cluster can mean is closed, with a counted reason.

use std::collections::{BTreeMap, BTreeSet};

use super::ingress::refusal_name;
use super::io::{ConnectionId, Output};
use crate::gateway::tigerbeetle::{
    Answer, Counters, EvictionReason, Incoming, Operation, Reason, Release, Terms, adopt, parse,
    ping, render,
};
use crate::limits::{CONNECTIONS_MAX, HEADER_SIZE};
use crate::message::{Command, Message, MessageMut, Op, Pool, Refusal, View};
use crate::protocol::Eviction;
use crate::vsr::sessions::{Session, Sessions};

/// Where the replica stands, as far as clients are told.
pub(super) struct Standing<'a> {
    pub view: View,
    pub commit: Op,
    pub sessions: &'a Sessions,
    /// Only a serving primary ends sessions.
    pub serving: bool,
}

/// A client's request that is on its way.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    connection: ConnectionId,
    request: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Clients {
    terms: Terms,
    member_count: u8,
    /// At most one entry for each client; those of closed connections are removed.
    waiting: BTreeMap<u128, Waiting>,
    /// The same by connection, so that the end of one costs nothing to thousands of others.
    waiting_on: BTreeSet<(ConnectionId, u128)>,
    /// The connection of the request that the protocol is looking at.
    arriving: Option<ConnectionId>,
    counters: Counters,
    peer_refusals: BTreeMap<&'static str, u64>,
}

impl Clients {
    pub(super) fn new(cluster: u128, replica: u8, member_count: u8) -> Self {
        Self {
            terms: Terms::new(cluster, replica),
            member_count,
            waiting: BTreeMap::new(),
            waiting_on: BTreeSet::new(),
            arriving: None,
            counters: Counters::default(),
            peer_refusals: BTreeMap::new(),
        }
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counted = self
            .counters
            .iter()
            .map(|(reason, count)| (reason.name(), count));
        let peers = self
            .peer_refusals
            .iter()
            .map(|(name, count)| (*name, *count));
        counted.chain(peers).filter(|(_, count)| *count > 0)
    }

    /// A message of ours: its command, or why the connection is closed.
    pub(super) fn check_peer(&mut self, message: &Message) -> Result<Command, &'static str> {
        let checked = self.check_peer_header(message);
        checked.map_err(|refusal| self.refuse_peer(refusal_name(refusal)))
    }

    /// Counts why a replica's connection is closed.
    pub(super) fn refuse_peer(&mut self, reason: &'static str) -> &'static str {
        *self.peer_refusals.entry(reason).or_insert(0) += 1;
        reason
    }

    fn check_peer_header(&self, message: &Message) -> Result<Command, Refusal> {
        let header = message.header();
        let command = header.command().ok_or(Refusal::Command(header.command))?;
        header.verify_body(message.body())?;
        if header.cluster != self.terms.cluster {
            return Err(Refusal::Cluster(header.cluster));
        }
        if header.replica >= self.member_count {
            return Err(Refusal::Replica(header.replica));
        }
        Ok(command)
    }

    /// A foreign message: answers it, or gives the request it holds in our form.
    pub(super) fn receive(
        &mut self,
        connection: ConnectionId,
        message: MessageMut,
        standing: &Standing<'_>,
        pool: &Pool,
        outputs: &mut Vec<Output>,
    ) -> Option<MessageMut> {
        match parse(&message, &self.terms, standing.view) {
            Incoming::Request(request) => {
                let (cluster, replica) = (self.terms.cluster, self.terms.replica);
                return Some(adopt(message, &request, cluster, replica, request.view));
            }
            Incoming::Ping(view) => {
                let is_known = standing.sessions.get(view.client).is_some();
                match ping(&view, is_known, standing.commit, &self.terms) {
                    Answer::Pong { timestamp } => {
                        if let Some(mut pong) = pool.acquire(0) {
                            let bytes = pong.header_bytes_mut();
                            render::pong(bytes, timestamp, &self.terms, standing.view);
                            send(connection, pong, outputs);
                        }
                    }
                    Answer::Evict(reason) => {
                        self.send_eviction(
                            connection,
                            view.client,
                            reason,
                            standing.view,
                            pool,
                            outputs,
                        );
                    }
                }
            }
            Incoming::Evict { client, reason } => {
                // A backup may be behind: it leaves the verdict to the primary.
                if standing.serving {
                    self.send_eviction(connection, client, reason, standing.view, pool, outputs);
                }
            }
            Incoming::Ignore(reason) => self.counters.add(reason),
            Incoming::Close(reason) => {
                self.counters.add(reason);
                outputs.push(Output::Close {
                    connection,
                    reason: reason.name(),
                });
            }
        }
        None
    }

    /// Until the next call, requests belong to this connection.
    pub(super) fn arriving(&mut self, connection: Option<ConnectionId>) {
        self.arriving = connection;
    }

    /// The request is accepted: its client waits on the connection it came on.
    pub(super) fn wait(&mut self, client: u128, request: u32) {
        let Some(connection) = self.arriving else {
            return;
        };
        // Bounded even when one connection speaks for ever new clients.
        self.stop_waiting(client);
        if self.waiting.len() < 2 * CONNECTIONS_MAX {
            let waiting = Waiting {
                connection,
                request,
            };
            self.waiting.insert(client, waiting);
            self.waiting_on.insert((connection, client));
        }
    }

    fn stop_waiting(&mut self, client: u128) {
        if let Some(waiting) = self.waiting.remove(&client) {
            self.waiting_on.remove(&(waiting.connection, client));
        }
    }

    pub(super) fn closed(&mut self, connection: ConnectionId) {
        let all = (connection, u128::MIN)..=(connection, u128::MAX);
        while let Some((_, client)) = self.waiting_on.range(all.clone()).next() {
            self.stop_waiting(*client);
        }
    }

    /// Sends the client's latest reply, if that is what it waits for here: from the buffer that it was
    /// made in, or else from the table.
    pub(super) fn reply(
        &mut self,
        (client, session): (u128, &Session),
        fresh: Option<MessageMut>,
        view: View,
        pool: &Pool,
        outputs: &mut Vec<Output>,
    ) {
        let Some(Waiting {
            connection,
            request,
        }) = self.waiting.get(&client).copied()
        else {
            return;
        };
        if request != session.request {
            return;
        }
        let Some(body) = session.reply() else {
            return;
        };
        let copy = || {
            let mut copy = pool.acquire(body.len())?;
            copy.body_mut_of_size(body.len()).copy_from_slice(body);
            Some(copy)
        };
        // Without a buffer nothing is sent; the client asks again.
        let Some(mut message) = fresh.or_else(copy) else {
            return;
        };
        let fields = reply_fields(client, session);
        let (header, body) = message.parts_mut(body.len());
        let size = render::reply(header, &fields, body, &self.terms, view);
        self.stop_waiting(client);
        outputs.push(Output::SendClient {
            connection,
            message: message.freeze(),
            size,
        });
    }

    /// Ends a client's session, if the client is here.
    pub(super) fn evict(
        &mut self,
        client: u128,
        reason: Eviction,
        view: View,
        pool: &Pool,
        outputs: &mut Vec<Output>,
    ) {
        let Some(connection) = self.arriving else {
            return;
        };
        let reason = match reason {
            // The protocol has no word for a reply that is not kept; this one ends the session, and
            // the client knows that the fate of its request is open.
            Eviction::NoSession | Eviction::ReplyDropped => EvictionReason::NoSession,
            Eviction::SessionTooLow => EvictionReason::SessionTooLow,
            Eviction::ReleaseMismatch => EvictionReason::SessionReleaseMismatch,
            // Nor for this: the operation is one that is not done here any more.
            Eviction::MachineFull => EvictionReason::InvalidRequestOperation,
        };
        self.send_eviction(connection, client, reason, view, pool, outputs);
    }

    fn send_eviction(
        &mut self,
        connection: ConnectionId,
        client: u128,
        reason: EvictionReason,
        view: View,
        pool: &Pool,
        outputs: &mut Vec<Output>,
    ) {
        self.counters.add(Reason::Evicted(reason));
        if let Some(mut message) = pool.acquire(0) {
            render::eviction(
                message.header_bytes_mut(),
                client,
                reason,
                &self.terms,
                view,
            );
            send(connection, message, outputs);
        }
    }
}

fn send(connection: ConnectionId, message: MessageMut, outputs: &mut Vec<Output>) {
    let message = message.freeze();
    outputs.push(Output::SendClient {
        connection,
        message,
        size: HEADER_SIZE,
    });
}

/// What the table knows of a reply besides its body.
fn reply_fields(client: u128, session: &Session) -> render::ReplyFields {
    let operation = Operation::try_from(session.operation)
        .expect("only operations that the gateway knows are prepared");
    render::ReplyFields {
        request_checksum: session.request_checksum,
        context: session.context,
        client,
        release: Release(session.release),
        op: session.op,
        timestamp: session.timestamp,
        request: session.request,
        operation,
    }
}
