//! Post and void: the second phase of a pending transfer.
//!
//! ```text
//!                    ┌─ post ──► posted   amount moves from pending to posted, the rest returns
//!   pending transfer ┼─ void ──► voided   everything returns
//!                    └─ time ──► expired  everything returns
//! ```
//!
//! The resolution is a transfer of its own; the pending one's row does not change.

use stampede_client::wire::CreateTransferStatus as Status;
use stampede_client::wire::Transfer;
use stampede_client::wire::record::{account_flags, transfer_flags as flags};

use super::books::{Books, Known};
use super::exists::or;
use super::expiry::expires_at;
use super::openings::Released;
use super::resolutions::Resolution;
use super::transfers::{Candidates, check_open};
use crate::store::IdHash;

const PHASES: u16 = flags::POST_PENDING_TRANSFER | flags::VOID_PENDING_TRANSFER;
const OTHER_PHASES: u16 = flags::PENDING
    | flags::BALANCING_DEBIT
    | flags::BALANCING_CREDIT
    | flags::CLOSING_DEBIT
    | flags::CLOSING_CREDIT;

const CLOSING: u16 = flags::CLOSING_DEBIT | flags::CLOSING_CREDIT;

impl Books {
    /// Checks and applies a post or void whose id is free; gives the stored timestamp.
    pub(super) fn resolve(
        &mut self,
        event: &Transfer,
        hash: IdHash,
        candidates: Candidates,
        timestamp: u64,
    ) -> Result<u64, Status> {
        let post = event.flags & flags::POST_PENDING_TRANSFER != 0;
        let void = event.flags & flags::VOID_PENDING_TRANSFER != 0;
        check_fields(event)?;
        let Known::Transfer(pending_row) =
            self.transfer(event.pending_id, IdHash::of(event.pending_id))
        else {
            return Err(Status::PendingTransferNotFound);
        };
        let pending = self.transfer_row(pending_row);
        let completed = completed(event, &pending)?;
        let amount = completed.amount;
        match self.resolutions.of(pending_row) {
            Resolution::None => {}
            Resolution::Posted => return Err(Status::PendingTransferAlreadyPosted),
            Resolution::Voided => return Err(Status::PendingTransferAlreadyVoided),
            Resolution::Expired => return Err(Status::PendingTransferExpired),
        }
        let expires_at = expires_at(&pending);
        if expires_at.is_some_and(|expires_at| expires_at <= timestamp) {
            return Err(Status::PendingTransferExpired);
        }
        let imported = event.flags & flags::IMPORTED != 0;
        if imported && self.transfer_timestamp_regresses(event.timestamp) {
            return Err(Status::ImportedEventTimestampMustNotRegress);
        }
        let (debit_row, credit_row) =
            self.accounts_of(&pending, candidates.debit, candidates.credit);
        let (debit, credit) = (self.accounts.row(debit_row), self.accounts.row(credit_row));
        if post {
            check_open(debit, credit)?;
        }

        self.open_accounts(debit_row, credit_row);
        if let Some(released) = released(&completed, &pending, self.transfers.len()) {
            self.history.release(released);
        }
        let (debit, credit) = self.accounts.rows_mut(debit_row, credit_row);
        if post {
            // No overflow: at most what leaves the pending balance comes to the posted one.
            debit.debits_posted += amount;
            credit.credits_posted += amount;
        }
        self.release_pending(&pending, debit_row, credit_row);
        if void {
            self.reopen_closed(&pending, debit_row, credit_row);
        }
        if let Some(expires_at) = expires_at {
            self.expiries.remove(expires_at, pending_row);
        }
        let resolution = if post {
            Resolution::Posted
        } else {
            Resolution::Voided
        };
        self.set_resolution(pending_row, resolution);
        let timestamp = if imported { event.timestamp } else { timestamp };
        let stored = Transfer {
            timestamp,
            ..completed
        };
        self.add_transfer(hash, &stored, debit_row, credit_row);
        Ok(timestamp)
    }

