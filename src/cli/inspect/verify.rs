//! Everything that can be verified: every checksum of journal and checkpoint, and, where the checkpoint is
//! whole, every invariant of the ledger in it (`machine::ledger::Ledger::verify`).
//!
//! The other parts show; this one reads everything and says what holds.

use serde::Serialize;

use super::checkpoint;
use super::journal::{self, OpRange, Selection};
use super::sessions;
use super::source::Source;
use super::text::{heading, line};
use super::{Problem, Severity};
use crate::cli::size::Size;
use crate::machine::Machine;
use crate::machine::ledger::Ledger;
use crate::replica::superblock::State;
use crate::store::Storage;

const PART: &str = "verify";

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct VerifyReport {
    /// Good entries of the journal.
    journal_entries: u64,
    /// Of the checkpoint; its bytes.
    files: usize,
    bytes: u64,
    /// What the ledger holds as of the checkpoint; `None` if it could not be restored.
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

pub(super) fn examine(source: &Source, state: &State, problems: &mut Vec<Problem>) -> VerifyReport {
    let all = OpRange::parse("..")
        .ok()
        .map(|ops| Selection { ops, limit: 1 });
    let journal = all.and_then(|all| journal::examine(source, state, all, problems));
    let before = problems.len();
    let checkpoint = checkpoint::examine(source, state, problems);
    sessions::examine(source, state, problems);
    let whole = problems.len() == before;
    let ledger = if whole {
        ledger(source, state, problems)
    } else {
        None
    };
    VerifyReport {
        journal_entries: journal.map_or(0, |journal| journal.entries),
        files: checkpoint.files.len(),
        bytes: checkpoint.files.iter().map(|file| file.size).sum(),
        ledger,
    }
}

fn ledger(source: &Source, state: &State, problems: &mut Vec<Problem>) -> Option<LedgerReport> {
    let manifest = checkpoint::manifest(source, state).ok().flatten()?;
    let storage: &dyn Storage = &source.checkpoints();
    let restored = Ledger::default().restore(storage, &manifest.files);
    let ledger = restored
        .map_err(|error| problems.push(checkpoint::store_problem(PART, &error)))
        .ok()?;
    let found = ledger.verify();
    for what in &found.broken {
        let what = format!("{what}: restore this replica from another one (`stampede recover`)");
        problems.push(Problem::damage(PART, what));
    }
    if found.broken_more > 0 {
        let what = format!("and {} more like these", found.broken_more);
        problems.push(Problem {
            part: PART,
            severity: Severity::Damage,
            what,
        });
    }
    Some(LedgerReport {
        op: manifest.op,
        accounts: found.accounts,
        transfers: found.transfers,
        failed_ids: found.failed_ids,
        unresolved: found.unresolved,
        broken: found.broken.len() as u64 + found.broken_more,
    })
}

impl VerifyReport {
    pub(super) fn write(&self, out: &mut String) {
        heading(out, "verify", "every checksum, every invariant");
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
                    0 => "all hold: balances are what the transfers make, ids are found, debits are credits"
                        .to_owned(),
                    count => format!("{count} do not hold"),
                };
                line(out, "invariants", verdict);
            }
        }
        out.push('\n');
    }
}
