//! Where files lie: the boundary between the store and disks.
//!
//! Files are immutable. One is written whole, made durable, and from then on read, mapped or
//! removed. All calls block: they are for the threads beside the replica's.
//!
//! ```text
//!   create ──► write, write, ... ──► finish: bytes synced, named ──► sync: names synced
//!                     │                          │                        │
//!          a crash leaves nothing    a crash leaves nothing,    a crash leaves the file
//!                                    or every byte of it
//! ```
//!
//! The store knows names and contents; how they become durable is the implementation's:
//! [`super::MemoryStorage`] for simulation and tests, the runtime's directory for real.

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use super::pages::Pages;

/// Sizes of writes, and offsets of sections, are multiples of this: direct I/O needs it.
pub const STORAGE_SECTOR_SIZE: usize = 4096;

/// What a file holds; the first part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum FileKind {
    /// The list of a checkpoint's other files; numbered by op.
    Manifest = 1,
    /// The replica's own part of a checkpoint: the client table; numbered by op.
    Sessions = 2,
    /// What else of the ledger changes; numbered by op.
    Ledger = 3,
    /// A full chunk of transfers; numbered by chunk.
    Transfers = 4,
    /// A full chunk of ids that failed for good; numbered by chunk.
    FailedIds = 5,
    /// A full chunk of expiries that have happened; numbered by chunk.
    Expired = 6,
    /// The ids of many full chunks of transfers, by hash; numbered from 0.
    TransferRun = 7,
    /// The same of ids that failed for good.
    FailedRun = 8,
    /// Accounts that have changed, or whose turn it was; numbered by op.
    Accounts = 9,
}

impl FileKind {
    pub const ALL: [Self; 9] = [
        Self::Manifest,
        Self::Sessions,
        Self::Ledger,
        Self::Transfers,
        Self::FailedIds,
        Self::Expired,
        Self::TransferRun,
        Self::FailedRun,
        Self::Accounts,
    ];

    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == code)
    }

    /// Of full chunks, numbered from 0: once such a file is there, every later checkpoint has it too.
    pub fn is_chunk(self) -> bool {
        match self {
            Self::Manifest | Self::Sessions | Self::Ledger | Self::Accounts => false,
            Self::Transfers
            | Self::FailedIds
            | Self::Expired
            | Self::TransferRun
            | Self::FailedRun => true,
        }
    }

    /// Whether what is new in it is what is read: rows are, ids of rows that are not new are not.
    pub fn is_asked_soon(self) -> bool {
        self.is_chunk() && !matches!(self, Self::TransferRun | Self::FailedRun)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Sessions => "sessions",
            Self::Ledger => "ledger",
            Self::Transfers => "transfers",
            Self::FailedIds => "failed-ids",
            Self::Expired => "expired",
            Self::TransferRun => "transfer-run",
            Self::FailedRun => "failed-run",
            Self::Accounts => "accounts",
        }
    }
}

/// The name of a file: made of what it holds, so equal on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    pub kind: FileKind,
    /// An op, a chunk or a run, see [`FileKind`].
    pub number: u64,
}

impl FileName {
    pub const fn new(kind: FileKind, number: u64) -> Self {
        Self { kind, number }
    }

    /// The name back from its text; `None` for other files.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, number) = text.rsplit_once('-')?;
        let kind = FileKind::ALL
            .into_iter()
            .find(|known| known.name() == kind)?;
        let name = Self {
            kind,
            number: number.parse().ok()?,
        };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for FileName {
    /// As long as the longest number, so that names sort like numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:020}", self.kind.name(), self.number)
    }
}

/// A directory of immutable files.
pub trait Storage: Send + Sync {
    /// Begins a file. Until it is finished, a file of that name from before stays as it is.
    fn create(&mut self, name: FileName) -> io::Result<Box<dyn FileWriter>>;

