//! Corners in which the reference server stops: what is answered here.
//!
//! `docs/ledger.md` lists them. An imported resolution of a transfer with a timeout is in `rules`; what
//! clients may not send at all (a pulse, a register with a body that is not zero) is in the gateway's
//! tests.

use stampede_client::wire::operation::Operation;
use stampede_client::wire::record::{account_flags, transfer_flags};
use stampede_client::wire::{Account, CreateResult, CreateTransferStatus as T, Transfer};

use super::{Bench, account, transfer};

fn imported_account(id: u128, timestamp: u64) -> Account {
    Account {
        flags: account_flags::IMPORTED,
        timestamp,
        ..account(id)
    }
}

fn imported_transfer(id: u128, timestamp: u64) -> Transfer {
    Transfer {
        flags: transfer_flags::IMPORTED,
        timestamp,
        ..transfer(id, 1)
    }
}

fn statuses(results: &[Vec<CreateResult>]) -> Vec<Vec<u32>> {
    let batch = |batch: &Vec<CreateResult>| batch.iter().map(|result| result.status).collect();
    results.iter().map(batch).collect()
}

/// Whether a batch is imported is said by its first event, whatever the message's first batch was.
#[test]
fn an_imported_batch_may_follow_one_that_is_not_and_created_nothing() {
    const CREATED: u32 = u32::MAX;
    let mut bench = Bench::with_accounts(2);
    bench.wait_seconds(1);
    bench.transfer(transfer(1, 1));
    let moved = bench.clock;
    bench.wait_seconds(1);
    let accounts = [
        vec![account(0)],
        // The timestamp of a transfer, and one of nobody.
        vec![imported_account(3, moved), imported_account(4, moved + 1)],
        vec![account(5)],
    ];
    let results = bench.create(Operation::CreateAccounts, &accounts);
    assert_eq!(
        statuses(&results),
        [vec![6], vec![26, CREATED], vec![CREATED]]
    );
    assert_eq!(bench.lookup_accounts(&[4])[0].timestamp, moved + 1);

    let account_created = bench.lookup_accounts(&[5])[0].timestamp;
    bench.wait_seconds(1);
    let transfers = [
        vec![transfer(0, 1)],
        vec![
            imported_transfer(2, account_created),
            imported_transfer(3, account_created + 1),
        ],
        vec![transfer(4, 1)],
    ];
    let results = bench.create(Operation::CreateTransfers, &transfers);
    assert_eq!(
        statuses(&results),
        [vec![5], vec![60, CREATED], vec![CREATED]]
    );
    assert_eq!(
        bench.lookup_transfers(&[3])[0].timestamp,
        account_created + 1
    );
    assert_eq!(bench.balances(1).1, 3);
}

/// An imported timestamp may lie between the event's own and that of its batch's last event.
#[test]
fn an_imported_timestamp_may_be_ahead_of_its_own_event() {
    let mut bench = Bench::with_accounts(2);
    bench.wait_seconds(1);
    // The batch of five has the timestamps first..=last.
    let first = bench.clock + 2;
    let last = first + 4;
    let events = [
        imported_transfer(1, first + 2),
        imported_transfer(2, first + 1),
        imported_transfer(3, last - 1),
        imported_transfer(4, last),
        imported_transfer(5, first + 3),
    ];
    assert_eq!(
        bench.transfers(&events),
        [
            T::Created,
            T::ImportedEventTimestampMustNotRegress,
            T::Created,
            T::ImportedEventTimestampMustNotAdvance,
            T::ImportedEventTimestampMustNotRegress,
        ]
    );
    assert_eq!(bench.clock, last);
    assert_eq!(bench.transfer(transfer(6, 1)), T::Created);
    let stamps: Vec<u64> = bench
        .lookup_transfers(&[1, 3, 6])
        .iter()
        .map(|transfer| transfer.timestamp)
        .collect();
    assert_eq!(stamps, [first + 2, last - 1, last + 2]);
}
