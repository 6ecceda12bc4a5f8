//! What can be asked for: the command line, and the checks between its options.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::catalog::{self, Drill};

/// Sessions that a cluster keeps by default, less those that drills need for themselves.
const CLIENTS_MAX: u32 = 32;
/// A batch stays small, so that acknowledgements are many and gaps are seen sharply.
const BATCH_MAX: u32 = 1024;
const RUNS_MAX: u32 = 10_000;
const STEADY_MAX: f64 = 3600.0;

#[derive(Args, Clone, Debug)]
pub struct DrillArgs {
    /// Drills to run, one after the other; `all` for each of them, `list` to see what there is
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Where the replicas' data goes; on a disk with direct I/O (ext4, XFS)
    #[arg(long, default_value = "drill-data")]
    dir: PathBuf,
    /// Replicas of the cluster: 3 to 6
    #[arg(long, default_value_t = 3)]
    replicas: u8,
    /// Clients, each with one request in flight
    #[arg(long, default_value_t = 4)]
    clients: u32,
    /// Transfers in each request
    #[arg(long, default_value_t = 10)]
    batch: u32,
    /// How often the fault is repeated, for a distribution [default: each drill has its own]
    #[arg(long)]
    runs: Option<u32>,
    /// Seconds of load before and after each fault
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    steady: f64,
    /// Transfers on disk before the load begins
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    preload: u64,
    /// What is drawn: which backup, which bits
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Cut links in a relay, also where network namespaces are permitted
    #[arg(long)]
    relay: bool,
    /// Fail also where a figure misses its aim, not only where a result is wrong
    #[arg(long)]
    strict: bool,
    /// Write everything measured as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one self-contained HTML page with a timeline of each drill
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// The `stampede` to drill [default: this one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Leave data and logs in place, also of drills that passed
    #[arg(long)]
    keep: bool,
}

/// The same, after everything that can be refused has been refused.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) drills: Vec<&'static Drill>,
    pub(crate) program: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) replicas: usize,
    pub(crate) clients: u32,
    pub(crate) batch: u32,
    pub(crate) runs: Option<u32>,
    pub(crate) steady: Duration,
    pub(crate) preload: u64,
    pub(crate) seed: u64,
    pub(crate) relay: bool,
    pub(crate) strict: bool,
    pub(crate) keep: bool,
}

impl DrillArgs {
    pub(crate) fn is_list(&self) -> bool {
        self.names == ["list"]
    }

    /// `program` is drilled unless the command line names another.
    pub(crate) fn settings(&self, program: &Path) -> Result<Settings, String> {
        let within = |name: &str, value: u32, min: u32, max: u32| {
            if (min..=max).contains(&value) {
                Ok(value)
            } else {
                Err(format!("--{name} is {min} to {max}, not {value}"))
            }
        };
        // With one or two replicas no majority survives a loss, and most drills have nothing to show.
        within("replicas", self.replicas.into(), 3, 6)?;
        if !(0.1..=STEADY_MAX).contains(&self.steady) {
            return Err(format!(
                "--steady is 0.1 to {STEADY_MAX} seconds, not {}",
                self.steady
            ));
        }
        let runs = self.runs.map(|runs| within("runs", runs, 1, RUNS_MAX));
        Ok(Settings {
            drills: catalog::select(&self.names)?,
            program: self.program.clone().unwrap_or_else(|| program.to_owned()),
            directory: self.dir.clone(),
            replicas: self.replicas.into(),
            clients: within("clients", self.clients, 1, CLIENTS_MAX)?,
            batch: within("batch", self.batch, 1, BATCH_MAX)?,
            runs: runs.transpose()?,
            steady: Duration::from_secs_f64(self.steady),
            preload: self.preload,
            seed: self.seed,
            relay: self.relay,
            strict: self.strict,
            keep: self.keep,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        drill: DrillArgs,
    }

    fn settings(line: &str) -> Result<Settings, String> {
        let words = format!("drill {line}");
        let line = Line::try_parse_from(words.split(' ')).map_err(|error| error.to_string())?;
        line.drill.settings(Path::new("stampede"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "dance",
            "normal --replicas 2",
            "normal --replicas 7",
            "normal --clients 0",
            "normal --clients 1000",
            "normal --batch 0",
            "normal --runs 0",
            "normal --steady 0",
            "normal --steady NaN",
        ] {
            assert!(settings(line).is_err(), "{line}");
        }
        assert_eq!(
            settings("normal primary-crash --runs 3")
                .unwrap()
                .drills
                .len(),
            2
        );
        assert!(settings("all").unwrap().drills.len() > 2);
    }
}
