//! The ledger's part of a checkpoint: which files, and what is in them.
//!
//! ```text
//!   transfers-<chunk>    a full chunk: rows, packed by what they have in common, postings, and
//!                        the openings of the period that ended with it
//!   expired-<chunk>      the same of expiries, which are not packed
//!   failed-ids-<chunk>   a full chunk of failed ids
//!   transfer-run-<run>   the ids of 32 full chunks of transfers, by hash
//!   failed-run-<run>     the same of failed ids
//!   accounts-<op>        what has changed of accounts, see `account_files`
//!   ledger-<op>          the rest: counts, the chunks that are not yet full, resolutions,
//!                        expiries to come, openings of the present period
//! ```
//!
//! A restart reads heads of full chunks and of runs, and rows of the full chunks that are in no run yet, for the
//! ids; it builds nothing else of what lies in them.
//!
//! Files of full chunks are written once, ever: a row never changes. So are runs, as soon as there are chunks for
//! one: which files there are depends on nothing but how many rows there are. The rest is written anew by each
//! checkpoint. Capturing it copies nothing at once: rows of transfers and resolutions are shared, accounts and
//! expiries to come are copied little by little.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use stampede_client::wire::Transfer;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::books::FAILED_BASE;
use super::expiry::CapturedExpiries;
use super::history::{Period, Point};
use super::resolutions::Resolutions;
use super::row::{AccountRow, Expired, TRANSFER_FIELDS};
use super::{Ledger, account_files};
use crate::store::{
    Blob, Capture, FileEntry, FileKind, FileName, Mapped, PackedChunk, Run, RunIds, SealedFile,
    SealedWriter, Section, Shared, Snapshot, Storage, StoreError, Turn, pack, run_size, write_run,
};

/// Sections of a file of full chunks.
pub(super) const SECTION_ROWS: u32 = 1;
pub(super) const SECTION_POSTINGS: u32 = 3;
pub(super) const SECTION_OPENINGS: u32 = 4;
pub(super) const SECTION_HEAD: u32 = 5;

/// Sections of `ledger-<op>`.
pub const SECTION_COUNTS: u32 = 1;
pub(super) const SECTION_TRANSFERS_TAIL: u32 = 2;
pub(super) const SECTION_FAILED_TAIL: u32 = 3;
pub(super) const SECTION_RESOLUTION_CHUNKS: u32 = 4;
pub(super) const SECTION_RESOLUTIONS: u32 = 5;
pub const SECTION_EXPIRIES: u32 = 6;
pub(super) const SECTION_EXPIRED_TAIL: u32 = 7;
pub(super) const SECTION_OPENINGS_TAIL: u32 = 8;

/// The version of these sections.
pub(super) const VERSION: u32 = 5;

/// The section that says how much the others hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Counts {
    pub(super) version: u32,
    pub(super) chunk_rows_log2: u32,
    pub(super) accounts: u32,
    pub(super) transfers: u32,
    pub(super) failed: u32,
    pub(super) expired: u32,
    pub(super) run_chunks_log2: u32,
    pub(super) reserved: u32,
}

impl Counts {
    /// Rows of a run, as a power of two.
    pub(super) fn run_rows_log2(&self) -> u32 {
        self.chunk_rows_log2 + self.run_chunks_log2
    }
}

/// What is known of a full chunk without reading it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ChunkHead {
    /// Of its first row.
    pub(super) first_timestamp: u64,
    /// When the chunk became full, which ended a period: so many transfers, so many expiries.
    pub(super) transfers: u32,
    pub(super) expired: u32,
}

impl ChunkHead {
    fn new(first_timestamp: u64, end: Point) -> Self {
        Self {
            first_timestamp,
            transfers: end.transfers,
            expired: end.expired,
        }
    }

    pub(super) fn end(&self) -> Point {
        Point {
            transfers: self.transfers,
            expired: self.expired,
        }
    }
}

/// One waiting expiry.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ExpiryRow {
    pub(super) expires_at: u64,
    pub(super) row: u32,
    pub(super) reserved: u32,
}

