//! The books: every table of the ledger, and how things are found in them.
//!
//! ```text
//!   accounts     rows of 128 bytes, in order of creation, changed in place
//!   transfers    rows of 128 bytes, in order of commit, never changed
//!   failed       ids that failed for good, 16 bytes each, never changed
//!   resolutions  two bits for each transfer: what became of a pending one
//!   unresolved   pending transfers whose rows have left memory, copied
//!   expiries     pending transfers with a timeout, by expiry
//!   expired      expiries that have happened, rows of 48 bytes, in order, never changed
//!
//!   account_ids   id → row of `accounts`
//!   transfer_ids  id → row of `transfers`, or FAILED_BASE + row of `failed`: memory, then runs
//!   indexes       value → rows
//!   history       what balances were
//! ```
//!
//! Invariants
//! - Timestamps ascend in `accounts` and in `transfers`, so the largest is the last row's, and a
//!   timestamp is found by bisection.
//! - An account's pending and posted debits together never exceed 2^128 - 1, nor do its credits: a
//!   creation checks the sum, and a resolution only makes it smaller.
//! - A transfer's accounts exist and differ; a resolution's pending transfer exists. Nothing is
//!   ever deleted, except by the undo of a chain.

use stampede_client::wire::Transfer;
use stampede_client::wire::record::transfer_flags;

use super::expiry::Expiries;
use super::history::{History, PeriodOpenings, Point};
use super::ids::TransferIds;
use super::indexes::Indexes;
use super::openings::Side;
use super::resolutions::{Resolution, Resolutions};
use super::row::{AccountRow, Expired, TRANSFER_ID};
use super::snapshot::{ChunkFile, ChunkParts, ROWS_OFFSET};
use super::unresolved::Unresolved;
use super::{LedgerOptions, RowsMax};
use crate::store::{Changing, IdHash, Index, ROW_NONE, Table, prefetch};

/// Rows of `transfer_ids` from here on are failed ids: room for 3.2 billion transfers and one
/// billion failures.
pub(super) const FAILED_BASE: u32 = 0xc000_0000;

/// A candidate row that nobody has looked for yet.
pub(super) const ROW_UNKNOWN: u32 = ROW_NONE - 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) accounts: Changing<AccountRow>,
    pub(super) account_ids: Index,
    pub(super) transfers: Table<Transfer>,
    pub(super) transfer_ids: TransferIds,
    pub(super) failed: Table<u128>,
    pub(super) resolutions: Resolutions,
    pub(super) expiries: Expiries,
    pub(super) unresolved: Unresolved,
    pub(super) expired: Table<Expired>,
    pub(super) indexes: Indexes,
    pub(super) history: History,
    /// Transfers below are in files.
    file_rows: u32,
}

impl RowsMax {
    /// What rows' numbers have room for in the indexes.
    pub const INDEXED: Self = Self {
        accounts: ROW_UNKNOWN,
        transfers: FAILED_BASE,
        failed: ROW_UNKNOWN - FAILED_BASE,
        timeouts: FAILED_BASE,
    };
}

/// What an id of a transfer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    No,
    Transfer(u32),
    Failed,
}

impl Books {
    /// Empty books whose indexes have the size for so many accounts, and ids of transfers in memory.
    pub(super) fn with_capacity(options: LedgerOptions, accounts: u64, ids: u64) -> Self {
        Self {
            accounts: Changing::new(options.chunk_rows_log2),
            account_ids: Index::with_capacity(accounts),
            transfers: Table::new(options.chunk_rows_log2),
            transfer_ids: TransferIds::with_capacity(options, ids),
            failed: Table::new(options.chunk_rows_log2),
            resolutions: Resolutions::new(options.chunk_rows_log2),
            expiries: Expiries::default(),
            unresolved: Unresolved::new(options.chunk_rows_log2, options.waiting_rows),
            expired: Table::new(options.chunk_rows_log2),
            indexes: Indexes::default(),
            history: History::new(options.chunk_rows_log2),
            file_rows: 0,
        }
    }

    /// The row of an account, or [`ROW_NONE`]. `candidate` is what the index said before.
    #[inline(always)]
    pub(super) fn account_row(&self, id: u128, candidate: u32) -> u32 {
        if candidate == ROW_NONE {
            return ROW_NONE;
        }
        if candidate < self.accounts.len() && self.accounts.row(candidate).id == id {
            return candidate;
        }
        self.search_account(id)
    }

    #[cold]
    fn search_account(&self, id: u128) -> u32 {
        let found = self
            .account_ids
            .find(IdHash::of(id), |row| self.accounts.row(row).id == id);
        found.unwrap_or(ROW_NONE)
    }

    /// What is known of a transfer's id.
    #[inline(always)]
    pub(super) fn transfer(&self, id: u128, hash: IdHash) -> Known {
        match self.row_of_id(id, hash) {
            None => Known::No,
            Some(row) if row < FAILED_BASE => Known::Transfer(row),
            Some(_) => Known::Failed,
        }
    }

