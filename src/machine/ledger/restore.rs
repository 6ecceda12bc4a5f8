//! A ledger from the files of a checkpoint.
//!
//! Rows of full chunks stay in their files, which are mapped, and so do runs of ids. Rows that are in no run yet are
//! read once, for the index of ids. What is read is verified; what stays in its file (rows, postings, openings, runs),
//! when it is read first.
//! Only the postings of accounts are built again.

use std::ops::RangeInclusive;
use std::sync::Arc;

use stampede_client::wire::Transfer;

use super::books::Books;
use super::history::{History, Period, PeriodOpenings, Point};
use super::indexes::{EXPIRED_COLUMNS, TRANSFER_COLUMNS};
use super::openings::{Openings, OpeningsView};
use super::resolutions::Resolutions;
use super::row::{Expired, TRANSFER_FIELDS, TRANSFER_ID};
use super::snapshot::{
    ChunkFile, ChunkHead, Counts, ExpiryRow, FAILED, Files, ROWS_OFFSET, RunTable, SECTION_COUNTS,
    SECTION_EXPIRED_TAIL, SECTION_EXPIRIES, SECTION_FAILED_TAIL, SECTION_HEAD,
    SECTION_OPENINGS_TAIL, SECTION_RESOLUTION_CHUNKS, SECTION_RESOLUTIONS, SECTION_ROWS,
    SECTION_TRANSFERS_TAIL, TRANSFERS, VERSION, chunk_number, run_place,
};
use super::{Ledger, LedgerOptions, account_files};
use crate::store::{
    Blob, FileEntry, FileKind, FileName, IdHash, Mapped, POSTINGS_ROWS_LOG2_MAX, PackedRows,
    Postings, ROW_NONE, RUN_ROWS_LOG2_MAX, Run, RunIds, SealedFile, Storage, StoreError,
};

const ID_SIZE: u64 = size_of::<u128>() as u64;

/// Chunk sizes that make sense: at least what resolutions need, at most what postings hold.
const CHUNK_ROWS_LOG2: RangeInclusive<u32> = 4..=POSTINGS_ROWS_LOG2_MAX;

impl Ledger {
    pub(super) fn from_files(
        options: LedgerOptions,
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
        let &entry = entry.ok_or_else(missing)?;
        let mut file = SealedFile::open(storage, entry)?;
        let counts = file.read_rows::<Counts>(storage, SECTION_COUNTS)?;
        let &[counts] = counts.as_slice() else {
            return Err(file.damaged(0, "there is not one row of counts"));
        };
        if counts.version != VERSION {
            return Err(StoreError::Version {
                file: entry.name,
                found: counts.version,
                known: VERSION,
            });
        }
        if !CHUNK_ROWS_LOG2.contains(&counts.chunk_rows_log2)
            || counts.run_chunks_log2 > RUN_ROWS_LOG2_MAX - counts.chunk_rows_log2
        {
            return Err(file.damaged(0, "chunks or runs of such a size are never made"));
        }
        if u64::from(counts.accounts) > account_files::accounts_max(entries) {
            return Err(file.damaged(0, "there are more accounts than their files have room for"));
        }
        let options = LedgerOptions {
            chunk_rows_log2: counts.chunk_rows_log2,
            run_chunks_log2: counts.run_chunks_log2,
            ..options
        };
        let run_rows = 1u64 << counts.run_rows_log2();
        let in_no_run = |rows: u32| u64::from(rows) % run_rows;
        let mut books = Books::with_capacity(
            options,
            counts.accounts.into(),
            in_no_run(counts.transfers) + in_no_run(counts.failed),
        );
        let mut files = Files::default();
        files.transfer_ids.runs = restore_runs(
            &mut books,
            storage,
            TRANSFERS,
            counts.transfers,
            counts,
            entries,
        )?;
        files.failed_ids.runs =
            restore_runs(&mut books, storage, FAILED, counts.failed, counts, entries)?;

        files.accounts =
            account_files::restore(&mut books, storage, entries, entry.name.number, counts)?;
        let mut periods = Vec::new();
        restore_transfers(
            &mut books,
            &mut files,
            &mut periods,
            storage,
            &mut file,
            counts,
            entries,
        )?;
        restore_failed(&mut books, &mut files, storage, &mut file, counts, entries)?;
        restore_expired(
            &mut books,
            &mut files,
            &mut periods,
            storage,
            &mut file,
            counts,
            entries,
        )?;
        restore_history(&mut books, periods, storage, &mut file)?;
        restore_pending(&mut books, storage, &mut file)?;
        books.restore_unresolved();
        let ids = books.ids();
        books.transfer_ids.restored(ids);
        // Recent transfers are the ones that are looked at.
        let chunks = chunk_number(files.transfers.len());
        let recent = chunks.saturating_sub(options.resident_chunks)..chunks;
        for chunk in recent {
            books.transfers.fetch_chunk(chunk);
            books.indexes.transfers[chunk as usize].will_need();
        }
        Ok(Self::with(options, books, files))
    }
}

