//! Whole histories against the model: every reply, every record, and a second machine.
//!
//! ```text
//!   creates ── waits, pulses, eras ── queries ── checkpoint, publish, restore ── creates ── …
//! ```
//!
//! Events meet each other: duplicates, pendings resolved twice or an era later, chains that break late,
//! limits that bite. Between operations the ledger is checkpointed and restored; the restored machine and
//! one that was never restored must agree, in replies and in files. In the end everything is asked for.

mod creates;
mod filters;

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{TestError, TestRunner};
use stampede_client::wire::operation::{Form, Kind, Operation};
use stampede_client::wire::record::account_filter_flags::{CREDITS, DEBITS};
use stampede_client::wire::{
    Account, AccountFilter, ChangeEventsFilter, CreateResult, QueryFilter, Transfer,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use self::creates::{Draft, account, account_id, batches, in_era, transfer, transfer_id};
use self::filters::{Filter, Ranged, account_filters, change_events_filter, query_filters};
use super::model::Model;
use super::{Bench, Body, OPTIONS, decode, encode, sparse};
use crate::machine::Machine;
use crate::machine::ledger::Ledger;
use crate::store::{
    FilterMaker, Manifest, ManifestRef, MemoryStorage, Snapshot, sweep, write_checkpoint,
};

/// Most results of a batch, of a lone filter, and of change events.
const BATCH_CAP: usize = 8189;
const UNBATCHED_CAP: usize = 8190;
const CHANGE_EVENTS_CAP: usize = 2730;

/// A timestamp, perhaps one that only the history can tell.
#[derive(Debug, Clone, Copy)]
enum Stamp {
    Given(u64),
    /// What something has, less one, and so much more.
    Near(Index, u64),
    /// So much more than the last of its kind.
    Later(u64),
}

#[derive(Debug, Clone)]
enum Step {
    Accounts(Form, Vec<Vec<Draft<Account>>>),
    Transfers(Form, Vec<Vec<Draft<Transfer>>>),
    LookupAccounts(Vec<u128>),
    LookupTransfers(Vec<u128>),
    AccountTransfers(Form, Vec<Ranged<AccountFilter>>),
    AccountBalances(Form, Vec<Ranged<AccountFilter>>),
    QueryAccounts(Form, Vec<Ranged<QueryFilter>>),
    QueryTransfers(Form, Vec<Ranged<QueryFilter>>),
    ChangeEvents(Ranged<ChangeEventsFilter>),
    Wait(u64),
    Pulse,
    /// From here on pending transfers have other ids.
    Era,
    Checkpoint {
        publish: bool,
        restore: bool,
    },
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![8 => Just(Form::Batched), 1 => Just(Form::Sparse), 1 => Just(Form::Unbatched)]
}

fn query_form() -> impl Strategy<Value = Form> {
    prop_oneof![4 => Just(Form::Batched), 1 => Just(Form::Unbatched)]
}

fn step(transfers_max: usize) -> impl Strategy<Value = Step> {
    let create = prop_oneof![
        3 => (form(), batches(account, 10)).prop_map(|(form, batches)| Step::Accounts(form, batches)),
        14 => (form(), batches(transfer, transfers_max))
            .prop_map(|(form, batches)| Step::Transfers(form, batches)),
    ];
    let read = prop_oneof![
        1 => prop::collection::vec(account_id(), 0..20).prop_map(Step::LookupAccounts),
        1 => prop::collection::vec(transfer_id(), 0..20).prop_map(Step::LookupTransfers),
        3 => (query_form(), account_filters()).prop_map(|(form, f)| Step::AccountTransfers(form, f)),
        3 => (query_form(), account_filters()).prop_map(|(form, f)| Step::AccountBalances(form, f)),
        2 => (query_form(), query_filters()).prop_map(|(form, f)| Step::QueryAccounts(form, f)),
        3 => (query_form(), query_filters()).prop_map(|(form, f)| Step::QueryTransfers(form, f)),
        3 => change_events_filter().prop_map(Step::ChangeEvents),
    ];
    let between = prop_oneof![
        4 => prop_oneof![0u64..4_000_000_000, 0u64..2000].prop_map(Step::Wait),
        2 => Just(Step::Pulse),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(publish, restore)| Step::Checkpoint { publish, restore }),
    ];
    prop_oneof![17 => create, 10 => read, 8 => between, 6 => Just(Step::Era)]
}

