//! Queries whose answers are written down here, field by field.
//!
//! Chunks have 32 rows, so a few hundred transfers fill some, and what is asked for begins and ends at
//! their edges. What holds in one long run must hold after a checkpoint and a restart too: most tests ask
//! twice, see [`Bench::restart`].

mod history;

use std::collections::BTreeMap;

use stampede_client::wire::operation::Operation;
use stampede_client::wire::record::{
    account_filter_flags as filter_flags, account_flags, query_filter_flags, transfer_flags,
};
use stampede_client::wire::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateAccountStatus,
    CreateTransferStatus, QueryFilter, Transfer,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Bench, OPTIONS, account, decode, encode, transfer};
use crate::machine::Machine;
use crate::machine::ledger::Ledger;
use crate::store::{Manifest, MemoryStorage, write_checkpoint};

const CHUNK: usize = 1 << OPTIONS.chunk_rows_log2;

impl Bench {
    /// A checkpoint, and a ledger that was restored from it.
    fn restart(&mut self) {
        let mut storage = MemoryStorage::default();
        let mut snapshot = self.ledger.whole_snapshot(self.op);
        let reference = write_checkpoint(&mut storage, self.op, &mut *snapshot, b"").unwrap();
        let files = Manifest::open(&storage, &reference).unwrap().files;
        let restored = Ledger::default().restore(&storage, &files).unwrap();
        assert_eq!(restored.digest(), self.ledger.digest());
        self.ledger = restored;
    }

    /// Creates what must be created; gives it as it is stored.
    fn made(&mut self, event: Transfer) -> Transfer {
        assert_eq!(self.transfer(event), CreateTransferStatus::Created);
        self.lookup_transfers(&[event.id])[0]
    }

    fn of_account(&mut self, filter: AccountFilter) -> Vec<Transfer> {
        let found = self.ask(Operation::GetAccountTransfers, filter);
        let lone: Vec<Transfer> = self.ask(Operation::GetAccountTransfersUnbatched, filter);
        assert_eq!(found, lone);
        found
    }

    fn balances_of(&mut self, filter: AccountFilter) -> Vec<AccountBalance> {
        let found = self.ask(Operation::GetAccountBalances, filter);
        let lone: Vec<AccountBalance> = self.ask(Operation::GetAccountBalancesUnbatched, filter);
        assert_eq!(found, lone);
        found
    }

    fn query(&mut self, filter: QueryFilter) -> Vec<Transfer> {
        let found = self.ask(Operation::QueryTransfers, filter);
        let lone: Vec<Transfer> = self.ask(Operation::QueryTransfersUnbatched, filter);
        assert_eq!(found, lone);
        found
    }

    fn query_accounts(&mut self, filter: QueryFilter) -> Vec<Account> {
        let found = self.ask(Operation::QueryAccounts, filter);
        let lone: Vec<Account> = self.ask(Operation::QueryAccountsUnbatched, filter);
        assert_eq!(found, lone);
        found
    }

    fn changes(&mut self, filter: ChangeEventsFilter) -> Vec<ChangeEvent> {
        self.ask(Operation::GetChangeEvents, filter)
    }

    fn all_changes(&mut self) -> Vec<ChangeEvent> {
        self.changes(ChangeEventsFilter {
            limit: 2730,
            ..ChangeEventsFilter::default()
        })
    }
}

/// Everything of an account.
fn everything(account_id: u128) -> AccountFilter {
    AccountFilter {
        account_id,
        limit: 8189,
        flags: filter_flags::DEBITS | filter_flags::CREDITS,
        ..AccountFilter::default()
    }
}

/// Everything there is.
fn anything() -> QueryFilter {
    QueryFilter {
        limit: 8189,
        ..QueryFilter::default()
    }
}

fn ids(transfers: &[Transfer]) -> Vec<u128> {
    transfers.iter().map(|transfer| transfer.id).collect()
}

