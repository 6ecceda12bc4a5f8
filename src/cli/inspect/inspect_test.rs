//! Directories as the product makes them (format, the journal's own files, the store's own
//! checkpoints), whole and damaged in every way that a disk or a careless copy can.
//!
//! Each inspection also checks that it has left every file as it was.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use stampede_client::wire::multibatch::Encoder;
use stampede_client::wire::{Account, Operation, Release};
use stampede_journal::device::WriteAt;
use stampede_journal::{AlignedBuffer, Journal};
use zerocopy::{FromBytes, IntoBytes};

use super::journal::{OpRange, PrepareCheck, RowStatus};
use super::log::LogReport;
use super::text::Hex;
use super::*;
use crate::machine::Machine;
use crate::machine::ledger::Ledger;
use crate::message::{Command, Header, checksum};
use crate::replica::open::{journal_config, restore};
use crate::replica::superblock::{Identity, State};
use crate::runtime::directory::DataDirectory;
use crate::runtime::storage::DirectoryStorage;
use crate::store::{
    FileEntry, FileKind, FileName, Manifest, SealedFile, SealedWriter, Snapshot, Storage,
    StoreError, write_checkpoint,
};
use crate::vsr::root_checksum;
use crate::vsr::sessions::{Limits, Sessions};

const SEGMENT_SIZE: u64 = 64 * 1024;
const TIME: u64 = 1_700_000_000_000_000_000;

/// A formatted directory, and what is to be appended next.
struct Directory {
    _parent: tempfile::TempDir,
    data: DataDirectory,
    state: State,
    parent: u128,
    op: u64,
}

fn directory() -> Directory {
    let target = std::env::current_exe().unwrap();
    // Below the build directory: the system's one may be in memory, which has no direct I/O.
    let parent = tempfile::tempdir_in(target.parent().unwrap()).unwrap();
    let data = DataDirectory::new(parent.path().join("0"));
    let identity = Identity {
        cluster: 7,
        replica: 1,
        replica_count: 3,
        standby_count: 0,
        sessions_max: 8,
        segment_size: SEGMENT_SIZE,
        segment_count: 4,
        recovering: false,
        journal_id: 99,
    };
    let state = data.format(&identity, |_, _| {}).unwrap();
    Directory {
        _parent: parent,
        data,
        state,
        parent: root_checksum(7),
        op: 0,
    }
}

fn accounts_body() -> Vec<u8> {
    let accounts = [1, 2, 3].map(|id| Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::default()
    });
    let events = accounts.as_bytes();
    let operation = Operation::CreateAccounts;
    let mut body = vec![0; events.len() + 1024];
    let mut encoder = Encoder::new(&mut body, operation.event_size());
    encoder.spare()[..events.len()].copy_from_slice(events);
    encoder.end_batch(events.len());
    let size = encoder.finish();
    body.truncate(size);
    body
}

impl Directory {
    fn superblock(&mut self, change: impl FnOnce(&mut State)) {
        change(&mut self.state);
        fs::write(self.data.superblock(), self.state.encode_file()).unwrap();
    }

    /// The prepare that continues the log.
    fn prepare(&mut self, view: u32) -> Vec<u8> {
        self.op += 1;
        let body = accounts_body();
        let mut header = Header::new(Command::Prepare, 7, 0, view);
        header.op = self.op;
        header.parent = self.parent;
        header.commit = self.op - 1;
        header.client = 0xc11e;
        header.request = u32::try_from(self.op).unwrap();
        header.operation = Operation::CreateAccounts.code();
        header.timestamp = TIME + self.op;
        header.size += u32::try_from(body.len()).unwrap();
        header.seal(&body);
        self.parent = header.checksum;
        [header.as_bytes(), &body].concat()
    }