struct World {
    bench: Bench,
    /// Of its filter; works every other step, so that it is behind now and then.
    maker: FilterMaker,
    /// Never restored, and captured at once.
    plain: Ledger,
    model: Model,
    storage: MemoryStorage,
    plain_storage: MemoryStorage,
    under_way: Option<UnderWay>,
    era: u128,
    counts: Counts,
}

/// A checkpoint that is being captured, between steps.
struct UnderWay {
    op: u64,
    snapshot: Box<dyn Snapshot>,
    expected: ManifestRef,
    publish: bool,
}

/// What a history has had.
#[derive(Debug, Default)]
struct Counts {
    /// Asked for in creates.
    events: usize,
    /// That happened: transfers created, and expiries.
    changes: usize,
    queries: usize,
    /// Records in their answers.
    found: usize,
    /// Of transfers.
    statuses: BTreeMap<u32, usize>,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.changes += other.changes;
        self.queries += other.queries;
        self.found += other.found;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }
}

impl World {
    fn new() -> Self {
        let bench = Bench::new();
        Self {
            maker: bench.ledger.books.transfer_ids.filter_maker(),
            bench,
            plain: Ledger::new(OPTIONS),
            model: Model::default(),
            storage: MemoryStorage::default(),
            plain_storage: MemoryStorage::default(),
            under_way: None,
            era: 0,
            counts: Counts::default(),
        }
    }

    fn stamp(&self, stamp: Stamp, last: u64) -> u64 {
        match stamp {
            Stamp::Given(timestamp) => timestamp,
            Stamp::Near(of, by) => {
                let timestamps = self.model.timestamps();
                timestamps[of.index(timestamps.len())] - 1 + by
            }
            Stamp::Later(by) => last + by,
        }
    }

    /// Events with timestamps; imported ones ascend from `last` on.
    fn stamped<E: Copy>(
        &self,
        batches: &[Vec<Draft<E>>],
        mut last: u64,
        set: impl Fn(&mut E, u64),
    ) -> Vec<Vec<E>> {
        let mut stamped = |draft: &Draft<E>| {
            let mut event = draft.event;
            let timestamp = self.stamp(draft.stamp, last);
            if let Stamp::Later(_) = draft.stamp {
                last = timestamp;
            }
            set(&mut event, timestamp);
            event
        };
        let mut events = |batch: &Vec<Draft<E>>| batch.iter().map(&mut stamped).collect();
        batches.iter().map(&mut events).collect()
    }

    fn run(&mut self, operation: Operation, events: u64, body: &Body) -> Vec<u8> {
        let reply = self.bench.run(operation, events, body);
        let mut other = vec![0; Ledger::reply_size_max(operation.code(), body.bytes())];
        let Bench { op, clock, .. } = self.bench;
        let size = self
            .plain
            .apply(op, operation.code(), clock, body.bytes(), &mut other);
        assert_eq!(
            reply,
            other[..size],
            "{operation}: two machines, two replies"
        );
        reply
    }

    fn create<E: Clone + IntoBytes + Immutable>(
        &mut self,
        operation: Operation,
        batches: &[Vec<E>],
        expect: impl Fn(&mut Model, u64, &[E]) -> Vec<(u64, u32)>,
    ) {
        let whole;
        let batches = if operation.form() == Form::Unbatched {
            whole = [batches.concat()];
            &whole[..]
        } else {
            batches
        };
        let events = batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        self.counts.events += usize::try_from(events).unwrap();
        let reply = self.run(operation, events, &encode(operation, batches));
        let mut first = self.bench.clock - events + 1;
        let mut expected = Vec::new();
        for batch in batches {
            let outcomes = if batch.is_empty() {
                vec![]
            } else {
                expect(&mut self.model, first, batch)
            };
            first += batch.len() as u64;
            if operation.kind() == Kind::CreateTransfers {
                for (_, status) in &outcomes {
                    *self.counts.statuses.entry(*status).or_default() += 1;
                }
            }
            expected.push(outcomes);
        }
        if operation.form() == Form::Batched {
            let results = decode::<CreateResult>(operation, &reply);
            let found: Vec<Vec<(u64, u32)>> = results
                .iter()
                .map(|batch| batch.iter().map(|r| (r.timestamp, r.status)).collect())
                .collect();
            assert_eq!(found, expected, "{operation}");
        } else {
            let failures = |outcomes: &Vec<(u64, u32)>| {
                let indexed = (0u32..).zip(outcomes);
                indexed
                    .filter(|(_, (_, status))| *status != u32::MAX)
                    .map(|(index, (_, status))| (index, *status))
                    .collect::<Vec<_>>()
            };
            let expected: Vec<_> = expected.iter().map(failures).collect();
            assert_eq!(sparse(operation, &reply), expected, "{operation}");
        }
    }

