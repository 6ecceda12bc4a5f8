//! The data directory of a replica: what is where, how it is made, how it is opened.
//!
//! ```text
//!   DIR/lock                    who is using it
//!   DIR/superblock              four copies of one sector; written last by format, so a directory
//!                               without it was never finished
//!   DIR/journal/journal-NNNN.seg
//!   DIR/checkpoints/...         immutable files
//! ```
//!
//! `journal` and `checkpoints` may be put on different devices by mounting them, or by links.
//! Nothing is ever overwritten by format, and what it made is removed again when it fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use stampede_journal::device::files::{Files as JournalFiles, FilesError};

use super::lock::{DirectoryLock, LockError};
use crate::replica::open::journal_config;
use crate::replica::superblock::{Identity, State, SuperblockError};

/// See the module.
#[derive(Debug, Clone)]
pub struct DataDirectory {
    path: PathBuf,
}

/// Why a data directory cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error(
        "{} holds a formatted replica already; format never overwrites one: choose another directory, or \
         remove this one if its data is not needed any more", .0.display()
    )]
    Formatted(PathBuf),
    #[error(
        "{} was left behind by a format that did not finish; remove it and format again", .0.display()
    )]
    Unfinished(PathBuf),
    #[error("{} is not empty (it holds {entry}); format into an empty or new directory", path.display())]
    NotEmpty { path: PathBuf, entry: String },
    #[error("{} does not exist; make it with `stampede format`", .0.display())]
    Missing(PathBuf),
    #[error("{} is not formatted; run `stampede format` on it first", .0.display())]
    NotFormatted(PathBuf),
    #[error("{}: {error}", path.display())]
    Superblock {
        path: PathBuf,
        error: SuperblockError,
    },
    #[error(transparent)]
    Journal(#[from] FilesError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{0}")]
    Content(String),
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        error: io::Error,
    },
}

/// An open data directory; locked for as long as it lives.
#[derive(Debug)]
pub struct OpenDirectory {
    pub lock: DirectoryLock,
    pub state: State,
    pub journal: JournalFiles,
    /// Open for direct writes.
    pub superblock: OwnedFd,
}

impl DataDirectory {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn superblock(&self) -> PathBuf {
        self.path.join("superblock")
    }

    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    // ── format ──────────────────────────────────────────────────────────────────────────────────

    /// Makes the directory of a new replica. `progress` is told bytes done and bytes in all.
    ///
    /// # Errors
    /// See [`DirectoryError`]; nothing is left behind then.
    pub fn format(
        &self,
        identity: &Identity,
        progress: impl FnMut(u64, u64),
    ) -> Result<State, DirectoryError> {
        self.format_with(identity, progress, |_, _| Ok(()))
    }

    /// The same, where `content` puts something into it that the state speaks of, before the directory
    /// counts as formatted.
    ///
    /// # Errors
    /// See [`DirectoryError`]; nothing is left behind then.
    pub fn format_with(
        &self,
        identity: &Identity,
        progress: impl FnMut(u64, u64),
        content: impl FnOnce(&mut State, &Self) -> Result<(), String>,
    ) -> Result<State, DirectoryError> {
        let existed = self.check_empty()?;
        fs::create_dir_all(&self.path).map_err(|error| self.io("create", &self.path, error))?;
        let lock = DirectoryLock::acquire(&self.path)?;
        let result = self.fill(identity, progress, content);
        if result.is_err() {
            // The first error is the one to report; whatever stays behind is reported next time.
            let _ = fs::remove_dir_all(self.journal());
            let _ = fs::remove_dir_all(self.checkpoints());
            let _ = fs::remove_file(self.unfinished_superblock());
            let _ = fs::remove_file(self.superblock());
            let _ = fs::remove_file(self.path.join("lock"));
            if !existed {
                let _ = fs::remove_dir(&self.path);
            }
        }
        drop(lock);
        result
    }

