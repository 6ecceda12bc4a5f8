//! What clients ask for and what they were told: everything a verdict needs.
//!
//! Client `c` debits an account of its own and credits shared ones. Its transfer number `n` is a
//! function of both, so books keep no transfers: a batch is its first number and two instants.
//!
//! ```text
//!   transfer n of client c:  id = (c + 1) << 64 | (n + 1)
//!     debit  = account of c ──────────► its debits are exactly what c was acknowledged, plus some
//!     credit = one of the pots            of what c was not told about
//!     amount = 1 to 97
//! ```

use stampede_bench::pace::Nanos;
use stampede_client::wire::{Account, Transfer};

const LEDGER: u32 = 1;
const CODE: u16 = 1;
/// Shared accounts that are credited.
pub(crate) const POTS: u64 = 8;
const POT_FIRST: u128 = 1;
const CLIENT_FIRST: u128 = 1_000;
const AMOUNT_MAX: u64 = 97;

/// The account that client `client` debits.
pub(crate) fn account_of(client: u32) -> u128 {
    CLIENT_FIRST + u128::from(client)
}

pub(crate) fn pot_of(number: u64) -> u128 {
    POT_FIRST + u128::from(number % POTS)
}

pub(crate) fn amount_of(number: u64) -> u64 {
    number % AMOUNT_MAX + 1
}

pub(crate) fn id_of(client: u32, number: u64) -> u128 {
    u128::from(client + 1) << 64 | u128::from(number + 1)
}

/// A transfer as it is sent, and as it must be found but for its timestamp.
pub(crate) fn transfer(client: u32, number: u64) -> Transfer {
    Transfer {
        id: id_of(client, number),
        debit_account_id: account_of(client),
        credit_account_id: pot_of(number),
        amount: amount_of(number).into(),
        user_data_64: number,
        ledger: LEDGER,
        code: CODE,
        ..Transfer::default()
    }
}

/// All accounts of a drill.
pub(crate) fn accounts(clients: u32) -> Vec<Account> {
    let ids = (0..POTS).map(pot_of);
    let ids = ids.chain((0..clients).map(account_of));
    ids.map(|id| Account {
        id,
        ledger: LEDGER,
        code: CODE,
        ..Account::default()
    })
    .collect()
}

/// One request for transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Number of its first transfer.
    pub(crate) first: u64,
    pub(crate) sent: Nanos,
    /// `None`: whether it was executed is not known.
    pub(crate) answered: Option<Nanos>,
}

/// A request that only read; what it was told has been compared at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) sent: Nanos,
    pub(crate) answered: Nanos,
}

/// What one client knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientBooks {
    /// Transfers in each of its batches.
    pub(crate) batch: u64,
    pub(crate) batches: Vec<Batch>,
    pub(crate) reads: Vec<Read>,
    /// Transfers that were said to exist already, although this client sent them once: the cluster
    /// executed a request twice.
    pub(crate) repeated: u64,
    /// Reads that lacked what had been acknowledged before they were sent.
    pub(crate) stale: u64,
    /// Reads that held more than anybody had sent by then.
    pub(crate) invented: u64,
}

/// What all clients of a drill know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    /// In the order of their numbers.
    pub(crate) clients: Vec<ClientBooks>,
    /// Clients that only read, from one replica.
    pub(crate) captives: Vec<ClientBooks>,
}

impl Books {
    /// All acknowledgements, in order: when, and of how many transfers.
    pub(crate) fn acknowledgements(&self) -> Vec<(Nanos, u64)> {
        let mut all: Vec<(Nanos, u64)> = Vec::new();
        for client in &self.clients {
            let answers = client.batches.iter().filter_map(|batch| batch.answered);
            all.extend(answers.map(|at| (at, client.batch)));
        }
        all.sort_unstable();
        all
    }

    /// How long batches took that were both sent and answered between two instants, shortest first.
    pub(crate) fn latencies(&self, from: Nanos, to: Nanos) -> Vec<Nanos> {
        let batches = self.clients.iter().flat_map(|client| &client.batches);
        let mut latencies: Vec<Nanos> = batches
            .filter_map(|batch| Some((batch.sent, batch.answered?)))
            .filter(|(sent, answered)| *sent >= from && *answered <= to)
            .map(|(sent, answered)| answered - sent)
            .collect();
        latencies.sort_unstable();
        latencies
    }
}
