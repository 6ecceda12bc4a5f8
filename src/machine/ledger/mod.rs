//! The ledger: double-entry accounts and transfers.
//!
//! ```text
//!   apply ─► body (multi-batch or plain) ─► batch ─► sub-batches of 128 events
//!                                                      1  hash ids, fetch index buckets
//!                                                      2  probe, fetch rows
//!                                                      3  check and apply, in order
//! ```
//!
//! | file | idea |
//! | --- | --- |
//! | `books` | the tables, and how things are found in them |
//! | `memory` | how much memory what takes, and how a budget is divided |
//! | `ids` | which row an id of a transfer stands for: memory, filter, runs |
//! | `batch` | what both creates share: order, chains, imported batches, results |
//! | `accounts` | create_accounts |
//! | `transfers` | create_transfers: the common head, plain and pending transfers |
//! | `resolve` | post and void of pending transfers |
//! | `exists` | what a repeated id is told |
//! | `undo` | taking back the transfers and accounts of a broken chain |
//! | `expiry` | timeouts: what is due, and the pulse |
//! | `resolutions` | which pending transfers are posted, voided, expired |
//! | `unresolved` | pending transfers whose rows have left memory |
//! | `lookup` | lookup_accounts, lookup_transfers |
//! | `indexes` | which transfers and accounts have a value: postings |
//! | `query` | get_account_transfers, query_transfers, query_accounts |
//! | `history`, `openings` | periods, and what balances were when they began |
//! | `replay` | what an event did to balances |
//! | `balances` | get_account_balances |
//! | `change_events` | get_change_events |
//! | `row` | the ledger's own rows: an account with its mark, an expiry |
//! | `snapshot`, `restore` | the files of a checkpoint, written and read |
//! | `account_files` | of those, the files of accounts |
//! | `verify` | all of it, checked: the rows done once more, and what leads to them compared |
//!
//! The checks of an event come in a fixed order, and the first that fails names the status; the
//! order is part of the protocol.

mod account_files;
mod accounts;
mod balances;
mod batch;
mod books;
mod change_events;
mod digest;
mod exists;
mod expiry;
mod history;
mod ids;
mod indexes;
mod lookup;
mod memory;
mod openings;
mod query;
mod replay;
mod resolutions;
mod resolve;
mod restore;
mod row;
mod snapshot;
mod transfers;
mod undo;
mod unresolved;
mod verify;

#[cfg(test)]
mod openings_test;
#[cfg(test)]
mod tests;

use stampede_client::wire::body;
use stampede_client::wire::multibatch::{self, Encoder};
use stampede_client::wire::operation::{Form, Kind, Operation};
use stampede_client::wire::{
    Account, AccountFilter, ChangeEventsFilter, CreateResult, QueryFilter, SparseResult,
    TIMESTAMP_MAX, Transfer,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use self::batch::Results;
use self::books::Books;
use self::change_events::Replayed;
pub use self::expiry::PULSE_EVENTS_MAX;
pub use self::memory::{Growing, Part};
use self::snapshot::Files;
pub use self::snapshot::{SECTION_COUNTS, SECTION_EXPIRIES};
pub use self::verify::{BROKEN_MAX, Verified};
use super::Machine;
use crate::limits::{BODY_SIZE_MAX, PIPELINE_MAX};
use crate::store::{CHUNK_ROWS_LOG2, Damage, FileEntry, Snapshot, Storage, StoreError};

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    books: Books,
    options: LedgerOptions,
    files: Files,
    /// For change events; kept for its memory.
    replayed: Replayed,
    /// Results of one batch, for the operations that answer with failures only.
    dense: Vec<u8>,
    /// A body that lies at an odd address is copied here.
    aligned: Vec<u128>,
}

/// What differs between machines of one build: tests want small chunks.
#[derive(Debug, Clone, Copy)]
pub struct LedgerOptions {
    /// Rows in a chunk of a table, as a power of two. Part of the file format.
    pub chunk_rows_log2: u32,
    /// Full chunks whose ids make a run, as a power of two. Part of the file format.
    pub run_chunks_log2: u32,
    /// Full chunks of transfers that stay in memory after their file is published.
    pub resident_chunks: u32,
    /// Bytes of the filter of ids in runs, at most. A matter of speed alone.
    pub filter_size: u64,
    /// Pending transfers that still wait and stay in memory when their chunk does not.
    pub waiting_rows: u32,
    /// Rows that tables may have.
    pub rows_max: RowsMax,
}

