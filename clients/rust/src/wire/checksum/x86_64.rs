//! AEGIS-128L with the AES instructions of x86-64, the eight state words in registers.
//!
//! The speed limit is latency: each word of an update waits for its left neighbour's previous value. So a block is
//! given to `aesenc` as its round key and the old word is added after it: then a word's own old value is one `xor`
//! away from the new one, and block and load stay off the critical path.

use super::{BLOCK_SIZE, FINAL_ROUNDS, START, padded};
use core::arch::x86_64::{__m128i, _mm_aesenc_si128, _mm_loadu_si128, _mm_xor_si128};

/// AVX is asked for because its three-operand forms spare the copies of the state.
#[target_feature(enable = "aes,avx")]
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
    let lengths = _mm_xor_si128(lengths, state[2]);
    for _ in 0..FINAL_ROUNDS {
        update(&mut state, lengths, lengths);
    }
    let tag = state[1..7]
        .iter()
        .fold(state[0], |tag, word| _mm_xor_si128(tag, *word));
    // SAFETY: both types are sixteen plain bytes.
    unsafe { core::mem::transmute::<__m128i, u128>(tag) }
}

#[inline]
#[target_feature(enable = "aes,avx")]
fn update(state: &mut [__m128i; 8], low: __m128i, high: __m128i) {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = *state;
    *state = [
        _mm_xor_si128(_mm_aesenc_si128(s7, low), s0),
        _mm_aesenc_si128(s0, s1),
        _mm_aesenc_si128(s1, s2),
        _mm_aesenc_si128(s2, s3),
        _mm_xor_si128(_mm_aesenc_si128(s3, high), s4),
        _mm_aesenc_si128(s4, s5),
        _mm_aesenc_si128(s5, s6),
        _mm_aesenc_si128(s6, s7),
    ];
}

#[inline]
#[target_feature(enable = "avx")]
fn load(block: &[u8; BLOCK_SIZE]) -> (__m128i, __m128i) {
    let (low, high) = block.split_at(16);
    let low = low.try_into().expect("half a block");
    let high = high.try_into().expect("half a block");
    (load_word(low), load_word(high))
}

#[inline]
#[target_feature(enable = "avx")]
fn load_word(word: &[u8; 16]) -> __m128i {
    // SAFETY: the array holds the sixteen bytes read; this load asks for no alignment.
    unsafe { _mm_loadu_si128(word.as_ptr().cast()) }
}