    /// Asks, and compares with what the model answers.
    fn query<F, R>(
        &mut self,
        operations: [Operation; 2],
        form: Form,
        filters: &[Ranged<F>],
        expect: impl Fn(&Model, &F, usize) -> Vec<R>,
    ) where
        F: Filter + Copy + IntoBytes + Immutable + std::fmt::Debug,
        R: FromBytes + Clone + PartialEq + std::fmt::Debug,
    {
        let [batched, unbatched] = operations;
        let filters: Vec<F> = filters.iter().map(|filter| self.filter(filter)).collect();
        if form == Form::Unbatched {
            let cap = if unbatched == Operation::GetChangeEvents {
                CHANGE_EVENTS_CAP
            } else {
                UNBATCHED_CAP
            };
            for filter in filters {
                self.ask(unbatched, &[filter], |model, filter| {
                    expect(model, filter, cap)
                });
            }
            return;
        }
        // Together they may ask for no more than one may.
        let mut left = u32::try_from(BATCH_CAP).unwrap();
        let mut filters = filters;
        for filter in &mut filters {
            let limit = filter.limit();
            *limit = left.min(*limit);
            left -= *limit;
        }
        self.ask(batched, &filters, |model, filter| {
            expect(model, filter, BATCH_CAP)
        });
    }

    fn filter<F: Filter + Copy>(&self, ranged: &Ranged<F>) -> F {
        let mut filter = ranged.filter;
        let (min, max) = (self.stamp(ranged.min, 0), self.stamp(ranged.max, 0));
        let swap = ranged.ordered && max != 0 && min > max;
        let range = if swap { (max, min) } else { (min, max) };
        let (timestamp_min, timestamp_max) = filter.range();
        (*timestamp_min, *timestamp_max) = range;
        filter
    }

    fn ask<F, R>(
        &mut self,
        operation: Operation,
        filters: &[F],
        expect: impl Fn(&Model, &F) -> Vec<R>,
    ) where
        F: Copy + IntoBytes + Immutable + std::fmt::Debug,
        R: FromBytes + Clone + PartialEq + std::fmt::Debug,
    {
        let batches: Vec<Vec<F>> = filters.iter().map(|filter| vec![*filter]).collect();
        let reply = self.run(operation, 0, &encode(operation, &batches));
        let found = decode::<R>(operation, &reply);
        assert_eq!(found.len(), filters.len());
        for (found, filter) in found.iter().zip(filters) {
            let expected = expect(&self.model, filter);
            assert!(
                *found == expected,
                "{operation} {filter:?}\nfound    {found:?}\nexpected {expected:?}"
            );
            self.counts.queries += 1;
            self.counts.found += found.len();
        }
    }

