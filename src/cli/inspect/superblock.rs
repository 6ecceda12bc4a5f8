//! The superblock: each of its copies, and the state that a restart would take, in words.

use serde::Serialize;

use super::source::Source;
use super::text::{Columns, Decimal, Hex, Side, Utc, heading, line};
use super::{Failure, Problem};
use crate::cli::size::Size;
use crate::limits::{SECTOR_SIZE, SUPERBLOCK_COPIES};
use crate::replica::superblock::{State, SuperblockError};

const PART: &str = "superblock";

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct SuperblockReport {
    path: String,
    copies: Vec<CopyReport>,
    state: Option<StateReport>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct CopyReport {
    copy: usize,
    offset: usize,
    verdict: Verdict,
    sequence: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// It holds the newest state.
    Valid,
    /// It holds the state before: the machine stopped while a change was being written.
    Older,
    Damaged,
    /// The file ends before it.
    Missing,
}

#[derive(Debug, Serialize)]
struct StateReport {
    cluster: Decimal,
    replica: u8,
    replica_count: u8,
    standby_count: u8,
    recovering: bool,
    starts: u64,
    sequence: u64,
    sessions_max: u32,
    view: u32,
    /// Of `view`.
    primary: u32,
    log_view: u32,
    log_view_op: u64,
    commit: u64,
    journal_id: Hex,
    segment_size: u64,
    segment_count: u32,
    journal_start: u64,
    /// The prepare that the log continues.
    checkpoint_checksum: Hex,
    checkpoint: Option<CheckpointRef>,
}

#[derive(Debug, Serialize)]
struct CheckpointRef {
    op: u64,
    timestamp: u64,
    time: Utc,
    manifest: String,
    manifest_size: u64,
    manifest_checksum: Hex,
}

/// Reads all copies. The state is `None` if there is none to go on with.
pub(super) fn examine(
    source: &Source,
    problems: &mut Vec<Problem>,
) -> Result<(SuperblockReport, Option<State>), Failure> {
    let bytes = source.superblock()?;
    // A file of another length is still read as far as it goes.
    let mut padded = bytes.clone();
    padded.resize(SUPERBLOCK_COPIES * SECTOR_SIZE, 0);
    let decoded = State::decode_file(&padded);
    let newest = decoded.as_ref().map_or(0, |state| state.sequence);
    let copies = State::decode_copies(&padded);
    let copies: Vec<CopyReport> = (0..)
        .zip(copies)
        .map(|(copy, state)| {
            let offset = copy * SECTOR_SIZE;
            let sequence = state.map(|state| state.sequence);
            let verdict = match sequence {
                None if offset + SECTOR_SIZE > bytes.len() => Verdict::Missing,
                None => Verdict::Damaged,
                Some(sequence) if sequence < newest => Verdict::Older,
                Some(_) => Verdict::Valid,
            };
            CopyReport {
                copy,
                offset,
                verdict,
                sequence,
            }
        })
        .collect();
    let path = source.superblock_path().display().to_string();
    if bytes.len() != padded.len() {
        let error = SuperblockError::Size(bytes.len());
        problems.push(Problem::damage(PART, format!("{path}: {error}")));
    }
    match &decoded {
        Ok(_) => report_copies(&path, &copies, problems),
        Err(error @ SuperblockError::Version(_)) => {
            let what = format!("{path}: {error}; use that release to inspect it");
            problems.push(Problem::unreadable(PART, what));
        }
        Err(error) => problems.push(Problem::damage(PART, format!("{path}: {error}"))),
    }
    let report = SuperblockReport {
        path,
        copies,
        state: decoded.as_ref().ok().map(StateReport::of),
    };
    Ok((report, decoded.ok()))
}

fn report_copies(path: &str, copies: &[CopyReport], problems: &mut Vec<Problem>) {
    for copy in copies {
        let what = match copy.verdict {
            Verdict::Valid | Verdict::Older => continue,
            Verdict::Damaged => "does not match its checksum",
            Verdict::Missing => "is not there",
        };
        problems.push(Problem::damage(
            PART,
            format!(
                "{path}: copy {} at offset {} {what}; the others hold the state, and the next start \
                 writes all four again: look for the disk's own error reports",
                copy.copy, copy.offset
            ),
        ));
    }
}

impl StateReport {
    fn of(state: &State) -> Self {
        let checkpoint = state.manifest().map(|manifest| CheckpointRef {
            op: state.checkpoint_op,
            timestamp: state.checkpoint_timestamp,
            time: Utc(state.checkpoint_timestamp),
            manifest: manifest.entry().name.to_string(),
            manifest_size: manifest.size,
            manifest_checksum: Hex(manifest.checksum),
        });
        Self {
            cluster: Decimal(state.cluster),
            replica: state.replica,
            replica_count: state.replica_count,
            standby_count: state.standby_count,
            recovering: state.recovering != 0,
            starts: state.starts,
            sequence: state.sequence,
            sessions_max: state.sessions_max,
            view: state.view,
            primary: state.view % u32::from(state.replica_count.max(1)),
            log_view: state.log_view,
            log_view_op: state.log_view_op,
            commit: state.commit,
            journal_id: Hex(state.journal_id),
            segment_size: state.segment_size,
            segment_count: state.segment_count,
            journal_start: state.journal_start,
            checkpoint_checksum: Hex(state.checkpoint_checksum),
            checkpoint,
        }
    }
}

impl SuperblockReport {
    pub(super) fn write(&self, out: &mut String) {
        heading(out, "superblock", &self.path);
        let titles = [
            ("copy", Side::Right),
            ("offset", Side::Right),
            ("sequence", Side::Right),
            ("", Side::Left),
        ];
        let mut columns = Columns::new(&titles);
        for copy in &self.copies {
            let verdict = match copy.verdict {
                Verdict::Valid => "valid",
                Verdict::Older => "valid, but older: a change was being written",
                Verdict::Damaged => "DAMAGED",
                Verdict::Missing => "MISSING",
            };
            columns.row(vec![
                copy.copy.to_string(),
                copy.offset.to_string(),
                copy.sequence.map_or_else(String::new, |s| s.to_string()),
                verdict.to_owned(),
            ]);
        }
        columns.write(out);
        out.push('\n');
        if let Some(state) = &self.state {
            state.write(out);
            out.push('\n');
        }
    }
}

impl StateReport {
    fn write(&self, out: &mut String) {
        line(out, "cluster", self.cluster);
        line(
            out,
            "replica",
            match (self.replica < self.replica_count, self.standby_count) {
                (false, standbys) => format!(
                    "{}: standby {} of {standbys}, beside {} replicas",
                    self.replica,
                    self.replica - self.replica_count,
                    self.replica_count
                ),
                (true, 0) => format!("{} of {}", self.replica, self.replica_count),
                (true, standbys) => format!(
                    "{} of {}, and {standbys} standbys",
                    self.replica, self.replica_count
                ),
            },
        );
        line(out, "starts", self.starts);
        if self.recovering {
            line(
                out,
                "recovering",
                "it does not vote until the others have brought it up to date",
            );
        }
        line(
            out,
            "view",
            format!(
                "{}, whose primary is replica {}{}",
                self.view,
                self.primary,
                if self.primary == u32::from(self.replica) {
                    " (this one)"
                } else {
                    ""
                }
            ),
        );
        let log_view = if self.log_view == self.view {
            format!("{}, which began at op {}", self.log_view, self.log_view_op)
        } else {
            format!(
                "{}, which began at op {}: a view change was under way",
                self.log_view, self.log_view_op
            )
        };
        line(out, "log view", log_view);
        line(out, "commit", format!("at least op {}", self.commit));
        match &self.checkpoint {
            None => line(out, "checkpoint", "none yet: the log is all there is"),
            Some(checkpoint) => {
                line(
                    out,
                    "checkpoint",
                    format!("op {}, {}", checkpoint.op, checkpoint.time),
                );
                line(
                    out,
                    "manifest",
                    format!(
                        "{}, {}, checksum {}",
                        checkpoint.manifest,
                        Size(checkpoint.manifest_size),
                        checkpoint.manifest_checksum
                    ),
                );
            }
        }
        line(out, "log continues", self.checkpoint_checksum);
        let size = Size(self.segment_size.saturating_mul(self.segment_count.into()));
        line(
            out,
            "journal",
            format!(
                "{size}: {} segments of {}, read from position {}",
                self.segment_count,
                Size(self.segment_size),
                self.journal_start
            ),
        );
        line(out, "journal id", self.journal_id);
        line(
            out,
            "sessions",
            format!("at most {}, equal on all replicas", self.sessions_max),
        );
        line(
            out,
            "sequence",
            format!("{} changes since format", self.sequence.saturating_sub(1)),
        );
    }
}
