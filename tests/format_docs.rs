//! The tables of `docs/disk-format.md` and `docs/wire-format.md` against the code.
//!
//! A table documents a layout when the line before it begins with its name and size, like
//! `**`Header`**, 256 bytes`. For each such table:
//! - rows lie back to back and add up to the size;
//! - for public structs, names, offsets and sizes are those of the compiler;
//! - for what is private, the product writes a file, and the values found at the documented offsets
//!   are those it was given.
//!
//! A layout that is documented but not tested here, or the other way round, fails as well.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::mem::offset_of;

use stampede::machine::Machine;
use stampede::machine::ledger::{Ledger, LedgerOptions};
use stampede::message::{Command, Header};
use stampede::replica::superblock::{Identity, Life, Past, State};
use stampede::store::{
    FileKind, FileName, Manifest, ManifestRef, MemoryStorage, Section, Storage, write_checkpoint,
};
use stampede::vsr::sessions::{Limits, Sessions};
use stampede_client::wire::multibatch::Encoder;
use stampede_client::wire::record::transfer_flags;
use stampede_client::wire::{Account, Operation, Transfer};
use stampede_journal::device::memory::{Image, MemoryDevice};
use stampede_journal::{AlignedBuffer, Config, Journal, Xxh3, checksum_payload};
use xxhash_rust::xxh3::xxh3_128;
use zerocopy::{FromBytes, IntoBytes};

const DISK: &str = include_str!("../docs/disk-format.md");
const WIRE: &str = include_str!("../docs/wire-format.md");

/// A documented layout: fields by name, in order.
#[derive(Debug)]
struct Layout {
    size: usize,
    fields: Vec<Field>,
}

#[derive(Debug, PartialEq, Eq)]
struct Field {
    name: String,
    at: usize,
    size: usize,
}

impl Layout {
    fn field(&self, name: &str) -> &Field {
        let found = self.fields.iter().find(|field| field.name == name);
        found.unwrap_or_else(|| panic!("no field {name} in {self:?}"))
    }

    /// The number that `bytes` hold where the field is documented to be; of a longer field, how it begins.
    fn number(&self, name: &str, bytes: &[u8]) -> u128 {
        let field = self.field(name);
        let mut number = [0; 16];
        let size = field.size.min(16);
        number[..size].copy_from_slice(&bytes[field.at..field.at + size]);
        u128::from_le_bytes(number)
    }

    /// Compares numbers in `bytes` with what they must be, for every field of the layout.
    fn assert_numbers(&self, bytes: &[u8], expected: &[(&str, u128)]) {
        for (name, value) in expected {
            assert_eq!(self.number(name, bytes), *value, "{name}");
        }
        for field in &self.fields {
            let zero = field.name.starts_with("reserved") || field.name.starts_with("zero");
            if zero {
                let bytes = &bytes[field.at..field.at + field.size];
                assert!(bytes.iter().all(|byte| *byte == 0), "{}", field.name);
            } else {
                let name = field.name.as_str();
                assert!(expected.iter().any(|(n, _)| *n == name), "{name} untested");
            }
        }
    }
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// Every layout of a document, by name.
fn layouts(document: &str) -> BTreeMap<String, Layout> {
    let mut found = BTreeMap::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some((name, rest)) = line
            .strip_prefix("**`")
            .and_then(|rest| rest.split_once("`**, "))
        else {
            continue;
        };
        let Some(size) = rest
            .split_once(" bytes")
            .and_then(|(size, _)| size.parse().ok())
        else {
            continue;
        };
        let table = lines.by_ref().skip_while(|line| line.is_empty());
        let rows = table.map_while(cells).skip(2).map(|row| Field {
            at: row[0].parse().expect("an offset"),
            size: row[1].parse().expect("a size"),
            name: row[2].trim_matches('`').to_owned(),
        });
        let layout = Layout {
            size,
            fields: rows.collect(),
        };
        assert!(!layout.fields.is_empty(), "{name} has no table");
        let twice = found.insert(name.to_owned(), layout);
        assert!(twice.is_none(), "{name} is documented twice");
    }
    found
}