/// How much a ledger may hold before those who want to create are sent away.
#[derive(Debug, Clone, Copy)]
pub struct RowsMax {
    pub accounts: u32,
    pub transfers: u32,
    /// Ids of transfers that failed for good.
    pub failed: u32,
    /// Pending transfers with a timeout that wait for it, or for their resolution.
    pub timeouts: u32,
}

/// What operations may bring that are prepared before anybody knows what the ones before them have done. Each event
/// makes at most one row: of an account, of a transfer or of a failed id.
#[expect(clippy::cast_possible_truncation, reason = "half a million")]
pub const ROWS_AHEAD: u32 = (PIPELINE_MAX * BODY_SIZE_MAX / size_of::<Transfer>()) as u32;

/// Two million ids: what waits for a run fits 50 MiB, and of a hundred million transfers there are 48 runs.
const RUN_CHUNKS_LOG2: u32 = 5;

/// Good for 170 million ids; it is smaller while there are fewer.
pub const FILTER_SIZE_DEFAULT: u64 = 256 << 20;

/// Half a gibibyte.
const WAITING_ROWS: u32 = 4 << 20;

/// 8 MiB, besides the transfers since the last checkpoint but one. More memory would only
/// help reads and retries of older ones; what resolutions need is kept anyway.
const RESIDENT_CHUNKS: u32 = 1;

/// The largest body of a request: what limits of queries are derived from.
#[expect(clippy::cast_possible_truncation, reason = "a mebibyte")]
const BATCH_SIZE_LIMIT: u32 = BODY_SIZE_MAX as u32;

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            chunk_rows_log2: CHUNK_ROWS_LOG2,
            run_chunks_log2: RUN_CHUNKS_LOG2,
            resident_chunks: RESIDENT_CHUNKS,
            filter_size: FILTER_SIZE_DEFAULT,
            waiting_rows: WAITING_ROWS,
            rows_max: RowsMax::INDEXED,
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LedgerOptions::default())
    }
}

impl Ledger {
    /// An empty ledger.
    pub fn new(options: LedgerOptions) -> Self {
        Self::with(
            options,
            Books::with_capacity(options, 0, 0),
            Files::default(),
        )
    }

    fn with(options: LedgerOptions, books: Books, files: Files) -> Self {
        Self {
            books,
            options,
            files,
            replayed: Replayed::default(),
            dense: Vec::new(),
            aligned: Vec::new(),
        }
    }

    /// Accounts created.
    pub fn accounts_count(&self) -> u32 {
        self.books.accounts.len()
    }

    /// Whether there is room for what may be under way.
    fn has_room(&self) -> bool {
        let RowsMax {
            accounts,
            transfers,
            failed,
            timeouts,
        } = self.options.rows_max;
        let fits = |rows: u32, max: u32| rows.saturating_add(ROWS_AHEAD) <= max;
        let waiting = u32::try_from(self.books.expiries.len()).unwrap_or(u32::MAX);
        fits(self.books.accounts.len(), accounts)
            && fits(self.books.transfers.len(), transfers)
            && fits(self.books.failed.len(), failed)
            && fits(waiting, timeouts)
    }

    /// Transfers created.
    pub fn transfers_count(&self) -> u32 {
        self.books.transfers.len()
    }

