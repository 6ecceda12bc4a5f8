//! A hash index in memory: 128-bit id → 32-bit row.
//!
//! The index stores no ids. A bucket is one cache line of seven entries, each 32 bits of the id's
//! hash and a row; the id in the row itself is the final check, and the caller makes it. So an
//! absent id costs one line, a present one its line and its row.
//!
//! ```text
//!   hash of the id    63 ..... 42 │ 41 ..................... 10 │ 9 ....... 0
//!                        unused    │     stored in the entry      │   lane
//!
//!   bucket, 64 bytes  ├ hash × 7 ─┼ count ┼ row × 7 ─┼ overflow ┤
//!
//!   bucket number = hash mod 2^(level+1), or mod 2^level where that bucket is not yet there
//!   an entry whose bucket is full goes to bucket + 1024, + 2048, ...: the same lane
//! ```
//!
//! **Growth never stalls.** The table grows by linear hashing, one bucket at a time: bucket `p`
//! is split into `p` and `p + 2^level`. An entry knows 42 bits of its hash (its lane from where it
//! is, the rest stored), which is all that a split needs, so no row is read. [`Index::settle`] does
//! the splits that insertions have made due, in proportion to them.
//!
//! `overflow` counts the entries that wanted this bucket or passed it, and are stored further on; a
//! search stops at the first bucket where it is zero. Removal takes its counts back, so there are no
//! tombstones.
//!
//! Promises: at most 80 % full where not yet split, bounded work per insertion, deterministic. It
//! must not know what a row is.

use std::ops::Range;

use super::id_hash::IdHash;
use super::pages::{Pages, prefetch};
use super::reserve::Reserve;

/// Bytes that an entry takes where buckets are as empty as they get: 55 % full.
pub const INDEX_ENTRY_SIZE_MAX: u64 = 17;

/// No row: what [`Index::candidate`] gives for an id that is certainly absent.
pub const ROW_NONE: u32 = u32::MAX;

const ENTRIES: usize = 7;
/// Bits of the hash that an entry knows from the bucket it is in.
const LANE_BITS: u32 = 10;
const LANES: u64 = 1 << LANE_BITS;
/// Hash bits that an entry knows: its lane and the 32 stored ones.
const HASH_BITS: u32 = LANE_BITS + 32;
/// Buckets in one mapping: 8 MiB, so that little is touched ahead of its use.
const BLOCK_BUCKETS_LOG2: u32 = 17;
const BLOCK_BUCKETS: u64 = 1 << BLOCK_BUCKETS_LOG2;
/// How far ahead of itself a sweep fetches: less than a lane, so what it asks for is mapped.
const SWEEP_AHEAD: u64 = 8;

#[repr(C, align(64))]
struct Bucket {
    /// `hashes[7]` is the number of entries.
    hashes: [u32; ENTRIES + 1],
    /// `rows[7]` is the overflow.
    rows: [u32; ENTRIES + 1],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// The part of the hash that an entry stores.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "these 32 bits are what is stored"
)]
fn stored_part(hash: IdHash) -> u32 {
    (hash.0 >> LANE_BITS) as u32
}

impl Bucket {
    #[inline(always)]
    fn count(&self) -> usize {
        self.hashes[ENTRIES] as usize
    }

    /// Bit `i` is set if entry `i` has this hash.
    #[inline(always)]
    fn matches(&self, stored: u32) -> u32 {
        let occupied = (1u32 << self.hashes[ENTRIES]) - 1;
        #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
        let equal = {
            use core::arch::x86_64::{
                __m256i, _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_load_si256,
                _mm256_movemask_ps, _mm256_set1_epi32,
            };
            // SAFETY: AVX2 is a target feature; `hashes` is 32 bytes at the start of a 64-byte
            // aligned bucket.
            unsafe {
                let hashes = _mm256_load_si256(self.hashes.as_ptr().cast::<__m256i>());
                let wanted = _mm256_set1_epi32(stored.cast_signed());
                let equal = _mm256_cmpeq_epi32(hashes, wanted);
                _mm256_movemask_ps(_mm256_castsi256_ps(equal)).cast_unsigned()
            }
        };
        #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
        let equal = {
            let mut equal = 0;
            for (entry, &hash) in self.hashes.iter().enumerate() {
                equal |= u32::from(hash == stored) << entry;
            }
            equal
        };
        equal & occupied
    }

