//! get_account_transfers, query_transfers, query_accounts: records that a filter asks for.
//!
//! ```text
//!   filter ─► wanted keys, range of rows by timestamp, direction, limit
//!      │ chunk by chunk, from the end that is asked for
//!      ├─ postings of each key ─► positions in all of them ─► candidates, 256 at a time
//!      │      none for a key: on to the next chunk              │ rows fetched together
//!      └─ the chunk that is not yet full: every row             ▼
//!                                              the row decides ─► reply, until the limit
//! ```
//!
//! A filter that makes no sense finds nothing, and says nothing: so the protocol wants it.
//!
//! The work of a query is bounded by the number of chunks (a search in each), by the limit, and by the
//! rarest of the keys: candidates that only one key has are passed over by galloping.

use std::ops::Range;

use stampede_client::wire::record::{account_filter_flags, query_filter_flags};
use stampede_client::wire::{Account, AccountFilter, QueryFilter, TIMESTAMP_MAX, Transfer};
use zerocopy::IntoBytes;

use super::books::Books;
use super::indexes::{EXPIRED_CREDIT, EXPIRED_DEBIT, Fields, TRANSFER_CREDIT, TRANSFER_DEBIT};
use super::lookup::Found;
use super::row::Expired;
use crate::store::{
    Blob, IdHash, Matches, Plain, Positions, Postings, ROW_NONE, TERMS_MAX, Table, Term,
};

/// Candidates whose rows are fetched together, from as many chunks as it takes: rows that are not in
/// memory are then read at once.
const ROUND: usize = 256;

/// A key of a column, or either of two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    one: (usize, u32),
    other: Option<(usize, u32)>,
}

impl Wanted {
    pub(super) fn of(column: usize, key: u32) -> Self {
        Self {
            one: (column, key),
            other: None,
        }
    }

    pub(super) fn either(one: (usize, u32), other: (usize, u32)) -> Self {
        Self {
            one,
            other: Some(other),
        }
    }

    fn term(self, postings: Postings<'_>) -> Term<'_> {
        let find = |(column, key)| postings.find(column, key);
        match self.other {
            None => Term::of(find(self.one)),
            Some(other) => Term::either(find(self.one), find(other)),
        }
    }
}

/// Everything that a row must have, besides its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    wanted: [Option<Wanted>; TERMS_MAX],
    fields: Fields,
}

impl Conditions {
    fn of_fields(fields: Fields) -> Self {
        let mut wanted = [None; TERMS_MAX];
        for (column, key) in fields.keys().into_iter().enumerate() {
            wanted[column] = key.map(|key| Wanted::of(column, key));
        }
        Self { wanted, fields }
    }

    fn and(mut self, wanted: Wanted) -> Self {
        let last = self.wanted.last_mut().expect("an array");
        assert!(last.is_none(), "one more than the fields");
        *last = Some(wanted);
        self
    }
}

/// The chunks that have rows of a range, and which those are, from either end.
struct Chunks {
    rows: Range<u32>,
    chunk_rows: u32,
    reversed: bool,
}

impl Chunks {
    fn new(rows: &Range<u32>, chunk_rows: u32, reversed: bool) -> Self {
        Self {
            rows: rows.clone(),
            chunk_rows,
            reversed,
        }
    }
}

impl Iterator for Chunks {
    type Item = (u32, Range<u32>);

    fn next(&mut self) -> Option<Self::Item> {
        let Range { start, end } = self.rows;
        if start >= end {
            return None;
        }
        let chunk = if self.reversed { end - 1 } else { start } / self.chunk_rows;
        let base = chunk * self.chunk_rows;
        let first = start.max(base);
        let last = (end - 1).min(base + (self.chunk_rows - 1));
        if self.reversed {
            self.rows.end = first;
        } else {
            self.rows.start = last + 1;
        }
        Some((chunk, first - base..last - base + 1))
    }
}

/// A table with the postings of its full chunks.
#[derive(Debug)]
pub(super) struct Indexed<'a, T> {
    pub(super) table: &'a Table<T>,
    pub(super) postings: &'a [Blob],
}