    /// Appends entries through the journal; a marker at the end, as an idle server writes it.
    fn append(&mut self, payloads: &[Vec<u8>], marker: bool) {
        let mut open = self.data.open().unwrap();
        let config = journal_config(&self.state);
        let start = Some(self.state.journal_start);
        let (mut journal, _) =
            Journal::open(config, &mut open.journal, &PrepareCheck, start, |_| {}).unwrap();
        for payload in payloads {
            let header = header_of(payload);
            let buffer = AlignedBuffer::with_payload(payload);
            let (_, write) = journal
                .append(header.op, payload.len(), header.checksum, buffer)
                .unwrap();
            let bytes = &write.buffer.as_slice()[..write.len];
            open.journal
                .write_at(write.file, write.offset, bytes)
                .unwrap();
            journal.on_written(write.token, Ok(write.len)).unwrap();
        }
        if marker {
            let (_, write) = journal.marker(AlignedBuffer::new(4096)).unwrap();
            let bytes = write.buffer.as_slice();
            open.journal
                .write_at(write.file, write.offset, bytes)
                .unwrap();
        }
    }

    /// `count` operations of one view.
    fn fill(&mut self, count: usize, marker: bool) {
        let payloads: Vec<Vec<u8>> = (0..count).map(|_| self.prepare(0)).collect();
        self.append(&payloads, marker);
    }

    /// A checkpoint of the last operation, with three sessions.
    fn checkpoint(&mut self) {
        self.checkpoint_of(&client_table(), |_| {});
    }

    /// One with this client table, and accounts that have been changed.
    fn checkpoint_of(&mut self, sessions: &[u8], change: fn(&mut Account)) {
        let mut ledger = Ledger::default();
        let mut reply = vec![0; 4096];
        let code = Operation::CreateAccounts.code();
        ledger.apply(1, code, TIME, &accounts_body(), &mut reply);
        let mut storage = DirectoryStorage::open(self.data.checkpoints()).unwrap();
        let op = self.op;
        let manifest = write_checkpoint(
            &mut storage,
            op,
            &mut Changed(ledger.whole_snapshot(op), change),
            sessions,
        )
        .unwrap();
        let checksum = self.parent;
        self.superblock(|state| {
            state.checkpoint_op = op;
            state.checkpoint_checksum = checksum;
            state.checkpoint_timestamp = TIME + op;
            state.manifest_checksum = manifest.checksum;
            state.manifest_size = manifest.size;
            state.manifest_data_size = manifest.data_size;
        });
    }

    fn segment(&self, index: u32) -> PathBuf {
        let name = stampede_journal::device::files::segment_name(index);
        self.data.journal().join(name)
    }

    fn checkpoint_file(&self, kind: FileKind) -> PathBuf {
        let name = FileName::new(kind, self.state.checkpoint_op);
        self.data.checkpoints().join(name.to_string())
    }

    fn flip(&self, path: &Path, offset: u64) {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
    }

    /// All bytes and times of all files.
    fn fingerprint(&self) -> BTreeMap<PathBuf, (u128, i64, i64)> {
        let mut found = BTreeMap::new();
        let mut directories = vec![self.data.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::metadata(&path).unwrap();
                if metadata.is_dir() {
                    directories.push(path.clone());
                }
                let sum = if metadata.is_file() {
                    checksum(&fs::read(&path).unwrap())
                } else {
                    0
                };
                found.insert(path, (sum, metadata.mtime(), metadata.mtime_nsec()));
            }
        }
        found
    }

    fn try_inspect(&self, arguments: impl FnOnce(&mut Arguments)) -> Result<Report, Failure> {
        let mut all = Arguments {
            part: Part::All,
            directory: self.data.path().to_owned(),
            json: false,
            limit: 50,
            op: OpRange::parse("..").unwrap(),
        };
        arguments(&mut all);
        let before = self.fingerprint();
        let report = examine(&all);
        assert_eq!(self.fingerprint(), before, "something was written");
        report
    }

    fn inspect(&self) -> Report {
        self.try_inspect(|_| {}).unwrap()
    }
}

/// A snapshot that writes the first account otherwise than it is.
struct Changed(Box<dyn Snapshot>, fn(&mut Account));

