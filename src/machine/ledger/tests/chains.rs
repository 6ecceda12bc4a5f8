//! Chains, imported batches, results of every form.

use stampede_client::wire::CreateAccountStatus as A;
use stampede_client::wire::CreateTransferStatus as T;
use stampede_client::wire::operation::Operation;
use stampede_client::wire::record::{account_flags, transfer_flags};
use stampede_client::wire::{Account, CreateResult, Transfer};

use super::{Bench, Body, account, encode, pending, post, sparse, transfer, void};
use crate::machine::Machine;

fn linked(event: Transfer) -> Transfer {
    Transfer {
        flags: event.flags | transfer_flags::LINKED,
        ..event
    }
}

fn linked_account(event: Account) -> Account {
    Account {
        flags: event.flags | account_flags::LINKED,
        ..event
    }
}

#[test]
fn a_chain_takes_effect_whole() {
    let mut bench = Bench::with_accounts(2);
    let events = [
        linked(transfer(1, 10)),
        linked(transfer(2, 20)),
        transfer(3, 30),
    ];
    assert_eq!(bench.transfers(&events), [T::Created; 3]);
    assert_eq!(bench.balances(1), (0, 60, 0, 0));
    // All flags are stored and returned.
    assert_eq!(
        bench
            .lookup_transfers(&[1, 3])
            .iter()
            .map(|t| t.flags)
            .collect::<Vec<_>>(),
        [1, 0]
    );
}

#[test]
fn a_broken_chain_takes_no_effect_and_the_breaker_keeps_its_status() {
    let mut bench = Bench::with_accounts(2);
    bench.transfer(transfer(9, 1));
    let before = bench.ledger.digest();
    let wrong = Transfer {
        code: 0,
        ..transfer(3, 1)
    };
    let events = [
        linked(transfer(1, 10)),
        linked(pending(2, 5)),
        linked(wrong),
        linked(transfer(4, 1)),
        transfer(5, 1),
    ];
    let l = T::LinkedEventFailed;
    assert_eq!(bench.transfers(&events), [l, l, T::CodeMustNotBeZero, l, l]);
    assert_eq!(bench.ledger.digest(), before);
    // What was undone can be created, and what follows a broken chain runs.
    let events = [linked(transfer(1, 10)), transfer(9, 1), transfer(1, 7)];
    assert_eq!(bench.transfers(&events), [l, T::Exists, T::Created]);
    assert_eq!(bench.balances(2), (0, 0, 0, 8));
}

#[test]
fn a_chain_that_nothing_closes_is_open() {
    let mut bench = Bench::with_accounts(2);
    let l = T::LinkedEventFailed;
    let events = [
        transfer(1, 1),
        linked(transfer(2, 1)),
        linked(transfer(3, 1)),
    ];
    assert_eq!(
        bench.transfers(&events),
        [T::Created, l, T::LinkedEventChainOpen]
    );
    // Even in a chain that is broken already.
    let events = [linked(transfer(1, 2)), linked(transfer(3, 1))];
    assert_eq!(
        bench.transfers(&events),
        [T::ExistsWithDifferentFlags, T::LinkedEventChainOpen]
    );
    assert_eq!(
        bench.transfers(&[linked(transfer(4, 1))]),
        [T::LinkedEventChainOpen]
    );
    // Before everything else.
    assert_eq!(
        bench.transfers(&[linked(Transfer::default())]),
        [T::LinkedEventChainOpen]
    );
    let open = [
        linked_account(account(5)),
        linked_account(Account::default()),
    ];
    assert_eq!(
        bench.accounts(&open),
        [A::LinkedEventFailed, A::LinkedEventChainOpen]
    );
}

#[test]
fn chains_do_not_span_batches() {
    let mut bench = Bench::with_accounts(2);
    let batches = [
        vec![transfer(1, 1), linked(transfer(2, 1))],
        vec![],
        vec![transfer(3, 1)],
    ];
    let results = bench.create(Operation::CreateTransfers, &batches);
    let statuses: Vec<Vec<u32>> = results
        .iter()
        .map(|b| b.iter().map(|r| r.status).collect())
        .collect();
    assert_eq!(statuses, [vec![u32::MAX, 2], vec![], vec![u32::MAX]]);
    // Events of a message have consecutive timestamps, the last one the operation's own.
    let stamps: Vec<u64> = results.iter().flatten().map(|r| r.timestamp).collect();
    assert_eq!(stamps, [bench.clock - 2, bench.clock - 1, bench.clock]);
}

