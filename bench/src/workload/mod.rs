//! What is sent: which accounts, which flags, which ids; deterministic from a seed.
//!
//! ```text
//!   seed ──► accounts (alias table, hot account, uniform) ──► events ──► records in a batch buffer
//!   seed + run ──► ids (time, random, reversed) ─────────────────┘
//! ```
//!
//! A client's [`Generator`](events::Generator) fills the same accounts, amounts and flags again when
//! it is built again from the same seed and asked for the same batch sizes; ids come from elsewhere.
//! Verification relies on that: it replays the run instead of keeping books while the clock runs.
//!
//! Nothing here knows time, sockets or sessions; nothing allocates after construction.

pub mod accounts;
pub mod events;
pub mod ids;
