//! What happened to balances, written down: rows of an account with history, change events of all kinds.

use stampede_client::wire::record::{
    account_filter_flags as filter_flags, account_flags, change_event_type, transfer_flags,
};
use stampede_client::wire::{Account, AccountBalance, AccountFilter, ChangeEvent, Transfer};

use super::{Bench, anything, everything};
use crate::machine::ledger::tests::{account, pending, post, transfer, void};

/// Account 1 and 2 with values of their own, 1 with history; transfers that do all there is.
fn five_kinds() -> (Bench, Vec<Transfer>, u64) {
    let mut bench = Bench::new();
    for id in [1, 2] {
        let small = u16::try_from(id).unwrap();
        bench.account(Account {
            user_data_128: 10 + id,
            user_data_64: 20 + u64::from(small),
            user_data_32: 30 + u32::from(small),
            code: 40 + small,
            flags: if id == 1 { account_flags::HISTORY } else { 0 },
            ..account(id)
        });
    }
    let data = |event: Transfer| Transfer {
        user_data_128: 100 + event.id,
        user_data_64: 200,
        user_data_32: 300,
        code: 7,
        ..event
    };
    let closes = transfer_flags::PENDING | transfer_flags::CLOSING_CREDIT;
    let events = [
        data(transfer(1, 100)),
        data(pending(2, 30)),
        data(pending(3, 20)),
        Transfer {
            timeout: 5,
            debit_account_id: 2,
            credit_account_id: 1,
            ..data(pending(4, 4))
        },
        post(5, 2, 25),
        Transfer {
            user_data_64: 999,
            ..void(6, 3)
        },
        Transfer {
            timeout: 6,
            flags: closes,
            ..data(pending(7, 1))
        },
    ];
    let stored = events.map(|event| bench.made(event)).to_vec();
    bench.wait_seconds(5);
    bench.pulse();
    let expired_at = bench.clock;
    bench.wait_seconds(1);
    bench.pulse();
    (bench, stored, expired_at)
}

#[test]
fn balances_follow_pending_post_void_and_expiry() {
    let (mut bench, stored, _) = five_kinds();
    let last = bench.made(transfer(8, 1000));
    let rows = |rows: &[(u64, [u128; 4])]| -> Vec<AccountBalance> {
        rows.iter()
            .map(|&(timestamp, balances)| AccountBalance {
                debits_pending: balances[0],
                debits_posted: balances[1],
                credits_pending: balances[2],
                credits_posted: balances[3],
                timestamp,
                ..AccountBalance::default()
            })
            .collect()
    };
    let at = |index: usize| stored[index].timestamp;
    let all = rows(&[
        (at(0), [0, 100, 0, 0]),
        (at(1), [30, 100, 0, 0]),
        (at(2), [50, 100, 0, 0]),
        (at(3), [50, 100, 4, 0]),
        // All thirty are no longer pending, twenty-five are posted.
        (at(4), [20, 125, 4, 0]),
        (at(5), [0, 125, 4, 0]),
        (at(6), [1, 125, 4, 0]),
        // Two expiries have no row of their own, and are seen in the next.
        (last.timestamp, [0, 1125, 0, 0]),
    ]);
    for restarted in [false, true] {
        if restarted {
            bench.restart();
        }
        assert_eq!(bench.balances_of(everything(1)), all);
        // The same account without history.
        assert_eq!(bench.balances_of(everything(2)), []);
        let mut reversed = all.clone();
        reversed.reverse();
        let backwards = AccountFilter {
            flags: everything(1).flags | filter_flags::REVERSED,
            ..everything(1)
        };
        assert_eq!(bench.balances_of(backwards), reversed);
        // The filter is the transfers', the balances are the account's all the same.
        let credits = AccountFilter {
            flags: filter_flags::CREDITS,
            ..everything(1)
        };
        assert_eq!(bench.balances_of(credits), all[3..4]);
        let inherited = AccountFilter {
            user_data_64: 999,
            ..everything(1)
        };
        assert_eq!(bench.balances_of(inherited), all[5..6]);
        let inherited = AccountFilter {
            user_data_128: 102,
            code: 7,
            ..everything(1)
        };
        assert_eq!(bench.balances_of(inherited), [all[1], all[4]]);
        let ranged = AccountFilter {
            timestamp_min: at(2),
            timestamp_max: at(5),
            limit: 2,
            ..everything(1)
        };
        assert_eq!(bench.balances_of(ranged), all[2..4]);
    }
}