#[test]
fn later_events_of_a_chain_see_earlier_ones_and_all_of_it_is_undone() {
    let mut bench = Bench::with_accounts(3);
    let timed = Transfer {
        timeout: 100,
        ..pending(1, 50)
    };
    assert_eq!(bench.transfer(timed), T::Created);
    let closing = Transfer {
        flags: transfer_flags::PENDING | transfer_flags::CLOSING_DEBIT,
        debit_account_id: 3,
        ..transfer(2, 0)
    };
    assert_eq!(bench.transfer(closing), T::Created);
    let due = bench.ledger.due();
    let before = bench.ledger.digest();
    let another = Transfer {
        timeout: 1,
        ..pending(12, 7)
    };
    let events = [
        linked(post(10, 1, 20)),
        linked(void(11, 2)),
        linked(another),
        linked(Transfer {
            debit_account_id: 3,
            ..transfer(13, 4)
        }),
        linked(post(14, 12, u128::MAX)),
        linked(Transfer {
            flags: transfer_flags::PENDING | transfer_flags::CLOSING_CREDIT,
            ..transfer(15, 1)
        }),
        transfer(16, 1),
    ];
    let mut expected = [T::LinkedEventFailed; 7];
    expected[6] = T::CreditAccountAlreadyClosed;
    assert_eq!(bench.transfers(&events), expected);
    // The id of the event that broke it is spent, which is all that remains.
    assert_ne!(bench.ledger.digest(), before);
    assert_eq!(bench.ledger.due(), due);
    assert!(bench.is_closed(3) && !bench.is_closed(2));
    assert_eq!(bench.balances(1), (50, 0, 0, 0));
    assert_eq!(bench.transfer(transfer(16, 1)), T::IdAlreadyFailed);
    let events = &mut { events };
    events[6].id = 17;
    events[6].credit_account_id = 1;
    events[6].debit_account_id = 3;
    assert_eq!(bench.transfers(events), [T::Created; 7]);
    assert!(!bench.is_closed(3) && bench.is_closed(2));
    assert_eq!(bench.ledger.due(), u64::MAX);
}

