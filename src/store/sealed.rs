//! The one file format of the store: sections of data, sealed by a footer of checksums.
//!
//! ```text
//!   0      16 KiB   32 KiB               data_size      size
//!   ├─ page 0 ┼─ page 1 ┼─ ... last page ──┼─ footer ──┤    whole sectors everywhere
//!   ├─ section ──┼─ section ──────────┤ zeros │
//!
//!   footer   0 magic, 8 version u16, 10 kind u16, 12 sections u32, 16 number u64,
//!            24 data_size u64, 32 pages u64, 40 zeros
//!           64 section × n: kind u32, zero u32, offset u64, size u64, zero u64
//!              page checksum × pages: XXH3-128
//!              zeros to a whole sector
//! ```
//!
//! The checksum of a file is that of its footer, which holds those of the pages: whoever knows it
//! can verify any page by itself. So a restart reads only the sections it needs, what is read from a map
//! is verified as it is read ([`super::mapped`]), damage is located to the page, and a block of pages
//! (which fits a message) can be fetched from another replica and verified before it is used.
//!
//! Equal contents give equal bytes: there is nothing else in a file.

use xxhash_rust::xxh3::xxh3_128;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::error::StoreError;
use super::pages::Pages;
use super::storage::{FileKind, FileName, FileWriter, STORAGE_SECTOR_SIZE, Storage};

/// Bytes under one checksum: what the first look at a row costs.
pub const PAGE_SIZE: usize = 16 * 1024;

/// Bytes that are read, written and sent at once: pages that fit a message.
pub const BLOCK_SIZE: usize = 32 * PAGE_SIZE;

const MAGIC: u64 = u64::from_le_bytes(*b"STAMPSEA");
const VERSION: u16 = 2;
const SECTIONS_MAX: usize = 64;
/// That of a file of 64 GiB.
const FOOTER_SIZE_MAX: usize = 65 << 20;
const CHECKSUM_SIZE: usize = size_of::<u128>();

/// A file as a manifest lists it: enough to know every byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry {
    pub name: FileName,
    /// Of the whole file.
    pub size: u64,
    /// Where the footer begins.
    pub data_size: u64,
    /// Of the footer.
    pub checksum: u128,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FooterHead {
    magic: u64,
    version: u16,
    kind: u16,
    sections: u32,
    number: u64,
    data_size: u64,
    pages: u64,
    reserved: [u8; 24],
}

const _: () = assert!(size_of::<FooterHead>() == 64);

impl FileEntry {
    /// Bytes of the footer.
    pub(super) fn footer_size(&self) -> Result<usize, StoreError> {
        let length = self
            .size
            .checked_sub(self.data_size)
            .and_then(|length| usize::try_from(length).ok());
        length
            .filter(|length| *length >= STORAGE_SECTOR_SIZE && *length <= FOOTER_SIZE_MAX)
            .ok_or_else(|| {
                let what = "the manifest's sizes make no sense";
                StoreError::damaged(self.name, self.data_size, what)
            })
    }
}

/// A part of a file; `kind` is the writer's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Section {
    pub kind: u32,
    reserved: u32,
    /// A multiple of a sector.
    pub offset: u64,
    /// Bytes written, without padding.
    pub size: u64,
    reserved_tail: u64,
}

const _: () = assert!(size_of::<Section>() == 32);

fn footer_size(sections: usize, pages: usize) -> usize {
    let size = checksums_at(sections) + pages * CHECKSUM_SIZE;
    size.next_multiple_of(STORAGE_SECTOR_SIZE)
}

/// Where the checksums begin in a footer.
fn checksums_at(sections: usize) -> usize {
    size_of::<FooterHead>() + sections * size_of::<Section>()
}

/// Whether `bytes` are the page with this number, by the bytes of the checksums of all.
pub(super) fn is_page(checksums: &[u8], number: usize, bytes: &[u8]) -> bool {
    let checksum = checksums.as_chunks::<CHECKSUM_SIZE>().0.get(number);
    checksum.is_some_and(|checksum| xxh3_128(bytes) == u128::from_le_bytes(*checksum))
}

/// Writes one file; dropped without [`SealedWriter::finish`], the file never was.
pub struct SealedWriter {
    file: Box<dyn FileWriter>,
    name: FileName,
    /// One block, aligned for direct I/O.
    block: Blocks,
    filled: usize,
    data_size: u64,
    sections: Vec<Section>,
    checksums: Vec<u128>,
}

