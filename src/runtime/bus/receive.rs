//! Receiving in two steps.
//!
//! The header goes to memory of the connection; it says how long the body is and who sends it, so that
//! the body can go straight to where it will be journaled from. MSG_WAITALL saves completions but
//! promises nothing: every result is compared with what was asked for, and the rest is asked for again.
//!
//! A body that needs a buffer which is not there stays in its socket, and with it everything behind.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use super::super::ring::{Completion, Kind, Ring};
use super::connection::{Phase, Receive, Role};
use super::{Bus, IMMEDIATE_SIZE_MAX, error_name};
use crate::limits::HEADER_SIZE;
use crate::message::{Claim, Pool, SIZES};
use crate::replica::ingress::Inspected;
use crate::replica::io::Input;

impl Bus {
    pub(super) fn receive_header(&mut self, index: u32, filled: usize, ring: &mut Ring) {
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

    pub(super) fn receive_body(&mut self, index: u32, ring: &mut Ring) {
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

    pub(in crate::runtime) fn on_received(
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
    pub(super) fn on_header(
        &mut self,
        index: u32,
        now: u64,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) {
        // SAFETY: the receive has completed, so the kernel is done with these bytes.
        let header = unsafe { &*self.memory[index as usize].header.get() };
        let Inspected { size, ours } = match (self.inspect)(header) {
            Ok(inspected) => inspected,
            Err(reason) => return self.refuse(index, reason, now, inputs),
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
            let connection = self.connection_mut(index);
            let (id, is_replica) = (connection.id, connection.role == Role::Replica);
            let queue = Pool::size_class(size - HEADER_SIZE) + if is_replica { SIZES } else { 0 };
            self.waiting[queue].push_back(id);
        }
    }

    /// Takes a buffer for the message whose header is here, if there is one.
    pub(super) fn start_body(
        &mut self,
        index: u32,
        ring: &mut Ring,
        inputs: &mut VecDeque<Input>,
    ) -> bool {
        let connection = self.slots[index as usize]
            .connection
            .as_mut()
            .expect("a connection that has a header");
        let Receive::Waiting { size } = connection.receive else {
            unreachable!("a header is here");
        };
        let body_size = size - HEADER_SIZE;
        let is_replica = connection.role == Role::Replica;
        if !is_replica && !self.pool.has_room(body_size, Claim::Client) {
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
    pub(super) fn receive_at_once(&mut self, index: u32) -> bool {
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
    pub(super) fn deliver(&mut self, index: u32, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
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
    pub(in crate::runtime) fn has_waiting(&self) -> bool {
        self.waiting.iter().any(|queue| !queue.is_empty())
    }

    /// Buffers may have come back: lets waiting connections go on, the longest wait first.
    pub(in crate::runtime) fn resume(&mut self, ring: &mut Ring, inputs: &mut VecDeque<Input>) {
        for queue in 0..self.waiting.len() {
            // Others of the queue may join it meanwhile, behind those that are there.
            for _ in 0..self.waiting[queue].len() {
                let id = *self.waiting[queue].front().expect("counted");
                if let Some(index) = self.index_of(id)
                    && matches!(self.connection_mut(index).receive, Receive::Waiting { .. })
                    && !self.start_body(index, ring, inputs)
                {
                    break;
                }
                self.waiting[queue].pop_front();
            }
        }
    }
}

fn receive(socket: &OwnedFd, start: *mut u8, length: usize) -> squeue::Entry {
    let length = u32::try_from(length).expect("at most a mebibyte");
    opcode::Recv::new(Fd(socket.as_raw_fd()), start, length)
        .flags(libc::MSG_WAITALL)
        .build()
}
