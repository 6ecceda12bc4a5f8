//! What became of each pending transfer: two bits for a row of the transfer table.
//!
//! A transfer's row never changes, so its resolution is kept beside it. Zero means "not resolved"
//! (or not pending at all: the row's flags say), so creating a pending transfer writes nothing here;
//! memory for a piece of the table is allocated when the first of its rows is resolved.
//!
//! A checkpoint shares them, and copies none: whoever resolves a row in a piece that is still being written makes
//! a copy of that piece, a kibibyte, once.

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

/// Of a piece. A full batch of resolutions may be of as many pieces, and copy eight mebibytes.
const PIECE_SIZE_MAX: usize = if cfg!(test) { 2 } else { 1024 };

static ZEROS: [u8; PIECE_SIZE_MAX] = [0; PIECE_SIZE_MAX];

/// `None` is zeros.
type Piece = Option<Arc<[u8]>>;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Resolutions {
    chunks: Vec<Option<Arc<[Piece]>>>,
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
        let piece_size = resolutions.piece_size();
        for (number, chunk) in numbers.iter().zip(bytes.chunks_exact(size)) {
            let piece = |bytes: &[u8]| bytes.iter().any(|&byte| byte != 0).then(|| bytes.into());
            let pieces = chunk.chunks_exact(piece_size).map(piece);
            resolutions.chunks[*number as usize] = Some(pieces.collect());
        }
        resolutions
    }

    pub(super) fn of(&self, row: u32) -> Resolution {
        let (chunk, piece, byte, shift) = self.place(row);
        let Some(Some(pieces)) = self.chunks.get(chunk) else {
            return Resolution::None;
        };
        let Some(bytes) = &pieces[piece] else {
            return Resolution::None;
        };
        match bytes[byte] >> shift & 0b11 {
            0 => Resolution::None,
            1 => Resolution::Posted,
            2 => Resolution::Voided,
            _ => Resolution::Expired,
        }
    }

    pub(super) fn set(&mut self, row: u32, resolution: Resolution) {
        let (chunk, piece, byte, shift) = self.place(row);
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, None);
        }
        let (size, count) = (self.piece_size(), self.chunk_size() / self.piece_size());
        let pieces = self.chunks[chunk].get_or_insert_with(|| vec![None; count].into());
        let piece = &mut Arc::make_mut(pieces)[piece];
        let bytes = Arc::make_mut(piece.get_or_insert_with(|| vec![0; size].into()));
        bytes[byte] = bytes[byte] & !(0b11 << shift) | (resolution as u8) << shift;
    }

    /// Bytes of all chunks, those of zeros too.
    pub(super) fn size(&self) -> usize {
        self.chunks.iter().flatten().count() * self.chunk_size()
    }

    /// Bytes of a chunk.
    pub(super) fn chunk_size(&self) -> usize {
        1 << (self.chunk_rows_log2 - ROWS_PER_BYTE_LOG2)
    }

    fn piece_size(&self) -> usize {
        self.chunk_size().min(PIECE_SIZE_MAX)
    }

    /// Chunks with at least one resolution, ascending, and their bytes in pieces.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u32, impl Iterator<Item = &[u8]>)> {
        let size = self.piece_size();
        let chunks = (0u32..).zip(&self.chunks);
        chunks.filter_map(move |(number, pieces)| {
            let pieces = pieces.as_deref()?;
            let bytes = pieces.iter().map(move |piece| bytes_of(piece, size));
            // A resolution that was undone leaves zeros, as if it had never been.
            let is_zero = bytes.clone().all(|bytes| bytes == &ZEROS[..size]);
            (!is_zero).then_some((number, bytes))
        })
    }

    /// The chunk, the piece in it, the byte in that, and the bits of that.
    fn place(&self, row: u32) -> (usize, usize, usize, u32) {
        let chunk = row >> self.chunk_rows_log2;
        let in_chunk = row & ((1 << self.chunk_rows_log2) - 1);
        let byte = (in_chunk >> ROWS_PER_BYTE_LOG2) as usize;
        let size = self.piece_size();
        let shift = row % (1 << ROWS_PER_BYTE_LOG2) * BITS;
        (chunk as usize, byte / size, byte % size, shift)
    }
}

fn bytes_of(piece: &Piece, size: usize) -> &[u8] {
    piece.as_deref().unwrap_or(&ZEROS[..size])
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
        let bytes: Vec<u8> = resolutions
            .chunks()
            .flat_map(|(_, pieces)| pieces.flatten().copied().collect::<Vec<_>>())
            .collect();
        let again = Resolutions::from_chunks(16, &numbers, &bytes);
        for row in 0..120 {
            assert_eq!(again.of(row), resolutions.of(row), "{row}");
        }
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
        // A chunk has two pieces of eight rows.
        let pieces = |of: &Resolutions| -> Vec<Piece> {
            let chunks = of.chunks.iter().flatten();
            chunks.flat_map(|pieces| pieces.to_vec()).collect()
        };
        let (new, old) = (pieces(&resolutions), pieces(&shared));
        let same = |(new, old): (&Piece, &Piece)| match (new, old) {
            (Some(new), Some(old)) => Some(Arc::ptr_eq(new, old)),
            _ => None,
        };
        let same: Vec<_> = new.iter().zip(&old).map(same).collect();
        assert_eq!(
            same,
            [Some(true), None, Some(false), None, Some(true), None]
        );
        assert_eq!((resolutions.size(), shared.size()), (16, 12));
    }
}
