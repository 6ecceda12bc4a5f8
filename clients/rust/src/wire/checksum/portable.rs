//! AEGIS-128L with a table of 256 words instead of AES instructions: for other processors, and at compile time for the
//! start state. Same result as the fast ones, checked by a property test; about twenty times slower (a millisecond for
//! a mebibyte).

use super::{BLOCK_SIZE, FINAL_ROUNDS, START, padded};

/// Fibonacci numbers modulo 256, as the algorithm's definition wants them.
const C0: u128 = u128::from_le_bytes([
    0x00, 0x01, 0x01, 0x02, 0x03, 0x05, 0x08, 0x0d, 0x15, 0x22, 0x37, 0x59, 0x90, 0xe9, 0x79, 0x62,
]);
const C1: u128 = u128::from_le_bytes([
    0xdb, 0x3d, 0x18, 0x55, 0x6d, 0xc2, 0x2f, 0xf1, 0x20, 0x11, 0x31, 0x42, 0x73, 0xb5, 0x28, 0xdd,
]);

/// `TABLE[x]` is the mixed column that byte `x` in row 0 contributes; other rows use it rotated.
static TABLE: [u32; 256] = TABLE_CONST;
const TABLE_CONST: [u32; 256] = table();

pub(super) fn checksum(input: &[u8]) -> u128 {
    let mut state = START;
    let mut blocks = input.chunks_exact(BLOCK_SIZE);
    for block in &mut blocks {
        absorb(
            &mut state,
            block.try_into().expect("chunks have the block's size"),
        );
    }
    if !blocks.remainder().is_empty() {
        absorb(&mut state, &padded(blocks.remainder()));
    }
    let lengths = state[2] ^ (input.len() as u128 * 8);
    for _ in 0..FINAL_ROUNDS {
        update(&mut state, lengths, lengths, &TABLE);
    }
    state[..7].iter().fold(0, |tag, word| tag ^ word)
}

fn absorb(state: &mut [u128; 8], block: &[u8; BLOCK_SIZE]) {
    let (low, high) = block.split_at(16);
    let low = u128::from_le_bytes(low.try_into().expect("half a block"));
    let high = u128::from_le_bytes(high.try_into().expect("half a block"));
    update(state, low, high, &TABLE);
}

/// The state after initialisation with the zero key and the zero nonce.
pub(super) const fn start() -> [u128; 8] {
    let mut state = [0, C1, C0, C1, 0, C0, C1, C0];
    let mut round = 0;
    while round < 10 {
        update(&mut state, 0, 0, &TABLE_CONST);
        round += 1;
    }
    state
}

const fn update(state: &mut [u128; 8], low: u128, high: u128, table: &[u32; 256]) {
    let last = state[7];
    let mut word = 7;
    while word > 0 {
        state[word] ^= round(state[word - 1], table);
        word -= 1;
    }
    state[0] ^= round(last, table) ^ low;
    state[4] ^= high;
}

/// One AES round without its key: substitute, shift rows, mix columns.
const fn round(input: u128, table: &[u32; 256]) -> u128 {
    let bytes = input.to_le_bytes();
    let mut output = 0;
    let mut column = 0;
    while column < 4 {
        let mut mixed = 0;
        let mut row = 0u32;
        while row < 4 {
            let byte = bytes[4 * ((column + row as usize) % 4) + row as usize];
            mixed ^= table[byte as usize].rotate_left(8 * row);
            row += 1;
        }
        output |= (mixed as u128) << (32 * column);
        column += 1;
    }
    output
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = u8::MAX;
    loop {
        let one = substitute(byte);
        let two = double(one);
        table[byte as usize] = u32::from_le_bytes([two, one, one, one ^ two]);
        if byte == 0 {
            return table;
        }
        byte -= 1;
    }
}

/// The AES S-box: inverse in GF(2^8), then the affine map.
const fn substitute(byte: u8) -> u8 {
    // x^254 is the inverse, and maps 0 to 0 as the definition wants.
    let mut inverse = 1;
    let mut power = byte;
    let mut exponent = 254u8;
    while exponent > 0 {
        if exponent & 1 == 1 {
            inverse = multiply(inverse, power);
        }
        power = multiply(power, power);
        exponent >>= 1;
    }
    inverse
        ^ inverse.rotate_left(1)
        ^ inverse.rotate_left(2)
        ^ inverse.rotate_left(3)
        ^ inverse.rotate_left(4)
        ^ 0x63
}

const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

const fn double(a: u8) -> u8 {
    (a << 1) ^ (if a & 0x80 == 0 { 0 } else { 0x1b })
}
