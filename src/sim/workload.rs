//! What clients ask for: a mixture in which most things succeed and everything can go wrong.
//!
//! Accounts come from a small space that all clients share, so that balances are contended; transfer
//! ids belong to their client, and are used again now and then, by their owner or by somebody else.
//! Batches are mostly small and sometimes as large as a message can be. The workload does not know
//! what the answers will be: the model does.

use std::collections::VecDeque;

use stampede_client::wire::record::{account_filter_flags, account_flags, transfer_flags};
use stampede_client::wire::{
    Account, AccountFilter, ChangeEventsFilter, Operation, QueryFilter, Transfer, multibatch,
};
use zerocopy::{Immutable, IntoBytes};

use super::random::{MILLION, Random};

/// How the mixture is made.
#[derive(Debug, Clone, Copy)]
pub struct Mixture {
    /// Accounts that exist, or will.
    pub accounts: u64,
    /// Events of an ordinary batch, at most.
    pub events_max: u64,
    /// Batches with as many events as fit. Parts per million.
    pub full: u32,
    /// Whether to ask for what needs indexes besides ids.
    pub queries: bool,
}

impl Mixture {
    pub const ORDINARY: Self = Self {
        accounts: 40,
        events_max: 12,
        full: 200,
        queries: false,
    };
}

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Work {
    pub operation: Operation,
    pub body: Vec<u8>,
}

/// The work of one client.
#[derive(Debug)]
pub(crate) struct Workload {
    mixture: Mixture,
    client: u64,
    random: Random,
    transfers: u64,
    accounts_created: u64,
    latest: Option<Transfer>,
    pending: VecDeque<u128>,
    /// Cluster time of the last answer.
    seen: u64,
}

/// The most events in one batch of a create.
const EVENTS_FULL: u64 = 8189;

/// How a client's first requests create the accounts.
const ACCOUNTS_AT_ONCE: u64 = 16;

/// How far back the range of a filter may begin or end, in nanoseconds: a few seconds.
const RANGE_MAX: u64 = 5_000_000_000;

/// Pending transfers that a client remembers, to post or void them.
const PENDING_MAX: usize = 16;

impl Workload {
    pub(crate) fn new(mixture: Mixture, client: u64, random: Random) -> Self {
        Self {
            mixture,
            client,
            random,
            transfers: 0,
            accounts_created: 0,
            latest: None,
            pending: VecDeque::new(),
            seen: 0,
        }
    }

    /// The next request.
    pub(crate) fn next(&mut self) -> Work {
        // Every client begins with some accounts; who comes second finds them.
        if self.accounts_created < self.mixture.accounts {
            let first = self.accounts_created + 1;
            self.accounts_created += ACCOUNTS_AT_ONCE;
            let ids = first..first + ACCOUNTS_AT_ONCE;
            let accounts: Vec<Account> = ids.map(|id| self.account(id)).collect();
            return work(Operation::CreateAccounts, &[accounts]);
        }
        match self
            .random
            .below(if self.mixture.queries { 100 } else { 92 })
        {
            0..2 => {
                let accounts = self.batches(|w| {
                    let id = w.account_id();
                    w.account(id)
                });
                work(Operation::CreateAccounts, &accounts)
            }
            2..72 => {
                let transfers = self.batches(Self::transfer);
                work(Operation::CreateTransfers, &transfers)
            }
            72..82 => {
                let ids = self.batches(|w| u128::from(w.account_id()));
                work(Operation::LookupAccounts, &ids)
            }
            82..92 => {
                let ids = self.batches(Self::known_transfer_id);
                work(Operation::LookupTransfers, &ids)
            }
            92..95 => {
                let filters = self.filters(Self::account_filter);
                work(Operation::GetAccountTransfers, &filters)
            }
            95 => {
                let filters = self.filters(Self::account_filter);
                work(Operation::GetAccountBalances, &filters)
            }
            96..98 => {
                let filters = self.filters(Self::query_filter);
                work(Operation::QueryTransfers, &filters)
            }
            98 => {
                let filters = self.filters(Self::query_filter);
                work(Operation::QueryAccounts, &filters)
            }
            _ => {
                let (timestamp_min, timestamp_max) = self.range();
                let filter = ChangeEventsFilter {
                    timestamp_min,
                    timestamp_max,
                    limit: self.limit(),
                    ..ChangeEventsFilter::default()
                };
                Work {
                    operation: Operation::GetChangeEvents,
                    body: filter.as_bytes().to_vec(),
                }
            }
        }
    }

    /// An answer has come, at this time of the cluster.
    pub(crate) fn saw(&mut self, timestamp: u64) {
        self.seen = timestamp;
    }

