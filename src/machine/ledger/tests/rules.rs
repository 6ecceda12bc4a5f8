//! What transfers do: two phases, closing, balancing, limits, ids that are spent, imported events.

use stampede_client::wire::CreateTransferStatus as T;
use stampede_client::wire::record::{account_flags, transfer_flags as flags};
use stampede_client::wire::{Account, Transfer};

use super::{Bench, OPTIONS, account, pending, post, transfer, void};
use crate::machine::Machine;
use crate::machine::ledger::{LedgerOptions, PULSE_EVENTS_MAX, ROWS_AHEAD, RowsMax};

const MAX: u128 = u128::MAX;

#[test]
fn post_moves_a_part_and_returns_the_rest() {
    let mut bench = Bench::with_accounts(2);
    let first = Transfer {
        user_data_128: 1,
        user_data_64: 2,
        user_data_32: 3,
        ..pending(1, 100)
    };
    assert_eq!(bench.transfer(first), T::Created);
    assert_eq!(bench.balances(1), (100, 0, 0, 0));
    assert_eq!(bench.balances(2), (0, 0, 100, 0));
    let second = Transfer {
        user_data_64: 20,
        ..post(2, 1, 60)
    };
    assert_eq!(bench.transfer(second), T::Created);
    assert_eq!(bench.balances(1), (0, 60, 0, 0));
    assert_eq!(bench.balances(2), (0, 0, 0, 60));
    let stored = bench.lookup_transfers(&[2])[0];
    let expected = Transfer {
        id: 2,
        pending_id: 1,
        amount: 60,
        flags: flags::POST_PENDING_TRANSFER,
        user_data_64: 20,
        timestamp: stored.timestamp,
        ..first
    };
    assert_eq!(stored, expected);
    assert_eq!(
        bench.transfer(post(3, 1, 60)),
        T::PendingTransferAlreadyPosted
    );
    assert_eq!(bench.transfer(void(3, 1)), T::PendingTransferAlreadyPosted);
    // Not transient: the id can be used.
    assert_eq!(bench.transfer(transfer(3, 1)), T::Created);
}

#[test]
fn amounts_of_post_and_void() {
    let mut bench = Bench::with_accounts(2);
    (1..=4).for_each(|id| assert_eq!(bench.transfer(pending(id, 100)), T::Created));
    assert_eq!(bench.transfer(post(11, 1, MAX)), T::Created);
    assert_eq!(bench.transfer(post(12, 2, 0)), T::Created);
    assert_eq!(
        bench.transfer(post(13, 3, 101)),
        T::ExceedsPendingTransferAmount
    );
    assert_eq!(
        bench.transfer(Transfer {
            amount: 99,
            ..void(13, 3)
        }),
        T::PendingTransferHasDifferentAmount
    );
    assert_eq!(
        bench.transfer(Transfer {
            amount: 101,
            ..void(13, 3)
        }),
        T::ExceedsPendingTransferAmount
    );
    assert_eq!(
        bench.transfer(Transfer {
            amount: 100,
            ..void(13, 3)
        }),
        T::Created
    );
    assert_eq!(bench.transfer(void(14, 4)), T::Created);
    assert_eq!(bench.transfer(void(15, 4)), T::PendingTransferAlreadyVoided);
    assert_eq!(bench.balances(1), (0, 100, 0, 0));
    let amounts: Vec<u128> = bench
        .lookup_transfers(&[11, 12, 13, 14])
        .iter()
        .map(|t| t.amount)
        .collect();
    assert_eq!(amounts, [100, 0, 100, 100]);
}

