//! The old end of the log: trimming it, and reading what is still there.
//!
//! Trimming moves one number. Whole segments before it become free and are overwritten when the
//! head reaches them; nothing is written, erased or renamed. The journal does not store the trim
//! point for the caller: the checkpoint that made trimming safe names the position to open from.

use crate::append::{Journal, Location};
use crate::check::PayloadCheck;
use crate::frame::{Damage, Header, Kind, SECTOR};
use crate::scan::Entry;

/// Where the bytes of a frame lie: for a read by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Index of the segment file.
    pub file: u32,
    /// Byte offset in the file, a multiple of [`SECTOR`].
    pub offset: u64,
    /// Bytes to read, a multiple of [`SECTOR`].
    pub len: usize,
}

/// Why bytes that were read are not the entry that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes are fewer or more than the location says.
    #[error("read of position {position} returned {found} bytes instead of {expected}")]
    Size {
        /// Log address of the frame.
        position: u64,
        /// Bytes the location says.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The frame is damaged or not there.
    #[error("frame at position {position}: {damage}; fetch it from a copy")]
    Damaged {
        /// Log address of the frame.
        position: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// There is a marker, not an entry: the location did not come from this journal.
    #[error("position {position} holds a marker, not an entry")]
    Marker {
        /// Log address of the frame.
        position: u64,
    },
}

impl Journal {
    /// Gives up every entry below `keep_from` that lies in a segment wholly below it. O(1). The
    /// caller must have stored `keep_from` (or something above it that it can start from) where it
    /// will find it after a crash.
    ///
    /// # Panics
    /// If `keep_from` is above the durable point.
    pub fn trim(&mut self, keep_from: u64) {
        assert!(keep_from <= self.durable(), "trim beyond the durable point");
        self.oldest_segment = self.oldest_segment.max(self.geometry.segment(keep_from));
        self.assert_order();
    }

    /// First address that is still kept: the start of the oldest segment.
    pub fn oldest(&self) -> u64 {
        self.geometry.start(self.oldest_segment)
    }

    /// Bytes of log address that can be appended before a trim is needed. Appends may find
    /// themselves [`Full`](crate::AppendError::Full) a little earlier: a frame that does not fit
    /// the rest of a segment leaves it unused.
    pub fn free_bytes(&self) -> u64 {
        self.geometry.limit(self.oldest_segment) - self.head()
    }

    /// Bytes of all segments.
    pub fn capacity(&self) -> u64 {
        self.config.capacity()
    }

    /// Where to read an entry; `None` once it is trimmed, or if it was never appended.
    pub fn locate(&self, location: Location) -> Option<Extent> {
        let end = location.position.checked_add(u64::from(location.size))?;
        if location.position < self.oldest() || end > self.head() {
            return None;
        }
        let (file, offset) = self.geometry.place(location.position);
        Some(Extent {
            file,
            offset,
            len: location.size as usize,
        })
    }

    /// Checks bytes that were read from where [`locate`](Self::locate) said, every one of them.
    pub fn verify_read<'a>(
        &self,
        location: Location,
        bytes: &'a [u8],
        check: &impl PayloadCheck,
    ) -> Result<Entry<'a>, ReadError> {
        let position = location.position;
        let expected = location.size as usize;
        if bytes.len() != expected || expected < SECTOR {
            return Err(ReadError::Size {
                position,
                expected,
                found: bytes.len(),
            });
        }
        let damaged = |damage| ReadError::Damaged { position, damage };
        let header = Header::decode(bytes, &self.config, position).map_err(damaged)?;
        if header.frame_size() != expected {
            return Err(ReadError::Size {
                position,
                expected: header.frame_size(),
                found: expected,
            });
        }
        if header.kind == Kind::Marker {
            return Err(ReadError::Marker { position });
        }
        header.verify_rest(bytes, check).map_err(damaged)?;
        Ok(Entry::of(&header, bytes))
    }
}
