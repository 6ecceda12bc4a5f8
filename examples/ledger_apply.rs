//! How fast the ledger executes, alone: no journal, no network, one core.
//!
//! ```text
//!   cargo run --release --example ledger_apply              the table of workloads
//!   cargo run --release --example ledger_apply -- growth    10 M transfers: worst batch, checkpoint, restart
//!                                          growth <batches> <accounts> <directory>
//!   cargo run --release --example ledger_apply -- queries   latency of each query over 10 M transfers
//!                                          queries <batches> <accounts> <directory>
//! ```
//!
//! Batches are full (8189 transfers) and made outside of the measured time. What is measured is
//! processor time of the thread (with its page faults), because the wall clock of a shared machine
//! measures the neighbours. Figures are for comparing versions on one machine in the same minutes.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures time and prints it"
)]

use std::time::{Duration, Instant as Wall};

use stampede::machine::Machine;
use stampede::machine::ledger::Ledger;
use stampede::runtime::storage::DirectoryStorage;
use stampede::store::{
    Manifest, ManifestRef, MemoryStorage, Pages, Plain, Storage, sweep, write_checkpoint,
};
use stampede_client::wire::multibatch::{encode_trailer, trailer_size};
use stampede_client::wire::operation::Operation;
use stampede_client::wire::record::{account_flags, transfer_flags};
use stampede_client::wire::{
    Account, AccountFilter, BODY_SIZE_MAX, ChangeEventsFilter, CreateResult, QueryFilter, Transfer,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const BATCH: usize = 8189;

/// Processor time of this thread.
struct Instant(Duration);

impl Instant {
    fn now() -> Self {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: writes into the given struct.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        assert_eq!(result, 0);
        let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap());
        Self(seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap()))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0 - self.0
    }
}

/// Small, fast, good enough to choose accounts.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).unwrap()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ids {
    Ordered,
    Random,
    Reversed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Pending,
    Timeout,
    Linked,
    /// Half of each batch posts what the other half has made pending.
    TwoPhase,
    /// Every transfer exceeds its account's limit, and its id is spent.
    Failing,
}

struct World {
    ledger: Ledger,
    clock: u64,
    op: u64,
    /// A body at an aligned address.
    body: Vec<u128>,
    reply: Vec<u8>,
    random: Random,
    accounts: u64,
    sequence: u64,
}

impl World {
    fn new(accounts: u64, flags: u16) -> Self {
        let mut world = Self {
            ledger: Ledger::default(),
            clock: 1_700_000_000_000_000_000,
            op: 0,
            body: vec![0; BODY_SIZE_MAX / 16],
            reply: vec![0; BODY_SIZE_MAX],
            random: Random(1),
            accounts,
            sequence: 0,
        };
        let mut next = 1u64;
        while next <= accounts {
            let count = BATCH.min(usize::try_from(accounts - next + 1).unwrap());
            for event in world.events::<Account>(count) {
                *event = Account {
                    id: u128::from(next),
                    ledger: 1,
                    code: 1,
                    flags,
                    ..Account::default()
                };
                next += 1;
            }
            world.apply(Operation::CreateAccounts, count);
        }
        world
    }

    fn events<T: Plain>(&mut self, count: usize) -> &mut [T] {
        let bytes = &mut self.body.as_mut_slice().as_mut_bytes()[..count * size_of::<T>()];
        <[T]>::mut_from_bytes(bytes).unwrap()
    }

    fn apply(&mut self, operation: Operation, count: usize) -> Duration {
        let (payload, event) = (count * operation.event_size(), operation.event_size());
        let size = payload + trailer_size(event, 1);
        let count = u16::try_from(count).unwrap();
        let body = &mut self.body.as_mut_slice().as_mut_bytes()[..size];
        encode_trailer(body, payload, event, [count].into_iter());
        self.clock += u64::from(count) + 1_000_000;
        self.op += 1;
        let start = Instant::now();
        let size = self
            .ledger
            .apply(self.op, operation.code(), self.clock, body, &mut self.reply);
        let elapsed = start.elapsed();
        assert!(size >= usize::from(count) * CreateResult::SIZE);
        elapsed
    }

    fn created(&self, count: usize) -> usize {
        let results = self.reply[..count * CreateResult::SIZE].chunks_exact(CreateResult::SIZE);
        results
            .filter(|r| CreateResult::read_from_bytes(r).unwrap().is_created())
            .count()
    }

