//! What can go wrong between the store and its files.
//!
//! Two kinds, treated differently: the environment fails (an I/O error: stop, fix it, start again),
//! or the disk lies (damage: fetch the file from another replica). Both name the file.

use std::io;

use super::storage::FileName;

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

    pub fn damaged(file: FileName, offset: u64, what: &'static str) -> Self {
        Self::Damaged { file, offset, what }
    }
}