#[test]
fn time_expires_what_is_pending() {
    let mut bench = Bench::with_accounts(2);
    assert_eq!(bench.ledger.due(), u64::MAX);
    let timed = |id, timeout| Transfer {
        timeout,
        ..pending(id, 10)
    };
    assert_eq!(bench.transfer(timed(1, 5)), T::Created);
    let due = bench.clock + 5_000_000_000;
    assert_eq!(bench.transfer(timed(2, 3)), T::Created);
    assert_eq!(bench.ledger.due(), bench.clock + 3_000_000_000);
    assert_eq!(bench.transfer(void(3, 2)), T::Created);
    assert_eq!(bench.ledger.due(), due);
    bench.clock = due - 2;
    bench.clock -= u64::from(PULSE_EVENTS_MAX);
    bench.pulse();
    assert_eq!(bench.balances(1), (10, 0, 0, 0), "not yet");
    // Late, and nobody has run the pulse.
    bench.clock = due - 2;
    assert_eq!(bench.transfer(post(4, 1, MAX)), T::PendingTransferExpired);
    assert_eq!(bench.balances(1), (10, 0, 0, 0));
    bench.pulse();
    assert_eq!(bench.balances(1), (0, 0, 0, 0));
    assert_eq!(bench.ledger.due(), u64::MAX);
    assert_eq!(bench.transfer(void(5, 1)), T::PendingTransferExpired);
    assert_eq!(bench.transfer(void(5, 2)), T::PendingTransferAlreadyVoided);
}

#[test]
fn a_pulse_has_a_bound() {
    let mut bench = Bench::with_accounts(2);
    let events: Vec<Transfer> = (1..=u128::from(PULSE_EVENTS_MAX) + 10)
        .map(|id| Transfer {
            timeout: 1 + u32::try_from(id % 3).unwrap(),
            ..pending(id, 1)
        })
        .collect();
    for events in events.chunks(4000) {
        assert!(
            bench
                .transfers(events)
                .iter()
                .all(|status| *status == T::Created)
        );
    }
    bench.wait_seconds(10);
    bench.pulse();
    assert_eq!(bench.balances(1), (10, 0, 0, 0));
    assert!(bench.ledger.due() < bench.clock);
    bench.pulse();
    assert_eq!(bench.balances(1), (0, 0, 0, 0));
    assert_eq!(bench.ledger.due(), u64::MAX);
}

#[test]
fn closing_and_opening() {
    let mut bench = Bench::with_accounts(3);
    let closing = |id, which| Transfer {
        flags: flags::PENDING | which,
        ..transfer(id, 0)
    };
    let both = flags::CLOSING_DEBIT | flags::CLOSING_CREDIT;
    assert_eq!(bench.transfer(closing(1, both)), T::Created);
    assert!(bench.is_closed(1) && bench.is_closed(2));
    assert_eq!(bench.transfer(transfer(2, 1)), T::DebitAccountAlreadyClosed);
    let to_closed = Transfer {
        debit_account_id: 3,
        ..transfer(3, 1)
    };
    assert_eq!(bench.transfer(to_closed), T::CreditAccountAlreadyClosed);
    assert_eq!(bench.transfer(post(4, 1, 0)), T::DebitAccountAlreadyClosed);
    assert_eq!(bench.transfer(post(4, 1, 0)), T::IdAlreadyFailed);
    assert_eq!(bench.transfer(void(5, 1)), T::Created);
    assert!(!bench.is_closed(1) && !bench.is_closed(2));
    // By expiry; and an open pending transfer can be voided on a closed account.
    assert_eq!(bench.transfer(pending(6, 7)), T::Created);
    let timed = Transfer {
        timeout: 1,
        ..closing(7, flags::CLOSING_DEBIT)
    };
    assert_eq!(bench.transfer(timed), T::Created);
    assert_eq!(bench.transfer(void(8, 6)), T::Created);
    assert!(bench.is_closed(1));
    bench.wait_seconds(2);
    bench.pulse();
    assert!(!bench.is_closed(1));
    // Closed from the beginning: for ever.
    let closed = Account {
        flags: account_flags::CLOSED,
        ..account(4)
    };
    bench.account(closed);
    let from_closed = Transfer {
        debit_account_id: 4,
        ..transfer(9, 1)
    };
    assert_eq!(bench.transfer(from_closed), T::DebitAccountAlreadyClosed);
}