impl Snapshot for Changed {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn write(&mut self, storage: &mut dyn Storage) -> Result<Vec<FileEntry>, StoreError> {
        const SECTIONS: RangeInclusive<u32> = 1..=4;
        const SECTION_ROWS: u32 = 3;
        let mut files = self.0.write(storage)?;
        let is_of_accounts = |entry: &&mut FileEntry| entry.name.kind == FileKind::Accounts;
        let entry = files.iter_mut().find(is_of_accounts).unwrap();
        let mut file = SealedFile::open(storage, *entry)?;
        let mut sections = Vec::new();
        for kind in SECTIONS {
            let mut bytes = file.read_rows::<u8>(storage, kind)?;
            if kind == SECTION_ROWS {
                let (account, _) = Account::read_from_prefix(&bytes).unwrap();
                let mut changed = account;
                (self.1)(&mut changed);
                bytes[..Account::SIZE].copy_from_slice(changed.as_bytes());
            }
            sections.push((kind, bytes));
        }
        storage.remove(entry.name).unwrap();
        let mut file = SealedWriter::create(storage, entry.name)?;
        for (kind, bytes) in sections {
            file.section(kind)?;
            file.write(&bytes)?;
        }
        *entry = file.finish()?;
        Ok(files)
    }

    fn discard(&mut self) {
        self.0.discard();
    }
}

fn header_of(payload: &[u8]) -> Header {
    Header::read_from_prefix(payload).unwrap().0
}

/// A client table with three sessions and room for the replies of two, made by the server's own code.
fn client_table() -> Vec<u8> {
    let mut table = Sessions::new(Limits {
        sessions: 8,
        reply_bytes: 2 * 64,
    });
    for (op, client) in [(3, 0xdead), (4, 5), (5, u128::MAX)] {
        let mut prepare = Header::new(Command::Prepare, 7, 0, 0);
        prepare.client = client;
        prepare.op = op;
        prepare.operation = 2;
        prepare.timestamp = TIME;
        prepare.release = Release::CURRENT.0;
        table.commit(&prepare, true, &[1; 64]);
    }
    table.encode()
}

fn code(report: &Report) -> u8 {
    report.verdict().map_or_else(|failure| failure.code, |()| 0)
}

/// The only problem, which must be said in the text as well.
fn only_problem(report: &Report) -> String {
    let [problem] = report.problems.as_slice() else {
        panic!("not one problem: {:#?}", report.problems);
    };
    assert!(report.text().contains(&problem.what));
    problem.what.clone()
}

#[test]
fn a_new_directory_is_sound_and_empty() {
    let report = directory().inspect();
    assert_eq!(code(&report), 0, "{}", report.text());
    let journal = report.journal.as_ref().unwrap();
    assert_eq!((journal.entries, &journal.log), (0, &None));
    let text = report.text();
    for expected in [
        "cluster             7",
        "1 of 3",
        "none yet",
        "nothing after the checkpoint",
        "sound",
    ] {
        assert!(text.contains(expected), "{expected} in:\n{text}");
    }
}

#[test]
fn entries_are_shown_as_they_were_made() {
    let mut directory = directory();
    directory.fill(30, true);
    let report = directory.inspect();
    assert_eq!(code(&report), 0, "{}", report.text());
    let journal = report.journal.as_ref().unwrap();
    let log = LogReport {
        first: 1,
        last: 30,
        commit: 29,
    };
    assert_eq!((journal.entries, journal.markers), (30, 1));
    assert_eq!(journal.log.as_ref(), Some(&log));
    let row = &journal.rows[9];
    assert_eq!((row.op, row.events, row.client), (10, 3, Hex(0xc11e)));
    assert_eq!(row.operation, "create_accounts");
    assert!(journal.rows.iter().all(|row| row.status == RowStatus::Live));
    assert!(report.text().contains("2023-11-14T22:13:20.000000010Z"));

    let report = directory
        .try_inspect(|arguments| {
            arguments.op = OpRange::parse("5..14").unwrap();
            arguments.limit = 4;
        })
        .unwrap();
    let journal = report.journal.as_ref().unwrap();
    let ops: Vec<u64> = journal.rows.iter().map(|row| row.op).collect();
    assert_eq!(ops, [11, 12, 13, 14]);
    assert!(report.text().contains("newest 4 of 10"));
}

