//! An image on a disk, as `stampede backup` has made it.
//!
//! ```text
//!   superblock      what the replica's said
//!   checkpoints/    its files
//!   log-<op>        the prepares after it: for each its length (8 bytes), its bytes, zeros to 8
//! ```
//!
//! What is read is verified: entries by themselves, and as a chain from the checkpoint on when they are executed.

use std::fmt::Display;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Failure;
use super::backup::log_name;
use super::inspect::source::Checkpoints;
use crate::machine::ledger::Ledger;
use crate::message::Op;
use crate::replica::image::{Replay, verify};
use crate::replica::superblock::State;
use crate::store::Damage;

/// An image, opened.
pub(super) struct Image {
    path: PathBuf,
    pub(super) state: State,
}

/// The log behind the checkpoint.
pub(super) struct ImageLog {
    pub(super) path: PathBuf,
    bytes: Vec<u8>,
    /// In order of the operations: where their prepares lie.
    entries: Vec<(Op, Range<usize>)>,
}

impl ImageLog {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn wrong(&self, what: &dyn Display) -> Failure {
        Failure::new(format!(
            "{}: {what}: take another image",
            self.path.display()
        ))
    }
}

impl Image {
    /// Whether a directory is an image rather than that of a replica.
    pub(super) fn is_at(path: &Path) -> bool {
        let has = |name: &str| path.join(name).exists();
        has("superblock") && !has("journal") && !has("lock")
    }

    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let superblock = path.join("superblock");
        let bytes = fs::read(&superblock).map_err(|error| {
            Failure::new(format!(
                "cannot read {}: {error}; name a directory that `stampede backup` has made",
                superblock.display()
            ))
        })?;
        let state = State::decode_file(&bytes)
            .map_err(|error| Failure::new(format!("{}: {error}", superblock.display())))?;
        if path.join("journal").exists() {
            return Err(Failure::usage(format!(
                "{} is the directory of a replica: `stampede backup` makes an image of it",
                path.display()
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            state,
        })
    }

    pub(super) fn checkpoints(&self) -> Checkpoints {
        Checkpoints::at(self.path.join("checkpoints"))
    }

    /// Reads the log, and verifies each entry by itself.
    pub(super) fn log(&self) -> Result<ImageLog, Failure> {
        let path = self.path.join(log_name(self.state.checkpoint_op));
        let mut log = ImageLog {
            path,
            bytes: Vec::new(),
            entries: Vec::new(),
        };
        log.bytes = match fs::read(&log.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(log),
            Err(error) => {
                let path = log.path.display();
                return Err(Failure::new(format!("cannot read {path}: {error}")));
            }
        };
        // Entries lie in the order in which the journal held them; a restored one comes late.
        let mut at = 0;
        while let Some((size, behind)) = log.bytes[at..].split_first_chunk::<8>() {
            let size = usize::try_from(u64::from_le_bytes(*size)).unwrap_or(usize::MAX);
            let payload = behind
                .get(..size)
                .ok_or_else(|| log.wrong(&"it is cut off"))?;
            let before = self.state.checkpoint_op + log.entries.len() as u64;
            let header = verify(payload, before).map_err(|error| log.wrong(&error))?;
            log.entries.push((header.op, at + 8..at + 8 + size));
            at += 8 + size.next_multiple_of(8).min(behind.len());
        }
        log.entries.sort_unstable_by_key(|(op, _)| *op);
        Ok(log)
    }

    /// Executes the log on a ledger as of the checkpoint.
    pub(super) fn replay(&self, ledger: Ledger) -> Result<Replay<Ledger>, Failure> {
        let log = self.log()?;
        let mut replay = Replay::new(&self.state, ledger);
        let mut execute = || {
            let mut payloads = log
                .entries
                .iter()
                .map(|(_, place)| &log.bytes[place.clone()]);
            payloads.try_for_each(|payload| replay.apply(payload))
        };
        match Damage::catch(&mut execute) {
            Ok(result) => result.map_err(|error| log.wrong(&error))?,
            Err(damage) => return Err(Failure::new(format!("{damage}: take another image"))),
        }
        Ok(replay)
    }
}