#[test]
fn chains_of_accounts() {
    let mut bench = Bench::new();
    let events = [
        linked_account(account(1)),
        linked_account(account(2)),
        account(1),
        account(2),
    ];
    let l = A::LinkedEventFailed;
    assert_eq!(
        bench.accounts(&events),
        [l, l, A::ExistsWithDifferentFlags, A::Created]
    );
    assert_eq!(bench.ledger.accounts_count(), 1);
    // The largest timestamp goes back too.
    let imported = |id, timestamp| Account {
        flags: account_flags::IMPORTED,
        timestamp,
        ..account(id)
    };
    let mut bench = Bench::new();
    let events = [
        linked_account(imported(1, 500)),
        imported(0, 501),
        imported(3, 400),
        linked_account(imported(4, 450)),
        imported(4, 460),
    ];
    let results = bench
        .create(Operation::CreateAccounts, &[events.to_vec()])
        .remove(0);
    let found: Vec<(u32, u64)> = results.iter().map(|r| (r.status, r.timestamp)).collect();
    let first = bench.clock - 4;
    // An undone event shows the timestamp it had been given, which was the imported one.
    let expected = [
        (1, 500),
        (6, first + 1),
        (u32::MAX, 400),
        (1, 450),
        (15, first + 4),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_batch_is_imported_or_not() {
    let mut bench = Bench::with_accounts(2);
    let imported = |id, timestamp| Transfer {
        flags: transfer_flags::IMPORTED,
        timestamp,
        ..transfer(id, 1)
    };
    bench.wait_seconds(1);
    let stamp = bench.clock - 500;
    let events = [
        imported(1, stamp),
        transfer(2, 1),
        imported(3, 0),
        imported(4, 1 << 63),
        imported(5, bench.clock + 100),
        imported(6, stamp + 1),
    ];
    assert_eq!(
        bench.transfers(&events),
        [
            T::Created,
            T::ImportedEventExpected,
            T::ImportedEventTimestampOutOfRange,
            T::ImportedEventTimestampOutOfRange,
            T::ImportedEventTimestampMustNotAdvance,
            T::Created
        ]
    );
    let events = [
        transfer(7, 1),
        imported(8, stamp + 2),
        Transfer {
            timestamp: 1,
            ..transfer(9, 1)
        },
    ];
    assert_eq!(
        bench.transfers(&events),
        [
            T::Created,
            T::ImportedEventNotExpected,
            T::TimestampMustBeZero
        ]
    );
    assert_eq!(bench.lookup_transfers(&[1])[0].timestamp, stamp);
}

#[test]
fn old_operations_report_failures_only() {
    let mut bench = Bench::with_accounts(2);
    let operation = Operation::CreateTransfersSparse;
    let batches = [
        vec![
            transfer(1, 1),
            transfer(1, 1),
            linked(transfer(2, 1)),
            transfer(0, 1),
        ],
        vec![],
        vec![transfer(3, 1)],
        vec![transfer(3, 1)],
    ];
    let reply = bench.run(operation, 6, &encode(operation, &batches));
    assert_eq!(
        sparse(operation, &reply),
        [vec![(1, 46), (2, 1), (3, 5)], vec![], vec![], vec![(0, 46)]]
    );
    let operation = Operation::CreateAccountsUnbatched;
    let reply = bench.run(
        operation,
        2,
        &encode(operation, &[vec![account(0), account(7)]]),
    );
    assert_eq!(sparse(operation, &reply), [[(0, 6)]]);
    assert_eq!(bench.run(operation, 0, &Body::default()), [0; 0]);
    let operation = Operation::LookupAccountsUnbatched;
    let reply = bench.run(
        operation,
        0,
        &encode(operation, &[vec![7u128, 8, 7, 0, u128::MAX]]),
    );
    assert_eq!(super::decode::<Account>(operation, &reply)[0].len(), 2);
}

#[test]
fn bodies_at_odd_addresses_are_read_too() {
    let mut bench = Bench::with_accounts(2);
    let body = encode(Operation::CreateTransfers, &[vec![transfer(1, 1)]]);
    let mut odd = vec![0u8; body.bytes().len() + 16];
    let start = odd.as_ptr().align_offset(16) + 3;
    odd[start..start + body.bytes().len()].copy_from_slice(body.bytes());
    let mut reply = [0; 32];
    let odd = &odd[start..start + body.bytes().len()];
    bench.clock += 2;
    let code = Operation::CreateTransfers.code();
    assert_eq!(
        bench.ledger.apply(9, code, bench.clock, odd, &mut reply),
        32
    );
    let results = super::decode::<CreateResult>(Operation::CreateTransfers, &reply);
    assert!(results[0][0].is_created());
}

#[test]
fn batches_longer_than_a_sub_batch() {
    let mut bench = Bench::with_accounts(2);
    let mut events: Vec<Transfer> = (1..=1000).map(|id| transfer(id, 1)).collect();
    // A duplicate right behind, one in the same sub-batch, one in another; a chain across two.
    events[5].id = 5;
    events[100].id = 3;
    events[600].id = 7;
    (250..260).for_each(|at| events[at].flags = 1);
    let statuses = bench.transfers(&events);
    let failed: Vec<usize> = (0..1000).filter(|at| statuses[*at] != T::Created).collect();
    assert_eq!(failed, [5, 100, 600]);
    assert_eq!(bench.balances(1).1, 997);
}

#[test]
fn queries_are_answered_in_the_right_form() {
    use stampede_client::wire::{AccountFilter, QueryFilter};
    let mut bench = Bench::with_accounts(2);
    let operation = Operation::GetAccountTransfers;
    let filters = [
        vec![AccountFilter::default()],
        vec![AccountFilter::default()],
    ];
    let reply = bench.run(operation, 0, &encode(operation, &filters));
    assert_eq!(
        super::decode::<Transfer>(operation, &reply),
        [vec![], vec![]]
    );
    let operation = Operation::QueryAccountsUnbatched;
    let body = encode(operation, &[vec![QueryFilter::default()]]);
    assert!(bench.run(operation, 0, &body).is_empty());
}
