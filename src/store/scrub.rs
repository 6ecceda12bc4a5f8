//! The scrub: reads what lies on the disk, block by block, before anybody needs it.
//!
//! A file is written once and may not be read for months; a disk that has lost a part of it meanwhile says
//! nothing. One step verifies one block, so that whoever calls it decides the pace. A round goes over all
//! files of one checkpoint, in order of their names; the next one begins with the checkpoint that is in
//! force then. Files that a round expected and a newer checkpoint has given up are passed over.

use std::collections::VecDeque;
use std::io;

use super::checkpoint::{Manifest, ManifestRef};
use super::damage::Damage;
use super::error::StoreError;
use super::sealed::{BLOCK_SIZE, FileEntry, SealedFile};
use super::storage::Storage;

/// What one step has found.
#[derive(Debug)]
pub enum ScrubStep {
    /// A block, or a footer, is what was written.
    Sound,
    /// So is everything, as far as this round has read it.
    Round { files: u64, bytes: u64 },
    /// This file is not what was written.
    Damaged(Damage),
    /// This file is not there: lost, if `of` is still the checkpoint in force when this is heard; otherwise
    /// a newer one may have given it up while the step was on its way.
    Gone { of: ManifestRef, damage: Damage },
}

/// A file in the middle of its verification.
struct Open {
    entry: FileEntry,
    file: SealedFile,
    next: usize,
}

/// See the module.
#[derive(Default)]
pub struct Scrubber {
    /// The checkpoint of this round.
    of: Option<ManifestRef>,
    files: VecDeque<FileEntry>,
    open: Option<Open>,
    read_files: u64,
    read_bytes: u64,
}

impl Scrubber {
    /// Verifies the next block of the checkpoint in force. Blocking: one read.
    pub fn step(&mut self, storage: &dyn Storage, in_force: &ManifestRef) -> ScrubStep {
        if let Some(mut open) = self.open.take() {
            let entry = open.entry;
            if let Err(error) = open.file.verify_block(storage, open.next) {
                return self.judge(entry, error, in_force);
            }
            let offset = open.next as u64 * BLOCK_SIZE as u64;
            self.read_bytes += (entry.data_size - offset).min(BLOCK_SIZE as u64);
            open.next += 1;
            return self.go_on(open);
        }
        if let Some(entry) = self.files.pop_front() {
            return match SealedFile::open(storage, entry) {
                Ok(file) => self.go_on(Open {
                    entry,
                    file,
                    next: 0,
                }),
                Err(error) => self.judge(entry, error, in_force),
            };
        }
        if self.of.take().is_some() {
            return ScrubStep::Round {
                files: std::mem::take(&mut self.read_files),
                bytes: std::mem::take(&mut self.read_bytes),
            };
        }
        // The manifest itself is read whole: it is small, and names all others.
        match Manifest::open(storage, in_force) {
            Ok(manifest) => {
                self.of = Some(*in_force);
                self.files = manifest.files.into();
                ScrubStep::Sound
            }
            Err(error) => self.judge(in_force.entry(), error, in_force),
        }
    }

    fn go_on(&mut self, open: Open) -> ScrubStep {
        if open.next < open.file.blocks() {
            self.open = Some(open);
        } else {
            self.read_files += 1;
        }
        ScrubStep::Sound
    }

    fn judge(&self, entry: FileEntry, error: StoreError, in_force: &ManifestRef) -> ScrubStep {
        let gone = matches!(&error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        match self.of {
            Some(of) if gone && of != *in_force => ScrubStep::Sound,
            _ if gone => ScrubStep::Gone {
                of: *in_force,
                damage: Damage::new(entry, &error),
            },
            _ => ScrubStep::Damaged(Damage::new(entry, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        FileKind, FileName, MemoryStorage, SealedWriter, Snapshot, sweep, write_checkpoint,
    };
    use super::*;

    /// Three files of some blocks.
    struct Three;

    impl Snapshot for Three {
        fn size(&self) -> u64 {
            3
        }

        fn write(&mut self, storage: &mut dyn Storage) -> Result<Vec<FileEntry>, StoreError> {
            let names = [
                FileName::new(FileKind::Ledger, 7),
                FileName::new(FileKind::Transfers, 0),
                FileName::new(FileKind::Transfers, 1),
            ];
            let mut files = Vec::new();
            for name in names {
                let mut writer = SealedWriter::create(storage, name)?;
                writer.section(1)?;
                writer.write(&vec![
                    name.number.to_le_bytes()[0] + 1;
                    2 * BLOCK_SIZE + 5000
                ])?;
                files.push(writer.finish()?);
            }
            Ok(files)
        }

        fn discard(&mut self) {}
    }

    /// Steps until a round is over.
    fn round(scrubber: &mut Scrubber, storage: &MemoryStorage, of: &ManifestRef) -> ScrubStep {
        for _ in 0..100 {
            let step = scrubber.step(storage, of);
            if !matches!(step, ScrubStep::Sound) {
                return step;
            }
        }
        panic!("a round ends");
    }

    #[test]
    fn a_round_reads_everything_and_so_does_the_next() {
        let mut storage = MemoryStorage::default();
        let of = write_checkpoint(&mut storage, 7, &mut Three, b"sessions").unwrap();
        let mut scrubber = Scrubber::default();
        for _ in 0..3 {
            let ScrubStep::Round { files, bytes } = round(&mut scrubber, &storage, &of) else {
                panic!("nothing is damaged");
            };
            assert_eq!(files, 4);
            assert!(bytes > 6 * BLOCK_SIZE as u64);
        }
    }

    #[test]
    fn damage_anywhere_is_found_and_the_round_goes_on() {
        let mut storage = MemoryStorage::default();
        let of = write_checkpoint(&mut storage, 7, &mut Three, b"sessions").unwrap();
        let whole = storage.list().unwrap();
        for (name, size) in whole {
            for offset in [0, size / 2, size - 4096] {
                let mut storage = storage.copy();
                storage.damage(name, usize::try_from(offset).unwrap());
                let mut scrubber = Scrubber::default();
                let ScrubStep::Damaged(damage) = round(&mut scrubber, &storage, &of) else {
                    panic!("{name} is damaged at {offset}");
                };
                assert!(damage.entry.name == name && damage.what.contains("is damaged at"));
                if name.kind != FileKind::Manifest {
                    let over = round(&mut scrubber, &storage, &of);
                    assert!(matches!(over, ScrubStep::Round { files: 3, .. }));
                }
                storage.remove(name).unwrap();
                let mut scrubber = Scrubber::default();
                let step = round(&mut scrubber, &storage, &of);
                assert!(matches!(step, ScrubStep::Gone { of: o, .. } if o == of));
            }
        }
    }

    #[test]
    fn files_of_a_former_checkpoint_may_go() {
        let mut storage = MemoryStorage::default();
        let of = write_checkpoint(&mut storage, 7, &mut Three, b"sessions").unwrap();
        let mut scrubber = Scrubber::default();
        assert!(matches!(scrubber.step(&storage, &of), ScrubStep::Sound));
        let next = write_checkpoint(&mut storage, 8, &mut Three, b"sessions").unwrap();
        sweep(&mut storage, &[next]).unwrap();
        let over = round(&mut scrubber, &storage, &next);
        assert!(
            matches!(over, ScrubStep::Round { files: 3, .. }),
            "{over:?}"
        );
    }
}
