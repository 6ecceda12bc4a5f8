//! A sealed file in memory, verified page by page as it is read.
//!
//! ```text
//!   pages      ├ 0 ┼ 1 ┼ 2 ┼ 3 ┼ 4 ┼ ... ┤  footer: a checksum of each
//!   verified     1   0   0   1   1             one bit each, set by the first read
//!                    ▲
//!                    read: the page is fetched and its checksum compared, about 2 us; then the bit is set
//! ```
//!
//! **What this promises.** No byte of a page is handed out before the page, as it lay in memory then, has
//! been found to be what was written, once since the file was mapped. What is wrong, or cannot be read, is
//! raised as [`Damage`].
//!
//! **What it does not.** The system may drop a page that was verified, and read it from the disk again without
//! telling anybody. What the disk has done to it meanwhile is noticed by the scrub, which reads the disk. A
//! page that cannot be read at all then ends the process by a signal.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::damage::Damage;
use super::error::StoreError;
use super::sealed::{FileEntry, PAGE_SIZE, SealedFile, is_page};
use super::storage::{Map, Storage};

/// See the module. Clones share the map and what is known of it.
#[derive(Debug, Clone)]
pub struct Mapped(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    map: Map,
    entry: FileEntry,
    /// Where the pages' checksums begin in the map. A footer that goes bad makes good pages look bad, and no
    /// bad page good.
    checksums: usize,
    /// Bytes that pages cover.
    size: usize,
    /// A bit for each page.
    verified: Box<[AtomicU64]>,
}

impl Mapped {
    /// Maps a file whose footer has been verified.
    pub fn open(storage: &dyn Storage, file: &SealedFile) -> Result<Self, StoreError> {
        let entry = file.entry();
        let map = storage
            .map(entry.name)
            .map_err(|error| StoreError::io("map", entry.name, error))?;
        if map.len() as u64 != entry.size {
            let what = "the file's size is not the manifest's";
            return Err(StoreError::damaged(entry.name, map.len() as u64, what));
        }
        let size = usize::try_from(entry.data_size).expect("it is mapped");
        let words = size.div_ceil(PAGE_SIZE).div_ceil(u64::BITS as usize);
        Ok(Self(Arc::new(Inner {
            map,
            entry,
            checksums: size + file.checksums_at(),
            size,
            verified: (0..words).map(|_| AtomicU64::new(0)).collect(),
        })))
    }

    pub fn entry(&self) -> FileEntry {
        self.0.entry
    }

    /// Bytes that can be read.
    pub fn len(&self) -> usize {
        self.0.size
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// These bytes, verified; within [`Mapped::len`].
    #[inline]
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.verify(&range);
        &self.0.map[range]
    }

    /// Verifies what is not yet, of these bytes.
    #[inline]
    fn verify(&self, range: &Range<usize>) {
        assert!(range.end <= self.0.size);
        if range.is_empty() {
            return;
        }
        for page in range.start / PAGE_SIZE..=(range.end - 1) / PAGE_SIZE {
            if !self.is_verified(page) {
                self.verify_page(page);
            }
        }
    }

    /// Nothing is ordered by the bit: what it speaks of never changes.
    #[inline]
    fn is_verified(&self, page: usize) -> bool {
        self.0.verified[page / 64].load(Ordering::Relaxed) >> (page % 64) & 1 != 0
    }

    #[cold]
    fn verify_page(&self, page: usize) {
        let Inner {
            map,
            entry,
            checksums,
            size,
            verified,
        } = &*self.0;
        let start = page * PAGE_SIZE;
        let end = (start + PAGE_SIZE).min(*size);
        let damaged = |what| -> ! {
            let error = StoreError::damaged(entry.name, start as u64, what);
            Damage::new(*entry, &error).raise()
        };
        let Some(bytes) = map.fetch(start..end) else {
            damaged("a page cannot be read");
        };
        if !is_page(&map[*checksums..], page, bytes) {
            damaged("a page's checksum does not match");
        }
        verified[page / 64].fetch_or(1 << (page % 64), Ordering::Relaxed);
    }

    /// Asks the system to read these bytes ahead, and what it takes to verify them.
    pub fn will_need(&self, range: Range<usize>) {
        let range = self.to_read(range);
        if !range.is_empty() {
            self.0.map.will_need(range.start, range.len());
        }
    }

    /// The same for those of these pieces that are not in memory; see [`Map::will_need_pieces`].
    pub fn will_need_pieces(&self, pieces: impl Iterator<Item = Range<usize>> + Clone) {
        self.0
            .map
            .will_need_pieces(pieces.map(|piece| self.to_read(piece)));
    }

