//! Transfers and expiries, done once more in the order in which they happened.
//!
//! ```text
//!   accounts with nothing ── event ── event ── event ──►  balances, closed, marks  =  the accounts' rows
//!                              │ before it: could it be, as its accounts were then?
//!                              │            the openings that it makes  =  those that its period keeps
//!                              └ after it:  what it resolved  =  what is noted of that
//! ```
//!
//! A balance of the past is an opening and the effects of events after it. Openings are compared with what the walk
//! knows, all of them, and effects are computed here by what computes them for answers: so an answer is what the
//! walk has seen.
//!
//! Rows may say anything: nothing here relies on what has not been checked.

use stampede_client::wire::record::{account_flags, transfer_flags as flags};
use stampede_client::wire::{CreateTransferStatus as Status, TIMESTAMP_MAX, Transfer};

use super::super::books::{Books, Known, ROW_UNKNOWN, is_resolution};
use super::super::expiry::{PULSE_EVENTS_MAX, expires_at};
use super::super::history::Point;
use super::super::indexes::{EXPIRED_KEYS, Fields, TRANSFER_KEYS};
use super::super::openings::{Balances, OpeningsView, Side};
use super::super::replay::Effect;
use super::super::resolutions::Resolution;
use super::super::row::{AccountRow, Expired};
use super::super::{resolve, transfers};
use super::Verified;
use super::chain::Chain;
use super::postings::ChunkKeys;
use crate::store::{IdHash, ROW_NONE};

/// An account on the way.
#[derive(Debug, Default, Clone, Copy)]
struct State {
    balances: Balances,
    /// [`AccountRow::opened`].
    opened: u32,
}

/// The period of the present event.
#[derive(Debug)]
struct Period<'a> {
    number: u32,
    start: Point,
    openings: OpeningsView<'a>,
    /// What its events have opened, and released, so far.
    opened: u32,
    released: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    books: &'a Books,
    found: &'a mut Verified,
    accounts: Vec<State>,
    /// One bit for each transfer that another one, or its time, has resolved.
    resolved: Vec<u64>,
    at: Point,
    period: Period<'a>,
    chain: Chain,
    /// Of the last transfer, and the latest of all events.
    transfer_time: u64,
    time: u64,
    /// The first account that is not older than the last transfer.
    next_account: u32,
    /// What expired last: when it was due, and its row.
    last_due: (u64, u32),
    /// Unresolved transfers with a timeout.
    timed: usize,
    transfer_keys: ChunkKeys<{ TRANSFER_KEYS.len() }>,
    expired_keys: ChunkKeys<{ EXPIRED_KEYS.len() }>,
}

impl<'a> Walk<'a> {
    /// From the beginning. `None`, and a word about it, if history is not in as many pieces as it should be.
    pub(super) fn new(books: &'a Books, found: &'a mut Verified) -> Option<Self> {
        let (history, now) = (&books.history, books.now());
        if history.number(now) != history.number_open() {
            found.broken(|| "history has not ended a period with each full chunk".to_owned());
            return None;
        }
        Some(Self {
            books,
            found,
            accounts: vec![State::default(); books.accounts.len() as usize],
            resolved: vec![0; books.transfers.len().div_ceil(64) as usize],
            at: Point::default(),
            period: Period {
                number: 0,
                start: Point::default(),
                openings: history.period(0, now).openings,
                opened: 0,
                released: 0,
            },
            chain: Chain::default(),
            transfer_time: 0,
            time: 0,
            next_account: 0,
            last_due: (0, 0),
            timed: 0,
            transfer_keys: ChunkKeys::new("transfers", &TRANSFER_KEYS),
            expired_keys: ChunkKeys::new("expiries", &EXPIRED_KEYS),
        })
    }

    pub(super) fn run(mut self) {
        let books = self.books;
        let expiry = |number| (number < books.expired.len()).then(|| books.expired.read(number));
        let mut next = expiry(0);
        loop {
            let due = next.filter(|expired| expired.at <= self.at.transfers);
            if let Some(expired) = due {
                self.enter_period();
                self.expiry(&expired);
                self.at.expired += 1;
                next = expiry(self.at.expired);
            } else if self.at.transfers < books.transfers.len() {
                self.enter_period();
                self.transfer();
                self.at.transfers += 1;
            } else {
                break;
            }
        }
        if next.is_some() {
            let number = self.at.expired;
            self.found
                .broken(|| format!("expiry {number} happened after more transfers than there are"));
        }
        self.leave_period();
        self.finish();
    }