fn layout(document: &str, name: &str) -> Layout {
    let mut all = layouts(document);
    all.remove(name)
        .unwrap_or_else(|| panic!("{name} is not documented"))
}

fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Name, offset and size of the public fields of a struct.
macro_rules! fields {
    ($type:ty: $($field:ident)*) => {
        vec![$(Field {
            name: stringify!($field).to_owned(),
            at: offset_of!($type, $field),
            size: size_of_field(|value: &$type| &value.$field),
        },)*]
    };
}

#[test]
fn every_table_covers_every_byte_once() {
    let mut names = Vec::new();
    for document in [DISK, WIRE] {
        for (name, layout) in layouts(document) {
            let mut end = 0;
            for field in &layout.fields {
                assert_eq!(field.at, end, "{name}.{}", field.name);
                end += field.size;
            }
            assert_eq!(end, layout.size, "{name}");
            names.push(name);
        }
    }
    names.sort_unstable();
    let tested = [
        "Account",
        "AccountChange",
        "AccountsHead",
        "ChunkHead",
        "Counts",
        "Expired",
        "ExpiryRow",
        "Footer",
        "Frame",
        "Header",
        "PackedEntry",
        "PackedField",
        "PackedHead",
        "RunHead",
        "Section",
        "SessionRecord",
        "SessionsHeader",
        "State",
        "Transfer",
    ];
    assert_eq!(names, tested);
}

#[test]
fn a_table_that_is_wrong_is_noticed() {
    let moved = WIRE.replace("| 200 | 8 | `op` |", "| 201 | 8 | `op` |");
    assert_ne!(moved, WIRE);
    assert_ne!(layout(&moved, "Header").fields, header_fields());
}

fn header_fields() -> Vec<Field> {
    fields!(Header: checksum magic version command replica size checksum_body cluster view release
        log_view events reserved parent client request_checksum context session op commit timestamp
        request operation reserved_tail)
}

#[test]
fn message_header() {
    let documented = layout(WIRE, "Header");
    assert_eq!(documented.fields, header_fields());
    assert_eq!(documented.size, size_of::<Header>());

    let mut header = Header::new(Command::Prepare, 9, 1, 3);
    header.seal(&[]);
    let bytes = header.as_bytes();
    assert_eq!(documented.number("checksum", bytes), xxh3_128(&bytes[16..]));
    assert_eq!(&bytes[16..24], b"STAMPEDE");
}

#[test]
fn commands_and_their_numbers() {
    let (_, section) = WIRE.split_once("## Commands").expect("there is a section");
    let rows = section.lines().filter_map(cells).skip(2);
    let documented: Vec<(u8, String)> = rows
        .map(|row| {
            let name = row[1].trim_matches('`').replace('_', "");
            (row[0].parse().expect("a number"), name)
        })
        .collect();
    let commands = Command::ALL.map(|c| (c as u8, format!("{c:?}").to_lowercase()));
    assert_eq!(documented, commands);
}

#[test]
fn ledger_records() {
    let account = layout(DISK, "Account");
    let mut fields = fields!(Account: id debits_pending debits_posted credits_pending credits_posted
        user_data_128 user_data_64 user_data_32 reserved ledger code flags timestamp);
    // The protocol's record but for one field, which is the file's own.
    let reserved = fields.iter_mut().find(|field| field.name == "reserved");
    "opened".clone_into(&mut reserved.unwrap().name);
    assert_eq!(account.fields, fields);
    assert_eq!(account.size, size_of::<Account>());

    let transfer = layout(DISK, "Transfer");
    let fields = fields!(Transfer: id debit_account_id credit_account_id amount pending_id
        user_data_128 user_data_64 user_data_32 timeout ledger code flags timestamp);
    assert_eq!(transfer.fields, fields);
    assert_eq!(transfer.size, size_of::<Transfer>());
}

