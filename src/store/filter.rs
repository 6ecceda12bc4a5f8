//! A blocked Bloom filter of hashes: whether something is certainly not there, from one cache line.
//!
//! ```text
//!   line of 512 bits   chosen by the hash's upper bits: hashes in order go through the lines in order
//!   six bits of it     chosen by the hash mixed again
//! ```
//!
//! After Putze, Sanders and Singler, *Cache-, Hash- and Space-Efficient Bloom Filters* (2007). At twelve bits a
//! hash, one in 150 that are not there is mistaken; at eight, one in 35. Fuller filters go on being right when
//! they say no, and say it less often.
//!
//! A filter in memory is shared: one thread adds while others ask. What was added before the asker learnt of it by
//! other means is seen; the rest may be or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::id_hash::RunHash;
use super::pages::{Pages, prefetch};
use super::span::Span;

/// One cache line.
pub(super) const LINE_SIZE: usize = 64;
const LINE_WORDS: usize = LINE_SIZE / size_of::<u64>();
/// Bits set for a hash.
const BITS: u32 = 6;
/// Which bit of a line: nine bits of the mixed hash.
const BIT_LOG2: u32 = 9;

const _: () = assert!(1 << BIT_LOG2 == LINE_SIZE * 8 && BITS * BIT_LOG2 <= u64::BITS);

/// Filters that are asked about the same hash must be mistaken independently of each other.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
enum Seed {
    Memory = 0x2545_f491_4f6c_dd1d,
    File = 0x9fb2_1c65_1e98_df25,
}

/// The bits of a hash, as words of a line and masks.
#[inline(always)]
fn bits(hash: RunHash, seed: Seed) -> impl Iterator<Item = (usize, u64)> {
    let mixed = hash.mixed(seed as u64);
    (0..BITS).map(move |number| {
        let bit = (mixed >> (number * BIT_LOG2)) & ((1 << BIT_LOG2) - 1);
        (
            usize::try_from(bit / 64).expect("below eight"),
            1 << (bit % 64),
        )
    })
}

/// A filter in memory, to be asked.
#[derive(Debug)]
pub(super) struct Filter {
    pages: Pages,
    lines: u64,
}

impl Filter {
    fn new(size: u64) -> Self {
        let lines = (size / LINE_SIZE as u64).max(1);
        let size = usize::try_from(lines).expect("memory has an address") * LINE_SIZE;
        Self {
            pages: Pages::zeroed(size),
            lines,
        }
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, hash: RunHash) {
        prefetch(self.line(hash));
    }

    #[inline(always)]
    pub(super) fn may_hold(&self, hash: RunHash) -> bool {
        let line = self.line(hash);
        bits(hash, Seed::Memory).all(|(word, mask)| line[word].load(Ordering::Relaxed) & mask != 0)
    }

    #[inline(always)]
    fn line(&self, hash: RunHash) -> &[AtomicU64; LINE_WORDS] {
        let number = usize::try_from(hash.place(self.lines)).expect("memory has an address");
        // SAFETY: the piece has `lines` lines and the place is below that; pages are aligned, zeroed at first, and
        // every value is an `AtomicU64`. Nobody uses this memory but by references to atomics.
        unsafe {
            &*self
                .pages
                .base()
                .cast::<[AtomicU64; LINE_WORDS]>()
                .add(number)
        }
    }
}

/// Who fills a filter in memory, alone: a bit is set by a load and a store, a third of the cost of doing both at once.
#[derive(Debug)]
pub(super) struct FilterWriter(Arc<Filter>);

impl FilterWriter {
    /// An empty filter, of at least one line. Its memory counts as ids are added.
    pub(super) fn new(size: u64) -> Self {
        Self(Arc::new(Filter::new(size)))
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.0.lines * LINE_SIZE as u64
    }

    /// For whoever asks.
    pub(super) fn filter(&self) -> Arc<Filter> {
        Arc::clone(&self.0)
    }

    pub(super) fn add(&mut self, hash: RunHash) {
        let line = self.0.line(hash);
        for (word, mask) in bits(hash, Seed::Memory) {
            let before = line[word].load(Ordering::Relaxed);
            line[word].store(before | mask, Ordering::Relaxed);
        }
    }
}