    fn transfers(&mut self, ids: Ids, kind: Kind) -> Duration {
        let (mut sequence, clock, accounts) = (self.sequence, self.clock, self.accounts);
        let mut random = Random(self.random.next());
        for (at, event) in self.events::<Transfer>(BATCH).iter_mut().enumerate() {
            sequence += 1;
            let id = match ids {
                Ids::Ordered => u128::from(clock / 1_000_000) << 80 | u128::from(sequence),
                Ids::Random => u128::from(random.next()) << 64 | u128::from(random.next()),
                Ids::Reversed => (1 << 100) - u128::from(sequence),
            };
            let debit = random.below(accounts);
            let credit = (debit + 1 + random.below(accounts - 1)) % accounts;
            let second = kind == Kind::TwoPhase && (BATCH / 2..BATCH / 2 * 2).contains(&at);
            let flags = match kind {
                Kind::Plain | Kind::Failing => 0,
                Kind::Pending | Kind::Timeout => transfer_flags::PENDING,
                Kind::Linked if at + 1 < BATCH && at % 4 != 3 => transfer_flags::LINKED,
                Kind::Linked => 0,
                Kind::TwoPhase if second => transfer_flags::POST_PENDING_TRANSFER,
                Kind::TwoPhase => transfer_flags::PENDING,
            };
            *event = Transfer {
                id,
                debit_account_id: u128::from(debit + 1),
                credit_account_id: u128::from(credit + 1),
                amount: 1 + u128::from(random.below(1000)),
                ledger: 1,
                code: 1,
                flags,
                timeout: if kind == Kind::Timeout { 3600 } else { 0 },
                ..Transfer::default()
            };
        }
        if kind == Kind::TwoPhase {
            let events = self.events::<Transfer>(BATCH);
            for at in BATCH / 2..BATCH / 2 * 2 {
                let pending = events[at - BATCH / 2];
                events[at] = Transfer {
                    pending_id: pending.id,
                    id: events[at].id,
                    flags: events[at].flags,
                    amount: u128::MAX,
                    ..Transfer::default()
                };
            }
        }
        self.sequence = sequence;
        self.apply(Operation::CreateTransfers, BATCH)
    }
}

fn percentile(sorted: &[Duration], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let at = ((sorted.len() - 1) as f64 * part) as usize;
    sorted[at].as_secs_f64() * 1e3
}

fn measure(name: &str, accounts: u64, ids: Ids, kind: Kind, batches: usize) {
    let mut world = World::new(accounts, if kind == Kind::Failing { 2 } else { 0 });
    let mut times = Vec::new();
    let mut created = 0;
    for _ in 0..batches {
        times.push(world.transfers(ids, kind));
        created += world.created(BATCH);
    }
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    let transfers = (batches * BATCH) as f64;
    println!(
        "{name:<34} {:>7.1} ns  {:>6.2} M/s   batch ms p50 {:.2} p99 {:.2} max {:.2}   created {:.0} %",
        total.as_secs_f64() * 1e9 / transfers,
        transfers / total.as_secs_f64() / 1e6,
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 1.0),
        created as f64 / transfers * 100.0,
    );
}

fn table(batches: usize) {
    use Ids::{Ordered, Random, Reversed};
    for (accounts, label) in [(10_000, "10 k"), (1_000_000, "1 M")] {
        for ids in [Ordered, Random, Reversed] {
            measure(
                &format!("{label} accounts, {ids:?} ids"),
                accounts,
                ids,
                Kind::Plain,
                batches,
            );
        }
    }
    for kind in [
        Kind::Pending,
        Kind::Timeout,
        Kind::Linked,
        Kind::TwoPhase,
        Kind::Failing,
    ] {
        measure(
            &format!("10 k accounts, {kind:?}"),
            10_000,
            Ordered,
            kind,
            batches,
        );
    }
}

