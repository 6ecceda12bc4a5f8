//! What can go wrong between the store and its files.
//!
//! Four kinds, treated differently: the disk is full (wait for room), the environment fails otherwise
//! (an I/O error: stop, fix it, start again), the disk lies (damage: fetch the file from another
//! replica), or another release wrote it (use that one). All name the file.

use std::io;

use super::storage::{FileName, is_full};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {action} checkpoint file {file}: {source}")]
    Io {
        action: &'static str,
        file: FileName,
        source: io::Error,
    },
    #[error(
        "checkpoint file {file} is damaged at offset {offset}: {what}; \
         restore it from another replica"
    )]
    Damaged {
        file: FileName,
        offset: u64,
        what: &'static str,
    },
    #[error(
        "checkpoint file {file} has format version {found}, and this release reads version {known}: \
         start the replica with the release that wrote it"
    )]
    Version {
        file: FileName,
        found: u32,
        known: u32,
    },
    #[error("cannot list the checkpoint files: {0}")]
    List(io::Error),
}

impl StoreError {
    pub fn io(action: &'static str, file: FileName, source: io::Error) -> Self {
        Self::Io {
            action,
            file,
            source,
        }
    }

    /// The disk has no room: nothing is wrong with it.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source),
            Self::Damaged { .. } | Self::Version { .. } | Self::List(_) => false,
        }
    }

    /// Whether the file is not, or not any more, what was written: another copy of it would do. (A
    /// sector that cannot be read is damage like any other.)
    pub fn is_damage(&self) -> bool {
        const EIO: i32 = 5;
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) || source.raw_os_error() == Some(EIO)
            }
            Self::Version { .. } | Self::List(_) => false,
        }
    }

    pub fn damaged(file: FileName, offset: u64, what: &'static str) -> Self {
        Self::Damaged { file, offset, what }
    }
}
