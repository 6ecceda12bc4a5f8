//! A ledger from the files of a checkpoint.
//!
//! Rows of full chunks stay in their files, which are mapped; only the column of their ids is read,
//! to rebuild the index: 16 bytes of each transfer. What is read is verified. Rows that stay in
//! their files are verified by the scrub.

use stampede_client::wire::{Account, Transfer};

use super::books::Books;
use super::resolutions::Resolutions;
use super::snapshot::{
    Counts, ExpiryRow, Files, ROWS_OFFSET, SECTION_ACCOUNTS, SECTION_COUNTS, SECTION_EXPIRIES,
    SECTION_FAILED_TAIL, SECTION_IDS, SECTION_RESOLUTION_CHUNKS, SECTION_RESOLUTIONS, SECTION_ROWS,
    SECTION_TRANSFERS_TAIL, VERSION, chunk_number, map_chunk,
};
use super::{Ledger, LedgerOptions};
use crate::store::{FileEntry, FileKind, FileName, SealedFile, Storage, StoreError};

/// Chunk sizes that make sense: at least what resolutions need, at most what a map holds.
const CHUNK_ROWS_LOG2: std::ops::RangeInclusive<u32> = 4..=24;

impl Ledger {
    pub(super) fn from_files(
        storage: &dyn Storage,
        entries: &[FileEntry],
    ) -> Result<Self, StoreError> {
        let entry = entries
            .iter()
            .find(|entry| entry.name.kind == FileKind::Ledger);
        let missing = || {
            let name = FileName::new(FileKind::Ledger, 0);
            StoreError::damaged(name, 0, "the manifest lists no ledger file")
        };
        let mut file = SealedFile::open(storage, *entry.ok_or_else(missing)?)?;
        let counts = file.read_rows::<Counts>(storage, SECTION_COUNTS)?;
        let &[counts] = counts.as_slice() else {
            return Err(file.damaged(0, "there is not one row of counts"));
        };
        if counts.version != VERSION || !CHUNK_ROWS_LOG2.contains(&counts.chunk_rows_log2) {
            return Err(file.damaged(0, "the ledger's version is not known to this release"));
        }
        let options = LedgerOptions {
            chunk_rows_log2: counts.chunk_rows_log2,
            ..LedgerOptions::default()
        };
        let mut books = Books::with_capacity(
            options,
            counts.accounts.into(),
            u64::from(counts.transfers) + u64::from(counts.failed),
        );
        let mut files = Files::default();

        restore_accounts(&mut books, storage, &mut file, counts)?;
        restore_transfers(&mut books, &mut files, storage, &mut file, counts, entries)?;
        restore_failed(&mut books, &mut files, storage, &mut file, counts, entries)?;
        restore_pending(&mut books, storage, &mut file)?;
        books.restore_unresolved();
        // Recent transfers are the ones that are looked at.
        let chunks = chunk_number(files.transfers.len());
        let recent = chunks.saturating_sub(options.resident_chunks)..chunks;
        recent.for_each(|chunk| books.transfers.fetch_chunk(chunk));
        Ok(Self::with(options, books, files))
    }
}

fn restore_accounts(
    books: &mut Books,
    storage: &dyn Storage,
    file: &mut SealedFile,
    counts: Counts,
) -> Result<(), StoreError> {
    let section = file.section(SECTION_ACCOUNTS)?;
    if section.size != u64::from(counts.accounts) * Account::SIZE as u64 {
        return Err(file.damaged(section.offset, "the accounts are not as many as counted"));
    }
    let accounts = file.read_rows::<Account>(storage, SECTION_ACCOUNTS)?;
    let ids: Vec<u128> = accounts.iter().map(|account| account.id).collect();
    books.account_ids.extend(&ids, 0);
    books.accounts.append(&accounts);
    Ok(())
}