    fn step(&mut self, step: &Step) {
        let (last_account, last_transfer) = self.model.last_timestamps();
        match step {
            Step::Accounts(form, batches) => {
                let operation = match form {
                    Form::Batched => Operation::CreateAccounts,
                    Form::Sparse => Operation::CreateAccountsSparse,
                    Form::Unbatched => Operation::CreateAccountsUnbatched,
                };
                let events = self.stamped(batches, last_account, |event, timestamp| {
                    event.timestamp = timestamp;
                });
                self.create(operation, &events, Model::create_accounts);
            }
            Step::Transfers(form, batches) => {
                let operation = match form {
                    Form::Batched => Operation::CreateTransfers,
                    Form::Sparse => Operation::CreateTransfersSparse,
                    Form::Unbatched => Operation::CreateTransfersUnbatched,
                };
                let era = self.era;
                let events =
                    self.stamped(batches, last_transfer, |event: &mut Transfer, timestamp| {
                        event.timestamp = timestamp;
                        event.id = in_era(event.id, era);
                        event.pending_id = in_era(event.pending_id, era);
                    });
                self.create(operation, &events, Model::create_transfers);
            }
            Step::LookupAccounts(ids) => {
                assert_eq!(
                    self.bench.lookup_accounts(ids),
                    self.model.lookup_accounts(ids)
                );
            }
            Step::LookupTransfers(ids) => {
                let ids: Vec<u128> = ids.iter().map(|id| in_era(*id, self.era)).collect();
                assert_eq!(
                    self.bench.lookup_transfers(&ids),
                    self.model.lookup_transfers(&ids)
                );
            }
            Step::AccountTransfers(form, filters) => {
                let operations = [
                    Operation::GetAccountTransfers,
                    Operation::GetAccountTransfersUnbatched,
                ];
                self.query(operations, *form, filters, Model::account_transfers);
            }
            Step::AccountBalances(form, filters) => {
                let operations = [
                    Operation::GetAccountBalances,
                    Operation::GetAccountBalancesUnbatched,
                ];
                self.query(operations, *form, filters, Model::account_balances);
            }
            Step::QueryAccounts(form, filters) => {
                let operations = [Operation::QueryAccounts, Operation::QueryAccountsUnbatched];
                self.query(operations, *form, filters, Model::query_accounts);
            }
            Step::QueryTransfers(form, filters) => {
                let operations = [
                    Operation::QueryTransfers,
                    Operation::QueryTransfersUnbatched,
                ];
                self.query(operations, *form, filters, Model::query_transfers);
            }
            Step::ChangeEvents(filter) => {
                let operations = [Operation::GetChangeEvents; 2];
                let filters = std::slice::from_ref(filter);
                self.query(operations, Form::Unbatched, filters, Model::change_events);
            }
            Step::Era => self.era += 1,
            Step::Wait(nanoseconds) => self.bench.clock += nanoseconds,
            Step::Pulse => {
                self.run(Operation::Pulse, 8190, &Body::default());
                self.model.pulse(self.bench.clock);
            }
            Step::Checkpoint { publish, restore } => self.checkpoint(*publish, *restore),
        }
        assert_eq!(self.bench.ledger.due(), self.model.due());
        if self.bench.op.is_multiple_of(2) {
            self.maker.work();
        }
        if self.bench.op.is_multiple_of(3) {
            self.bench.ledger.capture();
        }
    }

    fn checkpoint(&mut self, publish: bool, restore: bool) {
        let op = self.bench.op;
        self.finish_checkpoint();
        // A replica that is never restarted, and captures all at once, writes the same.
        let mut whole = self.plain.whole_snapshot(op);
        let elsewhere = &mut self.plain_storage;
        self.under_way = Some(UnderWay {
            op,
            snapshot: self.bench.ledger.snapshot(op),
            expected: write_checkpoint(elsewhere, op, &mut *whole, b"sessions").unwrap(),
            publish: publish || restore,
        });
        if restore {
            let manifest = self.finish_checkpoint().expect("it has just begun");
            self.bench.ledger = Ledger::new(OPTIONS)
                .restore(&self.storage, &manifest.files)
                .unwrap();
            self.maker = self.bench.ledger.books.transfer_ids.filter_maker();
            assert_eq!(self.bench.ledger.digest(), self.plain.digest());
        }
    }

    /// What happened since it began is not in it.
    fn finish_checkpoint(&mut self) -> Option<Manifest> {
        let UnderWay {
            op,
            mut snapshot,
            expected,
            publish,
        } = self.under_way.take()?;
        while !self.bench.ledger.capture() {}
        let storage = &mut self.storage;
        let reference = write_checkpoint(storage, op, &mut *snapshot, b"sessions").unwrap();
        assert_eq!(reference, expected);
        let manifest = Manifest::open(storage, &reference).unwrap();
        manifest.verify(storage).unwrap();
        if publish {
            self.plain.published(op);
            self.bench.ledger.published(op);
            sweep(storage, &[reference]).unwrap();
        }
        Some(manifest)
    }

