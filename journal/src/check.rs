//! Checksums of payloads: whose they are, and the one that is ready made.
//!
//! The caller hands over the checksum of a payload with the append, because it has usually hashed
//! the bytes already (when it received them), and passes over memory are what checksums cost. The
//! journal keeps that value in the frame header, under the header's own checksum, and asks a
//! [`PayloadCheck`] to verify it when a frame is read back.

use xxhash_rust::xxh3::xxh3_128;

/// Verifies payloads that were read back against the checksum their caller gave with the append.
pub trait PayloadCheck {
    /// Whether `payload` is, byte for byte, what `checksum` was made from.
    fn verify(&self, payload: &[u8], checksum: u128) -> bool;
}

/// XXH3-128 over the whole payload: [`checksum_payload`] makes it, this verifies it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Xxh3;

impl PayloadCheck for Xxh3 {
    fn verify(&self, payload: &[u8], checksum: u128) -> bool {
        checksum_payload(payload) == checksum
    }
}

/// The checksum that [`Xxh3`] verifies.
pub fn checksum_payload(payload: &[u8]) -> u128 {
    xxh3_128(payload)
}
