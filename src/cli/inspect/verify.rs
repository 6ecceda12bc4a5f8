//! Everything that can be verified: every checksum of journal and checkpoint, the client table as a start reads it,
//! and, where the checkpoint is whole, every invariant of the ledger (`machine::ledger::Ledger::verify`): as of the
//! checkpoint, and when the log after it has been executed.
//!
//! The other parts show; this one reads everything and says what holds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Problem;
use super::checkpoint;
use super::journal::{self, OpRange, Selection};
use super::sessions;
use super::source::{Segments, Source};
use super::text::{heading, line};
use crate::cli::image::Image;
use crate::cli::size::Size;
use crate::machine::Machine;
use crate::machine::ledger::Ledger;
use crate::message::Op;
use crate::replica::image::{self, ImageError, Replay};
use crate::replica::open::journal_config;
use crate::replica::superblock::State;
use crate::store::{Damage, Storage};

const PART: &str = "verify";

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct VerifyReport {
    /// Good entries of the journal, or of an image's log.
    journal_entries: u64,
    /// Of the checkpoint; its bytes.
    files: usize,
    bytes: u64,
    /// What the ledger holds at the end of the committed log; `None` if it could not be restored.
    ledger: Option<LedgerReport>,
}

#[derive(Debug, Serialize)]
struct LedgerReport {
    op: u64,
    accounts: u64,
    transfers: u64,
    failed_ids: u64,
    /// Pending transfers that wait for a post, a void or their time.
    unresolved: u64,
    broken: u64,
}

pub(super) fn examine(
    source: &Source,
    state: &State,
    image: Option<&Image>,
    problems: &mut Vec<Problem>,
) -> VerifyReport {
    let journal_entries = match image {
        Some(image) => super::image_log(image, problems).map(|log| log.entries as u64),
        None => {
            let all = OpRange::parse("..").ok();
            let all = all.map(|ops| Selection { ops, limit: 1 });
            let journal = all.and_then(|all| journal::examine(source, state, all, problems));
            journal.map(|journal| journal.entries)
        }
    };
    let before = problems.len();
    let checkpoint = checkpoint::examine(source, state, problems);
    sessions::examine(source, state, problems);
    let whole = problems.len() == before;
    let ledger = if whole {
        // What went bad since its block was verified is raised.
        Damage::catch(|| ledger(source, state, image, problems)).unwrap_or_else(|damage| {
            problems.push(Problem::damage(PART, damage.to_string()));
            None
        })
    } else {
        None
    };
    VerifyReport {
        journal_entries: journal_entries.unwrap_or(0),
        files: checkpoint.files.len(),
        bytes: checkpoint.files.iter().map(|file| file.size).sum(),
        ledger,
    }
}

/// Checks the ledger of the checkpoint, executes the committed log on it, and checks it again. What does not hold
/// cannot be executed on.
fn ledger(
    source: &Source,
    state: &State,
    image: Option<&Image>,
    problems: &mut Vec<Problem>,
) -> Option<LedgerReport> {
    let manifest = checkpoint::manifest(source, state).ok()?;
    let storage: &dyn Storage = &source.checkpoints();
    let restored = match manifest {
        Some(manifest) => Ledger::default().restore(storage, &manifest.files),
        // All of it is in the log.
        None => Ok(Ledger::default()),
    };
    let ledger = restored
        .map_err(|error| problems.push(checkpoint::store_problem(PART, &error)))
        .ok()?;
    let help = match image {
        None => "restore this replica from another one (`stampede recover`)",
        Some(_) => "take another image",
    };
    let at_checkpoint = (state.checkpoint_op, state.checkpoint_timestamp);
    let report = check(&ledger, at_checkpoint, help, problems);
    if report.broken > 0 {
        return Some(report);
    }
    let replayed = match image {
        None => {
            let replayed = replay(source, state, ledger);
            replayed.map_err(|error| format!("{error}: {help}"))
        }
        Some(image) => image.replay(ledger).map_err(|error| error.message),
    };
    let replay = replayed
        .map_err(|what| problems.push(Problem::damage(PART, what)))
        .ok()?;
    if replay.op == state.checkpoint_op {
        return Some(report);
    }
    let at_end = (replay.op, replay.timestamp);
    Some(check(&replay.machine, at_end, help, problems))
}

/// Checks a ledger as of this operation and time.
fn check(
    ledger: &Ledger,
    (op, timestamp): (Op, u64),
    help: &str,
    problems: &mut Vec<Problem>,
) -> LedgerReport {
    let found = ledger.verify();
    let mut told = |what: String| problems.push(Problem::damage(PART, what));
    for what in &found.broken {
        told(format!("{what}: {help}"));
    }
    if found.broken_more > 0 {
        told(format!("and {} more like these", found.broken_more));
    }
    let is_later = found.latest > timestamp;
    if is_later {
        told(format!(
            "the ledger has a timestamp of {}, and the operation at its end has {timestamp}: {help}",
            found.latest
        ));
    }
    LedgerReport {
        op,
        accounts: found.accounts,
        transfers: found.transfers,
        failed_ids: found.failed_ids,
        unresolved: found.unresolved,
        broken: found.broken.len() as u64 + found.broken_more + u64::from(is_later),
    }
}

/// Executes what a replica's journal holds as committed after its checkpoint.
fn replay(source: &Source, state: &State, ledger: Ledger) -> Result<Replay<Ledger>, ImageError> {
    // They have been told already: the journal was looked at before.
    let mut problems = Vec::new();
    let path = source.journal_path();
    let mut segments = Segments::open(&path, &journal_config(state), &mut problems);
    let mut replay = Replay::new(state, ledger);
    // Entries come in the order in which they lie there; a restored one lies behind later ones. No more wait
    // for it than the journal holds.
    let mut early: BTreeMap<Op, Vec<u8>> = BTreeMap::new();
    let mut execute = || {
        image::committed(state, &mut segments, |payload| {
            let op = image::verify(payload, replay.op)?.op;
            if op != replay.op + 1 {
                early.insert(op, payload.to_vec());
                return Ok(());
            }
            replay.apply(payload)?;
            while let Some(payload) = early.remove(&(replay.op + 1)) {
                replay.apply(&payload)?;
            }
            Ok(())
        })
    };
    match Damage::catch(&mut execute) {
        Ok(result) => result.map(|_: Op| replay),
        Err(damage) => Err(ImageError::Unreadable(damage)),
    }
}

impl VerifyReport {
    pub(super) fn write(&self, out: &mut String) {
        heading(
            out,
            "verify",
            "every checksum, and the ledger done once more",
        );
        line(out, "journal", format!("{} entries", self.journal_entries));
        line(
            out,
            "checkpoint",
            format!("{} files, {}", self.files, Size(self.bytes)),
        );
        match &self.ledger {
            None => line(out, "ledger", "there is none that could be restored"),
            Some(ledger) => {
                line(out, "ledger", format!("as of op {}", ledger.op));
                line(out, "accounts", ledger.accounts);
                line(out, "transfers", ledger.transfers);
                line(out, "failed ids", ledger.failed_ids);
                line(out, "unresolved", ledger.unresolved);
                let verdict = match ledger.broken {
                    0 => {
                        "all hold: rows, balances then and now, ids, indexes, what waits".to_owned()
                    }
                    count => format!("{count} do not hold"),
                };
                line(out, "invariants", verdict);
            }
        }
        out.push('\n');
    }
}
