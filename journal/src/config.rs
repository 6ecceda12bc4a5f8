//! What a journal is told when it is made, and the bounds on it.
//!
//! Every bound of the crate stands here with its reason. A [`Config`] belongs to one set of
//! segment files for ever: identity and geometry are repeated in every frame, so that opening
//! files with another configuration is an error and never a misreading. Only
//! `inflight_bytes_max` may change between two openings.

use crate::frame::SECTOR;

/// The largest frame, header and padding included: 8 MiB. A scan holds one frame in memory.
pub const FRAME_SIZE_MAX: usize = 8 << 20;

/// The largest `inflight_bytes_max`: 64 MiB. It is part of the format: whatever was in flight at a
/// crash lies within this many bytes of log behind the durable point, so a scan that finds nothing
/// valid within that range has seen everything (35 ms of reading at 2 GB/s).
pub const INFLIGHT_BYTES_LIMIT: u64 = 64 << 20;

/// The most segments: file names carry four digits, and every file may be registered with a ring.
pub const SEGMENT_COUNT_MAX: u32 = 4096;

/// Identity, geometry and limits of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The identity of this journal, in every frame. The caller draws it from a good random source
    /// once, at format, and keeps it: it tells the frames of this journal from those of any other,
    /// and from payload bytes that imitate a frame. Never zero.
    pub id: u128,
    /// Bytes in one segment file; a multiple of [`SECTOR`]. No frame spans two segments.
    pub segment_size: u64,
    /// Number of segment files, at least 2.
    pub segment_count: u32,
    /// How far the log may run ahead of the durable point, in bytes of log address (the unused end
    /// of a segment counts); a multiple of [`SECTOR`], at most [`INFLIGHT_BYTES_LIMIT`]. Also
    /// bounds the size of a frame.
    pub inflight_bytes_max: u64,
}

/// Why a [`Config`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The identity is zero.
    #[error("journal id is 0; draw a random 128-bit id when the journal is formatted")]
    Id,
    /// Segment size is zero, or no multiple of the sector, or not addressable.
    #[error("segment size {0} is not a multiple of 4096 between 8192 and 2^40")]
    SegmentSize(u64),
    /// Too few or too many segments.
    #[error("segment count {0} is not between 2 and 4096")]
    SegmentCount(u32),
    /// The in-flight limit is out of bounds.
    #[error(
        "in-flight limit {limit} is not a multiple of 4096 between 4096 and {max} \
         (64 MiB, or all segments but one, if that is less)"
    )]
    Inflight {
        /// What was asked for.
        limit: u64,
        /// The most this geometry allows.
        max: u64,
    },
}

impl Config {
    /// Checks every bound.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sector = SECTOR as u64;
        if self.id == 0 {
            return Err(ConfigError::Id);
        }
        let size = self.segment_size;
        if !size.is_multiple_of(sector) || !(2 * sector..=1 << 40).contains(&size) {
            return Err(ConfigError::SegmentSize(size));
        }
        if !(2..=SEGMENT_COUNT_MAX).contains(&self.segment_count) {
            return Err(ConfigError::SegmentCount(self.segment_count));
        }
        let max = INFLIGHT_BYTES_LIMIT.min(size * (u64::from(self.segment_count) - 1));
        let limit = self.inflight_bytes_max;
        if !limit.is_multiple_of(sector) || !(sector..=max).contains(&limit) {
            return Err(ConfigError::Inflight { limit, max });
        }
        Ok(())
    }

    /// Bytes in all segments together.
    pub fn capacity(&self) -> u64 {
        self.segment_size * u64::from(self.segment_count)
    }

    /// The largest payload one append may carry.
    pub fn payload_size_max(&self) -> usize {
        self.frame_size_max() - crate::frame::FRAME_HEADER_SIZE
    }

    pub(crate) fn frame_size_max(&self) -> usize {
        let bound = self.segment_size.min(self.inflight_bytes_max);
        usize::try_from(bound).map_or(FRAME_SIZE_MAX, |bound| bound.min(FRAME_SIZE_MAX))
    }
}

// Tokens index the queue of writes in flight, which is allocated once.
const _: () = assert!(INFLIGHT_BYTES_LIMIT / SECTOR as u64 <= 16_384);
const _: () = assert!(FRAME_SIZE_MAX as u64 <= INFLIGHT_BYTES_LIMIT);
const _: () = assert!(FRAME_SIZE_MAX.is_multiple_of(SECTOR));

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Config = Config {
        id: 1,
        segment_size: 1 << 20,
        segment_count: 4,
        inflight_bytes_max: 1 << 20,
    };

    #[test]
    fn bounds_are_checked() {
        assert_eq!(GOOD.validate(), Ok(()));
        assert_eq!(Config { id: 0, ..GOOD }.validate(), Err(ConfigError::Id));
        for size in [0, 4096, 8193, 1 << 41] {
            let config = Config {
                segment_size: size,
                ..GOOD
            };
            assert_eq!(config.validate(), Err(ConfigError::SegmentSize(size)));
        }
        for count in [0, 1, 4097] {
            let config = Config {
                segment_count: count,
                ..GOOD
            };
            assert_eq!(config.validate(), Err(ConfigError::SegmentCount(count)));
        }
        for limit in [0, 4095, 4097, 4 << 20, 128 << 20] {
            let config = Config {
                inflight_bytes_max: limit,
                ..GOOD
            };
            let max = 3 << 20;
            assert_eq!(config.validate(), Err(ConfigError::Inflight { limit, max }));
        }
    }
}
