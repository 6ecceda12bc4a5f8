//! Pings: is anybody there, and is my session still known?
//!
//! Every replica answers pings itself, the primary like the backups, from what it has executed so far.

use stampede_client::wire::{EvictionReason, Release};

use super::{Terms, parse};
use crate::message::Op;

/// A valid ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingView {
    pub client: u128,
    /// 0 before registering, and from releases that do not tell.
    pub session: u64,
    pub release: Release,
    /// The client's own clock, to be sent back as it is.
    pub timestamp: u64,
}

/// What a client is told besides replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// [`super::render::pong`] with the ping's timestamp.
    Pong { timestamp: u64 },
    /// [`super::render::eviction`].
    Evict(EvictionReason),
}

/// The answer to a ping. `is_known`: the client is in the session table, which stands at operation `commit`.
///
/// A session number above `commit` belongs to a register that this replica has not executed yet: no reason to evict.
pub fn ping(ping: &PingView, is_known: bool, commit: Op, terms: &Terms) -> Answer {
    if !is_known && ping.session != 0 && ping.session <= commit {
        return Answer::Evict(EvictionReason::NoSession);
    }
    match parse::release(ping.release, terms) {
        Ok(()) => Answer::Pong {
            timestamp: ping.timestamp,
        },
        Err(reason) => Answer::Evict(reason),
    }
}
