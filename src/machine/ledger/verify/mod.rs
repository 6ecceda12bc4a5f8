//! The books, checked against the transfers themselves. For a ledger at rest: it reads all
//! of it.
//!
//! ```text
//!   transfers ──added up again──► balances of each account   =   the account's row
//!   ids       ──looked up───────► the row that they came from
//!   pending   ──resolved by─────► exactly one post, void or expiry, or waiting
//!   failed    ──looked up───────► no transfer
//! ```
//!
//! Not checked, because each is made again from what is: that postings list all of an account's transfers and no
//! other's, and that balances in the past (openings, and what lies between them) are those of the time.
//!
//! Checksums say that the bytes are those that were written; this says that they make sense. What is wrong
//! is told in words, up to [`BROKEN_MAX`] times.

use stampede_client::wire::Transfer;
use stampede_client::wire::record::{account_flags, transfer_flags as flags};

use super::Ledger;
use super::books::{Books, Known, ROW_UNKNOWN, is_resolution};
use super::expiry::expires_at;
use super::resolutions::Resolution;
use super::row::AccountRow;
use crate::store::{IdHash, ROW_NONE};

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

/// The balances of an account as its transfers make them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Balances {
    debits_pending: u128,
    debits_posted: u128,
    credits_pending: u128,
    credits_posted: u128,
}

impl Balances {
    fn of(account: &AccountRow) -> Self {
        Self {
            debits_pending: account.debits_pending,
            debits_posted: account.debits_posted,
            credits_pending: account.credits_pending,
            credits_posted: account.credits_posted,
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
        self.books.verify_transfers(&mut found);
        self.books.verify_failed(&mut found);
        found
    }
}

impl Books {
    fn verify_accounts(&self, found: &mut Verified) {
        let mut before = 0;
        for row in 0..self.accounts.len() {
            let account = self.accounts.row(row);
            if self.account_row(account.id, ROW_UNKNOWN) != row {
                found.broken(|| format!("account {} is not found by its id", account.id));
            }
            if account.timestamp <= before {
                found.broken(|| {
                    format!(
                        "account {}: its timestamp is not after the one before",
                        account.id
                    )
                });
            }
            before = account.timestamp;
            let debits = account.debits_pending.checked_add(account.debits_posted);
            let credits = account.credits_pending.checked_add(account.credits_posted);
            let within = |limited: u16, sum: Option<u128>, limit: u128| {
                let limit = if account.flags & limited != 0 {
                    limit
                } else {
                    u128::MAX
                };
                sum.is_some_and(|sum| sum <= limit)
            };
            let debits = within(
                account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS,
                debits,
                account.credits_posted,
            );
            let credits = within(
                account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS,
                credits,
                account.debits_posted,
            );
            if !debits || !credits {
                found.broken(|| format!("account {}: its balances exceed its limits", account.id));
            }
        }
    }

    fn verify_failed(&self, found: &mut Verified) {
        for row in 0..self.failed.len() {
            let id = self.failed.read(row);
            if self.transfer(id, IdHash::of(id)) != Known::Failed {
                found.broken(|| format!("the failed id {id} is not found, or is a transfer's"));
            }
        }
    }

