//! What is kept of a run, and how it is shown: as text, as JSON, as one HTML page.
//!
//! [`RunReport`] is the file format: everything measured, and everything needed to know what it means.
//! Adding a field is compatible; `format` grows when the meaning of one changes.

pub mod html;
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

#[cfg(test)]
impl RunReport {
    /// A run of five seconds with a latency that grows, made by the code that measures.
    pub(crate) fn example() -> RunReport {
        use crate::figures::Figures;
        let mut figures = Figures::new(0);
        for batch in 1..=5_000_u64 {
            let now = batch * 1_000_000;
            figures.on_waiting(now - 1_000_000);
            figures.on_acknowledged(now, now - batch * 100, 100, None);
        }
        RunReport {
            format: FORMAT,
            generator_version: "0.0.0".into(),
            label: "example".into(),
            started_unix_s: 1_790_000_000,
            server: Server {
                addresses: vec!["127.0.0.1:3001".into(), "127.0.0.1:3002".into()],
                cluster: "0".into(),
                view: 0,
                note: None,
            },
            load: LoadReport {
                transfers: Some(500_000),
                duration_s: None,
                rate: None,
                warmup: 0,
                accounts: 10_000,
                clients: 1,
                batch: 100,
                workload: WorkloadKind::Uniform,
                zipf_theta: 0.99,
                hot_share: 0.5,
                ids: IdOrder::Time,
                seed: 42,
            },
            machine: Machine {
                cpu: "A processor".into(),
                cores: 2,
                memory_gib: 8.0,
                kernel: "6.18".into(),
            },
            figures: figures.finish(5_000_000_000),
            created: 500_000,
            unexpected: Vec::new(),
            generator: GeneratorReport::default(),
            accounts_s: 0.1,
            probe: None,
            verified: Some(Verified {
                accounts: 10_000,
                transfers_accepted: 500_000,
                posted_expected: 123_456,
                debits_posted: 123_456,
                credits_posted: 123_456,
                each_account: true,
                samples: 8_189,
                ..Verified::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results/run.json");
        let report = RunReport::example();
        report.write_json(&path).unwrap();
        // Numbers may differ in their last bit; everything that is shown must not.
        let read = RunReport::read_json(&path).unwrap();
        assert_eq!(text::run(&read), text::run(&report));
        assert!(html::page(&[read]) == html::page(&[report]));
    }

    #[test]
    fn files_of_other_kinds_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        let mut report = RunReport::example();
        report.format = 99;
        report.write_json(&path).unwrap();
        let newer = RunReport::read_json(&path).unwrap_err();
        assert!(newer.message.contains("format 99"), "{newer}");
        std::fs::write(&path, "{}").unwrap();
        let other = RunReport::read_json(&path).unwrap_err();
        assert!(
            other.message.contains("run.json is not a report"),
            "{other}"
        );
        let missing = RunReport::read_json(&directory.path().join("none")).unwrap_err();
        assert!(missing.message.contains("cannot read"), "{missing}");
    }

    #[test]
    fn a_run_is_good_if_everything_was_created_and_found() {
        let mut report = RunReport::example();
        assert!(report.is_good());
        report.unexpected = vec![StatusCount {
            code: 54,
            name: "exceeds_credits".into(),
            count: 3,
        }];
        assert!(!report.is_good());
        report.unexpected.clear();
        let verified = report.verified.as_mut().unwrap();
        verified.debits_posted -= 1;
        verified.compare_sums();
        assert_eq!(verified.differences_count, 1);
        assert!(!report.is_good());
        assert!(text::run(&report).contains("the sum of debits_posted is 123455, expected 123456"));
    }
}