/// Ten chunks and a half: of ids 1 to 336, user_data_64 marks every seventh, user_data_32 every
/// eleventh, code 5 every thirteenth; account 3 is in every fifth, on either side in turn.
fn marked() -> (Bench, Vec<Transfer>) {
    let mut bench = Bench::with_accounts(3);
    let mut stored = Vec::new();
    for id in 1..=CHUNK as u128 * 10 + 16 {
        let every = |n: u128| id.is_multiple_of(n);
        let parties = match (every(5), every(2)) {
            (false, _) => (1, 2),
            (true, false) => (3, 2),
            (true, true) => (1, 3),
        };
        stored.push(bench.made(Transfer {
            debit_account_id: parties.0,
            credit_account_id: parties.1,
            user_data_64: if every(7) { 77 } else { 0 },
            user_data_32: if every(11) { 1111 } else { 0 },
            code: if every(13) { 5 } else { 1 },
            ..transfer(id, id)
        }));
    }
    (bench, stored)
}

#[test]
fn rare_values_meet_far_from_each_other() {
    let (mut bench, stored) = marked();
    for restarted in [false, true] {
        if restarted {
            bench.restart();
        }
        let marks = QueryFilter {
            user_data_64: 77,
            user_data_32: 1111,
            ..anything()
        };
        // One in 77: not in every chunk, and never twice in one.
        assert_eq!(ids(&bench.query(marks)), [77, 154, 231, 308]);
        let last_two = QueryFilter {
            limit: 2,
            flags: query_filter_flags::REVERSED,
            ..marks
        };
        assert_eq!(ids(&bench.query(last_two)), [308, 231]);
        let code = QueryFilter { code: 5, ..marks };
        assert_eq!(ids(&bench.query(code)), []);
        let two = QueryFilter {
            user_data_64: 77,
            code: 5,
            ..anything()
        };
        assert_eq!(ids(&bench.query(two)), [91, 182, 273]);

        // The account's own: one in 35, and those on one side.
        let of_three = AccountFilter {
            user_data_64: 77,
            ..everything(3)
        };
        let all = [35, 70, 105, 140, 175, 210, 245, 280, 315];
        assert_eq!(ids(&bench.of_account(of_three)), all);
        let debits = AccountFilter {
            flags: filter_flags::DEBITS,
            ..of_three
        };
        assert_eq!(ids(&bench.of_account(debits)), [35, 105, 175, 245, 315]);
        let credits = AccountFilter {
            flags: filter_flags::CREDITS | filter_flags::REVERSED,
            ..of_three
        };
        assert_eq!(ids(&bench.of_account(credits)), [280, 210, 140, 70]);
        let last = AccountFilter {
            limit: 1,
            ..credits
        };
        assert_eq!(ids(&bench.of_account(last)), [280]);
        let ranged = AccountFilter {
            timestamp_min: stored[104].timestamp,
            timestamp_max: stored[244].timestamp,
            ..of_three
        };
        let within = [105, 140, 175, 210, 245];
        assert_eq!(ids(&bench.of_account(ranged)), within);
        // Values that nothing has, and one that only other fields have.
        for nothing in [
            QueryFilter {
                user_data_128: 77,
                ..anything()
            },
            QueryFilter {
                user_data_64: 1111,
                ..anything()
            },
            QueryFilter {
                ledger: 2,
                ..anything()
            },
            QueryFilter {
                code: 77,
                ..anything()
            },
        ] {
            assert_eq!(bench.query(nothing), []);
        }
    }
}

