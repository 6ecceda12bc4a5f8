//! A sealed file that comes in pieces from somewhere else, verified before a byte of it is written.
//!
//! ```text
//!   piece    0 ..            the footer: verified against the file's entry, kept in memory
//!            then, in order  the blocks: each verified against the footer, then written
//!   at last                  the footer is written, the file made durable and named
//! ```
//!
//! A piece is at most a block, so that it fits a message. Dropped before its last piece, the file
//! never was: what is there under its name stays as it is.

use super::error::StoreError;
use super::pages::Pages;
use super::sealed::{BLOCK_SIZE, Block, FileEntry, Footer, PAGE_SIZE};
use super::storage::{FileWriter, STORAGE_SECTOR_SIZE, Storage};
use crate::mutant::Mutant;

impl FileEntry {
    /// Whether a file can have these sizes. What comes from outside is asked this first: the methods
    /// below rely on it.
    pub fn is_plausible(&self) -> bool {
        let sectors = |size: u64| size.is_multiple_of(STORAGE_SECTOR_SIZE as u64);
        let checksums = self.data_size.div_ceil(PAGE_SIZE as u64) * size_of::<u128>() as u64;
        sectors(self.size)
            && sectors(self.data_size)
            && self
                .footer_size()
                .is_ok_and(|footer| footer as u64 > checksums)
    }

    fn footer_pieces(&self) -> u64 {
        (self.size - self.data_size).div_ceil(BLOCK_SIZE as u64)
    }

    /// In how many pieces the file is copied.
    pub fn pieces(&self) -> u64 {
        self.footer_pieces() + self.data_size.div_ceil(BLOCK_SIZE as u64)
    }

    /// Where the piece with this number lies, and how long it is.
    pub fn piece(&self, number: u64) -> (u64, usize) {
        let footer = self.footer_pieces();
        let (start, end, index) = if number < footer {
            (self.data_size, self.size, number)
        } else {
            (0, self.data_size, number - footer)
        };
        let offset = start + index * BLOCK_SIZE as u64;
        let size = (end - offset).min(BLOCK_SIZE as u64);
        (offset, usize::try_from(size).expect("at most a block"))
    }
}

/// See the module.
pub struct SealedCopy {
    entry: FileEntry,
    writer: Box<dyn FileWriter>,
    footer: Pages,
    footer_size: usize,
    /// `None` until the footer is whole.
    verified: Option<Footer>,
    next: u64,
    /// Aligned for direct I/O, which the memory of a message is not.
    block: Block,
}

impl std::fmt::Debug for SealedCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "copy of {}, piece {}", self.entry.name, self.next)
    }
}

impl SealedCopy {
    pub fn begin(storage: &mut dyn Storage, entry: FileEntry) -> Result<Self, StoreError> {
        if !entry.is_plausible() {
            let what = "its sizes make no sense";
            return Err(StoreError::damaged(entry.name, 0, what));
        }
        let footer_size = entry.footer_size()?;
        let writer = storage
            .create(entry.name)
            .map_err(|error| StoreError::io("create", entry.name, error))?;
        Ok(Self {
            entry,
            writer,
            footer: Pages::zeroed(footer_size),
            footer_size,
            verified: None,
            next: 0,
            block: Block::new(),
        })
    }

    /// Whether this is the piece that comes next.
    pub fn expects(&self, entry: &FileEntry, piece: u64) -> bool {
        self.entry == *entry && self.next == piece
    }

    /// Takes the next piece. Gives the copy back until the file is whole, durable and named.
    pub fn take(mut self, bytes: &[u8]) -> Result<Option<Self>, StoreError> {
        let entry = self.entry;
        let (offset, size) = entry.piece(self.next);
        if bytes.len() != size {
            let what = "a piece is not as long as it should be";
            return Err(StoreError::damaged(entry.name, offset, what));
        }
        if let Some(number) = self.next.checked_sub(entry.footer_pieces()) {
            self.add_block(number, bytes)?;
        } else {
            self.add_to_footer(offset, bytes)?;
        }
        self.next += 1;
        if self.next < entry.pieces() {
            return Ok(Some(self));
        }
        // SAFETY: `footer_size` initialised bytes that nobody writes any more.
        let footer = unsafe { std::slice::from_raw_parts(self.footer.base(), self.footer_size) };
        self.writer
            .write(footer)
            .map_err(|error| StoreError::io("write", entry.name, error))?;
        self.writer
            .finish()
            .map_err(|error| StoreError::io("sync", entry.name, error))?;
        Ok(None)
    }

