//! The ledger client protocol: layouts, checksums, and a blocking client.
//!
//! `wire` is the protocol as bytes: records, headers, multi-batch bodies, operation table and checksum. It does no
//! IO, keeps no state and does not allocate; the server's gateway and every client share it.
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