#[test]
fn ranges_begin_and_end_at_the_edges_of_chunks() {
    let (mut bench, stored) = marked();
    let at = |row: usize| stored[row].timestamp;
    for restarted in [false, true] {
        if restarted {
            bench.restart();
        }
        for edge in [CHUNK, 2 * CHUNK, 9 * CHUNK, 10 * CHUNK] {
            for row in [edge - 1, edge, edge + 1] {
                let from = QueryFilter {
                    timestamp_min: at(row),
                    limit: 3,
                    ..anything()
                };
                assert_eq!(bench.query(from), stored[row..row + 3]);
                let after = QueryFilter {
                    timestamp_min: at(row) + 1,
                    ..from
                };
                assert_eq!(bench.query(after), stored[row + 1..row + 4]);
                let until = QueryFilter {
                    timestamp_min: 0,
                    timestamp_max: at(row),
                    flags: query_filter_flags::REVERSED,
                    ..from
                };
                let mut last: Vec<Transfer> = stored[row - 2..=row].to_vec();
                last.reverse();
                assert_eq!(bench.query(until), last);
                let before = QueryFilter {
                    timestamp_max: at(row) - 1,
                    ..until
                };
                let mut last: Vec<Transfer> = stored[row - 3..row].to_vec();
                last.reverse();
                assert_eq!(bench.query(before), last);
                let alone = QueryFilter {
                    timestamp_min: at(row),
                    timestamp_max: at(row),
                    ..anything()
                };
                assert_eq!(bench.query(alone), stored[row..=row]);
                let changes = bench.changes(ChangeEventsFilter {
                    timestamp_min: at(row),
                    timestamp_max: at(row + 1),
                    limit: 9,
                    ..ChangeEventsFilter::default()
                });
                let found: Vec<u128> = changes.iter().map(|change| change.transfer_id).collect();
                assert_eq!(found, [stored[row].id, stored[row + 1].id]);
            }
        }
        // A range between two transfers, and ones outside of all.
        for (timestamp_min, timestamp_max) in [
            (at(5) + 1, at(6) - 1),
            (1, at(0) - 1),
            (at(stored.len() - 1) + 1, 0),
        ] {
            let range = QueryFilter {
                timestamp_min,
                timestamp_max,
                ..anything()
            };
            assert!(timestamp_max == 0 || timestamp_min <= timestamp_max);
            assert_eq!(bench.query(range), []);
        }
    }
}

#[test]
fn pages_add_up_to_everything() {
    let (mut bench, stored) = marked();
    let of_three: Vec<Transfer> = stored
        .iter()
        .filter(|transfer| transfer.id.is_multiple_of(5))
        .copied()
        .collect();
    for limit in [1, 7, 32, 33, 64, 65] {
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        let mut filter = AccountFilter {
            limit,
            ..everything(3)
        };
        while let page = bench.of_account(filter)
            && let Some(last) = page.last()
        {
            assert!(page.len() <= limit as usize);
            filter.timestamp_min = last.timestamp + 1;
            forward.extend(page);
        }
        assert_eq!(forward, of_three);
        let mut filter = QueryFilter {
            limit,
            flags: query_filter_flags::REVERSED,
            ..anything()
        };
        while let page = bench.query(filter)
            && let Some(last) = page.last()
        {
            assert!(page.len() <= limit as usize);
            filter.timestamp_max = last.timestamp - 1;
            backward.extend(page);
        }
        backward.reverse();
        assert_eq!(backward, stored);
    }
}

/// Postings are kept by a part of the value's hash, so two values can have the same: the row decides.
#[test]
fn values_with_the_same_key_are_told_apart() {
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    let mut value = 0u64;
    let (one, other) = loop {
        value += 1;
        let key = u32::try_from(xxh3_64(&value.to_le_bytes()) & u64::from(u32::MAX)).unwrap();
        if let Some(one) = seen.insert(key, value) {
            break (one, value);
        }
    };
    let mut bench = Bench::with_accounts(2);
    for id in 1..=100 {
        let user_data_64 = [one, other, 0][usize::try_from(id % 3).unwrap()];
        bench.made(Transfer {
            user_data_64,
            ..transfer(id, 1)
        });
        let account = Account {
            user_data_64,
            ..account(1000 + id)
        };
        assert_eq!(bench.account(account), CreateAccountStatus::Created);
    }
    for restarted in [false, true] {
        if restarted {
            bench.restart();
        }
        for (user_data_64, rest) in [(one, 0), (other, 1)] {
            let filter = QueryFilter {
                user_data_64,
                limit: 20,
                ..anything()
            };
            let wanted: Vec<u128> = (1..=100).filter(|id| id % 3 == rest).take(20).collect();
            assert_eq!(ids(&bench.query(filter)), wanted);
            let accounts = bench.query_accounts(filter);
            let found: Vec<u128> = accounts.iter().map(|account| account.id - 1000).collect();
            assert_eq!(found, wanted);
        }
    }
}

