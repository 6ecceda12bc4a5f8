//! Checkpoints of a ledger: equal bytes, written once, survive crashes, tell of damage.

use stampede_client::wire::operation::Operation;
use stampede_client::wire::record::{account_filter_flags, account_flags};
use stampede_client::wire::{
    Account, AccountFilter, ChangeEventsFilter, CreateTransferStatus, QueryFilter, Transfer,
};

use super::{Bench, OPTIONS, account, encode, pending, post, transfer};
use crate::machine::Machine;
use crate::machine::ledger::{Ledger, LedgerOptions};
use crate::store::{
    Damage, FileKind, FileName, Manifest, ManifestRef, MemoryStorage, PAGE_SIZE, Storage,
    StoreError, sweep, write_checkpoint,
};

impl Bench {
    fn checkpoint(&mut self, storage: &mut MemoryStorage) -> Result<ManifestRef, StoreError> {
        let mut snapshot = self.ledger.whole_snapshot(self.op);
        write_checkpoint(storage, self.op, &mut *snapshot, b"")
    }

    fn fill(&mut self, from: u128, to: u128) {
        let unknown = |id| Transfer {
            debit_account_id: 99,
            ..transfer(id, 1)
        };
        let events: Vec<Transfer> = (from..to)
            .map(|id| match id % 5 {
                0 => unknown(id),
                1 => pending(id, 2),
                2 => post(id, id - 1, 1),
                3 => Transfer {
                    timeout: 60,
                    ..pending(id, 2)
                },
                _ => transfer(id, 3),
            })
            .collect();
        self.transfers(&events);
    }
}

fn restore(storage: &MemoryStorage, reference: &ManifestRef) -> Result<Ledger, StoreError> {
    Ledger::default().restore(storage, &Manifest::open(storage, reference)?.files)
}

#[test]
fn full_chunks_are_written_once() {
    let mut bench = Bench::with_accounts(2);
    let mut storage = MemoryStorage::default();
    let mut former = bench.checkpoint(&mut storage).unwrap();
    bench.ledger.published(bench.op);
    for round in 0..6u128 {
        let first = 1 + round * 300;
        bench.fill(first, first + 300);
        let before = storage.list().unwrap();
        let written_before = storage.bytes_written();
        let reference = bench.checkpoint(&mut storage).unwrap();
        let known = |name| before.iter().any(|(known, _)| *known == name);
        let manifest = Manifest::open(&storage, &reference).unwrap();
        let added = manifest.files.iter().filter(|entry| !known(entry.name));
        let added_size: u64 = added.map(|entry| entry.size).sum();
        assert_eq!(
            storage.bytes_written() - written_before,
            added_size + reference.size
        );
        let chunks = manifest.file(FileKind::Transfers).count();
        assert_eq!(chunks, bench.ledger.transfers_count() as usize / 32);
        assert_eq!(
            manifest.file(FileKind::FailedIds).count(),
            (60 * (round as usize + 1)) / 32
        );
        let runs = |kind| manifest.file(kind).count();
        assert_eq!(runs(FileKind::TransferRun), chunks / 2);
        assert_eq!(runs(FileKind::FailedRun), (60 * (round as usize + 1)) / 64);
        bench.ledger.published(bench.op);
        sweep(&mut storage, &[former, reference]).unwrap();
        former = reference;
        // Memory of old chunks goes to their files, one chunk with each operation; the newest full
        // one stays.
        for _ in 0..20 {
            bench.lookup_accounts(&[]);
        }
        let full = bench.ledger.books.transfers.chunks_full();
        let in_memory: Vec<u32> = (0..full)
            .filter(|chunk| bench.ledger.books.transfers.is_in_memory(*chunk))
            .collect();
        assert_eq!(in_memory, [full - OPTIONS.resident_chunks]);
    }
    let digest = bench.ledger.digest();
    assert_eq!(restore(&storage, &former).unwrap().digest(), digest);
    // Pending transfers that nobody has resolved were kept in memory, one in five.
    let unresolved = &bench.ledger.books.unresolved;
    let in_files = unresolved.rows_kept();
    assert!(in_files > 200, "{in_files}");
    let mut restored = Bench {
        ledger: restore(&storage, &former).unwrap(),
        op: bench.op,
        clock: bench.clock,
    };
    // Both resolve what is in files, one from memory, the other from the files.
    for bench in [&mut bench, &mut restored] {
        bench.clock = 10_000_000;
        let events = [post(5000, 8, 1), post(5001, 13, 0)];
        assert!(
            bench
                .transfers(&events)
                .iter()
                .all(|s| *s == CreateTransferStatus::Created)
        );
        bench.wait_seconds(100);
        bench.pulse();
        assert_eq!(bench.ledger.books.unresolved.rows_kept(), 0);
        assert_eq!(bench.balances(1).0, 0);
    }
    assert_eq!(bench.ledger.digest(), restored.ledger.digest());
    // A restored ledger checkpoints to the same bytes. The files of full chunks are not in that
    // storage, and need not be: they are listed.
    let [first, second] = [&mut bench, &mut restored]
        .map(|bench| bench.checkpoint(&mut MemoryStorage::default()).unwrap());
    assert_eq!(first, second);
}

