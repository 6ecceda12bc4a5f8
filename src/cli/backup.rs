//! `stampede backup`: a consistent, verified image of a replica, which may be running.
//!
//! ```text
//!   IMAGE/checkpoints/…    files of the checkpoint in force, verified block by block as they are copied
//!   IMAGE/log-<op>         the committed entries after it: each its length (u64), the prepare, zeros to 8 bytes
//!   IMAGE/superblock       what the replica's said; written last, so that the former image is whole until then
//! ```
//!
//! What an image has already is not copied again: the next backup into the same directory takes what is new.
//! The replica is not asked and does not notice: its files are immutable, its superblock says which ones
//! count, and a file that goes while it is being copied has been followed by a newer checkpoint.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::inspect::source::{Checkpoints, Segments};
use super::size::Size;
use super::{Failure, say};
use crate::message::Op;
use crate::replica::image::{self, ImageError};
use crate::replica::open::journal_config;
use crate::replica::superblock::State;
use crate::runtime::directory::DataDirectory;
use crate::runtime::storage::DirectoryStorage;
use crate::store::{Copier, FileEntry, Manifest, SealedFile, Storage, StoreError, sweep};

/// How often a copy is begun again because the replica has moved on.
const ATTEMPTS_MAX: u32 = 20;

/// The entries after the checkpoint of this operation.
pub(super) fn log_name(checkpoint: Op) -> String {
    format!("log-{checkpoint:020}")
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Data directory of a replica, running or not
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Directory of the image: a new one, or one that holds an earlier image of the same cluster
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
}

/// Why one attempt has failed.
enum Trouble {
    /// The replica has gone on meanwhile.
    Overtaken,
    Failed(Failure),
}

impl From<ImageError> for Trouble {
    fn from(error: ImageError) -> Self {
        match error {
            // A journal in use changes under a reader, too: with the next superblock it will do.
            ImageError::Overtaken | ImageError::Open(_) => Self::Overtaken,
            ImageError::Damaged(_)
            | ImageError::Missing(_)
            | ImageError::OtherHistory(_)
            | ImageError::Inadmissible(_)
            | ImageError::Unreadable(_) => Self::Failed(Failure::new(error)),
        }
    }
}

fn io_failure(action: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot {action} {}: {error}", path.display()))
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let data = DataDirectory::new(&arguments.directory);
    let first = data.state().map_err(Failure::new)?;
    let mut target = Target::open(&arguments.image, &first)?;
    let mut problem = None;
    for _ in 0..ATTEMPTS_MAX {
        let state = data.state().map_err(Failure::new)?;
        match target.take(&data, &state) {
            Ok(taken) => return taken.report(&state, arguments),
            Err(Trouble::Overtaken) => problem = Some(state.checkpoint_op),
            Err(Trouble::Failed(failure)) => return Err(failure),
        }
    }
    Err(Failure::new(format!(
        "{} changes faster than it can be copied, or its journal cannot be read (the last attempt was with the \
         checkpoint of op {}): look at it with `stampede inspect`, or copy another replica",
        arguments.directory.display(),
        problem.unwrap_or(0)
    )))
}

/// What was done.
struct Taken {
    op: Op,
    files: usize,
    copied: u64,
    present: u64,
    log_bytes: u64,
}

impl Taken {
    fn report(&self, state: &State, arguments: &Arguments) -> Result<(), Failure> {
        say(&format!(
            "image of cluster {}, replica {}, as of op {}: checkpoint of op {} in {} files ({} copied, {} were there), \
             {} of log after it, all verified, in {}\n",
            state.cluster,
            state.replica,
            self.op,
            state.checkpoint_op,
            self.files,
            Size(self.copied),
            Size(self.present),
            Size(self.log_bytes),
            arguments.image.display()
        ))
    }
}

/// The directory that holds the image.
struct Target {
    path: PathBuf,
    /// Checksums of files that this backup has seen whole, or copied: a later attempt need not read them again.
    whole: BTreeSet<u128>,
}

impl Target {
    fn open(path: &Path, of: &State) -> Result<Self, Failure> {
        let superblock = path.join("superblock");
        match fs::read(&superblock) {
            Ok(bytes) => {
                let known = State::decode_file(&bytes)
                    .map_err(|error| Failure::new(format!("{}: {error}", superblock.display())))?;
                if known.cluster != of.cluster {
                    return Err(Failure::usage(format!(
                        "{} holds an image of cluster {}, not {}: choose another directory",
                        path.display(),
                        known.cluster,
                        of.cluster
                    )));
                }
                if path.join("journal").exists() {
                    return Err(Failure::usage(format!(
                        "{} is the directory of a replica, not of an image: choose another one",
                        path.display()
                    )));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path).map_err(|error| io_failure("create", path, &error))?;
                let entries =
                    fs::read_dir(path).map_err(|error| io_failure("read", path, &error))?;
                let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
                // What an interrupted backup leaves behind is taken up again.
                let ours = |name: &String| {
                    name == "checkpoints" || name == "superblock.tmp" || name.starts_with("log-")
                };
                if let Some(other) = names.into_iter().find(|name| !ours(name)) {
                    return Err(Failure::usage(format!(
                        "{} is not empty (it holds {other}): choose a new directory for the image",
                        path.display(),
                    )));
                }
            }
            Err(error) => return Err(io_failure("read", &superblock, &error)),
        }
        Ok(Self {
            path: path.to_owned(),
            whole: BTreeSet::new(),
        })
    }