    /// The row of `transfers`, or [`FAILED_BASE`] + the row of `failed`, that has the id.
    #[inline(always)]
    pub(super) fn row_of_id(&self, id: u128, hash: IdHash) -> Option<u32> {
        self.transfer_ids.find(id, hash, |row| {
            if row < FAILED_BASE {
                self.transfer_id(row) == id
            } else {
                self.failed.read(row - FAILED_BASE) == id
            }
        })
    }

    /// A transfer, from memory if that can be.
    #[inline(always)]
    pub(super) fn transfer_row(&self, row: u32) -> Transfer {
        if row >= self.file_rows {
            return *self.transfers.row(row);
        }
        self.transfer_row_in_file(row)
    }

    #[inline(never)]
    fn transfer_row_in_file(&self, row: u32) -> Transfer {
        let kept = self.unresolved.row(row).copied();
        kept.unwrap_or_else(|| self.transfers.read(row))
    }

    #[inline(always)]
    fn transfer_id(&self, row: u32) -> u128 {
        if row >= self.file_rows {
            return self.transfers.row(row).id;
        }
        self.transfer_id_in_file(row)
    }

    #[inline(never)]
    fn transfer_id_in_file(&self, row: u32) -> u128 {
        let id = || self.transfers.packed_field(row, TRANSFER_ID);
        match self.unresolved.row(row) {
            Some(kept) => kept.id,
            None => id().expect("files hold transfers packed"),
        }
    }

    /// Fetches what [`TransferIds::candidate`] gave for a transfer's id. A row that has to come from its
    /// file is only asked for, so that the reads of a sub-batch overlap.
    #[inline(always)]
    pub(super) fn prefetch_transfer(&self, candidate: u32) {
        if candidate >= self.file_rows {
            if candidate < FAILED_BASE {
                self.transfers.prefetch(candidate);
            }
        } else {
            self.ask_for_transfer(candidate);
        }
    }

    /// What an id's row may be, when a run was asked for it before; begins to read the row.
    #[cold]
    pub(super) fn fetch_from_runs(&self, id: u128, hash: IdHash) -> u32 {
        let row = self.transfer_ids.candidate_in_runs(id, hash);
        self.prefetch_transfer(row);
        row
    }

    #[inline(never)]
    fn ask_for_transfer(&self, row: u32) {
        match self.unresolved.row(row) {
            Some(kept) => prefetch(kept),
            None => self.transfers.fetch(row),
        }
    }

    /// Ids of transfers that there are, a number that wraps.
    pub(super) fn ids(&self) -> u32 {
        self.transfers.len().wrapping_add(self.failed.len())
    }

    /// The present point in time.
    #[inline(always)]
    pub(super) fn now(&self) -> Point {
        Point {
            transfers: self.transfers.len(),
            expired: self.expired.len(),
        }
    }

    /// The accounts of the next event are about to change.
    pub(super) fn open_accounts(&mut self, debit_row: u32, credit_row: u32) {
        let now = self.now();
        let mark = self.history.mark(now);
        let (debit, credit) = self.accounts.rows_mut(debit_row, credit_row);
        if debit.opened != mark {
            self.history.open(now, Side::Debit, debit_row, debit);
        }
        if credit.opened != mark {
            self.history.open(now, Side::Credit, credit_row, credit);
        }
    }

    /// Rows of transfers below are in the postings.
    pub(super) fn rows_posted(&self) -> u32 {
        let chunks = u32::try_from(self.indexes.transfers.len()).expect("fewer than rows");
        chunks * self.transfers.chunk_rows()
    }

    /// An operation is over: nothing of it can be taken back any more.
    #[inline]
    pub(super) fn settle(&mut self) {
        self.unresolved.settle();
        let (ids, unresolved) = (self.ids(), &self.unresolved);
        let is_kept = |row| unresolved.row(row).is_some();
        self.transfer_ids.sweep(ids, self.file_rows, is_kept);
        self.history.settle(self.now());
        self.indexes
            .settle(&self.transfers, &self.accounts, &self.expired);
    }

    /// The rows of a full chunk, its postings and openings are in a file from here on; chunks go in
    /// order.
    pub(super) fn release_chunk(&mut self, file: ChunkFile) {
        let chunk = file.chunk;
        let packed = file.packed.clone().expect("transfers are packed");
        let (_, ChunkParts { postings, openings }) = file.into_parts();
        let last = chunk * self.transfers.chunk_rows() + (self.transfers.chunk_rows() - 1);
        let period = self.history.of_transfer(last);
        self.history.periods[period as usize].openings = PeriodOpenings::File(openings);
        // Every query looks into them: what was just written is not in the system's memory.
        postings.will_need();
        self.indexes.transfers[chunk as usize] = postings;
        let first = chunk * self.transfers.chunk_rows();
        assert_eq!(first, self.file_rows, "chunks leave memory in order");
        self.unresolved
            .keep(chunk, self.transfers.chunk(chunk), &self.resolutions);
        self.transfers.adopt_packed(chunk, packed);
        self.file_rows += self.transfers.chunk_rows();
    }

