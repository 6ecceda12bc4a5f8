//! What is kept of a run, and how it is shown: as text, as JSON, as one HTML page.
//!
//! [`RunReport`] is the file format: everything measured, and everything needed to know what it means.
//! Adding a field is compatible; `format` grows when the meaning of one changes.

pub mod numbers;
pub mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::args::{IdOrder, WorkloadKind};
use crate::disk::DiskLatency;
use crate::failure::Failure;
use crate::figures::FiguresReport;
use crate::machine::Machine;
use crate::phase::verify::Verified;

/// Version of the JSON files.
pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    pub format: u32,
    pub generator_version: String,
    pub label: String,
    pub started_unix_s: u64,
    pub server: Server,
    pub load: LoadReport,
    pub machine: Machine,
    pub figures: FiguresReport,
    pub created: u64,
    /// Events that were answered with another status than `created`.
    pub unexpected: Vec<StatusCount>,
    pub generator: GeneratorReport,
    /// Seconds that creating the accounts took; not part of the figures.
    pub accounts_s: f64,
    pub probe: Option<ProbeReport>,
    pub verified: Option<Verified>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub addresses: Vec<String>,
    pub cluster: String,
    pub view: u32,
    /// What the user says about durability, disks and placement; a client cannot know.
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    pub transfers: Option<u64>,
    pub duration_s: Option<f64>,
    /// Transfers a second of an open loop.
    pub rate: Option<u64>,
    pub warmup: u64,
    pub accounts: u32,
    pub clients: u32,
    pub batch: u32,
    pub workload: WorkloadKind,
    pub zipf_theta: f64,
    pub hot_share: f64,
    pub ids: IdOrder,
    pub seed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCount {
    pub code: u32,
    pub name: String,
    pub count: u64,
}

/// What the load generator itself did and cost during the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorReport {
    /// Processor time of its one thread, per batch and as a share of the elapsed time.
    pub cpu_us_per_batch: f64,
    pub cpu_share: f64,
    /// Batches that were generated while their client was idle, so that it showed in the throughput.
    pub unprepared: u64,
    /// Requests that were sent more than once, and connections that were lost.
    pub repeated: u64,
    pub reconnected: u64,
}

/// Single transfers against single durable writes, measured in the same run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    pub disk: DiskLatency,
    pub requests: u64,
    pub request_p50_us: f64,
    pub request_p99_us: f64,
    /// Median request over median write.
    pub ratio_p50: f64,
}

impl RunReport {
    pub fn rejected(&self) -> u64 {
        self.unexpected.iter().map(|status| status.count).sum()
    }

    /// Everything was created, and verification (if it ran) found no difference.
    pub fn is_good(&self) -> bool {
        self.rejected() == 0 && self.verified.as_ref().is_none_or(Verified::is_good)
    }

    pub fn write_json(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).expect("reports have string keys only");
        write(path, &(text + "\n"))
    }

    pub fn read_json(path: &Path) -> Result<RunReport, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::files(format!("cannot read {}: {error}", path.display())))?;
        let report: RunReport = serde_json::from_str(&text).map_err(|error| {
            Failure::files(format!(
                "{} is not a report of a run: {error}",
                path.display()
            ))
        })?;
        if report.format != FORMAT {
            return Err(Failure::files(format!(
                "{} has format {}, this version reads format {FORMAT}",
                path.display(),
                report.format
            )));
        }
        Ok(report)
    }
}

/// Writes a report file, with its directory.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|error| Failure::files(format!("cannot write {}: {error}", path.display())))
}