#[test]
fn superblock() {
    let documented = layout(DISK, "State");
    let mut state = State::format(&Identity {
        cluster: 11,
        replica: 2,
        replica_count: 5,
        standby_count: 3,
        sessions_max: 64,
        segment_size: 1 << 26,
        segment_count: 16,
        recovering: true,
        journal_id: 99,
    });
    state.sequence = 31;
    (state.view, state.log_view, state.log_view_op) = (32, 33, 34);
    (state.commit, state.journal_start) = (35, 36);
    (state.checkpoint_checksum, state.manifest_checksum) = (37, 38);
    (state.checkpoint_op, state.checkpoint_timestamp) = (39, 40);
    (state.manifest_size, state.manifest_data_size) = (41, 42);
    (state.starts, state.life) = (43, 44);
    let life = |starts, number| Life { starts, number };
    (state.members[0], state.members[1]) = (life(45, 46), life(47, 48));
    (state.sound_op, state.sound_position, state.sound_checksum) = (49, 50, 51);
    let (mut past, mut numbers) = ([0u32; 16], [0u8; 64]);
    past[3] = 52;
    numbers.copy_from_slice(past.as_bytes());
    state.past = Past::read_from_bytes(&numbers).unwrap();
    let file = state.encode_file();
    assert_eq!(file.len(), 16384);
    for copy in file.chunks_exact(documented.size) {
        documented.assert_numbers(
            copy,
            &[
                ("checksum", xxh3_128(&copy[16..])),
                ("magic", u64::from_le_bytes(*b"STMPSUPR").into()),
                ("version", 3),
                ("replica", 2),
                ("replica_count", 5),
                ("sequence", 31),
                ("sessions_max", 64),
                ("segment_count", 16),
                ("cluster", 11),
                ("journal_id", 99),
                ("segment_size", 1 << 26),
                ("view", 32),
                ("log_view", 33),
                ("log_view_op", 34),
                ("commit", 35),
                ("checkpoint_checksum", 37),
                ("manifest_checksum", 38),
                ("checkpoint_op", 39),
                ("checkpoint_timestamp", 40),
                ("manifest_size", 41),
                ("manifest_data_size", 42),
                ("journal_start", 36),
                ("starts", 43),
                ("life", 44),
                ("standby_count", 3),
                ("recovering", 1),
                ("member_starts", 45),
                ("member_life", 46),
                ("members", 48 << 64 | 47),
                ("sound_op", 49),
                ("sound_position", 50),
                ("sound_checksum", 51),
                // Of the first four: that of start 3 is the highest.
                ("past", 52 << 96),
            ],
        );
    }
    let root = [*b"stampede log 1 \0", 11u128.to_le_bytes()].concat();
    assert_eq!(stampede::vsr::root_checksum(11), xxh3_128(&root));
}

#[test]
fn journal_frame() {
    let documented = layout(DISK, "Frame");
    let config = Config {
        id: 99,
        segment_size: 1 << 20,
        segment_count: 4,
        inflight_bytes_max: 1 << 20,
    };
    let mut device = MemoryDevice::<AlignedBuffer>::from_image(Image::new(&config));
    let (mut journal, _) =
        Journal::open(config, &mut device, &Xxh3, None, |_| panic!("empty")).unwrap();
    let append = |journal: &mut Journal, tag, payload: &[u8]| {
        let sum = checksum_payload(payload);
        let buffer = AlignedBuffer::with_payload(payload);
        let (_, write) = journal.append(tag, payload.len(), sum, buffer).unwrap();
        journal.on_written(write.token, Ok(write.len)).unwrap();
        write.buffer
    };
    let first = append(&mut journal, 7, b"one");
    assert_eq!(
        documented.number("previous", first.as_slice()),
        u64::MAX.into()
    );
    let second = append(&mut journal, 8, b"second");
    let bytes = second.as_slice();
    documented.assert_numbers(
        bytes,
        &[
            ("checksum", xxh3_128(&bytes[16..256])),
            ("magic", u64::from_le_bytes(*b"STMPEDEJ").into()),
            ("version", 1),
            ("kind", 1),
            ("journal", 99),
            ("position", 4096),
            ("sequence", 2),
            ("entries", 1),
            ("previous", 0),
            ("durable", 4096),
            ("durable_sequence", 2),
            ("durable_entries", 1),
            ("oldest", 0),
            ("tag", 8),
            ("payload_size", 6),
            ("segment_count", 4),
            ("payload_checksum", checksum_payload(b"second")),
            ("segment_size", 1 << 20),
            ("epoch", 1),
        ],
    );
    assert_eq!(&bytes[256..262], b"second");

    let (_, write) = journal.marker(AlignedBuffer::new(4096)).unwrap();
    assert_eq!(documented.number("kind", write.buffer.as_slice()), 2);
}

