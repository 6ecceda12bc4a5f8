//! The superblock's disk: four sectors in memory, and writes that a crash may tear.
//!
//! ```text
//!   start ──► in flight ──► complete: the sector is on the disk, whole
//!                  │
//!                crash: each 512 bytes of it are on the disk, or are not
//! ```
//!
//! A write that completed is never lost. One that was in flight leaves any mixture of old and new,
//! in pieces of 512 bytes, which is worse than what drives with 4096-byte sectors do.

use super::random::{MILLION, Random};
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
        });
    }

    /// Completes the oldest write with this token.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn complete(&mut self, token: u64) {
        let index = self.in_flight.iter().position(|write| write.token == token);
        let write = self.in_flight.remove(index.expect("it was started"));
        self.image[write.offset..][..SECTOR_SIZE].copy_from_slice(&*write.sector);
    }

    /// Completes every write.
    pub(crate) fn finish(&mut self) {
        while let Some(token) = self.in_flight.first().map(|write| write.token) {
            self.complete(token);
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
    use super::super::random::Stream;
    use super::*;

    fn sector(byte: u8) -> Box<[u8; SECTOR_SIZE]> {
        Box::new([byte; SECTOR_SIZE])
    }

    #[test]
    fn completed_writes_survive_and_others_tear() {
        let mut disk = SuperblockDisk::new(vec![0; IMAGE_SIZE]);
        disk.start(1, 0, sector(1));
        disk.complete(1);
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
}