    /// The same of expiries.
    pub(super) fn release_expired(&mut self, file: ChunkFile) {
        let chunk = file.chunk;
        let (mapped, ChunkParts { postings, openings }) = file.into_parts();
        let last = chunk * self.expired.chunk_rows() + (self.expired.chunk_rows() - 1);
        let period = self.history.of_expired(last);
        self.history.periods[period as usize].openings = PeriodOpenings::File(openings);
        self.indexes.expired[chunk as usize] = postings;
        self.expired.adopt(chunk, mapped, ROWS_OFFSET);
    }

    /// The transfers that are there were restored from files, in whole chunks.
    pub(super) fn restore_files(&mut self) {
        self.file_rows = self.transfers.len();
        self.indexes.restore_files(self.file_rows);
        self.unresolved.restore_files(self.transfers.chunks_full());
    }

    /// Counts the unresolved transfers in memory, after a restart.
    pub(super) fn restore_unresolved(&mut self) {
        for row in self.file_rows..self.transfers.len() {
            if self.transfers.row(row).flags & transfer_flags::PENDING != 0
                && self.resolutions.of(row) == Resolution::None
            {
                self.unresolved.add(row);
            }
        }
    }

    /// Notes what became of a pending transfer; `None` takes it back.
    pub(super) fn set_resolution(&mut self, row: u32, resolution: Resolution) {
        match resolution {
            Resolution::None => self.unresolved.add(row),
            Resolution::Posted | Resolution::Voided | Resolution::Expired => {
                self.unresolved.remove(row);
            }
        }
        self.resolutions.set(row, resolution);
    }

    #[inline(always)]
    pub(super) fn add_account(&mut self, hash: IdHash, account: &AccountRow) {
        let row = self.accounts.push(account);
        assert!(
            row < RowsMax::INDEXED.accounts,
            "a full ledger is asked for no more"
        );
        self.account_ids.insert(hash, row);
    }

    #[inline(always)]
    pub(super) fn add_transfer(
        &mut self,
        hash: IdHash,
        transfer: &Transfer,
        debit: u32,
        credit: u32,
    ) -> u32 {
        let row = self.transfers.push(transfer);
        self.indexes.parties.push([debit, credit]);
        assert!(
            row < RowsMax::INDEXED.transfers,
            "a full ledger is asked for no more"
        );
        self.transfer_ids.insert(hash, row);
        row
    }

    /// From here on the id answers `id_already_failed`.
    pub(super) fn add_failed(&mut self, hash: IdHash, id: u128) {
        let row = self.failed.push(&id);
        assert!(
            row < RowsMax::INDEXED.failed,
            "a full ledger is asked for no more"
        );
        self.transfer_ids.insert(hash, FAILED_BASE + row);
    }

    /// Appends failed ids as they were, which are in no run.
    pub(super) fn restore_failed(&mut self, ids: &[u128]) {
        self.transfer_ids
            .extend(ids, FAILED_BASE + self.failed.len());
        self.failed.append(ids);
    }

    pub(super) fn account_timestamp_max(&self) -> u64 {
        self.accounts.last().map_or(0, |account| account.timestamp)
    }

    pub(super) fn transfer_timestamp_max(&self) -> u64 {
        self.transfers
            .last()
            .map_or(0, |transfer| transfer.timestamp)
    }

    pub(super) fn account_has_timestamp(&self, timestamp: u64) -> bool {
        let row = self
            .accounts
            .partition_point(|account| account.timestamp < timestamp);
        row < self.accounts.len() && self.accounts.row(row).timestamp == timestamp
    }

    pub(super) fn transfer_has_timestamp(&self, timestamp: u64) -> bool {
        let row = self
            .transfers
            .partition_point(|transfer| transfer.timestamp < timestamp);
        row < self.transfers.len() && self.transfers.read(row).timestamp == timestamp
    }

    /// The accounts of a transfer that is in the books; the candidates may be stale.
    pub(super) fn accounts_of(
        &self,
        transfer: &Transfer,
        debit_candidate: u32,
        credit_candidate: u32,
    ) -> (u32, u32) {
        let debit = self.account_row(transfer.debit_account_id, debit_candidate);
        let credit = self.account_row(transfer.credit_account_id, credit_candidate);
        assert!(
            debit != ROW_NONE && credit != ROW_NONE,
            "accounts of a transfer exist"
        );
        (debit, credit)
    }
}

/// Whether the transfer resolves a pending one.
#[inline(always)]
pub(super) fn is_resolution(flags: u16) -> bool {
    flags & (transfer_flags::POST_PENDING_TRANSFER | transfer_flags::VOID_PENDING_TRANSFER) != 0
}
