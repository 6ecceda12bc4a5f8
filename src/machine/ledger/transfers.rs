//! create_transfers: the common head, plain and pending transfers.
//!
//! ```text
//!   event ─► plain, well-formed, accounts found, room, id free? ── yes ──► applied      (fast)
//!                           │ no
//!                           ▼
//!            chain and imported rules ─► head ─┬─► resolve (post, void)
//!                                              └─► create  ─► applied, or the first status
//! ```
//!
//! The fast way decides nothing but "created": everything else is decided by the full checks, in the
//! protocol's order, from the beginning.

use stampede_client::wire::CreateTransferStatus as Status;
use stampede_client::wire::record::{account_flags, transfer_flags as flags};
use stampede_client::wire::{TIMESTAMP_MAX, Transfer};

use super::batch::{Batch, CREATED, Results, SUB_BATCH_EVENTS};
use super::books::{Books, Known, ROW_UNKNOWN, is_resolution};
use super::exists;
use super::expiry::expires_at;
use super::openings::Side;
use super::row::AccountRow;
use crate::store::{IdHash, ROW_NONE};

const CLOSING: u16 = flags::CLOSING_DEBIT | flags::CLOSING_CREDIT;

/// Rows of a transfer's accounts as far as the index knows without reading rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidates {
    pub(super) debit: u32,
    pub(super) credit: u32,
}

const CANDIDATES_UNKNOWN: Candidates = Candidates {
    debit: ROW_UNKNOWN,
    credit: ROW_UNKNOWN,
};

/// What the first two rounds over a sub-batch find out; about 4 KiB.
struct Probes {
    hashes: [IdHash; SUB_BATCH_EVENTS],
    /// Of the debit account, or of the pending transfer.
    debits: [IdHash; SUB_BATCH_EVENTS],
    credits: [IdHash; SUB_BATCH_EVENTS],
    candidates: [Candidates; SUB_BATCH_EVENTS],
    resolutions: bool,
    /// Some id, or that of a pending transfer, may be in a run.
    in_runs: bool,
}

/// Why an event was not created, and the timestamp that its result shows.
struct Failure {
    status: Status,
    timestamp: u64,
}

impl Books {
    /// Runs one batch; the first event is given `first` as its timestamp.
    pub(super) fn create_transfers(
        &mut self,
        events: &[Transfer],
        first: u64,
        mut results: Results<'_>,
    ) {
        let Some(event) = events.first() else { return };
        let mut batch = Batch::new(events.len(), first, event.flags & flags::IMPORTED != 0);
        let mut probes = Probes {
            hashes: [IdHash::default(); SUB_BATCH_EVENTS],
            debits: [IdHash::default(); SUB_BATCH_EVENTS],
            credits: [IdHash::default(); SUB_BATCH_EVENTS],
            candidates: [CANDIDATES_UNKNOWN; SUB_BATCH_EVENTS],
            resolutions: false,
            in_runs: false,
        };
        for (round, events) in events.chunks(SUB_BATCH_EVENTS).enumerate() {
            self.hash_and_fetch_buckets(events, &mut probes);
            self.probe_and_fetch_rows(events, &mut probes);
            if probes.in_runs {
                self.fetch_rows_of_runs(events, &mut probes);
            }
            if probes.resolutions {
                self.fetch_accounts_of_pending(events, &mut probes);
            }
            let index_first = round * SUB_BATCH_EVENTS;
            for (at, event) in events.iter().enumerate() {
                let index = index_first + at;
                let timestamp = first + index as u64;
                let (hash, candidates) = (probes.hashes[at], probes.candidates[at]);
                if event.flags == 0
                    && batch.is_ordinary()
                    && self.create_plain(event, hash, candidates, timestamp)
                {
                    results.set(index, timestamp, CREATED);
                } else {
                    self.create_in_order(
                        &mut batch,
                        index,
                        event,
                        hash,
                        candidates,
                        timestamp,
                        &mut results,
                    );
                }
            }
            self.transfer_ids.settle();
            self.indexes.observe(&self.transfers);
        }
    }

