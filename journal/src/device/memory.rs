//! A device in memory whose every failure is chosen by the caller, for tests and simulators.
//!
//! Writes stay *pending* until the caller completes them, in any order. What it models:
//!
//! - a crash keeps any subset of the sectors of every pending write, as the caller chooses;
//! - a write that fails, or only its sync does, is short, is reported done but never happens, or lands elsewhere;
//! - bits that flip on the medium, sectors that cannot be read;
//! - images: [`MemoryDevice::image`] is the medium as it is, and a device can start from one.
//!
//! What it does not model: torn sectors (below 4096 bytes; a header lies within the first 256, and
//! devices write 512 at once), and a device cache that loses completed writes (a completed write is
//! durable by the contract of the real device; [`MemoryDevice::lose`] is the lying kind).
//! Deterministic: no clock, no randomness.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{Completion, Device, ReadAt, WriteAt};
use crate::append::WriteOp;
use crate::buffer::{AlignedBuffer, FrameBuffer};
use crate::config::Config;
use crate::frame::SECTOR;

/// The contents of all segment files. Cheap to clone, and as small as what was ever written: blocks
/// are shared between clones until one of them writes, and a block of zeros takes no memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    file_size: usize,
    files: Vec<Vec<Option<Arc<Block>>>>,
}

/// The piece of a file that clones share or copy.
const BLOCK: usize = 4 * SECTOR;

type Block = [u8; BLOCK];

impl Image {
    /// Freshly formatted segments: zeros.
    pub fn new(config: &Config) -> Self {
        let size = usize::try_from(config.segment_size).expect("an image fits the address space");
        let files = (0..config.segment_count).map(|_| vec![None; size.div_ceil(BLOCK)]);
        Self {
            file_size: size,
            files: files.collect(),
        }
    }

