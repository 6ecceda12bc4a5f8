//! What the machine under the replica is, for the log line at start and for `version --verbose`.
//!
//! Everything is read from `/proc` and `/sys`; what cannot be read is left out, and nothing depends
//! on it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The block device under a directory, as far as sysfs knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    pub name: String,
    /// `write back`: the device has a volatile cache, and durable writes flush it.
    pub write_cache: String,
    /// Whether a single write can be made durable without a flush of the whole cache.
    pub fua: bool,
}

impl std::fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} (write cache: {}, fua: {})",
            self.name,
            self.write_cache,
            if self.fua { "yes" } else { "no" }
        )
    }
}

/// The device that holds `path`. `None` for file systems without one, such as overlays or networks.
pub fn block_device(path: &Path) -> Option<BlockDevice> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let link = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let mut directory = fs::canonicalize(link).ok()?;
    // A partition has no queue of its own; its disk, one level up, does.
    if !directory.join("queue").is_dir() {
        directory.pop();
    }
    let read = |name: &str| {
        let text = fs::read_to_string(directory.join("queue").join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    Some(BlockDevice {
        name: directory.file_name()?.to_string_lossy().into_owned(),
        write_cache: read("write_cache")?,
        fua: read("fua").as_deref() == Some("1"),
    })
}

/// Lets other threads of this machine go first, from here to the end of this one: for work that a starting
/// replica has to do while others serve. Best effort.
pub fn give_way() {
    const NICE: libc::c_int = 10;
    // SAFETY: changes how this thread is scheduled, and no memory. On Linux the number 0 of a process
    // means the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Memory of this process in huge pages, in KiB.
pub fn huge_pages_kib() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("AnonHugePages:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The setting that decides whether huge pages can be had: `always`, `madvise` or `never`.
pub fn huge_pages_setting() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let start = text.find('[')? + 1;
    let end = start + text[start..].find(']')?;
    Some(text[start..end].to_owned())
}

/// The processor's name.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// How much memory this process may lock, in words.
pub fn locked_memory() -> String {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes the structure it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return "unknown".to_owned();
    }
    if limit.rlim_cur == libc::RLIM_INFINITY {
        "unlimited".to_owned()
    } else {
        format!("{} KiB", limit.rlim_cur / 1024)
    }
}

/// Lets this process open as many files as it may: connections and journal segments can be more than
/// the usual soft limit of 1024. Gives the limit.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes the structure it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 0;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads the structure it is given.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return before;
    }
    limit.rlim_cur
}

/// A number that nobody has had before, from the kernel. Never zero.
///
/// # Errors
/// When the kernel has none.
pub fn random_id() -> io::Result<u128> {
    let mut bytes = [0; 16];
    // SAFETY: writes at most 16 bytes to the array.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(count) != Ok(bytes.len()) {
        return Err(io::Error::last_os_error());
    }
    Ok(u128::from_le_bytes(bytes).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_differ() {
        assert_ne!(random_id().unwrap(), random_id().unwrap());
        assert!(raise_open_files() >= 1024);
    }

    #[test]
    fn this_machine_can_be_described() {
        if let Some(setting) = huge_pages_setting() {
            assert!(["always", "madvise", "never"].contains(&setting.as_str()));
        }
        assert!(huge_pages_kib().is_some());
        if let Some(device) = block_device(Path::new("/")) {
            assert!(device.write_cache.starts_with("write "), "{device}");
            assert!(!device.name.is_empty());
        }
        assert_eq!(block_device(Path::new("/proc")), None);
    }
}