    fn add_to_footer(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        // SAFETY: `footer_size` initialised bytes that this value alone refers to.
        let footer =
            unsafe { std::slice::from_raw_parts_mut(self.footer.base(), self.footer_size) };
        let at = usize::try_from(offset - self.entry.data_size).expect("inside the footer");
        footer[at..at + bytes.len()].copy_from_slice(bytes);
        if at + bytes.len() == footer.len() {
            self.verified = Some(Footer::parse(&self.entry, footer)?);
        }
        Ok(())
    }

    fn add_block(&mut self, number: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let name = self.entry.name;
        let number = usize::try_from(number).expect("fewer than checksums in memory");
        let footer = self.verified.as_ref().expect("the footer came first");
        if let Err(offset) = footer.check_block(number, bytes)
            && !Mutant::TransferNotVerified.is_on()
        {
            let what = "a page's checksum does not match";
            return Err(StoreError::damaged(name, offset, what));
        }
        let block = &mut self.block.bytes_mut()[..bytes.len()];
        block.copy_from_slice(bytes);
        self.writer
            .write(block)
            .map_err(|error| StoreError::io("write", name, error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileKind, FileName, MemoryStorage, SealedFile, SealedWriter};
    use super::*;

    fn file(storage: &mut MemoryStorage, size: usize) -> FileEntry {
        let name = FileName::new(FileKind::Ledger, 7);
        let mut writer = SealedWriter::create(storage, name).unwrap();
        writer.section(1).unwrap();
        let bytes: Vec<u8> = (0..size)
            .map(|at| (at / 4096 + at % 251).to_le_bytes()[0])
            .collect();
        writer.write(&bytes).unwrap();
        writer.finish().unwrap()
    }

    fn piece(storage: &MemoryStorage, entry: &FileEntry, number: u64) -> Vec<u8> {
        let (offset, size) = entry.piece(number);
        let mut bytes = vec![0; size];
        storage.read(entry.name, offset, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_file_copied_piece_by_piece_is_the_same_file() {
        for size in [
            0,
            1,
            4096,
            BLOCK_SIZE,
            BLOCK_SIZE + 1,
            3 * BLOCK_SIZE + 5000,
        ] {
            let mut from = MemoryStorage::default();
            let entry = file(&mut from, size);
            assert!(entry.is_plausible());
            assert_eq!(entry.pieces(), 1 + size.div_ceil(BLOCK_SIZE) as u64);
            let mut to = MemoryStorage::default();
            let mut copy = Some(SealedCopy::begin(&mut to, entry).unwrap());
            for number in 0..entry.pieces() {
                let expecting = copy.take().unwrap();
                assert!(expecting.expects(&entry, number));
                assert_eq!(to.list().unwrap(), []);
                copy = expecting.take(&piece(&from, &entry, number)).unwrap();
            }
            assert!(copy.is_none());
            SealedFile::open(&to, entry).unwrap().verify(&to).unwrap();
            assert_eq!(*to.map(entry.name).unwrap(), *from.map(entry.name).unwrap());
        }
    }

    #[test]
    fn a_damaged_piece_is_refused_whichever_it_is() {
        let mut from = MemoryStorage::default();
        let entry = file(&mut from, 2 * BLOCK_SIZE);
        for bad in 0..entry.pieces() {
            let mut to = MemoryStorage::default();
            let mut copy = SealedCopy::begin(&mut to, entry).unwrap();
            for number in 0..bad {
                copy = copy.take(&piece(&from, &entry, number)).unwrap().unwrap();
            }
            let mut bytes = piece(&from, &entry, bad);
            bytes[100] ^= 1;
            assert!(copy.take(&bytes).unwrap_err().is_damage());
            assert_eq!(to.list().unwrap(), []);
        }
    }

    #[test]
    fn sizes_that_no_file_has_are_refused() {
        let mut from = MemoryStorage::default();
        let entry = file(&mut from, 5000);
        let with = |size, data_size| FileEntry {
            size,
            data_size,
            ..entry
        };
        for entry in [
            with(0, 0),
            with(4096, 8192),
            with(8192, 8192),
            with(8193, 4096),
            with(8192, 1),
            with(u64::MAX, u64::MAX - 4095),
            with(u64::MAX - 4095, 4096),
            with(1 << 40, (1 << 40) - 4096),
        ] {
            assert!(!entry.is_plausible(), "{entry:?}");
            assert!(SealedCopy::begin(&mut from, entry).is_err());
        }
    }
}