/// A file of a full chunk, mapped.
#[derive(Debug)]
pub(super) struct ChunkFile {
    pub(super) chunk: u32,
    pub(super) mapped: Mapped,
    /// Of transfers.
    pub(super) packed: Option<PackedChunk<Transfer>>,
    /// Of transfers and of failed ids, from whoever had the rows in hand.
    ids: Option<Arc<RunIds>>,
    /// Of transfers and of expiries.
    pub(super) parts: Option<ChunkParts>,
}

/// A table whose ids go to runs, as far as its full chunks are in files.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunTable {
    pub(super) kind: FileKind,
    /// What [`super::ids`] adds to the numbers of its rows.
    pub(super) base: u32,
}

pub(super) const TRANSFERS: RunTable = RunTable {
    kind: FileKind::TransferRun,
    base: 0,
};
pub(super) const FAILED: RunTable = RunTable {
    kind: FileKind::FailedRun,
    base: FAILED_BASE,
};

/// The ids of the full chunks of a table that are in files: most of them in runs, those of the last chunks waiting
/// until there are enough for one.
///
/// ```text
///   chunk  0 ...... 31 │ 32 ...... 63 │ 64  65  66
///          run 0       │ run 1        │ waiting
/// ```
#[derive(Debug, Default, Clone)]
pub(super) struct FileIds {
    pub(super) runs: Vec<FileEntry>,
    /// For each chunk; 512 KiB.
    pub(super) waiting: Vec<Arc<RunIds>>,
}

impl FileIds {
    /// Writes the runs that there are chunks for.
    fn write_runs(
        &mut self,
        storage: &mut dyn Storage,
        table: RunTable,
        counts: Counts,
    ) -> Result<Vec<RunFile>, StoreError> {
        let mut written = Vec::new();
        let chunks = 1 << counts.run_chunks_log2;
        while self.waiting.len() >= chunks {
            let number = chunk_number(self.runs.len());
            let name = FileName::new(table.kind, number.into());
            let entry = write_run(storage, name, &self.waiting[..chunks])?;
            let (first, rows_log2) = run_place(table, number, counts);
            let run = Run::open(storage, entry, first, rows_log2)?;
            self.waiting.drain(..chunks);
            self.runs.push(entry);
            written.push(RunFile { entry, run });
        }
        Ok(written)
    }

    /// A chunk is in a file.
    fn adopt_chunk(&mut self, file: &mut ChunkFile) {
        let ids = file.ids.take().expect("whoever writes a chunk has its ids");
        self.waiting.push(ids);
    }

    /// A run is in a file; `None` if it was before.
    fn adopt_run(&mut self, file: RunFile, run_chunks_log2: u32) -> Option<Run> {
        // A checkpoint captured before the former one was published has some files again.
        if file.entry.name.number != self.runs.len() as u64 {
            return None;
        }
        self.waiting.drain(..1 << run_chunks_log2);
        self.runs.push(file.entry);
        Some(file.run)
    }
}

/// The first row of a run and the number of its rows as a power of two.
pub(super) fn run_place(table: RunTable, number: u32, counts: Counts) -> (u32, u32) {
    let rows_log2 = counts.run_rows_log2();
    (table.base + (number << rows_log2), rows_log2)
}

/// A run that a snapshot has written.
#[derive(Debug)]
struct RunFile {
    entry: FileEntry,
    run: Run,
}

/// What a chunk's file has beside rows.
#[derive(Debug)]
pub(super) struct ChunkParts {
    pub(super) postings: Blob,
    pub(super) openings: Blob,
}

impl ChunkFile {
    /// Maps a file whose footer has been read.
    pub(super) fn open(
        storage: &dyn Storage,
        file: &SealedFile,
        chunk: u32,
    ) -> Result<Self, StoreError> {
        let (kind, mapped) = (file.entry().name.kind, Mapped::open(storage, file)?);
        let blob = |kind| {
            let section = file.section(kind)?;
            let blob = Blob::of_file(&mapped, section.offset, section.size);
            blob.ok_or_else(|| file.damaged(section.offset, "a section is not whole words"))
        };
        let has_parts = kind != FileKind::FailedIds;
        let parts = has_parts.then(|| {
            Ok::<_, StoreError>(ChunkParts {
                postings: blob(SECTION_POSTINGS)?,
                openings: blob(SECTION_OPENINGS)?,
            })
        });
        let packed = (kind == FileKind::Transfers).then(|| {
            let Section { offset, size, .. } = file.section(SECTION_ROWS)?;
            let packed = PackedChunk::open(&mapped, offset, size, &TRANSFER_FIELDS);
            packed.ok_or_else(|| file.damaged(offset, "the rows are not packed transfers"))
        });
        Ok(Self {
            chunk,
            packed: packed.transpose()?,
            ids: None,
            parts: parts.transpose()?,
            mapped,
        })
    }