    /// A copy of one file.
    pub fn file(&self, file: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.file_size];
        self.read(file, 0, &mut bytes)
            .expect("the whole of a file lies inside it");
        bytes
    }

    /// Fills `bytes` from `offset` of one file; fails outside it.
    pub fn read(&self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut at = self.check(file, offset, bytes.len())?;
        let blocks = &self.files[file as usize];
        let mut rest = bytes;
        while !rest.is_empty() {
            let (block, skip) = (at / BLOCK, at % BLOCK);
            let (now, later) = rest.split_at_mut(rest.len().min(BLOCK - skip));
            match &blocks[block] {
                Some(block) => now.copy_from_slice(&block[skip..][..now.len()]),
                None => now.fill(0),
            }
            at += now.len();
            rest = later;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset` of one file; fails outside it.
    pub fn write(&mut self, file: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut at = self.check(file, offset, bytes.len())?;
        let blocks = &mut self.files[file as usize];
        let mut rest = bytes;
        while !rest.is_empty() {
            let (block, skip) = (at / BLOCK, at % BLOCK);
            let (now, later) = rest.split_at(rest.len().min(BLOCK - skip));
            let block = blocks[block].get_or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[skip..][..now.len()].copy_from_slice(now);
            at += now.len();
            rest = later;
        }
        Ok(())
    }

    /// Changes a stretch of one file by hand.
    ///
    /// # Panics
    /// When the stretch does not lie inside the file.
    pub fn change(&mut self, file: u32, stretch: Range<usize>, change: impl FnOnce(&mut [u8])) {
        let (offset, inside) = (stretch.start as u64, "a stretch of the file");
        let mut bytes = vec![0; stretch.len()];
        self.read(file, offset, &mut bytes).expect(inside);
        change(&mut bytes);
        self.write(file, offset, &bytes).expect(inside);
    }

    /// The offset, if all of the range lies inside the file.
    fn check(&self, file: u32, offset: u64, len: usize) -> io::Result<usize> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let inside = (file as usize) < self.files.len()
            && from
                .checked_add(len)
                .is_some_and(|end| end <= self.file_size);
        inside
            .then_some(from)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
    }
}

/// One sector of a pending write, to be kept or lost in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingSector {
    /// The write's token.
    pub token: u64,
    /// Which sector of the write.
    pub index: usize,
    /// How many sectors the write has.
    pub count: usize,
}

/// What goes wrong with a pending write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Fails with this errno; nothing is written.
    Fail(i32),
    /// Is written, and fails with this errno all the same: the sync did.
    Unsynced(i32),
    /// Only so many bytes are written, and reported.
    Short(usize),
    /// Reported done, never written.
    Lose,
    /// Written somewhere else, and reported done.
    Misdirect { file: u32, offset: u64 },
}

#[derive(Debug)]
struct Pending<B> {
    op: WriteOp<B>,
    /// The frame as it was submitted: changing it in flight is a bug of the caller's.
    bytes: Vec<u8>,
    fate: Option<Fate>,
}

/// Segment files in memory.
#[derive(Debug)]
pub struct MemoryDevice<B = AlignedBuffer> {
    image: Image,
    /// By token, which is the order of submission.
    pending: BTreeMap<u64, Pending<B>>,
    pending_max: usize,
    unreadable: BTreeSet<(u32, u64)>,
}

impl<B: FrameBuffer> MemoryDevice<B> {
    /// A freshly formatted device.
    pub fn new(config: &Config) -> Self {
        Self::from_image(Image::new(config))
    }

    /// A device with this medium and nothing pending.
    pub fn from_image(image: Image) -> Self {
        let pending_max = usize::MAX;
        Self {
            image,
            pending: BTreeMap::new(),
            pending_max,
            unreadable: BTreeSet::new(),
        }
    }

    /// Refuses further writes while so many are pending.
    pub fn limit_pending(&mut self, pending_max: usize) {
        self.pending_max = pending_max;
    }

    /// The medium as it is, without any pending write.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The medium, to be changed by hand.
    pub fn image_mut(&mut self) -> &mut Image {
        &mut self.image
    }

    /// Another device with the same medium, unreadable sectors included, and nothing pending.
    pub fn copy(&self) -> Self {
        Self {
            unreadable: self.unreadable.clone(),
            ..Self::from_image(self.image.clone())
        }
    }

    /// Fills `bytes` with what the medium gives.
    pub fn read(&self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut hit = sectors(offset, bytes.len());
        if hit.any(|sector| self.unreadable.contains(&(file, sector))) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.image.read(file, offset, bytes)
    }

    /// Tokens of the pending writes, in order of submission.
    pub fn pending(&self) -> impl Iterator<Item = u64> {
        self.pending.keys().copied()
    }

    /// Carries out one pending write, in whatever way it was made to fail.
    ///
    /// # Panics
    /// If there is no such write, or its buffer has been changed since it was submitted.
    pub fn complete(&mut self, token: u64) -> Completion<B> {
        let pending = self
            .pending
            .remove(&token)
            .expect("the token of a pending write");
        let WriteOp {
            file,
            offset,
            len,
            buffer,
            ..
        } = pending.op;
        assert!(
            bytes_of(&buffer, len) == pending.bytes,
            "the frame of write {token} was changed while in flight"
        );
        let result = match pending.fate {
            None => self.write(file, offset, &pending.bytes),
            Some(Fate::Fail(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fate::Unsynced(errno)) => self
                .write(file, offset, &pending.bytes)
                .and_then(|_| Err(io::Error::from_raw_os_error(errno))),
            Some(Fate::Short(short)) => self.write(file, offset, &pending.bytes[..short]),
            Some(Fate::Lose) => Ok(len),
            Some(Fate::Misdirect { file, offset }) => self.write(file, offset, &pending.bytes),
        };
        Completion {
            token,
            result,
            buffer,
        }
    }

    /// Loses power: of every sector of every pending write, keeps those that `keep` says. Nothing
    /// is pending afterwards.
    pub fn crash(&mut self, mut keep: impl FnMut(PendingSector) -> bool) {
        for (token, pending) in std::mem::take(&mut self.pending) {
            let count = pending.op.len / SECTOR;
            let (file, offset) = match pending.fate {
                None | Some(Fate::Fail(_) | Fate::Unsynced(_) | Fate::Short(_)) => {
                    (pending.op.file, pending.op.offset)
                }
                Some(Fate::Misdirect { file, offset }) => (file, offset),
                Some(Fate::Lose) => continue,
            };
            for (index, sector) in pending.bytes.chunks_exact(SECTOR).enumerate() {
                if keep(PendingSector {
                    token,
                    index,
                    count,
                }) {
                    let at = offset + (index * SECTOR) as u64;
                    self.write(file, at, sector)
                        .expect("the journal writes inside its files");
                }
            }
        }
    }

    /// Makes a pending write fail with `errno` when it is completed.
    pub fn fail(&mut self, token: u64, errno: i32) {
        self.set_fate(token, Fate::Fail(errno));
    }

    /// Makes a pending write be written, and fail with `errno` when it is completed.
    pub fn fail_sync(&mut self, token: u64, errno: i32) {
        self.set_fate(token, Fate::Unsynced(errno));
    }

    /// Makes a pending write stop after `written` bytes when it is completed.
    pub fn shorten(&mut self, token: u64, written: usize) {
        self.set_fate(token, Fate::Short(written));
    }

    /// Makes a pending write be reported as done without happening.
    pub fn lose(&mut self, token: u64) {
        self.set_fate(token, Fate::Lose);
    }

    /// Makes a pending write land at another place.
    pub fn misdirect(&mut self, token: u64, file: u32, offset: u64) {
        self.set_fate(token, Fate::Misdirect { file, offset });
    }

    /// Turns over one bit of the medium.
    pub fn flip(&mut self, file: u32, offset: u64, bit: u8) {
        let at = usize::try_from(offset).expect("an address of the medium");
        self.image
            .change(file, at..at + 1, |byte| byte[0] ^= 1 << (bit % 8));
    }

    /// Makes the sector at `offset` of `file` unreadable (EIO), until it is written again.
    pub fn make_unreadable(&mut self, file: u32, offset: u64) {
        self.unreadable.insert((file, offset / SECTOR as u64));
    }

    fn set_fate(&mut self, token: u64, fate: Fate) {
        self.pending
            .get_mut(&token)
            .expect("the token of a pending write")
            .fate = Some(fate);
    }

    fn write(&mut self, file: u32, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.image.write(file, offset, bytes)?;
        for sector in sectors(offset, bytes.len()) {
            self.unreadable.remove(&(file, sector));
        }
        Ok(bytes.len())
    }
}

impl<B: FrameBuffer> ReadAt for MemoryDevice<B> {
    fn read_at(&mut self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read(file, offset, bytes)
    }
}

impl<B: FrameBuffer> WriteAt for MemoryDevice<B> {
    fn write_at(&mut self, file: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(file, offset, bytes).map(|_| ())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For callers that do not care when writes complete: every poll completes all, oldest first.
impl<B: FrameBuffer> Device<B> for MemoryDevice<B> {
    fn submit(&mut self, op: WriteOp<B>) -> Result<(), WriteOp<B>> {
        if self.pending.len() >= self.pending_max {
            return Err(op);
        }
        let bytes = bytes_of(&op.buffer, op.len).to_vec();
        let pending = Pending {
            bytes,
            fate: None,
            op,
        };
        let before = self.pending.insert(pending.op.token, pending);
        assert!(before.is_none(), "a token was submitted twice");
        Ok(())
    }

    fn poll(&mut self, done: &mut Vec<Completion<B>>) -> io::Result<()> {
        while let Some(token) = self.pending.keys().next().copied() {
            done.push(self.complete(token));
        }
        Ok(())
    }

    fn wait(&mut self, done: &mut Vec<Completion<B>>) -> io::Result<()> {
        self.poll(done)
    }
}

/// The numbers of the sectors that a range of bytes touches.
fn sectors(offset: u64, len: usize) -> Range<u64> {
    let sector = SECTOR as u64;
    offset / sector..(offset + len as u64).div_ceil(sector)
}

fn bytes_of<B: FrameBuffer>(buffer: &B, len: usize) -> &[u8] {
    assert!(buffer.capacity() >= len);
    // SAFETY: the contract of FrameBuffer makes `capacity` bytes valid and initialised, and keeps
    // everybody from changing the frame while its write is in flight; the slice borrows `buffer`
    // and does not outlive this call's caller, which only reads.
    unsafe { std::slice::from_raw_parts(buffer.as_mut_ptr(), len) }
}