    /// Every record, every event, and of every account everything.
    fn finish(mut self) -> Counts {
        self.finish_checkpoint();
        let (accounts, transfers) = self.model.ids();
        for ids in accounts.chunks(1000) {
            assert_eq!(
                self.bench.lookup_accounts(ids),
                self.model.lookup_accounts(ids)
            );
        }
        for ids in transfers.chunks(1000) {
            assert_eq!(
                self.bench.lookup_transfers(ids),
                self.model.lookup_transfers(ids)
            );
        }
        let limit = 2000;
        let mut timestamp_min = 0;
        while timestamp_min <= self.bench.clock {
            let filter = ChangeEventsFilter {
                timestamp_min,
                limit,
                ..ChangeEventsFilter::default()
            };
            let page = self.model.change_events(&filter, CHANGE_EVENTS_CAP);
            self.ask(Operation::GetChangeEvents, &[filter], |model, filter| {
                model.change_events(filter, CHANGE_EVENTS_CAP)
            });
            timestamp_min = match page.last() {
                Some(last) if page.len() == limit as usize => last.timestamp + 1,
                _ => u64::MAX,
            };
        }
        for account_id in accounts.iter().copied().filter(|id| *id < 40) {
            let filter = AccountFilter {
                account_id,
                limit,
                flags: DEBITS | CREDITS,
                ..AccountFilter::default()
            };
            self.ask(
                Operation::GetAccountTransfers,
                &[filter],
                |model, filter| model.account_transfers(filter, BATCH_CAP),
            );
            self.ask(Operation::GetAccountBalances, &[filter], |model, filter| {
                model.account_balances(filter, BATCH_CAP)
            });
        }
        assert_eq!(
            self.bench.ledger.transfers_count() as usize,
            transfers.len()
        );
        assert_eq!(self.bench.ledger.accounts_count() as usize, accounts.len());
        assert_eq!(self.bench.ledger.digest(), self.plain.digest());
        for ledger in [&self.bench.ledger, &self.plain] {
            assert_eq!(ledger.verify().broken, Vec::<String>::new());
        }
        self.counts.changes = self.model.events_count();
        self.counts
    }
}

/// Accounts of one ledger, so that most transfers find theirs; some have limits, some history.
fn play(steps: &[Step]) -> Counts {
    let mut world = World::new();
    let start: Vec<Draft<Account>> = [0, 8, 0, 8, 2, 4, 2 | 8, 8, 0, 8, 0, 8]
        .into_iter()
        .zip(1..)
        .map(|(flags, id)| Draft {
            event: Account {
                flags,
                ..super::account(id)
            },
            stamp: Stamp::Given(0),
        })
        .collect();
    world.step(&Step::Accounts(Form::Batched, vec![start]));
    for step in steps {
        world.step(step);
    }
    world.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn histories_agree_with_the_model(steps in prop::collection::vec(step(24), 1..60)) {
        play(&steps);
    }
}

/// Long histories, until they have had so many events.
fn long_histories(events: usize) -> Counts {
    let history = prop::collection::vec(step(100), 100..300);
    let sum = RefCell::new(Counts::default());
    while sum.borrow().events < events {
        let config = ProptestConfig {
            cases: 1,
            max_shrink_iters: 20_000,
            max_shrink_time: 120_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let outcome = TestRunner::new(config).run(&history, |steps| {
            sum.borrow_mut().add(&play(&steps));
            Ok(())
        });
        match outcome {
            Ok(()) => (),
            Err(TestError::Fail(reason, steps)) => panic!("{reason}\n{steps:#?}"),
            Err(error) => panic!("{error}"),
        }
    }
    sum.into_inner()
}

#[test]
fn a_million_events_agree_with_the_model() {
    let counts = long_histories(1_000_000);
    assert!(
        counts.changes > 100_000 && counts.found > 250_000,
        "{counts:?}"
    );
}
