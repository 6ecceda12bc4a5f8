//! What became of each pending transfer: two bits for a row of the transfer table.
//!
//! A transfer's row never changes, so its resolution is kept beside it. Zero means "not resolved"
//! (or not pending at all: the row's flags say), so creating a pending transfer writes nothing here;
//! memory for a chunk of rows is allocated when the first of them is resolved.
//!
//! A checkpoint shares the chunks, and copies none: whoever resolves a row of one that is still being written
//! makes a copy of that chunk (16 KiB for 65,536 rows), once.

use std::sync::Arc;

/// What became of a pending transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Resolution {
    None = 0,
    Posted = 1,
    Voided = 2,
    Expired = 3,
}

const BITS: u32 = 2;
const ROWS_PER_BYTE_LOG2: u32 = 2;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Resolutions {
    chunks: Vec<Option<Arc<[u8]>>>,
    chunk_rows_log2: u32,
}

impl Resolutions {
    pub(super) fn new(chunk_rows_log2: u32) -> Self {
        assert!(chunk_rows_log2 >= ROWS_PER_BYTE_LOG2);
        Self {
            chunks: Vec::new(),
            chunk_rows_log2,
        }
    }

    /// The same again from what [`Resolutions::chunks`] gave.
    pub(super) fn from_chunks(chunk_rows: u32, numbers: &[u32], bytes: &[u8]) -> Self {
        let mut resolutions = Self::new(chunk_rows.ilog2());
        let size = resolutions.chunk_size();
        assert_eq!(bytes.len(), numbers.len() * size);
        let count = numbers.last().map_or(0, |last| *last as usize + 1);
        resolutions.chunks.resize(count, None);
        for (number, chunk) in numbers.iter().zip(bytes.chunks_exact(size)) {
            resolutions.chunks[*number as usize] = Some(chunk.into());
        }
        resolutions
    }

    pub(super) fn of(&self, row: u32) -> Resolution {
        let Some(Some(chunk)) = self.chunks.get((row >> self.chunk_rows_log2) as usize) else {
            return Resolution::None;
        };
        let (byte, shift) = self.place(row);
        match chunk[byte] >> shift & 0b11 {
            0 => Resolution::None,
            1 => Resolution::Posted,
            2 => Resolution::Voided,
            _ => Resolution::Expired,
        }
    }

    pub(super) fn set(&mut self, row: u32, resolution: Resolution) {
        let chunk = (row >> self.chunk_rows_log2) as usize;
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, None);
        }
        let size = self.chunk_size();
        let (byte, shift) = self.place(row);
        let chunk = self.chunks[chunk].get_or_insert_with(|| vec![0; size].into());
        let chunk = Arc::make_mut(chunk);
        chunk[byte] = chunk[byte] & !(0b11 << shift) | (resolution as u8) << shift;
    }

    /// Bytes of all chunks, those of zeros too.
    pub(super) fn size(&self) -> usize {
        self.chunks.iter().flatten().count() * self.chunk_size()
    }

    /// Bytes of a chunk.
    pub(super) fn chunk_size(&self) -> usize {
        1 << (self.chunk_rows_log2 - ROWS_PER_BYTE_LOG2)
    }

    /// Chunks with at least one resolution, ascending.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let chunks = (0u32..).zip(&self.chunks);
        // A resolution that was undone leaves a chunk of zeros, as if it had never been.
        chunks.filter_map(|(number, chunk)| {
            let chunk = chunk.as_deref()?;
            chunk
                .iter()
                .any(|&byte| byte != 0)
                .then_some((number, chunk))
        })
    }

    fn place(&self, row: u32) -> (usize, u32) {
        let row = row & ((1 << self.chunk_rows_log2) - 1);
        let shift = row % (1 << ROWS_PER_BYTE_LOG2) * BITS;
        ((row >> ROWS_PER_BYTE_LOG2) as usize, shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_do_not_touch_each_other() {
        let mut resolutions = Resolutions::new(4);
        let pattern = [
            Resolution::Posted,
            Resolution::None,
            Resolution::Expired,
            Resolution::Voided,
        ];
        for row in 0..100u32 {
            resolutions.set(row, pattern[row as usize % 3]);
        }
        for row in 0..100u32 {
            assert_eq!(resolutions.of(row), pattern[row as usize % 3], "{row}");
        }
        assert_eq!(resolutions.of(1 << 30), Resolution::None);
        assert_eq!(resolutions.chunks().count(), 7);
        for row in 16..32 {
            resolutions.set(row, Resolution::None);
        }
        let numbers: Vec<u32> = resolutions.chunks().map(|(number, _)| number).collect();
        assert_eq!(numbers, [0, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_is_shared_stays_as_it_was_and_only_what_changes_is_copied() {
        let mut resolutions = Resolutions::new(4);
        for row in [0, 16, 32] {
            resolutions.set(row, Resolution::Posted);
        }
        let shared = resolutions.clone();
        resolutions.set(17, Resolution::Voided);
        resolutions.set(18, Resolution::Expired);
        resolutions.set(50, Resolution::Posted);
        assert_eq!(shared.of(16), Resolution::Posted);
        for row in [17, 18, 50] {
            assert_eq!(shared.of(row), Resolution::None, "{row}");
        }
        let same = resolutions.chunks.iter().zip(&shared.chunks);
        let same: Vec<bool> = same
            .map(|(a, b)| Arc::ptr_eq(a.as_ref().unwrap(), b.as_ref().unwrap()))
            .collect();
        assert_eq!(same, [true, false, true]);
        assert_eq!((resolutions.size(), shared.size()), (16, 12));
    }
}