/// A filter that is made once, for a file.
#[derive(Debug)]
pub(super) struct FilterBytes(Vec<[u64; LINE_WORDS]>);

impl FilterBytes {
    pub(super) fn new(lines: usize) -> Self {
        Self(vec![[0; LINE_WORDS]; lines])
    }

    pub(super) fn add(&mut self, hash: RunHash) {
        let place = hash.place(self.0.len() as u64);
        let line = &mut self.0[usize::try_from(place).expect("below a length")];
        for (word, mask) in bits(hash, Seed::File) {
            line[word] |= mask;
        }
    }

    /// The lines, each of little-endian words.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let words = self.0.as_flattened().iter();
        words.flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Whether a filter in a file may hold the hash: its bytes are whole lines.
pub(super) fn file_may_hold(span: Span<'_>, hash: RunHash) -> bool {
    let place = hash.place((span.len() / LINE_SIZE) as u64);
    let place = usize::try_from(place).expect("below a length");
    let Some(line) = span.element::<[u8; LINE_SIZE]>(place) else {
        return false;
    };
    let (words, _) = line.as_chunks::<8>();
    bits(hash, Seed::File).all(|(word, mask)| u64::from_le_bytes(words[word]) & mask != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::IdHash;

    fn hash(id: u128) -> RunHash {
        IdHash::of(id).for_runs()
    }

    /// How many of 100,000 ids that are not there are mistaken, in memory and in the file.
    fn mistaken(bits_each: u64) -> (usize, usize) {
        const IDS: u64 = 100_000;
        let mut filter = FilterWriter::new(IDS * bits_each / 8);
        let mut file = FilterBytes::new(usize::try_from(filter.size()).unwrap() / LINE_SIZE);
        for id in 0..u128::from(IDS) {
            filter.add(hash(id));
            file.add(hash(id));
        }
        let bytes = file.to_bytes();
        assert_eq!(bytes.len() as u64, filter.size());
        let filter = filter.filter();
        for id in 0..u128::from(IDS) {
            assert!(filter.may_hold(hash(id)) && file_may_hold(Span::of_memory(&bytes), hash(id)));
        }
        let others = || (0..u128::from(IDS)).map(|id| hash(id << 64 | 1 << 40));
        let in_memory = others().filter(|other| filter.may_hold(*other)).count();
        let in_file = others().filter(|other| file_may_hold(Span::of_memory(&bytes), *other));
        (in_memory, in_file.count())
    }

    #[test]
    fn mistakes_are_as_rare_as_promised() {
        let (memory, file) = mistaken(12);
        assert!(memory < 1000 && file < 1000, "{memory} {file}");
        let (memory, file) = mistaken(8);
        assert!(
            (1000..3600).contains(&memory) && (1000..3600).contains(&file),
            "{memory} {file}"
        );
    }

    #[test]
    fn filters_of_memory_and_file_are_mistaken_independently() {
        const IDS: u64 = 100_000;
        let mut filter = FilterWriter::new(IDS);
        let mut file = FilterBytes::new(usize::try_from(filter.size()).unwrap() / LINE_SIZE);
        for id in 0..u128::from(IDS) {
            filter.add(hash(id));
            file.add(hash(id));
        }
        let (bytes, filter) = (file.to_bytes(), filter.filter());
        let both = (0..u128::from(IDS))
            .map(|id| hash(id << 64 | 1 << 40))
            .filter(|other| {
                filter.may_hold(*other) && file_may_hold(Span::of_memory(&bytes), *other)
            });
        let both = both.count();
        assert!(both < 250, "{both}");
    }

    #[test]
    fn the_smallest_filter_works() {
        let mut filter = FilterWriter::new(0);
        assert_eq!(filter.size(), LINE_SIZE as u64);
        let asked = filter.filter();
        assert!(!asked.may_hold(hash(7)));
        filter.add(hash(7));
        asked.prefetch(hash(7));
        assert!(asked.may_hold(hash(7)));
        assert!(!file_may_hold(Span::EMPTY, hash(7)));
    }
}