/// A small ledger: two accounts, a pending transfer with a timeout, one that was posted, and one that
/// has expired.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    let accounts = [1, 2].map(|id| Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::default()
    });
    let transfer = |id, flags, timeout, pending_id| Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 10,
        pending_id,
        timeout,
        ledger: 1,
        code: 1,
        flags,
        ..Transfer::default()
    };
    let transfers = [
        transfer(21, transfer_flags::PENDING, 0, 0),
        transfer(22, transfer_flags::PENDING, 3600, 0),
        transfer(23, transfer_flags::POST_PENDING_TRANSFER, 0, 21),
        // No such account: the id fails for good.
        Transfer {
            debit_account_id: 77,
            ..transfer(24, 0, 0, 0)
        },
        transfer(25, transfer_flags::PENDING, 1, 0),
    ];
    apply(
        &mut ledger,
        1,
        Operation::CreateAccounts,
        1_000,
        accounts.as_bytes(),
    );
    apply(
        &mut ledger,
        2,
        Operation::CreateTransfers,
        2_000,
        transfers.as_bytes(),
    );
    ledger.apply(3, Operation::Pulse.code(), EXPIRED_AT, &[], &mut []);
    ledger
}

const EXPIRED_AT: u64 = 2_000_000_000;

fn apply(ledger: &mut Ledger, op: u64, operation: Operation, timestamp: u64, events: &[u8]) {
    let mut body = vec![0; events.len() + 1024];
    let mut encoder = Encoder::new(&mut body, operation.event_size());
    encoder.spare()[..events.len()].copy_from_slice(events);
    encoder.end_batch(events.len());
    let size = encoder.finish();
    let mut reply = vec![0; 1 << 20];
    ledger.apply(op, operation.code(), timestamp, &body[..size], &mut reply);
}

fn sessions() -> Vec<u8> {
    let mut prepare = Header::new(Command::Prepare, 0, 0, 0);
    prepare.client = 51;
    prepare.request_checksum = 52;
    prepare.checksum = 53;
    prepare.op = 54;
    prepare.timestamp = 55;
    prepare.request = 56;
    prepare.release = 57;
    prepare.operation = 58;
    let mut table = Sessions::new(Limits {
        sessions: 4,
        reply_bytes: 5,
    });
    // The reply before it goes, to make room.
    let mut earlier = prepare;
    (earlier.client, earlier.op) = (151, 44);
    table.commit(&earlier, true, b"other");
    table.commit(&prepare, true, b"reply");
    table.encode()
}

#[test]
fn session_record() {
    let documented = layout(DISK, "SessionRecord");
    let bytes = sessions();
    let header = layout(DISK, "SessionsHeader");
    header.assert_numbers(&bytes, &[("count", 2), ("replies_from", 45)]);
    let (record, dropped) = bytes[header.size..].split_at(documented.size + 5);
    let assert_record = |record: &[u8], client, op, reply_size| {
        let fields = [
            ("client", client),
            ("request_checksum", 52),
            ("context", 53),
            ("session", op),
            ("op", op),
            ("timestamp", 55),
            ("request", 56),
            ("release", 57),
            ("operation", 58),
            ("reply_size", reply_size),
        ];
        documented.assert_numbers(record, &fields);
    };
    assert_record(record, 51, 54, 5);
    assert_eq!(&record[documented.size..], b"reply");
    assert_record(dropped, 151, 44, 0);
    assert_eq!(dropped.len(), documented.size);
}

/// A file read by nothing but the documented offsets.
struct File {
    bytes: Vec<u8>,
    data_size: usize,
}

