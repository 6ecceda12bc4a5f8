//! AEGIS-128L as an unkeyed hash: the 128-bit tag over the input as associated data, with an all-zero key, an
//! all-zero nonce and an empty plaintext.
//!
//! ```text
//!   start ──► absorb 32 bytes ──► ... ──► absorb (lengths ^ s2) seven times ──► s0 ^ s1 ^ ... ^ s6
//!   (the state after initialisation: key and nonce never change, so it is computed at compile time)
//! ```
//!
//! Not to be confused with the MAC construction of newer drafts, which finalises with the tag length where this one
//! has the (zero) plaintext length and so yields other values.
//!
//! Three implementations of one function, chosen when called: AES instructions of x86-64 and aarch64, and a table
//! driven one for everything else. It finds damage, not forgery: there is no secret, so the tables leak nothing.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Bytes absorbed by one update.
const BLOCK_SIZE: usize = 32;
/// Updates that mix the lengths into the tag.
const FINAL_ROUNDS: usize = 7;
/// The eight words of the state after initialisation with the zero key and nonce.
const START: [u128; 8] = portable::start();

/// Checksum of no bytes at all: the body checksum of messages that are only a header.
pub const CHECKSUM_EMPTY: u128 = 0x49f1_7461_8255_402d_e6e7_e3c4_0d60_cc83;

/// The checksum of `input`; the tag's 16 bytes read as a little-endian integer.
#[inline]
pub fn checksum(input: &[u8]) -> u128 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has just been asked for both features.
        return unsafe { x86_64::checksum(input) };
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("aes") {
        // SAFETY: the processor has just been asked for the feature.
        return unsafe { aarch64::checksum(input) };
    }
    portable::checksum(input)
}

/// The last, incomplete block, padded with zeros.
#[inline]
fn padded(rest: &[u8]) -> [u8; BLOCK_SIZE] {
    let mut block = [0; BLOCK_SIZE];
    block[..rest.len()].copy_from_slice(rest);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(checksum(&[]), CHECKSUM_EMPTY);
        assert_eq!(portable::checksum(&[]), CHECKSUM_EMPTY);
        let zeros = u128::from_le_bytes([
            0xf7, 0x2a, 0xd4, 0x8d, 0xd0, 0x5d, 0xd1, 0x65, 0x61, 0x33, 0x10, 0x1c, 0xd4, 0xbe,
            0x3a, 0x26,
        ]);
        assert_eq!(checksum(&[0; 16]), zeros);
        assert_eq!(portable::checksum(&[0; 16]), zeros);
    }

    proptest! {
        #[test]
        fn portable_agrees_with_the_instructions(input in proptest::collection::vec(any::<u8>(), 0..700)) {
            prop_assert_eq!(checksum(&input), portable::checksum(&input));
        }

        #[test]
        fn every_bit_counts(mut input in proptest::collection::vec(any::<u8>(), 1..400), at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let before = checksum(&input);
            let at = at.index(input.len());
            input[at] ^= 1 << bit;
            prop_assert_ne!(before, checksum(&input));
        }
    }
}