#[test]
fn the_log_is_told_from_what_was_replaced_and_what_died() {
    let mut directory = directory();
    let first: Vec<Vec<u8>> = (0..3).map(|_| directory.prepare(0)).collect();
    let parent_of_four = directory.parent;
    let mut payloads = first;
    payloads.extend((0..3).map(|_| directory.prepare(0)));
    // Ops 4 and 5 once more, in view 1; of view 2 there is only a promise: it began after op 4.
    (directory.op, directory.parent) = (3, parent_of_four);
    payloads.extend((0..2).map(|_| directory.prepare(1)));
    directory.append(&payloads, true);
    directory.superblock(|state| {
        (state.view, state.log_view, state.log_view_op) = (2, 2, 4);
    });
    let report = directory.inspect();
    assert_eq!(code(&report), 0, "{}", report.text());
    let journal = report.journal.as_ref().unwrap();
    let rows: Vec<(u64, RowStatus)> = journal
        .rows
        .iter()
        .map(|row| (row.op, row.status))
        .collect();
    let (live, superseded) = (RowStatus::Live, RowStatus::Superseded);
    let expected = [
        (1, live),
        (2, live),
        (3, live),
        (4, superseded),
        (5, superseded),
        (6, superseded),
        (4, live),
        (5, RowStatus::Died),
    ];
    assert_eq!(rows, expected);
    assert_eq!(journal.superseded, 4);
    let log = journal.log.as_ref().unwrap();
    assert_eq!((log.first, log.last), (1, 4));
}

#[test]
fn a_torn_tail_is_no_damage() {
    let mut directory = directory();
    directory.fill(5, false);
    // The half of the last frame that holds its header never made it: there is no trace of it.
    let file = fs::File::options().write(true).open(directory.segment(0));
    file.unwrap().write_all_at(&[0; 2048], 4 * 4096).unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 0, "{}", report.text());
    let journal = report.journal.as_ref().unwrap();
    assert_eq!((journal.entries, journal.corruptions.len()), (4, 0));
    assert!(journal.torn.is_none());

    // The other half did.
    let mut directory = self::directory();
    directory.fill(5, false);
    directory.flip(&directory.segment(0), 4 * 4096 + 300);
    let report = directory.inspect();
    assert_eq!(code(&report), 0, "{}", report.text());
    let journal = report.journal.as_ref().unwrap();
    assert_eq!(journal.torn.as_ref().unwrap().position, 4 * 4096);
    assert!(report.text().contains("had not been acknowledged"));
}

#[test]
fn damage_to_an_acknowledged_entry_names_it_and_the_rest_is_shown() {
    let mut directory = directory();
    directory.fill(20, true);
    directory.flip(&directory.segment(0), 6 * 4096 + 300);
    let report = directory.inspect();
    assert_eq!(code(&report), 3, "{}", report.text());
    assert!(only_problem(&report).contains("op 7, which had been durable"));
    let journal = report.journal.as_ref().unwrap();
    assert_eq!((journal.entries, journal.rows.len()), (19, 19));
    let corruption = &journal.corruptions[0];
    assert_eq!((corruption.op, corruption.entries), (Some(7), Some(1)));
    assert_eq!(corruption.position, 6 * 4096);
}

#[test]
fn damage_to_a_marker_costs_no_operation() {
    let mut directory = directory();
    directory.fill(5, true);
    directory.fill(5, true);
    directory.flip(&directory.segment(0), 5 * 4096 + 300);
    let report = directory.inspect();
    assert_eq!(code(&report), 3, "{}", report.text());
    assert!(only_problem(&report).contains("no operation is lost"));
    let log = report.journal.as_ref().unwrap().log.as_ref().unwrap();
    assert_eq!((log.first, log.last), (1, 10));
}

