//! The phases of a run, each a [`Work`](crate::engine::work::Work) for the engine, in their order.
//!
//! ```text
//!   accounts ──► warm-up (load) ──► probe (single transfers) ──► load ──► verify (look-ups)
//! ```
//!
//! Only `load` is timed for the figures.

pub mod accounts;
pub mod load;
pub mod verify;

use stampede_client::wire::record::{Account, CreateResult, Transfer};
use zerocopy::FromBytes;

/// Results as they lie in a reply.
fn create_results(bytes: &[u8]) -> &[CreateResult] {
    <[CreateResult]>::ref_from_bytes(bytes).expect("replies lie in aligned buffers")
}

fn transfers(bytes: &[u8]) -> &[Transfer] {
    <[Transfer]>::ref_from_bytes(bytes).expect("bodies lie in aligned buffers")
}

fn accounts(bytes: &[u8]) -> &[Account] {
    <[Account]>::ref_from_bytes(bytes).expect("bodies lie in aligned buffers")
}
