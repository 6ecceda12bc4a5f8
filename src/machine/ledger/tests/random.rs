//! Whole histories against the model: every reply, every record, and a second machine.
//!
//! Ids, accounts and amounts come from small ranges, so that events meet each other: duplicates,
//! pendings resolved twice, chains that break late, limits that bite. Between operations the ledger
//! is checkpointed and restored; the restored machine and one that was never restored must agree.

use std::ops::Range;

use proptest::prelude::*;
use stampede_client::wire::operation::{Form, Operation};
use stampede_client::wire::{Account, CreateResult, Transfer};
use zerocopy::{Immutable, IntoBytes};

use super::model::Model;
use super::{Bench, Body, OPTIONS, decode, encode, sparse};
use crate::machine::Machine;
use crate::machine::ledger::Ledger;
use crate::store::{Manifest, MemoryStorage, sweep, write_checkpoint};

#[derive(Debug, Clone)]
enum Step {
    Accounts(Form, Vec<Vec<Account>>),
    Transfers(Form, Vec<Vec<Transfer>>),
    LookupAccounts(Vec<u128>),
    LookupTransfers(Vec<u128>),
    Wait(u64),
    Pulse,
    Checkpoint { publish: bool, restore: bool },
}

fn flags(bits: &'static [(u32, u16)]) -> impl Strategy<Value = u16> {
    let bits: Vec<_> = bits
        .iter()
        .map(|&(percent, bit)| {
            prop::bool::weighted(f64::from(percent) / 100.0).prop_map(move |on| (on, bit))
        })
        .collect();
    bits.prop_map(|bits| {
        bits.into_iter()
            .filter(|(on, _)| *on)
            .fold(0, |flags, (_, bit)| flags | bit)
    })
}

fn account_id() -> impl Strategy<Value = u128> {
    prop_oneof![80 => 1u128..8, 1 => Just(0), 1 => Just(u128::MAX), 2 => 8u128..40]
}

fn transfer_id() -> impl Strategy<Value = u128> {
    prop_oneof![4 => PENDING_IDS, 50 => 200u128..3000, 1 => Just(0), 1 => Just(u128::MAX)]
}

/// Where the ids of pending transfers usually lie.
const PENDING_IDS: Range<u128> = 1..25;

fn rarely<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    other: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![24 => Just(usual), 1 => other]
}

/// Timestamps of imported events, within what the clock of a history reaches.
fn imported_timestamp() -> impl Strategy<Value = u64> {
    prop_oneof![5 => 1u64..1_000_400, 15 => 1_000_000u64..1_000_400, 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(1 << 62)]
}

prop_compose! {
    fn account(imported: bool)(
        id in account_id(),
        bits in flags(&[(15, 1), (10, 2), (8, 4), (10, 8), (2, 16), (2, 32), (1, 64)]),
        data in 0u128..2,
        (reserved, balance, ledger, code) in (
            rarely(0u32, 1u32..2),
            rarely(0u128, 1u128..3),
            prop_oneof![20 => Just(1u32), 3 => Just(2), 1 => Just(0)],
            rarely(1u16, 0u16..3),
        ),
        which in 0u8..4,
        stamp in rarely(0u64, 1u64..100),
        imported_stamp in imported_timestamp(),
    ) -> Account {
        let mut account = Account {
            id, ledger, code, reserved,
            user_data_128: u128::from(data == 1 && which == 1),
            user_data_64: u64::from(data == 1 && which == 2),
            user_data_32: u32::from(data == 1 && which == 3),
            flags: if imported { bits ^ 16 } else { bits },
            timestamp: stamp,
            ..Account::default()
        };
        if account.flags & 16 != 0 { account.timestamp = imported_stamp; }
        match which {
            0 => account.debits_pending = balance,
            1 => account.debits_posted = balance,
            2 => account.credits_pending = balance,
            _ => account.credits_posted = balance,
        }
        account
    }
}

prop_compose! {
    fn transfer(imported: bool)(
        (other_id, phase_id) in (transfer_id(), PENDING_IDS),
        (debit, credit) in (account_id(), account_id()),
        amount in prop_oneof![
            20 => 0u128..20, 2 => Just(u128::MAX), 2 => Just(u128::MAX / 2), 1 => Just(u128::MAX - 3)
        ],
        kind in prop_oneof![10 => Just(0u16), 8 => Just(2), 6 => Just(4), 5 => Just(8), 1 => 0u16..16],
        bits in flags(&[(8, 1), (4, 16), (4, 32), (2, 64), (2, 128), (2, 256), (1, 512)]),
        (pending_id, given, timeout) in (PENDING_IDS, 0u8..6, prop_oneof![3 => Just(0u32), 3 => 1u32..6, 1 => Just(u32::MAX)]),
        (data, which) in (0u8..2, 0u8..4),
        (ledger, code, stamp) in (rarely(1u32, 0u32..3), rarely(1u16, 0u16..3), rarely(0u64, 1u64..100)),
        imported_stamp in imported_timestamp(),
    ) -> Transfer {
        let resolves = kind & 12 != 0;
        // Resolutions rarely carry the flags of other phases, and usually leave most fields to the
        // pending transfer.
        let bits = if resolves && which != 0 { bits & !(16 | 32 | 64 | 128) } else { bits };
        let sparse = resolves && given != 0;
        Transfer {
            id: if kind == 2 && which != 0 { phase_id } else { other_id },
            debit_account_id: if sparse && given != 1 { 0 } else { debit },
            credit_account_id: if sparse && given != 2 { 0 } else { credit },
            amount,
            pending_id: if resolves || given == 5 && which == 3 { pending_id } else { 0 },
            user_data_128: u128::from(data == 1 && which == 1),
            user_data_64: u64::from(data == 1 && which == 2),
            user_data_32: u32::from(data == 1 && which == 3),
            timeout: if resolves && which != 0 || kind & 2 == 0 && given != 0 { 0 } else { timeout },
            ledger: if sparse && given != 3 { 0 } else { ledger },
            code: if sparse && given != 4 { 0 } else { code },
            flags: kind | if imported { bits ^ 256 } else { bits },
            timestamp: if (bits & 256 != 0) != imported { imported_stamp } else { stamp },
        }
    }
}