    /// Reads `bytes.len()` bytes from `offset`; fails with `UnexpectedEof` if there are fewer.
    fn read(&self, name: FileName, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Says that these bytes are about to be read, so that the disk may begin. Best effort.
    fn will_read(&self, name: FileName, offset: u64, size: u64) {
        let _ = (name, offset, size);
    }

    /// The whole file in memory, for as long as the map lives, even if the file is removed.
    fn map(&self, name: FileName) -> io::Result<Map>;

    /// Makes the names of all finished files durable, and removals.
    fn sync(&mut self) -> io::Result<()>;

    /// Finished files, ascending, with their sizes.
    fn list(&self) -> io::Result<Vec<(FileName, u64)>>;

    /// Bytes that can still be written, as far as the system knows: a quota may be narrower.
    fn room(&self) -> io::Result<u64>;

    /// Removes a file; a crash before the next sync may bring it back. One that is not there is an
    /// error of kind `NotFound`.
    fn remove(&mut self, name: FileName) -> io::Result<()>;
}

/// A file being written; what there is of it goes when it is dropped unfinished.
pub trait FileWriter: Send {
    /// Appends. Length and address are multiples of [`STORAGE_SECTOR_SIZE`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file durable, then gives it its name. Without it, the file never was.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Whether a write failed because there is no room for it: on the disk, or in somebody's quota.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What `MADV_POPULATE_READ` says of pages that would be a signal to touch; older systems do not know it.
fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    const EFAULT: i32 = 14;
    const EHWPOISON: i32 = 133;
    matches!(error.raw_os_error(), Some(EIO | EFAULT | EHWPOISON))
}

/// The bytes of a file, read-only, page-aligned, shared by counting.
#[derive(Debug, Clone)]
pub struct Map(Arc<MapBytes>);

#[derive(Debug)]
enum MapBytes {
    File(memmap2::Mmap),
    Memory {
        pages: Arc<Pages>,
        size: usize,
        /// What a simulated disk has made of it.
        rotten: OnceLock<Map>,
    },
}

impl Map {
    /// A map of a file that nobody will ever write again.
    pub fn of_file(map: memmap2::Mmap) -> Self {
        Self(Arc::new(MapBytes::File(map)))
    }

    /// Asks the system to read these bytes ahead, without waiting for them. Best effort.
    pub fn will_need(&self, offset: usize, size: usize) {
        if let MapBytes::File(map) = &*self.0 {
            #[cfg(unix)]
            let _ = map.advise_range(memmap2::Advice::WillNeed, offset, size);
        }
    }

    /// Lets the process go without what it has read of the file so far: it stays in the page cache, but
    /// no longer counts as memory of this process. Best effort.
    pub fn release(&self) {
        self.release_range(0..self.len());
    }

    /// The same for some of its bytes.
    pub fn release_range(&self, range: Range<usize>) {
        if let MapBytes::File(map) = &*self.0 {
            assert!(range.end <= map.len());
            // SAFETY: pages of a shared map that nobody writes are read from the file again when they are
            // next looked at, with the same bytes. The range lies in the map, as was just checked.
            let _ = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
        }
    }

    /// Asks the system to read those of these pieces ahead that are not in memory; to ask for the others costs
    /// more than to read them. The pieces are in order, up or down; neighbours are asked for together.
    pub fn will_need_pieces(&self, pieces: impl Iterator<Item = Range<usize>> + Clone) {
        /// A gap that costs less to read than to ask twice. Bytes.
        const GAP: usize = 8 * 1024;
        let both = |a: Range<usize>, b: Range<usize>| a.start.min(b.start)..a.end.max(b.end);
        let Some(whole) = pieces.clone().reduce(both) else {
            return;
        };
        let residence = Residence::of(self, whole);
        let mut absent: Option<Range<usize>> = None;
        for piece in pieces.filter(|piece| !residence.includes(piece)) {
            absent = match absent {
                Some(near) if piece.start <= near.end + GAP && near.start <= piece.end + GAP => {
                    Some(both(near, piece))
                }
                far => {
                    if let Some(far) = far {
                        self.will_need(far.start, far.len());
                    }
                    Some(piece)
                }
            };
        }
        if let Some(last) = absent {
            self.will_need(last.start, last.len());
        }
    }

    /// Reads these bytes from the disk, if they are not in memory; `None` if the disk cannot. (Where the system
    /// cannot be asked, a read that fails is a signal.)
    pub fn fetch(&self, range: Range<usize>) -> Option<&[u8]> {
        match &*self.0 {
            MapBytes::File(map) => {
                // One read of all of it, then a wait for it.
                self.will_need(range.start, range.len());
                let advice = memmap2::Advice::PopulateRead;
                let populated = map.advise_range(advice, range.start, range.len());
                (!populated.is_err_and(|error| is_unreadable(&error))).then(|| &map[range])
            }
            MapBytes::Memory { rotten, .. } => match rotten.get() {
                None => Some(&self[range]),
                Some(disk) => disk.fetch(range),
            },
        }
    }