#[test]
fn missing_short_and_foreign_segments_are_damage() {
    let mut directory = directory();
    directory.fill(40, true);
    let segment = directory.segment(1);
    let bytes = fs::read(&segment).unwrap();

    fs::remove_file(&segment).unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    let text = report.text();
    assert!(text.contains("1 of 4 segment files are missing"), "{text}");
    assert!(
        text.contains("16 operations that had been durable"),
        "{text}"
    );
    assert_eq!(report.journal.as_ref().unwrap().entries, 24);

    fs::write(&segment, &bytes[..8192]).unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    let text = report.text();
    assert!(text.contains("8192 bytes instead of 65536"), "{text}");
    assert!(
        text.contains("14 operations that had been durable"),
        "{text}"
    );

    fs::write(&segment, &bytes).unwrap();
    assert_eq!(code(&directory.inspect()), 0);

    // Another replica's segments.
    directory.superblock(|state| state.journal_id = 100);
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(only_problem(&report).contains("segments belong to journal"));
    assert!(report.journal.is_none() && report.superblock.is_some());

    fs::remove_dir_all(directory.data.journal()).unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(only_problem(&report).contains("4 of 4 segment files"));
}

#[test]
fn copies_of_the_superblock_are_judged_one_by_one() {
    let mut directory = directory();
    directory.fill(3, true);
    let path = directory.data.superblock();
    directory.flip(&path, 4096 + 96);
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(only_problem(&report).contains("copy 1 at offset 4096"));
    assert_eq!(report.journal.as_ref().unwrap().entries, 3);

    // The machine stopped after two of four copies of a change.
    let old = directory.state.encode_file();
    directory.superblock(|state| (state.sequence, state.view) = (2, 4));
    let mut mixed = fs::read(&path).unwrap();
    mixed[8192..].copy_from_slice(&old[8192..]);
    fs::write(&path, &mixed).unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 0, "{}", report.text());
    assert_eq!(report.text().matches("but older").count(), 2);
    assert!(report.text().contains("a view change was under way"));

    fs::write(&path, &mixed[..12288]).unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(report.text().contains("MISSING"));

    fs::write(&path, vec![0; 16384]).unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(report.text().contains("all four copies are damaged"));
    assert!(
        report
            .text()
            .contains("cannot be read without a superblock")
    );
}

#[test]
fn a_superblock_of_another_version_cannot_be_read() {
    let directory = directory();
    let mut sector = directory.state.encode().0;
    sector[24] = 200;
    let sum = checksum(&sector[16..]);
    sector[..16].copy_from_slice(&sum.to_le_bytes());
    fs::write(directory.data.superblock(), sector.repeat(4)).unwrap();
    let report = directory
        .try_inspect(|arguments| arguments.part = Part::Superblock)
        .unwrap();
    assert_eq!(code(&report), 1);
    assert!(only_problem(&report).contains("format version 200"));
}

