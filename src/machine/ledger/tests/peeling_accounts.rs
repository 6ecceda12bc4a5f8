//! The table of create_accounts, peeled: an event that is wrong in every way is repaired one step at
//! a time, and each step names the next status. Conditions that exclude each other get an event each.

use stampede_client::wire::Account;
use stampede_client::wire::CreateAccountStatus as S;
use stampede_client::wire::record::account_flags as flags;

use super::{Bench, account};

/// A status, and the repair after which it is not the answer any more.
type Peel = (S, fn(&mut Account));

/// Events end with a valid one of another id, so that `linked` can be peeled as well.
fn peel(bench: &mut Bench, mut event: Account, peels: &[Peel]) {
    for (step, (status, repair)) in peels.iter().enumerate() {
        let found = bench.account(event);
        assert_eq!(found, *status, "step {step}: {event:?}");
        repair(&mut event);
    }
}

#[test]
fn every_status_in_order() {
    let mut bench = Bench::new();
    let event = Account {
        id: 0,
        debits_pending: 1,
        debits_posted: 1,
        credits_pending: 1,
        credits_posted: 1,
        user_data_128: 128,
        user_data_64: 64,
        user_data_32: 32,
        reserved: 1,
        ledger: 0,
        code: 0,
        flags: !flags::IMPORTED,
        timestamp: 1,
    };
    peel(
        &mut bench,
        event,
        &[
            (S::LinkedEventChainOpen, |a| a.flags &= !flags::LINKED),
            (S::TimestampMustBeZero, |a| a.timestamp = 0),
            (S::ReservedField, |a| a.reserved = 0),
            (S::ReservedFlag, |a| a.flags &= 0x3f),
            (S::IdMustNotBeZero, |a| a.id = u128::MAX),
            (S::IdMustNotBeIntMax, |a| a.id = 1),
            (S::FlagsAreMutuallyExclusive, |a| {
                a.flags &= !flags::DEBITS_MUST_NOT_EXCEED_CREDITS
            }),
            (S::DebitsPendingMustBeZero, |a| a.debits_pending = 0),
            (S::DebitsPostedMustBeZero, |a| a.debits_posted = 0),
            (S::CreditsPendingMustBeZero, |a| a.credits_pending = 0),
            (S::CreditsPostedMustBeZero, |a| a.credits_posted = 0),
            (S::LedgerMustNotBeZero, |a| a.ledger = 9),
            (S::CodeMustNotBeZero, |a| a.code = 9),
            (S::Created, |_| {}),
            (S::Exists, |_| {}),
        ],
    );
}

#[test]
fn the_exists_family_in_order() {
    let mut bench = Bench::new();
    let existing = Account {
        user_data_128: 1,
        user_data_64: 2,
        user_data_32: 3,
        ledger: 4,
        code: 5,
        flags: flags::HISTORY | flags::CLOSED,
        ..account(1)
    };
    assert_eq!(bench.account(existing), S::Created);
    // What comes after the family in the table is wrong as well, and does not matter.
    let event = Account {
        debits_posted: 1,
        user_data_128: 0,
        user_data_64: 0,
        user_data_32: 0,
        ledger: 0,
        code: 0,
        flags: flags::DEBITS_MUST_NOT_EXCEED_CREDITS | flags::CREDITS_MUST_NOT_EXCEED_DEBITS,
        ..existing
    };
    peel(
        &mut bench,
        event,
        &[
            (S::ExistsWithDifferentFlags, |a| a.flags = flags::HISTORY),
            (S::ExistsWithDifferentFlags, |a| a.flags |= flags::CLOSED),
            (S::ExistsWithDifferentUserData128, |a| a.user_data_128 = 1),
            (S::ExistsWithDifferentUserData64, |a| a.user_data_64 = 2),
            (S::ExistsWithDifferentUserData32, |a| a.user_data_32 = 3),
            (S::ExistsWithDifferentLedger, |a| a.ledger = 4),
            (S::ExistsWithDifferentCode, |a| a.code = 5),
            (S::Exists, |_| {}),
        ],
    );
}

#[test]
fn imported_accounts_in_order() {
    let mut bench = Bench::with_accounts(1);
    let largest = bench.clock;
    bench.wait_seconds(1);
    let event = Account {
        id: 2,
        reserved: 1,
        code: 0,
        flags: flags::IMPORTED | flags::LINKED,
        timestamp: u64::MAX,
        ..account(2)
    };
    peel(
        &mut bench,
        event,
        &[
            (S::LinkedEventChainOpen, |a| a.flags &= !flags::LINKED),
            (S::ImportedEventTimestampOutOfRange, |a| a.timestamp = 0),
            (S::ImportedEventTimestampOutOfRange, |a| {
                a.timestamp = 1 << 62
            }),
            (S::ImportedEventTimestampMustNotAdvance, |a| a.timestamp = 1),
            (S::ReservedField, |a| a.reserved = 0),
            (S::CodeMustNotBeZero, |a| a.code = 1),
            (S::ImportedEventTimestampMustNotRegress, |_| {}),
        ],
    );
    let regressing = Account {
        flags: flags::IMPORTED,
        timestamp: largest,
        ..account(2)
    };
    assert_eq!(
        bench.account(regressing),
        S::ImportedEventTimestampMustNotRegress
    );
    let later = Account {
        timestamp: largest + 1,
        ..regressing
    };
    assert_eq!(bench.account(later), S::Created);
    assert_eq!(bench.lookup_accounts(&[2])[0].timestamp, largest + 1);
}
