//! Whatever is changed is noticed: in the rows, in what leads to them, in what is kept of the past.
//!
//! That nothing is said of ledgers as they should be is seen here and by the histories of `tests::random`, each of
//! which ends with a verification.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use stampede_client::wire::record::transfer_flags as flags;
use stampede_client::wire::{CreateTransferStatus as Status, Transfer};
use zerocopy::{FromBytes, IntoBytes};

use super::super::expiry::PULSE_EVENTS_MAX;
use super::super::history::PeriodOpenings;
use super::super::resolutions::Resolution;
use super::super::row::{AccountRow, Expired};
use super::super::snapshot::SECTION_HEAD;
use super::super::tests::{Bench, account, pending, post, transfer, void};
use super::*;
use crate::machine::Machine;
use crate::store::{
    Blob, FileEntry, FileKind, FileName, Manifest, MemoryStorage, Postings, PostingsBuilder,
    SealedFile, SealedWriter, Storage, write_checkpoint,
};

const LIMITED: u16 = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS;

fn between(debit: u128, credit: u128, event: Transfer) -> Transfer {
    Transfer {
        debit_account_id: debit,
        credit_account_id: credit,
        ..event
    }
}

fn flagged(flags: u16, event: Transfer) -> Transfer {
    Transfer {
        flags: event.flags | flags,
        ..event
    }
}

fn timed(timeout: u32, event: Transfer) -> Transfer {
    Transfer { timeout, ..event }
}

/// Forty accounts, and some of everything: two full chunks of transfers and one of expiries.
fn books() -> Bench {
    let mut bench = Bench::new();
    let accounts: Vec<Account> = (1..=40)
        .map(|id| Account {
            user_data_128: id % 3,
            user_data_64: 7,
            user_data_32: u32::from(id.is_multiple_of(2)),
            flags: match id {
                3 => LIMITED,
                5 => account_flags::CLOSED,
                8 => account_flags::LINKED,
                _ => 0,
            },
            ..account(id)
        })
        .collect();
    bench.accounts(&accounts);
    let plain = |id: u128| Transfer {
        user_data_128: (1 << 100) + id % 4,
        user_data_64: u64::from(id.is_multiple_of(2)),
        user_data_32: 3,
        ..between(1 + id % 2, 10 + id % 7, transfer(id, 100))
    };
    let mut events: Vec<Transfer> = (1..=20).map(plain).collect();
    events.push(between(2, 3, transfer(21, 500)));
    events.push(between(3, 1, transfer(22, 100)));
    events.push(between(2, 7, transfer(23, 500)));
    let balancing = transfer(24, u128::MAX);
    events.push(flagged(flags::BALANCING_DEBIT, between(7, 1, balancing)));
    bench.transfers(&events);
    let data = Transfer {
        user_data_64: 9,
        ..pending(30, 10)
    };
    let closing = |id| flagged(flags::CLOSING_DEBIT, pending(id, 0));
    bench.transfers(&[
        data,
        pending(32, 10),
        pending(34, 10),
        timed(1000, pending(35, 10)),
        between(4, 1, closing(36)),
        between(6, 1, closing(37)),
    ]);
    bench.wait_seconds(2);
    bench.transfers(&[post(31, 30, 4), void(33, 32), void(38, 37)]);
    let expiring: Vec<Transfer> = (100..=139).map(|id| timed(1, pending(id, 5))).collect();
    bench.transfers(&expiring);
    bench.wait_seconds(2);
    bench.pulse();
    bench.transfers(&[flagged(flags::LINKED, transfer(50, 1)), transfer(51, 1)]);
    bench.wait_seconds(1);
    let imported = |event, before| Transfer {
        timestamp: bench.clock - before,
        ..flagged(flags::IMPORTED, event)
    };
    let events = [
        imported(between(1, 40, transfer(60, 1)), 200),
        imported(pending(61, 1), 100),
    ];
    let failing = between(3, 1, transfer(70, 1000));
    bench.transfers(&events);
    let created = bench.transfers(&[failing, transfer(71, 1)]);
    assert_eq!(created, [Status::ExceedsCredits, Status::Created]);
    let books = &bench.ledger.books;
    assert_eq!((books.transfers.len(), books.expired.len()), (78, 40));
    bench
}