    /// One attempt.
    fn take(&mut self, data: &DataDirectory, state: &State) -> Result<Taken, Trouble> {
        let source = Checkpoints::of(data);
        let path = self.path.join("checkpoints");
        let mut storage = DirectoryStorage::open(&path)
            .map_err(|error| Trouble::Failed(io_failure("open", &path, &error)))?;
        let mut taken = Taken {
            op: 0,
            files: 0,
            copied: 0,
            present: 0,
            log_bytes: 0,
        };
        if let Some(reference) = state.manifest() {
            let manifest = Manifest::open(&source, &reference).map_err(of_store)?;
            let entries = std::iter::once(reference.entry()).chain(manifest.files);
            let mut entries: Vec<FileEntry> = entries.collect();
            // What later checkpoints drop is copied first; files of full chunks stay.
            entries.sort_by_key(|entry| entry.name.kind.is_chunk());
            for entry in entries {
                taken.files += 1;
                if self.whole.contains(&entry.checksum) || is_whole(&storage, entry) {
                    taken.present += entry.size;
                } else {
                    copy(&source, &mut storage, entry).map_err(of_store)?;
                    taken.copied += entry.size;
                }
                self.whole.insert(entry.checksum);
            }
            storage
                .sync()
                .map_err(|error| Trouble::Failed(io_failure("sync", &path, &error)))?;
        }
        (taken.op, taken.log_bytes) = self.take_log(data, state)?;
        self.write("superblock", &state.encode_file())
            .map_err(Trouble::Failed)?;
        // What only a former image needed.
        let keep: Vec<_> = state.manifest().into_iter().collect();
        sweep(&mut storage, &keep).map_err(of_store)?;
        self.remove_other_logs(state.checkpoint_op)
            .map_err(Trouble::Failed)?;
        Ok(taken)
    }

    fn remove_other_logs(&self, checkpoint: Op) -> Result<(), Failure> {
        let remove = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                let name = entry.file_name();
                let is_log = name.to_str().is_some_and(|name| name.starts_with("log-"));
                if is_log && name.to_str() != Some(&log_name(checkpoint)) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        remove().map_err(|error| io_failure("remove a former log from", &self.path, &error))
    }

    fn take_log(&self, data: &DataDirectory, state: &State) -> Result<(Op, u64), Trouble> {
        let mut problems = Vec::new();
        let config = journal_config(state);
        let mut segments = Segments::open(&data.journal(), &config, &mut problems);
        if let Some(problem) = problems.first() {
            return Err(Trouble::Failed(Failure::new(&problem.what)));
        }
        let name = log_name(state.checkpoint_op);
        let unfinished = self.path.join(format!("{name}.tmp"));
        let failed = |error: io::Error| Trouble::Failed(io_failure("write", &unfinished, &error));
        let mut file = BufWriter::new(File::create(&unfinished).map_err(failed)?);
        let mut bytes = 0;
        let op = image::committed(state, &mut segments, |payload| {
            let padding = payload.len().next_multiple_of(8) - payload.len();
            let parts = [
                &(payload.len() as u64).to_le_bytes()[..],
                payload,
                &[0; 8][..padding],
            ];
            for part in parts {
                file.write_all(part).map_err(failed)?;
                bytes += part.len() as u64;
            }
            Ok::<(), Trouble>(())
        })?;
        let file = file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&unfinished, self.path.join(name)).map_err(failed)?;
        Ok((op, bytes))
    }

    /// A small file, all or nothing.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let unfinished = self.path.join(format!("{name}.tmp"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, self.path.join(name))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| io_failure("write", &self.path.join(name), &error))
    }
}

/// A file that is not there any more belongs to a checkpoint that has been followed by another.
fn of_store(error: StoreError) -> Trouble {
    match &error {
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Trouble::Overtaken
        }
        StoreError::Io { .. }
        | StoreError::Damaged { .. }
        | StoreError::Version { .. }
        | StoreError::List(_) => Trouble::Failed(Failure::new(error)),
    }
}

pub(super) fn is_whole(storage: &dyn Storage, entry: FileEntry) -> bool {
    SealedFile::open(storage, entry)
        .and_then(|mut file| file.verify(storage))
        .is_ok()
}

/// Copies a file piece by piece, each verified before it is written.
pub(super) fn copy(
    from: &dyn Storage,
    to: &mut dyn Storage,
    entry: FileEntry,
) -> Result<(), StoreError> {
    let mut copier = Copier::default();
    let mut bytes = Vec::new();
    for number in 0..entry.pieces() {
        let (offset, size) = entry.piece(number);
        bytes.resize(size, 0);
        from.read(entry.name, offset, &mut bytes)
            .map_err(|error| StoreError::io("read", entry.name, error))?;
        copier.take(to, entry, number, &bytes)?;
    }
    Ok(())
}
