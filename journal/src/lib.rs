//! A direct-I/O, checksummed write-ahead journal.
//!
//! The journal stores a sequence of opaque payloads, each with a 64-bit tag of the caller's, in a
//! ring of preallocated segment files. One append is one device write, and its completion means
//! that the entry survives a loss of power. What the crate promises, in full:
//!
//! 1. A completion means durable: after power loss the entry is there, byte for byte.
//! 2. Many appends may be in flight and complete in any order; [`Journal::durable`] is the
//!    contiguous durable point.
//! 3. After a crash a torn tail is cut off, and damage to an entry that was durable before is
//!    reported with its position; the two are told apart (see [`scan`](mod@scan)).
//! 4. Stale frames of a recycled segment and frames at a wrong address are never taken for live.
//! 5. Trimming is O(1): whole segments are recycled.
//! 6. One device write per append.
//! 7. Failures are errors with names, and after a failed write nothing more is acknowledged.
//!
//! ```text
//!              payload, tag                       completion
//!                   │                                  │
//!   pure     ┌──────▼───── append ─────────────── on_written ──► durable()
//!            │ frame: header, checksum, padding        ▲
//!            │ segment: log address ⇄ file, offset     │
//!            └──────┬──────────────────────────────────┼───── scan, trim, locate
//!                WriteOp (a value)                     │
//!   device   ┌──────▼──────────────────────────────────┴─────┐
//!            │ uring: O_DIRECT + RWF_DSYNC  │ memory: faults  │  or the caller's own ring
//!            └───────────────────────────────────────────────┘
//! ```
//!
//! The pure half makes no system call: [`Journal::append`] returns a [`WriteOp`] that the caller
//! hands to a [`device`], or pushes on an io_uring of its own
//! ([`device::uring::write_entry`]). The crate knows nothing of replication, reads no clock and
//! no entropy, and starts no thread.

#![warn(missing_docs)]

mod append;
mod buffer;
mod check;
mod config;
pub mod device;
mod frame;
mod recovery;
pub mod scan;
mod segment;
mod trim;

pub use append::{AppendError, Fault, Journal, Location, WriteOp};
pub use buffer::{AlignedBuffer, FrameBuffer};
pub use check::{PayloadCheck, Xxh3, checksum_payload};
pub use config::{Config, ConfigError, FRAME_SIZE_MAX, INFLIGHT_BYTES_LIMIT, SEGMENT_COUNT_MAX};
pub use frame::{Damage, FORMAT_VERSION, FRAME_HEADER_SIZE, SECTOR, frame_size};
pub use recovery::{Corruption, OpenError, Recovery, TornTail};
pub use scan::Entry;
pub use trim::{Extent, ReadError};