    /// Whether the directory exists; an error if there is something in it.
    fn check_empty(&self) -> Result<bool, DirectoryError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.io("read", &self.path, error)),
        };
        if self.superblock().exists() {
            return Err(DirectoryError::Formatted(self.path.clone()));
        }
        for entry in entries {
            let entry = entry.map_err(|error| self.io("read", &self.path, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match name.as_str() {
                // The root of a file system of its own.
                "lost+found" => {}
                "lock" | "journal" | "checkpoints" => {
                    return Err(DirectoryError::Unfinished(self.path.clone()));
                }
                _ => {
                    return Err(DirectoryError::NotEmpty {
                        path: self.path.clone(),
                        entry: name,
                    });
                }
            }
        }
        Ok(true)
    }

    fn unfinished_superblock(&self) -> PathBuf {
        self.path.join("superblock.tmp")
    }

    fn fill(
        &self,
        identity: &Identity,
        progress: impl FnMut(u64, u64),
        content: impl FnOnce(&mut State, &Self) -> Result<(), String>,
    ) -> Result<State, DirectoryError> {
        let mut state = State::format(identity);
        JournalFiles::create(&self.journal(), &journal_config(&state), progress)?;
        let checkpoints = self.checkpoints();
        fs::create_dir(&checkpoints).map_err(|error| self.io("create", &checkpoints, error))?;
        content(&mut state, self).map_err(DirectoryError::Content)?;
        // It has its name only when all of it is durable.
        let unfinished = self.unfinished_superblock();
        let write = || -> io::Result<()> {
            let mut file = File::create_new(&unfinished)?;
            file.write_all(&state.encode_file())?;
            file.sync_all()?;
            fs::rename(&unfinished, self.superblock())?;
            File::open(&self.path)?.sync_all()?;
            let parent = self
                .path
                .parent()
                .filter(|path| !path.as_os_str().is_empty());
            File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
        };
        write().map_err(|error| self.io("write", &self.superblock(), error))?;
        Ok(state)
    }

    // ── open ────────────────────────────────────────────────────────────────────────────────────

    /// What the superblock says; changes nothing and takes no lock.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn state(&self) -> Result<State, DirectoryError> {
        let path = self.superblock();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(if self.path.is_dir() {
                    DirectoryError::NotFormatted(self.path.clone())
                } else {
                    DirectoryError::Missing(self.path.clone())
                });
            }
            Err(error) => return Err(self.io("read", &path, error)),
        };
        State::decode_file(&bytes).map_err(|error| DirectoryError::Superblock { path, error })
    }

    /// Locks the directory and opens its files.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(&self) -> Result<OpenDirectory, DirectoryError> {
        // Before the lock, whose file would be made in any directory.
        self.state()?;
        self.open_again(DirectoryLock::acquire(&self.path)?)
    }

    /// Opens the files of a directory that is locked already, and that nobody is using any more.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open_again(&self, lock: DirectoryLock) -> Result<OpenDirectory, DirectoryError> {
        let state = self.state()?;
        let journal = JournalFiles::open(&self.journal(), &journal_config(&state))?;
        let path = self.superblock();
        let superblock = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .map_err(|error| self.io("open", &path, error))?;
        Ok(OpenDirectory {
            lock,
            state,
            journal,
            superblock: superblock.into(),
        })
    }

    fn io(&self, action: &'static str, path: &Path, error: io::Error) -> DirectoryError {
        DirectoryError::Io {
            action,
            path: path.to_owned(),
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: 7,
            replica: 0,
            replica_count: 1,
            standby_count: 0,
            sessions_max: 8,
            segment_size: 4 << 20,
            segment_count: 4,
            recovering: false,
            journal_id: 12345,
        }
    }

    /// Below the build directory: the system's one for temporary files may be in memory, which
    /// format refuses.
    fn directory() -> tempfile::TempDir {
        let target = std::env::current_exe().unwrap();
        tempfile::tempdir_in(target.parent().unwrap()).unwrap()
    }

    #[test]
    fn what_was_formatted_can_be_opened_once() {
        let parent = directory();
        let data = DataDirectory::new(parent.path().join("0"));
        let mut last = (0, 0);
        data.format(&identity(), |done, total| last = (done, total))
            .unwrap();
        assert_eq!(last, (16 << 20, 16 << 20));
        let open = data.open().unwrap();
        assert_eq!((open.state.cluster, open.journal.count()), (7, 4));
        let error = data.open().unwrap_err().to_string();
        assert!(error.contains("another process (pid"), "{error}");
        drop(open);
        data.open().unwrap();
    }

    #[test]
    fn format_never_overwrites() {
        let parent = directory();
        let data = DataDirectory::new(parent.path().join("0"));
        data.format(&identity(), |_, _| {}).unwrap();
        let before = fs::read(data.superblock()).unwrap();
        let error = data.format(&identity(), |_, _| {}).unwrap_err();
        assert!(matches!(error, DirectoryError::Formatted(_)), "{error}");
        assert_eq!(fs::read(data.superblock()).unwrap(), before);

        fs::remove_file(data.superblock()).unwrap();
        let error = data.format(&identity(), |_, _| {}).unwrap_err();
        assert!(matches!(error, DirectoryError::Unfinished(_)), "{error}");

        let other = DataDirectory::new(parent.path().join("other"));
        fs::create_dir(other.path()).unwrap();
        fs::write(other.path().join("letter.txt"), "dear").unwrap();
        let error = other.format(&identity(), |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("letter.txt"), "{error}");
    }

    #[test]
    fn a_failed_format_leaves_nothing_behind() {
        let parent = directory();
        let data = DataDirectory::new(parent.path().join("0"));
        // More than any disk has.
        let huge = Identity {
            segment_size: 1 << 40,
            segment_count: 4096,
            ..identity()
        };
        let error = data.format(&huge, |_, _| {}).unwrap_err();
        assert!(matches!(error, DirectoryError::Journal(_)), "{error}");
        assert!(!data.path().exists());
    }

    #[test]
    fn missing_and_unformatted_directories_are_told_apart() {
        let parent = directory();
        let missing = DataDirectory::new(parent.path().join("nowhere"));
        assert!(matches!(missing.open(), Err(DirectoryError::Missing(_))));
        let empty = DataDirectory::new(parent.path());
        assert!(matches!(empty.open(), Err(DirectoryError::NotFormatted(_))));
        assert!(!parent.path().join("lock").exists());
        fs::write(empty.superblock(), vec![7; 16384]).unwrap();
        let error = empty.open().unwrap_err().to_string();
        assert!(error.contains("superblock"), "{error}");
    }
}
