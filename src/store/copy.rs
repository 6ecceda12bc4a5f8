//! A sealed file that comes in pieces from somewhere else, verified before a byte of it is written.
//!
//! ```text
//!   piece    0 ..            the footer: verified against the file's entry, kept in memory
//!            then, in order  the blocks: each verified against the footer, then gathered
//!   4 MiB of them            are written at once
//!   at last                  the rest and the footer are written, the file made durable and named
//! ```
//!
//! A piece is at most a block, so that it fits a message. Given up before its last piece, the file
//! never was: what is there under its name stays as it is.

use super::error::StoreError;
use super::sealed::{BLOCK_SIZE, Blocks, FileEntry, Footer, PAGE_SIZE};
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

/// What is gathered before it is written: a direct write makes the thread sleep until the device has it,
/// and wait for a core again.
const WRITE_BLOCKS: usize = 8;

/// Copies files, one after the other. See the module.
#[derive(Default)]
pub struct Copier {
    /// Aligned for direct I/O, which the memory of a message is not. Made when the first file begins: most
    /// replicas never copy one.
    buffer: Option<Blocks>,
    /// The file whose pieces are coming in.
    copy: Option<Copy>,
}

impl std::fmt::Debug for Copier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.copy {
            Some(copy) => write!(f, "copy of {}, piece {}", copy.entry.name, copy.next),
            None => f.write_str("no copy"),
        }
    }
}

impl Copier {
    /// Bytes of its memory, at most.
    pub const MEMORY: u64 = (WRITE_BLOCKS * BLOCK_SIZE) as u64;

    /// Takes a piece of a file. The first one begins the file, and gives up another that was not whole; the
    /// last one makes it durable and named. An error gives it up, too; that of a device may be reported for
    /// a piece that was taken before.
    pub fn take(
        &mut self,
        storage: &mut dyn Storage,
        entry: FileEntry,
        piece: u64,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        if piece == 0 {
            self.copy = None;
            self.copy = Some(Copy::begin(storage, entry)?);
        }
        let expected = self.copy.take();
        let expected = expected.filter(|copy| copy.entry == entry && copy.next == piece);
        let what = "a piece came out of turn, after one that failed";
        let mut copy = expected.ok_or_else(|| StoreError::damaged(entry.name, 0, what))?;
        let buffer = self.buffer.get_or_insert_with(|| Blocks::new(WRITE_BLOCKS));
        let buffer = buffer.bytes_mut();
        copy.take(bytes, buffer)?;
        if copy.next < entry.pieces() {
            self.copy = Some(copy);
            return Ok(());
        }
        copy.finish(buffer)
    }
}

/// A file of which some pieces are here.
struct Copy {
    entry: FileEntry,
    writer: Box<dyn FileWriter>,
    footer: Vec<u8>,
    /// `None` until the footer is whole.
    verified: Option<Footer>,
    next: u64,
    /// Bytes in the buffer, verified and not yet written.
    gathered: usize,
}