#[test]
fn ids_of_old_chunks_leave_memory() {
    let mut bench = Bench::with_accounts(2);
    let mut storage = MemoryStorage::default();
    let mut former = None;
    let mut most = 0;
    let mut maker = bench.ledger.books.transfer_ids.filter_maker();
    for round in 0..40u128 {
        bench.fill(1 + round * 300, 301 + round * 300);
        // Every second pending transfer is posted meanwhile; the others wait.
        let reference = bench.checkpoint(&mut storage).unwrap();
        bench.ledger.published(bench.op);
        sweep(
            &mut storage,
            &former.into_iter().chain([reference]).collect::<Vec<_>>(),
        )
        .unwrap();
        former = Some(reference);
        for _ in 0..40 {
            bench.lookup_accounts(&[]);
            // Always behind: some runs are in the filter, some are not yet.
            if round % 2 == 0 {
                maker.work();
            }
        }
        most = most.max(bench.ledger.books.transfer_ids.in_memory());
    }
    let unresolved = bench.ledger.books.unresolved.rows_kept() as u64;
    let (transfers, failed) = (
        bench.ledger.transfers_count(),
        bench.ledger.books.failed.len(),
    );
    assert_eq!((transfers, failed), (9600, 2400));
    // A run and what is on its way to one, of transfers and of failed ids; and what waits.
    let bound = unresolved + 600;
    let in_memory = bench.ledger.books.transfer_ids.in_memory();
    assert!(
        in_memory < bound && most < bound + 600,
        "{in_memory} {most} {unresolved}"
    );
    let mut restored = Bench {
        ledger: restore(&storage, &former.unwrap()).unwrap(),
        op: bench.op,
        clock: bench.clock,
    };
    for bench in [&mut bench, &mut restored] {
        assert_eq!(bench.ledger.verify().broken, Vec::<String>::new());
        let ids: Vec<u128> = (0..13_000).collect();
        let found =
            bench.lookup_transfers(&ids[..8000]).len() + bench.lookup_transfers(&ids[8000..]).len();
        assert_eq!(found, 9600);
        // Each id is known: as it was, as another, as spent; and new ones are new.
        let statuses = bench.transfers(&[
            transfer(4, 3),
            transfer(9, 4),
            transfer(5, 1),
            post(20_001, 11_998, 1),
            post(20_002, 13, 1),
            transfer(20_003, 1),
        ]);
        use CreateTransferStatus as Status;
        let expected = [
            Status::Exists,
            Status::ExistsWithDifferentAmount,
            Status::IdAlreadyFailed,
            Status::Created,
            Status::Created,
            Status::Created,
        ];
        assert_eq!(statuses, expected);
    }
    assert_eq!(bench.ledger.digest(), restored.ledger.digest());
}

#[test]
fn the_executor_goes_on_while_a_snapshot_is_written() {
    let mut bench = Bench::with_accounts(2);
    bench.fill(1, 2000);
    let expected = bench.ledger.digest();
    let op = bench.op;
    let mut snapshot = bench.ledger.whole_snapshot(op);
    let mut storage = MemoryStorage::default();
    let mut builder = storage.handle();
    let reference = std::thread::scope(|scope| {
        let writer = scope.spawn(move || write_checkpoint(&mut builder, op, &mut *snapshot, b""));
        for round in 0..40u128 {
            bench.fill(2000 + round * 100, 2100 + round * 100);
            bench.wait_seconds(2);
            bench.pulse();
        }
        writer.join().unwrap().unwrap()
    });
    assert_eq!(restore(&storage, &reference).unwrap().digest(), expected);
    assert_ne!(bench.ledger.digest(), expected);
    // Two snapshots before either is published: the second has some files again.
    let second = bench.checkpoint(&mut storage).unwrap();
    let digest = bench.ledger.digest();
    bench.ledger.published(op);
    bench.ledger.published(bench.op);
    assert_eq!(bench.ledger.digest(), digest);
    assert_eq!(restore(&storage, &second).unwrap().digest(), digest);
}