fn growth(batches: usize, accounts: u64, directory: Option<String>) {
    let mut world = World::new(accounts, 0);
    let mut times: Vec<Duration> = (0..batches)
        .map(|_| world.transfers(Ids::Random, Kind::Plain))
        .collect();
    let total: Duration = times.iter().sum();
    let slowest = times
        .iter()
        .enumerate()
        .max_by_key(|(_, time)| **time)
        .unwrap()
        .0;
    times.sort_unstable();
    let transfers = batches * BATCH;
    println!(
        "{transfers} transfers: {:.2} M/s, batch ms p50 {:.2} p99 {:.2} p99.9 {:.2} max {:.2} (batch {slowest})",
        transfers as f64 / total.as_secs_f64() / 1e6,
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 0.999),
        percentile(&times, 1.0),
    );
    let digest = world.ledger.digest();
    let start = Instant::now();
    let mut snapshot = world.ledger.whole_snapshot(world.op);
    println!(
        "capture, all slices, {:.2} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    let mut storage: Box<dyn Storage> = match &directory {
        None => Box::new(MemoryStorage::default()),
        Some(path) => Box::new(DirectoryStorage::open(path).unwrap()),
    };
    let (start, wall) = (Instant::now(), Wall::now());
    let reference = write_checkpoint(&mut *storage, world.op, &mut *snapshot, &[]).unwrap();
    println!(
        "write {:.0} ms, of processor time {:.0} ms, {} MiB",
        wall.elapsed().as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3,
        storage
            .list()
            .unwrap()
            .iter()
            .map(|(_, size)| size)
            .sum::<u64>()
            >> 20
    );
    let start = Instant::now();
    world.ledger.published(world.op);
    println!("publish {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    drop(world);
    let (start, wall) = (Instant::now(), Wall::now());
    let manifest = Manifest::open(&*storage, &reference).unwrap();
    let ledger = Ledger::default()
        .restore(&*storage, &manifest.files)
        .unwrap();
    println!(
        "restore {:.0} ms, of processor time {:.0} ms",
        wall.elapsed().as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3
    );
    assert_eq!(ledger.digest(), digest);
    sweep(&mut *storage, &[]).unwrap();
}

/// Makes the host back the memory that the measurements will use.
fn warm_up(size: usize) {
    let pages = Pages::zeroed(size);
    for offset in (0..size).step_by(4096) {
        // SAFETY: inside of the piece, which nobody else sees.
        unsafe { pages.base().add(offset).write_volatile(1) };
    }
}

/// Checkpoints every 128 batches, as the replica does, so that old chunks are in files.
fn load(world: &mut World, batches: usize, storage: &mut dyn Storage) {
    let mut kept = None;
    for batch in 1..=batches {
        world.transfers(Ids::Ordered, Kind::Plain);
        if batch.is_multiple_of(128) || batch == batches {
            let mut snapshot = world.ledger.whole_snapshot(world.op);
            let reference = write_checkpoint(storage, world.op, &mut *snapshot, &[]).unwrap();
            world.ledger.published(world.op);
            let keep: Vec<ManifestRef> = kept.into_iter().chain([reference]).collect();
            sweep(storage, &keep).unwrap();
            kept = Some(reference);
        }
    }
}

impl World {
    /// Asks for what the filter says; gives how long it took and how much came.
    fn ask<F: IntoBytes + Immutable>(
        &mut self,
        operation: Operation,
        filter: &F,
    ) -> (Duration, usize) {
        let mut body = vec![0u128; 32];
        let body = &mut body.as_mut_slice().as_mut_bytes()
            [..operation.event_size() + trailer_size(operation.event_size(), 1)];
        body[..operation.event_size()].copy_from_slice(filter.as_bytes());
        let body = if operation.is_multi_batch() {
            encode_trailer(
                body,
                operation.event_size(),
                operation.event_size(),
                [1].into_iter(),
            );
            body
        } else {
            &mut body[..operation.event_size()]
        };
        self.clock += 1;
        self.op += 1;
        let start = Wall::now();
        let reply = &mut self.reply;
        let size = self
            .ledger
            .apply(self.op, operation.code(), self.clock, body, reply);
        (start.elapsed(), size / operation.result_size())
    }
}

fn measure_queries(name: &str, mut one: impl FnMut(u64) -> (Duration, usize)) {
    let (mut times, mut results) = (Vec::new(), 0);
    for number in 0..200 {
        let (time, count) = one(number);
        times.push(time);
        results += count;
    }
    let first = times[0].as_secs_f64() * 1e3;
    times.sort_unstable();
    println!(
        "{name:<46} results {:>5}   ms first {first:.2} p50 {:.3} p99 {:.3} max {:.3}",
        results / times.len(),
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 1.0),
    );
}

