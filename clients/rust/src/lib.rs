//! The ledger client protocol: layouts, checksums, and a blocking client.
//!
//! ```text
//!   Client       blocking calls: connections, repetitions, deadlines          the real world
//!     │
//!   Session, Inbox    one session and one byte stream, without IO             state, no world
//!     │
//!   wire         records, headers, multi-batch bodies, operations, checksum   bytes, no state
//! ```
//!
//! `wire` does not allocate; the server's gateway and every client share it. A load generator drives many a `Session`
//! from one event loop; a program that just wants answers takes a `Client`.
//!
//! Promise: nothing in this crate panics on bytes that came from outside. What cannot be read is refused with a
//! reason. What this crate must not know: how the server replicates, stores or executes anything.

pub mod wire;

pub mod session;
pub mod inbox;
mod connection;
pub mod client;

pub use client::{Client, Error, Options};
pub use inbox::{Buffer, Inbox};
pub use session::Session;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