    /// All accounts, to be compared in the end.
    pub(crate) fn lookup_all_accounts(&self) -> Work {
        let ids: Vec<u128> = (1..=self.mixture.accounts + ACCOUNTS_AT_ONCE)
            .map(u128::from)
            .collect();
        work(Operation::LookupAccounts, &[ids])
    }

    fn batches<E>(&mut self, mut event: impl FnMut(&mut Self) -> E) -> Vec<Vec<E>> {
        if self.random.chance(self.mixture.full) {
            return vec![(0..EVENTS_FULL).map(|_| event(self)).collect()];
        }
        let batches = 1 + self.random.below(8) / 6;
        let mut made = Vec::new();
        for _ in 0..batches {
            let events = self.random.skewed(self.mixture.events_max + 1);
            made.push((0..events).map(|_| event(self)).collect());
        }
        made
    }

    fn account_id(&mut self) -> u64 {
        // One that does not exist, now and then.
        let last = self.mixture.accounts.next_multiple_of(ACCOUNTS_AT_ONCE);
        1 + self.random.below(last + 2)
    }

    fn account(&mut self, id: u64) -> Account {
        let flags = match self.random.below(10) {
            0 => account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS,
            1 => account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS,
            2 => account_flags::HISTORY,
            3 => account_flags::LINKED,
            _ => 0,
        };
        Account {
            id: u128::from(id),
            user_data_64: id % 3,
            ledger: if self.random.chance(MILLION / 50) {
                2
            } else {
                1
            },
            code: if self.random.chance(MILLION / 100) {
                0
            } else {
                7
            },
            flags,
            ..Account::default()
        }
    }

    fn transfer_id(client: u64, number: u64) -> u128 {
        u128::from(client + 1) << 64 | u128::from(number)
    }

    fn known_transfer_id(&mut self) -> u128 {
        let client = if self.random.chance(MILLION / 5) {
            self.random.below(self.client + 2)
        } else {
            self.client
        };
        Self::transfer_id(client, 1 + self.random.below(self.transfers + 2))
    }

    fn transfer(&mut self) -> Transfer {
        let again = self.random.chance(MILLION / 30);
        if let Some(latest) = self.latest.filter(|_| again) {
            return latest;
        }
        let id = if self.random.chance(MILLION / 25) {
            self.known_transfer_id()
        } else {
            self.transfers += 1;
            Self::transfer_id(self.client, self.transfers)
        };
        let transfer = match self.random.below(20) {
            0..3 => self.pending_transfer(id),
            3..6 => self.second_transfer(id),
            6 => self.first_transfer(id, transfer_flags::BALANCING_DEBIT),
            7 => self.first_transfer(id, transfer_flags::BALANCING_CREDIT),
            8..10 => self.first_transfer(id, transfer_flags::LINKED),
            _ => self.first_transfer(id, 0),
        };
        self.latest = Some(transfer);
        transfer
    }

    fn first_transfer(&mut self, id: u128, flags: u16) -> Transfer {
        Transfer {
            id,
            debit_account_id: u128::from(self.account_id()),
            credit_account_id: u128::from(self.account_id()),
            amount: u128::from(self.random.skewed(1_000)),
            user_data_64: self.random.below(4),
            ledger: 1,
            code: 7,
            flags,
            ..Transfer::default()
        }
    }

    fn pending_transfer(&mut self, id: u128) -> Transfer {
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(id);
        let closing = self.random.chance(MILLION / 20);
        // What closes an account must end, or all accounts would be closed before long.
        let timed = closing || self.random.chance(MILLION / 2);
        let seconds = 1 + self.random.below(4);
        let closes = if closing {
            transfer_flags::CLOSING_DEBIT
        } else {
            0
        };
        Transfer {
            timeout: if timed {
                u32::try_from(seconds).expect("below five")
            } else {
                0
            },
            ..self.first_transfer(id, transfer_flags::PENDING | closes)
        }
    }

    fn second_transfer(&mut self, id: u128) -> Transfer {
        let pending_id = if self.pending.is_empty() || self.random.chance(MILLION / 10) {
            self.known_transfer_id()
        } else {
            self.pending[self.random.index(self.pending.len())]
        };
        let void = self.random.chance(MILLION / 2);
        let whole = if void { 0 } else { u128::MAX };
        let part = self.random.chance(MILLION / 5);
        Transfer {
            id,
            pending_id,
            amount: if part {
                u128::from(self.random.skewed(100))
            } else {
                whole
            },
            flags: if void {
                transfer_flags::VOID_PENDING_TRANSFER
            } else {
                transfer_flags::POST_PENDING_TRANSFER
            },
            ..Transfer::default()
        }
    }

