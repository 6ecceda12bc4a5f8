//! The ledger protocol as its official clients speak it.
//!
//! ```text
//!   header bytes ─► inspect ─► (body arrives) ─► parse ─► Incoming::Request ─► adopt ─► our request ─► replication
//!                                                  │
//!                                                  ├─► Incoming::Ping ─► ping ─► Answer
//!                                                  ├─► Incoming::Evict
//!                                                  └─► Incoming::Ignore, Incoming::Close
//!
//!   reply body, what it answers ─► render::reply ─► header bytes in front of the body ─► client
//! ```
//!
//! The layouts are `stampede_client::wire`'s, which clients share; here is what a server does with them: which check
//! comes first, what is answered, what is said by silence. Session tables are not looked at: `parse` ends where they
//! are needed.
//!
//! A client trusts its server: a wrong byte in an answer ends the client's process or leaves it waiting for ever. So
//! `render` takes types that cannot hold the wrong value, or asserts, and `audit` says whether a reply's body is one
//! that clients accept.

mod adopt;
pub mod audit;
mod parse;
mod ping;
mod reason;
pub mod render;

#[cfg(test)]
mod tests;

pub use adopt::adopt;
pub use parse::{Incoming, RequestView, inspect, parse};
pub use ping::{Answer, PingView, ping};
pub use reason::{Counters, Reason};
pub use stampede_client::wire::{EvictionReason, Operation, Release};

use crate::limits;
use stampede_client::wire;

/// What a replica's clients are offered, fixed while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub cluster: u128,
    /// This replica's index.
    pub replica: u8,
    /// The release this server is; clients may not be newer.
    pub release: Release,
    /// Clients may not be older.
    pub release_min: Release,
    /// Largest request body, trailer included.
    pub batch_size_limit: u32,
}

impl Terms {
    /// What a server offers unless told otherwise: every client release whose operations we know.
    pub fn new(cluster: u128, replica: u8) -> Self {
        let batch_size_limit = u32::try_from(limits::BODY_SIZE_MAX).expect("a mebibyte");
        Self {
            cluster,
            replica,
            release: Release::CURRENT,
            release_min: Release::CLIENT_MIN,
            batch_size_limit,
        }
    }
}

const _: () = {
    assert!(wire::HEADER_SIZE == limits::HEADER_SIZE);
    assert!(wire::MESSAGE_SIZE_MAX == limits::MESSAGE_SIZE_MAX);
    assert!(wire::BODY_SIZE_MAX == limits::BODY_SIZE_MAX);
    assert!(wire::REPLICAS_MAX as usize == limits::REPLICAS_MAX);
};
