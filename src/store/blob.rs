//! Immutable bytes that live in memory until a file holds them.
//!
//! Whoever reads them sees no difference. Clones share the bytes, so that another thread can write
//! the file meanwhile. They begin at a multiple of four bytes, wherever they are.

use std::ops::{Deref, Range};
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::storage::Map;

/// See the module.
#[derive(Debug, Clone)]
pub struct Blob(Bytes);

#[derive(Debug, Clone)]
enum Bytes {
    Memory(Arc<Vec<u32>>),
    File {
        map: Map,
        offset: usize,
        size: usize,
    },
}

impl Blob {
    pub fn of_words(words: Vec<u32>) -> Self {
        Self(Bytes::Memory(Arc::new(words)))
    }

    /// These bytes of a file; `None` if it does not have them, or they are no whole words.
    pub fn of_file(map: &Map, offset: u64, size: u64) -> Option<Self> {
        let (offset, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
        let bytes = map.get(offset..offset.checked_add(size)?)?;
        let aligned = bytes.as_ptr().cast::<u32>().is_aligned();
        (aligned && size.is_multiple_of(size_of::<u32>())).then(|| {
            Self(Bytes::File {
                map: map.clone(),
                offset,
                size,
            })
        })
    }
}

impl Blob {
    /// Asks the system to read the bytes ahead, if they are in a file.
    pub fn will_need(&self) {
        if let Bytes::File { map, offset, size } = &self.0 {
            map.will_need(*offset, *size);
        }
    }

    /// Lets go of the memory of some bytes that are in a file; they are read again when they are looked at.
    pub fn release_range(&self, range: Range<usize>) {
        if let Bytes::File { map, offset, size } = &self.0 {
            debug_assert!(range.end <= *size);
            map.release_range(*offset + range.start..*offset + range.end);
        }
    }

    /// Asks for some of them.
    pub fn will_need_range(&self, range: Range<usize>) {
        if let Bytes::File { map, offset, size } = &self.0 {
            debug_assert!(range.end <= *size);
            map.will_need(*offset + range.start, range.len());
        }
    }
}

impl Deref for Blob {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Memory(words) => words.as_bytes(),
            Bytes::File { map, offset, size } => &map[*offset..*offset + *size],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_file_read_alike() {
        let memory = Blob::of_words(vec![1, 2, 3]);
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(&memory);
        let map = Map::copy_of(&bytes);
        assert_eq!(&Blob::of_file(&map, 8, 12).unwrap()[..], &memory[..]);
        for (offset, size) in [(2, 4), (8, 16), (8, 3), (u64::MAX, 4), (0, u64::MAX)] {
            assert!(
                Blob::of_file(&map, offset, size).is_none(),
                "{offset} {size}"
            );
        }
    }
}