    /// Some filters, each a batch of its own.
    fn filters<E>(&mut self, mut filter: impl FnMut(&mut Self) -> E) -> Vec<Vec<E>> {
        let batches = 1 + self.random.below(8) / 6;
        (0..batches).map(|_| vec![filter(self)]).collect()
    }

    /// The range of time of a filter: often all of it, otherwise around what was seen last; sometimes the
    /// wrong way round, which finds nothing.
    fn range(&mut self) -> (u64, u64) {
        let end = |workload: &mut Self| match workload.random.below(3) {
            0 => workload
                .seen
                .saturating_sub(workload.random.skewed(RANGE_MAX)),
            _ => 0,
        };
        (end(self), end(self))
    }

    /// Usually a few, sometimes as many as there are, or none.
    fn limit(&mut self) -> u32 {
        let few = u32::try_from(self.random.below(60)).expect("below sixty");
        if self.random.chance(MILLION / 20) {
            4_000
        } else {
            few
        }
    }

    fn account_filter(&mut self) -> AccountFilter {
        let sides = 1 + u32::try_from(self.random.below(3)).expect("below three");
        let reversed = if self.random.chance(MILLION / 2) {
            account_filter_flags::REVERSED
        } else {
            0
        };
        let (timestamp_min, timestamp_max) = self.range();
        AccountFilter {
            account_id: u128::from(self.account_id()),
            user_data_64: self.random.below(3),
            timestamp_min,
            timestamp_max,
            limit: self.limit(),
            flags: sides | reversed,
            ..AccountFilter::default()
        }
    }

    fn query_filter(&mut self) -> QueryFilter {
        let (timestamp_min, timestamp_max) = self.range();
        QueryFilter {
            user_data_64: self.random.below(3),
            code: 7,
            timestamp_min,
            timestamp_max,
            limit: self.limit(),
            flags: u32::from(self.random.chance(MILLION / 2)),
            ..QueryFilter::default()
        }
    }
}

/// A multi-batch body.
fn work<E: IntoBytes + Immutable>(operation: Operation, batches: &[Vec<E>]) -> Work {
    let size = size_of::<E>();
    assert_eq!(size, operation.event_size());
    let mut body: Vec<u8> = batches
        .iter()
        .flat_map(|batch| batch.as_bytes())
        .copied()
        .collect();
    let payload = body.len();
    body.resize(payload + multibatch::trailer_size(size, batches.len()), 0);
    let counts: Vec<u16> = batches
        .iter()
        .map(|batch| u16::try_from(batch.len()).expect("a batch fits a message"))
        .collect();
    multibatch::encode_trailer(&mut body, payload, size, counts.into_iter());
    Work { operation, body }
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::super::random::Stream;
    use super::*;
    use stampede_client::wire::BODY_SIZE_MAX;
    use stampede_client::wire::body;

    #[test]
    fn requests_are_valid_and_reach_many_outcomes() {
        let limit = u32::try_from(BODY_SIZE_MAX).unwrap();
        let mixture = Mixture {
            queries: true,
            ..Mixture::ORDINARY
        };
        let mut model = Model::default();
        let mut workloads: Vec<Workload> = (0..3)
            .map(|c| Workload::new(mixture, c, Random::new(c, Stream::Clients, c)))
            .collect();
        let mut statuses = std::collections::BTreeSet::new();
        let mut answered = std::collections::BTreeSet::new();
        for round in 1..2_000u64 {
            let work = workloads[(round % 3) as usize].next();
            body::validate(work.operation, &work.body, limit).unwrap();
            let timestamp = round * 100_000_000;
            let reply = model.apply(work.operation.code(), timestamp, &work.body);
            workloads[(round % 3) as usize].saw(timestamp);
            if reply.len() > work.operation.result_size() {
                answered.insert(work.operation);
            }
            if work.operation == Operation::CreateTransfers {
                let results = multibatch::decode(&reply, 16).unwrap().payload();
                let codes = results.chunks_exact(16).map(|r| [r[8], r[9], r[10], r[11]]);
                statuses.extend(codes.map(u32::from_le_bytes));
            }
        }
        assert!(model.transfers().count() > 1_000);
        // Every operation that clients have, with something found.
        let of_clients = Operation::ALL.iter().filter(|operation| {
            let newest = operation.code() >= Operation::LookupAccounts.code();
            newest || **operation == Operation::GetChangeEvents
        });
        for operation in of_clients {
            assert!(answered.contains(operation), "{operation} of {answered:?}");
        }
        // Created, chains, missing accounts, limits, pending transfers of every fate.
        for status in [u32::MAX, 1, 2, 12, 21, 25, 26, 33, 34, 35, 46, 54, 55, 68] {
            assert!(statuses.contains(&status), "{status} of {statuses:?}");
        }
    }
}
