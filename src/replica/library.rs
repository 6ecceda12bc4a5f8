//! The librarians: everything that has to do with checkpoint files and would make the replica's thread
//! wait, but the writing of its own checkpoints, which is the builder's.
//!
//! ```text
//!   replica ──Read──► librarian: reads a stretch into a message, sealed ──Read──► replica, to a peer
//!           ──Check─► is this file here, every byte of it?              ──Checked
//!           ──Write─► the next piece of a file: verified, then written  ──Written
//!           ──List──► which files does this manifest name?              ──Listed
//!           ──Sync──► the names of files, durable                       ──Synced
//!           ──Scrub─► the next block of the checkpoint in force         ──Scrubbed
//! ```
//!
//! Each does one task after the other, in the order given, each with one answer. What other replicas send is
//! written by several, because who writes a file waits for the disk most of the time: all pieces of a file by the
//! same one, two files perhaps at once. Everything else is the first one's. They run on threads of their own in
//! production and in place in the simulator.

use std::fmt;

use crate::message::{Message, MessageMut};
use crate::protocol::ReplicaIndex;
use crate::store::{
    Copier, FileEntry, FileName, Manifest, ManifestRef, ScrubStep, Scrubber, SealedFile, Storage,
    StoreError,
};

/// The first librarian, and those who write.
pub const LIBRARIANS: usize = 1 + WRITERS;

const WRITERS: usize = 3;

/// Bytes of their memory, at most.
pub const LIBRARY_MEMORY: u64 = WRITERS as u64 * Copier::MEMORY;

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub name: FileName,
    pub offset: u64,
    /// At most a block.
    pub size: usize,
}

/// Work for the librarian. `plan` comes back with the answer.
#[derive(Debug)]
pub enum LibraryTask {
    /// Read into the body of `message`, whose header lacks only size and seal.
    Read {
        to: ReplicaIndex,
        stretch: Stretch,
        message: MessageMut,
    },
    Check {
        plan: u32,
        entry: FileEntry,
    },
    /// A piece of a file, the first to the last in order.
    Write {
        plan: u32,
        entry: FileEntry,
        piece: u64,
        message: Message,
    },
    /// `own` is the checkpoint in force here.
    List {
        plan: u32,
        manifest: ManifestRef,
        own: Option<ManifestRef>,
    },
    Sync {
        plan: u32,
    },
    /// Verify the next block of what is in force.
    Scrub {
        in_force: ManifestRef,
    },
}

impl LibraryTask {
    /// Which of the librarians does it.
    pub fn librarian(&self) -> usize {
        match self {
            // Files of one kind that follow one another are written by one after the other.
            Self::Write { entry, .. } => {
                let number = usize::try_from(entry.name.number % WRITERS as u64);
                1 + number.expect("a small number")
            }
            Self::Read { .. }
            | Self::Check { .. }
            | Self::List { .. }
            | Self::Sync { .. }
            | Self::Scrub { .. } => 0,
        }
    }
}

/// What a manifest lists.
#[derive(Debug)]
pub struct Listing {
    /// Ascending by name.
    pub files: Vec<FileEntry>,
    /// Those of them that the checkpoint in force lists, too, and that are here as far as their footers
    /// tell: whoever runs with them need not read every byte of them again.
    pub own: Vec<FileEntry>,
}

/// What came of a task.
#[derive(Debug)]
pub enum LibraryDone {
    /// To be sent. The body is empty if the stretch could not be read.
    Read {
        to: ReplicaIndex,
        message: Message,
    },
    Checked {
        plan: u32,
        entry: FileEntry,
        whole: bool,
    },
    Written {
        plan: u32,
        entry: FileEntry,
        piece: u64,
        result: Result<(), StoreError>,
    },
    Listed {
        plan: u32,
        result: Result<Listing, StoreError>,
    },
    Synced {
        plan: u32,
        result: Result<(), StoreError>,
    },
    Scrubbed(ScrubStep),
}

impl LibraryDone {
    /// Of the fetcher's, so that it knows answers that come late; `None` for the others'.
    pub fn plan(&self) -> Option<u32> {
        match self {
            Self::Read { .. } | Self::Scrubbed(_) => None,
            Self::Checked { plan, .. }
            | Self::Written { plan, .. }
            | Self::Listed { plan, .. }
            | Self::Synced { plan, .. } => Some(*plan),
        }
    }
}

/// See the module.
pub struct Librarian {
    storage: Box<dyn Storage>,
    copier: Copier,
    scrubber: Scrubber,
}

impl fmt::Debug for Librarian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "librarian, {:?}", self.copier)
    }
}

impl Librarian {
    /// The storage must not use the same names for unfinished files as the builder's: both may be
    /// writing the same file.
    pub fn new(storage: Box<dyn Storage>) -> Self {
        Self {
            storage,
            copier: Copier::default(),
            scrubber: Scrubber::default(),
        }
    }

    /// Runs one task. Blocking.
    pub fn run(&mut self, task: LibraryTask) -> LibraryDone {
        match task {
            LibraryTask::Read {
                to,
                stretch,
                message,
            } => self.read(to, stretch, message),
            LibraryTask::Check { plan, entry } => LibraryDone::Checked {
                plan,
                entry,
                whole: self.is_whole(entry),
            },
            LibraryTask::Write {
                plan,
                entry,
                piece,
                message,
            } => LibraryDone::Written {
                plan,
                entry,
                piece,
                result: self
                    .copier
                    .take(&mut *self.storage, entry, piece, message.body()),
            },
            LibraryTask::List {
                plan,
                manifest,
                own,
            } => LibraryDone::Listed {
                plan,
                result: self.list(&manifest, own),
            },
            LibraryTask::Sync { plan } => {
                let manifest = FileName::new(crate::store::FileKind::Manifest, 0);
                let result = self.storage.sync();
                LibraryDone::Synced {
                    plan,
                    result: result.map_err(|e| StoreError::io("sync the names with", manifest, e)),
                }
            }
            LibraryTask::Scrub { in_force } => {
                LibraryDone::Scrubbed(self.scrubber.step(&*self.storage, &in_force))
            }
        }
    }

    fn read(&self, to: ReplicaIndex, stretch: Stretch, mut message: MessageMut) -> LibraryDone {
        let Stretch { name, offset, size } = stretch;
        let body = message.body_mut_of_size(size);
        let size = match self.storage.read(name, offset, body) {
            Ok(()) => size,
            Err(_) => 0,
        };
        message.set_body_size(size);
        let (_, body) = message.parts_mut(size);
        let checksum_body = crate::message::checksum(body);
        let header = message.header_mut();
        header.checksum_body = checksum_body;
        header.seal_header();
        LibraryDone::Read {
            to,
            message: message.freeze(),
        }
    }

    fn list(
        &self,
        manifest: &ManifestRef,
        own: Option<ManifestRef>,
    ) -> Result<Listing, StoreError> {
        let files = Manifest::open(&*self.storage, manifest)?.files;
        let own = own.and_then(|own| Manifest::open(&*self.storage, &own).ok());
        let mut own = own.map_or_else(Vec::new, |own| own.files);
        own.retain(|entry| {
            files
                .binary_search_by_key(&entry.name, |file| file.name)
                .is_ok_and(|at| {
                    files[at] == *entry && SealedFile::open(&*self.storage, *entry).is_ok()
                })
        });
        Ok(Listing { files, own })
    }

    fn is_whole(&self, entry: FileEntry) -> bool {
        entry.is_plausible()
            && SealedFile::open(&*self.storage, entry)
                .and_then(|mut file| file.verify(&*self.storage))
                .is_ok()
    }
}