/// Opens the runs of a table with so many rows.
fn restore_runs(
    books: &mut Books,
    storage: &dyn Storage,
    table: RunTable,
    rows: u32,
    counts: Counts,
    entries: &[FileEntry],
) -> Result<Vec<FileEntry>, StoreError> {
    let runs = rows >> counts.run_rows_log2();
    let files = chunk_files(entries, table.kind, runs)?;
    for (number, &entry) in (0..).zip(&files) {
        let (first, rows_log2) = run_place(table, number, counts);
        books
            .transfer_ids
            .add_run(Run::open(storage, entry, first, rows_log2)?);
    }
    Ok(files)
}

fn restore_transfers(
    books: &mut Books,
    files: &mut Files,
    periods: &mut Vec<Period>,
    storage: &dyn Storage,
    file: &mut SealedFile,
    counts: Counts,
    entries: &[FileEntry],
) -> Result<(), StoreError> {
    let chunk_rows = 1 << counts.chunk_rows_log2;
    files.transfers = chunk_files(entries, FileKind::Transfers, counts.transfers / chunk_rows)?;
    let chunks_in_runs = files.transfer_ids.runs.len() << counts.run_chunks_log2;
    for (chunk, &entry) in (0..).zip(&files.transfers) {
        // Rows come first: the disk reads what is needed of the next files while this one is opened.
        let ahead = chunk as usize + FILES_AHEAD;
        let ahead = if chunk == 0 { 0..=ahead } else { ahead..=ahead };
        for (next, file) in ahead.filter_map(|next| Some((next, files.transfers.get(next)?))) {
            if next >= chunks_in_runs {
                let share = file.data_size * READ_SHARE.0 / READ_SHARE.1;
                storage.will_read(file.name, 0, share);
            }
            storage.will_read(file.name, file.data_size, file.size - file.data_size);
        }
        let mut chunk_file = SealedFile::open(storage, entry)?;
        if chunk as usize >= chunks_in_runs {
            let ids = chunk_ids(storage, &mut chunk_file, chunk_rows)?;
            books.transfer_ids.extend(&ids, chunk * chunk_rows);
            let ids = Arc::new(RunIds::of(ids.into_iter(), counts.run_rows_log2()));
            files.transfer_ids.waiting.push(ids);
        }
        let (head, file_of_chunk, postings) = open_chunk(
            storage,
            &mut chunk_file,
            chunk,
            (chunk_rows, TRANSFER_COLUMNS),
            periods,
        )?;
        if head.transfers != (chunk + 1) * chunk_rows {
            return Err(chunk_file.damaged(0, "the chunk became full at another transfer"));
        }
        books.indexes.first_timestamps.push(head.first_timestamp);
        books.indexes.transfers.push(postings);
        let packed = file_of_chunk.packed.expect("transfers are packed");
        if packed.rows() != chunk_rows {
            return Err(chunk_file.damaged(0, "the rows are not a chunk"));
        }
        books.transfers.append_packed(packed);
    }
    books.restore_files();
    let tail = restore_tail(storage, file)?;
    if tail.len() != (counts.transfers % chunk_rows) as usize {
        return Err(file.damaged(0, "the transfers are not as many as counted"));
    }
    let ids: Vec<u128> = tail.iter().map(|transfer| transfer.id).collect();
    books.transfer_ids.extend(&ids, books.transfers.len());
    books.transfers.append(&tail);
    // Their accounts are looked for in rounds, so that the misses overlap.
    for tail in tail.chunks(ROUND) {
        let ids = |transfer: &Transfer| [transfer.debit_account_id, transfer.credit_account_id];
        let hashes = || tail.iter().flat_map(ids).map(IdHash::of);
        hashes().for_each(|hash| books.account_ids.prefetch(hash));
        hashes().for_each(|hash| books.accounts.prefetch(books.account_ids.candidate(hash)));
        for transfer in tail {
            let parties = ids(transfer)
                .map(|id| books.account_row(id, books.account_ids.candidate(IdHash::of(id))));
            if parties.contains(&ROW_NONE) {
                return Err(file.damaged(0, "a transfer is between accounts that are not there"));
            }
            books.indexes.parties.push(parties);
        }
    }
    Ok(())
}

