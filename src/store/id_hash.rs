//! The hash of a 128-bit id, and which of its bits are whose.
//!
//! ```text
//!   63 ................................ 24 │ 23 ............. 0
//!   runs, and filters of runs: 40          │
//!                       │ 41 ............................... 0
//!                       │ index: 42
//! ```
//!
//! Part of the file format: runs hold hashes. Equal on every machine.

/// A mixed id, computed once and used for prefetch, probe and insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdHash(pub(super) u64);

impl IdHash {
    /// Mixes all bits of the id into all bits of the hash, whatever scheme made the id.
    #[inline(always)]
    pub fn of(id: u128) -> Self {
        let (low, high) = halves(id);
        let a = fold(low ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93);
        let b = fold(high ^ 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db);
        Self(fold(a ^ b.rotate_left(32), 0x8ebc_6af0_9c88_c6e3))
    }

    /// What runs know of it.
    #[inline(always)]
    pub fn for_runs(self) -> RunHash {
        RunHash(self.0 >> (u64::BITS - RUN_HASH_BITS))
    }
}

/// Bits of a hash in a run. Of a billion ids, one in a thousand has them in common with another: that costs a
/// row read in vain.
pub(super) const RUN_HASH_BITS: u32 = 40;

/// The upper bits of an [`IdHash`], as a number below `2^RUN_HASH_BITS`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct RunHash(pub(super) u64);

impl RunHash {
    /// Its place among `count`, which ascends with the hash: whoever goes through hashes in order goes through
    /// memory in order.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below `count`")]
    pub(super) fn place(self, count: u64) -> u64 {
        ((u128::from(self.0) * u128::from(count)) >> RUN_HASH_BITS) as u64
    }

    /// Mixed again, for uses that must not depend on the place or on each other.
    #[inline(always)]
    pub(super) fn mixed(self, seed: u64) -> u64 {
        fold(self.0 ^ seed, 0xd6e8_feb8_6659_fd93)
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "takes the halves")]
fn halves(wide: u128) -> (u64, u64) {
    (wide as u64, (wide >> 64) as u64)
}

/// The two halves of the 128-bit product, added without carry.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = halves(u128::from(a) * u128::from(b));
    low ^ high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_part_of_the_format() {
        // Of ids that are written down, so that no change goes by unnoticed.
        let hashes = [1, u128::MAX - 1, 1_700_000 << 80].map(|id| IdHash::of(id).0);
        assert_eq!(
            hashes,
            [
                7_340_107_769_122_477_323,
                17_342_107_925_252_706_777,
                717_604_894_561_876_258
            ]
        );
    }

    #[test]
    fn places_ascend_with_the_hash_and_are_spread() {
        let mut hashes: Vec<RunHash> = (0..10_000u128)
            .map(|id| IdHash::of(id << 64 | 3).for_runs())
            .collect();
        hashes.sort_unstable();
        for count in [1, 7, 64, 1 << 20] {
            let places: Vec<u64> = hashes.iter().map(|hash| hash.place(count)).collect();
            assert!(places.is_sorted() && places.iter().all(|place| *place < count));
            let low = places.iter().filter(|place| **place < count / 2).count();
            assert!(count < 64 || (4700..5300).contains(&low), "{low}");
        }
    }
}