    fn enter_period(&mut self) {
        let (history, now) = (&self.books.history, self.books.now());
        let number = history.number(self.at);
        if number == self.period.number {
            return;
        }
        self.leave_period();
        let period = history.period(number, now);
        if period.start != self.at {
            let (at, start) = (self.at, period.start);
            self.found
                .broken(|| format!("period {number} begins at {start:?}, and should at {at:?}"));
        }
        self.period = Period {
            number,
            start: self.at,
            openings: period.openings,
            opened: 0,
            released: 0,
        };
    }

    fn leave_period(&mut self) {
        let Period {
            number,
            start,
            openings,
            opened,
            released,
        } = self.period;
        let is_whole = openings.is_whole(self.at.events_since(start));
        if !is_whole || openings.count() != opened || openings.released_count() != released {
            self.found.broken(|| {
                format!("period {number} keeps other openings than those of its events")
            });
        }
    }

    fn transfer(&mut self) {
        let (books, row) = (self.books, self.at.transfers);
        let transfer = books.transfers.read(row);
        let id = transfer.id;
        if books.row_of_id(id, IdHash::of(id)) != Some(row) {
            self.found
                .broken(|| format!("transfer {id} is not found by its id"));
        }
        self.time_of(&transfer);
        let parties = self.rows_of(&transfer);
        self.index(&transfer, parties);
        let [Some(debit), Some(credit)] = parties else {
            return self
                .found
                .broken(|| format!("transfer {id}: it has no two accounts"));
        };
        let pending = if is_resolution(transfer.flags) {
            self.pending_of(&transfer)
        } else {
            None
        };
        let accounts = [debit, credit].map(|row| self.account(row));
        if let Err(why) = check(&transfer, pending.as_ref(), &accounts) {
            self.found
                .broken(|| format!("transfer {id} is none that could be: {why}"));
        }
        self.touch(debit, Side::Debit);
        self.touch(credit, Side::Credit);
        let released = pending.and_then(|pending| resolve::released(&transfer, &pending, row));
        if self.period.openings.released(row) != released {
            self.found.broken(|| {
                format!("transfer {id}: what it released is not what its period keeps of it")
            });
        }
        self.period.released += usize::from(released.is_some());
        self.settle(&transfer);
        // What it resolves is not known: then the balances will tell.
        if !is_resolution(transfer.flags) || pending.is_some() {
            self.apply(
                id,
                [debit, credit],
                &Effect::of_transfer(&transfer, released),
            );
        }
    }

    /// Timestamps ascend and are nobody else's. An imported one may be earlier than an expiry that was before it.
    fn time_of(&mut self, transfer: &Transfer) {
        let &Transfer {
            id,
            timestamp,
            flags,
            ..
        } = transfer;
        let is = |flag| flags & flag != 0;
        let imported = is(flags::IMPORTED);
        let before = if imported {
            self.transfer_time
        } else {
            self.time
        };
        if timestamp <= before || timestamp > TIMESTAMP_MAX {
            self.found.broken(|| {
                format!("transfer {id}: its timestamp is not after those before, or out of range")
            });
        }
        (self.transfer_time, self.time) = (timestamp, self.time.max(timestamp));
        let accounts = &self.books.accounts;
        let time_of_account =
            |row: u32| (row < accounts.len()).then(|| accounts.row(row).timestamp);
        while time_of_account(self.next_account).is_some_and(|time| time < timestamp) {
            self.next_account += 1;
        }
        if time_of_account(self.next_account) == Some(timestamp) {
            self.found
                .broken(|| format!("transfer {id} has the timestamp of an account"));
        }
        if !self.chain.goes_on(is(flags::LINKED), imported, timestamp) {
            self.found.broken(|| {
                format!("transfer {id} is not the one that the one before is linked to")
            });
        }
    }