#[test]
fn accounts_are_found_by_their_values_with_their_balances() {
    let mut bench = Bench::new();
    let mut stored = Vec::new();
    for id in 1..=200u128 {
        let event = Account {
            user_data_128: u128::MAX - id % 3,
            user_data_32: u32::from(id % 50 == 0),
            ledger: 1 + u32::from(id % 2 == 0),
            code: if id % 9 == 0 { u16::MAX } else { 1 },
            flags: if id % 4 == 0 {
                account_flags::HISTORY
            } else {
                0
            },
            ..account(id)
        };
        assert_eq!(bench.account(event), CreateAccountStatus::Created);
        stored.push(bench.lookup_accounts(&[id])[0]);
    }
    // Balances are those of now, in whatever chunk the account lies.
    bench.made(Transfer {
        debit_account_id: 1,
        credit_account_id: 199,
        ..transfer(1, 5)
    });
    stored[0].debits_posted = 5;
    stored[198].credits_posted = 5;
    for restarted in [false, true] {
        if restarted {
            bench.restart();
        }
        assert_eq!(bench.query_accounts(anything()), stored);
        let sparse = QueryFilter {
            user_data_128: u128::MAX - 1,
            code: u16::MAX,
            ..anything()
        };
        assert_eq!(bench.query_accounts(sparse), []);
        let sparse = QueryFilter {
            user_data_128: u128::MAX,
            ledger: 2,
            code: u16::MAX,
            flags: query_filter_flags::REVERSED,
            limit: 4,
            ..anything()
        };
        let found = bench.query_accounts(sparse);
        let found: Vec<u128> = found.iter().map(|account| account.id).collect();
        assert_eq!(found, [198, 180, 162, 144]);
        let ranged = QueryFilter {
            user_data_32: 1,
            timestamp_min: stored[50].timestamp,
            timestamp_max: stored[149].timestamp,
            ..anything()
        };
        assert_eq!(
            bench.query_accounts(ranged),
            [stored[99], stored[149]],
            "the ends belong to the range"
        );
    }
}

#[test]
fn an_empty_ledger_answers_with_nothing() {
    let mut bench = Bench::new();
    for round in 0..3 {
        let accounts = bench.query_accounts(anything()).len();
        assert_eq!(accounts, if round == 0 { 0 } else { 2 });
        assert_eq!(bench.query(anything()), []);
        assert_eq!(bench.of_account(everything(1)), []);
        assert_eq!(bench.balances_of(everything(2)), []);
        assert_eq!(bench.all_changes(), []);
        match round {
            0 => {
                let history = account_flags::HISTORY;
                bench.account(account(1));
                bench.account(Account {
                    flags: history,
                    ..account(2)
                });
            }
            1 => bench.restart(),
            _ => (),
        }
    }
}

#[test]
fn what_was_not_created_is_not_found() {
    let mut bench = Bench::with_accounts(2);
    let kept = bench.made(transfer(1, 1));
    // A chain longer than two chunks that breaks at its end.
    let count = CHUNK as u128 * 2 + 5;
    let mut chain: Vec<Transfer> = (100..100 + count)
        .map(|id| Transfer {
            flags: transfer_flags::LINKED,
            user_data_64: 9,
            ..transfer(id, 1)
        })
        .collect();
    chain.push(transfer(999, 0));
    chain.last_mut().unwrap().ledger = 2;
    let statuses = bench.transfers(&chain);
    assert!(!statuses.contains(&CreateTransferStatus::Created));
    // An id that failed for good is no transfer either.
    let lost = Transfer {
        debit_account_id: 7,
        user_data_64: 9,
        ..transfer(50, 1)
    };
    assert_eq!(
        bench.transfer(lost),
        CreateTransferStatus::DebitAccountNotFound
    );
    let after = bench.made(transfer(2, 2));
    for restarted in [false, true] {
        if restarted {
            bench.restart();
        }
        assert_eq!(bench.query(anything()), [kept, after]);
        assert_eq!(bench.of_account(everything(1)), [kept, after]);
        let marked = QueryFilter {
            user_data_64: 9,
            ..anything()
        };
        assert_eq!(bench.query(marked), []);
        let changes = bench.all_changes();
        let found: Vec<u128> = changes.iter().map(|change| change.transfer_id).collect();
        assert_eq!(found, [1, 2]);
        assert_eq!(changes[1].debit_account_debits_posted, 3);
    }
}