impl File {
    /// Checks footer and pages against `checksum`.
    fn open(storage: &dyn Storage, name: FileName, data_size: u128, checksum: u128) -> Self {
        let bytes = storage.map(name).unwrap().to_vec();
        let data_size = usize::try_from(data_size).unwrap();
        assert_eq!(xxh3_128(&bytes[data_size..]), checksum);
        let file = Self { bytes, data_size };
        let footer = layout(DISK, "Footer");
        let sections = file.footer("sections");
        let pages = data_size.div_ceil(16 * 1024);
        footer.assert_numbers(
            &file.bytes[data_size..],
            &[
                ("magic", u64::from_le_bytes(*b"STAMPSEA").into()),
                ("version", 2),
                ("kind", name.kind as u128),
                ("sections", sections as u128),
                ("number", name.number.into()),
                ("data_size", data_size as u128),
                ("pages", pages as u128),
            ],
        );
        let mut at = data_size + footer.size + sections * layout(DISK, "Section").size;
        for page in file.bytes[..data_size].chunks(16 * 1024) {
            assert_eq!(file.bytes[at..at + 16], xxh3_128(page).to_le_bytes());
            at += 16;
        }
        assert_eq!(file.bytes.len(), at.next_multiple_of(4096));
        assert!(file.bytes[at..].iter().all(|byte| *byte == 0));
        file
    }

    fn footer(&self, field: &str) -> usize {
        let number = layout(DISK, "Footer").number(field, &self.bytes[self.data_size..]);
        usize::try_from(number).unwrap()
    }

    fn section(&self, kind: u128) -> &[u8] {
        let section = layout(DISK, "Section");
        let first = self.data_size + layout(DISK, "Footer").size;
        for index in 0..self.footer("sections") {
            let entry = &self.bytes[first + index * section.size..][..section.size];
            if section.number("kind", entry) == kind {
                let offset = usize::try_from(section.number("offset", entry)).unwrap();
                let size = usize::try_from(section.number("size", entry)).unwrap();
                section.assert_numbers(
                    entry,
                    &[
                        ("kind", kind),
                        ("offset", offset as u128),
                        ("size", size as u128),
                    ],
                );
                assert!(offset.is_multiple_of(4096));
                return &self.bytes[offset..offset + size];
            }
        }
        panic!("no section {kind}");
    }
}

#[test]
fn checkpoint_files() {
    assert_eq!(layout(DISK, "Section").size, size_of::<Section>());
    let mut storage = MemoryStorage::default();
    let mut ledger = ledger();
    let mut snapshot = ledger.whole_snapshot(54);
    let ManifestRef {
        checksum,
        op,
        data_size,
        ..
    } = write_checkpoint(&mut storage, 54, &mut *snapshot, &sessions()).unwrap();

    let name = FileName::new(FileKind::Manifest, op);
    assert_eq!(name.to_string(), format!("manifest-{op:020}"));
    let manifest = File::open(&storage, name, data_size.into(), checksum);
    let packed = layout(DISK, "PackedEntry");
    let entries: Vec<&[u8]> = manifest.section(1).chunks_exact(packed.size).collect();
    let kinds = [
        (2, FileKind::Sessions),
        (3, FileKind::Ledger),
        (9, FileKind::Accounts),
    ];
    let files: Vec<File> = kinds
        .into_iter()
        .zip(entries)
        .map(|((kind, name), entry)| {
            let (size, data_size) = (
                packed.number("size", entry),
                packed.number("data_size", entry),
            );
            let checksum = packed.number("checksum", entry);
            packed.assert_numbers(
                entry,
                &[
                    ("kind", kind),
                    ("number", 54),
                    ("checksum", checksum),
                    ("size", size),
                    ("data_size", data_size),
                ],
            );
            let file = File::open(&storage, FileName::new(name, 54), data_size, checksum);
            assert_eq!(file.bytes.len() as u128, size);
            file
        })
        .collect();
    let [sessions_file, ledger_file, accounts_file] = files.as_slice() else {
        panic!("three files but the manifest");
    };
    assert_eq!(sessions_file.section(1), sessions());
    assert_ledger_sections(ledger_file);

    ledger.published(54);
    let transfer = Transfer {
        id: 77,
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 7,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    };
    let create = Operation::CreateTransfers;
    apply(
        &mut ledger,
        55,
        create,
        EXPIRED_AT + 1_000,
        transfer.as_bytes(),
    );
    let mut snapshot = ledger.whole_snapshot(55);
    let reference = write_checkpoint(&mut storage, 55, &mut *snapshot, &[]).unwrap();
    let entries = Manifest::open(&storage, &reference).unwrap();
    let entry = entries.file(FileKind::Accounts).nth(1).unwrap();
    let later = File::open(&storage, entry.name, entry.data_size.into(), entry.checksum);
    assert_account_sections(accounts_file, &later);
}