#[test]
fn change_events_of_five_kinds_field_by_field() {
    let (mut bench, stored, expired_at) = five_kinds();
    let (expiry, last) = (expired_at, bench.clock);
    let debit_side = |event: ChangeEvent, timestamp: u64, balances: [u128; 4]| ChangeEvent {
        debit_account_id: 1,
        debit_account_debits_pending: balances[0],
        debit_account_debits_posted: balances[1],
        debit_account_credits_pending: balances[2],
        debit_account_credits_posted: balances[3],
        debit_account_user_data_128: 11,
        debit_account_user_data_64: 21,
        debit_account_user_data_32: 31,
        debit_account_code: 41,
        debit_account_flags: account_flags::HISTORY,
        debit_account_timestamp: timestamp,
        ..event
    };
    let credit_side =
        |event: ChangeEvent, timestamp: u64, flags: u16, balances: [u128; 4]| ChangeEvent {
            credit_account_id: 2,
            credit_account_debits_pending: balances[0],
            credit_account_debits_posted: balances[1],
            credit_account_credits_pending: balances[2],
            credit_account_credits_posted: balances[3],
            credit_account_user_data_128: 12,
            credit_account_user_data_64: 22,
            credit_account_user_data_32: 32,
            credit_account_code: 42,
            credit_account_flags: flags,
            credit_account_timestamp: timestamp,
            ..event
        };
    let stamps: Vec<u64> = bench
        .lookup_accounts(&[1, 2])
        .iter()
        .map(|account| account.timestamp)
        .collect();
    // What the transfer's part of events 1 to 7 has in common.
    let of = |index: usize, kind: u8| ChangeEvent {
        transfer_id: index as u128 + 1,
        transfer_user_data_128: 101 + index as u128,
        transfer_user_data_64: 200,
        transfer_user_data_32: 300,
        transfer_code: 7,
        ledger: 1,
        kind,
        timestamp: stored[index].timestamp,
        transfer_timestamp: stored[index].timestamp,
        ..ChangeEvent::default()
    };
    let forward = |event, debit, credit| {
        let event = debit_side(event, stamps[0], debit);
        credit_side(event, stamps[1], 0, credit)
    };
    let pending = transfer_flags::PENDING;
    let closing = ChangeEvent {
        transfer_amount: 1,
        transfer_timeout: 6,
        transfer_flags: pending | transfer_flags::CLOSING_CREDIT,
        ..of(6, change_event_type::TWO_PHASE_PENDING)
    };
    // The fourth goes from account 2 to account 1.
    let backward = |event: ChangeEvent, of_1: [u128; 4], of_2: [u128; 4]| ChangeEvent {
        debit_account_id: 2,
        debit_account_debits_pending: of_2[0],
        debit_account_debits_posted: of_2[1],
        debit_account_credits_pending: of_2[2],
        debit_account_credits_posted: of_2[3],
        debit_account_user_data_128: 12,
        debit_account_user_data_64: 22,
        debit_account_user_data_32: 32,
        debit_account_code: 42,
        debit_account_timestamp: stamps[1],
        credit_account_id: 1,
        credit_account_debits_pending: of_1[0],
        credit_account_debits_posted: of_1[1],
        credit_account_credits_pending: of_1[2],
        credit_account_credits_posted: of_1[3],
        credit_account_user_data_128: 11,
        credit_account_user_data_64: 21,
        credit_account_user_data_32: 31,
        credit_account_code: 41,
        credit_account_flags: account_flags::HISTORY,
        credit_account_timestamp: stamps[0],
        ..event
    };
    let fourth = ChangeEvent {
        transfer_amount: 4,
        transfer_timeout: 5,
        transfer_flags: pending,
        ..of(3, change_event_type::TWO_PHASE_PENDING)
    };
    let single = ChangeEvent {
        transfer_amount: 100,
        ..of(0, change_event_type::SINGLE_PHASE)
    };
    let two_phase_pending = |index, transfer_amount| ChangeEvent {
        transfer_amount,
        transfer_flags: pending,
        ..of(index, change_event_type::TWO_PHASE_PENDING)
    };
    // What was not given comes from the pending transfer.
    let posted = ChangeEvent {
        transfer_amount: 25,
        transfer_pending_id: 2,
        transfer_user_data_128: 102,
        transfer_flags: transfer_flags::POST_PENDING_TRANSFER,
        ..of(4, change_event_type::TWO_PHASE_POSTED)
    };
    let voided = ChangeEvent {
        transfer_amount: 20,
        transfer_pending_id: 3,
        transfer_user_data_128: 103,
        transfer_user_data_64: 999,
        transfer_flags: transfer_flags::VOID_PENDING_TRANSFER,
        ..of(5, change_event_type::TWO_PHASE_VOIDED)
    };
    // An expiry speaks of the pending transfer, with a timestamp of its own.
    let expired = |event: ChangeEvent, timestamp| ChangeEvent {
        kind: change_event_type::TWO_PHASE_EXPIRED,
        timestamp,
        ..event
    };
    let closed = account_flags::CLOSED;
    let expected = [
        forward(single, [0, 100, 0, 0], [0, 0, 0, 100]),
        forward(two_phase_pending(1, 30), [30, 100, 0, 0], [0, 0, 30, 100]),
        forward(two_phase_pending(2, 20), [50, 100, 0, 0], [0, 0, 50, 100]),
        backward(fourth, [50, 100, 4, 0], [4, 0, 50, 100]),
        forward(posted, [20, 125, 4, 0], [4, 0, 20, 125]),
        forward(voided, [0, 125, 4, 0], [4, 0, 0, 125]),
        credit_side(
            debit_side(closing, stamps[0], [1, 125, 4, 0]),
            stamps[1],
            closed,
            [4, 0, 1, 125],
        ),
        // Account 2 is closed when its own transfer expires, and open after the one that had closed it.
        ChangeEvent {
            debit_account_flags: closed,
            ..backward(expired(fourth, expiry), [1, 125, 0, 0], [0, 0, 1, 125])
        },
        forward(expired(closing, last), [0, 125, 0, 0], [0, 0, 0, 125]),
    ];
    assert_ne!(expiry, last);
    for restarted in [false, true] {
        if restarted {
            bench.restart();
        }
        let found = bench.all_changes();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected);
        }
        assert_eq!(found.len(), expected.len());
    }
    // The record of an expiry is no transfer.
    let query = bench.query(anything());
    assert_eq!(query, stored);
}

