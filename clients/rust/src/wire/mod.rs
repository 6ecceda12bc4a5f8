//! The protocol as bytes, release 0.17.9: plain TCP, little-endian, a 256-byte header and a body.
//!
//! ```text
//!   0            128           256                                    size <= 1 MiB
//!   ├─ frame ─────┼─ command ───┼─ body ─────────────────────────────────┤
//!   │ checksums   │ request,    │ elements back to back, or a            │
//!   │ cluster,    │ reply, ...  │ multi-batch: payload, then a trailer   │
//!   │ size, view  │             │ with one count per batch               │
//! ```
//!
//! Modules in the order in which a receiver needs them: `checksum`, `header`, `operation`, `body`, `multibatch`,
//! `record`, `status`. Records and headers are `#[repr(C)]` with native integers: a body that lies at a 16-byte
//! aligned address (bodies start 256 bytes into an aligned buffer) is read in place, without a copy. Bytes at other
//! addresses give an error from `zerocopy`, never undefined behaviour.

#[cfg(target_endian = "big")]
compile_error!(
    "the wire format is little-endian and is read in place: big-endian hosts are not supported"
);

pub mod checksum;
pub mod release;
pub mod header;
pub mod operation;
pub mod body;
pub mod multibatch;
pub mod record;
pub mod status;

pub use checksum::checksum;
pub use header::{Command, EvictionReason, Refusal};
pub use operation::{Form, Kind, Operation};
pub use record::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, SparseResult, Transfer,
};
pub use release::Release;
pub use status::{CreateAccountStatus, CreateTransferStatus};

/// Bytes of every message header.
pub const HEADER_SIZE: usize = 256;
/// Bytes of the largest message, header included.
pub const MESSAGE_SIZE_MAX: usize = 1 << 20;
/// Bytes of the largest body, in either direction.
pub const BODY_SIZE_MAX: usize = MESSAGE_SIZE_MAX - HEADER_SIZE;
/// Bytes of a register request's body: a limit of zero and reserved zeros.
pub const REGISTER_BODY_SIZE: usize = 256;
/// Bytes of a register reply's body: the batch size limit and reserved zeros.
pub const REGISTER_REPLY_BODY_SIZE: usize = 64;
/// A pong naming a replica at or above this stops the client's process.
pub const REPLICAS_MAX: u8 = 6;
/// Ids of accounts, transfers and clients are never zero.
pub const ID_NONE: u128 = 0;
/// Largest timestamp a user may see: the sign bit stays free.
pub const TIMESTAMP_MAX: u64 = (1 << 63) - 1;

const _: () = assert!(BODY_SIZE_MAX == 1_048_320);
