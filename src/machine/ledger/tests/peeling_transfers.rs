//! The tables of create_transfers, peeled; see `peeling_accounts`.
//!
//! Several statuses spend the event's id, so each step takes a fresh one where the id does not
//! matter.

use stampede_client::wire::CreateTransferStatus as S;
use stampede_client::wire::record::{account_flags, transfer_flags as flags};
use stampede_client::wire::{Account, Transfer};

use super::{Bench, account, pending, post, transfer, void};

const MAX: u128 = u128::MAX;

type Peel = (S, fn(&mut Transfer));

/// Runs the steps; an id of at least 1000 is replaced by the next fresh one at each.
fn peel(bench: &mut Bench, mut event: Transfer, peels: &[Peel]) {
    for (step, (status, repair)) in peels.iter().enumerate() {
        if event.id >= 1000 && event.id != MAX {
            event.id += 1;
        }
        let found = bench.transfer(event);
        assert_eq!(found, *status, "step {step}: {event:?}");
        repair(&mut event);
    }
}

fn with_flags(event: Transfer, flags: u16) -> Transfer {
    Transfer { flags, ..event }
}

#[test]
fn head_and_plain_transfers_in_order() {
    let mut bench = Bench::with_accounts(2);
    bench.account(Account {
        ledger: 2,
        ..account(3)
    });
    let event = Transfer {
        id: 0,
        pending_id: 1,
        timeout: 1,
        flags: !(flags::IMPORTED
            | flags::PENDING
            | flags::POST_PENDING_TRANSFER
            | flags::VOID_PENDING_TRANSFER),
        timestamp: 1,
        ..Transfer::default()
    };
    peel(
        &mut bench,
        event,
        &[
            (S::LinkedEventChainOpen, |t| t.flags &= !flags::LINKED),
            (S::TimestampMustBeZero, |t| t.timestamp = 0),
            (S::ReservedFlag, |t| t.flags &= 0x1ff),
            (S::IdMustNotBeZero, |t| t.id = MAX),
            (S::IdMustNotBeIntMax, |t| t.id = 1000),
            (S::DebitAccountIdMustNotBeZero, |t| t.debit_account_id = MAX),
            (S::DebitAccountIdMustNotBeIntMax, |t| t.debit_account_id = 8),
            (S::CreditAccountIdMustNotBeZero, |t| {
                t.credit_account_id = MAX
            }),
            (S::CreditAccountIdMustNotBeIntMax, |t| {
                t.credit_account_id = 8
            }),
            (S::AccountsMustBeDifferent, |t| t.credit_account_id = 9),
            (S::PendingIdMustBeZero, |t| t.pending_id = 0),
            (S::TimeoutReservedForPendingTransfer, |t| t.timeout = 0),
            (S::ClosingTransferMustBePending, |t| t.flags = 0),
            (S::LedgerMustNotBeZero, |t| t.ledger = 7),
            (S::CodeMustNotBeZero, |t| t.code = 1),
            (S::DebitAccountNotFound, |t| t.debit_account_id = 1),
            (S::CreditAccountNotFound, |t| t.credit_account_id = 3),
            (S::AccountsMustHaveTheSameLedger, |t| {
                t.credit_account_id = 2
            }),
            (S::TransferMustHaveTheSameLedgerAsAccounts, |t| t.ledger = 1),
            (S::Created, |_| {}),
        ],
    );
}

/// Accounts 1 and 2 as full as they can be: 1 has debits, 2 has credits.
fn full() -> Bench {
    let mut bench = Bench::new();
    let limits = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS;
    bench.accounts(&[
        Account {
            flags: limits,
            ..account(1)
        },
        Account {
            flags: account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS,
            ..account(2)
        },
        account(3),
    ]);
    bench
}