    fn create<E: Event>(
        &mut self,
        operation: Operation,
        timestamp: u64,
        body: &[u8],
        reply: &mut [u8],
    ) -> usize {
        // Bodies lie at aligned addresses in the replica's buffers; elsewhere they are copied.
        let mut copy = std::mem::take(&mut self.aligned);
        let body = if <[E]>::ref_from_bytes(&body[..0]).is_ok() {
            body
        } else {
            copy.clear();
            copy.resize(body.len().div_ceil(16), 0);
            let bytes = &mut copy.as_mut_bytes()[..body.len()];
            bytes.copy_from_slice(body);
            bytes
        };
        let size = match operation.form() {
            Form::Unbatched => {
                let events = events_of::<E>(body);
                let first = first_timestamp(timestamp, events.len());
                let size = self.create_sparse(events, first, reply);
                size * SparseResult::SIZE
            }
            Form::Sparse => {
                let batches = multibatch::decode(body, operation.event_size())
                    .expect("the gateway admits only multi-batch bodies here");
                let mut first = first_timestamp(timestamp, batches.element_count());
                let mut encoder = Encoder::new(reply, SparseResult::SIZE);
                for batch in batches.iter() {
                    let events = events_of::<E>(batch.elements);
                    let count = self.create_sparse(events, first, encoder.spare());
                    encoder.end_batch(count * SparseResult::SIZE);
                    first += events.len() as u64;
                }
                encoder.finish()
            }
            Form::Batched => {
                let batches = multibatch::decode(body, operation.event_size())
                    .expect("the gateway admits only multi-batch bodies here");
                let mut first = first_timestamp(timestamp, batches.element_count());
                let mut payload_size = 0;
                for batch in batches.iter() {
                    let events = events_of::<E>(batch.elements);
                    let size = events.len() * CreateResult::SIZE;
                    let results = &mut reply[payload_size..payload_size + size];
                    E::create(&mut self.books, events, first, Results::new(results));
                    payload_size += size;
                    first += events.len() as u64;
                }
                multibatch::encode_trailer(
                    reply,
                    payload_size,
                    CreateResult::SIZE,
                    batches.counts(),
                )
            }
        };
        self.aligned = copy;
        size
    }

    /// Runs one batch and reports the events that were not created; returns how many.
    fn create_sparse<E: Event>(&mut self, events: &[E], first: u64, reply: &mut [u8]) -> usize {
        self.dense.clear();
        self.dense.resize(events.len() * CreateResult::SIZE, 0);
        E::create(
            &mut self.books,
            events,
            first,
            Results::new(&mut self.dense),
        );
        let mut failures = 0;
        for (index, result) in (0u32..).zip(self.dense.chunks_exact(CreateResult::SIZE)) {
            let result = CreateResult::read_from_bytes(result).expect("a result's bytes");
            if !result.is_created() {
                let failure = SparseResult {
                    index,
                    status: result.status,
                };
                let at = failures * SparseResult::SIZE;
                reply[at..at + SparseResult::SIZE].copy_from_slice(failure.as_bytes());
                failures += 1;
            }
        }
        failures
    }

    /// Answers the filter of each batch with what `find` writes, given how many results there may be.
    fn query<F: FromBytes>(
        &mut self,
        operation: Operation,
        body: &[u8],
        reply: &mut [u8],
        find: impl Fn(&mut Self, &F, u32, &mut [u8]) -> usize,
    ) -> usize {
        let results_max = body::batch_results_max(operation, BATCH_SIZE_LIMIT);
        lookup::answer(operation, body, reply, |filter, found| {
            let limit = body::filter_limit(operation, filter);
            let limit = limit.expect("the gateway admits only one filter in a batch");
            let filter = F::read_from_bytes(filter).expect("as long as a filter");
            find(self, &filter, limit.min(results_max), found)
        })
    }

    fn apply_operation(
        &mut self,
        code: u8,
        timestamp: u64,
        body: &[u8],
        reply: &mut [u8],
    ) -> usize {
        let operation = Operation::from_code(code).expect("the gateway admits known operations");
        match operation.kind() {
            Kind::CreateAccounts => self.create::<Account>(operation, timestamp, body, reply),
            Kind::CreateTransfers => self.create::<Transfer>(operation, timestamp, body, reply),
            Kind::LookupAccounts => lookup::answer(operation, body, reply, |ids, found| {
                self.books.lookup_accounts(ids, found)
            }),
            Kind::LookupTransfers => lookup::answer(operation, body, reply, |ids, found| {
                self.books.lookup_transfers(ids, found)
            }),
            Kind::GetAccountTransfers => self.query(
                operation,
                body,
                reply,
                |ledger, filter: &AccountFilter, limit, found| {
                    ledger.books.account_transfers(filter, limit, found)
                },
            ),
            Kind::GetAccountBalances => self.query(
                operation,
                body,
                reply,
                |ledger, filter: &AccountFilter, limit, found| {
                    ledger.books.account_balances(filter, limit, found)
                },
            ),
            Kind::QueryAccounts => self.query(
                operation,
                body,
                reply,
                |ledger, filter: &QueryFilter, limit, found| {
                    ledger.books.query_accounts(filter, limit, found)
                },
            ),
            Kind::QueryTransfers => self.query(
                operation,
                body,
                reply,
                |ledger, filter: &QueryFilter, limit, found| {
                    ledger.books.query_transfers(filter, limit, found)
                },
            ),
            Kind::GetChangeEvents => self.query(
                operation,
                body,
                reply,
                |ledger, filter: &ChangeEventsFilter, limit, found| {
                    let replayed = &mut ledger.replayed;
                    ledger.books.change_events(replayed, filter, limit, found)
                },
            ),
            Kind::Pulse => {
                self.books.expire(timestamp);
                0
            }
            Kind::Register | Kind::Noop => unreachable!("{operation} belongs to the replica"),
        }
    }
}