#[test]
fn balancing_takes_what_there_is() {
    let mut bench = Bench::with_accounts(3);
    let credit = Transfer {
        debit_account_id: 3,
        credit_account_id: 1,
        ..transfer(1, 50)
    };
    assert_eq!(bench.transfer(credit), T::Created);
    let balancing = |id, amount, flags| Transfer {
        flags,
        ..transfer(id, amount)
    };
    assert_eq!(
        bench.transfer(balancing(2, 20, flags::BALANCING_DEBIT)),
        T::Created
    );
    assert_eq!(
        bench.transfer(balancing(3, MAX, flags::BALANCING_DEBIT | flags::PENDING)),
        T::Created
    );
    assert_eq!(
        bench.transfer(balancing(4, 5, flags::BALANCING_DEBIT)),
        T::Created
    );
    let amounts: Vec<u128> = bench
        .lookup_transfers(&[2, 3, 4])
        .iter()
        .map(|t| t.amount)
        .collect();
    assert_eq!(amounts, [20, 30, 0]);
    assert_eq!(bench.balances(1), (30, 20, 0, 50));
    // A retry with more than was there exists; with less than was taken it differs.
    assert_eq!(
        bench.transfer(balancing(2, 25, flags::BALANCING_DEBIT)),
        T::Exists
    );
    assert_eq!(
        bench.transfer(balancing(2, 19, flags::BALANCING_DEBIT)),
        T::ExistsWithDifferentAmount
    );
    // Account 3 owes 50, of which it gets what account 2 has.
    let back = Transfer {
        debit_account_id: 2,
        credit_account_id: 3,
        ..transfer(5, MAX)
    };
    let both = flags::BALANCING_DEBIT | flags::BALANCING_CREDIT;
    assert_eq!(
        bench.transfer(Transfer {
            flags: both,
            ..back
        }),
        T::Created
    );
    assert_eq!(bench.lookup_transfers(&[5])[0].amount, 20);
    let rest = Transfer {
        id: 6,
        flags: flags::BALANCING_CREDIT,
        ..back
    };
    assert_eq!(bench.transfer(rest), T::Created);
    assert_eq!(bench.lookup_transfers(&[6])[0].amount, 30);
}

#[test]
fn limits_hold_and_spend_the_id() {
    let mut bench = Bench::new();
    let limited = |id, flags| Account {
        flags,
        ..account(id)
    };
    bench.accounts(&[
        limited(1, account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS),
        limited(2, account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS),
        account(3),
    ]);
    assert_eq!(bench.transfer(transfer(1, 1)), T::ExceedsCredits);
    let credit = Transfer {
        debit_account_id: 3,
        credit_account_id: 1,
        ..transfer(2, 10)
    };
    assert_eq!(bench.transfer(credit), T::Created);
    assert_eq!(bench.transfer(transfer(3, 10)), T::ExceedsDebits);
    let debit = Transfer {
        debit_account_id: 2,
        credit_account_id: 3,
        ..transfer(4, 10)
    };
    assert_eq!(bench.transfer(debit), T::Created);
    assert_eq!(bench.transfer(pending(5, 6)), T::Created);
    assert_eq!(bench.transfer(transfer(6, 5)), T::ExceedsCredits);
    assert_eq!(bench.transfer(transfer(7, 4)), T::Created);
    // Zero changes nothing, so it exceeds nothing.
    assert_eq!(bench.transfer(transfer(8, 0)), T::Created);
    for id in [1, 3, 6] {
        assert_eq!(bench.transfer(transfer(id, 0)), T::IdAlreadyFailed);
        assert!(bench.lookup_transfers(&[id]).is_empty());
        // Not even a resolution may use it, nor is it found as a pending transfer.
        assert_eq!(bench.transfer(void(id, 5)), T::IdAlreadyFailed);
    }
    assert_eq!(bench.transfer(void(9, 1)), T::PendingTransferNotFound);
    assert_eq!(bench.transfer(void(9, 5)), T::IdAlreadyFailed);
}

#[test]
fn the_same_id_twice_in_one_batch() {
    let mut bench = Bench::with_accounts(2);
    let unknown = Transfer {
        debit_account_id: 77,
        ..transfer(1, 1)
    };
    let events = [
        unknown,
        transfer(1, 1),
        unknown,
        transfer(2, 1),
        transfer(2, 1),
        transfer(2, 2),
    ];
    assert_eq!(
        bench.transfers(&events),
        [
            T::DebitAccountNotFound,
            T::IdAlreadyFailed,
            T::IdAlreadyFailed,
            T::Created,
            T::Exists,
            T::ExistsWithDifferentAmount
        ]
    );
}