fn restore_transfers(
    books: &mut Books,
    files: &mut Files,
    storage: &dyn Storage,
    file: &mut SealedFile,
    counts: Counts,
    entries: &[FileEntry],
) -> Result<(), StoreError> {
    let chunk_rows = 1 << counts.chunk_rows_log2;
    files.transfers = chunk_files(entries, FileKind::Transfers, counts.transfers / chunk_rows)?;
    for (chunk, &entry) in (0..).zip(&files.transfers) {
        let mut chunk_file = SealedFile::open(storage, entry)?;
        let rows = chunk_file.section(SECTION_ROWS)?;
        let rows_size = u64::from(chunk_rows) * Transfer::SIZE as u64;
        if rows.offset != ROWS_OFFSET as u64 || rows.size != rows_size {
            return Err(chunk_file.damaged(0, "the rows are not a chunk"));
        }
        let ids = chunk_file.read_rows::<u128>(storage, SECTION_IDS)?;
        if ids.len() != chunk_rows as usize {
            return Err(chunk_file.damaged(0, "the ids are not as many as the rows"));
        }
        books.transfer_ids.extend(&ids, chunk * chunk_rows);
        books
            .transfers
            .append_file(map_chunk(storage, entry)?, ROWS_OFFSET);
    }
    books.restore_files();
    let tail = file.read_rows::<Transfer>(storage, SECTION_TRANSFERS_TAIL)?;
    if tail.len() != (counts.transfers % chunk_rows) as usize {
        return Err(file.damaged(0, "the transfers are not as many as counted"));
    }
    let ids: Vec<u128> = tail.iter().map(|transfer| transfer.id).collect();
    books.transfer_ids.extend(&ids, books.transfers.len());
    books.transfers.append(&tail);
    Ok(())
}

fn restore_failed(
    books: &mut Books,
    files: &mut Files,
    storage: &dyn Storage,
    file: &mut SealedFile,
    counts: Counts,
    entries: &[FileEntry],
) -> Result<(), StoreError> {
    let chunk_rows = 1 << counts.chunk_rows_log2;
    files.failed = chunk_files(entries, FileKind::FailedIds, counts.failed / chunk_rows)?;
    for &entry in &files.failed {
        let mut chunk_file = SealedFile::open(storage, entry)?;
        let ids = chunk_file.read_rows::<u128>(storage, SECTION_ROWS)?;
        if ids.len() != chunk_rows as usize {
            return Err(chunk_file.damaged(0, "the ids are not a chunk"));
        }
        books.restore_failed(&ids);
    }
    let tail = file.read_rows::<u128>(storage, SECTION_FAILED_TAIL)?;
    if tail.len() != (counts.failed % chunk_rows) as usize {
        return Err(file.damaged(0, "the failed ids are not as many as counted"));
    }
    books.restore_failed(&tail);
    // Every failed id was appended to memory; the files take over what they hold.
    books.failed.share(0);
    for (chunk, &entry) in (0..).zip(&files.failed) {
        books
            .failed
            .adopt(chunk, map_chunk(storage, entry)?, ROWS_OFFSET);
    }
    Ok(())
}

fn restore_pending(
    books: &mut Books,
    storage: &dyn Storage,
    file: &mut SealedFile,
) -> Result<(), StoreError> {
    let rows = books.transfers.len();
    let chunks = file.read_rows::<u32>(storage, SECTION_RESOLUTION_CHUNKS)?;
    let bytes = file.read_rows::<u8>(storage, SECTION_RESOLUTIONS)?;
    let last = rows.div_ceil(books.transfers.chunk_rows());
    if bytes.len() != chunks.len() * books.resolutions.chunk_size()
        || !chunks.is_sorted_by(|a, b| a < b)
        || chunks.last().is_some_and(|&chunk| chunk >= last)
    {
        return Err(file.damaged(0, "the resolutions are not those of the transfers"));
    }
    books.resolutions = Resolutions::from_chunks(books.transfers.chunk_rows(), &chunks, &bytes);
    for expiry in file.read_rows::<ExpiryRow>(storage, SECTION_EXPIRIES)? {
        if expiry.row >= rows {
            return Err(file.damaged(0, "an expiry is that of no transfer"));
        }
        books.expiries.insert(expiry.expires_at, expiry.row);
    }
    Ok(())
}

/// The files of full chunks, which are numbered from 0 without a gap.
fn chunk_files(
    entries: &[FileEntry],
    kind: FileKind,
    count: u32,
) -> Result<Vec<FileEntry>, StoreError> {
    let mut files: Vec<FileEntry> = entries
        .iter()
        .copied()
        .filter(|entry| entry.name.kind == kind)
        .collect();
    files.sort_unstable_by_key(|entry| entry.name);
    let numbered = (0u64..)
        .zip(&files)
        .all(|(number, entry)| entry.name.number == number);
    if !numbered || chunk_number(files.len()) != count {
        let name = FileName::new(kind, count.into());
        return Err(StoreError::damaged(
            name,
            0,
            "the manifest's files are not those counted",
        ));
    }
    Ok(files)
}