fn row(books: &Books, id: u128) -> u32 {
    books.row_of_id(id, IdHash::of(id)).unwrap()
}

/// The transfer's row, to be changed.
fn of(books: &mut Books, id: u128) -> &mut Transfer {
    let row = row(books, id);
    books.transfers.row_mut(row)
}

type Change = (&'static str, fn(&mut Books));

#[test]
fn a_ledger_as_it_should_be() {
    let bench = books();
    let found = bench.ledger.verify();
    let Verified {
        accounts,
        transfers,
        failed_ids,
        unresolved,
        latest,
        broken,
        broken_more,
    } = found;
    assert_eq!(latest, bench.clock);
    assert_eq!(broken, Vec::<String>::new());
    assert_eq!((accounts, transfers, failed_ids), (40, 78, 1));
    assert_eq!((unresolved, broken_more), (4, 0));
}

#[test]
fn expiries_of_one_time_and_posts_ahead_of_theirs_are_as_they_should_be() {
    const SECOND: u64 = 1_000_000_000;
    let mut bench = Bench::with_accounts(2);
    bench.transfers(&[timed(2, pending(1, 10))]);
    let first = bench.clock;
    bench.clock = first + SECOND - 2;
    bench.transfers(&[timed(1, pending(2, 10))]);
    assert_eq!(bench.clock, first + SECOND);
    // Both are due at the moment of the pulse, and one of them gets the timestamp before it.
    bench.clock = first + 2 * SECOND - 1 - u64::from(PULSE_EVENTS_MAX);
    bench.pulse();
    let expired = *bench.ledger.books.expired.row(0);
    assert_eq!(expired.timestamp, first + 2 * SECOND - 1);

    bench.transfers(&[timed(1, pending(3, 10))]);
    let expires_at = bench.clock + SECOND;
    // The post is the first of three events, asked for before the expiry; the last one's time is after it.
    bench.clock = expires_at - 3;
    let imported = |timestamp, event: Transfer| Transfer {
        timestamp,
        ..flagged(flags::IMPORTED, event)
    };
    let statuses = bench.transfers(&[
        imported(expires_at, post(4, 3, 10)),
        imported(1, transfer(5, 1)),
        imported(1, transfer(6, 1)),
    ]);
    assert_eq!(statuses[0], Status::Created);
    assert_eq!(bench.ledger.verify().broken, Vec::<String>::new());
}

fn assert_noticed(what: &str, found: &Verified) {
    let is_told = found.broken.iter().any(|it| it.contains(what));
    assert!(is_told, "{what}: {found:#?}");
}

/// Changes the ledger, and looks; then looks at what a checkpoint of it gives back, with correct checksums.
fn assert_all_noticed(changes: &[Change]) {
    for (what, change) in changes {
        let mut bench = books();
        change(&mut bench.ledger.books);
        assert_noticed(what, &bench.ledger.verify());
        let (storage, files) = checkpoint(&mut bench);
        // What a restore refuses is noticed, too.
        if let Ok(restored) = Ledger::default().restore(&storage, &files) {
            assert_noticed(what, &restored.verify());
        }
    }
}

/// The ledger as it is, in files.
fn checkpoint(bench: &mut Bench) -> (MemoryStorage, Vec<FileEntry>) {
    let mut storage = MemoryStorage::default();
    let mut snapshot = bench.ledger.whole_snapshot(bench.op);
    let written = write_checkpoint(&mut storage, bench.op, &mut *snapshot, b"");
    let manifest = Manifest::open(&storage, &written.unwrap()).unwrap();
    (storage, manifest.files)
}

#[test]
fn transfers_that_could_not_be() {
    assert_all_noticed(&[
        ("reserved_flag", |books| of(books, 21).flags = 1 << 15),
        ("code_must_not_be_zero", |books| of(books, 21).code = 0),
        ("ledger_must_not_be_zero", |books| of(books, 21).ledger = 0),
        ("the_same_ledger_as_accounts", |books| {
            of(books, 21).ledger = 2;
        }),
        ("accounts_must_have_the_same_ledger", |books| {
            books.accounts.row_mut(1).ledger = 2;
        }),
        ("it has no two accounts", |books| {
            of(books, 71).debit_account_id = 2;
        }),
        ("pending_id_must_be_zero", |books| {
            of(books, 21).pending_id = 20
        }),
        ("timeout_reserved_for_pending_transfer", |books| {
            of(books, 21).timeout = 1;
        }),
        ("timeout_reserved_for_pending_transfer", |books| {
            of(books, 31).timeout = 1;
        }),
        ("imported_event_timeout_must_be_zero", |books| {
            of(books, 61).timeout = 1;
        }),
        ("closing_transfer_must_be_pending", |books| {
            of(books, 21).flags = flags::CLOSING_CREDIT;
        }),
        ("debit_account_already_closed", |books| {
            of(books, 71).debit_account_id = 4;
        }),
        ("exceeds_credits", |books| of(books, 22).amount = 501),
        ("overflows_debits", |books| of(books, 23).amount = u128::MAX),
        ("balancing flags", |books| of(books, 24).amount = 501),
        ("not younger than its accounts", |books| {
            of(books, 1).timestamp = 1;
        }),
        ("must_postdate_credit_account", |books| {
            books.accounts.row_mut(39).timestamp = 1 << 60;
        }),
        ("its timestamp is not after", |books| {
            of(books, 21).timestamp -= 1;
        }),
        ("its timestamp is not after", |books| {
            of(books, 71).timestamp = 1 << 63;
        }),
        ("has the timestamp of an account", |books| {
            of(books, 1).timestamp = books.accounts.row(30).timestamp;
        }),
        ("before is linked to", |books| {
            of(books, 24).flags |= flags::LINKED;
        }),
        ("before is linked to", |books| of(books, 51).timestamp += 1),
        ("linked to one that is not there", |books| {
            of(books, 71).flags = flags::LINKED;
        }),
    ]);
}

#[test]
fn resolutions_that_could_not_be() {
    assert_all_noticed(&[
        ("flags_are_mutually_exclusive", |books| {
            of(books, 31).flags |= flags::BALANCING_DEBIT;
        }),
        ("flags_are_mutually_exclusive", |books| {
            of(books, 31).flags |= flags::VOID_PENDING_TRANSFER;
        }),
        ("pending_transfer_not_pending", |books| {
            of(books, 31).pending_id = 21
        }),
        ("which is not there", |books| {
            of(books, 31).pending_id = 1000
        }),
        ("which is later", |books| of(books, 31).pending_id = 61),
        ("is resolved twice", |books| of(books, 31).pending_id = 32),
        ("exceeds_pending_transfer_amount", |books| {
            of(books, 31).amount = 11;
        }),
        ("pending_transfer_has_different_amount", |books| {
            of(books, 33).amount = 9;
        }),
        ("has_different_credit_account_id", |books| {
            of(books, 31).credit_account_id = 9;
        }),
        ("taken over", |books| of(books, 31).user_data_64 = 0),
        ("taken over", |books| of(books, 31).ledger = 0),
        ("pending_transfer_expired", |books| {
            of(books, 30).timeout = 1
        }),
        ("account_already_closed", |books| {
            of(books, 37).credit_account_id = 2;
            of(books, 37).flags |= flags::CLOSING_CREDIT;
        }),
        ("was Posted, and something else is noted", |books| {
            let row = row(books, 30);
            books.resolutions.set(row, Resolution::Voided);
        }),
        ("by nothing", |books| {
            let row = row(books, 34);
            books.resolutions.set(row, Resolution::Posted);
        }),
        ("was never pending", |books| {
            books.resolutions.set(0, Resolution::Expired);
        }),
        ("by nothing", |books| {
            let end = books.transfers.len();
            books.resolutions.set(end, Resolution::Posted);
        }),
    ]);
}

#[test]
fn expiries_that_could_not_be() {
    assert_all_noticed(&[
        ("are listed", |books| books.expiries.insert(1 << 60, 2)),
        ("nothing will let it expire", |books| {
            let (expires_at, row) = books.expiries.iter().next().unwrap();
            books.expiries.remove(expires_at, row);
        }),
        ("the expiry of transfer 100", |books| {
            books.expired.row_mut(0).amount += 1;
        }),
        ("the expiry of transfer 101", |books| {
            books.expired.row_mut(1).reserved[2] = 1;
        }),
        ("the expiry of transfer 102", |books| {
            books.expired.row_mut(2).debit += 1;
        }),
        ("the expiry of transfer 103", |books| {
            books.expired.row_mut(3).flags = 0;
        }),
        ("the expiry of transfer 105", |books| {
            books.expired.row_mut(4).timestamp += 1 << 20;
        }),
        // Too early.
        ("the expiry of transfer 139", |books| {
            of(books, 139).timeout = 100;
        }),
        // Two in the wrong order.
        ("the expiry of transfer 110", |books| {
            let Expired { pending, .. } = *books.expired.row(10);
            books.expired.row_mut(10).pending = pending + 1;
            books.expired.row_mut(11).pending = pending;
        }),
        ("that of no transfer before it", |books| {
            books.expired.row_mut(6).pending = 77;
        }),
        ("after more transfers than there are", |books| {
            books.expired.row_mut(39).at = 79;
        }),
    ]);
}

#[test]
fn accounts_that_could_not_be() {
    assert_all_noticed(&[
        ("ledger_must_not_be_zero", |books| {
            books.accounts.row_mut(8).ledger = 0;
        }),
        ("code_must_not_be_zero", |books| {
            books.accounts.row_mut(8).code = 0
        }),
        ("reserved_flag", |books| {
            books.accounts.row_mut(8).flags = 1 << 6
        }),
        ("flags_are_mutually_exclusive", |books| {
            let limits = LIMITED | account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS;
            books.accounts.row_mut(8).flags = limits;
        }),
        ("account 21: its timestamp is not after", |books| {
            books.accounts.row_mut(20).timestamp -= 1;
        }),
        ("before is linked to", |books| {
            books.accounts.row_mut(8).timestamp += 1
        }),
        ("the last account is linked", |books| {
            books.accounts.row_mut(39).flags = account_flags::LINKED;
        }),
        ("exceeds_credits", |books| {
            books.accounts.row_mut(0).flags |= LIMITED
        }),
        ("account 1: its balances", |books| {
            books.accounts.row_mut(0).debits_posted += 1;
        }),
        ("account 2: its balances", |books| {
            books.accounts.row_mut(1).credits_pending -= 1;
        }),
        ("account 4: its balances, or that it is closed", |books| {
            books.accounts.row_mut(3).flags &= !account_flags::CLOSED;
        }),
        ("account 6: its balances, or that it is closed", |books| {
            books.accounts.row_mut(5).flags |= account_flags::CLOSED;
        }),
        ("account 4: its mark", |books| {
            books.accounts.row_mut(3).opened -= 1
        }),
        ("account 9: its mark", |books| {
            books.accounts.row_mut(8).opened = 1
        }),
    ]);
}

/// What a start makes anew would not survive a checkpoint.
#[test]
fn ids_and_heads_that_lead_elsewhere() {
    let changes: [Change; 10] = [
        ("account 77 is not found", |books| {
            books.accounts.row_mut(0).id = 77;
        }),
        ("transfer 77 is not found", |books| of(books, 21).id = 77),
        ("transfer 22 is not found", |books| of(books, 21).id = 22),
        ("id_must_not_be_zero", |books| of(books, 21).id = 0),
        ("the failed id 77", |books| *books.failed.row_mut(0) = 77),
        ("the failed id 1 is", |books| *books.failed.row_mut(0) = 1),
        ("chunk 1 of transfers: its head", |books| {
            books.indexes.first_timestamps[1] += 1;
        }),
        ("chunk 0 of expiries: its head", |books| {
            books.indexes.first_expired[0] += 1;
        }),
        ("indexed by other accounts", |books| {
            books.indexes.parties[3][0] += 1;
        }),
        ("more transfers are indexed", |books| {
            books.indexes.parties.push([0, 1]);
        }),
    ];
    for (what, change) in changes {
        let mut bench = books();
        change(&mut bench.ledger.books);
        assert_noticed(what, &bench.ledger.verify());
    }
}

/// The sections of a file, by number.
type Sections = Vec<(u32, Vec<u8>)>;

fn sections(storage: &MemoryStorage, entry: FileEntry) -> Sections {
    let mut file = SealedFile::open(storage, entry).unwrap();
    let numbers = (1..=8).filter(|number| file.section(*number).is_ok());
    let numbers: Vec<u32> = numbers.collect();
    let mut read = |number| (number, file.read_rows::<u8>(storage, number).unwrap());
    numbers.into_iter().map(&mut read).collect()
}

/// A file in the place of another, with correct checksums.
fn write_again(storage: &mut MemoryStorage, name: FileName, sections: &Sections) -> FileEntry {
    storage.remove(name).unwrap();
    let mut file = SealedWriter::create(storage, name).unwrap();
    for (number, bytes) in sections {
        file.section(*number).unwrap();
        file.write(bytes).unwrap();
    }
    file.finish().unwrap()
}

#[test]
fn files_that_say_otherwise() {
    const HEAD: u32 = SECTION_HEAD;
    let not_found = "is not found by its id";
    let changes: [(FileKind, u32, usize, &str); 8] = [
        (
            FileKind::Transfers,
            HEAD,
            0,
            "chunk 0 of transfers: its head",
        ),
        (
            FileKind::Transfers,
            HEAD,
            8,
            "became full at another transfer",
        ),
        (
            FileKind::Transfers,
            HEAD,
            12,
            "did not become full in any order",
        ),
        (FileKind::Expired, HEAD, 0, "chunk 0 of expiries: its head"),
        (FileKind::Expired, HEAD, 12, "became full at another expiry"),
        // Of a run: the greatest id, a bit of an entry's hash, one of the filter.
        (FileKind::TransferRun, 1, 16, not_found),
        (FileKind::TransferRun, 3, 5, not_found),
        (FileKind::TransferRun, 4, 0, not_found),
    ];
    for (kind, section, at, what) in changes {
        let (mut storage, mut files) = checkpoint(&mut books());
        let entry = files.iter_mut().find(|entry| entry.name.kind == kind);
        let entry = entry.unwrap();
        let mut sections = sections(&storage, *entry);
        let (_, bytes) = sections
            .iter_mut()
            .find(|(number, _)| *number == section)
            .unwrap();
        match (kind, section) {
            (FileKind::TransferRun, 4) => bytes.fill(0),
            (FileKind::TransferRun, _) => bytes[at] = bytes[at].wrapping_sub(1),
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
        *entry = write_again(&mut storage, entry.name, &sections);
        match Ledger::default().restore(&storage, &files) {
            Ok(restored) => assert_noticed(what, &restored.verify()),
            Err(error) => assert!(error.to_string().contains(what), "{what}: {error}"),
        }
    }
}

/// Whatever bit of whatever file is another one, nothing ends the process. Many mean nothing, or something else that
/// could as well be: a filter's, user data.
#[test]
fn any_bit_may_be_another() {
    let (storage, files) = checkpoint(&mut books());
    let storage = RefCell::new(storage);
    let noticed = Cell::new(0);
    let cases = 2000;
    let bit = (any::<Index>(), any::<Index>(), any::<Index>(), 0..8u8);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&bit, |(file, section, byte, bit)| {
        let mut files = files.clone();
        let file = file.index(files.len());
        let mut storage = storage.borrow_mut();
        let entry = files[file];
        let before = sections(&storage, entry);
        let mut after = before.clone();
        let section = section.index(after.len());
        let (_, bytes) = &mut after[section];
        if bytes.is_empty() {
            return Ok(());
        }
        let byte = byte.index(bytes.len());
        bytes[byte] ^= 1 << bit;
        files[file] = write_again(&mut storage, entry.name, &after);
        let restored = Ledger::default().restore(&*storage, &files);
        let is_noticed = match restored {
            Err(_) => true,
            Ok(restored) => !restored.verify().broken.is_empty(),
        };
        noticed.set(noticed.get() + u32::from(is_noticed));
        prop_assert_eq!(write_again(&mut storage, entry.name, &before), entry);
        Ok(())
    });
    outcome.unwrap();
    assert!(noticed.get() > cases / 3, "{} of {cases}", noticed.get());
}

/// The postings again, with another key in the place of the first of a column.
fn posted_otherwise(postings: &Blob, columns: u32, number: usize, key: Option<u32>) -> Blob {
    const ROWS: u32 = 32;
    let former = Postings::of(postings);
    let mut builder = PostingsBuilder::default();
    builder.begin(ROWS, columns);
    for column in 0..columns as usize {
        let mut keys = [None; ROWS as usize];
        for (key, positions) in former.keys(column) {
            positions.for_each(|position| keys[position as usize] = Some(key));
        }
        if column == number {
            let first = keys.iter().position(Option::is_some).unwrap_or(0);
            assert_ne!(keys[first], key);
            keys[first] = key;
        }
        builder.column(keys.into_iter());
    }
    builder.finish()
}

#[test]
fn postings_that_lead_elsewhere() {
    type Chunks = fn(&mut Books) -> &mut Blob;
    let tables: [(&str, &[&str], Chunks); 4] = [
        ("chunk 0 of accounts", &ACCOUNT_KEYS, |books| {
            &mut books.indexes.accounts[0]
        }),
        (
            "chunk 0 of transfers",
            &super::super::indexes::TRANSFER_KEYS,
            |books| &mut books.indexes.transfers[0],
        ),
        (
            "chunk 1 of transfers",
            &super::super::indexes::TRANSFER_KEYS,
            |books| &mut books.indexes.transfers[1],
        ),
        (
            "chunk 0 of expiries",
            &super::super::indexes::EXPIRED_KEYS,
            |books| &mut books.indexes.expired[0],
        ),
    ];
    for (table, names, blob) in tables {
        for (number, name) in names.iter().enumerate() {
            for key in [Some(12345), None] {
                let mut bench = books();
                let blob = blob(&mut bench.ledger.books);
                let columns = u32::try_from(names.len()).unwrap();
                let was = Postings::of(blob).keys(number).count() > 0;
                if key.is_some() || was {
                    *blob = posted_otherwise(blob, columns, number, key);
                    let what = format!("{table}: its postings by {name}");
                    let found = bench.ledger.verify();
                    assert_noticed(&what, &found);
                    assert_eq!(found.broken.len(), 1, "{found:#?}");
                    // Those of accounts are in no file.
                    if names.len() != ACCOUNT_KEYS.len() {
                        let (storage, files) = checkpoint(&mut bench);
                        let restored = Ledger::default().restore(&storage, &files);
                        assert_eq!(restored.unwrap().verify(), found);
                    }
                }
            }
        }
    }
}

/// Changes the words of what a period keeps.
fn in_openings(books: &mut Books, period: usize, change: impl FnOnce(&mut Vec<u32>)) {
    let period = &mut books.history.periods[period];
    let blob = period.openings.encoded();
    let mut words = <[u32]>::ref_from_bytes(blob.bytes()).unwrap().to_vec();
    change(&mut words);
    period.openings = PeriodOpenings::File(Blob::of_words(words));
}

#[test]
fn a_past_that_was_not() {
    assert_all_noticed(&[
        ("period 1 begins at", |books| {
            books.history.periods[0].end.expired += 1;
        }),
        ("period 2 begins at", |books| {
            books.history.periods[1].end.transfers += 1;
        }),
        // The last balance that the period keeps.
        (
            "what period 1 keeps is not what its balances were",
            |books| {
                in_openings(books, 1, |words| {
                    let [marks, released, size] = [words[0], words[1], words[2]];
                    let last = (3 + marks * 3 + released * 6) as usize * 4 + size as usize - 1;
                    words.as_mut_bytes()[last] ^= 1;
                });
            },
        ),
        // Somebody is closed, or is not.
        (
            "what period 0 keeps is not what its balances were",
            |books| {
                in_openings(books, 0, |words| {
                    let records = (3 + words[0] * 3 + words[1] * 6) as usize;
                    words[records] ^= 1 << 20;
                });
            },
        ),
        // An event that has opened nothing has a mark.
        ("period 1 keeps other openings", |books| {
            in_openings(books, 1, |words| words[3 + 1] |= 1 << 31);
        }),
        // The mark of the first event is gone.
        (
            "what period 0 keeps is not what its balances were",
            |books| {
                in_openings(books, 0, |words| words[3] &= !1);
            },
        ),
        // Records begin somewhere else.
        ("period 2 keeps other openings", |books| {
            in_openings(books, 2, |words| words[3 + 2] += 1);
        }),
        ("what it released is not what its period keeps", |books| {
            let period = period_with_released(books);
            in_openings(books, period, |words| {
                let released = 3 + words[0] as usize * 3;
                words[released] += 1;
            });
        }),
        ("what it released is not what its period keeps", |books| {
            let period = period_with_released(books);
            in_openings(books, period, |words| {
                let released = 3 + words[0] as usize * 3;
                words[released + 5] = 0;
            });
        }),
        // Another transfer has released something.
        ("keeps other openings than those of its events", |books| {
            let period = period_with_released(books);
            in_openings(books, period, |words| {
                let released = 3 + words[0] as usize * 3;
                let first = words[released..released + 6].to_vec();
                words.splice(released..released, first);
                words[1] += 1;
            });
        }),
    ]);
}

fn period_with_released(books: &Books) -> usize {
    let row = row(books, 31);
    let period = books.history.of_transfer(row) as usize;
    let blob = books.history.periods[period].openings.encoded();
    let words = <[u32]>::ref_from_bytes(blob.bytes()).unwrap();
    assert!(
        words[1] > 0,
        "the post of a part is of a period that is over"
    );
    period
}

#[test]
fn what_is_wrong_everywhere_is_told_in_part() {
    let mut bench = books();
    for row in 0..bench.ledger.books.transfers.len() {
        bench.ledger.books.transfers.row_mut(row).code = 0;
    }
    let accounts = bench.ledger.books.accounts.len();
    for row in 0..accounts {
        let account: &mut AccountRow = bench.ledger.books.accounts.row_mut(row);
        account.ledger = 0;
    }
    let found = bench.ledger.verify();
    assert_eq!(found.broken.len(), BROKEN_MAX);
    assert!(found.broken_more > 0);
}