    #[inline]
    fn hash_and_fetch_buckets(&self, events: &[Transfer], probes: &mut Probes) {
        probes.resolutions = false;
        probes.in_runs = false;
        for (at, event) in events.iter().enumerate() {
            let hash = IdHash::of(event.id);
            self.transfer_ids.prefetch(event.id, hash);
            probes.hashes[at] = hash;
            if is_resolution(event.flags) {
                let hash = IdHash::of(event.pending_id);
                self.transfer_ids.prefetch(event.pending_id, hash);
                probes.debits[at] = hash;
                probes.resolutions = true;
            } else {
                let debit = IdHash::of(event.debit_account_id);
                let credit = IdHash::of(event.credit_account_id);
                self.account_ids.prefetch(debit);
                self.account_ids.prefetch(credit);
                probes.debits[at] = debit;
                probes.credits[at] = credit;
            }
        }
    }

    #[inline]
    fn probe_and_fetch_rows(&self, events: &[Transfer], probes: &mut Probes) {
        for (at, event) in events.iter().enumerate() {
            let known = self.transfer_ids.candidate(event.id, probes.hashes[at]);
            if known == ROW_UNKNOWN {
                self.transfer_ids.ask_runs(event.id, probes.hashes[at]);
                probes.in_runs = true;
            } else if known != ROW_NONE {
                self.prefetch_transfer(known);
            }
            if is_resolution(event.flags) {
                let id = event.pending_id;
                let pending = self.transfer_ids.candidate(id, probes.debits[at]);
                if pending == ROW_UNKNOWN {
                    self.transfer_ids.ask_runs(id, probes.debits[at]);
                    probes.in_runs = true;
                } else {
                    self.prefetch_transfer(pending);
                }
                probes.candidates[at] = Candidates {
                    debit: pending,
                    credit: ROW_UNKNOWN,
                };
            } else {
                let debit = self.account_ids.candidate(probes.debits[at]);
                let credit = self.account_ids.candidate(probes.credits[at]);
                self.accounts.prefetch(debit);
                self.accounts.prefetch(credit);
                probes.candidates[at] = Candidates { debit, credit };
            }
        }
    }

    /// What was asked of runs has been read meanwhile: a round that fetches the rows they name.
    #[cold]
    fn fetch_rows_of_runs(&self, events: &[Transfer], probes: &mut Probes) {
        for (at, event) in events.iter().enumerate() {
            let hash = probes.hashes[at];
            if self.transfer_ids.candidate(event.id, hash) == ROW_UNKNOWN {
                self.fetch_from_runs(event.id, hash);
            }
            if is_resolution(event.flags) && probes.candidates[at].debit == ROW_UNKNOWN {
                let row = self.fetch_from_runs(event.pending_id, probes.debits[at]);
                probes.candidates[at].debit = row;
            }
        }
    }

    /// For resolutions the accounts are those of the pending transfer: two more rounds.
    #[cold]
    fn fetch_accounts_of_pending(&self, events: &[Transfer], probes: &mut Probes) {
        for (at, event) in events.iter().enumerate() {
            if !is_resolution(event.flags) {
                continue;
            }
            let pending = probes.candidates[at].debit;
            // Also "not yet": the pending transfer may be an earlier event of this sub-batch.
            probes.candidates[at] = CANDIDATES_UNKNOWN;
            if pending < self.transfers.len() {
                let pending = self.transfer_row(pending);
                probes.debits[at] = IdHash::of(pending.debit_account_id);
                probes.credits[at] = IdHash::of(pending.credit_account_id);
                self.account_ids.prefetch(probes.debits[at]);
                self.account_ids.prefetch(probes.credits[at]);
                probes.candidates[at].debit = ROW_NONE;
            }
        }
        for (at, event) in events.iter().enumerate() {
            if is_resolution(event.flags) && probes.candidates[at].debit == ROW_NONE {
                let debit = self.account_ids.candidate(probes.debits[at]);
                let credit = self.account_ids.candidate(probes.credits[at]);
                self.accounts.prefetch(debit);
                self.accounts.prefetch(credit);
                probes.candidates[at] = Candidates { debit, credit };
            }
        }
    }