/// A bad value in each field, each reserved byte, each reserved flag: an empty answer, nothing else.
#[test]
fn each_invalid_filter_finds_nothing() {
    let mut bench = Bench::new();
    let history = account_flags::HISTORY;
    for id in [1, 2] {
        bench.account(Account {
            flags: history,
            ..account(id)
        });
    }
    let stamp = bench.made(transfer(1, 1)).timestamp;
    let ranges = [
        (1 << 63, 0),
        (u64::MAX, 0),
        (0, 1 << 63),
        (0, u64::MAX),
        (stamp, stamp - 1),
        (2, 1),
        ((1 << 63) - 1, (1 << 63) - 2),
    ];
    let valid = everything(1);
    let mut invalid = Vec::new();
    invalid.extend((3..32).map(|bit| AccountFilter {
        flags: valid.flags | 1 << bit,
        ..valid
    }));
    invalid.extend([0, 4].map(|flags| AccountFilter { flags, ..valid }));
    invalid.extend((0..58).map(|at| {
        let mut reserved = [0; 58];
        reserved[at] = 0x80;
        AccountFilter { reserved, ..valid }
    }));
    invalid.extend(ranges.map(|(timestamp_min, timestamp_max)| AccountFilter {
        timestamp_min,
        timestamp_max,
        ..valid
    }));
    // Zero, the largest, one that does not exist, and the transfer's limit of nothing.
    invalid.extend([0, u128::MAX, 3].map(everything));
    invalid.push(AccountFilter { limit: 0, ..valid });
    for filter in invalid {
        assert_eq!(bench.of_account(filter), [], "{filter:?}");
        assert_eq!(bench.balances_of(filter), [], "{filter:?}");
    }
    // A field that the transfer does not have is valid, and so is the widest range.
    let widest = AccountFilter {
        timestamp_min: 1,
        timestamp_max: (1 << 63) - 1,
        ..valid
    };
    assert_eq!(bench.of_account(widest).len(), 1);
    assert_eq!(bench.balances_of(widest).len(), 1);

    let valid = anything();
    let mut invalid = vec![QueryFilter { limit: 0, ..valid }];
    invalid.extend((1..32).map(|bit| QueryFilter {
        flags: 1 << bit,
        ..valid
    }));
    invalid.extend((0..6).map(|at| {
        let mut reserved = [0; 6];
        reserved[at] = 1;
        QueryFilter { reserved, ..valid }
    }));
    invalid.extend(ranges.map(|(timestamp_min, timestamp_max)| QueryFilter {
        timestamp_min,
        timestamp_max,
        ..valid
    }));
    for filter in invalid {
        assert_eq!(bench.query(filter), [], "{filter:?}");
        assert_eq!(bench.query_accounts(filter), [], "{filter:?}");
    }
    let widest = QueryFilter {
        timestamp_min: 1,
        timestamp_max: (1 << 63) - 1,
        ..valid
    };
    assert_eq!(bench.query(widest).len(), 1);
    assert_eq!(bench.query_accounts(widest).len(), 2);

    let valid = ChangeEventsFilter {
        limit: 9,
        ..ChangeEventsFilter::default()
    };
    let mut invalid = vec![ChangeEventsFilter { limit: 0, ..valid }];
    invalid.extend((0..44).map(|at| {
        let mut reserved = [0; 44];
        reserved[at] = 1;
        ChangeEventsFilter { reserved, ..valid }
    }));
    invalid.extend(
        ranges.map(|(timestamp_min, timestamp_max)| ChangeEventsFilter {
            timestamp_min,
            timestamp_max,
            ..valid
        }),
    );
    for filter in invalid {
        assert_eq!(bench.changes(filter), [], "{filter:?}");
    }
    assert_eq!(bench.changes(valid).len(), 1);
}

