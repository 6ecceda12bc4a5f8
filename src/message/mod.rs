//! Messages: a 256-byte header and a body, together in one pooled, sector-aligned buffer.
//!
//! ```text
//!   buffer  0          256        512                                  512 + body
//!           ├──────────┼──────────┼──────────────────────────────────────┼─────────┤
//!           │ headroom │  header  │ body                                 │ padding │
//!           └──────────┴──────────┴──────────────────────────────────────┴─────────┘
//!            journal's   [Header]   records of 128 bytes stay aligned      zeroed by
//!            frame                                                         the journal
//! ```
//!
//! Bytes are received into the place where they will be read, journaled, sent to peers and
//! executed; a body is never copied on the write path. A [`MessageMut`] is the only handle of its
//! buffer and may be written; [`MessageMut::freeze`] makes it a [`Message`], which is shared by
//! counting and never changes.
//!
//! This module knows layouts and memory. It does not know what a command means.

mod checksum;
mod command;
mod header;
mod pool;

pub use checksum::checksum;
pub use command::Command;
pub use header::{Header, MAGIC, Refusal, VERSION, is_ours};
pub use pool::{Arena, Claim, Message, MessageMut, Pool, PoolConfig, SIZES};

/// The position of an operation in the log; 0 is "before the first".
pub type Op = u64;

/// A view: the primary of view `v` is replica `v mod replica_count`.
pub type View = u32;