/// The ids of a full chunk, in order.
fn chunk_ids(
    storage: &dyn Storage,
    file: &mut SealedFile,
    chunk_rows: u32,
) -> Result<Vec<u128>, StoreError> {
    let rows = file.read_rows::<u8>(storage, SECTION_ROWS)?;
    let packed = PackedRows::<Transfer>::parse(&rows, &TRANSFER_FIELDS);
    let Some(packed) = packed.filter(|packed| packed.rows() == chunk_rows) else {
        return Err(file.damaged(0, "the rows are not a chunk"));
    };
    let ids = (0..chunk_rows).map(|row| packed.field(&rows, row, TRANSFER_ID));
    Ok(ids.collect())
}

const ROUND: usize = 64;

/// Files that the disk is asked for before they are needed: some mebibytes.
const FILES_AHEAD: usize = 4;

/// About how much of a chunk's file its rows are.
const READ_SHARE: (u64, u64) = (7, 8);

/// Opens what a file of a full chunk has besides its rows; adds the period that ended with it.
fn open_chunk(
    storage: &dyn Storage,
    file: &mut SealedFile,
    chunk: u32,
    (rows, columns): (u32, u32),
    periods: &mut Vec<Period>,
) -> Result<(ChunkHead, ChunkFile, Blob), StoreError> {
    let head = file.read_rows::<ChunkHead>(storage, SECTION_HEAD)?;
    let &[head] = head.as_slice() else {
        return Err(file.damaged(0, "there is not one head of the chunk"));
    };
    let mut chunk_file = ChunkFile::open(storage, file, chunk)?;
    let parts = chunk_file
        .parts
        .take()
        .expect("transfers and expiries have postings");
    if !Postings::of(&parts.postings).is_plausible(rows, columns)
        || OpeningsView::of(parts.openings.span()).is_none()
    {
        return Err(file.damaged(0, "the postings or openings are not those of a chunk"));
    }
    periods.push(Period {
        end: head.end(),
        openings: PeriodOpenings::File(parts.openings),
    });
    Ok((head, chunk_file, parts.postings))
}

/// The transfers of the chunk that is not yet full.
fn restore_tail(storage: &dyn Storage, file: &mut SealedFile) -> Result<Vec<Transfer>, StoreError> {
    let bytes = file.read_rows::<u8>(storage, SECTION_TRANSFERS_TAIL)?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let packed = PackedRows::<Transfer>::parse(&bytes, &TRANSFER_FIELDS);
    let packed = packed.ok_or_else(|| file.damaged(0, "the last rows are not packed transfers"))?;
    Ok((0..packed.rows())
        .map(|row| packed.row(&bytes, row))
        .collect())
}

fn restore_expired(
    books: &mut Books,
    files: &mut Files,
    periods: &mut Vec<Period>,
    storage: &dyn Storage,
    file: &mut SealedFile,
    counts: Counts,
    entries: &[FileEntry],
) -> Result<(), StoreError> {
    let chunk_rows = 1 << counts.chunk_rows_log2;
    files.expired = chunk_files(entries, FileKind::Expired, counts.expired / chunk_rows)?;
    for (chunk, &entry) in (0..).zip(&files.expired) {
        let mut chunk_file = SealedFile::open(storage, entry)?;
        let rows = chunk_file.section(SECTION_ROWS)?;
        let rows_size = u64::from(chunk_rows) * size_of::<Expired>() as u64;
        if rows.offset != ROWS_OFFSET as u64 || rows.size != rows_size {
            return Err(chunk_file.damaged(0, "the rows are not a chunk"));
        }
        let (head, file_of_chunk, postings) = open_chunk(
            storage,
            &mut chunk_file,
            chunk,
            (chunk_rows, EXPIRED_COLUMNS),
            periods,
        )?;
        if head.expired != (chunk + 1) * chunk_rows {
            return Err(chunk_file.damaged(0, "the chunk became full at another expiry"));
        }
        books.indexes.first_expired.push(head.first_timestamp);
        books.indexes.expired.push(postings);
        books.expired.append_file(file_of_chunk.mapped, ROWS_OFFSET);
    }
    let tail = file.read_rows::<Expired>(storage, SECTION_EXPIRED_TAIL)?;
    let (accounts, transfers) = (books.accounts.len(), books.transfers.len());
    let is_known = |row: &Expired| {
        row.debit < accounts
            && row.credit < accounts
            && row.pending < transfers
            && row.at <= transfers
    };
    if tail.len() != (counts.expired % chunk_rows) as usize || !tail.iter().all(is_known) {
        return Err(file.damaged(0, "the expiries are not those counted"));
    }
    books.expired.append(&tail);
    Ok(())
}

