//! What the engine asks of a phase of a run: creating accounts, the load itself, checking afterwards.
//!
//! ```text
//!   prepare ──► (waits in the client's spare buffer) ──► start ──► sent ──► answered ──► complete
//! ```
//!
//! The engine knows sessions and sockets and nothing of transfers; a [`Work`] knows events and results
//! and nothing of sockets. Each call happens once per request, so dynamic dispatch costs nothing.

use stampede_client::wire::Operation;

use crate::failure::Failure;
use crate::pace::{Nanos, Start};

/// Which of a client's two buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// A request that has been written to a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    pub operation: Operation,
    /// Events in its one batch.
    pub events: u32,
}

/// An answered request.
#[derive(Debug)]
pub struct Done<'a> {
    pub client: usize,
    pub side: Side,
    pub events: u32,
    /// The events as they were sent.
    pub request: &'a [u8],
    /// The results, without the multi-batch trailer.
    pub results: &'a [u8],
    /// From when its latency counts.
    pub intended: Nanos,
    /// When the reply had been read and its checksums and numbers verified.
    pub now: Nanos,
    /// Since when the longest waiter among the other requests waits.
    pub waiting_since: Option<Nanos>,
}

pub trait Work {
    /// Writes the next events for `client` to the start of `events`; `None` if there are no more.
    fn prepare(&mut self, client: usize, side: Side, events: &mut [u8]) -> Option<Prepared>;

    /// Whether a prepared request may be sent.
    fn start(&mut self, now: Nanos) -> Start {
        Start::Now { intended: now }
    }

    /// A request is about to be sent whose latency counts from `intended`.
    fn on_start(&mut self, _intended: Nanos) {}

    fn complete(&mut self, done: Done<'_>) -> Result<(), Failure>;

    /// Since when requests are due that nobody could send.
    fn overdue_since(&self, _now: Nanos) -> Option<Nanos> {
        None
    }

    /// Called about ten times a second.
    fn tick(&mut self, _now: Nanos) {}
}
