//! `stampede restore`: the data directory of a replica of a new cluster, from an image.
//!
//! The image's checkpoint is restored, the log after it executed, and what comes out of that is the first
//! checkpoint of the new replica. All replicas of the new cluster are made from the same image, and agree
//! then on what their log goes on from; one that is made otherwise is refused by the others. Clients begin
//! new sessions: the image's belong to the cluster that it was taken from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::backup::{copy, log_name};
use super::inspect::source::Checkpoints;
use super::{Failure, format, say};
use crate::machine::Machine;
use crate::machine::ledger::Ledger;
use crate::replica::image::{Replay, verify};
use crate::replica::open::session_limits;
use crate::replica::superblock::State;
use crate::runtime::directory::DataDirectory;
use crate::runtime::storage::DirectoryStorage;
use crate::store::{Manifest, Storage, write_checkpoint};
use crate::vsr::sessions::Sessions;

#[derive(Debug, Args)]
#[group(id = "restore")]
pub(super) struct Arguments {
    /// Image to begin with, made by `stampede backup`
    #[arg(long, value_name = "IMAGE")]
    from: PathBuf,
    #[command(flatten)]
    format: format::Arguments,
}

pub(super) fn check(arguments: &Arguments) -> Result<(), Failure> {
    format::check(&arguments.format).map(drop)
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    check(arguments)?;
    let image = Image::open(&arguments.from)?;
    let mut end = 0;
    format::make_with(&arguments.format, false, ("restored", ""), |state, data| {
        end = image
            .restore(state, data)
            .map_err(|failure| failure.message)?;
        Ok(())
    })?;
    say(&format!(
        "it begins as of op {end} of cluster {}; make the other replicas of the new cluster from the same image\n",
        image.state.cluster
    ))
}

/// An image, opened.
struct Image {
    path: PathBuf,
    state: State,
}

impl Image {
    fn open(path: &Path) -> Result<Self, Failure> {
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

    /// Writes the new replica's first checkpoint; gives the operation that it is as of.
    fn restore(&self, state: &mut State, data: &DataDirectory) -> Result<u64, Failure> {
        let from = Checkpoints::at(self.path.join("checkpoints"));
        let path = data.checkpoints();
        let mut storage = DirectoryStorage::open(&path)
            .map_err(|error| Failure::new(format!("cannot open {}: {error}", path.display())))?;
        let mut ledger = Ledger::default();
        if let Some(reference) = self.state.manifest() {
            let manifest = Manifest::open(&from, &reference).map_err(Failure::new)?;
            // All of it is verified on its way; files of full chunks stay, the others are written anew.
            for entry in &manifest.files {
                copy(&from, &mut storage, *entry).map_err(Failure::new)?;
            }
            ledger = Ledger::default()
                .restore(&storage, &manifest.files)
                .map_err(Failure::new)?;
        }
        let mut replay = Replay::new(&self.state, ledger);
        self.replay(&mut replay)?;
        if replay.op == 0 {
            return Ok(0);
        }
        let mut snapshot = replay.machine.whole_snapshot(replay.op);
        let sessions = Sessions::new(session_limits(state)).encode();
        let manifest = write_checkpoint(&mut storage, replay.op, &mut *snapshot, &sessions)
            .map_err(Failure::new)?;
        crate::store::sweep(&mut storage, &[manifest]).map_err(Failure::new)?;
        storage
            .sync()
            .map_err(|error| Failure::new(format!("cannot sync {}: {error}", path.display())))?;
        state.begin_with(replay.op, replay.timestamp, manifest);
        Ok(replay.op)
    }

    fn replay(&self, replay: &mut Replay<Ledger>) -> Result<(), Failure> {
        let path = self.path.join(log_name(self.state.checkpoint_op));
        let log = match fs::read(&path) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(Failure::new(format!(
                    "cannot read {}: {error}",
                    path.display()
                )));
            }
        };
        let wrong = |what: &dyn std::fmt::Display| {
            Failure::new(format!("{}: {what}: take another image", path.display()))
        };
        // Entries lie in the order in which the journal held them; a restored one comes late.
        let mut entries = Vec::new();
        let mut rest = &log[..];
        while let Some((size, behind)) = rest.split_first_chunk::<8>() {
            let size = usize::try_from(u64::from_le_bytes(*size)).unwrap_or(usize::MAX);
            let payload = behind.get(..size).ok_or_else(|| wrong(&"it is cut off"))?;
            let header =
                verify(payload, replay.op + entries.len() as u64).map_err(|error| wrong(&error))?;
            entries.push((header.op, payload));
            let end = size.next_multiple_of(8).min(behind.len());
            rest = &behind[end..];
        }
        entries.sort_unstable_by_key(|(op, _)| *op);
        entries
            .into_iter()
            .try_for_each(|(_, payload)| replay.apply(payload))
            .map_err(|error| wrong(&error))
    }
}
