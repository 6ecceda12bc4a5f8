//! One process on a data directory: an exclusive lock on its file `lock`, which holds the owner's
//! process id for the message that a second process gives.
//!
//! The kernel lets go of a killed process's files only when its I/O has ended, so a lock that is held
//! is asked for again for a while.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_millis(250);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why it could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another process ({owner}) is using {}; stop it first", directory.display())]
    Held { directory: PathBuf, owner: String },
    #[error("cannot lock {}: {error}", directory.display())]
    Io {
        directory: PathBuf,
        error: io::Error,
    },
}

impl DirectoryLock {
    /// Takes the lock of a directory.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Io {
            directory: directory.to_owned(),
            error,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("lock"))
            .map_err(failed)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    let _ = (&mut file).take(32).read_to_string(&mut owner);
                    let owner = match owner.trim() {
                        "" => "its process id is not known".to_owned(),
                        id => format!("pid {id}"),
                    };
                    return Err(LockError::Held {
                        directory: directory.to_owned(),
                        owner,
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let say = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())
        };
        say(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(directory.path()).unwrap();
        let error = DirectoryLock::acquire(directory.path()).unwrap_err();
        let expected = format!("another process (pid {})", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
        drop(first);
        DirectoryLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_lock_that_is_let_go_in_time_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(directory.path()).unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(60));
            drop(first);
        });
        DirectoryLock::acquire(directory.path()).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = DirectoryLock::acquire(Path::new("/nonexistent/stampede")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/stampede"));
    }
}