#[test]
fn checkpoints_are_verified_block_by_block() {
    let mut directory = directory();
    directory.fill(6, true);
    directory.checkpoint();
    fs::write(directory.data.checkpoints().join("notes.txt"), "a").unwrap();
    let unfinished = directory
        .data
        .checkpoints()
        .join(format!("{}.tmp", FileName::new(FileKind::Ledger, 9)));
    fs::write(unfinished, "b").unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 0, "{}", report.text());
    let checkpoint = report.checkpoint.as_ref().unwrap();
    assert_eq!((checkpoint.op, checkpoint.files.len()), (6, 4));
    assert_eq!(checkpoint.others.len(), 2);
    let ledger = checkpoint.ledger.as_ref().unwrap();
    assert_eq!((ledger.accounts, ledger.transfers), (3, 0));
    let storage = DirectoryStorage::open(directory.data.checkpoints()).unwrap();
    let manifest = Manifest::open(&storage, &directory.state.manifest().unwrap()).unwrap();
    assert_eq!(checkpoint.digest, Some(Hex(manifest.digest())));

    // Some byte of a section, then nothing at all.
    let ledger = directory.checkpoint_file(FileKind::Ledger);
    directory.flip(&ledger, 4096 + 50);
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(only_problem(&report).contains("ledger-00000000000000000006 is damaged at offset 0"));
    assert!(report.text().contains("DAMAGED"));
    fs::remove_file(&ledger).unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    let files = &report.checkpoint.as_ref().unwrap().files;
    let broken: Vec<&str> = files
        .iter()
        .filter(|file| file.problem.is_some())
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(broken, ["ledger-00000000000000000006"]);

    let manifest = directory.checkpoint_file(FileKind::Manifest);
    fs::write(&manifest, "nothing").unwrap();
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(report.sessions.is_none() && report.journal.is_some());
}

#[test]
fn sessions_are_those_that_the_server_wrote() {
    let mut directory = directory();
    directory.fill(6, true);
    directory.checkpoint();
    let report = directory.inspect();
    let table = report.sessions.as_ref().unwrap();
    assert_eq!((table.op, table.sessions_max), (6, 8));
    let clients: Vec<Hex> = table
        .sessions
        .iter()
        .map(|session| session.client)
        .collect();
    assert_eq!(clients, [Hex(5), Hex(0xdead), Hex(u128::MAX)]);
    let session = &table.sessions[0];
    assert_eq!((session.session, session.op, session.request), (4, 4, 0));
    assert_eq!(
        (session.operation.as_str(), session.reply_size),
        ("register", Some(64))
    );
    assert_eq!(table.replies_from, 4);
    assert_eq!(table.sessions[1].reply_size, None);
    let text = report.text();
    assert!(
        text.contains("replies of operations before 4 are dropped"),
        "{text}"
    );
    assert_eq!(session.release, Release::CURRENT.to_string());
}

