//! Everything that the ledger promises of its tables, checked against its rows. For a ledger at rest: it reads
//! all of it.
//!
//! ```text
//!   accounts, failed ids    each row by itself: its fields, its place in time, found by its id
//!   transfers, expiries     `walk`: done once more, in order; in the end everything is as it is
//!   postings                `postings`: of each chunk, what a search finds is what the rows say
//! ```
//!
//! Checksums say that the bytes are those that were written; this says that they make sense. What is wrong
//! is told in words, up to [`BROKEN_MAX`] times. Rules of creation are those of the creates themselves.
//!
//! It takes 80 bytes for each account, a bit for each transfer, and the keys of one chunk: 4 MiB.
//!
//! Not checked, because no row tells: why an id has failed; how much a balancing transfer had asked for (that it took
//! no more than there was, is checked); which events came in one message. Nor what is in memory alone, and is
//! made anew by a start: copies of transfers that wait, the filter of old ids.

mod chain;
mod postings;
#[cfg(test)]
mod tests;
mod walk;

use stampede_client::wire::record::account_flags;
use stampede_client::wire::{Account, TIMESTAMP_MAX};

use self::chain::Chain;
use self::postings::ChunkKeys;
use self::walk::Walk;
use super::Ledger;
use super::accounts::{check_fields, check_head};
use super::books::{Books, FAILED_BASE, ROW_UNKNOWN};
use super::indexes::{ACCOUNT_KEYS, Fields};
use crate::store::IdHash;

/// Sentences that are kept; the others are counted.
pub const BROKEN_MAX: usize = 100;

/// What a check of all invariants has found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verified {
    pub accounts: u64,
    pub transfers: u64,
    pub failed_ids: u64,
    /// Pending transfers that are neither posted nor voided nor expired.
    pub unresolved: u64,
    /// No account, transfer or expiry has a later timestamp.
    pub latest: u64,
    /// Invariants that do not hold, and how many more there were.
    pub broken: Vec<String>,
    pub broken_more: u64,
}

impl Verified {
    fn broken(&mut self, what: impl FnOnce() -> String) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(what());
        } else {
            self.broken_more += 1;
        }
    }
}

impl Ledger {
    /// Checks everything; takes a while.
    pub fn verify(&self) -> Verified {
        let mut found = Verified {
            accounts: self.books.accounts.len().into(),
            transfers: self.books.transfers.len().into(),
            failed_ids: self.books.failed.len().into(),
            ..Verified::default()
        };
        self.books.verify_accounts(&mut found);
        if let Some(walk) = Walk::new(&self.books, &mut found) {
            walk.run();
        }
        self.books.verify_failed(&mut found);
        found
    }
}

impl Books {
    fn verify_accounts(&self, found: &mut Verified) {
        let mut before = 0;
        let mut chain = Chain::default();
        let mut keys = ChunkKeys::new("accounts", &ACCOUNT_KEYS);
        for row in 0..self.accounts.len() {
            let account = self.accounts.row(row);
            let id = account.id;
            if self.account_row(id, ROW_UNKNOWN) != row {
                found.broken(|| format!("account {id} is not found by its id"));
            }
            // As it was created, so far as can be told.
            let event = Account {
                debits_pending: 0,
                debits_posted: 0,
                credits_pending: 0,
                credits_posted: 0,
                ..account.record()
            };
            if let Err(status) = check_head(&event).and_then(|()| check_fields(&event)) {
                found.broken(|| format!("account {id} is none that could be: {status}"));
            }
            if account.timestamp <= before || account.timestamp > TIMESTAMP_MAX {
                found.broken(|| {
                    format!(
                        "account {id}: its timestamp is not after the one before, or out of range"
                    )
                });
            }
            before = account.timestamp;
            found.latest = found.latest.max(account.timestamp);
            let is = |flag| account.flags & flag != 0;
            let (linked, imported) = (is(account_flags::LINKED), is(account_flags::IMPORTED));
            if !chain.goes_on(linked, imported, account.timestamp) {
                found.broken(|| {
                    format!("account {id} is not the one that the one before is linked to")
                });
            }
            keys.push(Fields::from(account).keys());
            if keys.rows() == self.accounts.chunk_rows() as usize {
                let chunk = row / self.accounts.chunk_rows();
                let postings = self.indexes.accounts.get(chunk as usize);
                keys.end_chunk(chunk, postings, found);
            }
        }
        if !chain.is_over() {
            found.broken(|| "the last account is linked to one that is not there".to_owned());
        }
    }

    fn verify_failed(&self, found: &mut Verified) {
        for row in 0..self.failed.len() {
            let id = self.failed.read(row);
            let is_id = id != 0 && id != u128::MAX;
            if !is_id || self.row_of_id(id, IdHash::of(id)) != Some(FAILED_BASE + row) {
                found.broken(|| {
                    format!("the failed id {id} is none, or not found, or is a transfer's")
                });
            }
        }
    }
}
