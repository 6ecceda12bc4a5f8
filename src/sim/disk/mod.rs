//! What a machine keeps when its power goes: journal, superblock, checkpoint files. And all that a
//! disk may do to them.
//!
//! | file | holds |
//! | --- | --- |
//! | `journal` | segments in memory, and which entry lies where |
//! | `superblock` | four sectors, and writes that a crash may tear |
//!
//! Checkpoint files are the store's own storage in memory. What may be damaged, and how much of it, is
//! the `atlas`'s to say; these files only know how.

mod journal;
mod superblock;

pub(crate) use journal::{Frame, JournalDisk};
pub(crate) use superblock::SuperblockDisk;

use crate::store::MemoryStorage;

/// A copy of all that a disk holds, made while the machine was off.
#[derive(Debug)]
pub(crate) struct DiskCopy {
    pub journal: JournalDisk,
    pub superblock: SuperblockDisk,
    pub storage: MemoryStorage,
}