impl<T: Plain> Indexed<'_, T>
where
    Fields: for<'f> From<&'f T>,
{
    /// Calls `take` with the rows of a range that meet the conditions, in order, at most `limit`.
    /// `in_tail` says of a row that is not yet posted whether it can be one.
    fn search(
        &self,
        conditions: &Conditions,
        rows: Range<u32>,
        reversed: bool,
        limit: usize,
        in_tail: impl Fn(u32) -> bool,
        mut take: impl FnMut(u32, &T),
    ) {
        let mut left = limit;
        let mut round = [0; ROUND];
        let mut chunks = Chunks::new(&rows, self.table.chunk_rows(), reversed);
        let mut chunk = None;
        loop {
            let mut count = 0;
            let wanted = left.min(ROUND);
            while count < wanted {
                let Some((base, matches)) = &mut chunk else {
                    let Some((number, range)) = chunks.next() else {
                        break;
                    };
                    let base = number * self.table.chunk_rows();
                    let matches = self.matches(conditions, number, range, reversed);
                    chunk = matches.map(|matches| (base, matches));
                    continue;
                };
                match matches.next().map(|position| *base + position) {
                    None => chunk = None,
                    Some(row) if self.is_posted(row) || in_tail(row) => {
                        round[count] = row;
                        count += 1;
                    }
                    Some(_) => {}
                }
            }
            if count == 0 {
                return;
            }
            let found = &round[..count];
            self.table.fetch_rows(found);
            for &row in found {
                let record = self.table.read(row);
                if conditions.fields.are_met_by(&Fields::from(&record)) {
                    take(row, &record);
                    left -= 1;
                }
            }
        }
    }

    fn is_posted(&self, row: u32) -> bool {
        ((row / self.table.chunk_rows()) as usize) < self.postings.len()
    }

    /// Candidates of a chunk; `None` if a key is not in it at all.
    fn matches(
        &self,
        conditions: &Conditions,
        chunk: u32,
        range: Range<u32>,
        reversed: bool,
    ) -> Option<Matches<'_>> {
        let Some(postings) = self.postings.get(chunk as usize) else {
            return Some(Matches::new(&[], range, reversed));
        };
        let postings = Postings::of(postings);
        let mut terms = [Term::of(Positions::NONE); TERMS_MAX];
        let mut count = 0;
        // The account's key, which is the last, is the one that a chunk is least likely to have.
        for wanted in conditions.wanted.iter().rev().flatten() {
            terms[count] = wanted.term(postings);
            if terms[count].is_empty() {
                return None;
            }
            count += 1;
        }
        Some(Matches::new(&terms[..count], range, reversed))
    }
}

/// What an account filter asks for.
#[derive(Debug)]
pub(super) struct AccountSearch {
    /// Row of the account.
    pub(super) account: u32,
    debits: bool,
    credits: bool,
    pub(super) rows: Range<u32>,
    pub(super) reversed: bool,
    conditions: Conditions,
}

impl AccountSearch {
    /// All transfers of an account, in order.
    pub(super) fn of_all(account: u32) -> Self {
        Self {
            account,
            debits: true,
            credits: true,
            rows: 0..u32::MAX,
            reversed: false,
            conditions: Conditions::of_fields(Fields::default()).and(Wanted::either(
                (TRANSFER_DEBIT, account),
                (TRANSFER_CREDIT, account),
            )),
        }
    }
}

impl Books {
    pub(super) fn account_transfers(
        &self,
        filter: &AccountFilter,
        limit: u32,
        found: &mut [u8],
    ) -> usize {
        let mut found = Found::new(found);
        if let Some(search) = self.account_search(filter) {
            let rows = search.rows.clone();
            self.search_account_transfers(&search, rows, limit as usize, |_, transfer| {
                found.push(Transfer::as_bytes(transfer));
            });
        }
        found.size()
    }

    pub(super) fn query_transfers(
        &self,
        filter: &QueryFilter,
        limit: u32,
        found: &mut [u8],
    ) -> usize {
        let mut found = Found::new(found);
        if is_valid_query(filter) {
            let indexed = Indexed {
                table: &self.transfers,
                postings: &self.indexes.transfers,
            };
            indexed.search(
                &Conditions::of_fields(filter.into()),
                self.transfers_between(filter.timestamp_min, filter.timestamp_max),
                filter.flags & query_filter_flags::REVERSED != 0,
                limit as usize,
                |_| true,
                |_, transfer| found.push(Transfer::as_bytes(transfer)),
            );
        }
        found.size()
    }

    pub(super) fn query_accounts(
        &self,
        filter: &QueryFilter,
        limit: u32,
        found: &mut [u8],
    ) -> usize {
        let mut found = Found::new(found);
        if is_valid_query(filter) {
            let indexed = Indexed {
                table: &self.accounts,
                postings: &self.indexes.accounts,
            };
            let start = self
                .accounts
                .partition_point(|account| account.timestamp < filter.timestamp_min);
            let max = open_end(filter.timestamp_max);
            let end = self
                .accounts
                .partition_point(|account| account.timestamp <= max);
            indexed.search(
                &Conditions::of_fields(filter.into()),
                start..end,
                filter.flags & query_filter_flags::REVERSED != 0,
                limit as usize,
                |_| true,
                |_, account| found.push(Account::as_bytes(&account.record())),
            );
        }
        found.size()
    }