fn assert_ledger_sections(file: &File) {
    let counts = [
        ("version", 5),
        ("chunk_rows_log2", 16),
        ("accounts", 2),
        ("transfers", 4),
        ("failed", 1),
        ("expired", 1),
        ("run_chunks_log2", 5),
    ];
    layout(DISK, "Counts").assert_numbers(file.section(1), &counts);
    let transfer = layout(DISK, "Transfer");
    let unpacked = unpack(file.section(2));
    let transfers: Vec<&[u8]> = unpacked.chunks_exact(transfer.size).collect();
    let ids: Vec<u128> = transfers.iter().map(|t| transfer.number("id", t)).collect();
    assert_eq!(ids, [21, 22, 23, 25]);
    assert_eq!(file.section(3), 24u128.to_le_bytes());
    assert_eq!(file.section(4), 0u32.to_le_bytes());
    // Row 0 was posted: 01 in the lowest bits. Row 3 has expired.
    assert_eq!(
        (file.section(5).len(), file.section(5)[0]),
        (16384, 0b1100_0001)
    );
    let expires_at = transfer.number("timestamp", transfers[1]) + 3600 * 1_000_000_000;
    let expiry = [("expires_at", expires_at), ("row", 1)];
    layout(DISK, "ExpiryRow").assert_numbers(file.section(6), &expiry);
    assert_expired(file.section(7), EXPIRED_AT, 4, 3);
    // One mark: the first event has opened both accounts. Two records without balances.
    let words = [1u32, 0, 6, 0b11, 0, 0, 0, 0];
    assert_eq!(file.section(8), words.as_bytes());
}

/// The first file of accounts has all of them; the next one of these two, whose turn it is not, what has changed.
fn assert_account_sections(file: &File, later: &File) {
    let head = layout(DISK, "AccountsHead");
    head.assert_numbers(file.section(1), &[("number", 0), ("accounts", 2)]);
    assert_eq!(file.section(2), [0u32, 1].as_bytes());
    let account = layout(DISK, "Account");
    let accounts: Vec<&[u8]> = file.section(3).chunks_exact(account.size).collect();
    assert_eq!(accounts.len(), 2);
    assert_eq!(account.number("debits_pending", accounts[0]), 10);
    assert_eq!(account.number("debits_posted", accounts[0]), 10);
    assert_eq!(account.number("credits_posted", accounts[1]), 10);
    assert_eq!(account.number("opened", accounts[1]), 1);
    assert!(file.section(4).is_empty());

    head.assert_numbers(later.section(1), &[("number", 1), ("accounts", 2)]);
    assert_eq!((later.section(2), later.section(3)), (&[][..], &[][..]));
    let change = layout(DISK, "AccountChange");
    let changes: Vec<&[u8]> = later.section(4).chunks_exact(change.size).collect();
    let [debit, credit] = changes.as_slice() else {
        panic!("two accounts have changed");
    };
    let fields = [
        ("row", 0),
        ("opened", 1),
        ("flags", 0),
        ("debits_pending", 10),
        ("debits_posted", 17),
        ("credits_pending", 0),
        ("credits_posted", 0),
    ];
    change.assert_numbers(debit, &fields);
    let fields = [
        ("row", 1),
        ("opened", 1),
        ("flags", 0),
        ("debits_pending", 0),
        ("debits_posted", 0),
        ("credits_pending", 10),
        ("credits_posted", 17),
    ];
    change.assert_numbers(credit, &fields);
}

