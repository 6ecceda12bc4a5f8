//! `stampede inspect`: every file of a replica, read by a human.
//!
//! ```text
//!   source       the directory, opened so that nothing can be written
//!     ├─► superblock   four copies, and the newest state in words
//!     ├─► journal      what a restart would find, entry by entry; `log`: which of it is in force
//!     ├─► checkpoint   the manifest's files, every block verified
//!     ├─► sessions     the client table of the checkpoint
//!     └─► verify       all of that, and the ledger restored and done once more
//!            each gives a report (a value) and problems ──► text or JSON, exit code
//! ```
//!
//! Promises: nothing is written, not even a lock file; a directory that a server uses is refused;
//! whatever can still be read of a damaged directory is shown. Exit code 0: sound; 3: damage was
//! found; 1: something could not be read.
//!
//! What a restart would decide (which entries are the log, what is damage) is taken from the same
//! code or follows `replica::open`; `docs/disk-format.md` explains the words.

mod checkpoint;
#[cfg(test)]
mod inspect_test;
mod journal;
mod log;
mod sessions;
pub(super) mod source;
mod superblock;
mod text;
mod verify;

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::checkpoint::CheckpointReport;
use self::journal::{JournalReport, OpRange, Selection};
use self::sessions::SessionsReport;
use self::source::Source;
use self::superblock::SuperblockReport;
use self::text::{heading, line};
use self::verify::VerifyReport;
use super::image::Image;
use super::{Failure, say};

/// Damage was found: the third exit code beside failure and usage.
const EXIT_DAMAGE: u8 = 3;

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(super) struct Arguments {
    /// Which files to show
    #[arg(value_enum, default_value_t = Part::All)]
    part: Part,
    /// Data directory of a replica that is not running, or an image made by `stampede backup`
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Show at most this many journal entries, the newest; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Show only journal entries of these operations, both ends included: A..B, A.., ..B or A
    #[arg(long, value_name = "A..B", value_parser = OpRange::parse, default_value = "..")]
    op: OpRange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Who this replica is, what it has promised, where its state begins
    Superblock,
    /// The log
    Journal,
    /// The files of the newest checkpoint
    Checkpoint,
    /// Clients, as of the newest checkpoint
    Sessions,
    /// Every checksum of every file, and every invariant of the ledger, now and at the end of its log
    Verify,
    /// Everything
    All,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Bytes are not what was written.
    Damage,
    /// Nobody knows: they could not be read, or not by this release.
    Unreadable,
}

/// Something that is not as it should be: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    part: &'static str,
    severity: Severity,
    pub(super) what: String,
}

impl Problem {
    fn damage(part: &'static str, what: impl Into<String>) -> Self {
        let (severity, what) = (Severity::Damage, what.into());
        Self {
            part,
            severity,
            what,
        }
    }

    fn unreadable(part: &'static str, what: impl Into<String>) -> Self {
        let (severity, what) = (Severity::Unreadable, what.into());
        Self {
            part,
            severity,
            what,
        }
    }
}

/// Everything that was asked for.
#[derive(Debug, Serialize)]
struct Report {
    directory: String,
    sound: bool,
    problems: Vec<Problem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    superblock: Option<SuperblockReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<JournalReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_log: Option<ImageLogReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<SessionsReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<VerifyReport>,
}

/// Of an image: what it has instead of a journal.
#[derive(Debug, Serialize)]
struct ImageLogReport {
    path: String,
    entries: usize,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = examine(arguments)?;
    if arguments.json {
        let mut text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::new(format!("cannot write the report: {error}")))?;
        text.push('\n');
        say(&text)?;
    } else {
        say(&report.text())?;
    }
    report.verdict()
}

