//! Queries against what was seen when it happened.
//!
//! A [`Recorder`] makes one event at a time and looks at its accounts right afterwards, so it knows every
//! change event, and with them every answer, without computing a balance. What it knows is compared with
//! the ledger's answers, chunk ends, broken chains, checkpoints and restarts between.

use std::collections::BTreeMap;

use stampede_client::wire::multibatch::{encode_trailer, trailer_size};
use stampede_client::wire::record::{
    account_filter_flags, account_flags, change_event_type, transfer_flags,
};
use stampede_client::wire::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateTransferStatus,
    Operation, QueryFilter, Transfer,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Bench, Body, OPTIONS, account, decode, encode, pending, post, transfer, void};
use crate::machine::Machine;
use crate::machine::ledger::{Ledger, LedgerOptions, PULSE_EVENTS_MAX};
use crate::store::{Manifest, MemoryStorage, write_checkpoint};

/// Reproducible numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

impl Bench {
    fn with_chunks(chunk_rows_log2: u32) -> Self {
        let mut bench = Self::new();
        bench.ledger = Ledger::new(LedgerOptions {
            chunk_rows_log2,
            ..OPTIONS
        });
        bench
    }

    pub(super) fn ask<F: IntoBytes + Immutable, R: FromBytes + Clone>(
        &mut self,
        operation: Operation,
        filter: F,
    ) -> Vec<R> {
        let reply = self.run(operation, 0, &encode(operation, &[vec![filter]]));
        decode(operation, &reply).remove(0)
    }
}

struct Recorder {
    bench: Bench,
    random: Random,
    storage: MemoryStorage,
    accounts: u64,
    next_id: u128,
    /// In the order in which they happened.
    events: Vec<ChangeEvent>,
    transfers: Vec<Transfer>,
    /// Unresolved, with their expiry.
    waiting: BTreeMap<u128, u64>,
}

