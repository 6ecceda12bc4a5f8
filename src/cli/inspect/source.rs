//! A data directory, opened so that nothing in it can change.
//!
//! The lock is taken shared and only if its file is there: a server holds it exclusively and is
//! refused, several inspectors may look at once. Segments that are missing or cut short read as
//! sectors that the disk cannot give, so that a scan says what is lost with them.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use stampede_journal::Config;
use stampede_journal::device::ReadAt;
use stampede_journal::device::files::segment_name;

use super::super::Failure;
use super::Problem;
use crate::runtime::directory::{DataDirectory, DirectoryError};
use crate::runtime::lock::LockError;
use crate::runtime::storage::map_file;
use crate::store::{FileName, FileWriter, Map, Storage};

/// A stopped server's files may be held for a moment by its last writes.
const LOCK_ATTEMPTS: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(in crate::cli) struct Source {
    data: DataDirectory,
    /// Held, shared, for as long as this is read.
    _lock: Option<File>,
}

impl Source {
    /// Locks a directory that has been formatted.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self, Failure> {
        let data = DataDirectory::new(path);
        match data.state() {
            // What is wrong with a superblock that is there is reported with everything else.
            Ok(_) | Err(DirectoryError::Superblock { .. }) => {}
            Err(error) => return Err(Failure::new(error)),
        }
        let lock = lock(path)?;
        Ok(Self { data, _lock: lock })
    }

    pub(in crate::cli) fn superblock_path(&self) -> PathBuf {
        self.data.superblock()
    }

    pub(in crate::cli) fn superblock(&self) -> Result<Vec<u8>, Failure> {
        let path = self.data.superblock();
        fs::read(&path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
    }

    pub(in crate::cli) fn journal_path(&self) -> PathBuf {
        self.data.journal()
    }

    pub(in crate::cli) fn checkpoints_path(&self) -> PathBuf {
        self.data.checkpoints()
    }

    pub(in crate::cli) fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(&self.data)
    }
}

fn lock(directory: &Path) -> Result<Option<File>, Failure> {
    let path = directory.join("lock");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::new(format!(
                "cannot open {}: {error}",
                path.display()
            )));
        }
    };
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock_shared() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => {
                return Err(Failure::new(LockError::Io {
                    directory: directory.to_owned(),
                    error,
                }));
            }
        }
    }
    let mut owner = String::new();
    let _ = (&mut file).take(32).read_to_string(&mut owner);
    let owner = match owner.trim() {
        "" => "its process id is not known".to_owned(),
        id => format!("pid {id}"),
    };
    Err(Failure::new(LockError::Held {
        directory: directory.to_owned(),
        owner,
    }))
}

/// The journal's segments, to be read and nothing else. One is open at a time: there may be more of
/// them than a process may open.
#[derive(Debug)]
pub(in crate::cli) struct Segments {
    directory: PathBuf,
    present: Vec<bool>,
    open: Option<(u32, File)>,
}

impl Segments {
    /// Opens what is there; says what is not as it was formatted.
    pub(in crate::cli) fn open(
        directory: &Path,
        config: &Config,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut present = Vec::new();
        let mut missing = Vec::new();
        for index in 0..config.segment_count {
            let path = directory.join(segment_name(index));
            match File::open(&path).and_then(|file| Ok(file.metadata()?.len())) {
                Ok(found) => {
                    if found != config.segment_size {
                        problems.push(Problem::damage(
                            "journal",
                            format!(
                                "{} has {found} bytes instead of {}: it was cut or replaced",
                                path.display(),
                                config.segment_size
                            ),
                        ));
                    }
                    present.push(true);
                }
                Err(error) => {
                    present.push(false);
                    if error.kind() == io::ErrorKind::NotFound {
                        missing.push(segment_name(index));
                    } else {
                        let what = format!("cannot open {}: {error}", path.display());
                        problems.push(Problem::unreadable("journal", what));
                    }
                }
            }
        }
        if let Some(first) = missing.first() {
            problems.push(Problem::damage(
                "journal",
                format!(
                    "{} of {} segment files are missing from {} (the first one: {first})",
                    missing.len(),
                    config.segment_count,
                    directory.display()
                ),
            ));
        }
        let excess = directory.join(segment_name(config.segment_count));
        if excess.exists() {
            problems.push(Problem::damage(
                "journal",
                format!(
                    "{} should not be there: {} segments were formatted",
                    excess.display(),
                    config.segment_count
                ),
            ));
        }
        Self {
            directory: directory.to_owned(),
            present,
            open: None,
        }
    }

    /// Whether there is anything to read at all.
    pub(in crate::cli) fn any(&self) -> bool {
        self.present.contains(&true)
    }

    fn file(&mut self, index: u32) -> io::Result<&File> {
        let (_, file) = match self.open.take() {
            Some((open, file)) if open == index => self.open.insert((open, file)),
            _ => {
                let file = File::open(self.directory.join(segment_name(index)))?;
                self.open.insert((index, file))
            }
        };
        Ok(file)
    }
}

impl ReadAt for Segments {
    fn read_at(&mut self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        // A scan takes this for a bad sector: it goes on behind it and reports what it cost.
        let lost = || io::Error::from_raw_os_error(libc::EIO);
        if self.present.get(file as usize) != Some(&true) {
            return Err(lost());
        }
        let result = self.file(file)?.read_exact_at(bytes, offset);
        result.map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                lost()
            } else {
                error
            }
        })
    }
}

/// Checkpoint files, to be read and nothing else. (The server's own storage removes unfinished
/// files when it is opened.)
#[derive(Debug)]
pub(in crate::cli) struct Checkpoints {
    path: PathBuf,
}

impl Checkpoints {
    /// Of a replica, which may be running.
    pub(in crate::cli) fn of(data: &DataDirectory) -> Self {
        Self::at(data.checkpoints())
    }

    pub(in crate::cli) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Files with names that no storage gives, or that were never finished.
    pub(in crate::cli) fn strangers(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut strangers: Vec<String> = names
            .filter(|name| FileName::parse(name).is_none())
            .collect();
        strangers.sort_unstable();
        strangers
    }

    fn refuse<T>() -> io::Result<T> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Storage for Checkpoints {
    fn create(&mut self, _: FileName) -> io::Result<Box<dyn FileWriter>> {
        Self::refuse()
    }

    fn read(&self, name: FileName, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        File::open(self.path.join(name.to_string()))?.read_exact_at(bytes, offset)
    }

    fn map(&self, name: FileName) -> io::Result<Map> {
        map_file(&self.path.join(name.to_string()))
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().and_then(FileName::parse) {
                files.push((name, entry.metadata()?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn remove(&mut self, _: FileName) -> io::Result<()> {
        Self::refuse()
    }

    fn sync(&mut self) -> io::Result<()> {
        Self::refuse()
    }

    fn room(&self) -> io::Result<u64> {
        Ok(0)
    }
}