fn queries(batches: usize, accounts: u64, directory: Option<String>) {
    let mut world = World::new(accounts, account_flags::HISTORY);
    let mut storage: Box<dyn Storage> = match &directory {
        None => Box::new(MemoryStorage::default()),
        Some(path) => Box::new(DirectoryStorage::open(path).unwrap()),
    };
    let start = Wall::now();
    load(&mut world, batches, &mut *storage);
    let bytes: u64 = storage.list().unwrap().iter().map(|(_, size)| size).sum();
    println!(
        "{} transfers, {} accounts: loaded in {:.1} s, files of {:.1} bytes a transfer",
        batches * BATCH,
        accounts,
        start.elapsed().as_secs_f64(),
        bytes as f64 / (batches * BATCH) as f64
    );
    let account = |number: u64, flags| AccountFilter {
        account_id: u128::from(number * 7919 % accounts + 1),
        limit: 8189,
        flags,
        ..AccountFilter::default()
    };
    let (last, count) = (world.clock, u64::try_from(batches).unwrap());
    let at = |number: u64| last - (number * 37 % count) * 1_008_190;
    for round in ["first", "again"] {
        measure_queries(&format!("account transfers, {round}"), |number| {
            world.ask(Operation::GetAccountTransfers, &account(number, 3))
        });
    }
    measure_queries("account transfers, newest 10", |number| {
        let filter = AccountFilter {
            limit: 10,
            ..account(number, 7)
        };
        world.ask(Operation::GetAccountTransfers, &filter)
    });
    measure_queries("account transfers, none (code 2)", |number| {
        let filter = AccountFilter {
            code: 2,
            ..account(number, 3)
        };
        world.ask(Operation::GetAccountTransfers, &filter)
    });
    measure_queries("account balances", |number| {
        world.ask(Operation::GetAccountBalances, &account(number, 3))
    });
    measure_queries("account balances, newest 10", |number| {
        let filter = AccountFilter {
            limit: 10,
            ..account(number, 7)
        };
        world.ask(Operation::GetAccountBalances, &filter)
    });
    measure_queries("transfers, from some time on", |number| {
        let filter = QueryFilter {
            timestamp_min: at(number),
            limit: 8189,
            ..QueryFilter::default()
        };
        world.ask(Operation::QueryTransfers, &filter)
    });
    measure_queries("transfers, rare value that is nowhere", |number| {
        let user_data_32 = u32::try_from(number).unwrap() + 1;
        let filter = QueryFilter {
            user_data_32,
            limit: 8189,
            ..QueryFilter::default()
        };
        world.ask(Operation::QueryTransfers, &filter)
    });
    measure_queries("accounts, all", |_| {
        let filter = QueryFilter {
            limit: 8189,
            ..QueryFilter::default()
        };
        world.ask(Operation::QueryAccounts, &filter)
    });
    measure_queries("accounts, rare value that is nowhere", |number| {
        let user_data_32 = u32::try_from(number).unwrap() + 1;
        let filter = QueryFilter {
            user_data_32,
            limit: 8189,
            ..QueryFilter::default()
        };
        world.ask(Operation::QueryAccounts, &filter)
    });
    measure_queries("change events, from some time on", |number| {
        let filter = ChangeEventsFilter {
            timestamp_min: at(number),
            limit: 2730,
            ..ChangeEventsFilter::default()
        };
        world.ask(Operation::GetChangeEvents, &filter)
    });
    measure_queries("change events, the latest", |number| {
        let filter = ChangeEventsFilter {
            timestamp_min: last - number * 10,
            limit: 2730,
            ..ChangeEventsFilter::default()
        };
        world.ask(Operation::GetChangeEvents, &filter)
    });
    sweep(&mut *storage, &[]).unwrap();
}

fn main() {
    warm_up(4 << 30);
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let batches = arguments.next().map(|text| text.parse().unwrap());
    let accounts = arguments.next().map(|text| text.parse().unwrap());
    match what.as_str() {
        "growth" => growth(
            batches.unwrap_or(1222),
            accounts.unwrap_or(10_000),
            arguments.next(),
        ),
        "queries" => queries(
            batches.unwrap_or(1222),
            accounts.unwrap_or(10_000),
            arguments.next(),
        ),
        "plain" => measure(
            "10 k accounts, Ordered ids",
            10_000,
            Ids::Ordered,
            Kind::Plain,
            batches.unwrap_or(300),
        ),
        _ => table(batches.unwrap_or(200)),
    }
}