#[test]
fn exists_gives_the_existing_timestamp() {
    use stampede_client::wire::operation::Operation::CreateTransfers;
    let mut bench = Bench::with_accounts(2);
    let created = bench.create(CreateTransfers, &[vec![transfer(1, 1)]])[0][0];
    let again = bench
        .create(CreateTransfers, &[vec![transfer(1, 1), transfer(1, 2)]])
        .remove(0);
    assert_eq!(again[0].timestamp, created.timestamp);
    assert_eq!(again[1].timestamp, bench.clock);
}

#[test]
fn imported_transfers_fit_between() {
    let mut bench = Bench::new();
    let imported_account = |id, timestamp| Account {
        flags: account_flags::IMPORTED,
        timestamp,
        ..account(id)
    };
    bench.accounts(&[imported_account(1, 100), imported_account(2, 200)]);
    let imported = |id, timestamp| Transfer {
        flags: flags::IMPORTED,
        timestamp,
        ..transfer(id, 1)
    };
    let pending = Transfer {
        timeout: 1,
        ..imported(5, 300)
    };
    let pending = Transfer {
        flags: flags::IMPORTED | flags::PENDING,
        ..pending
    };
    let events = [
        imported(1, 200),
        imported(2, 100),
        imported(3, 99),
        imported(4, 150),
        pending,
        imported(6, 300),
        imported(7, 300),
        imported(8, 299),
        imported(6, 300),
    ];
    assert_eq!(
        bench.transfers(&events),
        [
            T::ImportedEventTimestampMustNotRegress,
            T::ImportedEventTimestampMustNotRegress,
            T::ImportedEventTimestampMustPostdateDebitAccount,
            T::ImportedEventTimestampMustPostdateCreditAccount,
            T::ImportedEventTimeoutMustBeZero,
            T::Created,
            T::ImportedEventTimestampMustNotRegress,
            T::ImportedEventTimestampMustNotRegress,
            // The retry is recognised before its timestamp is looked at.
            T::Exists,
        ]
    );
    // The other half of the accounts' check: not a transfer's timestamp.
    let accounts = [
        imported_account(3, 300),
        imported_account(4, 301),
        imported_account(5, 301),
    ];
    use stampede_client::wire::CreateAccountStatus as A;
    assert_eq!(
        bench.accounts(&accounts),
        [
            A::ImportedEventTimestampMustNotRegress,
            A::Created,
            A::ImportedEventTimestampMustNotRegress
        ]
    );
}

#[test]
fn imported_resolution_of_a_timed_transfer() {
    let mut bench = Bench::with_accounts(2);
    let timed = Transfer {
        timeout: 100,
        ..pending(1, 5)
    };
    bench.transfer(timed);
    let stamp = bench.clock + 1;
    bench.wait_seconds(1);
    let imported = Transfer {
        flags: flags::POST_PENDING_TRANSFER | flags::IMPORTED,
        timestamp: stamp,
        ..post(2, 1, MAX)
    };
    assert_eq!(
        bench.transfers(&[
            imported,
            Transfer {
                timestamp: stamp + 1,
                ..imported
            }
        ])[0],
        T::Created
    );
    assert_eq!(bench.lookup_transfers(&[2])[0].timestamp, stamp);
    assert_eq!(bench.balances(1), (0, 5, 0, 0));
    assert_eq!(bench.ledger.due(), u64::MAX);
}

#[test]
fn a_ledger_full_of_timeouts_has_room_again_when_they_are_over() {
    let rows_max = RowsMax {
        timeouts: ROWS_AHEAD + 2,
        ..RowsMax::INDEXED
    };
    let mut bench = Bench::with_options(LedgerOptions {
        rows_max,
        ..OPTIONS
    });
    bench.accounts(&[account(1), account(2)]);
    let timed = |id| Transfer {
        timeout: 1,
        ..pending(id, 5)
    };
    // One without a timeout does not count.
    assert_eq!(
        bench.transfers(&[timed(1), pending(2, 5), timed(3)]),
        [T::Created; 3]
    );
    assert!(!bench.ledger.is_full());
    assert_eq!(bench.transfer(timed(4)), T::Created);
    assert!(bench.ledger.is_full());
    assert_eq!(bench.transfer(void(5, 1)), T::Created);
    assert!(!bench.ledger.is_full());
    assert_eq!(bench.transfer(timed(6)), T::Created);
    assert!(bench.ledger.is_full());
    bench.wait_seconds(2);
    bench.pulse();
    assert!(!bench.ledger.is_full());
}