impl Machine for Ledger {
    fn is_write(operation: u8) -> bool {
        Operation::from_code(operation)
            .is_some_and(|operation| operation.is_create() || !operation.is_for_clients())
    }

    fn admits(operation: u8, former: u64, timestamp: u64, body: &[u8]) -> bool {
        let Some(operation) = Operation::from_code(operation) else {
            return false;
        };
        let Ok(summary) = body::validate(operation, body, BATCH_SIZE_LIMIT) else {
            return false;
        };
        let events = if operation == Operation::Pulse {
            PULSE_EVENTS_MAX
        } else {
            summary.events
        };
        let is_ours = !matches!(operation.kind(), Kind::Register | Kind::Noop);
        let room = timestamp.saturating_sub(former);
        is_ours && room > u64::from(events) && timestamp <= TIMESTAMP_MAX
    }

    fn reply_size_max(operation: u8, body: &[u8]) -> usize {
        Operation::from_code(operation)
            .and_then(|operation| body::validate(operation, body, BATCH_SIZE_LIMIT).ok())
            .map_or(0, |summary| summary.reply_size_max)
    }

    fn apply(
        &mut self,
        _op: u64,
        operation: u8,
        timestamp: u64,
        body: &[u8],
        reply: &mut [u8],
    ) -> usize {
        let size = self.apply_operation(operation, timestamp, body, reply);
        self.books.settle();
        self.release_one_chunk();
        size
    }

    fn due(&self) -> u64 {
        self.books.expiries.due()
    }

    fn snapshot(&mut self, op: u64) -> Box<dyn Snapshot> {
        self.begin_snapshot(op)
    }

    fn capture(&mut self) -> bool {
        self.books.accounts.go_on() && self.books.expiries.go_on()
    }

    fn published(&mut self, op: u64) {
        self.adopt(op);
    }

    fn restore(self, storage: &dyn Storage, files: &[FileEntry]) -> Result<Self, StoreError> {
        Self::from_files(self.options, storage, files)
    }

    /// Touches memory for the next 800,000 transfers, and for more ids than that; and makes the filter of old ids.
    fn prepare(&self) -> Option<Box<dyn FnMut() + Send>> {
        const CHUNKS: usize = memory::CHUNKS_AHEAD as usize;
        const BLOCKS: usize = 2;
        let (rows, ids) = (
            self.books.transfers.reserve(),
            self.books.transfer_ids.reserve(),
        );
        let mut filter = self.books.transfer_ids.filter_maker();
        Some(Box::new(move || {
            rows.fill(CHUNKS);
            ids.fill(BLOCKS);
            // Damage is for those to tell whom it concerns: without the filter the run itself is asked.
            let _ = Damage::catch(|| filter.work());
        }))
    }

    fn is_full(&self) -> bool {
        !self.has_room()
    }

    fn digest(&self) -> u128 {
        self.books.digest()
    }
}

/// The timestamp of the first of `events`; the last one's is the operation's.
fn first_timestamp(timestamp: u64, events: usize) -> u64 {
    let first = (timestamp + 1).checked_sub(events as u64);
    first.expect("the primary gives an operation as much time as it has events")
}

/// What a create makes.
trait Event: FromBytes + IntoBytes + Immutable + KnownLayout {
    fn create(books: &mut Books, events: &[Self], first: u64, results: Results<'_>)
    where
        Self: Sized;
}

impl Event for Account {
    fn create(books: &mut Books, events: &[Self], first: u64, results: Results<'_>) {
        books.create_accounts(events, first, results);
    }
}

impl Event for Transfer {
    fn create(books: &mut Books, events: &[Self], first: u64, results: Results<'_>) {
        books.create_transfers(events, first, results);
    }
}

/// The events in a batch, in place.
fn events_of<E: Event>(elements: &[u8]) -> &[E] {
    <[E]>::ref_from_bytes(elements)
        .unwrap_or_else(|error| panic!("a batch is whole events at an aligned address: {error}"))
}
