//! Tests of the ledger: by hand, by peeling, and against a model.
//!
//! [`Bench`] drives a ledger the way the replica does, with encoded bodies and cluster time, and
//! gives decoded results. `peeling` walks the tables of checks with an event that is wrong in every
//! way and is repaired one step at a time; `random` compares whole histories, queries among them, with
//! `model`. Queries are tested in `queries` against what was seen when it happened, and in
//! `queries_by_hand` against answers that are written down.

mod chains;
mod checkpoints;
mod corners;
mod model;
mod peeling_accounts;
mod peeling_transfers;
mod queries;
mod queries_by_hand;
mod random;
mod rules;

use stampede_client::wire::multibatch::{self, encode_trailer, trailer_size};
use stampede_client::wire::operation::{Form, Operation};
use stampede_client::wire::record::{account_flags, transfer_flags};
use stampede_client::wire::{
    Account, CreateAccountStatus, CreateResult, CreateTransferStatus, SparseResult, Transfer,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Ledger, LedgerOptions, PULSE_EVENTS_MAX, RowsMax};
use crate::limits::BODY_SIZE_MAX;
use crate::machine::Machine;

/// Small chunks and runs, so that few transfers fill some, and a filter that is often mistaken.
pub(super) const OPTIONS: LedgerOptions = LedgerOptions {
    chunk_rows_log2: 5,
    run_chunks_log2: 1,
    resident_chunks: 1,
    filter_size: 128,
    waiting_rows: 4 << 20,
    rows_max: RowsMax::INDEXED,
};

/// A body at an aligned address.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    words: Vec<u128>,
    size: usize,
}

impl Body {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut words = vec![0; bytes.len().div_ceil(16)];
        words.as_mut_slice().as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        Self {
            words,
            size: bytes.len(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.size]
    }
}

/// The body of a request with these batches.
pub(super) fn encode<E: IntoBytes + Immutable>(operation: Operation, batches: &[Vec<E>]) -> Body {
    let mut bytes: Vec<u8> = Vec::new();
    batches
        .iter()
        .for_each(|batch| bytes.extend_from_slice(batch.as_bytes()));
    if operation.form() != Form::Unbatched {
        let (payload, size) = (bytes.len(), operation.event_size());
        bytes.resize(payload + trailer_size(size, batches.len()), 0);
        let counts = batches
            .iter()
            .map(|batch| u16::try_from(batch.len()).unwrap());
        encode_trailer(&mut bytes, payload, size, counts);
    } else {
        assert_eq!(batches.len(), 1);
    }
    Body::of(&bytes)
}

/// The batches of a reply.
pub(super) fn decode<R: FromBytes + Clone>(operation: Operation, reply: &[u8]) -> Vec<Vec<R>> {
    let size = operation.result_size();
    let rows = |bytes: &[u8]| {
        bytes
            .chunks_exact(size)
            .map(|row| R::read_from_bytes(row).unwrap())
            .collect()
    };
    if operation.form() == Form::Unbatched {
        return vec![rows(reply)];
    }
    let batches = multibatch::decode(reply, size).unwrap();
    batches.iter().map(|batch| rows(batch.elements)).collect()
}

