//! What can be done to the disk below a replica: a file system of its own that is small, a limit on how
//! fast a process may write, and bits that change by themselves.
//!
//! The first two are the kernel's and need root; a drill that may not have them is skipped and says so.
//! Both end with the drill: mounts are made in a mount namespace of its own, and the group of a slow
//! process is removed with it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::process::run;
use crate::trouble::Trouble;

/// Old and new control groups.
const BLKIO: &str = "/sys/fs/cgroup/blkio";
const UNIFIED: &str = "/sys/fs/cgroup";

// ── a small file system ─────────────────────────────────────────────────────────────────────────────

/// From here on, mounts made by this thread and the processes it starts are seen by them alone, and
/// vanish with them.
pub(crate) fn own_mounts() -> Result<(), Trouble> {
    // SAFETY: unshare changes which mounts this thread sees; no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Trouble::skipped(format!(
            "a loop-mounted file system needs root: {error}"
        )));
    }
    run("mount", &["--make-rprivate", "/"]).map_err(Trouble::skipped)
}

/// Makes an ext4 file system of `mebibytes` in the file `image` and mounts it at `directory`.
pub(crate) fn mount_small(image: &Path, directory: &Path, mebibytes: u64) -> Result<(), Trouble> {
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(directory)?;
        File::create(image)?.set_len(mebibytes << 20)
    };
    make().map_err(|error| Trouble::failed(format!("{}: {error}", image.display())))?;
    let (image, directory) = (text_of(image), text_of(directory));
    // No reserve for root, which the replica may run as.
    run("mkfs.ext4", &["-q", "-m", "0", &image]).map_err(Trouble::skipped)?;
    run("mount", &["-o", "loop", &image, &directory]).map_err(Trouble::skipped)
}

/// Takes it away again, also while a file in it is still open.
pub(crate) fn unmount(directory: &Path) {
    // What is still mounted vanishes with the drill; only its directory cannot be removed before.
    let _ = run("umount", &["--lazy", &text_of(directory)]);
}

/// What a file system is filled with.
const BALLAST: &str = "ballast";

/// Removes what `fill` has written.
pub(crate) fn free(directory: &Path) -> Result<(), Trouble> {
    let path = directory.join(BALLAST);
    fs::remove_file(&path).map_err(|error| Trouble::failed(format!("{}: {error}", path.display())))
}

/// Writes a file into `directory` until nothing is left free on its file system.
pub(crate) fn fill(directory: &Path) -> Result<(), Trouble> {
    let path = directory.join(BALLAST);
    let wrong = |error| Trouble::failed(format!("{}: {error}", path.display()));
    let mut file = File::create(&path).map_err(wrong)?;
    for size in [1 << 20, 4096, 1] {
        let block = vec![0xa5; size];
        loop {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(wrong(error)),
            }
        }
    }
    match file.sync_all() {
        Err(error) if error.kind() != ErrorKind::StorageFull => Err(wrong(error)),
        _ => Ok(()),
    }
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

/// Copies a directory with everything below it, holes as holes.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Trouble> {
    let arguments = ["-a", "--sparse=always", &text_of(from), &text_of(to)];
    run("cp", &arguments).map_err(Trouble::failed)
}

// ── a slow disk ─────────────────────────────────────────────────────────────────────────────────────

/// A control group whose processes write at most so many times a second.
#[derive(Debug)]
pub(crate) struct Throttle {
    group: PathBuf,
}

impl Throttle {
    /// For the disk that holds `directory`.
    pub(crate) fn on(directory: &Path, writes_per_s: u32) -> Result<Self, Trouble> {
        let skip = |what: &Path, error: std::io::Error| {
            Trouble::skipped(format!(
                "a slow disk needs a control group for block I/O: {}: {error}",
                what.display()
            ))
        };
        let device = disk_of(directory)?;
        let name = format!("stampede-drill-{}", std::process::id());
        let (group, file, line) = if Path::new(BLKIO).is_dir() {
            let file = "blkio.throttle.write_iops_device";
            (
                Path::new(BLKIO).join(name),
                file,
                format!("{device} {writes_per_s}"),
            )
        } else {
            let line = format!("{device} wiops={writes_per_s}");
            (Path::new(UNIFIED).join(name), "io.max", line)
        };
        fs::create_dir(&group).map_err(|error| skip(&group, error))?;
        let throttle = Self { group };
        let limit = throttle.group.join(file);
        fs::write(&limit, line).map_err(|error| skip(&limit, error))?;
        Ok(throttle)
    }

    /// Slows a process down from now on.
    pub(crate) fn add(&self, process: u32) -> Result<(), Trouble> {
        let members = self.group.join("cgroup.procs");
        fs::write(&members, process.to_string())
            .map_err(|error| Trouble::skipped(format!("{}: {error}", members.display())))
    }
}

impl Drop for Throttle {
    /// The group can be removed once its processes have ended or left; they are sent to the root.
    fn drop(&mut self) {
        let parent = self.group.parent().unwrap_or_else(|| Path::new(UNIFIED));
        let members = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for member in members.lines() {
            let _ = fs::write(parent.join("cgroup.procs"), member);
        }
        let _ = fs::remove_dir(&self.group);
    }
}

/// `major:minor` of the whole disk below a directory: limits are not for partitions.
fn disk_of(directory: &Path) -> Result<String, Trouble> {
    let device = fs::metadata(directory)
        .map_err(|error| Trouble::failed(format!("{}: {error}", directory.display())))?
        .dev();
    let device = format!("{}:{}", libc::major(device), libc::minor(device));
    let system = PathBuf::from(format!("/sys/dev/block/{device}"));
    let whole = if system.join("partition").exists() {
        fs::canonicalize(&system)
            .ok()
            .and_then(|path| fs::read_to_string(path.parent()?.join("dev")).ok())
    } else {
        fs::read_to_string(system.join("dev")).ok()
    };
    whole
        .map(|text| text.trim().to_owned())
        .ok_or_else(|| Trouble::skipped(format!("{} is on no block device", directory.display())))
}

// ── bits that change ────────────────────────────────────────────────────────────────────────────────

/// Flips one bit of a file.
pub(crate) fn flip(path: &Path, offset: u64, bit: u32) -> Result<(), Trouble> {
    let wrong = |error| Trouble::failed(format!("{}: {error}", path.display()));
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(wrong)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).map_err(wrong)?;
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, offset).map_err(wrong)?;
    file.sync_all().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_flipped_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, [0xff; 8]).unwrap();
        flip(&path, 3, 13).unwrap();
        let expected = [0xff, 0xff, 0xff, 0xdf, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(fs::read(&path).unwrap(), expected);
        assert!(flip(&path, 8, 0).is_err());
    }

    #[test]
    fn the_disk_below_a_directory_has_numbers() {
        // The build directory is on a disk, at least where there is one at all.
        if let Ok(disk) = disk_of(Path::new(env!("CARGO_MANIFEST_DIR"))) {
            let (major, minor) = disk.split_once(':').unwrap();
            assert!(major.parse::<u32>().is_ok() && minor.parse::<u32>().is_ok());
        }
    }
}
