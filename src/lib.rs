//! Stampede: a replicated transaction engine.
//!
//! The modules stand in the order in which bytes visit them:
//!
//! ```text
//!   client bytes                                                               client bytes
//!      │                                                                              ▲
//! ┌────▼──────────────── replica: one on_input, one list of outputs ──────────────────┴─────┐
//! │ gateway ─► message ─► vsr ────► journal ─► vsr ───► machine+store ─► message ─► gateway │
//! │ foreign    request    prepare   durable    commit   apply            reply      foreign │
//! └─────────────────────▲───────────────────────────────────────┬───────────────────────────┘
//!                       │                                       │
//!   inputs: received, written, read, done, tick     outputs: send, write, read, task
//!                       │                                       │
//! ┌─────────────────────┴───────────── one of two worlds ───────▼───────────────────────────┐
//! │ runtime: io_uring, sockets, disks, clock   │ sim: virtual clock, network, disks; one seed│
//! └─────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Who may import whom is a promise that `tests/direction.rs` checks.

pub mod limits;
pub mod mutant;
pub mod message;
pub mod gateway;
pub mod protocol;
pub mod vsr;
pub mod machine;
pub mod store;

pub mod replica;
pub mod runtime;
pub mod sim;
pub mod cli;