    fn verify_transfers(&self, found: &mut Verified) {
        let accounts = self.accounts.len() as usize;
        let mut balances = vec![Balances::default(); accounts];
        // Closed by a pending transfer that may still be voided.
        let mut closed = vec![false; accounts];
        // One bit for each transfer that another one, or its time, has resolved.
        let mut resolved = vec![0u64; self.transfers.len().div_ceil(64) as usize];
        self.verify_expired(&mut resolved, found);
        let mut timed = 0;
        let mut before = 0;
        for row in 0..self.transfers.len() {
            let transfer = self.transfer_row(row);
            let id = transfer.id;
            if self.transfer(id, IdHash::of(id)) != Known::Transfer(row) {
                found.broken(|| format!("transfer {id} is not found by its id"));
            }
            if transfer.timestamp <= before {
                found
                    .broken(|| format!("transfer {id}: its timestamp is not after the one before"));
            }
            before = transfer.timestamp;
            let debit = self.account_row(transfer.debit_account_id, ROW_UNKNOWN);
            let credit = self.account_row(transfer.credit_account_id, ROW_UNKNOWN);
            if debit == ROW_NONE || credit == ROW_NONE || debit == credit {
                found.broken(|| format!("transfer {id}: it has no two accounts"));
                continue;
            }
            for account in [debit, credit].map(|row| self.accounts.row(row)) {
                if account.ledger != transfer.ledger || account.timestamp >= transfer.timestamp {
                    found.broken(|| {
                        format!("transfer {id} is of another ledger than its accounts, or older")
                    });
                }
            }
            let (debit, credit) = (debit as usize, credit as usize);
            if is_resolution(transfer.flags) {
                self.verify_resolution(&transfer, row, &mut resolved, found);
            }
            let resolution = self.resolutions.of(row);
            let pending = transfer.flags & flags::PENDING != 0;
            if !pending && resolution != Resolution::None {
                found.broken(|| format!("transfer {id} is resolved, and was never pending"));
            }
            let waits = pending && resolution == Resolution::None;
            found.unresolved += u64::from(waits);
            if waits {
                balances[debit].debits_pending =
                    balances[debit].debits_pending.wrapping_add(transfer.amount);
                balances[credit].credits_pending = balances[credit]
                    .credits_pending
                    .wrapping_add(transfer.amount);
                closed[debit] |= transfer.flags & flags::CLOSING_DEBIT != 0;
                closed[credit] |= transfer.flags & flags::CLOSING_CREDIT != 0;
            }
            if !pending && transfer.flags & flags::VOID_PENDING_TRANSFER == 0 {
                balances[debit].debits_posted =
                    balances[debit].debits_posted.wrapping_add(transfer.amount);
                balances[credit].credits_posted = balances[credit]
                    .credits_posted
                    .wrapping_add(transfer.amount);
            }
            let expiry = expires_at(&transfer).filter(|_| waits);
            timed += usize::from(expiry.is_some());
            if let Some(expires_at) = expiry
                && !self.expiries.contains(expires_at, row)
            {
                found.broken(|| format!("transfer {id} waits, and nothing will let it expire"));
            }
        }
        if timed != self.expiries.len() {
            let listed = self.expiries.len();
            found.broken(|| {
                format!("{timed} transfers wait for their time, and {listed} are listed")
            });
        }
        for row in 0..self.transfers.len() {
            let is_resolved = self.resolutions.of(row) != Resolution::None;
            if is_resolved != is_set(&resolved, row) {
                let id = self.transfer_row(row).id;
                found.broken(|| format!("transfer {id} is resolved by nothing, or unaware of it"));
            }
        }
        for ((account, balances), closed) in (0..self.accounts.len())
            .map(|row| self.accounts.row(row))
            .zip(balances)
            .zip(closed)
        {
            if Balances::of(account) != balances {
                found.broken(|| {
                    format!(
                        "account {}: its balances are not what its transfers make",
                        account.id
                    )
                });
            }
            if closed && account.flags & account_flags::CLOSED == 0 {
                found.broken(|| {
                    format!(
                        "account {} is open, and a pending transfer has closed it",
                        account.id
                    )
                });
            }
        }
    }

    fn verify_resolution(
        &self,
        transfer: &Transfer,
        row: u32,
        resolved: &mut [u64],
        found: &mut Verified,
    ) {
        let (id, pending_id) = (transfer.id, transfer.pending_id);
        let Known::Transfer(pending_row) = self.transfer(pending_id, IdHash::of(pending_id)) else {
            return found
                .broken(|| format!("transfer {id} resolves {pending_id}, which is not there"));
        };
        let pending = self.transfer_row(pending_row);
        let is_post = transfer.flags & flags::POST_PENDING_TRANSFER != 0;
        let (expected, amounts_agree) = if is_post {
            (Resolution::Posted, transfer.amount <= pending.amount)
        } else {
            (Resolution::Voided, transfer.amount == pending.amount)
        };
        if self.resolutions.of(pending_row) != expected {
            found.broken(|| {
                format!("transfer {id} resolves {pending_id}, which does not know of it")
            });
        }
        let accounts = |of: &Transfer| (of.debit_account_id, of.credit_account_id);
        if pending_row >= row
            || pending.flags & flags::PENDING == 0
            || accounts(&pending) != accounts(transfer)
            || !amounts_agree
        {
            found.broken(|| {
                format!("transfer {id} resolves {pending_id}, which is none that it could")
            });
        }
        if set(resolved, pending_row) {
            found.broken(|| format!("transfer {pending_id} is resolved twice"));
        }
    }