/// The periods that are over, each of which ended with a chunk, and the present one.
fn restore_history(
    books: &mut Books,
    mut periods: Vec<Period>,
    storage: &dyn Storage,
    file: &mut SealedFile,
) -> Result<(), StoreError> {
    let now = books.now();
    let log2 = books.transfers.chunk_rows().ilog2();
    periods.sort_by_key(|period| period.end);
    let mut before = Point::default();
    let in_order = (1..).zip(&periods).all(|(number, period)| {
        let Point { transfers, expired } = period.end;
        let follows = transfers >= before.transfers
            && expired >= before.expired
            && (transfers >> log2) + (expired >> log2) == number;
        before = period.end;
        follows
    });
    if !in_order || before.transfers > now.transfers || before.expired > now.expired {
        return Err(file.damaged(0, "the chunks did not become full in any order"));
    }
    let words = file.read_rows::<u32>(storage, SECTION_OPENINGS_TAIL)?;
    let openings = Openings::decode(&words, now.events_since(before));
    let openings = openings
        .ok_or_else(|| file.damaged(0, "the openings are not those of the present period"))?;
    let mark = u32::try_from(periods.len()).expect("periods are fewer than rows") + 1;
    let marked = books.accounts.slices().flatten();
    let marks: Vec<u32> = marked.map(|account| account.opened).collect();
    let opened = marks.iter().filter(|opened| **opened == mark).count();
    if opened != openings.view().count() as usize || marks.iter().any(|opened| *opened > mark) {
        return Err(file.damaged(
            0,
            "the accounts are not those that the present period opened",
        ));
    }
    books.history = History::restore(log2, periods, openings);
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
    let chunks_in_runs = files.failed_ids.runs.len() << counts.run_chunks_log2;
    for (chunk, &entry) in files.failed.iter().enumerate() {
        let mut chunk_file = SealedFile::open(storage, entry)?;
        if chunk_file.section(SECTION_ROWS)?.size != u64::from(chunk_rows) * ID_SIZE {
            return Err(chunk_file.damaged(0, "the ids are not a chunk"));
        }
        if chunk >= chunks_in_runs {
            let ids = chunk_file.read_rows::<u128>(storage, SECTION_ROWS)?;
            books.restore_failed(&ids);
            let ids = Arc::new(RunIds::of(ids.into_iter(), counts.run_rows_log2()));
            files.failed_ids.waiting.push(ids);
        } else {
            let mapped = Mapped::open(storage, &chunk_file)?;
            books.failed.append_file(mapped, ROWS_OFFSET);
        }
    }
    let tail = file.read_rows::<u128>(storage, SECTION_FAILED_TAIL)?;
    if tail.len() != (counts.failed % chunk_rows) as usize {
        return Err(file.damaged(0, "the failed ids are not as many as counted"));
    }
    books.restore_failed(&tail);
    // Failed ids that are in no run were appended to memory; the files take over what they hold.
    books.failed.share(0);
    for (chunk, &entry) in (0..).zip(&files.failed).skip(chunks_in_runs) {
        let file = SealedFile::open(storage, entry)?;
        let mapped = Mapped::open(storage, &file)?;
        books.failed.adopt(chunk, mapped, ROWS_OFFSET);
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
    let expiries = file.read_rows::<ExpiryRow>(storage, SECTION_EXPIRIES)?;
    let place = |expiry: &ExpiryRow| (expiry.expires_at, expiry.row);
    if !expiries.is_sorted_by(|a, b| place(a) < place(b)) {
        return Err(file.damaged(0, "the expiries are not in order"));
    }
    for expiry in expiries {
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
