//! Load that keeps accounts of itself: what was acknowledged, what may or may not have happened.
//!
//! Each thread has a client of its own and makes batches of transfers between a few shared accounts.
//! A batch that was answered is acknowledged; one whose answer never came is unknown, and its client is
//! given up for another one. At the end every acknowledged transfer must be found as it was made, a
//! batch of unknown fate must be there as a whole or not at all, and the accounts must add up to
//! exactly what was found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stampede_client::wire::{Account, Transfer};
use stampede_client::{Client, Error, Options};

use super::cluster::Cluster;

const ACCOUNTS: u128 = 8;
const BATCH: u128 = 16;
const LEDGER: u32 = 7;

/// How long a call may take before its outcome counts as unknown: longer than several elections.
const DEADLINE: Duration = Duration::from_secs(20);

/// What threads have done so far.
#[derive(Debug, Default)]
struct Books {
    acknowledged: Vec<Vec<Transfer>>,
    unknown: Vec<Vec<Transfer>>,
    slowest: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    books: Arc<Mutex<Books>>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Creates the accounts and begins.
    pub(crate) fn start(cluster: &Cluster, threads: u64) -> Self {
        let mut client = cluster.client(DEADLINE);
        let accounts: Vec<Account> = (1..=ACCOUNTS)
            .map(|id| Account {
                id,
                ledger: LEDGER,
                code: 1,
                ..Account::default()
            })
            .collect();
        let results = client
            .create_accounts(&accounts)
            .expect("accounts are created");
        assert!(
            results.iter().all(|result| result.is_created()),
            "{results:?}"
        );

        let stop = Arc::new(AtomicBool::new(false));
        let books = Arc::new(Mutex::new(Books::default()));
        let answered = Arc::new(AtomicU64::new(0));
        let addresses: Vec<_> = cluster
            .replicas
            .iter()
            .map(|replica| replica.address)
            .collect();
        let threads = (0..threads).map(|thread| {
            let mut options = Options::new(cluster.cluster, addresses.clone());
            options.deadline = Some(DEADLINE);
            let (stop, books) = (Arc::clone(&stop), Arc::clone(&books));
            let answered = Arc::clone(&answered);
            std::thread::spawn(move || work(thread, &options, &stop, &books, &answered))
        });
        Self {
            threads: threads.collect(),
            stop,
            books,
            answered,
        }
    }

    /// Batches answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more batches have been answered.
    pub(crate) fn wait_for(&self, batches: u64, patience: Duration) {
        let (goal, end) = (self.answered() + batches, Instant::now() + patience);
        while self.answered() < goal {
            assert!(
                Instant::now() < end,
                "only {} of {goal} batches were answered in {patience:?}",
                self.answered()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the load and accounts for every transfer; the number acknowledged.
    pub(crate) fn finish(self, cluster: &Cluster) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("load threads do not panic");
        }
        let books = self.books.lock().expect("load threads do not panic");
        let mut client = cluster.client(DEADLINE);
        let mut debits: BTreeMap<u128, u128> = BTreeMap::new();
        let mut credits: BTreeMap<u128, u128> = BTreeMap::new();
        let mut count = |transfers: &[Transfer]| {
            for transfer in transfers {
                *debits.entry(transfer.debit_account_id).or_default() += transfer.amount;
                *credits.entry(transfer.credit_account_id).or_default() += transfer.amount;
            }
        };
        let mut acknowledged = 0;
        for batch in &books.acknowledged {
            let found = look_up(&mut client, batch);
            let lost = batch.len() - found.len();
            assert_eq!(
                lost,
                0,
                "{lost} acknowledged transfers of {} are lost",
                batch.len()
            );
            for (made, kept) in batch.iter().zip(&found) {
                assert_eq!(
                    *made,
                    Transfer {
                        timestamp: 0,
                        ..*kept
                    }
                );
            }
            count(&found);
            acknowledged += found.len();
        }
        for batch in &books.unknown {
            let found = look_up(&mut client, batch);
            assert!(
                found.is_empty() || found.len() == batch.len(),
                "{} transfers of a batch of {}",
                found.len(),
                batch.len()
            );
            count(&found);
        }
        let ids: Vec<u128> = (1..=ACCOUNTS).collect();
        let accounts = client.lookup_accounts(&ids).expect("accounts are found");
        assert_eq!(accounts.len(), ids.len());
        for account in accounts {
            let of = |sums: &BTreeMap<u128, u128>| sums.get(&account.id).copied().unwrap_or(0);
            assert_eq!(
                account.debits_posted,
                of(&debits),
                "debits of account {}",
                account.id
            );
            assert_eq!(
                account.credits_posted,
                of(&credits),
                "credits of account {}",
                account.id
            );
        }
        println!(
            "{acknowledged} transfers acknowledged and found, {} batches of unknown fate, slowest answer {:?}",
            books.unknown.len(),
            books.slowest
        );
        acknowledged
    }
}

fn look_up(client: &mut Client, batch: &[Transfer]) -> Vec<Transfer> {
    let ids: Vec<u128> = batch.iter().map(|transfer| transfer.id).collect();
    client.lookup_transfers(&ids).expect("lookups are answered")
}

fn work(
    thread: u64,
    options: &Options,
    stop: &AtomicBool,
    books: &Mutex<Books>,
    answered: &AtomicU64,
) {
    let mut client: Option<Client> = None;
    let mut number = 0u128;
    while !stop.load(Ordering::Relaxed) {
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => Client::connect(options.clone()),
        };
        let Ok(mut connected) = connected else {
            continue;
        };
        let batch: Vec<Transfer> = (0..BATCH)
            .map(|n| {
                number += 1;
                let debit = (u128::from(thread) + n) % ACCOUNTS + 1;
                Transfer {
                    id: u128::from(thread + 1) << 64 | number,
                    debit_account_id: debit,
                    credit_account_id: debit % ACCOUNTS + 1,
                    amount: n + 1,
                    user_data_64: thread,
                    ledger: LEDGER,
                    code: 1,
                    ..Transfer::default()
                }
            })
            .collect();
        let begun = Instant::now();
        let results = connected.create_transfers(&batch);
        let mut books = books.lock().expect("load threads do not panic");
        match results {
            Ok(results) => {
                assert!(
                    results.iter().all(|result| result.is_created()),
                    "{results:?}"
                );
                books.slowest = books.slowest.max(begun.elapsed());
                books.acknowledged.push(batch);
                answered.fetch_add(1, Ordering::Relaxed);
                client = Some(connected);
            }
            // Whether it was executed is not known, and a session has one request at a time.
            Err(Error::Timeout(_)) => books.unknown.push(batch),
            Err(other) => panic!("load: {other}"),
        }
    }
}
