//! The superblock's disk: four sectors in memory, and writes that a crash may tear.
//!
//! ```text
//!   start ──► in flight ──► complete: the sector is on the disk, whole
//!                  │
//!                crash: each 512 bytes of it are on the disk, or are not
//! ```
//!
//! A write may also fail, and then nothing of it is there; a copy may rot. A write that completed is
//! never lost. One that was in flight leaves any mixture of old and new,
//! in pieces of 512 bytes, which is worse than what drives with 4096-byte sectors do.

use std::io;

use super::super::random::{MILLION, Random};
use crate::limits::{SECTOR_SIZE, SUPERBLOCK_COPIES};

/// The smallest piece that a drive writes as one.
const ATOM_SIZE: usize = 512;

const IMAGE_SIZE: usize = SUPERBLOCK_COPIES * SECTOR_SIZE;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct SuperblockDisk {
    image: Vec<u8>,
    in_flight: Vec<Write>,
}

#[derive(Debug, Clone)]
struct Write {
    token: u64,
    offset: usize,
    sector: Box<[u8; SECTOR_SIZE]>,
    fails: bool,
}

impl SuperblockDisk {
    /// A disk that holds what `format` wrote.
    ///
    /// # Panics
    /// When the image is not as long as all copies.
    pub(crate) fn new(image: Vec<u8>) -> Self {
        assert_eq!(image.len(), IMAGE_SIZE);
        Self {
            image,
            in_flight: Vec::new(),
        }
    }

    /// What is on the disk.
    pub(crate) fn image(&self) -> &[u8] {
        &self.image
    }

    /// Starts a write.
    ///
    /// # Panics
    /// When it is not one sector of the image: direct I/O would refuse it.
    pub(crate) fn start(&mut self, token: u64, offset: u64, sector: Box<[u8; SECTOR_SIZE]>) {
        let offset = usize::try_from(offset).expect("an offset in the superblock");
        assert!(offset.is_multiple_of(SECTOR_SIZE) && offset < IMAGE_SIZE);
        self.in_flight.push(Write {
            token,
            offset,
            sector,
            fails: false,
        });
    }

    /// The write that was started last will fail.
    pub(crate) fn fail_last(&mut self) {
        self.in_flight.last_mut().expect("it was started").fails = true;
    }

    /// Nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// One bit of what a copy says turns over.
    pub(crate) fn rot(&mut self, copy: usize, random: &mut Random) {
        let at = copy * SECTOR_SIZE + random.index(SECTOR_SIZE);
        self.image[at] ^= 1 << random.below(8);
    }

    /// Completes the oldest write with this token.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn complete(&mut self, token: u64) -> io::Result<usize> {
        let index = self.in_flight.iter().position(|write| write.token == token);
        let write = self.in_flight.remove(index.expect("it was started"));
        if write.fails {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.image[write.offset..][..SECTOR_SIZE].copy_from_slice(&*write.sector);
        Ok(SECTOR_SIZE)
    }

    /// Completes every write.
    pub(crate) fn finish(&mut self) {
        while let Some(token) = self.in_flight.first().map(|write| write.token) {
            // One that fails tells nobody any more.
            let _ = self.complete(token);
        }
    }

    /// The power goes.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        for write in self.in_flight.drain(..) {
            let atoms = write.sector.as_chunks::<ATOM_SIZE>().0;
            for (atom, index) in atoms.iter().zip(0..) {
                if random.chance(MILLION / 2) {
                    let at = write.offset + index * ATOM_SIZE;
                    self.image[at..][..ATOM_SIZE].copy_from_slice(atom);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::random::Stream;
    use super::*;

    fn sector(byte: u8) -> Box<[u8; SECTOR_SIZE]> {
        Box::new([byte; SECTOR_SIZE])
    }

    #[test]
    fn completed_writes_survive_and_others_tear() {
        let mut disk = SuperblockDisk::new(vec![0; IMAGE_SIZE]);
        disk.start(1, 0, sector(1));
        disk.complete(1).unwrap();
        disk.start(2, 4096, sector(2));
        disk.start(3, 0, sector(3));
        disk.crash(&mut Random::new(5, Stream::Disks, 0));
        assert!(disk.in_flight.is_empty());
        let (first, rest) = disk.image().split_at(SECTOR_SIZE);
        assert!(first.contains(&1) && first.contains(&3) && !first.contains(&0));
        let (second, others) = rest.split_at(SECTOR_SIZE);
        assert!(second.contains(&0) && second.contains(&2));
        assert!(others.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let mut disk = SuperblockDisk::new(vec![0; IMAGE_SIZE]);
        disk.start(1, 0, sector(1));
        disk.fail_last();
        assert!(disk.complete(1).is_err());
        assert!(disk.is_quiet() && disk.image().iter().all(|byte| *byte == 0));
    }
}
