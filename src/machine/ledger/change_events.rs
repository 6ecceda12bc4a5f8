//! get_change_events: every transfer and every expiry, with both accounts right after it.
//!
//! ```text
//!   transfers by timestamp ──┐
//!                            ├─ merged by timestamp ─► at most `limit` events, each with its place
//!   expiries by timestamp ───┘                             │
//!                                                          ▼
//!   each period that has some: all openings, all events in order ─► balances at the wanted ones
//! ```
//!
//! Both tables ascend by timestamp. They are merged by it, not by the order in which things happened: an
//! imported transfer may come after an expiry and have an earlier timestamp. (With equal timestamps the
//! expiry, which happened earlier, is first.) Balances are those of the order in which it happened.
//!
//! Events that are asked for in a row lie in a period or two. Only where imported timestamps part the two
//! tables can they lie in more, at most one for each event.

use std::ops::Range;

use stampede_client::wire::record::{account_flags, change_event_type, transfer_flags};
use stampede_client::wire::{ChangeEvent, ChangeEventsFilter, Transfer};
use zerocopy::IntoBytes;

use super::books::Books;
use super::history::PeriodView;
use super::indexes::{Parties, TRANSFER_CREDIT, TRANSFER_DEBIT};
use super::openings::{Balances, Side};
use super::query::{is_valid_range, open_end};
use super::replay::Effect;
use super::row::AccountRow;
use crate::store::Postings;

/// Events of a reply, and where each goes.
struct Wanted {
    transfers: Range<u32>,
    expired: Range<u32>,
    /// By number in its range.
    transfer_places: Vec<usize>,
    expired_places: Vec<usize>,
}

/// Balances of the accounts of a period while it is replayed; kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Of the transfers of the period's chunk.
    parties: Vec<Parties>,
    /// By row of an account: where its balances are, if it is that account's.
    places: Vec<u32>,
    balances: Vec<(u32, Balances)>,
}

impl Replayed {
    fn begin(&mut self, accounts: u32) {
        self.balances.clear();
        self.places.resize(accounts as usize, 0);
    }

    fn open(&mut self, account: u32, balances: Balances) {
        let place = u32::try_from(self.balances.len()).expect("a period is bounded");
        self.places[account as usize] = place;
        self.balances.push((account, balances));
    }

    fn of(&mut self, account: u32) -> &mut Balances {
        let place = self.places[account as usize] as usize;
        let (owner, balances) = &mut self.balances[place];
        assert_eq!(
            *owner, account,
            "a period opens the accounts that it touches"
        );
        balances
    }
}

impl Books {
    pub(super) fn change_events(
        &self,
        replayed: &mut Replayed,
        filter: &ChangeEventsFilter,
        limit: u32,
        found: &mut [u8],
    ) -> usize {
        let (min, max) = (filter.timestamp_min, filter.timestamp_max);
        if !is_valid_range(min, max, filter.limit) || filter.reserved != [0; 44] {
            return 0;
        }
        let wanted = self.merge(min, max, limit as usize);
        for number in self.periods_of(&wanted) {
            let period = self.history.period(number, self.now());
            self.replay_period(&period, &wanted, replayed, found);
        }
        (wanted.transfer_places.len() + wanted.expired_places.len()) * ChangeEvent::SIZE
    }

    /// The first events of a range of time.
    fn merge(&self, min: u64, max: u64, limit: usize) -> Wanted {
        let transfers = self.transfers_between(min, max);
        let max = open_end(max);
        let start = self.expired.partition_point(|row| row.timestamp < min);
        let end = self.expired.partition_point(|row| row.timestamp <= max);
        let expired = start..end;
        let mut wanted = Wanted {
            transfers: transfers.start..transfers.start,
            expired: start..start,
            transfer_places: Vec::with_capacity(limit),
            expired_places: Vec::new(),
        };
        for place in 0..limit {
            let (row, expiry) = (wanted.transfers.end, wanted.expired.end);
            let is_transfer = match (transfers.end > row, expired.end > expiry) {
                (true, true) => {
                    self.transfers.read(row).timestamp < self.expired.read(expiry).timestamp
                }
                (false, false) => break,
                (is_transfer, _) => is_transfer,
            };
            if is_transfer {
                wanted.transfers.end += 1;
                wanted.transfer_places.push(place);
            } else {
                wanted.expired.end += 1;
                wanted.expired_places.push(place);
            }
        }
        wanted
    }

    /// The numbers of the periods that have events of these.
    fn periods_of(&self, wanted: &Wanted) -> Vec<u32> {
        let mut periods = Vec::new();
        if !wanted.transfers.is_empty() {
            let first = self.history.of_transfer(wanted.transfers.start);
            periods.extend(first..=self.history.of_transfer(wanted.transfers.end - 1));
        }
        if !wanted.expired.is_empty() {
            let first = self.history.of_expired(wanted.expired.start);
            periods.extend(first..=self.history.of_expired(wanted.expired.end - 1));
        }
        periods.sort_unstable();
        periods.dedup();
        periods
    }

