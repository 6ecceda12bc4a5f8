//! create_accounts: the checks of an account, in the protocol's order, and its creation.

use stampede_client::wire::Account;
use stampede_client::wire::CreateAccountStatus as Status;
use stampede_client::wire::record::account_flags as flags;

use super::batch::{Batch, CREATED, Results, SUB_BATCH_EVENTS};
use super::books::Books;
use super::exists;
use super::row::AccountRow;
use crate::store::IdHash;

const LIMITS: u16 = flags::DEBITS_MUST_NOT_EXCEED_CREDITS | flags::CREDITS_MUST_NOT_EXCEED_DEBITS;

/// Why an event was not created, and the timestamp that its result shows.
struct Failure {
    status: Status,
    timestamp: u64,
}

impl Books {
    /// Runs one batch; the first event is given `first` as its timestamp.
    pub(super) fn create_accounts(
        &mut self,
        events: &[Account],
        first: u64,
        mut results: Results<'_>,
    ) {
        let Some(event) = events.first() else { return };
        let mut batch = Batch::new(events.len(), first, event.flags & flags::IMPORTED != 0);
        let mut hashes = [IdHash::default(); SUB_BATCH_EVENTS];
        for (round, events) in events.chunks(SUB_BATCH_EVENTS).enumerate() {
            for (hash, event) in hashes.iter_mut().zip(events) {
                *hash = IdHash::of(event.id);
                self.account_ids.prefetch(*hash);
            }
            let index_first = round * SUB_BATCH_EVENTS;
            for ((index, event), hash) in (index_first..).zip(events).zip(hashes) {
                let timestamp = first + index as u64;
                let linked = event.flags & flags::LINKED != 0;
                let imported = event.flags & flags::IMPORTED != 0;
                let mark = self.accounts.len();
                let outcome = match batch.begin(index, linked, imported, event.timestamp, mark) {
                    Ok(()) => self.create_account(event, hash, timestamp),
                    Err(refusal) => Err(Failure {
                        status: refusal.into(),
                        timestamp,
                    }),
                };
                match outcome {
                    Ok(timestamp) => results.set(index, timestamp, CREATED),
                    Err(failure) => {
                        if let Some(broken) = batch.fail(index) {
                            self.undo_accounts(broken.mark);
                            results.fail_linked(broken.failed);
                        }
                        results.set(index, failure.timestamp, failure.status.code());
                    }
                }
                batch.end(linked);
            }
            self.account_ids.settle();
        }
    }

    fn create_account(
        &mut self,
        event: &Account,
        hash: IdHash,
        timestamp: u64,
    ) -> Result<u64, Failure> {
        let failure = |status| Failure { status, timestamp };
        check_head(event).map_err(failure)?;
        let row = self
            .account_ids
            .find(hash, |row| self.accounts.row(row).id == event.id);
        if let Some(row) = row {
            let existing = self.accounts.row(row);
            let status = exists::account(event, existing);
            let same = status == Status::Exists;
            let timestamp = if same { existing.timestamp } else { timestamp };
            return Err(Failure { status, timestamp });
        }
        check_fields(event).map_err(failure)?;
        let imported = event.flags & flags::IMPORTED != 0;
        if imported
            && (event.timestamp <= self.account_timestamp_max()
                || self.transfer_has_timestamp(event.timestamp))
        {
            return Err(failure(Status::ImportedEventTimestampMustNotRegress));
        }
        let timestamp = if imported { event.timestamp } else { timestamp };
        self.add_account(hash, &AccountRow::new(event, timestamp));
        Ok(timestamp)
    }
}

/// What is checked before the id is looked for.
pub(super) fn check_head(event: &Account) -> Result<(), Status> {
    if event.reserved != 0 {
        Err(Status::ReservedField)
    } else if event.flags & flags::RESERVED != 0 {
        Err(Status::ReservedFlag)
    } else if event.id == 0 {
        Err(Status::IdMustNotBeZero)
    } else if event.id == u128::MAX {
        Err(Status::IdMustNotBeIntMax)
    } else {
        Ok(())
    }
}

/// What is checked of an account whose id is free.
pub(super) fn check_fields(event: &Account) -> Result<(), Status> {
    if event.flags & LIMITS == LIMITS {
        Err(Status::FlagsAreMutuallyExclusive)
    } else if event.debits_pending != 0 {
        Err(Status::DebitsPendingMustBeZero)
    } else if event.debits_posted != 0 {
        Err(Status::DebitsPostedMustBeZero)
    } else if event.credits_pending != 0 {
        Err(Status::CreditsPendingMustBeZero)
    } else if event.credits_posted != 0 {
        Err(Status::CreditsPostedMustBeZero)
    } else if event.ledger == 0 {
        Err(Status::LedgerMustNotBeZero)
    } else if event.code == 0 {
        Err(Status::CodeMustNotBeZero)
    } else {
        Ok(())
    }
}
