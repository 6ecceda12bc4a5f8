//! What the model answers to queries: it goes through everything there is and keeps what the filter says.
//!
//! Everything is ordered by timestamp, and what has the same by which happened first. `cap` is the most that
//! the operation ever answers with.

use stampede_client::wire::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, QueryFilter, Transfer,
};

use super::{Event, MAX, Model, TIMESTAMP_MAX};

/// Bits of an account filter's flags.
const DEBITS: u32 = 1;
const CREDITS: u32 = 2;
const ACCOUNT_REVERSED: u32 = 4;
/// Of a query filter's.
const QUERY_REVERSED: u32 = 1;

impl Model {
    pub(in super::super) fn account_transfers(
        &self,
        filter: &AccountFilter,
        cap: usize,
    ) -> Vec<Transfer> {
        let found = self.of_account(filter, cap);
        found.iter().map(|event| event.transfer).collect()
    }

    pub(in super::super) fn account_balances(
        &self,
        filter: &AccountFilter,
        cap: usize,
    ) -> Vec<AccountBalance> {
        match self.state.accounts.get(&filter.account_id) {
            Some(account) if account.flags & 8 != 0 => (),
            _ => return vec![],
        }
        let found = self.of_account(filter, cap);
        let balances = found.iter().map(|event| {
            let then = if event.debit_after.id == filter.account_id {
                event.debit_after
            } else {
                event.credit_after
            };
            AccountBalance {
                debits_pending: then.debits_pending,
                debits_posted: then.debits_posted,
                credits_pending: then.credits_pending,
                credits_posted: then.credits_posted,
                timestamp: event.timestamp,
                reserved: [0; 56],
            }
        });
        balances.collect()
    }

    /// The events of transfers that the filter asks for.
    fn of_account(&self, f: &AccountFilter, cap: usize) -> Vec<&Event> {
        let valid = f.account_id != 0
            && f.account_id != MAX
            && is_valid_range(f.timestamp_min, f.timestamp_max)
            && f.limit != 0
            && f.flags & (DEBITS | CREDITS) != 0
            && f.flags < 8
            && f.reserved == [0; 58];
        if !valid {
            return vec![];
        }
        let found = self.events.iter().filter(|event| {
            let t = &event.transfer;
            let debits = f.flags & DEBITS != 0 && t.debit_account_id == f.account_id;
            let credits = f.flags & CREDITS != 0 && t.credit_account_id == f.account_id;
            !event.is_expiry()
                && (debits || credits)
                && (f.user_data_128 == 0 || f.user_data_128 == t.user_data_128)
                && (f.user_data_64 == 0 || f.user_data_64 == t.user_data_64)
                && (f.user_data_32 == 0 || f.user_data_32 == t.user_data_32)
                && (f.code == 0 || f.code == t.code)
                && is_within(t.timestamp, f.timestamp_min, f.timestamp_max)
        });
        let reversed = f.flags & ACCOUNT_REVERSED != 0;
        first_of(found, |event| event.timestamp, reversed, f.limit, cap)
    }

    pub(in super::super) fn query_transfers(&self, f: &QueryFilter, cap: usize) -> Vec<Transfer> {
        if !is_valid_query(f) {
            return vec![];
        }
        let found = self.transfers.values().filter(|t| {
            (f.user_data_128 == 0 || f.user_data_128 == t.user_data_128)
                && (f.user_data_64 == 0 || f.user_data_64 == t.user_data_64)
                && (f.user_data_32 == 0 || f.user_data_32 == t.user_data_32)
                && (f.ledger == 0 || f.ledger == t.ledger)
                && (f.code == 0 || f.code == t.code)
                && is_within(t.timestamp, f.timestamp_min, f.timestamp_max)
        });
        let reversed = f.flags & QUERY_REVERSED != 0;
        first_of(found.copied(), |t| t.timestamp, reversed, f.limit, cap)
    }