/// Rows as the document says that they are packed.
fn unpack(bytes: &[u8]) -> Vec<u8> {
    let (head, field) = (layout(DISK, "PackedHead"), layout(DISK, "PackedField"));
    let transfer = layout(DISK, "Transfer");
    let count = |name| usize::try_from(head.number(name, bytes)).unwrap();
    let (rows, stride) = (count("rows"), count("stride"));
    assert_eq!(count("fields"), transfer.fields.len());
    let (heads, data) = bytes[head.size..].split_at(transfer.fields.len() * field.size);
    assert_eq!(data.len(), rows * stride + 16);
    let mut unpacked = Vec::new();
    let mut at = 0;
    for _ in 0..rows {
        for (place, of) in transfer.fields.iter().zip(heads.chunks_exact(field.size)) {
            let width = usize::try_from(field.number("width", of)).unwrap();
            let mut distance = [0; 16];
            distance[..width].copy_from_slice(&data[at..at + width]);
            let value = field.number("base", of) + u128::from_le_bytes(distance);
            unpacked.extend_from_slice(&value.to_le_bytes()[..place.size]);
            at += width;
        }
    }
    unpacked
}

fn assert_expired(bytes: &[u8], timestamp: u64, at: u128, pending: u128) {
    let fields = [
        ("amount", 10),
        ("timestamp", timestamp.into()),
        ("at", at),
        ("pending", pending),
        ("debit", 0),
        ("credit", 1),
        ("flags", transfer_flags::PENDING.into()),
    ];
    layout(DISK, "Expired").assert_numbers(bytes, &fields);
}