    /// The parts of a file of transfers or of expiries.
    pub(super) fn into_parts(self) -> (Mapped, ChunkParts) {
        let parts = self.parts.expect("transfers and expiries have postings");
        (self.mapped, parts)
    }
}

/// What a snapshot has written, for the machine to adopt once it is published.
#[derive(Debug)]
struct Written {
    op: u64,
    /// All of this checkpoint's.
    account_files: Vec<FileEntry>,
    /// `None` if these are the former checkpoint's, which was of the same operation.
    accounts: Option<Turn>,
    transfers: Vec<ChunkFile>,
    failed: Vec<ChunkFile>,
    expired: Vec<ChunkFile>,
    transfer_runs: Vec<RunFile>,
    failed_runs: Vec<RunFile>,
}

/// The files of full chunks, and which of them still have their rows in memory.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) accounts: Vec<FileEntry>,
    pub(super) transfers: Vec<FileEntry>,
    pub(super) failed: Vec<FileEntry>,
    pub(super) expired: Vec<FileEntry>,
    pub(super) transfer_ids: FileIds,
    pub(super) failed_ids: FileIds,
    /// Published files whose rows are in memory too, oldest first: recent transfers are the ones that
    /// are looked at.
    resident: VecDeque<ChunkFile>,
    /// From snapshots on the builder's thread. Locked for a push or a drain, never during I/O.
    written: Arc<Mutex<Vec<Written>>>,
}

struct LedgerSnapshot {
    op: u64,
    counts: Counts,
    accounts: Capture<AccountRow>,
    transfers: Shared<Transfer>,
    failed: Shared<u128>,
    expired: Shared<Expired>,
    resolutions: Resolutions,
    expiries: CapturedExpiries,
    /// Of the full chunks that are in no file yet.
    transfer_parts: Vec<Parts>,
    expired_parts: Vec<Parts>,
    /// Of the present period.
    openings: Vec<u32>,
    account_files: Vec<FileEntry>,
    transfer_files: Vec<FileEntry>,
    failed_files: Vec<FileEntry>,
    expired_files: Vec<FileEntry>,
    transfer_ids: FileIds,
    failed_ids: FileIds,
    /// About how many bytes a packed row will have.
    transfer_size: u64,
    written: Arc<Mutex<Vec<Written>>>,
}

/// Of a transfer, packed, until there is a file to tell.
const TRANSFER_SIZE_GUESS: u64 = 32;

/// Postings and openings of a full chunk.
struct Parts {
    postings: Blob,
    period: Period,
}

impl Parts {
    fn new(postings: &Blob, period: &Period) -> Self {
        Self {
            postings: postings.clone(),
            period: period.clone(),
        }
    }

    fn size(&self) -> u64 {
        (self.postings.len() + self.period.openings.encoded_size()) as u64
    }
}

