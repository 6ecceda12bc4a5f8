//! Checkpoint files in a directory.
//!
//! ```text
//!   <name>.tmp ──► direct writes ──► fsync ──► rename to <name>      sync: fsync of the directory
//! ```
//!
//! A file has its name only when every byte of it is durable. What a crash leaves behind ends in
//! `.tmp` and is removed when the directory is opened (what a librarian was fetching, `.part`). The builder
//! writes chunks through the page cache, because what is new is what queries ask for; the rest bypasses it where
//! the file system allows that, so that a checkpoint does not push out what is being read, and so does all that
//! is fetched from another replica: to fill the page cache with it costs more than everything else together. Chunks
//! that are not new any more leave the page cache, but for what queries have looked at: memory that a machine has
//! not used yet is dear, and what nobody asks for needs none.
//!
//! All calls block: they are for the builder's thread, and for the start.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};

use crate::store::{FileName, FileWriter, Map, STORAGE_SECTOR_SIZE, Storage};

/// So many chunk files after one of the same kind, it is not new any more: about a gibibyte of the page cache for
/// the transfers that are, 33 million of them.
const NEW_CHUNKS: u64 = 512;

const SUFFIX_UNFINISHED: &str = ".tmp";
const SUFFIX_FETCHED: &str = ".part";

/// See the module.
#[derive(Debug)]
pub struct DirectoryStorage {
    path: PathBuf,
    suffix: &'static str,
    /// Reads and writes bypass the page cache where address, offset and size allow it.
    direct: bool,
}

impl DirectoryStorage {
    /// Opens a directory, which is created if it is not there, and removes unfinished files.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        if !path.is_dir() {
            fs::create_dir_all(&path)?;
            sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))?;
        }
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let name = entry.file_name();
            let unfinished = name.to_str().and_then(|name| {
                name.strip_suffix(SUFFIX_UNFINISHED)
                    .or_else(|| name.strip_suffix(SUFFIX_FETCHED))
            });
            if unfinished.is_some_and(|name| FileName::parse(name).is_some()) {
                fs::remove_file(entry.path())?;
            }
        }
        let suffix = SUFFIX_UNFINISHED;
        Ok(Self {
            path,
            suffix,
            direct: false,
        })
    }

    /// Another handle, for a librarian: what it has not finished has other names, because the builder
    /// may be writing the same file. It asks the disk itself: what the page cache remembers proves nothing
    /// of the disk, and is not to be pushed out by a scrub.
    #[must_use]
    pub fn for_librarian(&self) -> Self {
        Self {
            path: self.path.clone(),
            suffix: SUFFIX_FETCHED,
            direct: true,
        }
    }

    /// `None` where the file system has no direct I/O, or the device wants another alignment.
    fn read_direct(&self, name: FileName, offset: u64, bytes: &mut [u8]) -> io::Result<Option<()>> {
        let sector = STORAGE_SECTOR_SIZE;
        let aligned = bytes.as_ptr().addr().is_multiple_of(sector)
            && bytes.len().is_multiple_of(sector)
            && offset.is_multiple_of(sector as u64);
        if !self.direct || !aligned {
            return Ok(None);
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(self.path_of(name));
        match file.and_then(|file| file.read_exact_at(bytes, offset)) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            result => result.map(Some),
        }
    }

    fn path_of(&self, name: FileName) -> PathBuf {
        self.path.join(name.to_string())
    }
}

/// A finished checkpoint file, mapped.
///
/// # Errors
/// What the system says.
pub(crate) fn map_file(path: &Path) -> io::Result<Map> {
    let file = File::open(path)?;
    // SAFETY: finished files are never written or truncated by us: they are renamed into place complete,
    // and removed, which keeps the map's pages.
    let map = unsafe { Mmap::map(&file)? };
    // Rows are looked up one by one: reading around them would only cost.
    map.advise(Advice::Random)?;
    Ok(Map::of_file(map))
}