/// Sixteen rows make a chunk, and a run: sixteen transfers, all of which expire.
#[test]
fn chunk_files() {
    let mut ledger = Ledger::new(LedgerOptions {
        chunk_rows_log2: 4,
        run_chunks_log2: 0,
        ..LedgerOptions::default()
    });
    let accounts = [1, 2].map(|id| Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::default()
    });
    let transfers: Vec<Transfer> = (0..16u16)
        .map(|number| Transfer {
            id: 31 + u128::from(number),
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 10,
            timeout: 1,
            ledger: 1,
            code: if number < 8 { 5 } else { 6 },
            user_data_32: number.into(),
            flags: transfer_flags::PENDING,
            ..Transfer::default()
        })
        .collect();
    let (create, bytes) = (Operation::CreateAccounts, accounts.as_bytes());
    apply(&mut ledger, 1, create, 1_000, bytes);
    let (create, bytes) = (Operation::CreateTransfers, transfers.as_bytes());
    apply(&mut ledger, 2, create, 2_000, bytes);
    ledger.apply(3, Operation::Pulse.code(), EXPIRED_AT, &[], &mut []);
    let mut storage = MemoryStorage::default();
    let mut snapshot = ledger.whole_snapshot(3);
    let reference = write_checkpoint(&mut storage, 3, &mut *snapshot, &[]).unwrap();
    let manifest = Manifest::open(&storage, &reference).unwrap();
    let open = |kind| {
        let entry = manifest.file(kind).next().unwrap();
        let data_size = entry.data_size.into();
        File::open(&storage, entry.name, data_size, entry.checksum)
    };
    let head = layout(DISK, "ChunkHead");

    let file = open(FileKind::Transfers);
    let transfer = layout(DISK, "Transfer");
    let unpacked = unpack(file.section(1));
    let rows: Vec<&[u8]> = unpacked.chunks_exact(transfer.size).collect();
    assert_eq!(rows.len(), 16);
    for (row, number) in rows.iter().zip(0u64..) {
        let fields = [
            ("id", u128::from(31 + number)),
            ("debit_account_id", 1),
            ("credit_account_id", 2),
            ("amount", 10),
            ("pending_id", 0),
            ("user_data_128", 0),
            ("user_data_64", 0),
            ("user_data_32", number.into()),
            ("timeout", 1),
            ("ledger", 1),
            ("code", if number < 8 { 5 } else { 6 }),
            ("flags", transfer_flags::PENDING.into()),
            ("timestamp", u128::from(2_000 - 15 + number)),
        ];
        transfer.assert_numbers(row, &fields);
    }
    // user_data_32: a key for each row but the first. ledger: one key, everywhere. code: two keys, two
    // bitmaps. debit and credit: the account's row.
    let key = |first: u32, keys: &[u32], ends: &[u32], words: &[u16], at: &mut u32| {
        let entry = [
            u32::try_from(keys.len()).unwrap(),
            u32::try_from(words.len()).unwrap(),
            *at,
            first,
            keys.last().copied().unwrap_or(0),
        ];
        let mut data = [keys, ends].concat();
        for pair in words.chunks(2) {
            let high = pair.get(1).copied().unwrap_or(0);
            data.push(u32::from(pair[0]) | u32::from(high) << 16);
        }
        *at += u32::try_from(data.len()).unwrap();
        (entry, data)
    };
    let mut at = 2 + 7 * 5;
    let rows: Vec<u32> = (1..16).collect();
    // With sixteen rows a bitmap is one word, so every list is one.
    let words: Vec<u16> = (1..16).map(|row| 1 << row).collect();
    let columns = [
        key(0, &[], &[], &[], &mut at),
        key(0, &[], &[], &[], &mut at),
        key(1, &rows, &rows, &words, &mut at),
        key(1, &[1], &[0], &[], &mut at),
        key(5, &[5, 6], &[1, 2], &[0x00ff, 0xff00], &mut at),
        key(0, &[0], &[0], &[], &mut at),
        key(1, &[1], &[0], &[], &mut at),
    ];
    let mut expected = vec![16u32, 7];
    columns.iter().for_each(|(entry, _)| expected.extend(entry));
    columns.iter().for_each(|(_, data)| expected.extend(data));
    assert_eq!(file.section(3), expected.as_bytes());
    assert_eq!(file.section(4), [1u32, 0, 6, 0b11, 0, 0, 0, 0].as_bytes());
    let ends = [
        ("first_timestamp", 1_985),
        ("transfers", 16),
        ("expired", 0),
    ];
    head.assert_numbers(file.section(5), &ends);

    let file = open(FileKind::Expired);
    let (size, last) = (layout(DISK, "Expired").size, EXPIRED_AT);
    assert_eq!(file.section(1).len(), 16 * size);
    assert_expired(&file.section(1)[15 * size..], last, 16, 15);
    assert_eq!(file.section(3)[..8], [16u32, 2].as_bytes()[..]);
    // Debits pending of 160, credits pending of 160: one byte each.
    let records = [1, 0, 0, 160, 0, 0b100, 0, 160];
    assert_eq!(file.section(4)[24..32], records);
    let ends = [
        ("first_timestamp", u128::from(last) - 15),
        ("transfers", 16),
        ("expired", 16),
    ];
    head.assert_numbers(file.section(5), &ends);
    assert_run(&open(FileKind::TransferRun));
}

/// The two halves of a product, combined by exclusive or.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let low = product & u128::from(u64::MAX);
    u64::try_from(product >> 64 ^ low).unwrap()
}

/// The run of sixteen ids from 31 on: one bucket, one line.
fn assert_run(file: &File) {
    let head = [("id_least", 31), ("id_greatest", 46), ("rows_log2", 4)];
    layout(DISK, "RunHead").assert_numbers(file.section(1), &head);
    assert_eq!(file.section(2), [0u32, 16].as_bytes());
    let hash = |id: u64| {
        let low = fold(id ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93);
        let high = fold(0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db);
        fold(low ^ high.rotate_left(32), 0x8ebc_6af0_9c88_c6e3) >> 24
    };
    let entries = (0..16).map(|row| hash(31 + row) << 4 | row);
    let bytes = entries.flat_map(|entry: u64| entry.to_le_bytes()[..6].to_vec());
    assert_eq!(file.section(3), bytes.collect::<Vec<u8>>());
    let mut line = [0u8; 64];
    for id in 31..47 {
        let mixed = fold(hash(id) ^ 0x9fb2_1c65_1e98_df25, 0xd6e8_feb8_6659_fd93);
        for number in 0..6 {
            let bit = usize::try_from(mixed >> (9 * number) & 511).unwrap();
            line[bit / 8] |= 1 << (bit % 8);
        }
    }
    assert_eq!(file.section(4), line);
}
