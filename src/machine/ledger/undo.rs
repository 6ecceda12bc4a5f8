//! Taking back what a broken chain has done.
//!
//! There is no log of changes: a transfer's row says everything that it did, so the undo walks the
//! rows added since the chain was opened, newest first, and reverses each. Largest timestamps are
//! those of the last rows, so they go back by themselves. Ids that failed for good stay failed.

use stampede_client::wire::Transfer;
use stampede_client::wire::record::{account_flags, transfer_flags as flags};

use super::books::{Books, Known, ROW_UNKNOWN, is_resolution};
use super::expiry::expires_at;
use super::resolutions::Resolution;
use crate::store::IdHash;

impl Books {
    /// Takes back the accounts from row `mark` on.
    pub(super) fn undo_accounts(&mut self, mark: u32) {
        for row in (mark..self.accounts.len()).rev() {
            let id = self.accounts.row(row).id;
            self.account_ids.remove(IdHash::of(id), row);
        }
        self.accounts.truncate(mark);
    }

    /// Takes back the transfers from row `mark` on.
    pub(super) fn undo_transfers(&mut self, mark: u32) {
        for row in (mark..self.transfers.len()).rev() {
            let transfer = *self.transfers.row(row);
            if is_resolution(transfer.flags) {
                self.undo_resolution(&transfer);
            } else {
                self.undo_creation(&transfer, row);
            }
            self.transfer_ids.remove(IdHash::of(transfer.id), row);
        }
        self.transfers.truncate(mark);
        self.indexes.undo(mark, self.rows_posted());
        let now = self.now();
        self.history.undo(now, &mut self.accounts);
    }

    fn undo_creation(&mut self, transfer: &Transfer, row: u32) {
        let (debit_row, credit_row) = self.accounts_of(transfer, ROW_UNKNOWN, ROW_UNKNOWN);
        if transfer.flags & flags::PENDING != 0 {
            self.release_pending(transfer, debit_row, credit_row);
            self.reopen_closed(transfer, debit_row, credit_row);
            self.unresolved.remove(row);
        } else {
            self.unpost(transfer.amount, debit_row, credit_row);
        }
        if let Some(expires_at) = expires_at(transfer) {
            self.expiries.remove(expires_at, row);
        }
    }

    fn undo_resolution(&mut self, transfer: &Transfer) {
        let pending = self.transfer(transfer.pending_id, IdHash::of(transfer.pending_id));
        let Known::Transfer(pending_row) = pending else {
            unreachable!("a resolved transfer is in the books");
        };
        let pending = self.transfer_row(pending_row);
        let (debit_row, credit_row) = self.accounts_of(&pending, ROW_UNKNOWN, ROW_UNKNOWN);
        if transfer.flags & flags::POST_PENDING_TRANSFER != 0 {
            self.unpost(transfer.amount, debit_row, credit_row);
        }
        let (debit, credit) = self.accounts.rows_mut(debit_row, credit_row);
        debit.debits_pending += pending.amount;
        credit.credits_pending += pending.amount;
        if transfer.flags & flags::VOID_PENDING_TRANSFER != 0 {
            if pending.flags & flags::CLOSING_DEBIT != 0 {
                debit.flags |= account_flags::CLOSED;
            }
            if pending.flags & flags::CLOSING_CREDIT != 0 {
                credit.flags |= account_flags::CLOSED;
            }
        }
        if let Some(expires_at) = expires_at(&pending) {
            self.expiries.insert(expires_at, pending_row);
        }
        self.set_resolution(pending_row, Resolution::None);
    }

    fn unpost(&mut self, amount: u128, debit_row: u32, credit_row: u32) {
        let (debit, credit) = self.accounts.rows_mut(debit_row, credit_row);
        assert!(debit.debits_posted >= amount && credit.credits_posted >= amount);
        debit.debits_posted -= amount;
        credit.credits_posted -= amount;
    }
}