    fn take(&mut self, entry: usize) -> (u32, u32) {
        let last = self.count() - 1;
        let taken = (self.hashes[entry], self.rows[entry]);
        self.hashes[entry] = self.hashes[last];
        self.rows[entry] = self.rows[last];
        self.hashes[ENTRIES] -= 1;
        taken
    }

    /// The bucket has room.
    #[inline(always)]
    fn put(&mut self, stored: u32, row: u32) {
        let count = self.count();
        debug_assert!(count < ENTRIES);
        self.hashes[count] = stored;
        self.rows[count] = row;
        self.hashes[ENTRIES] += 1;
    }
}

/// See the module.
#[derive(Debug)]
pub struct Index {
    blocks: Vec<Pages>,
    /// Blocks to come. Nothing is ever given back: what is in it is zeroed.
    reserve: Reserve,
    /// `buckets` lies in `2^level ..= 2^(level + 1)`.
    level: u32,
    /// Buckets that are somebody's first choice.
    buckets: u64,
    entries: u64,
    /// Entries between two buckets, during a split; kept for its memory.
    moving: Vec<(u32, u32)>,
}

impl Default for Index {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Index {
    /// An empty index that has the size it would have grown to with `entries` entries.
    pub fn with_capacity(entries: u64) -> Self {
        let mut level = LANE_BITS;
        while buckets_wanted(entries, level) == 2 << level {
            level += 1;
        }
        let buckets = buckets_wanted(entries, level);
        let mut index = Self {
            blocks: Vec::new(),
            reserve: Reserve::new(size_of::<Bucket>() << BLOCK_BUCKETS_LOG2),
            level,
            buckets,
            entries: 0,
            moving: Vec::new(),
        };
        index.map_up_to(index.buckets);
        index
    }

