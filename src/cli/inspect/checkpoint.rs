//! The checkpoint that the superblock refers to: its files, every block of them verified, and how
//! much the ledger in them holds.
//!
//! Two replicas with the same digest at the same op have the same files, byte for byte.

use serde::Serialize;

use super::Problem;
use super::source::{Checkpoints, Source};
use super::text::{Columns, Hex, Side, Utc, heading, line};
use crate::cli::size::Size;
use crate::machine::ledger::{SECTION_COUNTS, SECTION_EXPIRIES};
use crate::replica::superblock::State;
use crate::store::{FileEntry, FileKind, Manifest, SealedFile, Storage, StoreError};

const PART: &str = "checkpoint";

/// An expiry to come; see `docs/disk-format.md`.
const EXPIRY_SIZE: u64 = 16;

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct CheckpointReport {
    path: String,
    /// 0: there is no checkpoint yet.
    pub(super) op: u64,
    timestamp: u64,
    time: Utc,
    /// Of all files; equal on every replica.
    pub(super) digest: Option<Hex>,
    pub(super) files: Vec<FileReport>,
    pub(super) ledger: Option<LedgerReport>,
    /// In the directory, but not of this checkpoint.
    pub(super) others: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct FileReport {
    pub(super) name: String,
    pub(super) size: u64,
    data_size: u64,
    checksum: Hex,
    /// `None`: every block is as it was written.
    pub(super) problem: Option<String>,
}

/// How much a ledger holds.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct LedgerReport {
    pub(super) accounts: u32,
    pub(super) transfers: u32,
    pub(super) failed_ids: u32,
    /// Pending transfers that will expire unless they are resolved.
    pub(super) expiring: u64,
}

/// What an error of the store means here: the disk lies, or it cannot be asked.
pub(super) fn store_problem(part: &'static str, error: &StoreError) -> Problem {
    let what = error.to_string();
    let is_cut = |kind| {
        matches!(
            kind,
            std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof
        )
    };
    match error {
        StoreError::Damaged { .. } => Problem::damage(part, what),
        StoreError::Io { source, .. } if is_cut(source.kind()) => {
            Problem::damage(part, format!("{what}; restore it from another replica"))
        }
        StoreError::Io { .. } | StoreError::Version { .. } | StoreError::List(_) => {
            Problem::unreadable(part, what)
        }
    }
}

/// The manifest, if there is a checkpoint.
pub(super) fn manifest(source: &Source, state: &State) -> Result<Option<Manifest>, Problem> {
    let reference = state.manifest();
    reference
        .map(|reference| Manifest::open(&source.checkpoints(), &reference))
        .transpose()
        .map_err(|error| store_problem(PART, &error))
}

pub(super) fn examine(
    source: &Source,
    state: &State,
    problems: &mut Vec<Problem>,
) -> CheckpointReport {
    let storage = source.checkpoints();
    let mut report = CheckpointReport {
        path: source.checkpoints_path().display().to_string(),
        op: state.checkpoint_op,
        timestamp: state.checkpoint_timestamp,
        time: Utc(state.checkpoint_timestamp),
        digest: None,
        files: Vec::new(),
        ledger: None,
        others: storage.strangers(),
    };
    let mut entries: Vec<FileEntry> = state.manifest().iter().map(|m| m.entry()).collect();
    match manifest(source, state) {
        Ok(None) => {}
        Ok(Some(manifest)) => {
            report.digest = Some(Hex(manifest.digest()));
            report.ledger = ledger(&storage, &manifest, problems);
            entries.extend(&manifest.files);
        }
        Err(problem) => problems.push(problem),
    }
    report.files = entries
        .iter()
        .map(|entry| verify(&storage, entry, problems))
        .collect();
    match storage.list() {
        Ok(files) => {
            let known = |name| entries.iter().any(|entry| entry.name == name);
            let others = files.iter().filter(|(name, _)| !known(*name));
            report
                .others
                .extend(others.map(|(name, _)| name.to_string()));
        }
        Err(error) => {
            let what = format!("cannot list {}: {error}", report.path);
            problems.push(Problem::unreadable(PART, what));
        }
    }
    report
}

fn verify(storage: &Checkpoints, entry: &FileEntry, problems: &mut Vec<Problem>) -> FileReport {
    let result = SealedFile::open(storage, *entry).and_then(|mut file| file.verify(storage));
    let problem = result.err().map(|error| {
        problems.push(store_problem(PART, &error));
        error.to_string()
    });
    FileReport {
        name: entry.name.to_string(),
        size: entry.size,
        data_size: entry.data_size,
        checksum: Hex(entry.checksum),
        problem,
    }
}

/// What the ledger's file says of itself.
fn ledger(
    storage: &Checkpoints,
    manifest: &Manifest,
    problems: &mut Vec<Problem>,
) -> Option<LedgerReport> {
    let Some(entry) = manifest.file(FileKind::Ledger).next() else {
        let what = "the manifest lists no ledger file; restore the checkpoint from another replica";
        problems.push(Problem::damage(PART, what));
        return None;
    };
    let read = || {
        let mut file = SealedFile::open(storage, entry)?;
        let counts = file.read_rows::<u32>(storage, SECTION_COUNTS)?;
        let expiring = file.section(SECTION_EXPIRIES)?.size / EXPIRY_SIZE;
        let &[_version, _chunk, accounts, transfers, failed_ids, ..] = counts.as_slice() else {
            return Err(file.damaged(0, "there is not one row of counts"));
        };
        Ok(LedgerReport {
            accounts,
            transfers,
            failed_ids,
            expiring,
        })
    };
    read()
        .map_err(|error| problems.push(store_problem(PART, &error)))
        .ok()
}

impl CheckpointReport {
    pub(super) fn write(&self, out: &mut String) {
        heading(out, "checkpoint", &self.path);
        if self.op == 0 {
            line(out, "op", "none yet: the log is all there is");
        } else {
            line(out, "op", format!("{}, {}", self.op, self.time));
        }
        if let Some(digest) = self.digest {
            line(out, "digest", digest);
        }
        if let Some(ledger) = &self.ledger {
            line(out, "accounts", ledger.accounts);
            line(out, "transfers", ledger.transfers);
            line(out, "failed ids", ledger.failed_ids);
            line(out, "expiring", ledger.expiring);
        }
        if !self.files.is_empty() {
            let titles = [
                ("file", Side::Left),
                ("size", Side::Right),
                ("checksum", Side::Left),
                ("", Side::Left),
            ];
            let mut columns = Columns::new(&titles);
            for file in &self.files {
                let verdict = file.problem.as_ref().map_or("verified", |_| "DAMAGED");
                columns.row(vec![
                    file.name.clone(),
                    Size(file.size).to_string(),
                    file.checksum.to_string(),
                    verdict.to_owned(),
                ]);
            }
            columns.write(out);
        }
        if !self.others.is_empty() {
            line(
                out,
                "other files",
                format!(
                    "{}: of a former checkpoint, or of one that was not finished",
                    self.others.len()
                ),
            );
            for name in &self.others {
                line(out, "", name);
            }
        }
        out.push('\n');
    }
}
