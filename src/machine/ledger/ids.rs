//! Which row an id of a transfer stands for, however many there have been.
//!
//! ```text
//!   id ──► recent   index in memory: the ids in no run, and those of pending transfers that wait    one line
//!     └──► runs     the rest, by hash, in files
//!
//!   chunk full ──► in a file ──► 32 of them: their ids in a run, too ──► a sweep takes them out of the index
//! ```
//!
//! Rows here are those of `transfers`, and [`FAILED_BASE`] + those of `failed`. An id is looked for in memory
//! first, and whoever finds a row compares the row's id, so it does not matter when an id leaves memory, nor whether
//! all do: the sweep goes on in slices paced by the transfers that made it necessary, and differs from replica to
//! replica. The files do not: which rows a run has is a function of how many there are.

use super::LedgerOptions;
use super::books::{FAILED_BASE, ROW_UNKNOWN};
use crate::store::{FilterMaker, IdHash, Index, ROW_NONE, Reserve, Run, Runs};

/// Buckets that the sweep looks at with an operation, at least. Otherwise one for each new id: the index has
/// about half as many buckets as a run has ids, so a sweep is over before the next is due.
const SWEEP_MIN: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct TransferIds {
    recent: Index,
    runs: Runs,
    /// The next bucket to be swept.
    sweep: Option<u64>,
    /// Rows below, of transfers and of failed ids, are in runs.
    in_runs: [u32; 2],
    /// What the sweep in progress takes out.
    sweeping: [u32; 2],
    /// Ids there were when the last slice was done.
    swept_at: u32,
}

impl TransferIds {
    /// Nothing yet, and an index of the size for so many ids in memory.
    pub(super) fn with_capacity(options: LedgerOptions, ids: u64) -> Self {
        Self {
            recent: Index::with_capacity(ids),
            runs: Runs::new(options.filter_size),
            sweep: None,
            in_runs: [0; 2],
            sweeping: [0; 2],
            swept_at: 0,
        }
    }

    /// Fetches what a search begins with.
    #[inline(always)]
    pub(super) fn prefetch(&self, id: u128, hash: IdHash) {
        self.recent.prefetch(hash);
        self.runs.prefetch(id, hash);
    }

    /// A row that may be the id's; [`ROW_NONE`] if there is none, which is certain; [`ROW_UNKNOWN`] if only a run
    /// can tell.
    #[inline(always)]
    pub(super) fn candidate(&self, id: u128, hash: IdHash) -> u32 {
        let row = self.recent.candidate(hash);
        if row == ROW_NONE && self.runs.may_hold(id, hash) {
            return ROW_UNKNOWN;
        }
        row
    }

    /// The row for which `is_it` agrees.
    #[inline(always)]
    pub(super) fn find(&self, id: u128, hash: IdHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let found = self.recent.find(hash, &is_it);
        if found.is_none() && self.runs.may_hold(id, hash) {
            return self.runs.find(id, hash, is_it);
        }
        found
    }

    /// Begins to read what [`TransferIds::candidate_in_runs`] will look at.
    pub(super) fn ask_runs(&self, id: u128, hash: IdHash) {
        self.runs.will_need(id, hash);
    }

    /// What runs know of an id that may be in one of them: a row whose hash agrees, or [`ROW_NONE`].
    pub(super) fn candidate_in_runs(&self, id: u128, hash: IdHash) -> u32 {
        self.runs.candidate(id, hash)
    }

    /// Adds an id that is not there. Call [`TransferIds::settle`] once in a while.
    #[inline(always)]
    pub(super) fn insert(&mut self, hash: IdHash, row: u32) {
        self.recent.insert(hash, row);
    }

    /// Takes back an id of the operation that is being applied.
    pub(super) fn remove(&mut self, hash: IdHash, row: u32) {
        self.recent.remove(hash, row);
    }

    #[inline]
    pub(super) fn settle(&mut self) {
        self.recent.settle();
        self.runs.refresh();
    }

    /// Adds the ids of rows `first..`, for a restart.
    pub(super) fn extend(&mut self, ids: &[u128], first: u32) {
        self.recent.extend(ids, first);
    }

    /// Where the memory of the index comes from.
    pub(super) fn reserve(&self) -> Reserve {
        self.recent.reserve()
    }

    /// Who makes the filter in front of the runs.
    pub(super) fn filter_maker(&self) -> FilterMaker {
        self.runs.maker()
    }

    /// A run, whose rows are the next of their table.
    pub(super) fn add_run(&mut self, run: Run) {
        let rows = run.rows();
        if rows.start < FAILED_BASE {
            self.in_runs[0] = rows.end;
        } else {
            self.in_runs[1] = rows.end - FAILED_BASE;
        }
        self.runs.push(run);
    }

    /// What was restored, so many ids, is in runs or in memory, never in both.
    pub(super) fn restored(&mut self, ids: u32) {
        self.sweeping = self.in_runs;
        self.swept_at = ids;
    }

    /// An operation is over, and `ids` have been added since the beginning: sweeps on, if there is anything to be
    /// taken out of the index. Rows of transfers below `file_rows` are in files; `is_kept` are those whose id
    /// stays all the same.
    #[inline]
    pub(super) fn sweep(&mut self, ids: u32, file_rows: u32, is_kept: impl Fn(u32) -> bool) {
        let slice = SWEEP_MIN.max(ids.wrapping_sub(self.swept_at));
        self.swept_at = ids;
        if self.sweep.is_some() || self.sweeping != self.in_runs {
            self.sweep_slice(slice, file_rows, is_kept);
        }
    }

    #[cold]
    fn sweep_slice(&mut self, slice: u32, file_rows: u32, is_kept: impl Fn(u32) -> bool) {
        let from = self.sweep.unwrap_or(0);
        if from == 0 {
            // What waits is known by its copies, which are made when a chunk leaves memory.
            if self.in_runs[0] > file_rows {
                return;
            }
            self.sweeping = self.in_runs;
        }
        let [transfers, failed] = self.sweeping;
        let to = from + u64::from(slice);
        self.recent.sweep(from..to, |row| {
            if row < FAILED_BASE {
                row >= transfers || is_kept(row)
            } else {
                row - FAILED_BASE >= failed
            }
        });
        self.sweep = (to < self.recent.sweep_end()).then_some(to);
    }

    /// Ids in memory.
    #[cfg(test)]
    pub(super) fn in_memory(&self) -> u64 {
        self.recent.len()
    }
}
