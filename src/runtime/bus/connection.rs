//! One connection: what is being received, what is being sent, and how it ends.
//!
//! ```text
//!                 dial                     Output::Close               queue empty
//!   (outgoing) Connecting ──► Open ─────────────────────► Flushing ─────────────────► Draining
//!                     │         │ error, end, refusal         │ error, time up             │ end,
//!                     ▼         ▼                             ▼                            ▼ time up
//!                     └────► Closing: shut down; free once nothing is in flight ◄──────────┘
//! ```
//!
//! A connection that the replica closes still gets what was queued for it (an eviction says why),
//! and is read until the other side closes too: closing a socket with unread bytes would reset it,
//! and might destroy what was just sent. Both are bounded by [`LINGER_NS`].
//!
//! Everything here is state and arithmetic; [`super`] talks to the ring.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::limits::{HEADER_SIZE, SEND_QUEUE_MAX};
use crate::message::{Message, MessageMut};
use crate::protocol::ReplicaIndex;
use crate::replica::io::ConnectionId;

/// How long a connection that is being closed may take to read what was queued for it.
pub(super) const LINGER_NS: u64 = 1_000_000_000;

/// Messages in one send.
pub(super) const BATCH_MAX: usize = 16;
/// Small messages leave together while they are below this; larger ones gain nothing from it, and
/// would hold each other's buffers until the last byte is sent.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Accepted; nothing has been received.
    Unknown,
    /// Accepted; its first message was of the foreign protocol.
    Client,
    /// Accepted; its first message was ours.
    Replica,
    /// Dialled by us; we only send.
    Outgoing(ReplicaIndex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    Flushing { deadline: u64 },
    Draining { deadline: u64 },
    Closing,
}

/// The receiving half.
#[derive(Debug)]
pub(super) enum Receive {
    /// Nothing is in flight and nothing is wanted.
    Idle,
    /// The next header is being received.
    Header { filled: usize },
    /// A header is here, but no buffer for its message.
    Waiting { size: usize },
    /// The body is being received into its final place.
    Body {
        message: MessageMut,
        size: usize,
        filled: usize,
    },
}

/// The sending half: messages in order, the first few of them in flight.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    messages: VecDeque<(Message, usize)>,
    /// Of all of them together.
    bytes: usize,
    /// Bytes of the first message that have been sent.
    sent: usize,
    /// Messages at the front that the send in flight covers; 0 when none is.
    batch: usize,
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What has not been sent whole.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_sending(&self) -> bool {
        self.batch > 0
    }

    /// Queues the first `size` bytes of header and body.
    ///
    /// # Errors
    /// The message, when the queue is full.
    pub(super) fn push(&mut self, message: Message, size: usize) -> Result<(), Message> {
        assert!((HEADER_SIZE..=HEADER_SIZE + message.body_capacity()).contains(&size));
        if self.messages.len() == SEND_QUEUE_MAX {
            return Err(message);
        }
        self.bytes += size;
        self.messages.push_back((message, size));
        Ok(())
    }

    /// What to send next: stretches of memory in order. They stay valid until [`Self::on_sent`].
    pub(super) fn start(&mut self, mut stretch: impl FnMut(usize, &[u8])) -> usize {
        assert_eq!(self.batch, 0, "one send at a time");
        let mut bytes = 0;
        for (index, (message, size)) in self.messages.iter().take(BATCH_MAX).enumerate() {
            if index > 0 && bytes + size > BATCH_BYTES_MAX {
                break;
            }
            let skip = if index == 0 { self.sent } else { 0 };
            stretch(index, &message.bytes(*size)[skip..]);
            bytes += size - skip;
            self.batch += 1;
        }
        self.batch
    }

    /// The send in flight is over, after this many bytes.
    pub(super) fn on_sent(&mut self, mut count: usize) {
        let mut batch = std::mem::take(&mut self.batch);
        assert!(batch > 0, "a send was in flight");
        while count > 0 {
            assert!(batch > 0, "more was sent than asked for");
            let (_, size) = self.messages.front().expect("a batch of queued messages");
            let size = *size;
            let left = size - self.sent;
            if count < left {
                self.sent += count;
                return;
            }
            count -= left;
            batch -= 1;
            self.sent = 0;
            self.bytes -= size;
            self.messages.pop_front();
        }
    }

    /// Forgets what is not in flight.
    pub(super) fn abandon(&mut self) {
        self.messages.truncate(self.batch);
        self.bytes = self.messages.iter().map(|(_, size)| size).sum();
    }
}