    /// Where the accounts of a transfer are, if they differ and are there.
    fn rows_of(&self, transfer: &Transfer) -> [Option<u32>; 2] {
        let ids = [transfer.debit_account_id, transfer.credit_account_id];
        let [debit, credit] = ids.map(|id| self.books.account_row(id, ROW_UNKNOWN));
        [debit, credit].map(|row| (row != ROW_NONE && debit != credit).then_some(row))
    }

    /// Compares what leads to the transfer: the postings of its chunk, once that is whole.
    fn index(&mut self, transfer: &Transfer, parties: [Option<u32>; 2]) {
        let (table, indexes, row) = (
            &self.books.transfers,
            &self.books.indexes,
            self.at.transfers,
        );
        let (chunk, posted) = (row / table.chunk_rows(), self.books.rows_posted());
        if row >= posted {
            let kept = indexes.parties.get((row - posted) as usize);
            let kept = kept.map(|parties| parties.map(Some));
            if chunk < table.chunks_full() || kept != Some(parties) {
                let id = transfer.id;
                self.found.broken(|| {
                    format!("transfer {id} is indexed by other accounts, or not at all")
                });
            }
            return;
        }
        let first = row.is_multiple_of(table.chunk_rows());
        if first && indexes.first_timestamps.get(chunk as usize) != Some(&transfer.timestamp) {
            self.found.broken(|| {
                format!("chunk {chunk} of transfers: its head has not its first timestamp")
            });
        }
        let [a, b, c, d, e] = Fields::from(transfer).keys();
        let [debit, credit] = parties;
        self.transfer_keys.push([a, b, c, d, e, debit, credit]);
        if self.transfer_keys.rows() == table.chunk_rows() as usize {
            let postings = indexes.transfers.get(chunk as usize);
            self.transfer_keys.end_chunk(chunk, postings, self.found);
        }
    }

    /// What a post or void resolves, now.
    fn pending_of(&mut self, resolution: &Transfer) -> Option<Transfer> {
        let (id, pending_id) = (resolution.id, resolution.pending_id);
        let known = self.books.transfer(pending_id, IdHash::of(pending_id));
        let Known::Transfer(row) = known else {
            self.found
                .broken(|| format!("transfer {id} resolves {pending_id}, which is not there"));
            return None;
        };
        if row >= self.at.transfers {
            self.found
                .broken(|| format!("transfer {id} resolves {pending_id}, which is later"));
            return None;
        }
        let expected = if resolution.flags & flags::POST_PENDING_TRANSFER != 0 {
            Resolution::Posted
        } else {
            Resolution::Voided
        };
        self.resolve(row, pending_id, expected);
        Some(self.books.transfer_row(row))
    }

    fn resolve(&mut self, row: u32, id: u128, resolution: Resolution) {
        if self.books.resolutions.of(row) != resolution {
            self.found.broken(|| {
                format!("transfer {id} was {resolution:?}, and something else is noted of it")
            });
        }
        if set(&mut self.resolved, row) {
            self.found
                .broken(|| format!("transfer {id} is resolved twice"));
        }
    }

    /// What is noted of a transfer itself: that it is resolved, or waits.
    fn settle(&mut self, transfer: &Transfer) {
        let (books, row, id) = (self.books, self.at.transfers, transfer.id);
        let pending = transfer.flags & flags::PENDING != 0;
        let resolution = books.resolutions.of(row);
        if !pending && resolution != Resolution::None {
            self.found
                .broken(|| format!("transfer {id} is resolved, and was never pending"));
        }
        if !pending || resolution != Resolution::None {
            return;
        }
        self.found.unresolved += 1;
        if let Some(expires_at) = expires_at(transfer) {
            self.timed += 1;
            if !books.expiries.contains(expires_at, row) {
                self.found
                    .broken(|| format!("transfer {id} waits, and nothing will let it expire"));
            }
        }
    }

    /// The same of an expiry.
    fn index_expiry(&mut self, expired: &Expired) {
        let (table, indexes, number) = (&self.books.expired, &self.books.indexes, self.at.expired);
        let chunk = number / table.chunk_rows();
        let first = number.is_multiple_of(table.chunk_rows()) && chunk < table.chunks_full();
        if first && indexes.first_expired.get(chunk as usize) != Some(&expired.timestamp) {
            self.found.broken(|| {
                format!("chunk {chunk} of expiries: its head has not its first timestamp")
            });
        }
        let keys = [expired.debit, expired.credit];
        self.expired_keys.push(keys.map(Some));
        if self.expired_keys.rows() == table.chunk_rows() as usize {
            let postings = indexes.expired.get(chunk as usize);
            self.expired_keys.end_chunk(chunk, postings, self.found);
        }
    }