impl Copy {
    fn begin(storage: &mut dyn Storage, entry: FileEntry) -> Result<Self, StoreError> {
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
            footer: vec![0; footer_size],
            verified: None,
            next: 0,
            gathered: 0,
        })
    }

    /// Takes the next piece.
    fn take(&mut self, bytes: &[u8], buffer: &mut [u8]) -> Result<(), StoreError> {
        let entry = self.entry;
        let (offset, size) = entry.piece(self.next);
        if bytes.len() != size {
            let what = "a piece is not as long as it should be";
            return Err(StoreError::damaged(entry.name, offset, what));
        }
        if let Some(number) = self.next.checked_sub(entry.footer_pieces()) {
            self.add_block(number, bytes, buffer)?;
        } else {
            self.add_to_footer(offset, bytes)?;
        }
        self.next += 1;
        Ok(())
    }

    fn finish(mut self, buffer: &mut [u8]) -> Result<(), StoreError> {
        let footer = std::mem::take(&mut self.footer);
        self.gather(&footer, buffer)?;
        self.write(buffer)?;
        let name = self.entry.name;
        self.writer
            .finish()
            .map_err(|error| StoreError::io("sync", name, error))
    }

    fn add_to_footer(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let at = usize::try_from(offset - self.entry.data_size).expect("inside the footer");
        self.footer[at..at + bytes.len()].copy_from_slice(bytes);
        if at + bytes.len() == self.footer.len() {
            self.verified = Some(Footer::parse(&self.entry, &self.footer)?);
        }
        Ok(())
    }

    fn add_block(
        &mut self,
        number: u64,
        bytes: &[u8],
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        let name = self.entry.name;
        let number = usize::try_from(number).expect("fewer than checksums in memory");
        let footer = self.verified.as_ref().expect("the footer came first");
        if let Err(offset) = footer.check_block(number, bytes)
            && !Mutant::TransferNotVerified.is_on()
        {
            let what = "a page's checksum does not match";
            return Err(StoreError::damaged(name, offset, what));
        }
        self.gather(bytes, buffer)
    }

    /// Adds what is verified to the buffer, which is written when it is full.
    fn gather(&mut self, mut bytes: &[u8], buffer: &mut [u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.gathered == buffer.len() {
                self.write(buffer)?;
            }
            let room = &mut buffer[self.gathered..];
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.gathered += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Writes what has been gathered.
    fn write(&mut self, buffer: &[u8]) -> Result<(), StoreError> {
        if self.gathered > 0 {
            self.writer
                .write(&buffer[..self.gathered])
                .map_err(|error| StoreError::io("write", self.entry.name, error))?;
            self.gathered = 0;
        }
        Ok(())
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
        let mut copier = Copier::default();
        for size in [
            0,
            1,
            4096,
            BLOCK_SIZE,
            BLOCK_SIZE + 1,
            3 * BLOCK_SIZE + 5000,
            WRITE_BLOCKS * BLOCK_SIZE,
            WRITE_BLOCKS * BLOCK_SIZE - 5000,
            (2 * WRITE_BLOCKS + 1) * BLOCK_SIZE + 5000,
        ] {
            let mut from = MemoryStorage::default();
            let entry = file(&mut from, size);
            assert!(entry.is_plausible());
            assert_eq!(entry.pieces(), 1 + size.div_ceil(BLOCK_SIZE) as u64);
            let mut to = MemoryStorage::default();
            for number in 0..entry.pieces() {
                assert_eq!(to.list().unwrap(), []);
                let bytes = piece(&from, &entry, number);
                copier.take(&mut to, entry, number, &bytes).unwrap();
            }
            SealedFile::open(&to, entry).unwrap().verify(&to).unwrap();
            assert_eq!(*to.map(entry.name).unwrap(), *from.map(entry.name).unwrap());
        }
    }

    #[test]
    fn a_damaged_piece_is_refused_whichever_it_is() {
        let mut copier = Copier::default();
        let mut from = MemoryStorage::default();
        let entry = file(&mut from, 2 * BLOCK_SIZE);
        for bad in 0..entry.pieces() {
            let mut to = MemoryStorage::default();
            for number in 0..bad {
                let bytes = piece(&from, &entry, number);
                copier.take(&mut to, entry, number, &bytes).unwrap();
            }
            let mut bytes = piece(&from, &entry, bad);
            bytes[100] ^= 1;
            let error = copier.take(&mut to, entry, bad, &bytes);
            assert!(error.unwrap_err().is_damage());
            assert_eq!(to.list().unwrap(), []);
            // What follows it has no file to belong to.
            let next = piece(&from, &entry, bad);
            assert!(copier.take(&mut to, entry, bad.max(1), &next).is_err());
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
            assert!(Copier::default().take(&mut from, entry, 0, &[]).is_err());
        }
    }
}
