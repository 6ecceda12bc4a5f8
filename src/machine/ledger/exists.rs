//! What an event is told whose id is taken: the first field that differs, or `exists`.
//!
//! Balances and timestamps are not compared, so that a retry is recognised whatever has happened
//! since. Post and void are compared as they would have been completed from their pending transfer:
//! a zero in the event stands for the pending transfer's value.

use stampede_client::wire::record::transfer_flags as flags;
use stampede_client::wire::{Account, CreateAccountStatus, CreateTransferStatus, Transfer};

use super::row::AccountRow;

pub(super) fn account(event: &Account, existing: &AccountRow) -> CreateAccountStatus {
    use CreateAccountStatus as Status;
    if event.flags != existing.flags {
        Status::ExistsWithDifferentFlags
    } else if event.user_data_128 != existing.user_data_128 {
        Status::ExistsWithDifferentUserData128
    } else if event.user_data_64 != existing.user_data_64 {
        Status::ExistsWithDifferentUserData64
    } else if event.user_data_32 != existing.user_data_32 {
        Status::ExistsWithDifferentUserData32
    } else if event.ledger != existing.ledger {
        Status::ExistsWithDifferentLedger
    } else if event.code != existing.code {
        Status::ExistsWithDifferentCode
    } else {
        Status::Exists
    }
}

/// `pending` is the transfer that `existing` resolved, if it did.
pub(super) fn transfer(
    event: &Transfer,
    existing: &Transfer,
    pending: Option<&Transfer>,
) -> CreateTransferStatus {
    use CreateTransferStatus as Status;
    if event.flags != existing.flags {
        return Status::ExistsWithDifferentFlags;
    }
    if event.pending_id != existing.pending_id {
        return Status::ExistsWithDifferentPendingId;
    }
    if event.timeout != existing.timeout {
        return Status::ExistsWithDifferentTimeout;
    }
    match pending {
        None => plain(event, existing),
        Some(pending) => resolution(event, existing, pending),
    }
}

fn plain(event: &Transfer, existing: &Transfer) -> CreateTransferStatus {
    use CreateTransferStatus as Status;
    let balancing = event.flags & (flags::BALANCING_DEBIT | flags::BALANCING_CREDIT) != 0;
    // A balancing transfer may have been created with less than was asked for.
    let different_amount = if balancing {
        event.amount < existing.amount
    } else {
        event.amount != existing.amount
    };
    if event.debit_account_id != existing.debit_account_id {
        Status::ExistsWithDifferentDebitAccountId
    } else if event.credit_account_id != existing.credit_account_id {
        Status::ExistsWithDifferentCreditAccountId
    } else if different_amount {
        Status::ExistsWithDifferentAmount
    } else if event.user_data_128 != existing.user_data_128 {
        Status::ExistsWithDifferentUserData128
    } else if event.user_data_64 != existing.user_data_64 {
        Status::ExistsWithDifferentUserData64
    } else if event.user_data_32 != existing.user_data_32 {
        Status::ExistsWithDifferentUserData32
    } else if event.ledger != existing.ledger {
        Status::ExistsWithDifferentLedger
    } else if event.code != existing.code {
        Status::ExistsWithDifferentCode
    } else {
        Status::Exists
    }
}

fn resolution(event: &Transfer, existing: &Transfer, pending: &Transfer) -> CreateTransferStatus {
    use CreateTransferStatus as Status;
    let void = event.flags & flags::VOID_PENDING_TRANSFER != 0;
    let whole = if void {
        event.amount == 0
    } else {
        event.amount == u128::MAX
    };
    let amount = if whole { pending.amount } else { event.amount };
    let differs = |given: u128, existing: u128| given != 0 && given != existing;
    if differs(event.debit_account_id, existing.debit_account_id) {
        Status::ExistsWithDifferentDebitAccountId
    } else if differs(event.credit_account_id, existing.credit_account_id) {
        Status::ExistsWithDifferentCreditAccountId
    } else if amount != existing.amount {
        Status::ExistsWithDifferentAmount
    } else if or(event.user_data_128, pending.user_data_128) != existing.user_data_128 {
        Status::ExistsWithDifferentUserData128
    } else if or(event.user_data_64, pending.user_data_64) != existing.user_data_64 {
        Status::ExistsWithDifferentUserData64
    } else if or(event.user_data_32, pending.user_data_32) != existing.user_data_32 {
        Status::ExistsWithDifferentUserData32
    } else if differs(event.ledger.into(), existing.ledger.into()) {
        Status::ExistsWithDifferentLedger
    } else if differs(event.code.into(), existing.code.into()) {
        Status::ExistsWithDifferentCode
    } else {
        Status::Exists
    }
}

/// The given value, or the inherited one where none is given.
pub(super) fn or<T: PartialEq + Default>(given: T, inherited: T) -> T {
    if given == T::default() {
        inherited
    } else {
        given
    }
}