    fn expiry(&mut self, expired: &Expired) {
        let (books, number) = (self.books, self.at.expired);
        self.index_expiry(expired);
        if expired.pending >= self.at.transfers {
            return self
                .found
                .broken(|| format!("expiry {number} is that of no transfer before it"));
        }
        let pending = books.transfer_row(expired.pending);
        let id = pending.id;
        let [Some(debit), Some(credit)] = self.rows_of(&pending) else {
            return self
                .found
                .broken(|| format!("transfer {id} expired between accounts that are not there"));
        };
        let expected = Expired::new(
            &pending,
            expired.pending,
            (debit, credit),
            expired.timestamp,
            self.at.transfers,
        );
        // In order of their time: what was created after an expiry is due after it. The last one of a pulse has the
        // pulse's timestamp, those before it earlier ones, whatever their time.
        let pulse_max = expired
            .timestamp
            .saturating_add(u64::from(PULSE_EVENTS_MAX) - 1);
        let due = expires_at(&pending).map(|at| (at, expired.pending));
        let is_due = due.is_some_and(|due| due > self.last_due && due.0 <= pulse_max);
        let is_new = expired.timestamp > self.time && expired.timestamp <= TIMESTAMP_MAX;
        if *expired != expected || !is_due || !is_new || !self.chain.is_over() {
            self.found
                .broken(|| format!("the expiry of transfer {id} is not what it should be"));
        }
        self.time = self.time.max(expired.timestamp);
        self.last_due = due.unwrap_or(self.last_due);
        self.resolve(expired.pending, id, Resolution::Expired);
        self.touch(debit, Side::Debit);
        self.touch(credit, Side::Credit);
        self.apply(id, [debit, credit], &Effect::of_expired(expired));
    }

    /// The account's row, as it was now.
    fn account(&self, row: u32) -> AccountRow {
        let State { balances, opened } = self.accounts[row as usize];
        let account = self.books.accounts.row(row);
        let closed = u16::from(balances.closed) * account_flags::CLOSED;
        AccountRow {
            debits_pending: balances.debits_pending,
            debits_posted: balances.debits_posted,
            credits_pending: balances.credits_pending,
            credits_posted: balances.credits_posted,
            opened,
            flags: account.flags & !account_flags::CLOSED | closed,
            ..*account
        }
    }

    /// The present event changes the account: the first of its period has kept what the balances were.
    fn touch(&mut self, row: u32, side: Side) {
        let event = self.at.events_since(self.period.start);
        let mark = self.books.history.mark(self.at);
        let account = &mut self.accounts[row as usize];
        let opens = account.opened != mark;
        account.opened = mark;
        let expected = opens.then_some(account.balances);
        self.period.opened += u32::from(opens);
        if self.period.openings.find(event, side) != expected {
            let (id, number) = (self.books.accounts.row(row).id, self.period.number);
            self.found.broken(|| {
                format!("account {id}: what period {number} keeps is not what its balances were")
            });
        }
    }

    fn apply(&mut self, id: u128, parties: [u32; 2], effect: &Effect) {
        for (row, side) in parties.into_iter().zip([Side::Debit, Side::Credit]) {
            let account = &mut self.accounts[row as usize];
            match account.balances.after(side, effect).filter(fits) {
                Some(after) => account.balances = after,
                None => self.found.broken(|| {
                    format!("transfer {id}: the balances of its accounts do not allow of it")
                }),
            }
        }
    }

