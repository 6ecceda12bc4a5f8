//! Sending: one send in flight for each connection, everything else in its queue.
//!
//! Sends begin at the end of a round, so that what the round made for one connection leaves together.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::types::Fd;

use super::super::ring::{Completion, Kind, Ring};
use super::connection::{BATCH_MAX, Phase, SendQueue};
use super::{Bus, IMMEDIATE_SIZE_MAX, SlotMemory, error_name};
use crate::limits::{HEADER_SIZE, SEND_BYTES_MAX};
use crate::message::{Claim, Message};
use crate::protocol::ReplicaIndex;
use crate::replica::io::{ConnectionId, Input};

impl Bus {
    /// Sends to another replica, if it is connected and keeps up.
    pub(in crate::runtime) fn send_replica(&mut self, to: ReplicaIndex, message: Message) {
        let peer = self.peers.get(usize::from(to)).and_then(Option::as_ref);
        let size = message.header().size as usize;
        // What waits for a peer that does not read must not take the buffers that it is waiting for
        // itself: two replicas would stop each other for ever. Nor those that clients need: it would
        // make everybody as slow as itself. What is dropped is repaired, as fast as it can read.
        let has_room = self.pool.has_room(size - HEADER_SIZE, Claim::Behind);
        if let Some(index) = peer.and_then(|peer| peer.slot)
            && let connection = self.connection_mut(index)
            && connection.is_open()
            && (has_room || !connection.queue.is_sending())
            && connection.queue.bytes() + size <= SEND_BYTES_MAX
            && connection.queue.push(message, size).is_ok()
        {
            self.want_to_send(index);
        } else {
            self.counters.dropped += 1;
        }
    }

    /// Sends to a client; one that does not read what it asked for is disconnected.
    pub(in crate::runtime) fn send_client(
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
    pub(super) fn want_to_send(&mut self, index: u32) {
        let connection = self.connection_mut(index);
        if !connection.queue.is_sending() && !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push(index);
        }
    }

    /// Starts the sends of this round.
    pub(in crate::runtime) fn flush(
        &mut self,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
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
    pub(super) fn send(
        &mut self,
        index: u32,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
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
            connection.sending_since = Some(now);
            // SAFETY: the queue holds the messages until the completion, and the slot the vectors,
            // which are not written again while a send is in flight.
            unsafe { ring.push([(token, entry)]) };
        }
        if connection.is_draining() && connection.queue.is_empty() {
            self.advance_closing(index, now, ring, inputs);
        }
    }

    pub(in crate::runtime) fn on_sent(
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
        connection.sending_since = None;
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
}
