//! Segment files on a real file system: formatted once, opened for direct I/O, locked.
//!
//! `journal-0000.seg`, `journal-0001.seg`, … in one directory, all of the same size. Formatting
//! reserves the blocks, then writes zeros over all of them: a data-synced write into a block that
//! was reserved but never written has to convert the extent first, and takes twice as long, as does
//! one that makes the file grow. So no file grows or changes its extents afterwards.
//!
//! What is found out here, and not at the first append: no direct I/O (tmpfs, some overlays), an
//! alignment above 4096, no space, files of another size or number, and another process that still
//! uses them. The last includes a process that was killed: the kernel keeps its files until its
//! writes have ended, and a scan before that would not see them.

#![allow(
    clippy::disallowed_methods,
    reason = "the device layer lives in the real world"
)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::{ReadAt, WriteAt};
use crate::buffer::AlignedBuffer;
use crate::config::{Config, ConfigError};
use crate::frame::SECTOR;

/// Bytes of zeros per write while formatting.
const FORMAT_CHUNK: usize = 4 << 20;
/// How long the files of a killed process are waited for: writes in flight end within this.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The open segment files of one journal.
#[derive(Debug)]
pub struct Files {
    files: Vec<File>,
}

/// Why segment files could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The configuration is not valid.
    #[error("journal configuration: {0}")]
    Config(#[from] ConfigError),
    /// There is a journal in this directory already.
    #[error("{}: exists already; format never overwrites a journal", path.display())]
    Exists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// A segment file is not there.
    #[error("{}: missing; {expected} segment files were formatted", path.display())]
    Missing {
        /// The file that is missing.
        path: PathBuf,
        /// Number of segments configured.
        expected: u32,
    },
    /// A segment file has another size than configured, or there are more of them.
    #[error(
        "{}: {found} bytes where {expected} are configured; use the geometry the journal was \
         formatted with", path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The configured size, 0 for a file that should not be there.
        expected: u64,
    },
    /// The file system has no room for the segments.
    #[error(
        "{}: no space for {needed} bytes of journal; free space or format a smaller journal",
        path.display()
    )]
    NoSpace {
        /// The file being made.
        path: PathBuf,
        /// Bytes of all segments.
        needed: u64,
    },
    /// The file system cannot bypass the page cache, or is memory itself.
    #[error(
        "{}: the file system ({reason}) cannot do durable direct I/O; use a directory on a disk \
         (ext4 or XFS), in a container a volume", path.display()
    )]
    NoDirectIo {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another process has the journal open.
    #[error("{}: in use by another process (a replica that is still stopping?)", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Anything else that the system reports.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// The name of a segment file.
pub fn segment_name(index: u32) -> String {
    format!("journal-{index:04}.seg")
}

impl Files {
    /// Formats a journal: makes the directory if need be, reserves all segments, fills them with
    /// zeros and syncs everything. `progress` is told bytes done and bytes in all. If it fails, the
    /// files it made are removed again.
    pub fn create(
        dir: &Path,
        config: &Config,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self, FilesError> {
        config.validate()?;
        fs::create_dir_all(dir).map_err(|source| io_error(dir, "cannot create", source))?;
        let mut made = Vec::new();
        let result = create_all(dir, config, &mut made, &mut progress);
        if result.is_err() {
            for path in &made {
                // The first error is the one worth reporting; a leftover shows as `Exists`.
                let _ = fs::remove_file(path);
            }
        }
        result
    }

    /// Opens and locks the segment files of a journal. Waits up to half a second for a process that
    /// is just ending.
    pub fn open(dir: &Path, config: &Config) -> Result<Self, FilesError> {
        config.validate()?;
        let mut files = Vec::new();
        for index in 0..config.segment_count {
            let path = dir.join(segment_name(index));
            if !path.exists() {
                return Err(FilesError::Missing {
                    path,
                    expected: config.segment_count,
                });
            }
            let file = open_direct(&path, false)?;
            let found = size_of_file(&file, &path)?;
            if found != config.segment_size {
                return Err(FilesError::Size {
                    path,
                    found,
                    expected: config.segment_size,
                });
            }
            lock(&file, &path)?;
            files.push(file);
        }
        let path = dir.join(segment_name(config.segment_count));
        match fs::metadata(&path) {
            Ok(metadata) => Err(FilesError::Size {
                path,
                found: metadata.len(),
                expected: 0,
            }),
            Err(_) => Ok(Self { files }),
        }
    }

    /// Number of segment files.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The descriptors, in order of segment index: to be registered with a ring.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.files.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// What the kernel says of the cache of the device below: a line worth logging at start.
    pub fn cache(&self) -> Option<DeviceCache> {
        let device = self.files.first()?.metadata().ok()?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let base = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        // A partition has no queue of its own.
        let queue = ["queue", "../queue"].map(|path| base.join(path));
        let queue = queue.iter().find(|path| path.is_dir())?;
        let read = |name: &str| Some(fs::read_to_string(queue.join(name)).ok()?.trim().to_owned());
        Some(DeviceCache {
            write_cache: read("write_cache")?,
            fua: read("fua")? == "1",
        })
    }

    fn file(&self, index: u32) -> io::Result<&File> {
        let missing = || io::Error::new(io::ErrorKind::InvalidInput, "no such segment file");
        self.files.get(index as usize).ok_or_else(missing)
    }
}

/// How a block device keeps what was written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCache {
    /// `write back` (a flush is needed, and sent) or `write through`.
    pub write_cache: String,
    /// Whether single writes can bypass the cache, which saves the flush.
    pub fua: bool,
}

impl ReadAt for Files {
    fn read_at(&mut self, file: u32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file(file)?.read_exact_at(bytes, offset)
    }
}

impl WriteAt for Files {
    fn write_at(&mut self, file: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(file)?;
        let part = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: one iovec that describes `bytes`, borrowed for the whole call and only read by
        // it; the descriptor belongs to `file`.
        let written =
            unsafe { libc::pwritev2(file.as_raw_fd(), &part, 1, offset, libc::RWF_DSYNC) };
        match usize::try_from(written) {
            Err(_) => Err(io::Error::last_os_error()),
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.iter().try_for_each(File::sync_data)
    }
}

fn create_all(
    dir: &Path,
    config: &Config,
    made: &mut Vec<PathBuf>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Files, FilesError> {
    // Asked first, because a reservation that fails has taken all there was until then.
    if free_space(dir).is_some_and(|free| free < config.capacity()) {
        return Err(FilesError::NoSpace {
            path: dir.to_path_buf(),
            needed: config.capacity(),
        });
    }
    // All space is reserved before the long part, so that a full disk is found out at once.
    let mut files = Vec::new();
    for index in 0..config.segment_count {
        let path = dir.join(segment_name(index));
        let file = open_direct(&path, true)?;
        made.push(path.clone());
        lock(&file, &path)?;
        reserve(&file, config.segment_size)
            .map_err(|source| space_error(&path, config, "cannot reserve", source))?;
        files.push(file);
    }
    let zeros = AlignedBuffer::new(FORMAT_CHUNK);
    for (index, file) in (0_u64..).zip(&files) {
        let path = &made[usize::try_from(index).expect("an index of a vector")];
        let base = index * config.segment_size;
        let progress = &mut |done| progress(base + done, config.capacity());
        write_zeros(file, config.segment_size, zeros.as_slice(), progress)
            .map_err(|source| space_error(path, config, "cannot write zeros", source))?;
        file.sync_all()
            .map_err(|source| io_error(path, "cannot sync", source))?;
    }
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| io_error(dir, "cannot sync", source))?;
    Ok(Files { files })
}

fn open_direct(path: &Path, create: bool) -> Result<File, FilesError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(create)
        .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
        .open(path);
    let file = opened.map_err(|source| match source.raw_os_error() {
        Some(libc::EEXIST) => FilesError::Exists {
            path: path.to_path_buf(),
        },
        Some(libc::EINVAL) => no_direct_io(path, "open with O_DIRECT refused".to_owned()),
        _ => io_error(path, "cannot open", source),
    })?;
    match direct_io_problem(&file, path) {
        None => Ok(file),
        Some(reason) => {
            if create {
                // Made a moment ago, by this call.
                let _ = fs::remove_file(path);
            }
            Err(no_direct_io(path, reason))
        }
    }
}

/// Why direct I/O in units of one sector would not work, as far as it can be known beforehand.
fn direct_io_problem(file: &File, path: &Path) -> Option<String> {
    const RAMFS: i64 = 0x8584_58f6;
    // SAFETY: an all-zero statfs is a valid value of a plain C struct.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `system` is a valid place for the result, and the descriptor belongs to `file`.
    let found = unsafe { libc::fstatfs(file.as_raw_fd(), &mut system) };
    if found == 0 && [libc::TMPFS_MAGIC, RAMFS].contains(&system.f_type) {
        return Some("memory, which does not survive power loss".to_owned());
    }
    let (memory, offset) = direct_io_alignment(path)?;
    let sector = u32::try_from(SECTOR).expect("4096");
    if memory == 0 || offset == 0 {
        return Some("no direct I/O on this file".to_owned());
    }
    (memory > sector || offset > sector)
        .then(|| format!("wants direct I/O aligned to {memory} and {offset} bytes"))
}

/// Alignment of memory and of offsets that direct I/O on a file needs, where the kernel and the
/// file system know (`STATX_DIOALIGN`, 6.1).
fn direct_io_alignment(path: &Path) -> Option<(u32, u32)> {
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statx is a valid value of a plain C struct.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a string that ends in zero, `status` a valid place for the result.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            name.as_ptr(),
            0,
            libc::STATX_DIOALIGN,
            &mut status,
        )
    };
    let known = result == 0 && status.stx_mask & libc::STATX_DIOALIGN != 0;
    known.then_some((status.stx_dio_mem_align, status.stx_dio_offset_align))
}

