//! Chance, from one seed: xoshiro256** (Blackman and Vigna, 2018), seeded through SplitMix64.
//!
//! Every purpose has a stream of its own, so that one more draw in one place does not change what
//! happens everywhere else: a failing seed stays a failing seed when an unrelated choice is added.
//! Whole numbers only; the same seed gives the same run on every machine and compiler.
//!
//! Must not know what is drawn for.

/// What a stream is for. The numbers keep streams of one seed apart; none is ever reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Network = 1,
    Disks = 2,
    Faults = 3,
    Clients = 4,
    Clocks = 5,
    Options = 6,
    Files = 7,
}

/// A generator.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: [u64; 4],
}

/// Parts per million.
pub(crate) const MILLION: u32 = 1_000_000;

impl Random {
    /// The stream of `seed` for one purpose; `index` tells apart several of that purpose.
    pub(crate) fn new(seed: u64, stream: Stream, index: u64) -> Self {
        let mut mixer = SplitMix(seed);
        let mut mixer = SplitMix(mixer.next() ^ (stream as u64) << 48 ^ index);
        Self {
            state: [mixer.next(), mixer.next(), mixer.next(), mixer.next()],
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Below `limit`, all equally likely but for one part in 2^64 / `limit`.
    ///
    /// # Panics
    /// When `limit` is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0);
        let product = u128::from(self.next()) * u128::from(limit);
        u64::try_from(product >> 64).expect("the upper half")
    }

    /// An index of a list of `length`.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }

    /// From `low` to and with `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high && high - low < u64::MAX);
        low + self.below(high - low + 1)
    }

    /// True with this probability, in parts per million.
    pub(crate) fn chance(&mut self, parts_per_million: u32) -> bool {
        self.below(u64::from(MILLION)) < u64::from(parts_per_million)
    }

    /// One of the list.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.index(list.len())]
    }

    /// Mostly short, sometimes long: the product of two draws, up to `high`.
    pub(crate) fn skewed(&mut self, high: u64) -> u64 {
        let bound = self.below(high.max(1)) + 1;
        self.below(bound)
    }
}

/// Steele, Lea and Flood, 2014: turns any seed into well-mixed state.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence() {
        // xoshiro256** from the state 1, 2, 3, 4.
        let mut random = Random {
            state: [1, 2, 3, 4],
        };
        let first: Vec<u64> = (0..5).map(|_| random.next()).collect();
        assert_eq!(
            first,
            [
                11520,
                0,
                1509978240,
                1215971899390074240,
                1216172134540287360
            ]
        );
    }

    #[test]
    fn equal_seeds_are_equal_and_streams_differ() {
        let draw = |stream, index| {
            let mut random = Random::new(7, stream, index);
            [random.next(), random.next()]
        };
        assert_eq!(draw(Stream::Network, 0), draw(Stream::Network, 0));
        assert_ne!(draw(Stream::Network, 0), draw(Stream::Network, 1));
        assert_ne!(draw(Stream::Network, 0), draw(Stream::Disks, 0));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut random = Random::new(1, Stream::Options, 0);
        let mut seen = [0u32; 7];
        for _ in 0..7_000 {
            seen[random.index(7)] += 1;
            assert!((3..=5).contains(&random.between(3, 5)));
            assert!(random.skewed(10) < 10);
        }
        assert!(
            seen.iter().all(|count| (800..1200).contains(count)),
            "{seen:?}"
        );
        let hits = (0..10_000).filter(|_| random.chance(MILLION / 4)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!random.chance(0) && random.chance(MILLION));
    }
}