    fn replay_period(
        &self,
        period: &PeriodView<'_>,
        wanted: &Wanted,
        replayed: &mut Replayed,
        found: &mut [u8],
    ) {
        let chunk_rows = self.transfers.chunk_rows();
        let base = period.start.transfers / chunk_rows * chunk_rows;
        self.invert(base / chunk_rows, replayed);
        replayed.begin(self.accounts.len());
        let mut openings = period.openings.records();
        let (mut row, mut expiry) = (period.start.transfers, period.start.expired);
        let row_end = wanted.transfers.end.min(period.end.transfers);
        let expiry_end = wanted.expired.end.min(period.end.expired);
        let mut event = 0;
        while row < row_end || expiry < expiry_end {
            let expired = (expiry < period.end.expired)
                .then(|| self.expired.read(expiry))
                .filter(|expired| expired.at <= row);
            let ([debit, credit], effect) = match expired {
                Some(expired) => {
                    let effect = Effect::of_expired(&expired);
                    ([expired.debit, expired.credit], effect)
                }
                None => {
                    assert!(row < period.end.transfers, "expiries are in order");
                    let released = period.openings.released(row);
                    let effect = Effect::of_transfer(&self.transfers.read(row), released);
                    (replayed.parties[(row - base) as usize], effect)
                }
            };
            for (account, side) in [(debit, Side::Debit), (credit, Side::Credit)] {
                if period.openings.is_opening(event, side) {
                    let opening = openings.next();
                    replayed.open(account, opening.expect("as many as are marked"));
                }
                replayed.of(account).apply(side, &effect);
            }
            event += 1;
            let (place, change) = match expired {
                Some(expired) => {
                    let place = place_of(expiry, &wanted.expired, &wanted.expired_places);
                    expiry += 1;
                    let Some(place) = place else { continue };
                    let pending = self.transfer_row(expired.pending);
                    let change = ChangeEvent {
                        kind: change_event_type::TWO_PHASE_EXPIRED,
                        timestamp: expired.timestamp,
                        ..of_transfer(&pending)
                    };
                    (place, change)
                }
                None => {
                    let place = place_of(row, &wanted.transfers, &wanted.transfer_places);
                    row += 1;
                    let Some(place) = place else { continue };
                    (place, of_transfer(&self.transfers.read(row - 1)))
                }
            };
            let (debit_after, credit_after) = (*replayed.of(debit), *replayed.of(credit));
            let change = with_accounts(
                &change,
                (self.accounts.row(debit), &debit_after),
                (self.accounts.row(credit), &credit_after),
            );
            let at = place * ChangeEvent::SIZE;
            found[at..at + ChangeEvent::SIZE].copy_from_slice(change.as_bytes());
        }
    }

    /// The accounts of every transfer of a chunk.
    fn invert(&self, chunk: u32, replayed: &mut Replayed) {
        let parties = &mut replayed.parties;
        parties.clear();
        let Some(postings) = self.indexes.transfers.get(chunk as usize) else {
            parties.extend_from_slice(&self.indexes.parties);
            return;
        };
        self.transfers.fetch_chunk(chunk);
        parties.resize(self.transfers.chunk_rows() as usize, [0; 2]);
        let postings = Postings::of(postings);
        for (side, column) in [TRANSFER_DEBIT, TRANSFER_CREDIT].into_iter().enumerate() {
            for (account, positions) in postings.keys(column) {
                positions.for_each(|position| parties[position as usize][side] = account);
            }
        }
    }
}

fn place_of(number: u32, range: &Range<u32>, places: &[usize]) -> Option<usize> {
    range
        .contains(&number)
        .then(|| places[(number - range.start) as usize])
}

/// The transfer's part of an event.
fn of_transfer(transfer: &Transfer) -> ChangeEvent {
    let kind = if transfer.flags & transfer_flags::PENDING != 0 {
        change_event_type::TWO_PHASE_PENDING
    } else if transfer.flags & transfer_flags::POST_PENDING_TRANSFER != 0 {
        change_event_type::TWO_PHASE_POSTED
    } else if transfer.flags & transfer_flags::VOID_PENDING_TRANSFER != 0 {
        change_event_type::TWO_PHASE_VOIDED
    } else {
        change_event_type::SINGLE_PHASE
    };
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
        kind,
        timestamp: transfer.timestamp,
        transfer_timestamp: transfer.timestamp,
        ..ChangeEvent::default()
    }
}

fn with_accounts(
    event: &ChangeEvent,
    (debit, debit_after): (&AccountRow, &Balances),
    (credit, credit_after): (&AccountRow, &Balances),
) -> ChangeEvent {
    ChangeEvent {
        debit_account_id: debit.id,
        debit_account_debits_pending: debit_after.debits_pending,
        debit_account_debits_posted: debit_after.debits_posted,
        debit_account_credits_pending: debit_after.credits_pending,
        debit_account_credits_posted: debit_after.credits_posted,
        debit_account_user_data_128: debit.user_data_128,
        debit_account_user_data_64: debit.user_data_64,
        debit_account_user_data_32: debit.user_data_32,
        debit_account_code: debit.code,
        debit_account_flags: flags_then(debit, debit_after),
        credit_account_id: credit.id,
        credit_account_debits_pending: credit_after.debits_pending,
        credit_account_debits_posted: credit_after.debits_posted,
        credit_account_credits_pending: credit_after.credits_pending,
        credit_account_credits_posted: credit_after.credits_posted,
        credit_account_user_data_128: credit.user_data_128,
        credit_account_user_data_64: credit.user_data_64,
        credit_account_user_data_32: credit.user_data_32,
        credit_account_code: credit.code,
        credit_account_flags: flags_then(credit, credit_after),
        debit_account_timestamp: debit.timestamp,
        credit_account_timestamp: credit.timestamp,
        ..*event
    }
}

/// Of an account's flags only `closed` ever changes.
fn flags_then(account: &AccountRow, then: &Balances) -> u16 {
    let others = account.flags & !account_flags::CLOSED;
    others
        | if then.closed {
            account_flags::CLOSED
        } else {
            0
        }
}
