//! The superblock's disk: four sectors in memory, and writes that a crash may tear.
//!
//! ```text
//!   start ──► in flight ──► complete: the sector is on the disk, whole
//!                  │
//!                crash: each 512 bytes of it are on the disk, or are not
//! ```
//!
//! A write may also fail, and then nothing of it is there, or all of it (the sync failed); a copy may
//! rot. A write that completed is never lost. One that was in flight leaves any mixture of old and new,
//! in pieces of 512 bytes, which is worse than what drives with 4096-byte sectors do; or it has spoiled
//! the whole sector, as drives do that lose power without a reserve.

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
    fate: Fate,
}

/// How a write ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    /// It fails, and is not there.
    Fails,
    /// It fails, and is there.
    Unsynced,
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
            fate: Fate::Well,
        });
    }

    /// The write that was started last will fail.
    pub(crate) fn fail_last(&mut self) {
        self.set_fate_of_last(Fate::Fails);
    }

    /// The same, but it will be there.
    pub(crate) fn fail_last_sync(&mut self) {
        self.set_fate_of_last(Fate::Unsynced);
    }

    fn set_fate_of_last(&mut self, fate: Fate) {
        self.in_flight.last_mut().expect("it was started").fate = fate;
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
        if write.fate != Fate::Fails {
            self.image[write.offset..][..SECTOR_SIZE].copy_from_slice(&*write.sector);
        }
        match write.fate {
            Fate::Well => Ok(SECTOR_SIZE),
            Fate::Fails | Fate::Unsynced => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    /// Completes every write.
    pub(crate) fn finish(&mut self) {
        while let Some(token) = self.in_flight.first().map(|write| write.token) {
            // One that fails tells nobody any more.
            let _ = self.complete(token);
        }
    }

    /// The power goes. So many parts per million of the writes in flight spoil their sectors.
    pub(crate) fn crash(&mut self, random: &mut Random, spoiled: u32) {
        for write in self.in_flight.drain(..) {
            if spoiled > 0 && random.chance(spoiled) {
                for word in self.image[write.offset..][..SECTOR_SIZE].as_chunks_mut().0 {
                    *word = random.next().to_le_bytes();
                }
                continue;
            }
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
        disk.crash(&mut Random::new(5, Stream::Disks, 0), 0);
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
        disk.start(2, 0, sector(1));
        disk.fail_last_sync();
        assert!(disk.complete(2).is_err());
        assert!(disk.image()[..SECTOR_SIZE].iter().all(|byte| *byte == 1));
    }

    #[test]
    fn a_crash_may_spoil_the_sector_and_no_other() {
        let mut disk = SuperblockDisk::new(vec![0; IMAGE_SIZE]);
        disk.start(1, 4096, sector(2));
        disk.crash(&mut Random::new(5, Stream::Disks, 0), MILLION);
        let spoiled = &disk.image()[SECTOR_SIZE..2 * SECTOR_SIZE];
        assert!(
            spoiled
                .chunks(512)
                .all(|atom| atom != [0; 512] && atom != [2; 512])
        );
        let others = [
            &disk.image()[..SECTOR_SIZE],
            &disk.image()[2 * SECTOR_SIZE..],
        ];
        assert!(others.iter().all(|o| o.iter().all(|byte| *byte == 0)));
    }
}