/// Batches, in which some events are an earlier one again.
fn batches<T: Copy + std::fmt::Debug + 'static, S: Strategy<Value = T> + 'static>(
    event: fn(bool) -> S,
    max: usize,
) -> impl Strategy<Value = Vec<Vec<T>>> {
    let batch = prop::bool::weighted(0.15)
        .prop_flat_map(move |imported| prop::collection::vec(event(imported), 0..max));
    let again = prop::collection::vec(
        (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        0..3,
    );
    let batch = (batch, again).prop_map(|(mut batch, again)| {
        for (from, to) in again {
            if !batch.is_empty() {
                let (from, to) = (from.index(batch.len()), to.index(batch.len()));
                batch[to] = batch[from];
            }
        }
        batch
    });
    prop::collection::vec(batch, 1..4)
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![8 => Just(Form::Batched), 1 => Just(Form::Sparse), 1 => Just(Form::Unbatched)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (form(), batches(account, 6)).prop_map(|(form, batches)| Step::Accounts(form, batches)),
        14 => (form(), batches(transfer, 24)).prop_map(|(form, batches)| Step::Transfers(form, batches)),
        1 => prop::collection::vec(account_id(), 0..20).prop_map(Step::LookupAccounts),
        1 => prop::collection::vec(transfer_id(), 0..20).prop_map(Step::LookupTransfers),
        2 => (0u64..4_000_000_000).prop_map(Step::Wait),
        2 => Just(Step::Pulse),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(publish, restore)| Step::Checkpoint { publish, restore }),
    ]
}

struct World {
    bench: Bench,
    /// Never restored, never adopts a file; sees only the operations.
    plain: Ledger,
    model: Model,
    storage: MemoryStorage,
}

impl World {
    fn new() -> Self {
        Self {
            bench: Bench::new(),
            plain: Ledger::new(OPTIONS),
            model: Model::default(),
            storage: MemoryStorage::default(),
        }
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

    fn step(&mut self, step: &Step) {
        match step {
            Step::Accounts(form, batches) => {
                let operation = match form {
                    Form::Batched => Operation::CreateAccounts,
                    Form::Sparse => Operation::CreateAccountsSparse,
                    Form::Unbatched => Operation::CreateAccountsUnbatched,
                };
                self.create(operation, batches, Model::create_accounts);
            }
            Step::Transfers(form, batches) => {
                let operation = match form {
                    Form::Batched => Operation::CreateTransfers,
                    Form::Sparse => Operation::CreateTransfersSparse,
                    Form::Unbatched => Operation::CreateTransfersUnbatched,
                };
                self.create(operation, batches, Model::create_transfers);
            }
            Step::LookupAccounts(ids) => {
                assert_eq!(
                    self.bench.lookup_accounts(ids),
                    self.model.lookup_accounts(ids)
                );
            }
            Step::LookupTransfers(ids) => {
                assert_eq!(
                    self.bench.lookup_transfers(ids),
                    self.model.lookup_transfers(ids)
                );
            }
            Step::Wait(nanoseconds) => self.bench.clock += nanoseconds,
            Step::Pulse => {
                self.run(Operation::Pulse, 8190, &Body::default());
                self.model.pulse(self.bench.clock);
            }
            Step::Checkpoint { publish, restore } => self.checkpoint(*publish, *restore),
        }
        assert_eq!(self.bench.ledger.due(), self.model.due());
    }

    fn checkpoint(&mut self, publish: bool, restore: bool) {
        let op = self.bench.op;
        let mut snapshot = self.bench.ledger.snapshot(op);
        let reference =
            write_checkpoint(&mut self.storage, op, &mut *snapshot, b"sessions").unwrap();
        let manifest = Manifest::open(&self.storage, &reference).unwrap();
        manifest.verify(&self.storage).unwrap();
        // A replica that writes all files at once writes the same.
        let mut elsewhere = MemoryStorage::default();
        let mut snapshot = self.plain.snapshot(op);
        assert_eq!(
            write_checkpoint(&mut elsewhere, op, &mut *snapshot, b"sessions").unwrap(),
            reference
        );
        if publish {
            self.bench.ledger.published(op);
            sweep(&mut self.storage, &[reference]).unwrap();
        }
        if restore {
            sweep(&mut self.storage, &[reference]).unwrap();
            self.bench.ledger = Ledger::restore(&self.storage, &manifest.files).unwrap();
            assert_eq!(self.bench.ledger.digest(), self.plain.digest());
        }
    }

    fn finish(mut self) {
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
        assert_eq!(
            self.bench.ledger.transfers_count() as usize,
            transfers.len()
        );
        assert_eq!(self.bench.ledger.accounts_count() as usize, accounts.len());
        assert_eq!(self.bench.ledger.digest(), self.plain.digest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn histories_agree_with_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        // Seven accounts of one ledger, so that most transfers find theirs; three have limits.
        let start: Vec<Account> = [0, 0, 0, 8, 2, 4, 2]
            .into_iter()
            .zip(1..)
            .map(|(flags, id)| Account { flags, ..super::account(id) })
            .collect();
        world.step(&Step::Accounts(Form::Batched, vec![start]));
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}
