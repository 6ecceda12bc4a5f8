//! What is read from disks: segment files, the superblock, checkpoint files, the client table.

use stampede::limits::SECTOR_SIZE;
use stampede::machine::Machine;
use stampede::machine::ledger::{Ledger, LedgerOptions};
use stampede::message::{Command, Header, checksum};
use stampede::replica::superblock::{Identity, State};
use stampede::store::{FileName, Manifest, ManifestRef, MemoryStorage, Storage, write_checkpoint};
use stampede::vsr::sessions::{Limits, Sessions};
use stampede_client::wire::multibatch::{self, trailer_size};
use stampede_client::wire::{Account, Operation, Transfer};
use stampede_journal::device::Device;
use stampede_journal::device::memory::{Image, MemoryDevice};
use stampede_journal::{
    AlignedBuffer, Config, FRAME_HEADER_SIZE, Journal, Xxh3, checksum_payload, frame_size,
};
use zerocopy::{Immutable, IntoBytes};

use super::recipe::Recipe;

const JOURNAL: Config = Config {
    id: 77,
    segment_size: 64 << 10,
    segment_count: 3,
    inflight_bytes_max: 64 << 10,
};

/// A journal whose files were damaged: opening ends, and never hands out an entry that was not
/// appended, whatever the bytes are. Whether nothing was found to be wrong.
pub fn journal(input: &[u8]) -> bool {
    let mut recipe = Recipe::new(input);
    let mut device: MemoryDevice = MemoryDevice::new(&JOURNAL);
    let mut appended: Vec<Vec<u8>> = Vec::new();
    let (mut journal, _) = Journal::open(JOURNAL, &mut device, &Xxh3, None, |_| {})
        .expect("a freshly formatted journal opens");
    let count = 1 + recipe.byte() % 24;
    let mut done = Vec::new();
    for tag in 0..u64::from(count) {
        let size = recipe.below(9_000);
        let payload = vec![recipe.byte(); size];
        let mut buffer = AlignedBuffer::new(frame_size(size));
        let frame = &mut buffer.as_mut_slice()[FRAME_HEADER_SIZE..];
        frame[..size].copy_from_slice(&payload);
        let sum = checksum_payload(&payload);
        let Ok((_, write)) = journal.append(tag, size, sum, buffer) else {
            break;
        };
        device.submit(write).expect("the device takes any number");
        device.poll(&mut done).expect("memory does not fail");
        for completion in done.drain(..) {
            journal
                .on_written(completion.token, completion.result)
                .expect("it was written");
        }
        appended.push(payload);
        if recipe.one_in(8) {
            journal.trim(journal.durable());
        }
    }
    let mut image = device.image().clone();
    damage_image(&mut image, &mut recipe);
    let mut device: MemoryDevice = MemoryDevice::from_image(image);
    let mut visit = |entry: stampede_journal::Entry<'_>| {
        let index = usize::try_from(entry.tag).expect("a small tag");
        let original = appended.get(index).expect("an entry that was appended");
        assert_eq!(
            entry.payload,
            original.as_slice(),
            "another payload under tag {index}"
        );
    };
    let opened = Journal::open(JOURNAL, &mut device, &Xxh3, None, &mut visit);
    opened.is_ok_and(|(_, found)| found.corruptions.is_empty() && found.torn.is_none())
}

fn damage_image(image: &mut Image, recipe: &mut Recipe<'_>) {
    for _ in 0..recipe.byte() % 6 {
        let file = u32::from(recipe.byte()) % JOURNAL.segment_count;
        let length = image.file(file).len();
        let sector = recipe.below(length / SECTOR_SIZE) * SECTOR_SIZE;
        match recipe.byte() % 4 {
            0 => image.change(file, sector..sector + SECTOR_SIZE, |bytes| bytes.fill(0)),
            1 => {
                // A sector where another one belongs.
                let other = recipe.below(length / SECTOR_SIZE) * SECTOR_SIZE;
                let from = u32::from(recipe.byte()) % JOURNAL.segment_count;
                let copy = image.file(from)[other..other + SECTOR_SIZE].to_vec();
                image.change(file, sector..sector + SECTOR_SIZE, |bytes| {
                    bytes.copy_from_slice(&copy);
                });
            }
            _ => {
                let at = sector + recipe.below(SECTOR_SIZE);
                let bit = recipe.byte() % 8;
                image.change(file, at..at + 1, |byte| byte[0] ^= 1 << bit);
            }
        }
    }
}

/// A superblock file of any content: a state that a replica can be, or an error. Which one.
pub fn superblock(input: &[u8]) -> bool {
    let mut recipe = Recipe::new(input);
    let state = State::format(&Identity {
        cluster: 7,
        replica: 1,
        replica_count: 3,
        standby_count: 0,
        sessions_max: 64,
        segment_size: 8 << 20,
        segment_count: 8,
        recovering: false,
        journal_id: 5,
    });
    let mut sector = state.encode().0.to_vec();
    recipe.damage(&mut sector);
    sector.resize(SECTOR_SIZE, 0);
    if !recipe.one_in(4) {
        let sum = checksum(&sector[16..]);
        sector[..16].copy_from_slice(&sum.to_le_bytes());
    }
    let mut file = state.encode_file();
    let copy = usize::from(recipe.byte() % 4) * SECTOR_SIZE;
    if recipe.one_in(2) {
        file[copy..copy + SECTOR_SIZE].copy_from_slice(&sector);
    } else {
        file = sector.repeat(4);
    }
    recipe.damage(&mut file);
    let decoded = State::decode_file(&file);
    if let Ok(state) = &decoded {
        assert!(state.replica < state.replica_count && state.log_view <= state.view);
    }
    decoded.is_ok()
}

