//! Log addresses and where they lie: the ring of segment files.
//!
//! A *position* is a byte address in a log that only ever grows. The log is cut into segments of
//! equal size, and segment `n` lies in file `n % segment_count`:
//!
//! ```text
//!  position   0        1×size      2×size      3×size      4×size
//!  log        ├─ seg 0 ──┼── seg 1 ──┼── seg 2 ──┼── seg 3 ──┼── seg 4 ─ ...
//!  file           0           1           2           0           1        (3 files)
//! ```
//!
//! A frame that does not fit into the rest of a segment starts the next one. Because positions are
//! never used twice, what a file held on an earlier lap can be told from what it holds on this one.
//! Pure arithmetic; knows neither frames nor files.

use crate::config::Config;

/// The arithmetic of one journal's geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    segment_size: u64,
    segment_count: u32,
}

impl Geometry {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            segment_size: config.segment_size,
            segment_count: config.segment_count,
        }
    }

    /// The segment that holds an address.
    pub(crate) fn segment(&self, position: u64) -> u64 {
        position / self.segment_size
    }

    /// First address of a segment.
    pub(crate) fn start(&self, segment: u64) -> u64 {
        segment * self.segment_size
    }

    /// First address of the segment after the one that holds `position`.
    pub(crate) fn next_start(&self, position: u64) -> u64 {
        self.start(self.segment(position) + 1)
    }

    /// File and offset of an address.
    pub(crate) fn place(&self, position: u64) -> (u32, u64) {
        let file = self.segment(position) % u64::from(self.segment_count);
        let file = u32::try_from(file).expect("less than segment_count, a u32");
        (file, position % self.segment_size)
    }

    /// Bytes from an address to the end of its segment.
    pub(crate) fn rest(&self, position: u64) -> u64 {
        self.segment_size - position % self.segment_size
    }

    /// Where a frame of `size` bytes goes if the log ends at `head`.
    pub(crate) fn fit(&self, head: u64, size: u64) -> u64 {
        if size <= self.rest(head) {
            head
        } else {
            self.next_start(head)
        }
    }

    /// The address at which a log whose oldest kept segment is `oldest` would overwrite it.
    pub(crate) fn limit(&self, oldest: u64) -> u64 {
        self.start(oldest + u64::from(self.segment_count))
    }

    /// Segments in the ring.
    pub(crate) fn count(&self) -> u64 {
        u64::from(self.segment_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        segment_size: 4 * 4096,
        segment_count: 3,
    };

    #[test]
    fn addresses_wrap_over_files() {
        assert_eq!(GEOMETRY.place(0), (0, 0));
        assert_eq!(GEOMETRY.place(5 * 4096), (1, 4096));
        assert_eq!(GEOMETRY.place(12 * 4096), (0, 0));
        assert_eq!(GEOMETRY.limit(0), 12 * 4096);
        assert_eq!(GEOMETRY.limit(2), 20 * 4096);
    }

    #[test]
    fn frames_never_span_segments() {
        assert_eq!(GEOMETRY.fit(0, 4 * 4096), 0);
        assert_eq!(GEOMETRY.fit(4096, 4 * 4096), 4 * 4096);
        assert_eq!(GEOMETRY.fit(3 * 4096, 4096), 3 * 4096);
        assert_eq!(
            GEOMETRY.fit(4 * 4096, 4096),
            4 * 4096,
            "a boundary is the next segment"
        );
    }
}