/// A connection in its slot.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) id: ConnectionId,
    pub(super) role: Role,
    pub(super) phase: Phase,
    pub(super) receive: Receive,
    pub(super) queue: SendQueue,
    /// Operations on the ring.
    pub(super) in_flight: u32,
    /// When it was accepted or dialled.
    pub(super) since: u64,
    /// When the send that is on the ring began.
    pub(super) sending_since: Option<u64>,
    /// Accepted with the last places: only another replica may stay.
    pub(super) on_probation: bool,
    /// It got something to send in this round.
    pub(super) is_ready: bool,
}

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether what arrives is still wanted.
    pub(super) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Flushing { .. } | Phase::Draining { .. })
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Flushing { deadline } | Phase::Draining { deadline } => Some(deadline),
            Phase::Connecting | Phase::Open | Phase::Closing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Pool, PoolConfig};

    fn pool() -> Pool {
        Pool::new(&PoolConfig {
            small: 600,
            medium: 2,
            large: 4,
            huge_pages: false,
        })
        .unwrap()
    }

    fn message(pool: &Pool, body_size: usize, fill: u8) -> (Message, usize) {
        let mut message = pool.acquire(body_size).unwrap();
        message.header_bytes_mut().fill(fill);
        message.body_mut_of_size(body_size).fill(fill);
        (message.freeze(), HEADER_SIZE + body_size)
    }

    fn sent(queue: &mut SendQueue) -> Vec<usize> {
        let mut sizes = Vec::new();
        queue.start(|_, stretch| sizes.push(stretch.len()));
        sizes
    }

    #[test]
    fn any_cut_of_a_send_is_continued_where_it_ended() {
        let pool = pool();
        // Three messages of 300 bytes; the kernel takes `step` bytes each time.
        for step in 1..=900 {
            let mut queue = SendQueue::default();
            for fill in 1..=3 {
                let (message, size) = message(&pool, 44, fill);
                queue.push(message, size).unwrap();
            }
            let mut received = Vec::new();
            while !queue.is_empty() {
                let mut offered = Vec::new();
                queue.start(|_, stretch| offered.extend_from_slice(stretch));
                let count = step.min(offered.len());
                received.extend_from_slice(&offered[..count]);
                queue.on_sent(count);
            }
            let expected: Vec<u8> = [[1u8; 300], [2; 300], [3; 300]].concat();
            assert_eq!(received, expected, "step {step}");
        }
        assert!(pool.is_whole());
    }

    #[test]
    fn small_messages_leave_together_and_large_ones_alone() {
        let pool = pool();
        let mut queue = SendQueue::default();
        for body in [0, 0, 1 << 19, 0] {
            let (message, size) = message(&pool, body, 1);
            queue.push(message, size).unwrap();
        }
        assert_eq!(sent(&mut queue), [256, 256]);
        queue.on_sent(512);
        assert_eq!(sent(&mut queue), [256 + (1 << 19)]);
        queue.on_sent(256 + (1 << 19));
        assert_eq!(sent(&mut queue), [256]);
        queue.on_sent(256);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_gives_the_message_back() {
        let pool = pool();
        let mut queue = SendQueue::default();
        for _ in 0..SEND_QUEUE_MAX {
            let (message, size) = message(&pool, 0, 1);
            queue.push(message, size).unwrap();
        }
        let (last, size) = message(&pool, 0, 1);
        assert!(queue.push(last, size).is_err());
        assert_eq!(sent(&mut queue).len(), BATCH_MAX);
        queue.abandon();
        assert_eq!(queue.messages.len(), BATCH_MAX);
    }
}