impl Storage for DirectoryStorage {
    fn create(&mut self, name: FileName) -> io::Result<Box<dyn FileWriter>> {
        let unfinished = self.path.join(format!("{name}{}", self.suffix));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let direct = (self.direct || !name.kind.is_asked_soon()).then(|| {
            options
                .clone()
                .custom_flags(libc::O_DIRECT)
                .open(&unfinished)
        });
        let (file, direct) = match direct {
            Some(Ok(file)) => (file, true),
            // File systems in memory refuse direct I/O.
            Some(Err(error)) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            _ => (options.open(&unfinished)?, false),
        };
        let finished = self.path_of(name);
        let former = name.number.checked_sub(NEW_CHUNKS).filter(|_| !direct);
        let not_new_any_more = former.map(|number| self.path_of(FileName { number, ..name }));
        Ok(Box::new(DirectoryWriter {
            not_new_any_more,
            file,
            direct,
            offset: 0,
            unfinished,
            finished,
            is_finished: false,
        }))
    }

    fn read(&self, name: FileName, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self.read_direct(name, offset, bytes)? {
            Some(()) => Ok(()),
            None => File::open(self.path_of(name))?.read_exact_at(bytes, offset),
        }
    }

    fn will_read(&self, name: FileName, offset: u64, size: u64) {
        let (Ok(offset), Ok(size)) = (i64::try_from(offset), i64::try_from(size)) else {
            return;
        };
        if let Ok(file) = File::open(self.path_of(name)) {
            // SAFETY: advice about a file that is open; no memory of ours is involved.
            unsafe {
                libc::posix_fadvise(file.as_raw_fd(), offset, size, libc::POSIX_FADV_WILLNEED)
            };
        }
    }

    fn map(&self, name: FileName) -> io::Result<Map> {
        map_file(&self.path_of(name))
    }

    fn sync(&mut self) -> io::Result<()> {
        sync_directory(&self.path)
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

    fn room(&self) -> io::Result<u64> {
        let path = CString::new(self.path.as_os_str().as_bytes())?;
        // SAFETY: the structure is plain numbers, for which zeros are values.
        let mut room: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends in a zero byte, and the kernel writes the structure it is given.
        if unsafe { libc::statvfs(path.as_ptr(), &raw mut room) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }

    fn remove(&mut self, name: FileName) -> io::Result<()> {
        // A file that comes back after a crash is removed by the next sweep.
        fs::remove_file(self.path_of(name))
    }
}

/// A file that has no name of its own yet.
struct DirectoryWriter {
    file: File,
    direct: bool,
    offset: u64,
    unfinished: PathBuf,
    finished: PathBuf,
    is_finished: bool,
    /// A file whose pages leave the page cache when this one is there.
    not_new_any_more: Option<PathBuf>,
}

impl FileWriter for DirectoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(
            bytes.len().is_multiple_of(STORAGE_SECTOR_SIZE),
            "whole sectors"
        );
        assert!(
            bytes.as_ptr().addr().is_multiple_of(STORAGE_SECTOR_SIZE),
            "aligned memory"
        );
        let mut result = self.file.write_all_at(bytes, self.offset);
        if self.direct
            && result
                .as_ref()
                .is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
        {
            // The device wants another alignment than a sector of ours: go through the page cache.
            self.leave_direct()?;
            result = self.file.write_all_at(bytes, self.offset);
        }
        self.offset += bytes.len() as u64;
        result
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.unfinished, &self.finished)?;
        self.is_finished = true;
        if let Some(former) = &self.not_new_any_more {
            forget(former);
        }
        Ok(())
    }
}

impl Drop for DirectoryWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // One that stays is removed when the directory is opened, or written over.
            drop(fs::remove_file(&self.unfinished));
        }
    }
}

impl DirectoryWriter {
    fn leave_direct(&mut self) -> io::Result<()> {
        // SAFETY: sets status flags of a descriptor that this value owns.
        let result = unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETFL, 0) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        self.direct = false;
        Ok(())
    }
}