/// A ledger with a clock.
pub(super) struct Bench {
    pub(super) ledger: Ledger,
    pub(super) op: u64,
    /// The cluster's time: the timestamp of the last operation.
    pub(super) clock: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_options(OPTIONS)
    }

    pub(super) fn with_options(options: LedgerOptions) -> Self {
        Self {
            ledger: Ledger::new(options),
            op: 0,
            clock: 1_000_000,
        }
    }

    /// Applies an operation of `events` events and gives its reply.
    pub(super) fn run(&mut self, operation: Operation, events: u64, body: &Body) -> Vec<u8> {
        self.clock += 1 + events;
        self.op += 1;
        let bound = Ledger::reply_size_max(operation.code(), body.bytes());
        assert!(bound <= BODY_SIZE_MAX);
        let mut reply = vec![0xee; bound + 3];
        let reply_room = &mut reply[..bound];
        let size = self.ledger.apply(
            self.op,
            operation.code(),
            self.clock,
            body.bytes(),
            reply_room,
        );
        assert!(size <= bound, "{operation}: {size} > {bound}");
        assert_eq!(reply[bound..], [0xee; 3]);
        reply.truncate(size);
        reply
    }

    pub(super) fn create<E: IntoBytes + Immutable>(
        &mut self,
        operation: Operation,
        batches: &[Vec<E>],
    ) -> Vec<Vec<CreateResult>> {
        let events = batches.iter().map(|batch| batch.len() as u64).sum();
        let reply = self.run(operation, events, &encode(operation, batches));
        decode(operation, &reply)
    }

    /// One batch of accounts; gives the statuses.
    pub(super) fn accounts(&mut self, events: &[Account]) -> Vec<CreateAccountStatus> {
        let results = self
            .create(Operation::CreateAccounts, &[events.to_vec()])
            .remove(0);
        results
            .iter()
            .map(|result| result.account_status().unwrap())
            .collect()
    }

    /// One batch of transfers; gives the statuses.
    pub(super) fn transfers(&mut self, events: &[Transfer]) -> Vec<CreateTransferStatus> {
        let results = self
            .create(Operation::CreateTransfers, &[events.to_vec()])
            .remove(0);
        results
            .iter()
            .map(|result| result.transfer_status().unwrap())
            .collect()
    }

    pub(super) fn transfer(&mut self, event: Transfer) -> CreateTransferStatus {
        self.transfers(&[event])[0]
    }

    pub(super) fn account(&mut self, event: Account) -> CreateAccountStatus {
        self.accounts(&[event])[0]
    }

    pub(super) fn lookup_accounts(&mut self, ids: &[u128]) -> Vec<Account> {
        let operation = Operation::LookupAccounts;
        let reply = self.run(operation, 0, &encode(operation, &[ids.to_vec()]));
        decode(operation, &reply).remove(0)
    }

    pub(super) fn lookup_transfers(&mut self, ids: &[u128]) -> Vec<Transfer> {
        let operation = Operation::LookupTransfers;
        let reply = self.run(operation, 0, &encode(operation, &[ids.to_vec()]));
        decode(operation, &reply).remove(0)
    }

    /// (debits_pending, debits_posted, credits_pending, credits_posted)
    pub(super) fn balances(&mut self, id: u128) -> (u128, u128, u128, u128) {
        let account = self.lookup_accounts(&[id])[0];
        let Account {
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
            ..
        } = account;
        (
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
        )
    }

    pub(super) fn is_closed(&mut self, id: u128) -> bool {
        self.lookup_accounts(&[id])[0].flags & account_flags::CLOSED != 0
    }

    /// Lets time pass; does not run the pulse.
    pub(super) fn wait_seconds(&mut self, seconds: u64) {
        self.clock += seconds * 1_000_000_000;
    }

    pub(super) fn pulse(&mut self) {
        self.run(
            Operation::Pulse,
            u64::from(PULSE_EVENTS_MAX),
            &Body::default(),
        );
    }

    /// Accounts 1, 2, ... `count` of ledger 1.
    pub(super) fn with_accounts(count: u128) -> Self {
        let mut bench = Self::new();
        let events: Vec<Account> = (1..=count).map(account).collect();
        let created = bench.accounts(&events);
        assert!(
            created
                .iter()
                .all(|status| *status == CreateAccountStatus::Created)
        );
        bench
    }
}

/// A valid account.
pub(super) fn account(id: u128) -> Account {
    Account {
        id,
        ledger: 1,
        code: 1,
        ..Account::default()
    }
}

/// A valid transfer from account 1 to account 2.
pub(super) fn transfer(id: u128, amount: u128) -> Transfer {
    Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    }
}

pub(super) fn pending(id: u128, amount: u128) -> Transfer {
    Transfer {
        flags: transfer_flags::PENDING,
        ..transfer(id, amount)
    }
}

pub(super) fn post(id: u128, pending_id: u128, amount: u128) -> Transfer {
    let flags = transfer_flags::POST_PENDING_TRANSFER;
    Transfer {
        id,
        pending_id,
        amount,
        flags,
        ..Transfer::default()
    }
}

pub(super) fn void(id: u128, pending_id: u128) -> Transfer {
    let flags = transfer_flags::VOID_PENDING_TRANSFER;
    Transfer {
        id,
        pending_id,
        flags,
        ..Transfer::default()
    }
}

/// The results of an operation that reports failures only.
pub(super) fn sparse(operation: Operation, reply: &[u8]) -> Vec<Vec<(u32, u32)>> {
    let batches = decode::<SparseResult>(operation, reply);
    batches
        .iter()
        .map(|batch| batch.iter().map(|r| (r.index, r.status)).collect())
        .collect()
}