impl Ledger {
    pub(super) fn begin_snapshot(&mut self, op: u64) -> Box<dyn Snapshot> {
        let (books, files) = (&mut self.books, &self.files);
        let accounts = books.accounts.capture();
        let counts = Counts {
            version: VERSION,
            chunk_rows_log2: self.options.chunk_rows_log2,
            accounts: books.accounts.len(),
            transfers: books.transfers.len(),
            failed: books.failed.len(),
            expired: books.expired.len(),
            run_chunks_log2: self.options.run_chunks_log2,
            reserved: 0,
        };
        let expiries = books.expiries.capture(counts.transfers);
        let (history, indexes) = (&books.history, &books.indexes);
        let chunk_rows = books.transfers.chunk_rows();
        let periods = &history.periods;
        let last_row = |chunk: u32| chunk * chunk_rows + (chunk_rows - 1);
        let transfer_parts = (0..).zip(&indexes.transfers).skip(files.transfers.len());
        let transfer_parts = transfer_parts.map(|(chunk, postings)| {
            let period = history.of_transfer(last_row(chunk));
            Parts::new(postings, &periods[period as usize])
        });
        let expired_parts = (0..).zip(&indexes.expired).skip(files.expired.len());
        let expired_parts = expired_parts.map(|(chunk, postings)| {
            let period = history.of_expired(last_row(chunk));
            Parts::new(postings, &periods[period as usize])
        });
        let transfer_size = files.transfers.last().map_or(TRANSFER_SIZE_GUESS, |entry| {
            entry.data_size / u64::from(chunk_rows)
        });
        Box::new(LedgerSnapshot {
            op,
            transfer_size,
            transfer_parts: transfer_parts.collect(),
            expired_parts: expired_parts.collect(),
            openings: history.encode_open(),
            counts,
            accounts,
            transfers: books.transfers.share(chunk_number(files.transfers.len())),
            failed: books.failed.share(chunk_number(files.failed.len())),
            expired: books.expired.share(chunk_number(files.expired.len())),
            resolutions: books.resolutions.clone(),
            expiries,
            account_files: files.accounts.clone(),
            transfer_files: files.transfers.clone(),
            failed_files: files.failed.clone(),
            expired_files: files.expired.clone(),
            transfer_ids: files.transfer_ids.clone(),
            failed_ids: files.failed_ids.clone(),
            written: Arc::clone(&files.written),
        })
    }

    /// Takes over the files of the checkpoint of `op`. Those of transfers replace their memory little
    /// by little, see [`Ledger::release_one_chunk`].
    pub(super) fn adopt(&mut self, op: u64) {
        let mut written = self
            .files
            .written
            .lock()
            .expect("a push and a drain do not panic");
        let published: Vec<Written> = written.extract_if(.., |w| w.op <= op).collect();
        drop(written);
        for written in published {
            self.files.accounts = written.account_files;
            if let Some(turn) = written.accounts {
                self.books.accounts.adopt(turn);
            }
            for mut file in written.transfers {
                // A checkpoint captured before the former one was published has some files again.
                if file.chunk == chunk_number(self.files.transfers.len()) {
                    self.files.transfers.push(file.mapped.entry());
                    self.files.transfer_ids.adopt_chunk(&mut file);
                    self.files.resident.push_back(file);
                }
            }
            for mut file in written.failed {
                if file.chunk == chunk_number(self.files.failed.len()) {
                    self.files.failed.push(file.mapped.entry());
                    self.files.failed_ids.adopt_chunk(&mut file);
                    let failed = &mut self.books.failed;
                    failed.adopt(file.chunk, file.mapped, ROWS_OFFSET);
                }
            }
            for file in written.expired {
                if file.chunk == chunk_number(self.files.expired.len()) {
                    self.files.expired.push(file.mapped.entry());
                    self.books.release_expired(file);
                }
            }
            let chunks_log2 = self.options.run_chunks_log2;
            for (ids, runs) in [
                (&mut self.files.transfer_ids, written.transfer_runs),
                (&mut self.files.failed_ids, written.failed_runs),
            ] {
                let runs = runs.into_iter();
                runs.filter_map(|run| ids.adopt_run(run, chunks_log2))
                    .for_each(|run| self.books.transfer_ids.add_run(run));
            }
        }
    }

    /// Gives up the memory of one chunk long past, if there is one to give up: a slice of the work
    /// that a checkpoint makes, done with each operation.
    pub(super) fn release_one_chunk(&mut self) {
        let chunks_full = self.books.transfers.chunks_full();
        if let Some(file) = self.files.resident.front()
            && file.chunk + self.options.resident_chunks < chunks_full
        {
            let file = self.files.resident.pop_front().expect("it has a front");
            self.books.release_chunk(file);
        }
    }
}