    /// Expiries that have happened, in order.
    fn verify_expired(&self, resolved: &mut [u64], found: &mut Verified) {
        let mut before = 0;
        for number in 0..self.expired.len() {
            let expired = self.expired.read(number);
            let row = expired.pending;
            if row >= self.transfers.len() {
                found.broken(|| format!("expiry {number} is that of no transfer"));
                continue;
            }
            let pending = self.transfer_row(row);
            let accounts = [pending.debit_account_id, pending.credit_account_id];
            let rows = accounts.map(|id| self.account_row(id, ROW_UNKNOWN));
            let is_due = expires_at(&pending).is_some_and(|at| at <= expired.timestamp);
            if !is_due
                || expired.timestamp <= before
                || expired.at <= row
                || expired.at > self.transfers.len()
                || expired.amount != pending.amount
                || expired.flags != pending.flags
                || rows != [expired.debit, expired.credit]
                || self.resolutions.of(row) != Resolution::Expired
            {
                let id = pending.id;
                found.broken(|| format!("the expiry of transfer {id} is not what it should be"));
            }
            before = expired.timestamp;
            if set(resolved, row) {
                found.broken(|| format!("transfer {} is resolved twice", pending.id));
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, pending, post, transfer, void};
    use super::*;

    /// Two accounts, and transfers of every kind between them.
    fn books() -> Bench {
        let mut bench = Bench::with_accounts(2);
        let timed = |id, timeout| Transfer {
            timeout,
            ..pending(id, 10)
        };
        let closing = Transfer {
            flags: flags::PENDING | flags::CLOSING_DEBIT,
            debit_account_id: 2,
            credit_account_id: 1,
            ..transfer(7, 0)
        };
        bench.transfers(&[
            transfer(1, 100),
            pending(2, 10),
            pending(3, 10),
            pending(4, 10),
            timed(5, 1),
            timed(6, 1000),
        ]);
        bench.transfers(&[post(8, 2, 4), void(9, 3), closing]);
        bench.wait_seconds(2);
        bench.pulse();
        bench
    }

    #[test]
    fn a_ledger_as_it_should_be() {
        let found = books().ledger.verify();
        let Verified {
            accounts,
            transfers,
            failed_ids,
            unresolved,
            broken,
            broken_more,
        } = found;
        assert_eq!(broken, Vec::<String>::new());
        assert_eq!((accounts, transfers, failed_ids), (2, 9, 0));
        assert_eq!((unresolved, broken_more), (3, 0));
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        type Change = (&'static str, fn(&mut Books));
        let changes: [Change; 9] = [
            ("exceed its limits", |books| {
                books.accounts.row_mut(0).flags |= account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS;
            }),
            ("are listed", |books| books.expiries.insert(1 << 60, 2)),
            ("of another ledger", |books| {
                books.accounts.row_mut(0).ledger += 1;
            }),
            ("balances", |books| {
                books.accounts.row_mut(0).debits_posted += 1
            }),
            ("balances", |books| {
                books.accounts.row_mut(1).credits_pending -= 1
            }),
            ("is open", |books| {
                books.accounts.row_mut(1).flags &= !account_flags::CLOSED;
            }),
            ("does not know of it", |books| {
                books.resolutions.set(1, Resolution::Voided);
            }),
            ("by nothing", |books| {
                books.resolutions.set(3, Resolution::Posted);
            }),
            ("not found by its id", |books| {
                books.accounts.row_mut(0).id = 77
            }),
        ];
        for (what, change) in changes {
            let mut bench = books();
            change(&mut bench.ledger.books);
            let found = bench.ledger.verify();
            assert!(
                found.broken.iter().any(|it| it.contains(what)),
                "{what}: {found:?}"
            );
        }
    }
}