impl SealedWriter {
    pub fn create(storage: &mut dyn Storage, name: FileName) -> Result<Self, StoreError> {
        let file = storage
            .create(name)
            .map_err(|error| StoreError::io("create", name, error))?;
        Ok(Self {
            file,
            name,
            block: Blocks::new(1),
            filled: 0,
            data_size: 0,
            sections: Vec::new(),
            checksums: Vec::new(),
        })
    }

    /// Begins a section.
    pub fn section(&mut self, kind: u32) -> Result<(), StoreError> {
        assert!(self.sections.len() < SECTIONS_MAX);
        self.pad()?;
        let offset = self.data_size;
        let section = Section {
            kind,
            reserved: 0,
            offset,
            size: 0,
            reserved_tail: 0,
        };
        self.sections.push(section);
        Ok(())
    }

    /// Appends to the section begun last.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let section = self.sections.last_mut().expect("a section was begun");
        section.size += bytes.len() as u64;
        self.append(bytes)
    }

    /// Writes the footer and makes the file durable.
    pub fn finish(mut self) -> Result<FileEntry, StoreError> {
        self.pad()?;
        self.flush()?;
        let size = footer_size(self.sections.len(), self.checksums.len());
        let footer = Pages::zeroed(size);
        // SAFETY: `size` zeroed bytes that nobody else sees.
        let footer = unsafe { std::slice::from_raw_parts_mut(footer.base(), size) };
        let head = FooterHead {
            magic: MAGIC,
            version: VERSION,
            kind: self.name.kind as u16,
            sections: u32::try_from(self.sections.len()).expect("at most SECTIONS_MAX"),
            number: self.name.number,
            data_size: self.data_size,
            pages: self.checksums.len() as u64,
            reserved: [0; 24],
        };
        let parts = [
            head.as_bytes(),
            self.sections.as_bytes(),
            self.checksums.as_bytes(),
        ];
        let mut at = 0;
        for part in parts {
            footer[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let entry = FileEntry {
            name: self.name,
            size: self.data_size + size as u64,
            data_size: self.data_size,
            checksum: xxh3_128(footer),
        };
        self.file
            .write(footer)
            .map_err(|error| StoreError::io("write", self.name, error))?;
        self.file
            .finish()
            .map_err(|error| StoreError::io("sync", self.name, error))?;
        Ok(entry)
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        if self.filled == 0 && bytes.as_ptr().addr().is_multiple_of(STORAGE_SECTOR_SIZE) {
            let (blocks, rest) = bytes.split_at(bytes.len() / BLOCK_SIZE * BLOCK_SIZE);
            self.write_blocks(blocks)?;
            bytes = rest;
        }
        while !bytes.is_empty() {
            let count = bytes.len().min(BLOCK_SIZE - self.filled);
            self.block.bytes_mut()[self.filled..self.filled + count]
                .copy_from_slice(&bytes[..count]);
            self.filled += count;
            self.data_size += count as u64;
            bytes = &bytes[count..];
            if self.filled == BLOCK_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Whole blocks from where they are, in one write: the device then works at several parts of it
    /// at once.
    fn write_blocks(&mut self, blocks: &[u8]) -> Result<(), StoreError> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.checksums
            .extend(blocks.chunks(PAGE_SIZE).map(xxh3_128));
        self.data_size += blocks.len() as u64;
        self.file
            .write(blocks)
            .map_err(|error| StoreError::io("write", self.name, error))
    }

    /// Zeros up to a whole sector.
    fn pad(&mut self) -> Result<(), StoreError> {
        const ZEROS: [u8; STORAGE_SECTOR_SIZE] = [0; STORAGE_SECTOR_SIZE];
        let count = self.filled.next_multiple_of(STORAGE_SECTOR_SIZE) - self.filled;
        self.append(&ZEROS[..count])
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.filled == 0 {
            return Ok(());
        }
        let block = &self.block.bytes_mut()[..self.filled];
        self.checksums.extend(block.chunks(PAGE_SIZE).map(xxh3_128));
        self.file
            .write(block)
            .map_err(|error| StoreError::io("write", self.name, error))?;
        self.filled = 0;
        Ok(())
    }
}

/// Blocks in memory, aligned for direct I/O.
pub(super) struct Blocks(Pages);

impl Blocks {
    pub(super) fn new(count: usize) -> Self {
        Self(Pages::zeroed(count * BLOCK_SIZE))
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: initialised bytes, all of them, that this value alone refers to.
        unsafe { std::slice::from_raw_parts_mut(self.0.base(), self.0.size()) }
    }
}

/// A footer that is the one its file's entry names, as it was written.
pub(super) struct Footer {
    sections: Vec<Section>,
    /// Of the pages.
    checksums: Vec<u128>,
}

impl Footer {
    /// Whether the bytes are the block with this number; otherwise, the offset of the first page that is
    /// not what was written.
    pub(super) fn check_block(&self, number: usize, bytes: &[u8]) -> Result<(), u64> {
        let first = number * (BLOCK_SIZE / PAGE_SIZE);
        for (page, bytes) in (first..).zip(bytes.chunks(PAGE_SIZE)) {
            if self.checksums.get(page) != Some(&xxh3_128(bytes)) {
                return Err((page * PAGE_SIZE) as u64);
            }
        }
        Ok(())
    }

    /// Verifies a footer and reads it.
    pub(super) fn parse(entry: &FileEntry, bytes: &[u8]) -> Result<Self, StoreError> {
        let FileEntry {
            name,
            data_size,
            checksum,
            ..
        } = *entry;
        let damaged = |what| StoreError::damaged(name, data_size, what);
        if xxh3_128(bytes) != checksum {
            return Err(damaged("the footer's checksum is not the manifest's"));
        }
        // What follows was written by us, as the checksum says; another version may have done it.
        let (head, rest) =
            FooterHead::read_from_prefix(bytes).map_err(|_| damaged("the footer is too short"))?;
        if head.magic != MAGIC || head.version != VERSION {
            return Err(damaged(
                "the footer's magic or version is not known to this release",
            ));
        }
        if head.kind != name.kind as u16 || head.number != name.number {
            return Err(damaged("the footer is another file's"));
        }
        let pages = data_size.div_ceil(PAGE_SIZE as u64);
        if head.data_size != data_size || head.pages != pages {
            return Err(damaged("the footer's sizes are not the manifest's"));
        }
        let pages = usize::try_from(pages).map_err(|_| damaged("the file is too large"))?;
        let sections = <[Section]>::ref_from_prefix_with_elems(rest, head.sections as usize);
        let (sections, rest) = sections.map_err(|_| damaged("the section table is cut off"))?;
        if rest.len() / CHECKSUM_SIZE < pages {
            return Err(damaged("the checksum table is cut off"));
        }
        let checksums = rest.as_chunks::<CHECKSUM_SIZE>().0[..pages].iter();
        let inside = |section: &Section| {
            section.offset.is_multiple_of(STORAGE_SECTOR_SIZE as u64)
                && section
                    .offset
                    .checked_add(section.size)
                    .is_some_and(|end| end <= data_size)
        };
        if !sections.iter().all(inside) {
            return Err(damaged("a section lies outside of the file"));
        }
        Ok(Self {
            sections: sections.to_vec(),
            checksums: checksums.map(|bytes| u128::from_le_bytes(*bytes)).collect(),
        })
    }
}

/// A file whose footer has been verified; sections are verified as they are read.
pub struct SealedFile {
    entry: FileEntry,
    footer: Footer,
    block: Blocks,
    /// The block that `block` holds, verified.
    loaded: Option<usize>,
}

impl SealedFile {
    /// Reads and verifies the footer.
    pub fn open(storage: &dyn Storage, entry: FileEntry) -> Result<Self, StoreError> {
        let length = entry.footer_size()?;
        let mut block = Blocks::new(1);
        let large = (length > BLOCK_SIZE).then(|| Pages::zeroed(length));
        let bytes = match &large {
            None => &mut block.bytes_mut()[..length],
            // SAFETY: `length` zeroed bytes that this value alone refers to; aligned for direct I/O.
            Some(pages) => unsafe { std::slice::from_raw_parts_mut(pages.base(), length) },
        };
        storage
            .read(entry.name, entry.data_size, bytes)
            .map_err(|error| StoreError::io("read", entry.name, error))?;
        let footer = Footer::parse(&entry, bytes)?;
        Ok(Self {
            entry,
            footer,
            block,
            loaded: None,
        })
    }

    pub fn entry(&self) -> FileEntry {
        self.entry
    }

    /// Where the pages' checksums begin in the footer.
    pub(super) fn checksums_at(&self) -> usize {
        checksums_at(self.footer.sections.len())
    }

    /// The section of this kind.
    pub fn section(&self, kind: u32) -> Result<Section, StoreError> {
        let found = self
            .footer
            .sections
            .iter()
            .find(|section| section.kind == kind);
        let missing = || self.damaged(self.entry.data_size, "a section is missing");
        found.copied().ok_or_else(missing)
    }

    /// Hands the section to `take`, verified, in pieces that are at most a block each.
    pub fn read(
        &mut self,
        storage: &dyn Storage,
        section: Section,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        let mut offset = section.offset;
        let end = section.offset + section.size;
        while offset < end {
            let number = usize::try_from(offset / BLOCK_SIZE as u64).expect("checked in open");
            let start = number as u64 * BLOCK_SIZE as u64;
            self.load(storage, number)?;
            let block_end = end.min(start + BLOCK_SIZE as u64);
            let from = usize::try_from(offset - start).expect("inside a block");
            let to = usize::try_from(block_end - start).expect("inside a block");
            take(&self.block.bytes_mut()[from..to]);
            offset = block_end;
        }
        Ok(())
    }

    /// A whole section of fixed-size rows.
    pub fn read_rows<T>(&mut self, storage: &dyn Storage, kind: u32) -> Result<Vec<T>, StoreError>
    where
        T: FromZeros + FromBytes + IntoBytes + Immutable + Clone,
    {
        let section = self.section(kind)?;
        let size = usize::try_from(section.size).expect("checked in open");
        if !size.is_multiple_of(size_of::<T>()) {
            return Err(self.damaged(section.offset, "a section is not whole rows"));
        }
        let mut rows = vec![T::new_zeroed(); size / size_of::<T>()];
        let mut filled = 0;
        let bytes = rows.as_mut_bytes();
        self.read(storage, section, |piece| {
            bytes[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        })?;
        Ok(rows)
    }

    /// Blocks of data.
    pub fn blocks(&self) -> usize {
        self.footer.checksums.len().div_ceil(BLOCK_SIZE / PAGE_SIZE)
    }

    /// Reads a block and verifies it.
    pub fn verify_block(&mut self, storage: &dyn Storage, number: usize) -> Result<(), StoreError> {
        self.loaded = None;
        self.load(storage, number)
    }

    /// Verifies every block.
    pub fn verify(&mut self, storage: &dyn Storage) -> Result<(), StoreError> {
        (0..self.blocks()).try_for_each(|number| self.load(storage, number))
    }

    pub fn damaged(&self, offset: u64, what: &'static str) -> StoreError {
        StoreError::damaged(self.entry.name, offset, what)
    }

    fn load(&mut self, storage: &dyn Storage, number: usize) -> Result<(), StoreError> {
        if self.loaded == Some(number) {
            return Ok(());
        }
        self.loaded = None;
        let start = number as u64 * BLOCK_SIZE as u64;
        let size = (self.entry.data_size - start).min(BLOCK_SIZE as u64);
        let size = usize::try_from(size).expect("at most a block");
        let block = &mut self.block.bytes_mut()[..size];
        storage
            .read(self.entry.name, start, block)
            .map_err(|error| StoreError::io("read", self.entry.name, error))?;
        let found = self.footer.check_block(number, block);
        found.map_err(|offset| self.damaged(offset, "a page's checksum does not match"))?;
        self.loaded = Some(number);
        Ok(())
    }
}

/// A file entry as it lies in a manifest.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct PackedEntry {
    checksum: u128,
    size: u64,
    data_size: u64,
    number: u64,
    kind: u16,
    reserved: [u8; 6],
}

const _: () = assert!(size_of::<PackedEntry>() == 48);

impl From<FileEntry> for PackedEntry {
    fn from(entry: FileEntry) -> Self {
        let FileEntry {
            name: FileName { kind, number },
            size,
            data_size,
            checksum,
        } = entry;
        Self {
            checksum,
            size,
            data_size,
            number,
            kind: kind as u16,
            reserved: [0; 6],
        }
    }
}

impl PackedEntry {
    pub(super) fn unpack(self) -> Option<FileEntry> {
        let Self {
            checksum,
            size,
            data_size,
            number,
            kind,
            reserved: _,
        } = self;
        let name = FileName::new(FileKind::from_code(kind)?, number);
        Some(FileEntry {
            name,
            size,
            data_size,
            checksum,
        })
    }
}