/// Runs of a table with so many rows that are not there yet.
fn runs_due(ids: &FileIds, rows: u32, counts: Counts) -> u64 {
    u64::from(rows >> counts.run_rows_log2()) - ids.runs.len() as u64
}

/// Rows are the first section of a chunk's file.
pub(super) const ROWS_OFFSET: usize = 0;

pub(super) fn chunk_number(count: usize) -> u32 {
    u32::try_from(count).expect("chunks are fewer than rows")
}

impl Snapshot for LedgerSnapshot {
    fn size(&self) -> u64 {
        let chunk_rows = 1u64 << self.counts.chunk_rows_log2;
        let new_rows = |rows: u32, files: usize| u64::from(rows) - files as u64 * chunk_rows;
        let id = size_of::<u128>() as u64;
        let parts = self.transfer_parts.iter().chain(&self.expired_parts);
        let runs = runs_due(&self.transfer_ids, self.counts.transfers, self.counts)
            + runs_due(&self.failed_ids, self.counts.failed, self.counts);
        new_rows(self.counts.transfers, self.transfer_files.len()) * self.transfer_size
            + new_rows(self.counts.failed, self.failed_files.len()) * id
            + new_rows(self.counts.expired, self.expired_files.len()) * size_of::<Expired>() as u64
            + account_files::size(&self.accounts)
            + self.resolutions.size() as u64
            + (self.expiries.count() * size_of::<ExpiryRow>()) as u64
            + self.openings.as_bytes().len() as u64
            + parts.map(Parts::size).sum::<u64>()
            + runs * run_size(1 << self.counts.run_rows_log2())
    }