    /// Everything has happened.
    fn finish(self) {
        let Self {
            books,
            found,
            accounts,
            resolved,
            timed,
            chain,
            time,
            ..
        } = self;
        found.latest = found.latest.max(time);
        if !chain.is_over() {
            found.broken(|| "the last transfer is linked to one that is not there".to_owned());
        }
        let (listed, tail) = (books.expiries.len(), books.indexes.parties.len());
        if timed != listed {
            found.broken(|| {
                format!("{timed} transfers wait for their time, and {listed} are listed")
            });
        }
        if tail as u64 + u64::from(books.rows_posted()) != u64::from(books.transfers.len()) {
            found.broken(|| "more transfers are indexed than there are".to_owned());
        }
        let chunk_rows = books.transfers.chunk_rows();
        let end = books.transfers.len().next_multiple_of(chunk_rows);
        for row in 0..end {
            let is_resolved = row < books.transfers.len() && is_set(&resolved, row);
            if (books.resolutions.of(row) != Resolution::None) != is_resolved {
                found.broken(|| {
                    format!(
                        "number {row} of the transfers is resolved by nothing, or unaware of it"
                    )
                });
            }
        }
        for (row, State { balances, opened }) in (0..).zip(accounts) {
            let account = books.accounts.row(row);
            // An account that was created closed has never been touched.
            let expected = Balances {
                closed: balances.closed || opened == 0 && Balances::of(account).closed,
                ..balances
            };
            if Balances::of(account) != expected {
                found.broken(|| {
                    format!(
                        "account {}: its balances, or that it is closed, are not what its transfers make",
                        account.id
                    )
                });
            }
            if account.opened != opened {
                found.broken(|| {
                    format!(
                        "account {}: its mark is not that of the last period that has touched it",
                        account.id
                    )
                });
            }
        }
    }
}

/// Whether a transfer could be created between these accounts, as they are before it; or why not.
fn check(
    transfer: &Transfer,
    pending: Option<&Transfer>,
    [debit, credit]: &[AccountRow; 2],
) -> Result<(), &'static str> {
    transfers::check_head(transfer).map_err(Status::name)?;
    if transfer.flags & flags::IMPORTED != 0 {
        transfers::check_imported_time(transfer, debit, credit).map_err(Status::name)?;
    } else if transfer.timestamp <= debit.timestamp.max(credit.timestamp) {
        return Err("it is not younger than its accounts");
    }
    if is_resolution(transfer.flags) {
        resolve::check_fields(transfer).map_err(Status::name)?;
        // If there is none, that has been said.
        return pending.map_or(Ok(()), |pending| {
            check_resolution(transfer, pending, debit, credit)
        });
    }
    transfers::check_fields(transfer)
        .and_then(|()| transfers::check_ledgers(transfer, debit, credit))
        .and_then(|()| transfers::check_open(debit, credit))
        .and_then(|()| transfers::check_balances(transfer, debit, credit))
        .map_err(Status::name)?;
    if transfers::amount(transfer, debit, credit) != transfer.amount {
        return Err("it takes more than its balancing flags allow");
    }
    Ok(())
}

fn check_resolution(
    transfer: &Transfer,
    pending: &Transfer,
    debit: &AccountRow,
    credit: &AccountRow,
) -> Result<(), &'static str> {
    let completed = resolve::completed(transfer, pending).map_err(Status::name)?;
    if completed != *transfer {
        return Err("it has not taken over what it should of its pending transfer");
    }
    // An imported timestamp may be ahead of the time at which that was asked.
    let imported = transfer.flags & flags::IMPORTED != 0;
    if !imported && expires_at(pending).is_some_and(|at| at <= transfer.timestamp) {
        return Err(Status::PendingTransferExpired.name());
    }
    if transfer.flags & flags::POST_PENDING_TRANSFER != 0 {
        transfers::check_open(debit, credit).map_err(Status::name)?;
    }
    Ok(())
}

/// Whether the sums of these balances are numbers.
fn fits(balances: &Balances) -> bool {
    let Balances {
        debits_pending,
        debits_posted,
        credits_pending,
        credits_posted,
        closed: _,
    } = balances;
    debits_pending.checked_add(*debits_posted).is_some()
        && credits_pending.checked_add(*credits_posted).is_some()
}

fn is_set(bits: &[u64], row: u32) -> bool {
    bits[row as usize / 64] >> (row % 64) & 1 == 1
}

/// Whether it was set before.
fn set(bits: &mut [u64], row: u32) -> bool {
    let was = is_set(bits, row);
    bits[row as usize / 64] |= 1 << (row % 64);
    was
}
