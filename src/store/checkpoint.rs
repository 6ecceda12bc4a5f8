//! Checkpoints: from a snapshot to durable files and back.
//!
//! ```text
//!   executor             builder                                     replica
//!   snapshot(op) ──────► Snapshot::write: new files, synced
//!                        sessions file, synced
//!                        manifest file, synced ──── ManifestRef ───► superblock
//!   published(op) ◄───────────────────────────────────────────────── referenced
//!                        sweep: files that no manifest lists are removed
//! ```
//!
//! A crash before the superblock is written leaves the former checkpoint whole, and files that the
//! next checkpoint writes again, with the same bytes. The [`ManifestRef`] is what the superblock
//! keeps: from it every byte of a checkpoint can be verified.

use xxhash_rust::xxh3::xxh3_128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::error::StoreError;
use super::sealed::{FileEntry, PackedEntry, SealedFile, SealedWriter};
use super::storage::{FileKind, FileName, Storage};
use crate::mutant::Mutant;

/// The state of a machine at one operation, to be written by another thread.
pub trait Snapshot: Send {
    /// About how many bytes will be written: what progress is measured against.
    fn size(&self) -> u64;

    /// Writes the files that are not there yet; gives all files that make up the state. Their names
    /// need not be durable yet. After an error, and after [`Snapshot::discard`], it may be called again,
    /// and writes all of them anew.
    fn write(&mut self, storage: &mut dyn Storage) -> Result<Vec<FileEntry>, StoreError>;

    /// The files that it has written are about to be removed: nobody may go on referring to them.
    fn discard(&mut self);
}

/// Identifies a checkpoint, and with it every byte of its files.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ManifestRef {
    pub checksum: u128,
    pub op: u64,
    pub size: u64,
    pub data_size: u64,
    /// Zero.
    pub reserved: u64,
}

const _: () = assert!(size_of::<ManifestRef>() == 48);

impl ManifestRef {
    /// The manifest's file.
    pub fn entry(&self) -> FileEntry {
        let name = FileName::new(FileKind::Manifest, self.op);
        FileEntry {
            name,
            size: self.size,
            data_size: self.data_size,
            checksum: self.checksum,
        }
    }
}

/// The files of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub op: u64,
    /// Ascending by name, without the manifest itself.
    pub files: Vec<FileEntry>,
}

const SECTION_FILES: u32 = 1;
const SECTION_SESSIONS: u32 = 1;

impl Manifest {
    /// Writes the manifest; what it lists is durable already.
    fn write(&self, storage: &mut dyn Storage) -> Result<ManifestRef, StoreError> {
        assert!(
            self.files.is_sorted_by(|a, b| a.name < b.name),
            "every file once, in order"
        );
        let entries: Vec<PackedEntry> = self.files.iter().copied().map(PackedEntry::from).collect();
        let mut file = SealedWriter::create(storage, FileName::new(FileKind::Manifest, self.op))?;
        file.section(SECTION_FILES)?;
        file.write(entries.as_bytes())?;
        let FileEntry {
            name: _,
            size,
            data_size,
            checksum,
        } = file.finish()?;
        Ok(ManifestRef {
            checksum,
            op: self.op,
            size,
            data_size,
            reserved: 0,
        })
    }

    /// Reads and verifies the manifest.
    pub fn open(storage: &dyn Storage, reference: &ManifestRef) -> Result<Self, StoreError> {
        let mut file = SealedFile::open(storage, reference.entry())?;
        let entries = file.read_rows::<PackedEntry>(storage, SECTION_FILES)?;
        let files: Option<Vec<FileEntry>> = entries.into_iter().map(PackedEntry::unpack).collect();
        let files = files.ok_or_else(|| file.damaged(0, "a kind of file is not known"))?;
        Ok(Self {
            op: reference.op,
            files,
        })
    }

    pub fn file(&self, kind: FileKind) -> impl Iterator<Item = FileEntry> {
        self.files
            .iter()
            .copied()
            .filter(move |entry| entry.name.kind == kind)
    }

    /// The replica's own part: what was given to [`write_checkpoint`].
    pub fn sessions(&self, storage: &dyn Storage) -> Result<Vec<u8>, StoreError> {
        let name = FileName::new(FileKind::Sessions, self.op);
        let missing = || StoreError::damaged(name, 0, "the manifest does not list it");
        let entry = self.file(FileKind::Sessions).next().ok_or_else(missing)?;
        SealedFile::open(storage, entry)?.read_rows::<u8>(storage, SECTION_SESSIONS)
    }

    /// Verifies every block of every file: the scrub. Slow.
    pub fn verify(&self, storage: &dyn Storage) -> Result<(), StoreError> {
        let mut files = self.files.iter();
        files.try_for_each(|entry| SealedFile::open(storage, *entry)?.verify(storage))
    }

    /// A digest of all files: equal on every replica that made this checkpoint.
    pub fn digest(&self) -> u128 {
        let entries: Vec<PackedEntry> = self.files.iter().copied().map(PackedEntry::from).collect();
        xxh3_128(entries.as_bytes())
    }
}

/// Writes a checkpoint: the machine's files, the replica's sessions, the manifest. Blocking. Once
/// it returns, all of it is durable and nothing refers to it yet. After an error it may be tried again.
pub fn write_checkpoint(
    storage: &mut dyn Storage,
    op: u64,
    snapshot: &mut dyn Snapshot,
    sessions: &[u8],
) -> Result<ManifestRef, StoreError> {
    let sync = |storage: &mut dyn Storage| {
        let name = FileName::new(FileKind::Manifest, op);
        storage
            .sync()
            .map_err(|error| StoreError::io("sync the names up to", name, error))
    };
    let mut files = snapshot.write(storage)?;
    let mut file = SealedWriter::create(storage, FileName::new(FileKind::Sessions, op))?;
    file.section(SECTION_SESSIONS)?;
    file.write(sessions)?;
    files.push(file.finish()?);
    files.sort_unstable_by_key(|entry| entry.name);
    // What a manifest lists is there, whenever the manifest is.
    sync(storage)?;
    let reference = Manifest { op, files }.write(storage)?;
    if !Mutant::CheckpointNotSynced.is_on() {
        sync(storage)?;
    }
    Ok(reference)
}

/// Removes every file that none of these checkpoints needs; gives the number removed. For after the
/// superblock refers to a new checkpoint.
pub fn sweep(storage: &mut dyn Storage, keep: &[ManifestRef]) -> Result<usize, StoreError> {
    let mut needed = Vec::new();
    for reference in keep {
        needed.push(reference.entry().name);
        needed.extend(
            Manifest::open(storage, reference)?
                .files
                .iter()
                .map(|entry| entry.name),
        );
    }
    needed.sort_unstable();
    let mut removed = 0;
    for (name, _) in storage.list().map_err(StoreError::List)? {
        if needed.binary_search(&name).is_err() {
            storage
                .remove(name)
                .map_err(|error| StoreError::io("remove", name, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}