#[test]
fn more_than_a_reply_holds_is_cut_off() {
    let mut bench = Bench::new();
    let history = account_flags::HISTORY;
    bench.accounts(&[
        Account {
            flags: history,
            ..account(1)
        },
        account(2),
    ]);
    for round in 0..2u128 {
        let events: Vec<Transfer> = (0..4500)
            .map(|n| transfer(round * 4500 + n + 1, 1))
            .collect();
        bench.transfers(&events);
        let events: Vec<Account> = (0..4500).map(|n| account(round * 4500 + n + 3)).collect();
        bench.accounts(&events);
    }
    for limit in [8190, 8191, u32::MAX] {
        let filter = AccountFilter {
            limit,
            ..everything(1)
        };
        let transfers: Vec<Transfer> = bench.ask(Operation::GetAccountTransfers, filter);
        assert_eq!((transfers.len(), transfers[8188].id), (8189, 8189));
        let transfers: Vec<Transfer> = bench.ask(Operation::GetAccountTransfersUnbatched, filter);
        assert_eq!((transfers.len(), transfers[8189].id), (8190, 8190));
        let balances: Vec<AccountBalance> = bench.ask(Operation::GetAccountBalances, filter);
        assert_eq!((balances.len(), balances[8188].debits_posted), (8189, 8189));
        let balances: Vec<AccountBalance> =
            bench.ask(Operation::GetAccountBalancesUnbatched, filter);
        assert_eq!((balances.len(), balances[8189].debits_posted), (8190, 8190));
        let filter = QueryFilter {
            limit,
            flags: query_filter_flags::REVERSED,
            ..anything()
        };
        let accounts: Vec<Account> = bench.ask(Operation::QueryAccounts, filter);
        assert_eq!((accounts.len(), accounts[0].id), (8189, 9002));
        let accounts: Vec<Account> = bench.ask(Operation::QueryAccountsUnbatched, filter);
        assert_eq!((accounts.len(), accounts[8189].id), (8190, 813));
        let transfers: Vec<Transfer> = bench.ask(Operation::QueryTransfers, filter);
        assert_eq!((transfers.len(), transfers[0].id), (8189, 9000));
    }
    for (limit, count) in [(2729, 2729), (2730, 2730), (2731, 2730), (u32::MAX, 2730)] {
        let changes = bench.changes(ChangeEventsFilter {
            limit,
            ..ChangeEventsFilter::default()
        });
        assert_eq!(changes.len(), count);
        let last = changes.last().unwrap();
        assert_eq!(last.transfer_id, count as u128);
        assert_eq!(last.credit_account_credits_posted, count as u128);
    }
}

#[test]
fn each_batch_of_a_message_has_its_own_answer() {
    let (mut bench, stored) = marked();
    let filters = [
        AccountFilter {
            limit: 2,
            ..everything(3)
        },
        // Invalid, and yet its limit counts towards the reply's size.
        AccountFilter {
            flags: 0,
            ..everything(1)
        },
        AccountFilter {
            limit: 0,
            ..everything(1)
        },
        AccountFilter {
            limit: 1,
            flags: filter_flags::DEBITS | filter_flags::REVERSED,
            ..everything(1)
        },
    ]
    .map(|filter| AccountFilter {
        limit: filter.limit.min(8000),
        ..filter
    });
    let operation = Operation::GetAccountTransfers;
    let batches = filters.map(|filter| vec![filter]);
    let reply = bench.run(operation, 0, &encode(operation, &batches));
    let found: Vec<Vec<Transfer>> = decode(operation, &reply);
    let last = stored[335];
    assert_eq!(last.debit_account_id, 1);
    assert_eq!(
        found,
        [vec![stored[4], stored[9]], vec![], vec![], vec![last]]
    );
}