/// A checkpoint whose files were damaged: restored as it was, or refused. Which one.
pub fn checkpoint(input: &[u8]) -> bool {
    let mut recipe = Recipe::new(input);
    let (mut storage, reference, digest) = small_checkpoint();
    let files = storage.list().expect("memory can be listed");
    for _ in 0..recipe.byte() % 4 {
        let (name, size) = files[usize::from(recipe.byte()) % files.len()];
        let bytes = usize::try_from(size).expect("a small file");
        storage.damage(name, recipe.below(bytes));
    }
    let restored = restore(&storage, &reference);
    if let Ok(ledger) = &restored {
        // Damage where nothing is read (padding) or none at all: then everything is as it was.
        assert_eq!(ledger.digest(), digest, "a damaged checkpoint was restored");
    }
    restored.is_ok()
}

fn restore(
    storage: &MemoryStorage,
    reference: &ManifestRef,
) -> Result<Ledger, Box<dyn std::error::Error>> {
    let manifest = Manifest::open(storage, reference)?;
    manifest.sessions(storage)?;
    Ok(Ledger::default().restore(storage, &manifest.files)?)
}

/// A ledger with a little of everything, its checkpoint, and its digest.
fn small_checkpoint() -> (MemoryStorage, ManifestRef, u128) {
    let mut ledger = Ledger::new(LedgerOptions {
        chunk_rows_log2: 8,
        run_chunks_log2: 1,
        resident_chunks: 2,
        filter_size: 1 << 10,
        waiting_rows: 4 << 20,
        ..LedgerOptions::default()
    });
    let accounts: Vec<Account> = (1..=20)
        .map(|id| Account {
            id,
            ledger: 1,
            code: 1,
            ..Account::default()
        })
        .collect();
    apply(&mut ledger, 1, Operation::CreateAccounts, &accounts);
    let transfers: Vec<Transfer> = (1..=700)
        .map(|id| Transfer {
            id,
            debit_account_id: id % 20 + 1,
            // Some have no such account, and their ids are remembered.
            credit_account_id: (id + 7) % 23 + 1,
            amount: id,
            flags: if id % 5 == 0 { 2 } else { 0 },
            ledger: 1,
            code: 1,
            ..Transfer::default()
        })
        .collect();
    apply(&mut ledger, 2, Operation::CreateTransfers, &transfers);
    let mut storage = MemoryStorage::default();
    let mut snapshot = ledger.whole_snapshot(2);
    let reference = write_checkpoint(&mut storage, 2, &mut *snapshot, b"sessions")
        .expect("memory does not fail");
    (storage, reference, ledger.digest())
}

fn apply<E: IntoBytes + Immutable>(
    ledger: &mut Ledger,
    op: u64,
    operation: Operation,
    events: &[E],
) {
    let payload = size_of_val(events);
    let mut body = events.as_bytes().to_vec();
    body.resize(payload + trailer_size(size_of::<E>(), 1), 0);
    let count = [u16::try_from(events.len()).expect("few events")];
    multibatch::encode_trailer(&mut body, payload, size_of::<E>(), count.into_iter());
    let mut reply = vec![0; Ledger::reply_size_max(operation.code(), &body)];
    ledger.apply(op, operation.code(), op * 1_000_000, &body, &mut reply);
}

/// An encoded client table: what decodes can be encoded and decoded again. Whether it decoded.
pub fn sessions(input: &[u8]) -> bool {
    let mut recipe = Recipe::new(input);
    let limits = Limits {
        sessions: 4,
        reply_bytes: 600,
    };
    let mut table = Sessions::new(limits);
    for client in 1..=u64::from(recipe.byte() % 5) {
        let reply = vec![7; recipe.below(300)];
        let mut prepare = Header::new(Command::Prepare, 7, 0, 0);
        (prepare.client, prepare.op, prepare.release) = (client.into(), client, 1);
        table.commit(&prepare, true, &reply);
    }
    let mut bytes = table.encode();
    recipe.damage(&mut bytes);
    let decoded = Sessions::decode(&bytes, limits);
    let is_read = decoded.is_ok();
    if let Ok(decoded) = &decoded {
        assert!(decoded.len() <= 4);
        assert_eq!(
            Sessions::decode(&decoded.encode(), limits).as_ref(),
            Ok(decoded)
        );
    }
    is_read
}

/// A name of a checkpoint's file, from the text of a directory entry.
pub fn file_name(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Some(name) = FileName::parse(&text) {
        assert_eq!(name.to_string(), text);
    }
}
