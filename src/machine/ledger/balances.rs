//! get_account_balances: an account's balances right after each of its transfers.
//!
//! ```text
//!   rows that the filter asks for
//!   each period that has some
//!     opening ─► the account's transfers and expiries, in order ─► balances at those rows
//! ```
//!
//! What is replayed is the account's own: its postings lead to it. Expiries change balances and have no
//! row of their own here.

use stampede_client::wire::record::account_flags;
use stampede_client::wire::{AccountBalance, AccountFilter};
use zerocopy::IntoBytes;

use super::books::Books;
use super::history::PeriodView;
use super::lookup::Found;
use super::openings::{Balances, Side};
use super::query::AccountSearch;
use super::replay::Effect;
use super::row::Expired;

impl Books {
    pub(super) fn account_balances(
        &self,
        filter: &AccountFilter,
        limit: u32,
        found: &mut [u8],
    ) -> usize {
        let mut found = Found::new(found);
        let Some(search) = self.account_search(filter) else {
            return 0;
        };
        let account = self.accounts.row(search.account);
        if account.flags & account_flags::HISTORY == 0 || search.rows.is_empty() {
            return 0;
        }
        let mut rows = Vec::with_capacity(limit as usize);
        let range = search.rows.clone();
        self.search_account_transfers(&search, range, limit as usize, |row, _| rows.push(row));
        let mut balances = Vec::new();
        // Rows are in order, up or down, so those of a period are neighbours.
        let mut left = rows.as_slice();
        while let Some(&first) = left.first() {
            let number = self.history.of_transfer(first);
            let period = self.history.period(number, self.now());
            let within = period.start.transfers..period.end.transfers;
            let count = left.partition_point(|row| within.contains(row));
            let (wanted, rest) = left.split_at(count);
            left = rest;
            let last = wanted[count - 1];
            balances.clear();
            let end = first.max(last) + 1;
            self.replay_account(search.account, &period, end, |row, balance| {
                balances.push((row, balance));
            });
            for row in wanted {
                let place = balances.binary_search_by_key(row, |(row, _)| *row);
                let place = place.expect("a row that is asked for is the account's");
                found.push(AccountBalance::as_bytes(&balances[place].1));
            }
        }
        found.size()
    }

    /// Calls `visit` with the account's balances after each of its transfers of the period below `end`.
    fn replay_account(
        &self,
        account: u32,
        period: &PeriodView<'_>,
        end: u32,
        mut visit: impl FnMut(u32, AccountBalance),
    ) {
        let mut expiries = Vec::new();
        let range = period.start.expired..period.end.expired;
        self.search_account_expired(account, range, |row, _| expiries.push(row));
        let mut expiries = expiries
            .into_iter()
            .map(|row| (row, self.expired.read(row)));
        let mut expiry = expiries.next();
        let mut balances: Option<Balances> = None;
        let search = AccountSearch::of_all(account);
        let rows = period.start.transfers..end;
        self.search_account_transfers(&search, rows, usize::MAX, |row, transfer| {
            while let Some((number, expired)) = expiry.filter(|(_, expired)| expired.at <= row) {
                let side = if expired.debit == account {
                    Side::Debit
                } else {
                    Side::Credit
                };
                let balances = balances.get_or_insert_with(|| {
                    let before = expired.at - period.start.transfers;
                    let event = before + (number - period.start.expired);
                    opening(period, event, side)
                });
                balances.apply(side, &Effect::of_expired(&expired));
                expiry = expiries.next();
            }
            let id = self.accounts.row(account).id;
            let side = if transfer.debit_account_id == id {
                Side::Debit
            } else {
                Side::Credit
            };
            let balances = balances.get_or_insert_with(|| {
                let event = row - period.start.transfers + self.expired_before(row, period);
                opening(period, event, side)
            });
            let effect = Effect::of_transfer(transfer, period.openings.released(row));
            balances.apply(side, &effect);
            let Balances {
                debits_pending,
                debits_posted,
                credits_pending,
                credits_posted,
                closed: _,
            } = *balances;
            let balance = AccountBalance {
                debits_pending,
                debits_posted,
                credits_pending,
                credits_posted,
                timestamp: transfer.timestamp,
                ..AccountBalance::default()
            };
            visit(row, balance);
        });
    }

    /// Expiries of the period before the transfer at `row`.
    fn expired_before(&self, row: u32, period: &PeriodView<'_>) -> u32 {
        let expiries = period.start.expired..period.end.expired;
        let before = |expired: &Expired| expired.at <= row;
        self.expired.partition_point_in(expiries, before) - period.start.expired
    }
}

fn opening(period: &PeriodView<'_>, event: u32, side: Side) -> Balances {
    let opening = period.openings.find(event, side);
    opening.expect("the first event of an account in a period has opened it")
}