#[test]
fn the_same_snapshot_is_written_again_after_the_disk_was_full() {
    let mut bench = Bench::with_accounts(2);
    let mut storage = MemoryStorage::default();
    bench.fill(1, 200);
    let former = bench.checkpoint(&mut storage).unwrap();
    bench.ledger.published(bench.op);
    bench.fill(200, 1500);
    let (op, digest) = (bench.op, bench.ledger.digest());
    let mut snapshot = bench.ledger.whole_snapshot(op);
    let mut full = 0;
    let reference = loop {
        storage.set_room(Some(full * 16_384));
        let room = storage.room().unwrap();
        match write_checkpoint(&mut storage, op, &mut *snapshot, b"") {
            Ok(reference) => break reference,
            Err(error) => assert!(error.is_full(), "{error}"),
        }
        snapshot.discard();
        sweep(&mut storage, &[former]).unwrap();
        assert_eq!(storage.room().unwrap(), room, "all of it is given back");
        full += 1;
    };
    assert!(full > 10, "{full}");
    let mut elsewhere = MemoryStorage::default();
    let mut whole = bench.ledger.whole_snapshot(op);
    let expected = write_checkpoint(&mut elsewhere, op, &mut *whole, b"").unwrap();
    assert_eq!(reference, expected);
    bench.ledger.published(op);
    assert_eq!(bench.ledger.digest(), digest);
    assert_eq!(restore(&storage, &reference).unwrap().digest(), digest);
}

#[test]
fn a_failing_disk_or_a_crash_at_any_write_leaves_the_former_checkpoint() {
    // Of the names and removals that were not synced, a disk has kept none, all, or some.
    let some = |name: FileName| (name.number + name.kind as u64).is_multiple_of(2);
    let kept: [fn(FileName) -> bool; 3] = [|_| false, |_| true, some];
    for keeps in kept {
        let mut bench = Bench::with_accounts(2);
        let mut storage = MemoryStorage::default();
        bench.fill(1, 200);
        let former = bench.checkpoint(&mut storage).unwrap();
        bench.ledger.published(bench.op);
        let digest = bench.ledger.digest();
        bench.fill(200, 500);
        let mut writes = 0;
        let reference = loop {
            storage.fail_writes_after(Some(writes));
            let result = bench.checkpoint(&mut storage);
            storage.crash_keeping(keeps);
            storage.fail_writes_after(None);
            assert_eq!(restore(&storage, &former).unwrap().digest(), digest);
            match result {
                Ok(reference) => break reference,
                Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
            }
            writes += 1;
        };
        assert!(writes > 20, "{writes}");
        // The writes of several runs are among them.
        let manifest = Manifest::open(&storage, &reference).unwrap();
        assert_eq!(manifest.file(FileKind::TransferRun).count(), 6);
        assert_eq!(manifest.file(FileKind::FailedRun).count(), 1);
        assert_eq!(
            restore(&storage, &reference).unwrap().digest(),
            bench.ledger.digest()
        );
        // What the failed attempts left does not matter: the sweep finds nothing but the checkpoints.
        sweep(&mut storage, &[reference]).unwrap();
        let files = Manifest::open(&storage, &reference).unwrap().files.len();
        assert_eq!(storage.list().unwrap().len(), files + 1);
    }
}

#[test]
fn damage_is_named() {
    let mut bench = Bench::with_accounts(2);
    let mut storage = MemoryStorage::default();
    bench.fill(1, 400);
    let reference = bench.checkpoint(&mut storage).unwrap();
    let manifest = Manifest::open(&storage, &reference).unwrap();
    for (name, size) in storage.list().unwrap() {
        let size = usize::try_from(size).unwrap();
        let step = if name.kind == FileKind::Transfers && name.number > 1 {
            4093
        } else {
            509
        };
        for offset in (0..size).step_by(step) {
            storage.damage(name, offset);
            let found = Manifest::open(&storage, &reference)
                .and_then(|manifest| manifest.verify(&storage).map(|()| manifest))
                .and_then(|manifest| Ledger::default().restore(&storage, &manifest.files));
            let error = found.map(drop).expect_err("damage is found");
            let StoreError::Damaged {
                file,
                offset: found,
                ..
            } = &error
            else {
                panic!("{error}");
            };
            assert_eq!(*file, name);
            assert!(*found <= offset as u64, "{error} for {offset}");
            storage.damage(name, offset);
        }
    }
    manifest.verify(&storage).unwrap();
    // A restart reads no rows of full chunks, but all the rest.
    storage.damage(FileName::new(FileKind::Ledger, bench.op), 4096);
    let error = Ledger::default()
        .restore(&storage, &manifest.files)
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("checkpoint file ledger-00000000000000000002 is damaged at"),
        "{error}"
    );
    let missing = FileName::new(FileKind::Transfers, 3);
    storage.damage(FileName::new(FileKind::Ledger, bench.op), 4096);
    storage.remove(missing).unwrap();
    let error = Ledger::default()
        .restore(&storage, &manifest.files)
        .map(drop)
        .unwrap_err();
    assert!(
        matches!(error, StoreError::Io { file, .. } if file == missing),
        "{error}"
    );
    // A list that lacks a file.
    let lacking: Vec<_> = manifest
        .files
        .iter()
        .copied()
        .filter(|entry| entry.name != missing)
        .collect();
    assert!(Ledger::default().restore(&storage, &lacking).is_err());
}