    /// Entries stored.
    pub fn len(&self) -> u64 {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes of buckets in use.
    pub fn size(&self) -> u64 {
        self.buckets * size_of::<Bucket>() as u64
    }

    /// Fetches the bucket that a search for `hash` begins with.
    #[inline(always)]
    pub fn prefetch(&self, hash: IdHash) {
        prefetch(self.bucket_pointer(self.home(hash)));
    }

    /// The first row whose hash agrees, or [`ROW_NONE`] if there is none, which is certain. Reads
    /// no rows: it is for fetching the row ahead of [`Index::find`].
    #[inline(always)]
    pub fn candidate(&self, hash: IdHash) -> u32 {
        let mut found = ROW_NONE;
        self.find(hash, |row| {
            found = row;
            true
        });
        found
    }

    /// The row for which `is_it` agrees, among those whose hash does.
    #[inline(always)]
    pub fn find(&self, hash: IdHash, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let stored = stored_part(hash);
        let mut number = self.home(hash);
        loop {
            let bucket = self.bucket(number);
            let mut matches = bucket.matches(stored);
            while matches != 0 {
                let row = bucket.rows[matches.trailing_zeros() as usize];
                if is_it(row) {
                    return Some(row);
                }
                matches &= matches - 1;
            }
            if bucket.rows[ENTRIES] == 0 {
                return None;
            }
            number += LANES;
        }
    }

    /// Adds an entry. The caller has made sure that the id is absent. Call [`Index::settle`] once
    /// in a while.
    #[inline(always)]
    pub fn insert(&mut self, hash: IdHash, row: u32) {
        debug_assert_ne!(row, ROW_NONE);
        let home = self.home(hash);
        let bucket = self.bucket_mut(home);
        if bucket.count() < ENTRIES {
            bucket.put(stored_part(hash), row);
        } else {
            self.place(home, stored_part(hash), row);
        }
        self.entries += 1;
    }

    /// Adds the ids of rows `first..`, none of which is there. For a restart: the index has its
    /// final size already ([`Index::with_capacity`]).
    pub fn extend(&mut self, ids: &[u128], first: u32) {
        const ROUND: usize = 64;
        let mut hashes = [IdHash::default(); ROUND];
        let mut rows = first..;
        for ids in ids.chunks(ROUND) {
            for (hash, id) in hashes.iter_mut().zip(ids) {
                *hash = IdHash::of(*id);
                self.prefetch(*hash);
            }
            for (hash, row) in hashes[..ids.len()].iter().zip(rows.by_ref()) {
                self.insert(*hash, row);
            }
        }
    }

    /// Takes out the entry of `hash` and `row`, which is there.
    pub fn remove(&mut self, hash: IdHash, row: u32) {
        let stored = stored_part(hash);
        let home = self.home(hash);
        let mut number = home;
        loop {
            let bucket = self.bucket_mut(number);
            let count = bucket.count();
            if let Some(entry) =
                (0..count).find(|&e| bucket.hashes[e] == stored && bucket.rows[e] == row)
            {
                bucket.take(entry);
                self.forget_path(home, number);
                self.entries -= 1;
                return;
            }
            assert!(bucket.rows[ENTRIES] > 0, "an entry to be removed is there");
            number += LANES;
        }
    }

    /// Where a whole sweep ends: the buckets in use, and those where the last ones overflow to.
    pub fn sweep_end(&self) -> u64 {
        self.buckets + LANES - SWEEP_AHEAD
    }

    /// Takes the entries out of these buckets whose row is not to be kept. Entries may move from one bucket
    /// to another between calls, so a sweep in several calls may miss a few.
    pub fn sweep(&mut self, buckets: Range<u64>, mut keep: impl FnMut(u32) -> bool) {
        for number in buckets.start..buckets.end.min(self.sweep_end()) {
            prefetch(self.bucket_pointer(number + SWEEP_AHEAD));
            let mut entry = 0;
            while entry < self.bucket(number).count() {
                if keep(self.bucket(number).rows[entry]) {
                    entry += 1;
                    continue;
                }
                let (stored, _) = self.bucket_mut(number).take(entry);
                let home = self.home(self.hash_of(number, stored));
                self.forget_path(home, number);
                self.entries -= 1;
            }
        }
    }

    /// Splits the buckets that the present number of entries asks for.
    #[inline]
    pub fn settle(&mut self) {
        let wanted = buckets_wanted(self.entries, self.level);
        while self.buckets < wanted {
            self.split();
        }
        if self.buckets == 2 << self.level {
            self.level += 1;
        }
    }

    /// Splits bucket `buckets - 2^level` into itself and `buckets`.
    fn split(&mut self) {
        let old = self.buckets - (1 << self.level);
        let new = self.buckets;
        // Ahead of the stream: both sides are sequential.
        prefetch(self.bucket_pointer(old + 4));
        self.map_up_to(new + 1);
        self.buckets += 1;
        assert!(
            self.level + 1 < HASH_BITS,
            "an index of rows below 2^32 stays below 2^42 buckets"
        );

        // All entries of `old` are taken out before one is put into `new`: the way on from `old`
        // leads through `new`, and an entry met there must have come that way.
        debug_assert!(self.moving.is_empty());
        let mut number = old;
        loop {
            let more = self.bucket(number).rows[ENTRIES] > 0;
            let mut entry = 0;
            while entry < self.bucket(number).count() {
                let stored = self.bucket(number).hashes[entry];
                let home = self.home(self.hash_of(number, stored));
                if home == new {
                    let taken = self.bucket_mut(number).take(entry);
                    self.moving.push(taken);
                    self.forget_path(old, number);
                } else if home == old && number != old && !self.is_full(old) {
                    let (stored, row) = self.bucket_mut(number).take(entry);
                    self.forget_path(old, number);
                    self.bucket_mut(old).put(stored, row);
                } else {
                    entry += 1;
                }
            }
            if !more {
                break;
            }
            number += LANES;
        }
        while let Some((stored, row)) = self.moving.pop() {
            self.place(new, stored, row);
        }
    }

    /// Stores an entry in the first bucket with room, from its home on.
    fn place(&mut self, home: u64, stored: u32, row: u32) {
        let mut number = home;
        loop {
            self.map_up_to(number + 1);
            let bucket = self.bucket_mut(number);
            if bucket.count() < ENTRIES {
                bucket.put(stored, row);
                return;
            }
            bucket.rows[ENTRIES] += 1;
            number += LANES;
        }
    }

    /// An entry of `home` has left bucket `number`: the buckets it had passed count one less.
    fn forget_path(&mut self, home: u64, number: u64) {
        let mut passed = home;
        while passed != number {
            let overflow = &mut self.bucket_mut(passed).rows[ENTRIES];
            assert!(
                *overflow > 0,
                "an overflow was counted when the entry went by"
            );
            *overflow -= 1;
            passed += LANES;
        }
    }

    fn is_full(&self, number: u64) -> bool {
        self.bucket(number).count() == ENTRIES
    }

    /// What is known of the hash of an entry stored in bucket `number`.
    fn hash_of(&self, number: u64, stored: u32) -> IdHash {
        IdHash((u64::from(stored) << LANE_BITS) | (number & (LANES - 1)))
    }

    /// The bucket that is this hash's first choice.
    #[inline(always)]
    fn home(&self, hash: IdHash) -> u64 {
        let half = 1u64 << self.level;
        let number = hash.0 & (2 * half - 1);
        if number < self.buckets {
            number
        } else {
            number & (half - 1)
        }
    }

    /// Where the memory of new blocks comes from, for whoever fills it ahead.
    pub fn reserve(&self) -> Reserve {
        self.reserve.clone()
    }

    /// Maps memory for buckets below `end`, and for the overflow of the last ones.
    #[inline]
    fn map_up_to(&mut self, end: u64) {
        while (self.blocks.len() as u64) << BLOCK_BUCKETS_LOG2 < end + LANES {
            self.blocks.push(self.reserve.take_for_good());
        }
    }

    #[inline(always)]
    fn bucket_pointer(&self, number: u64) -> *mut Bucket {
        let block = &self.blocks[(number >> BLOCK_BUCKETS_LOG2) as usize];
        let base = block.base().cast::<Bucket>();
        // SAFETY: a block holds BLOCK_BUCKETS buckets and the offset is below that.
        unsafe { base.add((number & (BLOCK_BUCKETS - 1)) as usize) }
    }

    #[inline(always)]
    fn bucket(&self, number: u64) -> &Bucket {
        // SAFETY: inside a block, page-aligned, zeroed at first, and all zeros is an empty bucket.
        // The memory belongs to this index; the reference borrows it.
        unsafe { &*self.bucket_pointer(number) }
    }

    #[inline(always)]
    fn bucket_mut(&mut self, number: u64) -> &mut Bucket {
        // SAFETY: as for `bucket`; `&mut self` makes it the only reference.
        unsafe { &mut *self.bucket_pointer(number) }
    }
}

/// How many buckets there should be at `level` with this many entries.
///
/// Splitting begins at 55 % of the level's capacity and ends at 80 %: in between, the number of
/// buckets goes from 2^level to 2^(level+1) in proportion. With `e = entries / 7 / 2^level`, that
/// is `2^level * (1 + (e - 0.55) / 0.25)`.
fn buckets_wanted(entries: u64, level: u32) -> u64 {
    let half = 1u64 << level;
    let split = (4 * entries / ENTRIES as u64).saturating_sub(half * 11 / 5);
    half + split.min(half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Buckets agree with what their counts say, and every entry is found.
    fn check(index: &Index, expected: &BTreeMap<u128, u32>) {
        assert_eq!(index.len(), expected.len() as u64);
        for (&id, &row) in expected {
            let found = index.find(IdHash::of(id), |r| r == row);
            assert_eq!(found, Some(row), "id {id:x}");
        }
        let mut entries = 0;
        let mut overflow = BTreeMap::<u64, u32>::new();
        let end = (index.blocks.len() as u64) << BLOCK_BUCKETS_LOG2;
        let used = (index.buckets + 64 * LANES).min(end);
        for number in 0..used {
            let bucket = index.bucket(number);
            entries += bucket.count() as u64;
            for entry in 0..bucket.count() {
                let mut home = index.home(index.hash_of(number, bucket.hashes[entry]));
                while home != number {
                    *overflow.entry(home).or_default() += 1;
                    home += LANES;
                }
            }
        }
        assert_eq!(entries, index.len());
        for number in 0..used {
            let counted = overflow.get(&number).copied().unwrap_or(0);
            assert_eq!(
                index.bucket(number).rows[ENTRIES],
                counted,
                "bucket {number}"
            );
        }
    }

    #[test]
    fn grows_from_nothing_without_losing_an_entry() {
        let mut index = Index::default();
        let mut expected = BTreeMap::new();
        for row in 0..200_000u32 {
            let id = u128::from(row) << 40 | 77;
            index.insert(IdHash::of(id), row);
            expected.insert(id, row);
            if row % 128 == 0 {
                index.settle();
            }
            if row.is_power_of_two() || row == 199_999 {
                check(&index, &expected);
            }
        }
        let load = index.len() as f64 / (index.buckets * ENTRIES as u64) as f64;
        assert!((0.39..0.81).contains(&load), "load {load}");
        for (&id, &row) in expected.clone().iter().filter(|(_, row)| **row % 3 == 0) {
            index.remove(IdHash::of(id), row);
            expected.remove(&id);
        }
        check(&index, &expected);
        assert_eq!(index.find(IdHash::of(77), |row| row == 0), None);
    }

    #[test]
    fn a_sweep_leaves_what_is_kept() {
        let mut index = Index::default();
        let mut expected = BTreeMap::new();
        for row in 0..100_000u32 {
            let id = u128::from(row) << 17 | 5;
            index.insert(IdHash::of(id), row);
            expected.insert(id, row);
            if row % 128 == 0 {
                index.settle();
            }
        }
        let end = index.sweep_end();
        let mut swept = 0;
        while swept < end {
            index.sweep(swept..swept + 1000, |row| row >= 60_000 || row % 100 == 7);
            swept += 1000;
        }
        expected.retain(|_, row| *row >= 60_000 || *row % 100 == 7);
        check(&index, &expected);
        // What was there is not found any more, and there is room for others.
        assert_eq!(index.find(IdHash::of(5), |row| row == 0), None);
        let buckets = index.buckets;
        for row in 100_000..150_000u32 {
            let id = u128::from(row) << 17 | 5;
            index.insert(IdHash::of(id), row);
            expected.insert(id, row);
            index.settle();
        }
        check(&index, &expected);
        assert_eq!(index.buckets, buckets);
    }

    #[test]
    fn absent_ids_are_almost_always_known_to_be_absent() {
        let mut index = Index::with_capacity(100_000);
        let buckets = index.buckets;
        for row in 0..100_000u32 {
            index.insert(IdHash::of(u128::from(row) + 1), row);
        }
        index.settle();
        assert_eq!(index.buckets, buckets, "with_capacity chose the final size");
        let mistaken = (0..100_000u128)
            .filter(|&i| index.candidate(IdHash::of(i << 64 | 5)) != ROW_NONE)
            .count();
        assert!(mistaken < 20, "{mistaken} of 100000");
    }

    #[test]
    fn wanted_sizes_are_continuous() {
        let mut level = LANE_BITS;
        let mut before = 1 << LANE_BITS;
        for entries in (0..10_000_000).step_by(100) {
            let wanted = buckets_wanted(entries, level);
            assert!(wanted >= before && wanted - before < 100, "{entries}");
            before = wanted;
            if wanted == 2 << level {
                level += 1;
            }
            let load = entries as f64 / (ENTRIES << level) as f64;
            assert!(load < 0.81);
        }
    }

    #[test]
    fn ids_of_every_scheme_spread() {
        let schemes: [fn(u128) -> u128; 5] = [
            |i| i,
            |i| i << 64,
            |i| i << 108,
            |i| u128::MAX - i,
            |i| (1_700_000 << 80) + i * 3,
        ];
        for scheme in schemes {
            let mut index = Index::with_capacity(50_000);
            for row in 0..50_000u32 {
                index.insert(IdHash::of(scheme(u128::from(row) + 1)), row);
            }
            let overflowing = (0..index.buckets)
                .filter(|&n| index.bucket(n).rows[ENTRIES] > 0)
                .count();
            let share = overflowing as f64 / index.buckets as f64;
            assert!(share < 0.30, "{share}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec((any::<bool>(), 0u32..3000), 1..6000),
            settle_every in 1usize..500,
        ) {
            let mut index = Index::default();
            let mut expected = BTreeMap::new();
            for (step, (insert, key)) in steps.into_iter().enumerate() {
                // Few lanes, so that buckets overflow.
                let id = u128::from(key);
                let hash = IdHash(IdHash::of(u128::from(key)).0 << 8);
                if insert && !expected.contains_key(&id) {
                    index.insert(hash, key);
                    expected.insert(id, key);
                } else if !insert && expected.remove(&id).is_some() {
                    index.remove(hash, key);
                }
                prop_assert_eq!(
                    index.find(hash, |row| row == key).is_some(),
                    expected.contains_key(&id)
                );
                if step % settle_every == 0 {
                    index.settle();
                }
            }
            prop_assert_eq!(index.len(), expected.len() as u64);
        }
    }
}