    fn write(&mut self, storage: &mut dyn Storage) -> Result<Vec<FileEntry>, StoreError> {
        let chunk_rows = 1u32 << self.counts.chunk_rows_log2;
        // Kept apart until all is written: after an error, everything is written again.
        let mut transfer_files = self.transfer_files.clone();
        let mut failed_files = self.failed_files.clone();
        let mut expired_files = self.expired_files.clone();
        let mut transfer_ids = self.transfer_ids.clone();
        let mut failed_ids = self.failed_ids.clone();
        let mut written = Written {
            op: self.op,
            account_files: Vec::new(),
            accounts: None,
            transfers: Vec::new(),
            failed: Vec::new(),
            expired: Vec::new(),
            transfer_runs: Vec::new(),
            failed_runs: Vec::new(),
        };

        let first = chunk_number(transfer_files.len());
        for (chunk, parts) in (first..self.counts.transfers / chunk_rows).zip(&self.transfer_parts)
        {
            let rows = self.transfers.chunk(chunk);
            let name = FileName::new(FileKind::Transfers, chunk.into());
            let packed = pack(rows, &TRANSFER_FIELDS);
            let head = ChunkHead::new(rows[0].timestamp, parts.period.end);
            let openings = parts.period.openings.encoded();
            let sections: [(u32, &[u8]); 4] = [
                (SECTION_ROWS, &packed),
                (SECTION_POSTINGS, parts.postings.bytes()),
                (SECTION_OPENINGS, openings.bytes()),
                (SECTION_HEAD, head.as_bytes()),
            ];
            let mut file = write_chunk(storage, name, chunk, &sections)?;
            let ids = Arc::new(RunIds::of(
                rows.iter().map(|transfer| transfer.id),
                self.counts.run_rows_log2(),
            ));
            transfer_ids.waiting.push(Arc::clone(&ids));
            file.ids = Some(ids);
            transfer_files.push(file.mapped.entry());
            written.transfers.push(file);
        }
        let first = chunk_number(failed_files.len());
        for chunk in first..self.counts.failed / chunk_rows {
            let name = FileName::new(FileKind::FailedIds, chunk.into());
            let rows = self.failed.chunk(chunk);
            let mut file = write_chunk(storage, name, chunk, &[(SECTION_ROWS, rows.as_bytes())])?;
            let ids = Arc::new(RunIds::of(
                rows.iter().copied(),
                self.counts.run_rows_log2(),
            ));
            failed_ids.waiting.push(Arc::clone(&ids));
            file.ids = Some(ids);
            failed_files.push(file.mapped.entry());
            written.failed.push(file);
        }
        let first = chunk_number(expired_files.len());
        for (chunk, parts) in (first..self.counts.expired / chunk_rows).zip(&self.expired_parts) {
            let rows = self.expired.chunk(chunk);
            let name = FileName::new(FileKind::Expired, chunk.into());
            let head = ChunkHead::new(rows[0].timestamp, parts.period.end);
            let openings = parts.period.openings.encoded();
            let sections: [(u32, &[u8]); 4] = [
                (SECTION_ROWS, rows.as_bytes()),
                (SECTION_POSTINGS, parts.postings.bytes()),
                (SECTION_OPENINGS, openings.bytes()),
                (SECTION_HEAD, head.as_bytes()),
            ];
            let file = write_chunk(storage, name, chunk, &sections)?;
            expired_files.push(file.mapped.entry());
            written.expired.push(file);
        }

        written.transfer_runs = transfer_ids.write_runs(storage, TRANSFERS, self.counts)?;
        written.failed_runs = failed_ids.write_runs(storage, FAILED, self.counts)?;

        written.account_files =
            account_files::write(storage, self.op, &self.accounts, &self.account_files)?;
        let is_new = written.account_files != self.account_files;
        written.accounts = is_new.then(|| self.accounts.turn());

        let mut file = SealedWriter::create(storage, FileName::new(FileKind::Ledger, self.op))?;
        file.section(SECTION_COUNTS)?;
        file.write(self.counts.as_bytes())?;
        file.section(SECTION_TRANSFERS_TAIL)?;
        if !self.counts.transfers.is_multiple_of(chunk_rows) {
            let tail = self.transfers.chunk(self.counts.transfers / chunk_rows);
            file.write(&pack(tail, &TRANSFER_FIELDS))?;
        }
        file.section(SECTION_FAILED_TAIL)?;
        if !self.counts.failed.is_multiple_of(chunk_rows) {
            let tail = self.failed.chunk(self.counts.failed / chunk_rows);
            file.write(tail.as_bytes())?;
        }
        file.section(SECTION_RESOLUTION_CHUNKS)?;
        for (number, _) in self.resolutions.chunks() {
            file.write(&number.to_le_bytes())?;
        }
        file.section(SECTION_RESOLUTIONS)?;
        for piece in self.resolutions.chunks().flat_map(|(_, pieces)| pieces) {
            file.write(piece)?;
        }
        file.section(SECTION_EXPIRIES)?;
        file.write(self.expiries.rows().as_bytes())?;
        file.section(SECTION_EXPIRED_TAIL)?;
        if !self.counts.expired.is_multiple_of(chunk_rows) {
            let tail = self.expired.chunk(self.counts.expired / chunk_rows);
            file.write(tail.as_bytes())?;
        }
        file.section(SECTION_OPENINGS_TAIL)?;
        file.write(self.openings.as_bytes())?;
        let ledger = file.finish()?;

        let mut files = transfer_files;
        files.extend_from_slice(&failed_files);
        files.extend_from_slice(&expired_files);
        files.extend_from_slice(&transfer_ids.runs);
        files.extend_from_slice(&failed_ids.runs);
        files.extend_from_slice(&written.account_files);
        files.push(ledger);
        self.written
            .lock()
            .expect("a push and a drain do not panic")
            .push(written);
        Ok(files)
    }

    /// A file that is mapped keeps its room on the disk.
    fn discard(&mut self) {
        self.written
            .lock()
            .expect("a push and a drain do not panic")
            .retain(|written| written.op != self.op);
    }
}

fn write_chunk(
    storage: &mut dyn Storage,
    name: FileName,
    chunk: u32,
    sections: &[(u32, &[u8])],
) -> Result<ChunkFile, StoreError> {
    let mut file = SealedWriter::create(storage, name)?;
    for (kind, bytes) in sections {
        file.section(*kind)?;
        file.write(bytes)?;
    }
    let entry = file.finish()?;
    let chunk = ChunkFile::open(storage, &SealedFile::open(storage, entry)?, chunk)?;
    chunk.mapped.release();
    Ok(chunk)
}
