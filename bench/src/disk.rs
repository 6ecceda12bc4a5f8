//! The disk's own latency: 4 KiB writes that bypass the page cache and return when they are durable.
//!
//! This is the floor under every acknowledged transfer of a server on the same disk, so a report can say
//! how many times the floor a single transfer costs. The file is written once before the measurement: a
//! first write into unwritten space also has to be recorded in the file system's journal, which costs twice.

#![expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;
/// A slow disk gets fewer writes in one go rather than a longer run.
const TIME_MAX: Duration = Duration::from_millis(300);

#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskLatency {
    pub writes: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// A file of its own in a directory, removed when dropped.
pub struct DiskProbe {
    file: File,
    path: PathBuf,
    latencies: Histogram<u64>,
}

impl DiskProbe {
    pub fn create(directory: &Path) -> Result<DiskProbe, Failure> {
        let path = directory.join(format!("disk-probe-{}.tmp", std::process::id()));
        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(|error| wrong("create", &path, &error))?;
        let latencies =
            Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants");
        let probe = DiskProbe {
            file,
            path,
            latencies,
        };
        let block = Block([0; BLOCK]);
        for index in 0..BLOCKS {
            probe.write(&block, index)?;
        }
        Ok(probe)
    }

    /// Measures some writes, one after the other.
    pub fn measure(&mut self, writes: u64) -> Result<(), Failure> {
        let mut block = Block([0; BLOCK]);
        let start = Instant::now();
        for _ in 0..writes {
            let number = self.latencies.len();
            block.0[..8].copy_from_slice(&number.to_le_bytes());
            let before = Instant::now();
            self.write(&block, number % BLOCKS)?;
            let nanos = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.latencies.saturating_record(nanos);
            if start.elapsed() > TIME_MAX {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, block: &Block, index: u64) -> Result<(), Failure> {
        self.file
            .write_all_at(&block.0, index * BLOCK as u64)
            .map_err(|error| wrong("write", &self.path, &error))
    }

    pub fn latency(&self) -> DiskLatency {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        DiskLatency {
            writes: self.latencies.len(),
            p50_us: micros(self.latencies.value_at_quantile(0.5)),
            p99_us: micros(self.latencies.value_at_quantile(0.99)),
            max_us: micros(self.latencies.max()),
        }
    }
}

impl Drop for DiskProbe {
    fn drop(&mut self) {
        // A file of a mebibyte that cannot be removed is no reason to lose the run's figures.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn wrong(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::files(format!(
        "--disk-probe: cannot {what} {}: {error}; name a directory on a disk that takes O_DIRECT (not \
         tmpfs)",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_left_clean() {
        // The build directory is on a disk; the system's temporary directory may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut probe = DiskProbe::create(directory.path()).unwrap();
        probe.measure(50).unwrap();
        let latency = probe.latency();
        drop(probe);
        assert!(latency.writes > 0 && latency.p50_us > 1.0 && latency.p50_us <= latency.p99_us);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let failure = DiskProbe::create(Path::new("/nowhere/at/all"))
            .err()
            .unwrap();
        assert!(failure.message.contains("/nowhere/at/all"), "{failure}");
    }
}