/// What every operation that reads says of the ledger.
fn answers(bench: &mut Bench) -> Vec<Vec<u8>> {
    let filter = |account_id| AccountFilter {
        account_id,
        limit: 8189,
        flags: account_filter_flags::DEBITS | account_filter_flags::CREDITS,
        ..AccountFilter::default()
    };
    let query = QueryFilter {
        user_data_32: 3,
        limit: 8189,
        ..QueryFilter::default()
    };
    let changes = ChangeEventsFilter {
        limit: 2_000,
        ..ChangeEventsFilter::default()
    };
    let ids = (1..20_000).step_by(7).collect::<Vec<u128>>();
    let requests = [
        (
            Operation::LookupTransfers,
            encode(Operation::LookupTransfers, &[ids]),
        ),
        (
            Operation::GetAccountTransfers,
            encode(Operation::GetAccountTransfers, &[vec![filter(3)]]),
        ),
        (
            Operation::GetAccountBalances,
            encode(Operation::GetAccountBalances, &[vec![filter(3)]]),
        ),
        (
            Operation::QueryTransfers,
            encode(Operation::QueryTransfers, &[vec![query]]),
        ),
        (
            Operation::GetChangeEvents,
            encode(Operation::GetChangeEvents, &[vec![changes]]),
        ),
    ];
    requests
        .iter()
        .map(|(operation, body)| bench.run(*operation, 0, body))
        .collect()
}

#[test]
fn whoever_reads_a_damaged_page_is_told_and_nobody_sees_it() {
    let mut bench = Bench::with_options(LedgerOptions {
        chunk_rows_log2: 12,
        ..OPTIONS
    });
    let history = Account {
        flags: account_flags::HISTORY,
        ..account(3)
    };
    bench.accounts(&[account(1), account(2), history]);
    for first in (1..20_000).step_by(2_000) {
        bench.fill(first, first + 1_000);
        let on_3 = |id: u128| Transfer {
            credit_account_id: 3,
            user_data_128: id.wrapping_mul(u128::MAX / 7),
            user_data_32: 3,
            ..transfer(id, 1)
        };
        bench.transfers(&(first + 1_000..first + 2_000).map(on_3).collect::<Vec<_>>());
        bench.wait_seconds(70);
        bench.pulse();
    }
    let mut storage = MemoryStorage::default();
    let reference = bench.checkpoint(&mut storage).unwrap();
    let expected = answers(&mut bench);
    assert!(expected.iter().all(|reply| reply.len() > 5_000));
    let manifest = Manifest::open(&storage, &reference).unwrap();
    let chunks = manifest
        .files
        .iter()
        .filter(|file| file.name.kind.is_chunk());
    let (mut pages, mut told) = (0, 0);
    for file in chunks {
        for page in 0..usize::try_from(file.data_size).unwrap().div_ceil(PAGE_SIZE) {
            let mut restored = Bench {
                ledger: restore(&storage, &reference).unwrap(),
                op: bench.op,
                clock: bench.clock,
            };
            let at = page * PAGE_SIZE + 4_000;
            storage.damage(file.name, at);
            match Damage::catch(|| answers(&mut restored)) {
                // It had been read before, or nobody asked for it.
                Ok(answers) => assert_eq!(answers, expected),
                Err(damage) => {
                    assert_eq!(damage.entry, *file);
                    let offset = format!("is damaged at offset {}", page * PAGE_SIZE);
                    assert!(damage.what.contains(&offset), "{damage}");
                    told += 1;
                }
            }
            storage.damage(file.name, at);
            pages += 1;
        }
    }
    assert!(pages > 20 && told * 2 > pages, "{told} of {pages}");
}