    /// What was never read from the disk is read there, from now on, as it is in another map: for tests.
    pub(super) fn rot(&self, disk: &Self) {
        if let MapBytes::Memory { rotten, .. } = &*self.0 {
            // It has rotten before: that is what the disk holds, and rots in its turn.
            if let Err(disk) = rotten.set(disk.clone()) {
                rotten.get().expect("it is set").rot(&disk);
            }
        }
    }

    /// The same bytes in memory.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let pages = Pages::zeroed(bytes.len().max(1));
        // SAFETY: the piece has at least as many bytes, and nobody else sees it.
        unsafe {
            pages
                .base()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
        Self(Arc::new(MapBytes::Memory {
            pages: Arc::new(pages),
            size: bytes.len(),
            rotten: OnceLock::new(),
        }))
    }

    /// The same bytes on another disk: what becomes of them there is not seen here.
    pub(super) fn elsewhere(&self) -> Self {
        match &*self.0 {
            MapBytes::File(_) => self.clone(),
            MapBytes::Memory { pages, size, .. } => Self(Arc::new(MapBytes::Memory {
                pages: Arc::clone(pages),
                size: *size,
                rotten: OnceLock::new(),
            })),
        }
    }
}

/// What of a stretch of a map is in memory, as the system knows: of up to 8 MiB. Where the system's pages are
/// larger than these frames it refuses to say, and all counts as absent.
struct Residence {
    first: usize,
    /// For each frame; the lowest bit counts.
    frames: [u8; Self::FRAMES_MAX],
}

impl Residence {
    const FRAME_SIZE: usize = 4096;
    const FRAMES_MAX: usize = 2048;

    fn of(map: &Map, stretch: Range<usize>) -> Self {
        let first = stretch.start / Self::FRAME_SIZE;
        let MapBytes::File(file) = &*map.0 else {
            let frames = [1; Self::FRAMES_MAX];
            return Self { first, frames };
        };
        let mut frames = [0; Self::FRAMES_MAX];
        let end = stretch.end.div_ceil(Self::FRAME_SIZE);
        let end = end.min(first + Self::FRAMES_MAX) * Self::FRAME_SIZE;
        let bytes = &file[first * Self::FRAME_SIZE..end.min(file.len())];
        let base = bytes.as_ptr().cast_mut().cast();
        // SAFETY: `bytes` are mapped and begin at a frame, as the file does; the answer is one byte for each
        // page of the system, which are at most as many as frames.
        if unsafe { libc::mincore(base, bytes.len(), frames.as_mut_ptr()) } != 0 {
            frames = [0; Self::FRAMES_MAX];
        }
        Self { first, frames }
    }

    fn includes(&self, piece: &Range<usize>) -> bool {
        let first = piece.start / Self::FRAME_SIZE - self.first;
        let end = piece.end.div_ceil(Self::FRAME_SIZE) - self.first;
        let frames = self.frames.get(first..end);
        frames.is_some_and(|frames| frames.iter().all(|frame| frame & 1 == 1))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.0 {
            MapBytes::File(map) => map,
            MapBytes::Memory { pages, size, .. } => {
                // SAFETY: `size` bytes were written before the map was made, and none after.
                unsafe { std::slice::from_raw_parts(pages.base(), *size) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_read_back() {
        for kind in FileKind::ALL {
            assert_eq!(FileKind::from_code(kind as u16), Some(kind));
            for number in [0, 1, 77, u64::MAX] {
                let name = FileName::new(kind, number);
                assert_eq!(FileName::parse(&name.to_string()), Some(name));
            }
        }
        assert_eq!(
            FileName::new(FileKind::FailedIds, 12).to_string(),
            "failed-ids-00000000000000000012"
        );
        for other in [
            "",
            "ledger",
            "ledger-",
            "ledger-1",
            "ledger-00000000000000000001.tmp",
            "x-1",
        ] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn maps_are_aligned_copies() {
        let map = Map::copy_of(&[1, 2, 3]);
        assert_eq!(&map[..], [1, 2, 3]);
        assert!(map.as_ptr().addr().is_multiple_of(4096));
        assert!(Map::copy_of(&[]).is_empty());
    }
}
