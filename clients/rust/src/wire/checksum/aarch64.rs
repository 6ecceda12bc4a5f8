//! AEGIS-128L with the AES instructions of aarch64, the eight state words in registers.
//!
//! `aese` adds its key before the substitution, not after the mixing, so it gets zero for a key and the old word is
//! added at the end; processors fuse the `aese`/`aesmc` pair.

use super::{BLOCK_SIZE, FINAL_ROUNDS, START, padded};
use core::arch::aarch64::{uint8x16_t, vaeseq_u8, vaesmcq_u8, vdupq_n_u8, veorq_u8, vld1q_u8};

#[target_feature(enable = "aes,neon")]
pub(super) fn checksum(input: &[u8]) -> u128 {
    let mut state = START.map(|word| load_word(&word.to_le_bytes()));
    let mut blocks = input.chunks_exact(BLOCK_SIZE);
    for block in &mut blocks {
        let (low, high) = load(block.try_into().expect("chunks have the block's size"));
        update(&mut state, low, high);
    }
    if !blocks.remainder().is_empty() {
        let (low, high) = load(&padded(blocks.remainder()));
        update(&mut state, low, high);
    }
    let lengths = load_word(&(input.len() as u128 * 8).to_le_bytes());
    let lengths = veorq_u8(lengths, state[2]);
    for _ in 0..FINAL_ROUNDS {
        update(&mut state, lengths, lengths);
    }
    let tag = state[1..7]
        .iter()
        .fold(state[0], |tag, word| veorq_u8(tag, *word));
    // SAFETY: both types are sixteen plain bytes.
    unsafe { core::mem::transmute::<uint8x16_t, u128>(tag) }
}

#[inline]
#[target_feature(enable = "aes,neon")]
fn update(state: &mut [uint8x16_t; 8], low: uint8x16_t, high: uint8x16_t) {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = *state;
    *state = [
        round(s7, veorq_u8(s0, low)),
        round(s0, s1),
        round(s1, s2),
        round(s2, s3),
        round(s3, veorq_u8(s4, high)),
        round(s4, s5),
        round(s5, s6),
        round(s6, s7),
    ];
}

#[inline]
#[target_feature(enable = "aes,neon")]
fn round(input: uint8x16_t, add: uint8x16_t) -> uint8x16_t {
    veorq_u8(vaesmcq_u8(vaeseq_u8(input, vdupq_n_u8(0))), add)
}

#[inline]
#[target_feature(enable = "neon")]
fn load(block: &[u8; BLOCK_SIZE]) -> (uint8x16_t, uint8x16_t) {
    let (low, high) = block.split_at(16);
    let low = low.try_into().expect("half a block");
    let high = high.try_into().expect("half a block");
    (load_word(low), load_word(high))
}

#[inline]
#[target_feature(enable = "neon")]
fn load_word(word: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the array holds the sixteen bytes read; this load asks for no alignment.
    unsafe { vld1q_u8(word.as_ptr()) }
}