    /// Creates a transfer without flags if there is nothing to object to; otherwise changes
    /// nothing and says false.
    #[inline(always)]
    fn create_plain(
        &mut self,
        event: &Transfer,
        hash: IdHash,
        candidates: Candidates,
        timestamp: u64,
    ) -> bool {
        let Candidates {
            debit: debit_row,
            credit: credit_row,
        } = candidates;
        let accounts = self.accounts.len();
        if debit_row >= accounts || credit_row >= accounts || debit_row == credit_row {
            return false;
        }
        let well_formed = event.timestamp == 0
            && event.pending_id == 0
            && event.timeout == 0
            && event.code != 0
            && event.id != 0
            && event.id != u128::MAX;
        if !well_formed || self.transfer(event.id, hash) != Known::No {
            return false;
        }
        let now = self.now();
        let (debit, credit) = self.accounts.rows_mut(debit_row, credit_row);
        // Accounts have neither the id 0 nor the largest, and no ledger is 0.
        if debit.id != event.debit_account_id
            || credit.id != event.credit_account_id
            || debit.ledger != event.ledger
            || credit.ledger != event.ledger
            || (debit.flags | credit.flags) & account_flags::CLOSED != 0
        {
            return false;
        }
        let debits = (debit.debits_pending + debit.debits_posted).checked_add(event.amount);
        let credits = (credit.credits_pending + credit.credits_posted).checked_add(event.amount);
        let (Some(debits), Some(credits)) = (debits, credits) else {
            return false;
        };
        if exceeds_credits(debit, debits) || exceeds_debits(credit, credits) {
            return false;
        }
        let mark = self.history.mark(now);
        if debit.opened != mark {
            self.history.open(now, Side::Debit, debit_row, debit);
        }
        if credit.opened != mark {
            self.history.open(now, Side::Credit, credit_row, credit);
        }
        debit.debits_posted += event.amount;
        credit.credits_posted += event.amount;
        self.add_transfer(
            hash,
            &Transfer {
                timestamp,
                ..*event
            },
            debit_row,
            credit_row,
        );
        true
    }

    /// One event with everything that can be said about it.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "the inner half of one loop")]
    fn create_in_order(
        &mut self,
        batch: &mut Batch,
        index: usize,
        event: &Transfer,
        hash: IdHash,
        candidates: Candidates,
        timestamp: u64,
        results: &mut Results<'_>,
    ) {
        let linked = event.flags & flags::LINKED != 0;
        let imported = event.flags & flags::IMPORTED != 0;
        let mark = self.transfers.len();
        let outcome = match batch.begin(index, linked, imported, event.timestamp, mark) {
            Ok(()) => self.create_transfer(event, hash, candidates, timestamp),
            Err(refusal) => Err(Failure {
                status: refusal.into(),
                timestamp,
            }),
        };
        match outcome {
            Ok(timestamp) => results.set(index, timestamp, CREATED),
            Err(failure) => {
                if let Some(broken) = batch.fail(index) {
                    self.undo_transfers(broken.mark);
                    results.fail_linked(broken.failed);
                }
                if is_transient(failure.status) {
                    self.add_failed(hash, event.id);
                }
                results.set(index, failure.timestamp, failure.status.code());
            }
        }
        batch.end(linked);
    }

    /// The common head: id and flags.
    fn create_transfer(
        &mut self,
        event: &Transfer,
        hash: IdHash,
        candidates: Candidates,
        timestamp: u64,
    ) -> Result<u64, Failure> {
        let failure = |status| Failure { status, timestamp };
        check_head(event).map_err(failure)?;
        match self.transfer(event.id, hash) {
            Known::No => {}
            Known::Transfer(row) => return Err(self.existing(event, row, timestamp)),
            Known::Failed => return Err(failure(Status::IdAlreadyFailed)),
        }
        let created = if is_resolution(event.flags) {
            self.resolve(event, hash, candidates, timestamp)
        } else {
            self.create_checked(event, hash, candidates, timestamp)
        };
        created.map_err(failure)
    }

    /// What an event is told whose id is that of the transfer at `row`.
    fn existing(&self, event: &Transfer, row: u32, timestamp: u64) -> Failure {
        let existing = self.transfer_row(row);
        let pending = is_resolution(existing.flags).then(|| {
            let id = existing.pending_id;
            match self.transfer(id, IdHash::of(id)) {
                Known::Transfer(row) => self.transfer_row(row),
                Known::No | Known::Failed => unreachable!("a resolved transfer is in the books"),
            }
        });
        let status = exists::transfer(event, &existing, pending.as_ref());
        let same = status == Status::Exists;
        Failure {
            status,
            timestamp: if same { existing.timestamp } else { timestamp },
        }
    }

