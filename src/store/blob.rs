//! Immutable bytes that live in memory until a file holds them.
//!
//! Whoever reads them sees no difference. Clones share the bytes, so that another thread can write
//! the file meanwhile. They begin at a multiple of four bytes, wherever they are.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::mapped::Mapped;
use super::span::Span;

/// See the module.
#[derive(Debug, Clone)]
pub struct Blob(Bytes);

#[derive(Debug, Clone)]
enum Bytes {
    Memory(Arc<Vec<u32>>),
    File { mapped: Mapped, range: Range<usize> },
}

impl Blob {
    pub fn of_words(words: Vec<u32>) -> Self {
        Self(Bytes::Memory(Arc::new(words)))
    }

    /// These bytes of a file; `None` if it does not have them, or they are no whole words.
    pub fn of_file(mapped: &Mapped, offset: u64, size: u64) -> Option<Self> {
        let (offset, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
        let range = offset..offset.checked_add(size)?;
        let aligned = mapped.address(offset).cast::<u32>().is_aligned();
        let whole = aligned && size.is_multiple_of(size_of::<u32>());
        (range.end <= mapped.len() && whole).then(|| {
            Self(Bytes::File {
                mapped: mapped.clone(),
                range,
            })
        })
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Bytes::Memory(words) => words.as_bytes().len(),
            Bytes::File { range, .. } => range.len(),
        }
    }

    /// Lets go of the memory of some bytes that are in a file; they are read again when they are looked at.
    pub fn release_range(&self, part: Range<usize>) {
        if let Bytes::File { mapped, range } = &self.0 {
            debug_assert!(part.end <= range.len());
            mapped.release_range(range.start + part.start..range.start + part.end);
        }
    }

    /// Asks for some of them.
    pub fn will_need_range(&self, part: Range<usize>) {
        if let Bytes::File { mapped, range } = &self.0 {
            debug_assert!(part.end <= range.len());
            mapped.will_need(range.start + part.start..range.start + part.end);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// To be looked at part by part.
    #[inline]
    pub fn span(&self) -> Span<'_> {
        match &self.0 {
            Bytes::Memory(words) => Span::of_memory(words.as_bytes()),
            Bytes::File { mapped, range } => Span::of_file(mapped, range.clone()),
        }
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        self.span().bytes()
    }

    /// Asks the system to read the bytes ahead, if they are in a file.
    pub fn will_need(&self) {
        if let Bytes::File { mapped, range } = &self.0 {
            mapped.will_need(range.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileKind, FileName, MemoryStorage, SealedFile, SealedWriter};
    use super::*;

    #[test]
    fn memory_and_file_read_alike() {
        let memory = Blob::of_words(vec![1, 2, 3]);
        let mut storage = MemoryStorage::default();
        let name = FileName::new(FileKind::Transfers, 0);
        let mut writer = SealedWriter::create(&mut storage, name).unwrap();
        writer.section(1).unwrap();
        writer.write(&[0; 8]).unwrap();
        writer.write(memory.bytes()).unwrap();
        let entry = writer.finish().unwrap();
        let file = SealedFile::open(&storage, entry).unwrap();
        let mapped = Mapped::open(&storage, &file).unwrap();
        let blob = Blob::of_file(&mapped, 8, 12).unwrap();
        assert_eq!((blob.bytes(), blob.len()), (memory.bytes(), memory.len()));
        for (offset, size) in [(2, 4), (8, 4096), (8, 3), (u64::MAX, 4), (0, u64::MAX)] {
            let found = Blob::of_file(&mapped, offset, size);
            assert!(found.is_none(), "{offset} {size}");
        }
    }
}