/// Whatever keeps a replica from starting is a problem, though all checksums are right.
#[test]
fn sessions_that_a_start_would_refuse_are_told() {
    const CLIENT: usize = 16;
    const OP: usize = 16 + 56;
    let mut longer = client_table();
    longer.push(0);
    let changed = |at: usize, byte: u8| {
        let mut bytes = client_table();
        bytes[at] = byte;
        bytes
    };
    let refused = [
        (client_table()[..200].to_vec(), "in the middle of a record"),
        (longer, "1 bytes after its last record"),
        (changed(0, 200), "holds 200 sessions"),
        (changed(CLIENT, 0), "out of order at client 0"),
        (changed(OP, 5), "contradicts itself"),
        (
            changed(OP, 7),
            "a reply of op 7, but the checkpoint ends at op 6",
        ),
        (changed(8, 6), "has dropped the reply of op 6"),
    ];
    for (table, expected) in refused {
        let mut directory = directory();
        directory.fill(6, true);
        directory.checkpoint_of(&table, |_| {});
        for part in [Part::Sessions, Part::Verify] {
            let report = directory.try_inspect(|arguments| arguments.part = part);
            let problem = only_problem(&report.unwrap());
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
        let storage = DirectoryStorage::open(directory.data.checkpoints()).unwrap();
        let restored = restore(&directory.state, &storage, Ledger::default);
        let refusal = restored.unwrap_err().to_string();
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
}

/// Right checksums of a wrong balance: nothing is executed on such a ledger.
#[test]
fn a_ledger_that_does_not_hold_is_told() {
    let mut directory = directory();
    directory.fill(6, true);
    directory.checkpoint_of(&client_table(), |account| account.debits_posted += 1);
    let later = directory.prepare(0);
    directory.append(&[later], true);
    let verify = |arguments: &mut Arguments| arguments.part = Part::Verify;
    let report = directory.try_inspect(verify).unwrap();
    assert_eq!(code(&report), 3);
    let what = "account 1: its balances, or that it is closed, are not what its transfers make";
    assert!(only_problem(&report).contains(what));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["verify"]["ledger"]["op"], 6);
    assert_eq!(json["verify"]["ledger"]["broken"], 1);
}

#[test]
fn a_ledger_that_is_ahead_of_its_time_is_told() {
    let mut directory = directory();
    directory.fill(6, true);
    directory.checkpoint();
    let verify = |arguments: &mut Arguments| arguments.part = Part::Verify;
    let report = directory.try_inspect(verify).unwrap();
    assert_eq!(code(&report), 0, "{}", report.text());
    directory.superblock(|state| state.checkpoint_timestamp = TIME - 1);
    let report = directory.try_inspect(verify).unwrap();
    assert!(only_problem(&report).contains(&format!("has a timestamp of {TIME}")));
}

#[test]
fn files_of_different_times_are_noticed() {
    let mut directory = directory();
    directory.fill(6, true);
    directory.checkpoint();

    // The checkpoint of another history.
    let good = directory.state;
    directory.superblock(|state| state.checkpoint_checksum += 1);
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(only_problem(&report).contains("not the one that the checkpoint was taken after"));

    // A superblock that is ahead of the journal.
    directory.superblock(|state| {
        *state = good;
        state.checkpoint_op = 9;
        state.manifest_size = 0;
    });
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(only_problem(&report).contains("the log ends at op 6, before the checkpoint at op 9"));
    directory.superblock(|state| {
        *state = good;
        state.journal_start = 2 * SEGMENT_SIZE;
    });
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(only_problem(&report).contains("no frame near position"));

    // A journal that begins after the checkpoint.
    directory.superblock(|state| {
        *state = good;
        (state.checkpoint_op, state.manifest_size) = (1, 0);
        state.journal_start = 3 * 4096;
    });
    let report = directory.inspect();
    assert_eq!(code(&report), 3);
    assert!(only_problem(&report).contains("begins at op 4, but the checkpoint ends at op 1"));
}

#[test]
fn directories_that_are_in_use_or_not_there_are_refused() {
    let directory = directory();
    let open = directory.data.open().unwrap();
    let failure = directory.try_inspect(|_| {}).unwrap_err();
    assert_eq!(failure.code, 1);
    let expected = format!("another process (pid {})", std::process::id());
    assert!(failure.message.contains(&expected), "{}", failure.message);
    drop(open);
    // Two may look at once.
    let source = Source::open(directory.data.path()).unwrap();
    assert!(directory.inspect().sound);
    drop(source);

    let refusal = |path: &Path| Source::open(path).unwrap_err().message;
    let parent = directory.data.path().parent().unwrap();
    assert!(refusal(&parent.join("no")).contains("does not exist"));
    assert!(refusal(parent).contains("not formatted"));
    // Without a lock file there is nobody to ask, and none is made.
    fs::remove_file(directory.data.path().join("lock")).unwrap();
    assert!(directory.inspect().sound);
}

#[test]
fn json_says_the_same() {
    let mut directory = directory();
    directory.fill(6, true);
    directory.checkpoint();
    directory.flip(&directory.data.superblock(), 12288);
    let report = directory.inspect();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["sound"], false);
    assert_eq!(json["problems"][0]["severity"], "damage");
    assert_eq!(json["superblock"]["copies"][3]["verdict"], "damaged");
    assert_eq!(json["superblock"]["state"]["cluster"], "7");
    assert_eq!(json["journal"]["rows"][5]["op"], 6);
    assert_eq!(json["journal"]["rows"][5]["status"], "live");
    assert_eq!(json["checkpoint"]["ledger"]["accounts"], 3);
    assert_eq!(json["sessions"]["sessions"][2]["client"], "f".repeat(32));

    let part = directory
        .try_inspect(|arguments| arguments.part = Part::Sessions)
        .unwrap();
    let json = serde_json::to_value(&part).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["directory", "problems", "sessions", "sound"]);
}