#[test]
fn overflows_in_order() {
    let mut bench = Bench::with_accounts(4);
    let from_to = |event, debit_account_id, credit_account_id| Transfer {
        debit_account_id,
        credit_account_id,
        ..event
    };
    // Debits of 1: pending MAX / 2, posted MAX / 4. Credits of 2: the same.
    bench.transfer(from_to(pending(1, MAX / 2), 1, 3));
    bench.transfer(from_to(transfer(2, MAX / 4), 1, 4));
    bench.transfer(from_to(pending(3, MAX / 2), 4, 2));
    bench.transfer(from_to(transfer(4, MAX / 4), 3, 2));
    let over_pending = MAX - MAX / 2 + 1;
    let event = Transfer {
        timeout: u32::MAX,
        ..pending(1000, over_pending)
    };
    assert_eq!(bench.transfer(event), S::OverflowsDebitsPending);
    // From an empty account: the credits speak.
    assert_eq!(
        bench.transfer(from_to(event, 3, 2)),
        S::OverflowsCreditsPending
    );
    let over_posted = MAX - MAX / 4 + 1;
    // Not pending, or with a smaller pending balance, the posted one speaks.
    assert_eq!(
        bench.transfer(transfer(1000, over_posted)),
        S::OverflowsDebitsPosted
    );
    assert_eq!(
        bench.transfer(from_to(transfer(1000, over_posted), 4, 2)),
        S::OverflowsCreditsPosted
    );
    assert_eq!(
        bench.transfer(from_to(transfer(1000, over_posted), 1, 4)),
        S::OverflowsDebitsPosted
    );
    // A quarter and a bit more: only the sum overflows.
    let over_sum = MAX / 4 + 3;
    let event = Transfer {
        timeout: u32::MAX,
        ..pending(1000, over_sum)
    };
    assert_eq!(bench.transfer(event), S::OverflowsDebits);
    assert_eq!(bench.transfer(from_to(event, 4, 2)), S::OverflowsCredits);
    // Nothing of this spends the id.
    assert_eq!(bench.transfer(transfer(1000, 1)), S::Created);
}

#[test]
fn timeout_and_limits_in_order() {
    let mut bench = full();
    // Near the end of time even a short timeout is too long.
    bench.clock = (1 << 63) - 1_000_000_000;
    let event = Transfer {
        timeout: 1,
        ..pending(1000, 5)
    };
    let credit = |id, amount| Transfer {
        debit_account_id: 3,
        credit_account_id: 1,
        ..transfer(id, amount)
    };
    let debit = |id, amount| Transfer {
        debit_account_id: 2,
        credit_account_id: 3,
        ..transfer(id, amount)
    };
    assert_eq!(bench.transfer(event), S::OverflowsTimeout);
    let event = Transfer {
        timeout: 0,
        ..event
    };
    assert_eq!(bench.transfer(event), S::ExceedsCredits);
    bench.transfer(credit(1, 5));
    let event = Transfer { id: 1001, ..event };
    assert_eq!(bench.transfer(event), S::ExceedsDebits);
    bench.transfer(debit(2, 5));
    let event = Transfer { id: 1002, ..event };
    assert_eq!(bench.transfer(event), S::Created);
}

#[test]
fn closed_accounts_after_imported_checks_before_balances() {
    let mut bench = Bench::new();
    let closed = Account {
        flags: account_flags::CLOSED,
        ..account(1)
    };
    bench.accounts(&[closed, Account { id: 2, ..closed }, account(3), account(4)]);
    let stamps: Vec<u64> = bench
        .lookup_accounts(&[1, 2])
        .iter()
        .map(|account| account.timestamp)
        .collect();
    assert_eq!(stamps[1], stamps[0] + 1);
    bench.transfer(Transfer {
        debit_account_id: 3,
        credit_account_id: 4,
        ..transfer(1, MAX)
    });
    bench.wait_seconds(1);
    // The larger timestamp is account 2's: 1 and 2 are asked the other way round.
    let event = Transfer {
        id: 1000,
        debit_account_id: 2,
        credit_account_id: 1,
        timeout: 1,
        timestamp: 1,
        flags: flags::PENDING | flags::IMPORTED,
        ..transfer(0, MAX)
    };
    assert_eq!(
        bench.transfer(event),
        S::ImportedEventTimestampMustNotRegress
    );
    // Without transfers, the accounts' own timestamps are reached.
    let mut bench = Bench::new();
    let imported = account_flags::IMPORTED | account_flags::CLOSED;
    let one = Account {
        flags: imported,
        timestamp: 100,
        ..account(1)
    };
    bench.accounts(&[
        one,
        Account {
            id: 2,
            timestamp: 200,
            ..one
        },
    ]);
    let event = Transfer {
        timestamp: 100,
        ..event
    };
    assert_eq!(
        bench.transfer(event),
        S::ImportedEventTimestampMustNotRegress
    );
    let event = Transfer {
        timestamp: 50,
        ..event
    };
    assert_eq!(
        bench.transfer(event),
        S::ImportedEventTimestampMustPostdateDebitAccount
    );
    let other = Transfer {
        debit_account_id: 1,
        credit_account_id: 2,
        timestamp: 150,
        ..event
    };
    assert_eq!(
        bench.transfer(other),
        S::ImportedEventTimestampMustPostdateCreditAccount
    );
    let event = Transfer {
        timestamp: 201,
        ..event
    };
    assert_eq!(bench.transfer(event), S::ImportedEventTimeoutMustBeZero);
    let event = Transfer {
        timeout: 0,
        ..event
    };
    assert_eq!(bench.transfer(event), S::DebitAccountAlreadyClosed);
    bench.account(Account {
        flags: account_flags::IMPORTED,
        timestamp: 201,
        ..account(3)
    });
    let event = Transfer {
        id: 1001,
        debit_account_id: 3,
        timestamp: 202,
        ..event
    };
    assert_eq!(bench.transfer(event), S::CreditAccountAlreadyClosed);
    assert_eq!(bench.transfer(event), S::IdAlreadyFailed);
}

