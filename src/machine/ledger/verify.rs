//! Every invariant of the books, checked against the transfers themselves. For a ledger at rest: it reads all
//! of it.
//!
//! ```text
//!   transfers ──added up again──► balances of each account   =   the account's row
//!   ids       ──looked up───────► the row that they came from
//!   pending   ──resolved by─────► exactly one post, void or expiry, or waiting
//! ```
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
        }
    }

    fn verify_transfers(&self, found: &mut Verified) {
        let accounts = self.accounts.len() as usize;
        let mut balances = vec![Balances::default(); accounts];
        // Closed by a pending transfer that may still be voided.
        let mut closed = vec![false; accounts];
        // What each resolution says became of its pending transfer. One bit for each transfer would do
        // if none were resolved twice; that is what is checked.
        let mut resolved = 0u64;
        let mut expected = 0u64;
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
            let (debit, credit) = (debit as usize, credit as usize);
            if is_resolution(transfer.flags) {
                resolved += 1;
                self.verify_resolution(&transfer, found);
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
            if matches!(resolution, Resolution::Posted | Resolution::Voided) {
                expected += 1;
            }
            if !pending && transfer.flags & flags::VOID_PENDING_TRANSFER == 0 {
                balances[debit].debits_posted =
                    balances[debit].debits_posted.wrapping_add(transfer.amount);
                balances[credit].credits_posted = balances[credit]
                    .credits_posted
                    .wrapping_add(transfer.amount);
            }
            let expiry = expires_at(&transfer).filter(|_| waits);
            if let Some(expires_at) = expiry
                && !self.expiries.contains(expires_at, row)
            {
                found.broken(|| format!("transfer {id} waits, and nothing will let it expire"));
            }
        }
        if resolved != expected {
            found.broken(|| {
                format!(
                    "{resolved} transfers post or void another, and {expected} are posted or voided"
                )
            });
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

    fn verify_resolution(&self, transfer: &Transfer, found: &mut Verified) {
        let (id, pending_id) = (transfer.id, transfer.pending_id);
        let Known::Transfer(row) = self.transfer(pending_id, IdHash::of(pending_id)) else {
            return found
                .broken(|| format!("transfer {id} resolves {pending_id}, which is not there"));
        };
        let expected = if transfer.flags & flags::POST_PENDING_TRANSFER != 0 {
            Resolution::Posted
        } else {
            Resolution::Voided
        };
        if self.resolutions.of(row) != expected {
            found.broken(|| {
                format!("transfer {id} resolves {pending_id}, which does not know of it")
            });
        }
    }
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
        let changes: [Change; 6] = [
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
            ("are posted or voided", |books| {
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