    pub(in super::super) fn query_accounts(&self, f: &QueryFilter, cap: usize) -> Vec<Account> {
        if !is_valid_query(f) {
            return vec![];
        }
        let found = self.state.accounts.values().filter(|a| {
            (f.user_data_128 == 0 || f.user_data_128 == a.user_data_128)
                && (f.user_data_64 == 0 || f.user_data_64 == a.user_data_64)
                && (f.user_data_32 == 0 || f.user_data_32 == a.user_data_32)
                && (f.ledger == 0 || f.ledger == a.ledger)
                && (f.code == 0 || f.code == a.code)
                && is_within(a.timestamp, f.timestamp_min, f.timestamp_max)
        });
        let reversed = f.flags & QUERY_REVERSED != 0;
        first_of(found.copied(), |a| a.timestamp, reversed, f.limit, cap)
    }

    pub(in super::super) fn change_events(
        &self,
        f: &ChangeEventsFilter,
        cap: usize,
    ) -> Vec<ChangeEvent> {
        let valid = is_valid_range(f.timestamp_min, f.timestamp_max)
            && f.limit != 0
            && f.reserved == [0; 44];
        if !valid {
            return vec![];
        }
        let mut found = self.events.iter().collect::<Vec<_>>();
        found.retain(|event| is_within(event.timestamp, f.timestamp_min, f.timestamp_max));
        let found = first_of(found, |event| event.timestamp, false, f.limit, cap);
        found.into_iter().map(change_event).collect()
    }
}

fn is_valid_range(min: u64, max: u64) -> bool {
    min <= TIMESTAMP_MAX && max <= TIMESTAMP_MAX && (max == 0 || min <= max)
}

fn is_valid_query(f: &QueryFilter) -> bool {
    is_valid_range(f.timestamp_min, f.timestamp_max)
        && f.limit != 0
        && f.flags <= QUERY_REVERSED
        && f.reserved == [0; 6]
}

fn is_within(timestamp: u64, min: u64, max: u64) -> bool {
    timestamp >= min && (max == 0 || timestamp <= max)
}

fn first_of<T>(
    found: impl IntoIterator<Item = T>,
    timestamp: impl Fn(&T) -> u64,
    reversed: bool,
    limit: u32,
    cap: usize,
) -> Vec<T> {
    let mut found: Vec<T> = found.into_iter().collect();
    found.sort_by_key(timestamp);
    if reversed {
        found.reverse();
    }
    found.truncate(cap.min(limit as usize));
    found
}

fn change_event(event: &Event) -> ChangeEvent {
    let (transfer, debit, credit) = (&event.transfer, &event.debit_after, &event.credit_after);
    ChangeEvent {
        transfer_id: transfer.id,
        transfer_amount: transfer.amount,
        transfer_pending_id: transfer.pending_id,
        transfer_user_data_128: transfer.user_data_128,
        transfer_user_data_64: transfer.user_data_64,
        transfer_user_data_32: transfer.user_data_32,
        transfer_timeout: transfer.timeout,
        transfer_code: transfer.code,
        transfer_flags: transfer.flags,
        ledger: transfer.ledger,
        kind: event.kind,
        reserved: [0; 39],
        debit_account_id: debit.id,
        debit_account_debits_pending: debit.debits_pending,
        debit_account_debits_posted: debit.debits_posted,
        debit_account_credits_pending: debit.credits_pending,
        debit_account_credits_posted: debit.credits_posted,
        debit_account_user_data_128: debit.user_data_128,
        debit_account_user_data_64: debit.user_data_64,
        debit_account_user_data_32: debit.user_data_32,
        debit_account_code: debit.code,
        debit_account_flags: debit.flags,
        credit_account_id: credit.id,
        credit_account_debits_pending: credit.debits_pending,
        credit_account_debits_posted: credit.debits_posted,
        credit_account_credits_pending: credit.credits_pending,
        credit_account_credits_posted: credit.credits_posted,
        credit_account_user_data_128: credit.user_data_128,
        credit_account_user_data_64: credit.user_data_64,
        credit_account_user_data_32: credit.user_data_32,
        credit_account_code: credit.code,
        credit_account_flags: credit.flags,
        timestamp: event.timestamp,
        transfer_timestamp: transfer.timestamp,
        debit_account_timestamp: debit.timestamp,
        credit_account_timestamp: credit.timestamp,
    }
}