    /// Takes the whole amount of a pending transfer out of the pending balances.
    pub(super) fn release_pending(&mut self, pending: &Transfer, debit: u32, credit: u32) {
        let (debit, credit) = self.accounts.rows_mut(debit, credit);
        assert!(
            debit.debits_pending >= pending.amount,
            "pending debits hold all pending amounts"
        );
        assert!(
            credit.credits_pending >= pending.amount,
            "so do pending credits"
        );
        debit.debits_pending -= pending.amount;
        credit.credits_pending -= pending.amount;
    }

    /// Opens the accounts that a pending transfer had closed. While it was pending nothing else
    /// could close them, nor open them.
    pub(super) fn reopen_closed(&mut self, pending: &Transfer, debit: u32, credit: u32) {
        if pending.flags & flags::CLOSING_DEBIT != 0 {
            self.accounts.row_mut(debit).flags &= !account_flags::CLOSED;
        }
        if pending.flags & flags::CLOSING_CREDIT != 0 {
            self.accounts.row_mut(credit).flags &= !account_flags::CLOSED;
        }
    }
}

/// What can be said of a post or void without looking anything up.
pub(super) fn check_fields(event: &Transfer) -> Result<(), Status> {
    if event.flags & PHASES == PHASES || event.flags & OTHER_PHASES != 0 {
        Err(Status::FlagsAreMutuallyExclusive)
    } else if event.pending_id == 0 {
        Err(Status::PendingIdMustNotBeZero)
    } else if event.pending_id == u128::MAX {
        Err(Status::PendingIdMustNotBeIntMax)
    } else if event.pending_id == event.id {
        Err(Status::PendingIdMustBeDifferent)
    } else if event.timeout != 0 {
        Err(Status::TimeoutReservedForPendingTransfer)
    } else {
        Ok(())
    }
}

/// A post or void with all that it takes over from the transfer that it resolves, if it agrees with it. One that
/// is stored is complete.
pub(super) fn completed(event: &Transfer, pending: &Transfer) -> Result<Transfer, Status> {
    let void = event.flags & flags::VOID_PENDING_TRANSFER != 0;
    if pending.flags & flags::PENDING == 0 {
        return Err(Status::PendingTransferNotPending);
    }
    if or(event.debit_account_id, pending.debit_account_id) != pending.debit_account_id {
        return Err(Status::PendingTransferHasDifferentDebitAccountId);
    }
    if or(event.credit_account_id, pending.credit_account_id) != pending.credit_account_id {
        return Err(Status::PendingTransferHasDifferentCreditAccountId);
    }
    if or(event.ledger, pending.ledger) != pending.ledger {
        return Err(Status::PendingTransferHasDifferentLedger);
    }
    if or(event.code, pending.code) != pending.code {
        return Err(Status::PendingTransferHasDifferentCode);
    }
    let whole = if void {
        event.amount == 0
    } else {
        event.amount == u128::MAX
    };
    let amount = if whole { pending.amount } else { event.amount };
    if amount > pending.amount {
        return Err(Status::ExceedsPendingTransferAmount);
    }
    if void && amount < pending.amount {
        return Err(Status::PendingTransferHasDifferentAmount);
    }
    Ok(Transfer {
        debit_account_id: pending.debit_account_id,
        credit_account_id: pending.credit_account_id,
        amount,
        user_data_128: or(event.user_data_128, pending.user_data_128),
        user_data_64: or(event.user_data_64, pending.user_data_64),
        user_data_32: or(event.user_data_32, pending.user_data_32),
        ledger: pending.ledger,
        code: pending.code,
        ..*event
    })
}

/// What a post or void at `row` releases, where its own row does not say it.
pub(super) fn released(resolution: &Transfer, pending: &Transfer, row: u32) -> Option<Released> {
    let void = resolution.flags & flags::VOID_PENDING_TRANSFER != 0;
    let reopens = void && pending.flags & CLOSING != 0;
    (resolution.amount != pending.amount || reopens).then_some(Released {
        row,
        amount: pending.amount,
        flags: pending.flags,
    })
}