#[test]
fn resolutions_in_order() {
    let mut bench = Bench::with_accounts(3);
    bench.transfer(transfer(1, 10));
    bench.transfer(pending(2, 10));
    bench.transfer(pending(3, 10));
    bench.transfer(post(4, 3, MAX));
    let event = Transfer {
        id: 0,
        debit_account_id: 9,
        credit_account_id: 9,
        amount: 11,
        pending_id: 0,
        timeout: 1,
        ledger: 9,
        code: 9,
        flags: 0x1fe & !flags::IMPORTED | flags::LINKED,
        timestamp: 1,
        ..Transfer::default()
    };
    let rest: &[Peel] = &[
        (S::PendingTransferHasDifferentDebitAccountId, |t| {
            t.debit_account_id = 1
        }),
        (S::PendingTransferHasDifferentCreditAccountId, |t| {
            t.credit_account_id = 0
        }),
        (S::PendingTransferHasDifferentLedger, |t| t.ledger = 0),
        (S::PendingTransferHasDifferentCode, |t| t.code = 1),
        (S::ExceedsPendingTransferAmount, |t| t.amount = 9),
        (S::PendingTransferHasDifferentAmount, |t| t.amount = 10),
        (S::PendingTransferAlreadyPosted, |t| t.pending_id = 2),
        (S::Created, |_| {}),
        (S::PendingTransferAlreadyVoided, |_| {}),
    ];
    let mut peels: Vec<Peel> = vec![
        (S::LinkedEventChainOpen, |t| t.flags &= !flags::LINKED),
        (S::TimestampMustBeZero, |t| t.timestamp = 0),
        (S::IdMustNotBeZero, |t| t.id = 1000),
        (S::FlagsAreMutuallyExclusive, |t| {
            t.flags &= !flags::POST_PENDING_TRANSFER
        }),
        (S::FlagsAreMutuallyExclusive, |t| t.flags &= !flags::PENDING),
        (S::FlagsAreMutuallyExclusive, |t| {
            t.flags &= !flags::BALANCING_DEBIT
        }),
        (S::FlagsAreMutuallyExclusive, |t| {
            t.flags &= !flags::BALANCING_CREDIT
        }),
        (S::FlagsAreMutuallyExclusive, |t| {
            t.flags &= !flags::CLOSING_DEBIT
        }),
        (S::FlagsAreMutuallyExclusive, |t| {
            t.flags &= !flags::CLOSING_CREDIT
        }),
        (S::PendingIdMustNotBeZero, |t| t.pending_id = MAX),
        // The next id is this one plus one.
        (S::PendingIdMustNotBeIntMax, |t| t.pending_id = t.id + 1),
        (S::PendingIdMustBeDifferent, |t| t.pending_id = 99),
        (S::TimeoutReservedForPendingTransfer, |t| t.timeout = 0),
        (S::PendingTransferNotFound, |t| t.pending_id = 1),
        (S::PendingTransferNotPending, |t| t.pending_id = 3),
    ];
    peels.extend_from_slice(rest);
    peel(&mut bench, event, &peels);
}

#[test]
fn expired_imported_and_closed_resolutions_in_order() {
    let mut bench = Bench::with_accounts(2);
    let closing = flags::PENDING | flags::CLOSING_DEBIT | flags::CLOSING_CREDIT;
    bench.transfer(Transfer {
        timeout: 10,
        ..with_flags(transfer(1, 0), closing)
    });
    let event = Transfer {
        timestamp: 1,
        flags: flags::POST_PENDING_TRANSFER | flags::IMPORTED,
        ..post(1000, 1, 0)
    };
    bench.wait_seconds(9);
    assert_eq!(
        bench.transfer(event),
        S::ImportedEventTimestampMustNotRegress
    );
    let event = Transfer {
        timestamp: bench.clock,
        ..event
    };
    assert_eq!(bench.transfer(event), S::DebitAccountAlreadyClosed);
    bench.wait_seconds(1);
    let event = Transfer {
        id: 1001,
        timestamp: 1,
        ..event
    };
    assert_eq!(bench.transfer(event), S::PendingTransferExpired);
    bench.pulse();
    assert_eq!(bench.transfer(event), S::PendingTransferExpired);
    // Only the credit account closed.
    let closing = flags::PENDING | flags::CLOSING_CREDIT;
    bench.transfer(with_flags(transfer(2, 0), closing));
    assert_eq!(
        bench.transfer(post(1002, 2, 0)),
        S::CreditAccountAlreadyClosed
    );
    // A void asks for neither.
    assert_eq!(bench.transfer(void(1003, 2)), S::Created);
}

