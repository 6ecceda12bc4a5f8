//! What the model answers to queries: it goes through what has happened and keeps what the filter says.

use stampede_client::wire::record::{account_filter_flags, account_flags, query_filter_flags};
use stampede_client::wire::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, QueryFilter,
    TIMESTAMP_MAX, Transfer,
};

use super::{Happened, Model, plausible_id};

/// Most records that one query returns.
const QUERY_MAX: usize = 8189;
/// Most change events.
const CHANGES_MAX: usize = 2730;

impl Model {
    pub(super) fn account_transfers(&self, filter: &AccountFilter) -> Vec<Transfer> {
        let found = self.of_account(filter);
        found.iter().map(|event| event.transfer).collect()
    }

    pub(super) fn account_balances(&self, filter: &AccountFilter) -> Vec<AccountBalance> {
        let account = self.accounts.get(&filter.account_id);
        if account.is_none_or(|account| account.flags & account_flags::HISTORY == 0) {
            return Vec::new();
        }
        let balance = |event: &Happened| {
            let then = if event.debit.id == filter.account_id {
                &event.debit
            } else {
                &event.credit
            };
            AccountBalance {
                debits_pending: then.debits_pending,
                debits_posted: then.debits_posted,
                credits_pending: then.credits_pending,
                credits_posted: then.credits_posted,
                timestamp: event.timestamp,
                ..AccountBalance::default()
            }
        };
        self.of_account(filter).into_iter().map(balance).collect()
    }

    /// The events of transfers that an account filter asks for.
    fn of_account(&self, filter: &AccountFilter) -> Vec<&Happened> {
        let sides = filter.flags & (account_filter_flags::DEBITS | account_filter_flags::CREDITS);
        if !plausible_id(filter.account_id)
            || sides == 0
            || filter.flags & account_filter_flags::RESERVED != 0
            || filter.reserved != [0; 58]
            || !is_valid_range(filter.timestamp_min, filter.timestamp_max, filter.limit)
        {
            return Vec::new();
        }
        let matches = |event: &&Happened| {
            let t = &event.transfer;
            let debits = sides & account_filter_flags::DEBITS != 0;
            let credits = sides & account_filter_flags::CREDITS != 0;
            !event.is_expiry()
                && (debits && t.debit_account_id == filter.account_id
                    || credits && t.credit_account_id == filter.account_id)
                && is_wanted(filter.user_data_128, t.user_data_128)
                && is_wanted(filter.user_data_64, t.user_data_64)
                && is_wanted(filter.user_data_32, t.user_data_32)
                && is_wanted(filter.code, t.code)
        };
        let events = self.between(filter.timestamp_min, filter.timestamp_max);
        let found = events.iter().filter(matches).collect();
        let reversed = filter.flags & account_filter_flags::REVERSED != 0;
        limited(found, reversed, QUERY_MAX, filter.limit)
    }

    pub(super) fn query_accounts(&self, filter: &QueryFilter) -> Vec<Account> {
        if !is_valid_query(filter) {
            return Vec::new();
        }
        let matches = |a: &Account| {
            is_wanted(filter.user_data_128, a.user_data_128)
                && is_wanted(filter.user_data_64, a.user_data_64)
                && is_wanted(filter.user_data_32, a.user_data_32)
                && is_wanted(filter.ledger, a.ledger)
                && is_wanted(filter.code, a.code)
        };
        let found = self
            .account_order
            .range(filter.timestamp_min..=open_end(filter.timestamp_max));
        let found = found
            .map(|(_, id)| self.accounts[id])
            .filter(matches)
            .collect();
        let reversed = filter.flags & query_filter_flags::REVERSED != 0;
        limited(found, reversed, QUERY_MAX, filter.limit)
    }

    pub(super) fn query_transfers(&self, filter: &QueryFilter) -> Vec<Transfer> {
        if !is_valid_query(filter) {
            return Vec::new();
        }
        let matches = |event: &&Happened| {
            let t = &event.transfer;
            !event.is_expiry()
                && is_wanted(filter.user_data_128, t.user_data_128)
                && is_wanted(filter.user_data_64, t.user_data_64)
                && is_wanted(filter.user_data_32, t.user_data_32)
                && is_wanted(filter.ledger, t.ledger)
                && is_wanted(filter.code, t.code)
        };
        let events = self.between(filter.timestamp_min, filter.timestamp_max);
        let found = events.iter().filter(matches);
        let found = found.map(|event| event.transfer).collect();
        let reversed = filter.flags & query_filter_flags::REVERSED != 0;
        limited(found, reversed, QUERY_MAX, filter.limit)
    }

    pub(super) fn change_events(&self, filter: &ChangeEventsFilter) -> Vec<ChangeEvent> {
        if filter.reserved != [0; 44]
            || !is_valid_range(filter.timestamp_min, filter.timestamp_max, filter.limit)
        {
            return Vec::new();
        }
        let events = self.between(filter.timestamp_min, filter.timestamp_max);
        let found = events.iter().map(change_event).collect();
        limited(found, false, CHANGES_MAX, filter.limit)
    }

    /// What has happened in a range of time; nothing is imported, so that is how it is in order.
    fn between(&self, min: u64, max: u64) -> &[Happened] {
        let start = self.events.partition_point(|event| event.timestamp < min);
        let events = &self.events[start..];
        let max = open_end(max);
        &events[..events.partition_point(|event| event.timestamp <= max)]
    }
}

/// Whether a filter's field asks for nothing, or for this.
fn is_wanted<T: Default + PartialEq>(asked: T, value: T) -> bool {
    asked == T::default() || asked == value
}

fn is_valid_range(min: u64, max: u64, limit: u32) -> bool {
    limit != 0 && min <= TIMESTAMP_MAX && max <= TIMESTAMP_MAX && (max == 0 || min <= max)
}

fn is_valid_query(filter: &QueryFilter) -> bool {
    filter.flags & query_filter_flags::RESERVED == 0
        && filter.reserved == [0; 6]
        && is_valid_range(filter.timestamp_min, filter.timestamp_max, filter.limit)
}

fn open_end(timestamp_max: u64) -> u64 {
    if timestamp_max == 0 {
        TIMESTAMP_MAX
    } else {
        timestamp_max
    }
}

fn limited<T>(mut found: Vec<T>, reversed: bool, most: usize, limit: u32) -> Vec<T> {
    if reversed {
        found.reverse();
    }
    found.truncate(most.min(limit as usize));
    found
}

fn change_event(event: &Happened) -> ChangeEvent {
    let (transfer, debit, credit) = (&event.transfer, &event.debit, &event.credit);
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
