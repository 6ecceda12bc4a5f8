//! `stampede restore`: the data directory of a replica of a new cluster, from an image.
//!
//! The image's checkpoint is restored, the log after it executed, and what comes out of that is the first
//! checkpoint of the new replica. All replicas of the new cluster are made from the same image, and agree
//! then on what their log goes on from; one that is made otherwise is refused by the others. Clients begin
//! new sessions: the image's belong to the cluster that it was taken from.

use std::path::PathBuf;

use clap::Args;

use super::backup::copy;
use super::image::Image;
use super::{Failure, format, say};
use crate::machine::Machine;
use crate::machine::ledger::Ledger;
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

impl Image {
    /// Writes the new replica's first checkpoint; gives the operation that it is as of.
    fn restore(&self, state: &mut State, data: &DataDirectory) -> Result<u64, Failure> {
        let from = self.checkpoints();
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
        let mut replay = self.replay(ledger)?;
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
}