impl Recorder {
    fn new(seed: u64, chunk_rows_log2: u32, accounts: u64) -> Self {
        let mut bench = Bench::with_chunks(chunk_rows_log2);
        let events: Vec<Account> = (1..=accounts)
            .map(|number| Account {
                user_data_64: number % 3,
                user_data_32: u32::try_from(number).unwrap() % 2,
                code: u16::try_from(1 + number % 4).unwrap(),
                flags: if number % 2 == 0 {
                    account_flags::HISTORY
                } else {
                    0
                },
                ..account(number.into())
            })
            .collect();
        bench.accounts(&events);
        Self {
            bench,
            random: Random(seed),
            storage: MemoryStorage::default(),
            accounts,
            next_id: 1,
            events: Vec::new(),
            transfers: Vec::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn parties(&mut self) -> (u128, u128) {
        // Account 2 is in every second transfer.
        let first = if self.random.below(2) == 0 {
            2
        } else {
            1 + self.random.below(self.accounts)
        };
        let second = 1 + (first + self.random.below(self.accounts - 1)) % self.accounts;
        let (first, second) = (first.into(), second.into());
        if self.random.below(2) == 0 {
            (first, second)
        } else {
            (second, first)
        }
    }

    fn event(&mut self) -> Transfer {
        let id = self.next_id;
        self.next_id += 1;
        let (debit_account_id, credit_account_id) = self.parties();
        let of_pending = |random: &mut Random, waiting: &BTreeMap<u128, u64>| {
            let index = random.below(waiting.len().max(1) as u64);
            let index = usize::try_from(index).unwrap();
            waiting.keys().nth(index).copied().unwrap_or(99_999)
        };
        let amount = u128::from(self.random.below(1000));
        let plain = match self.random.below(10) {
            0..3 => transfer(id, amount << self.random.below(70)),
            3..6 => Transfer {
                timeout: u32::try_from(self.random.below(4)).unwrap(),
                flags: transfer_flags::PENDING
                    | if self.random.below(12) == 0 {
                        transfer_flags::CLOSING_DEBIT
                    } else {
                        0
                    },
                ..pending(id, amount)
            },
            6..8 => {
                let amount = if self.random.below(2) == 0 {
                    u128::MAX
                } else {
                    amount / 2
                };
                let event = post(id, of_pending(&mut self.random, &self.waiting), amount);
                return event;
            }
            _ => return void(id, of_pending(&mut self.random, &self.waiting)),
        };
        Transfer {
            debit_account_id,
            credit_account_id,
            user_data_128: u128::from(self.random.below(3)),
            user_data_64: self.random.below(40) / 39,
            user_data_32: u32::try_from(self.random.below(100)).unwrap(),
            code: u16::try_from(1 + self.random.below(2)).unwrap(),
            ..plain
        }
    }

    fn look(&mut self, id: u128) -> Account {
        self.bench.lookup_accounts(&[id])[0]
    }

    fn record(&mut self, transfer: &Transfer, kind: u8, timestamp: u64) {
        let debit = self.look(transfer.debit_account_id);
        let credit = self.look(transfer.credit_account_id);
        assert_eq!((debit.reserved, credit.reserved), (0, 0));
        self.events
            .push(change(transfer, kind, timestamp, &debit, &credit));
    }

    fn one(&mut self) {
        let event = self.event();
        self.make(event);
    }

    fn make(&mut self, event: Transfer) {
        if self.bench.transfer(event) != CreateTransferStatus::Created {
            return;
        }
        let stored = self.bench.lookup_transfers(&[event.id])[0];
        let kind = match event.flags & 14 {
            transfer_flags::PENDING => change_event_type::TWO_PHASE_PENDING,
            transfer_flags::POST_PENDING_TRANSFER => change_event_type::TWO_PHASE_POSTED,
            transfer_flags::VOID_PENDING_TRANSFER => change_event_type::TWO_PHASE_VOIDED,
            _ => change_event_type::SINGLE_PHASE,
        };
        self.record(&stored, kind, stored.timestamp);
        self.transfers.push(stored);
        if kind == change_event_type::TWO_PHASE_PENDING {
            let expiry = stored.timestamp + u64::from(stored.timeout) * 1_000_000_000;
            let expiry = if stored.timeout == 0 {
                u64::MAX
            } else {
                expiry
            };
            self.waiting.insert(stored.id, expiry);
        } else {
            self.waiting.remove(&stored.pending_id);
        }
    }

    /// A chain that is long, perhaps longer than a chunk, and breaks at its end.
    fn broken_chain(&mut self) {
        let count = 1 + self.random.below(70);
        let mut events: Vec<Transfer> = (0..count).map(|_| self.event()).collect();
        events.push(transfer(0, 1));
        let last = events.len() - 1;
        events[..last]
            .iter_mut()
            .for_each(|event| event.flags |= transfer_flags::LINKED);
        let statuses = self.bench.transfers(&events);
        assert!(!statuses.contains(&CreateTransferStatus::Created));
    }

    /// Expires one pending transfer after the other.
    fn expire(&mut self) {
        self.bench.wait_seconds(1);
        let now = self.bench.clock + 1 + u64::from(PULSE_EVENTS_MAX);
        let mut due: Vec<(u64, u128)> = self
            .waiting
            .iter()
            .filter(|(_, expiry)| **expiry <= now)
            .map(|(id, expiry)| (*expiry, *id))
            .collect();
        due.sort_unstable();
        // What the accounts had before all of them; what the pulse does is done again one by one.
        let mut accounts: BTreeMap<u128, Account> = BTreeMap::new();
        let pendings: Vec<Transfer> = due
            .iter()
            .map(|(_, id)| self.bench.lookup_transfers(&[*id])[0])
            .collect();
        for pending in &pendings {
            for id in [pending.debit_account_id, pending.credit_account_id] {
                let account = self.look(id);
                accounts.insert(id, account);
            }
        }
        self.bench.pulse();
        let first = self.bench.clock + 1 - due.len() as u64;
        for (timestamp, pending) in (first..).zip(&pendings) {
            self.waiting.remove(&pending.id);
            let debit = accounts.get_mut(&pending.debit_account_id).unwrap();
            debit.debits_pending -= pending.amount;
            if pending.flags & transfer_flags::CLOSING_DEBIT != 0 {
                debit.flags &= !account_flags::CLOSED;
            }
            let credit = accounts.get_mut(&pending.credit_account_id).unwrap();
            credit.credits_pending -= pending.amount;
            let (debit, credit) = (
                accounts[&pending.debit_account_id],
                accounts[&pending.credit_account_id],
            );
            let kind = change_event_type::TWO_PHASE_EXPIRED;
            self.events
                .push(change(pending, kind, timestamp, &debit, &credit));
        }
        for (id, account) in accounts {
            assert_eq!(self.look(id), account);
        }
    }

    /// An imported transfer, earlier than all that happened since the last one.
    fn import(&mut self) {
        let last = self.transfers.last().map_or(0, |last| last.timestamp);
        let created = self.look(self.accounts.into()).timestamp;
        let event = Transfer {
            flags: transfer_flags::IMPORTED,
            timestamp: last.max(created) + 1 + self.random.below(3),
            ..self.event()
        };
        if event.pending_id == 0 {
            self.make(Transfer {
                timeout: 0,
                ..event
            });
        }
    }

    fn checkpoint(&mut self, restore: bool) {
        let op = self.bench.op;
        let mut snapshot = self.bench.ledger.whole_snapshot(op);
        let size = snapshot.size();
        let before = self.storage.bytes_written();
        let reference = write_checkpoint(&mut self.storage, op, &mut *snapshot, b"").unwrap();
        let written = self.storage.bytes_written() - before;
        // What it estimates is what it writes, but for whole sectors.
        assert!(
            written >= size && written < size + size / 4 + (1 << 20),
            "{size} {written}"
        );
        let digest = self.bench.ledger.digest();
        self.bench.ledger.published(op);
        assert_eq!(self.bench.ledger.digest(), digest);
        let files = Manifest::open(&self.storage, &reference).unwrap().files;
        let restored = Ledger::default().restore(&self.storage, &files).unwrap();
        assert_eq!(restored.digest(), digest);
        if restore {
            self.bench.ledger = restored;
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below(60) {
                0 => self.broken_chain(),
                1..3 => self.expire(),
                3 => self.checkpoint(false),
                4 => self.checkpoint(true),
                5..8 => self.import(),
                _ => self.one(),
            }
            if self.random.below(100) == 0 {
                self.compare();
            }
        }
        self.compare();
    }

    fn timestamp(&mut self) -> u64 {
        match self.random.below(4) {
            0 => 0,
            1 => self.bench.clock,
            _ => {
                let index = self.random.below(self.events.len().max(1) as u64);
                let index = usize::try_from(index).unwrap();
                let near = self.events.get(index).map_or(7, |event| event.timestamp);
                near - 1 + self.random.below(3)
            }
        }
    }

    fn range(&mut self) -> (u64, u64) {
        let (a, b) = (self.timestamp(), self.timestamp());
        if b == 0 { (a, b) } else { (a.min(b), a.max(b)) }
    }

    fn compare(&mut self) {
        for _ in 0..4 {
            self.compare_change_events();
            self.compare_account();
            self.compare_transfers();
            self.compare_accounts();
        }
    }

    fn compare_change_events(&mut self) {
        let (timestamp_min, timestamp_max) = self.range();
        let limit = u32::try_from(1 + self.random.below(80)).unwrap();
        let filter = ChangeEventsFilter {
            timestamp_min,
            timestamp_max,
            limit,
            ..ChangeEventsFilter::default()
        };
        let mut expected = self.events.clone();
        expected.retain(|event| {
            event.timestamp >= timestamp_min
                && (timestamp_max == 0 || event.timestamp <= timestamp_max)
        });
        expected.sort_by_key(|event| event.timestamp);
        expected.truncate(limit as usize);
        let found: Vec<ChangeEvent> = self.bench.ask(Operation::GetChangeEvents, filter);
        assert_eq!(found, expected, "{filter:?}");
    }

    fn compare_account(&mut self) {
        let (timestamp_min, timestamp_max) = self.range();
        let filter = AccountFilter {
            account_id: if self.random.below(2) == 0 {
                2
            } else {
                (1 + self.random.below(self.accounts)).into()
            },
            user_data_128: u128::from(self.random.below(4) / 2),
            user_data_64: self.random.below(8) / 7,
            user_data_32: u32::try_from(self.random.below(200).saturating_sub(150)).unwrap(),
            code: u16::try_from(self.random.below(6) / 2).unwrap(),
            timestamp_min,
            timestamp_max,
            limit: u32::try_from(1 + self.random.below(50)).unwrap(),
            flags: u32::try_from(1 + self.random.below(7)).unwrap(),
            ..AccountFilter::default()
        };
        let (debits, credits) = (
            filter.flags & account_filter_flags::DEBITS != 0,
            filter.flags & account_filter_flags::CREDITS != 0,
        );
        let id = filter.account_id;
        let is_wanted = |t: &Transfer| {
            (debits && t.debit_account_id == id || credits && t.credit_account_id == id)
                && (filter.user_data_128 == 0 || filter.user_data_128 == t.user_data_128)
                && (filter.user_data_64 == 0 || filter.user_data_64 == t.user_data_64)
                && (filter.user_data_32 == 0 || filter.user_data_32 == t.user_data_32)
                && (filter.code == 0 || filter.code == t.code)
                && t.timestamp >= timestamp_min
                && (timestamp_max == 0 || t.timestamp <= timestamp_max)
        };
        let mut expected: Vec<Transfer> = self
            .transfers
            .iter()
            .filter(|t| is_wanted(t))
            .copied()
            .collect();
        if filter.flags & account_filter_flags::REVERSED != 0 {
            expected.reverse();
        }
        expected.truncate(filter.limit as usize);
        if !debits && !credits {
            expected.clear();
        }
        let found: Vec<Transfer> = self.bench.ask(Operation::GetAccountTransfers, filter);
        assert_eq!(found, expected, "{filter:?}");
        let found: Vec<Transfer> = self
            .bench
            .ask(Operation::GetAccountTransfersUnbatched, filter);
        assert_eq!(found, expected, "{filter:?}");

        let history = self.look(id).flags & account_flags::HISTORY != 0;
        let balances: Vec<AccountBalance> = expected
            .iter()
            .filter(|_| history)
            .map(|t| {
                let event = self.events.iter().find(|event| {
                    event.timestamp == t.timestamp
                        && event.transfer_id == t.id
                        && event.kind != change_event_type::TWO_PHASE_EXPIRED
                });
                balance_of(event.unwrap(), id)
            })
            .collect();
        let found: Vec<AccountBalance> = self.bench.ask(Operation::GetAccountBalances, filter);
        assert_eq!(found, balances, "{filter:?}");
    }

    fn query_filter(&mut self) -> QueryFilter {
        let (timestamp_min, timestamp_max) = self.range();
        QueryFilter {
            user_data_128: u128::from(self.random.below(4) / 2),
            user_data_64: self.random.below(4) / 2,
            user_data_32: u32::try_from(self.random.below(100) / 50).unwrap(),
            ledger: u32::try_from(self.random.below(10) / 4).unwrap(),
            code: u16::try_from(self.random.below(6) / 2).unwrap(),
            timestamp_min,
            timestamp_max,
            limit: u32::try_from(1 + self.random.below(50)).unwrap(),
            flags: u32::try_from(self.random.below(2)).unwrap(),
            ..QueryFilter::default()
        }
    }

    fn compare_transfers(&mut self) {
        let filter = self.query_filter();
        let mut expected = self.transfers.clone();
        expected.retain(|t| {
            (filter.user_data_128 == 0 || filter.user_data_128 == t.user_data_128)
                && (filter.user_data_64 == 0 || filter.user_data_64 == t.user_data_64)
                && (filter.user_data_32 == 0 || filter.user_data_32 == t.user_data_32)
                && (filter.ledger == 0 || filter.ledger == t.ledger)
                && (filter.code == 0 || filter.code == t.code)
                && t.timestamp >= filter.timestamp_min
                && (filter.timestamp_max == 0 || t.timestamp <= filter.timestamp_max)
        });
        if filter.flags != 0 {
            expected.reverse();
        }
        expected.truncate(filter.limit as usize);
        let found: Vec<Transfer> = self.bench.ask(Operation::QueryTransfers, filter);
        assert_eq!(found, expected, "{filter:?}");
    }

    fn compare_accounts(&mut self) {
        let filter = self.query_filter();
        let ids: Vec<u128> = (1..=u128::from(self.accounts)).collect();
        let mut expected = self.bench.lookup_accounts(&ids);
        expected.retain(|a| {
            (filter.user_data_128 == 0 || filter.user_data_128 == a.user_data_128)
                && (filter.user_data_64 == 0 || filter.user_data_64 == a.user_data_64)
                && (filter.user_data_32 == 0 || filter.user_data_32 == a.user_data_32)
                && (filter.ledger == 0 || filter.ledger == a.ledger)
                && (filter.code == 0 || filter.code == a.code)
                && a.timestamp >= filter.timestamp_min
                && (filter.timestamp_max == 0 || a.timestamp <= filter.timestamp_max)
        });
        if filter.flags != 0 {
            expected.reverse();
        }
        expected.truncate(filter.limit as usize);
        let found: Vec<Account> = self.bench.ask(Operation::QueryAccounts, filter);
        assert_eq!(found, expected, "{filter:?}");
    }
}

fn change(
    transfer: &Transfer,
    kind: u8,
    timestamp: u64,
    debit: &Account,
    credit: &Account,
) -> ChangeEvent {
    ChangeEvent {
        transfer_id: transfer.id,
        transfer_amount: transfer.amount,
        transfer_pending_id: transfer.pending_id,
        transfer_user_data_128: transfer.user_data_128,
        transfer_user_data_64: transfer.user_data_64,
        transfer_user_data_32: transfer.user_data_32,
        transfer_timeout: transfer.timeout,
        transfer_code: transfer.code,
        transfer_flags: transfer.flags,
        ledger: transfer.ledger,
        kind,
        reserved: [0; 39],
        debit_account_id: debit.id,
        debit_account_debits_pending: debit.debits_pending,
        debit_account_debits_posted: debit.debits_posted,
        debit_account_credits_pending: debit.credits_pending,
        debit_account_credits_posted: debit.credits_posted,
        debit_account_user_data_128: debit.user_data_128,
        debit_account_user_data_64: debit.user_data_64,
        debit_account_user_data_32: debit.user_data_32,
        debit_account_code: debit.code,
        debit_account_flags: debit.flags,
        credit_account_id: credit.id,
        credit_account_debits_pending: credit.debits_pending,
        credit_account_debits_posted: credit.debits_posted,
        credit_account_credits_pending: credit.credits_pending,
        credit_account_credits_posted: credit.credits_posted,
        credit_account_user_data_128: credit.user_data_128,
        credit_account_user_data_64: credit.user_data_64,
        credit_account_user_data_32: credit.user_data_32,
        credit_account_code: credit.code,
        credit_account_flags: credit.flags,
        timestamp,
        transfer_timestamp: transfer.timestamp,
        debit_account_timestamp: debit.timestamp,
        credit_account_timestamp: credit.timestamp,
    }
}

fn balance_of(event: &ChangeEvent, id: u128) -> AccountBalance {
    let (debits_pending, debits_posted, credits_pending, credits_posted) =
        if event.debit_account_id == id {
            (
                event.debit_account_debits_pending,
                event.debit_account_debits_posted,
                event.debit_account_credits_pending,
                event.debit_account_credits_posted,
            )
        } else {
            (
                event.credit_account_debits_pending,
                event.credit_account_debits_posted,
                event.credit_account_credits_pending,
                event.credit_account_credits_posted,
            )
        };
    AccountBalance {
        debits_pending,
        debits_posted,
        credits_pending,
        credits_posted,
        timestamp: event.timestamp,
        ..AccountBalance::default()
    }
}

#[test]
fn answers_are_what_was_seen() {
    for seed in 0..12 {
        // Chunks of 16, 32 and 64 rows; few accounts, and more than a chunk of them.
        let accounts = [5, 40][usize::try_from(seed % 2).unwrap()];
        let chunk_rows_log2 = 4 + u32::try_from(seed % 3).unwrap();
        let mut recorder = Recorder::new(seed, chunk_rows_log2, accounts);
        recorder.run(700);
        assert!(recorder.bench.ledger.books.history.periods.len() > 5);
        assert!(recorder.transfers.len() > 300);
    }
}

#[test]
fn periods_end_with_chunks_of_expiries_too() {
    // Sixteen rows a chunk: most expire, and nothing else happens meanwhile.
    let mut recorder = Recorder::new(77, 4, 4);
    for round in 0..40 {
        for _ in 0..10 {
            let (debit_account_id, credit_account_id) = recorder.parties();
            let id = recorder.next_id;
            recorder.next_id += 1;
            recorder.make(Transfer {
                debit_account_id,
                credit_account_id,
                timeout: 1 + u32::try_from(round % 3).unwrap(),
                ..pending(id, id)
            });
        }
        if round % 4 == 3 {
            (0..3).for_each(|_| recorder.expire());
        }
        if round % 7 == 6 {
            recorder.checkpoint(round % 2 == 0);
        }
        recorder.compare();
    }
    let books = &recorder.bench.ledger.books;
    assert!(books.expired.chunks_full() > 10);
    let full = books.expired.chunks_full() + books.transfers.chunks_full();
    assert_eq!(books.history.number_open(), full);
}

#[test]
fn an_expiry_belongs_to_the_period_after_a_full_chunk() {
    let mut recorder = Recorder::new(3, 4, 2);
    for id in 1..=16 {
        recorder.make(Transfer {
            timeout: 1,
            ..pending(id, 10)
        });
    }
    assert_eq!(recorder.bench.ledger.books.history.periods.len(), 1);
    recorder.expire();
    recorder.expire();
    // Sixteen expiries are a chunk as well.
    let ends: Vec<(u32, u32)> = recorder
        .bench
        .ledger
        .books
        .history
        .periods
        .iter()
        .map(|period| (period.end.transfers, period.end.expired))
        .collect();
    assert_eq!(ends, [(16, 0), (16, 16)]);
    recorder.compare();
    recorder.make(transfer(17, 5));
    recorder.checkpoint(true);
    recorder.make(transfer(18, 5));
    recorder.compare();
}

#[test]
fn invalid_filters_find_nothing() {
    let mut bench = Bench::with_accounts(2);
    bench.transfer(transfer(1, 5));
    let valid = AccountFilter {
        account_id: 1,
        limit: 10,
        flags: 3,
        ..AccountFilter::default()
    };
    let mut ask = |filter: AccountFilter| {
        let found: Vec<Transfer> = bench.ask(Operation::GetAccountTransfers, filter);
        found.len()
    };
    assert_eq!(ask(valid), 1);
    let mut reserved = [0; 58];
    reserved[57] = 1;
    for invalid in [
        AccountFilter {
            account_id: 0,
            ..valid
        },
        AccountFilter {
            account_id: u128::MAX,
            ..valid
        },
        AccountFilter {
            account_id: 3,
            ..valid
        },
        AccountFilter { limit: 0, ..valid },
        AccountFilter { flags: 0, ..valid },
        AccountFilter { flags: 4, ..valid },
        AccountFilter {
            flags: 8 | 3,
            ..valid
        },
        AccountFilter { reserved, ..valid },
        AccountFilter {
            timestamp_min: 1 << 63,
            ..valid
        },
        AccountFilter {
            timestamp_max: u64::MAX,
            ..valid
        },
        AccountFilter {
            timestamp_min: 5,
            timestamp_max: 4,
            ..valid
        },
    ] {
        assert_eq!(ask(invalid), 0, "{invalid:?}");
    }
    let valid = QueryFilter {
        limit: 1,
        ..QueryFilter::default()
    };
    let mut ask = |filter: QueryFilter| {
        let transfers: Vec<Transfer> = bench.ask(Operation::QueryTransfers, filter);
        let accounts: Vec<Account> = bench.ask(Operation::QueryAccounts, filter);
        (transfers.len(), accounts.len())
    };
    assert_eq!(ask(valid), (1, 1));
    for invalid in [
        QueryFilter { limit: 0, ..valid },
        QueryFilter { flags: 2, ..valid },
        QueryFilter {
            reserved: [0, 0, 0, 0, 0, 9],
            ..valid
        },
        QueryFilter {
            timestamp_min: u64::MAX,
            ..valid
        },
        QueryFilter {
            timestamp_min: 9,
            timestamp_max: 8,
            ..valid
        },
    ] {
        assert_eq!(ask(invalid), (0, 0), "{invalid:?}");
    }
    let valid = ChangeEventsFilter {
        limit: 9,
        ..ChangeEventsFilter::default()
    };
    let mut reserved = [0; 44];
    reserved[0] = 1;
    let mut ask = |filter: ChangeEventsFilter| {
        let found: Vec<ChangeEvent> = bench.ask(Operation::GetChangeEvents, filter);
        found.len()
    };
    assert_eq!(ask(valid), 1);
    for invalid in [
        ChangeEventsFilter { limit: 0, ..valid },
        ChangeEventsFilter { reserved, ..valid },
        ChangeEventsFilter {
            timestamp_min: 1 << 63,
            ..valid
        },
        ChangeEventsFilter {
            timestamp_min: 2,
            timestamp_max: 1,
            ..valid
        },
    ] {
        assert_eq!(ask(invalid), 0, "{invalid:?}");
    }
}

#[test]
fn several_queries_in_one_message() {
    let mut bench = Bench::with_accounts(3);
    (1..=100).for_each(|id| {
        bench.transfer(transfer(id, 5));
    });
    let operation = Operation::GetAccountTransfers;
    let filter = |account_id, limit| AccountFilter {
        account_id,
        limit,
        flags: 3,
        ..AccountFilter::default()
    };
    let filters = [filter(1, 4000), filter(3, 9), filter(2, 7), filter(0, 50)];
    let mut bytes = filters.as_bytes().to_vec();
    let payload = bytes.len();
    bytes.resize(payload + trailer_size(AccountFilter::SIZE, 4), 0);
    encode_trailer(
        &mut bytes,
        payload,
        AccountFilter::SIZE,
        [1u16; 4].into_iter(),
    );
    let reply = bench.run(operation, 0, &Body::of(&bytes));
    let found = decode::<Transfer>(operation, &reply);
    let counts: Vec<usize> = found.iter().map(Vec::len).collect();
    assert_eq!(counts, [100, 0, 7, 0]);
}

#[test]
fn limits_are_capped() {
    let mut bench = Bench::with_accounts(2);
    for round in 0..3u128 {
        let events: Vec<Transfer> = (1..=4000)
            .map(|id| transfer(round * 4000 + id, 1))
            .collect();
        bench.transfers(&events);
    }
    let query = QueryFilter {
        limit: u32::MAX,
        ..QueryFilter::default()
    };
    let found: Vec<Transfer> = bench.ask(Operation::QueryTransfers, query);
    assert_eq!(found.len(), 8189);
    let found: Vec<Transfer> = bench.ask(Operation::QueryTransfersUnbatched, query);
    assert_eq!(found.len(), 8190);
    let changes = ChangeEventsFilter {
        limit: u32::MAX,
        ..ChangeEventsFilter::default()
    };
    let found: Vec<ChangeEvent> = bench.ask(Operation::GetChangeEvents, changes);
    assert_eq!(found.len(), 2730);
}