/// An imported transfer may be earlier than an expiry that happened before it.
#[test]
fn change_events_are_in_the_order_of_their_timestamps() {
    let mut bench = Bench::with_accounts(2);
    let first = bench.made(Transfer {
        timeout: 1,
        ..pending(1, 10)
    });
    bench.wait_seconds(2);
    bench.pulse();
    let expired_at = bench.clock;
    let second = bench.made(Transfer {
        flags: transfer_flags::IMPORTED,
        timestamp: first.timestamp + 5,
        ..transfer(2, 3)
    });
    // The same timestamp as the expiry's: that was there first.
    let third = bench.made(Transfer {
        flags: transfer_flags::IMPORTED,
        timestamp: expired_at,
        ..transfer(3, 4)
    });
    for restarted in [false, true] {
        if restarted {
            bench.restart();
        }
        let found: Vec<(u64, u128, u8, u128)> = bench
            .all_changes()
            .iter()
            .map(|change| {
                (
                    change.timestamp,
                    change.transfer_id,
                    change.kind,
                    change.debit_account_debits_posted + change.debit_account_debits_pending,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (first.timestamp, 1, change_event_type::TWO_PHASE_PENDING, 10),
                // What it left: the ten had expired when it was made.
                (second.timestamp, 2, change_event_type::SINGLE_PHASE, 3),
                (expired_at, 1, change_event_type::TWO_PHASE_EXPIRED, 0),
                (third.timestamp, 3, change_event_type::SINGLE_PHASE, 7),
            ]
        );
        assert_eq!(bench.query(anything()), [first, second, third]);
    }
}