    /// Checks and creates a plain or pending transfer whose id is free.
    fn create_checked(
        &mut self,
        event: &Transfer,
        hash: IdHash,
        candidates: Candidates,
        timestamp: u64,
    ) -> Result<u64, Status> {
        check_fields(event)?;
        let pending = event.flags & flags::PENDING != 0;
        let imported = event.flags & flags::IMPORTED != 0;
        let debit_row = self.account_row(event.debit_account_id, candidates.debit);
        if debit_row == ROW_NONE {
            return Err(Status::DebitAccountNotFound);
        }
        let credit_row = self.account_row(event.credit_account_id, candidates.credit);
        if credit_row == ROW_NONE {
            return Err(Status::CreditAccountNotFound);
        }
        let (debit, credit) = (self.accounts.row(debit_row), self.accounts.row(credit_row));
        check_ledgers(event, debit, credit)?;
        if imported {
            self.check_imported(event, debit, credit)?;
        }
        check_open(debit, credit)?;
        let timestamp = if imported { event.timestamp } else { timestamp };
        let amount = amount(event, debit, credit);
        let stored = Transfer {
            amount,
            timestamp,
            ..*event
        };
        check_balances(&stored, debit, credit)?;

        self.open_accounts(debit_row, credit_row);
        let (debit, credit) = self.accounts.rows_mut(debit_row, credit_row);
        if pending {
            debit.debits_pending += amount;
            credit.credits_pending += amount;
        } else {
            debit.debits_posted += amount;
            credit.credits_posted += amount;
        }
        if event.flags & flags::CLOSING_DEBIT != 0 {
            debit.flags |= account_flags::CLOSED;
        }
        if event.flags & flags::CLOSING_CREDIT != 0 {
            credit.flags |= account_flags::CLOSED;
        }
        let row = self.add_transfer(hash, &stored, debit_row, credit_row);
        if pending {
            self.unresolved.add(row);
        }
        if let Some(expires_at) = expires_at(&stored) {
            self.expiries.insert(expires_at, row);
        }
        Ok(timestamp)
    }

    fn check_imported(
        &self,
        event: &Transfer,
        debit: &AccountRow,
        credit: &AccountRow,
    ) -> Result<(), Status> {
        if self.transfer_timestamp_regresses(event.timestamp) {
            return Err(Status::ImportedEventTimestampMustNotRegress);
        }
        check_imported_time(event, debit, credit)
    }

    /// An imported transfer's timestamp is new and larger than all transfers'.
    pub(super) fn transfer_timestamp_regresses(&self, timestamp: u64) -> bool {
        timestamp <= self.transfer_timestamp_max() || self.account_has_timestamp(timestamp)
    }
}

/// What can be said of any transfer without looking anything up.
pub(super) fn check_head(event: &Transfer) -> Result<(), Status> {
    if event.flags & flags::RESERVED != 0 {
        Err(Status::ReservedFlag)
    } else if event.id == 0 {
        Err(Status::IdMustNotBeZero)
    } else if event.id == u128::MAX {
        Err(Status::IdMustNotBeIntMax)
    } else {
        Ok(())
    }
}

/// The same of a plain or pending one.
pub(super) fn check_fields(event: &Transfer) -> Result<(), Status> {
    let pending = event.flags & flags::PENDING != 0;
    if event.debit_account_id == 0 {
        Err(Status::DebitAccountIdMustNotBeZero)
    } else if event.debit_account_id == u128::MAX {
        Err(Status::DebitAccountIdMustNotBeIntMax)
    } else if event.credit_account_id == 0 {
        Err(Status::CreditAccountIdMustNotBeZero)
    } else if event.credit_account_id == u128::MAX {
        Err(Status::CreditAccountIdMustNotBeIntMax)
    } else if event.debit_account_id == event.credit_account_id {
        Err(Status::AccountsMustBeDifferent)
    } else if event.pending_id != 0 {
        Err(Status::PendingIdMustBeZero)
    } else if event.timeout != 0 && !pending {
        Err(Status::TimeoutReservedForPendingTransfer)
    } else if event.flags & CLOSING != 0 && !pending {
        Err(Status::ClosingTransferMustBePending)
    } else if event.ledger == 0 {
        Err(Status::LedgerMustNotBeZero)
    } else if event.code == 0 {
        Err(Status::CodeMustNotBeZero)
    } else {
        Ok(())
    }
}