fn examine(arguments: &Arguments) -> Result<Report, Failure> {
    let wants = |part| arguments.part == part || arguments.part == Part::All;
    let source = Source::open(&arguments.directory)?;
    let is_image = Image::is_at(&arguments.directory);
    let image = is_image
        .then(|| Image::open(&arguments.directory))
        .and_then(Result::ok);
    let mut problems = Vec::new();

    // The others cannot be read without it, so its problems always count.
    let (superblock, state) = superblock::examine(&source, &mut problems)?;
    let selection = Selection {
        ops: arguments.op,
        limit: arguments.limit,
    };
    let mut report = Report {
        directory: arguments.directory.display().to_string(),
        sound: true,
        problems: Vec::new(),
        superblock: wants(Part::Superblock).then_some(superblock),
        journal: None,
        image_log: None,
        checkpoint: None,
        sessions: None,
        verify: None,
    };
    if let Some(state) = state {
        if wants(Part::Journal) {
            match &image {
                Some(image) => report.image_log = image_log(image, &mut problems),
                None => {
                    report.journal = journal::examine(&source, &state, selection, &mut problems)
                }
            }
        }
        if wants(Part::Checkpoint) {
            report.checkpoint = Some(checkpoint::examine(&source, &state, &mut problems));
        }
        if wants(Part::Sessions) {
            report.sessions = sessions::examine(&source, &state, &mut problems);
        }
        if arguments.part == Part::Verify {
            report.verify = Some(verify::examine(
                &source,
                &state,
                image.as_ref(),
                &mut problems,
            ));
        }
    } else if arguments.part != Part::Superblock {
        let what = "cannot be read without a superblock: the identity and geometry of the journal, \
                    and the checksums of the checkpoint, stand only there";
        problems.push(Problem::unreadable("journal, checkpoint", what));
    }
    // Two parts may stumble over the same manifest.
    for problem in problems {
        if !report
            .problems
            .iter()
            .any(|known| known.what == problem.what)
        {
            report.problems.push(problem);
        }
    }
    report.sound = report.problems.is_empty();
    Ok(report)
}

fn image_log(image: &Image, problems: &mut Vec<Problem>) -> Option<ImageLogReport> {
    let log = image.log();
    let log = log.map_err(|failure| problems.push(Problem::damage("log", failure.message)));
    log.ok().map(|log| ImageLogReport {
        path: log.path.display().to_string(),
        entries: log.len(),
    })
}

impl Report {
    fn text(&self) -> String {
        let mut out = String::new();
        if let Some(superblock) = &self.superblock {
            superblock.write(&mut out);
        }
        if let Some(journal) = &self.journal {
            journal.write(&mut out);
        }
        if let Some(log) = &self.image_log {
            heading(&mut out, "image log", &log.path);
            line(&mut out, "entries", log.entries);
            out.push('\n');
        }
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.write(&mut out);
        }
        if let Some(sessions) = &self.sessions {
            sessions.write(&mut out);
        }
        if let Some(verify) = &self.verify {
            verify.write(&mut out);
        }
        if self.sound {
            out.push_str("sound: no damage found\n");
        } else {
            out.push_str("problems\n");
        }
        for Problem {
            part,
            severity,
            what,
        } in &self.problems
        {
            let severity = match severity {
                Severity::Damage => "damage",
                Severity::Unreadable => "unreadable",
            };
            let _ = writeln!(out, "  {severity}: {part}: {what}");
        }
        out
    }

    /// The exit code: damage weighs more than what is not known.
    fn verdict(&self) -> Result<(), Failure> {
        let damaged = |problem: &&Problem| problem.severity == Severity::Damage;
        let damage = self.problems.iter().filter(damaged).count();
        match (damage, self.problems.len()) {
            (0, 0) => Ok(()),
            (0, _) => Err(Failure::new(format!(
                "{} could not be read in full; see the problems in the report",
                self.directory
            ))),
            (count, _) => Err(Failure {
                code: EXIT_DAMAGE,
                message: format!(
                    "{} is damaged in {count} place{}; see the problems in the report",
                    self.directory,
                    if count == 1 { "" } else { "s" }
                ),
            }),
        }
    }
}
