//! The disk's own latency: 4 KiB writes that bypass the page cache and return when they are durable.
//!
//! This is the floor under every acknowledged transfer of a server on the same disk, so a report can say
//! how many times the floor a single transfer costs. The file is written once before the measurement: a
//! first write into unwritten space also has to be recorded in the file system's journal, which costs twice.

#![expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;
const WRITES: u64 = 1000;
/// A slow disk gets fewer writes rather than a longer run.
const TIME_MAX: Duration = Duration::from_secs(3);

#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskLatency {
    pub writes: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Measures in a file of its own in `directory`, and removes it.
pub fn probe(directory: &Path) -> Result<DiskLatency, Failure> {
    let path = directory.join(format!("disk-probe-{}.tmp", std::process::id()));
    let wrong = |what: &str, error: &io::Error| {
        Failure::files(format!(
            "--disk-probe: cannot {what} {}: {error}; name a directory on a disk that takes O_DIRECT \
             (not tmpfs)",
            path.display()
        ))
    };
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(flags)
        .open(&path)
        .map_err(|error| wrong("create", &error))?;
    let measured = measure(&file);
    let removed = std::fs::remove_file(&path);
    let latency = measured.map_err(|error| wrong("write", &error))?;
    removed.map_err(|error| wrong("remove", &error))?;
    Ok(latency)
}

fn measure(file: &File) -> io::Result<DiskLatency> {
    let mut block = Block([0; BLOCK]);
    for index in 0..BLOCKS {
        file.write_all_at(&block.0, index * BLOCK as u64)?;
    }
    let mut latencies: Histogram<u64> =
        Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants");
    let start = Instant::now();
    while latencies.len() < WRITES && start.elapsed() < TIME_MAX {
        let index = latencies.len() % BLOCKS;
        block.0[..8].copy_from_slice(&latencies.len().to_le_bytes());
        let before = Instant::now();
        file.write_all_at(&block.0, index * BLOCK as u64)?;
        let nanos = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
        latencies.saturating_record(nanos);
    }
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    Ok(DiskLatency {
        writes: latencies.len(),
        p50_us: micros(latencies.value_at_quantile(0.5)),
        p99_us: micros(latencies.value_at_quantile(0.99)),
        max_us: micros(latencies.max()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_left_clean() {
        // The build directory is on a disk; the system's temporary directory may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let latency = probe(directory.path()).unwrap();
        assert!(latency.writes > 0 && latency.p50_us > 1.0 && latency.p50_us <= latency.p99_us);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let failure = probe(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(failure.message.contains("/nowhere/at/all"), "{failure}");
    }
}