/// A transfer is between accounts of its own ledger.
pub(super) fn check_ledgers(
    event: &Transfer,
    debit: &AccountRow,
    credit: &AccountRow,
) -> Result<(), Status> {
    if debit.ledger != credit.ledger {
        Err(Status::AccountsMustHaveTheSameLedger)
    } else if event.ledger != debit.ledger {
        Err(Status::TransferMustHaveTheSameLedgerAsAccounts)
    } else {
        Ok(())
    }
}

/// An imported transfer is younger than its accounts, and nothing waits for it.
pub(super) fn check_imported_time(
    event: &Transfer,
    debit: &AccountRow,
    credit: &AccountRow,
) -> Result<(), Status> {
    if event.timestamp <= debit.timestamp {
        Err(Status::ImportedEventTimestampMustPostdateDebitAccount)
    } else if event.timestamp <= credit.timestamp {
        Err(Status::ImportedEventTimestampMustPostdateCreditAccount)
    } else if event.timeout != 0 {
        Err(Status::ImportedEventTimeoutMustBeZero)
    } else {
        Ok(())
    }
}

/// Neither account is closed.
pub(super) fn check_open(debit: &AccountRow, credit: &AccountRow) -> Result<(), Status> {
    if debit.flags & account_flags::CLOSED != 0 {
        Err(Status::DebitAccountAlreadyClosed)
    } else if credit.flags & account_flags::CLOSED != 0 {
        Err(Status::CreditAccountAlreadyClosed)
    } else {
        Ok(())
    }
}

/// The amount asked for, or as much of it as the balancing flags allow.
pub(super) fn amount(event: &Transfer, debit: &AccountRow, credit: &AccountRow) -> u128 {
    let mut amount = event.amount;
    if event.flags & flags::BALANCING_DEBIT != 0 {
        let spent = debit.debits_posted + debit.debits_pending;
        amount = amount.min(debit.credits_posted.saturating_sub(spent));
    }
    if event.flags & flags::BALANCING_CREDIT != 0 {
        let received = credit.credits_posted + credit.credits_pending;
        amount = amount.min(credit.debits_posted.saturating_sub(received));
    }
    amount
}

/// Overflows, then limits; `transfer` has its final amount and timestamp.
pub(super) fn check_balances(
    transfer: &Transfer,
    debit: &AccountRow,
    credit: &AccountRow,
) -> Result<(), Status> {
    let amount = transfer.amount;
    let overflows = |balance: u128| amount.checked_add(balance).is_none();
    if transfer.flags & flags::PENDING != 0 {
        if overflows(debit.debits_pending) {
            return Err(Status::OverflowsDebitsPending);
        }
        if overflows(credit.credits_pending) {
            return Err(Status::OverflowsCreditsPending);
        }
    }
    if overflows(debit.debits_posted) {
        return Err(Status::OverflowsDebitsPosted);
    }
    if overflows(credit.credits_posted) {
        return Err(Status::OverflowsCreditsPosted);
    }
    let Some(debits) = (debit.debits_pending + debit.debits_posted).checked_add(amount) else {
        return Err(Status::OverflowsDebits);
    };
    let Some(credits) = (credit.credits_pending + credit.credits_posted).checked_add(amount) else {
        return Err(Status::OverflowsCredits);
    };
    if expires_at(transfer).is_some_and(|expires_at| expires_at > TIMESTAMP_MAX) {
        return Err(Status::OverflowsTimeout);
    }
    if exceeds_credits(debit, debits) {
        return Err(Status::ExceedsCredits);
    }
    if exceeds_debits(credit, credits) {
        return Err(Status::ExceedsDebits);
    }
    Ok(())
}

/// `debits` are what the account would have, pending and posted.
#[inline(always)]
fn exceeds_credits(debit: &AccountRow, debits: u128) -> bool {
    debit.flags & account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS != 0
        && debits > debit.credits_posted
}

/// `credits` are what the account would have, pending and posted.
#[inline(always)]
fn exceeds_debits(credit: &AccountRow, credits: u128) -> bool {
    credit.flags & account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS != 0
        && credits > credit.debits_posted
}

/// Statuses after which an id is never tried again: a retry might succeed where the first attempt
/// was answered with a failure.
fn is_transient(status: Status) -> bool {
    matches!(
        status,
        Status::DebitAccountNotFound
            | Status::CreditAccountNotFound
            | Status::PendingTransferNotFound
            | Status::ExceedsCredits
            | Status::ExceedsDebits
            | Status::DebitAccountAlreadyClosed
            | Status::CreditAccountAlreadyClosed
    )
}