    /// What the filter asks for; `None` if it asks for nothing, or of nobody.
    pub(super) fn account_search(&self, filter: &AccountFilter) -> Option<AccountSearch> {
        use account_filter_flags::{CREDITS, DEBITS, RESERVED, REVERSED};
        let (debits, credits) = (filter.flags & DEBITS != 0, filter.flags & CREDITS != 0);
        let valid = filter.account_id != 0
            && filter.account_id != u128::MAX
            && is_valid_range(filter.timestamp_min, filter.timestamp_max, filter.limit)
            && (debits || credits)
            && filter.flags & RESERVED == 0
            && filter.reserved == [0; 58];
        if !valid {
            return None;
        }
        let candidate = self.account_ids.candidate(IdHash::of(filter.account_id));
        let account = self.account_row(filter.account_id, candidate);
        if account == ROW_NONE {
            return None;
        }
        let (debit, credit) = ((TRANSFER_DEBIT, account), (TRANSFER_CREDIT, account));
        let wanted = match (debits, credits) {
            (true, true) => Wanted::either(debit, credit),
            (true, false) => Wanted::of(TRANSFER_DEBIT, account),
            (false, _) => Wanted::of(TRANSFER_CREDIT, account),
        };
        let mut rows = self.transfers_between(filter.timestamp_min, filter.timestamp_max);
        // Nothing of it is before it was created, nor after the last period that has touched it.
        let row = self.accounts.row(account);
        rows.start = rows.start.max(self.chunk_start_before(row.timestamp));
        let end = match row.opened {
            0 => 0,
            mark => self.history.period(mark - 1, self.now()).end.transfers,
        };
        rows.end = rows.end.min(end);
        Some(AccountSearch {
            account,
            debits,
            credits,
            rows,
            reversed: filter.flags & REVERSED != 0,
            conditions: Conditions::of_fields(filter.into()).and(wanted),
        })
    }

    /// The rows that the filter asks for among `rows`, in its order.
    pub(super) fn search_account_transfers(
        &self,
        search: &AccountSearch,
        rows: Range<u32>,
        limit: usize,
        take: impl FnMut(u32, &Transfer),
    ) {
        let indexed = Indexed {
            table: &self.transfers,
            postings: &self.indexes.transfers,
        };
        let in_tail = |row| {
            let [debit, credit] = self.parties_of_tail(row);
            search.debits && debit == search.account || search.credits && credit == search.account
        };
        indexed.search(
            &search.conditions,
            rows,
            search.reversed,
            limit,
            in_tail,
            take,
        );
    }

    /// The account's expiries among `rows`, in order.
    pub(super) fn search_account_expired(
        &self,
        account: u32,
        rows: Range<u32>,
        take: impl FnMut(u32, &Expired),
    ) {
        let indexed = Indexed {
            table: &self.expired,
            postings: &self.indexes.expired,
        };
        let wanted = Wanted::either((EXPIRED_DEBIT, account), (EXPIRED_CREDIT, account));
        let conditions = Conditions::of_fields(Fields::default()).and(wanted);
        let in_tail = |row| {
            let expired = self.expired.read(row);
            expired.debit == account || expired.credit == account
        };
        indexed.search(&conditions, rows, false, usize::MAX, in_tail, take);
    }

    /// The accounts of a transfer that is not yet posted.
    pub(super) fn parties_of_tail(&self, row: u32) -> [u32; 2] {
        self.indexes.parties[(row - self.rows_posted()) as usize]
    }

    /// The rows of transfers within the range of a filter; 0 stands for an open end.
    pub(super) fn transfers_between(&self, min: u64, max: u64) -> Range<u32> {
        self.transfers_before(min)..self.transfers_before(open_end(max).saturating_add(1))
    }

    /// How many transfers are earlier.
    fn transfers_before(&self, timestamp: u64) -> u32 {
        if timestamp > self.transfer_timestamp_max() {
            return self.transfers.len();
        }
        // The chunk first, from memory: bisection in one that is in a file reads a few pages.
        let start = self.chunk_start_before(timestamp);
        let chunk_rows = self.transfers.chunk_rows();
        let end = start.saturating_add(chunk_rows).min(self.transfers.len());
        self.transfers
            .partition_point_in(start..end, |transfer| transfer.timestamp < timestamp)
    }

    /// The start of the last chunk that can have a transfer earlier than `timestamp`, and of the last one
    /// before which no transfer is later.
    fn chunk_start_before(&self, timestamp: u64) -> u32 {
        let posted = &self.indexes.first_timestamps;
        let rows_posted = self.rows_posted();
        if rows_posted < self.transfers.len()
            && self.transfers.row(rows_posted).timestamp < timestamp
        {
            return rows_posted;
        }
        let chunks = posted.partition_point(|first| *first < timestamp);
        let chunk = u32::try_from(chunks.saturating_sub(1)).expect("chunks are fewer than rows");
        chunk * self.transfers.chunk_rows()
    }
}

/// The last timestamp that a filter lets through.
pub(super) fn open_end(timestamp_max: u64) -> u64 {
    if timestamp_max == 0 {
        TIMESTAMP_MAX
    } else {
        timestamp_max
    }
}

pub(super) fn is_valid_range(min: u64, max: u64, limit: u32) -> bool {
    min <= TIMESTAMP_MAX && max <= TIMESTAMP_MAX && (max == 0 || min <= max) && limit != 0
}

fn is_valid_query(filter: &QueryFilter) -> bool {
    is_valid_range(filter.timestamp_min, filter.timestamp_max, filter.limit)
        && filter.flags & query_filter_flags::RESERVED == 0
        && filter.reserved == [0; 6]
}