/// Takes a file out of the page cache, but for the pages that are mapped and have been looked at: those that queries
/// ask for stay. Best effort.
fn forget(path: &Path) {
    if let Ok(file) = File::open(path) {
        // SAFETY: advice about a file that is open; no memory of ours is involved.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::machine::ledger::Ledger;
    use crate::store::{FileKind, Manifest, MemoryStorage, sweep, write_checkpoint};

    #[test]
    fn files_appear_whole_and_unfinished_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let mut storage = DirectoryStorage::open(&path).unwrap();
        let name = FileName::new(FileKind::Ledger, 7);
        let page = Map::copy_of(&[5; 3 * STORAGE_SECTOR_SIZE]);
        let mut writer = storage.create(name).unwrap();
        writer.write(&page[..STORAGE_SECTOR_SIZE]).unwrap();
        writer.write(&page[STORAGE_SECTOR_SIZE..]).unwrap();
        assert_eq!(storage.list().unwrap(), []);
        let kind = storage.map(name).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::NotFound);
        writer.finish().unwrap();
        assert_eq!(
            storage.list().unwrap(),
            [(name, 3 * STORAGE_SECTOR_SIZE as u64)]
        );

        let other = FileName::new(FileKind::Manifest, 7);
        let mut writer = storage.create(other).unwrap();
        writer.write(&page).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        let mut writer = storage.create(other).unwrap();
        writer.write(&page).unwrap();
        // As if the process had been killed.
        std::mem::forget(writer);
        fs::write(path.join("notes.tmp"), "not ours").unwrap();
        let mut storage = DirectoryStorage::open(&path).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
        let map = storage.map(name).unwrap();
        assert_eq!(map[..], page[..]);
        let mut bytes = [0; 10];
        storage.read(name, 4090, &mut bytes).unwrap();
        assert_eq!(bytes, [5; 10]);
        let error = storage.read(name, 3 * STORAGE_SECTOR_SIZE as u64 - 5, &mut bytes);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        storage.remove(name).unwrap();
        assert_eq!(map[..], page[..], "a map outlives its file");
        assert_eq!(
            storage.remove(name).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_checkpoint_on_disk_is_the_one_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = DirectoryStorage::open(directory.path()).unwrap();
        let mut memory = MemoryStorage::default();
        let mut ledger = Ledger::default();
        let mut snapshot = ledger.whole_snapshot(1);
        let reference = write_checkpoint(&mut memory, 1, &mut *snapshot, b"s").unwrap();
        let mut snapshot = ledger.whole_snapshot(1);
        assert_eq!(
            write_checkpoint(&mut disk, 1, &mut *snapshot, b"s").unwrap(),
            reference
        );
        assert_eq!(disk.list().unwrap(), memory.list().unwrap());
        let manifest = Manifest::open(&disk, &reference).unwrap();
        manifest.verify(&disk).unwrap();
        let restored = Ledger::default().restore(&disk, &manifest.files).unwrap();
        assert_eq!(restored.digest(), ledger.digest());
        assert_eq!(sweep(&mut disk, &[reference]).unwrap(), 0);
        assert_eq!(sweep(&mut disk, &[]).unwrap(), 4);
    }

    /// How many of a file's pages are in the page cache.
    fn cached(path: &Path) -> usize {
        let map = map_file(path).unwrap();
        let mut pages = vec![0; map.len().div_ceil(STORAGE_SECTOR_SIZE)];
        let base = map.as_ptr().cast_mut().cast();
        // SAFETY: the bytes are mapped, and the answer is at most one byte for each of these pages.
        let result = unsafe { libc::mincore(base, map.len(), pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.iter().filter(|&&page| page & 1 == 1).count()
    }

    #[test]
    fn chunks_that_nobody_asks_for_leave_the_page_cache_when_they_are_not_new() {
        let directory = tempfile::tempdir().unwrap();
        let mut storage = DirectoryStorage::open(directory.path()).unwrap();
        let page = Map::copy_of(&[5; 8 * STORAGE_SECTOR_SIZE]);
        let mut write = |kind, number| {
            let name = FileName::new(kind, number);
            let mut writer = storage.create(name).unwrap();
            writer.write(&page).unwrap();
            writer.finish().unwrap();
            storage.path_of(name)
        };
        let chunk = write(FileKind::Transfers, 0);
        if rustix::fs::statfs(&chunk).unwrap().f_type == libc::TMPFS_MAGIC {
            return; // The page cache is all there is.
        }
        let other = write(FileKind::Expired, 0);
        let asked_for = write(FileKind::Transfers, 1);
        let map = map_file(&asked_for).unwrap();
        assert_eq!(map[..], page[..]);
        for number in NEW_CHUNKS - 1..=NEW_CHUNKS + 1 {
            assert_eq!(cached(&chunk), if number <= NEW_CHUNKS { 8 } else { 0 });
            write(FileKind::Transfers, number);
        }
        assert_eq!((cached(&other), cached(&asked_for)), (8, 8));
    }
}