#[test]
fn the_exists_family_of_plain_transfers_in_order() {
    let mut bench = Bench::with_accounts(2);
    let existing = Transfer {
        user_data_128: 1,
        user_data_64: 2,
        user_data_32: 3,
        timeout: 9,
        ..pending(1, 10)
    };
    assert_eq!(bench.transfer(existing), S::Created);
    let event = Transfer {
        id: 1,
        pending_id: 1,
        amount: 1,
        ..Transfer::default()
    };
    peel(
        &mut bench,
        event,
        &[
            (S::ExistsWithDifferentFlags, |t| t.flags = flags::PENDING),
            (S::ExistsWithDifferentPendingId, |t| t.pending_id = 0),
            (S::ExistsWithDifferentTimeout, |t| t.timeout = 9),
            (S::ExistsWithDifferentDebitAccountId, |t| {
                t.debit_account_id = 1
            }),
            (S::ExistsWithDifferentCreditAccountId, |t| {
                t.credit_account_id = 2
            }),
            (S::ExistsWithDifferentAmount, |t| t.amount = 10),
            (S::ExistsWithDifferentUserData128, |t| t.user_data_128 = 1),
            (S::ExistsWithDifferentUserData64, |t| t.user_data_64 = 2),
            (S::ExistsWithDifferentUserData32, |t| t.user_data_32 = 3),
            (S::ExistsWithDifferentLedger, |t| t.ledger = 1),
            (S::ExistsWithDifferentCode, |t| t.code = 1),
            (S::Exists, |_| {}),
        ],
    );
}

#[test]
fn the_exists_family_of_resolutions_in_order() {
    let mut bench = Bench::with_accounts(2);
    let first = Transfer {
        user_data_128: 1,
        user_data_64: 2,
        user_data_32: 3,
        ..pending(1, 10)
    };
    assert_eq!(bench.transfer(first), S::Created);
    assert_eq!(
        bench.transfer(Transfer {
            user_data_64: 20,
            ..post(2, 1, 7)
        }),
        S::Created
    );
    let event = Transfer {
        id: 2,
        debit_account_id: 2,
        credit_account_id: 1,
        amount: MAX,
        pending_id: 3,
        user_data_128: 9,
        user_data_32: 9,
        timeout: 1,
        ledger: 9,
        code: 9,
        ..Transfer::default()
    };
    peel(
        &mut bench,
        event,
        &[
            (S::ExistsWithDifferentFlags, |t| {
                t.flags = flags::POST_PENDING_TRANSFER
            }),
            (S::ExistsWithDifferentPendingId, |t| t.pending_id = 1),
            (S::ExistsWithDifferentTimeout, |t| t.timeout = 0),
            (S::ExistsWithDifferentDebitAccountId, |t| {
                t.debit_account_id = 0
            }),
            (S::ExistsWithDifferentCreditAccountId, |t| {
                t.credit_account_id = 2
            }),
            // "All" would have been 10.
            (S::ExistsWithDifferentAmount, |t| t.amount = 7),
            (S::ExistsWithDifferentUserData128, |t| t.user_data_128 = 0),
            // Zero stands for the pending transfer's 2, but 20 was given.
            (S::ExistsWithDifferentUserData64, |t| t.user_data_64 = 20),
            (S::ExistsWithDifferentUserData32, |t| t.user_data_32 = 3),
            (S::ExistsWithDifferentLedger, |t| t.ledger = 0),
            (S::ExistsWithDifferentCode, |t| t.code = 1),
            (S::Exists, |_| {}),
        ],
    );
    // A void of everything, given as zero or in full.
    bench.transfer(pending(3, 10));
    bench.transfer(void(4, 3));
    for (amount, status) in [
        (0, S::Exists),
        (10, S::Exists),
        (9, S::ExistsWithDifferentAmount),
        (MAX, S::ExistsWithDifferentAmount),
    ] {
        assert_eq!(
            bench.transfer(Transfer {
                amount,
                ..void(4, 3)
            }),
            status
        );
    }
}