/// Bytes that this user may still allocate below `dir`, where the system says.
fn free_space(dir: &Path) -> Option<u64> {
    let name = CString::new(dir.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statvfs is a valid value of a plain C struct.
    let mut system: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a string that ends in zero, `system` a valid place for the result.
    let result = unsafe { libc::statvfs(name.as_ptr(), &mut system) };
    (result == 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
}

fn reserve(file: &File, size: u64) -> io::Result<()> {
    let size = libc::off_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: no memory is involved, and the descriptor belongs to `file`.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // The zeros that follow allocate the blocks as well.
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => Ok(()),
        _ => Err(error),
    }
}

fn write_zeros(
    file: &File,
    size: u64,
    zeros: &[u8],
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut offset = 0;
    while offset < size {
        let len = usize::try_from(size - offset).map_or(zeros.len(), |rest| rest.min(zeros.len()));
        file.write_all_at(&zeros[..len], offset)?;
        offset += len as u64;
        progress(offset);
    }
    Ok(())
}

fn lock(file: &File, path: &Path) -> Result<(), FilesError> {
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(io_error(path, "cannot lock", source)),
        }
    }
    Err(FilesError::Locked {
        path: path.to_path_buf(),
    })
}

fn size_of_file(file: &File, path: &Path) -> Result<u64, FilesError> {
    let metadata = file
        .metadata()
        .map_err(|source| io_error(path, "cannot stat", source))?;
    Ok(metadata.len())
}

fn space_error(path: &Path, config: &Config, what: &'static str, source: io::Error) -> FilesError {
    match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => FilesError::NoSpace {
            path: path.to_path_buf(),
            needed: config.capacity(),
        },
        Some(libc::EINVAL) => no_direct_io(path, "direct write refused".to_owned()),
        _ => io_error(path, what, source),
    }
}

fn no_direct_io(path: &Path, reason: String) -> FilesError {
    FilesError::NoDirectIo {
        path: path.to_path_buf(),
        reason,
    }
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> FilesError {
    FilesError::Io {
        path: path.to_path_buf(),
        what,
        source,
    }
}