    /// What reading these bytes reads: whole pages, where they are not verified.
    fn to_read(&self, range: Range<usize>) -> Range<usize> {
        let Range { mut start, mut end } = range;
        if start < end && !self.is_verified(start / PAGE_SIZE) {
            start = start / PAGE_SIZE * PAGE_SIZE;
        }
        if start < end && !self.is_verified((end - 1) / PAGE_SIZE) {
            end = end.next_multiple_of(PAGE_SIZE).min(self.0.size);
        }
        start..end
    }

    /// See [`Map::release`].
    pub fn release(&self) {
        self.0.map.release();
    }

    /// See [`Map::release_range`].
    pub fn release_range(&self, range: Range<usize>) {
        self.0.map.release_range(range);
    }

    /// Where a byte lies, for a prefetch and nothing else.
    #[inline]
    pub fn address(&self, at: usize) -> *const u8 {
        self.0.map.as_ptr().wrapping_add(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileKind, FileName, MemoryStorage, SealedWriter};
    use super::*;

    const SIZE: usize = 5 * PAGE_SIZE + 4096;

    fn file(storage: &mut MemoryStorage) -> FileEntry {
        let name = FileName::new(FileKind::Transfers, 3);
        let mut writer = SealedWriter::create(storage, name).unwrap();
        writer.section(1).unwrap();
        let bytes: Vec<u8> = (0..SIZE).map(|at| (at % 251).to_le_bytes()[0]).collect();
        writer.write(&bytes).unwrap();
        writer.finish().unwrap()
    }

    fn open(storage: &MemoryStorage, entry: FileEntry) -> Mapped {
        Mapped::open(storage, &SealedFile::open(storage, entry).unwrap()).unwrap()
    }

    #[test]
    fn what_rots_on_one_disk_is_whole_on_its_copy() {
        let mut storage = MemoryStorage::default();
        let entry = file(&mut storage);
        storage.sync().unwrap();
        let (before, copy) = (open(&storage, entry), storage.copy());
        storage.damage(entry.name, 77);
        let good = |mapped: &Mapped| Damage::catch(|| mapped.bytes(70..80).to_vec()).is_ok();
        assert!(good(&open(&copy, entry)));
        assert!(!good(&before) && !good(&open(&storage, entry)));
    }

    #[test]
    fn only_the_page_that_is_read_must_be_right() {
        for bad in 0..6 {
            let mut storage = MemoryStorage::default();
            let entry = file(&mut storage);
            storage.damage(entry.name, bad * PAGE_SIZE + 77);
            let mapped = open(&storage, entry);
            for page in 0..6 {
                let range = page * PAGE_SIZE..(page * PAGE_SIZE + 9).min(SIZE);
                // Not remembered as right because it was looked at before.
                for _ in 0..2 {
                    let found = Damage::catch(|| mapped.bytes(range.clone()).to_vec());
                    if page == bad {
                        let damage = found.unwrap_err();
                        assert_eq!(damage.entry, entry);
                        let offset = format!("damaged at offset {}", page * PAGE_SIZE);
                        assert!(damage.to_string().contains(&offset), "{damage}");
                    } else {
                        assert_eq!(found.unwrap()[0], (range.start % 251).to_le_bytes()[0]);
                    }
                }
            }
            let across = bad.saturating_sub(1) * PAGE_SIZE + 5..SIZE - 5;
            assert!(Damage::catch(|| mapped.bytes(across).len()).is_err());
        }
    }

    #[test]
    fn a_page_is_verified_once() {
        let mut storage = MemoryStorage::default();
        let entry = file(&mut storage);
        let mapped = open(&storage, entry);
        assert!(!mapped.is_verified(2));
        mapped.bytes(2 * PAGE_SIZE..2 * PAGE_SIZE + 1);
        assert!(mapped.is_verified(2) && !mapped.is_verified(1) && !mapped.is_verified(3));
        // What the disk makes of it later is for the scrub to find.
        storage.damage(entry.name, 2 * PAGE_SIZE);
        assert_eq!(mapped.bytes(2 * PAGE_SIZE..2 * PAGE_SIZE + 1), [138]);
        let again = open(&storage, entry);
        assert!(Damage::catch(|| again.bytes(2 * PAGE_SIZE..2 * PAGE_SIZE + 1).len()).is_err());
    }

    #[test]
    fn another_panic_passes_through() {
        let outer =
            std::panic::catch_unwind(|| Damage::catch(|| std::panic::resume_unwind(Box::new(7))));
        assert_eq!(outer.unwrap_err().downcast_ref(), Some(&7));
    }
}
