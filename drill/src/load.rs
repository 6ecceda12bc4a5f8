//! Load: clients that send small batches as fast as they are answered, and keep books.
//!
//! Each client is a thread with a session of its own; a call waits until it is answered, across
//! failovers and restarts, and only an outage of many seconds leaves a batch of unknown fate. Every
//! eighth request reads the accounts of all clients and compares them with what was acknowledged to
//! anybody before it was sent, and with what had been sent when it was answered: a replica that
//! answers from an old state is found out at once.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use stampede_bench::engine::Clock;
use stampede_bench::pace::Nanos;
use stampede_client::wire::status::CreateTransferStatus;
use stampede_client::wire::{Account, Transfer};
use stampede_client::{Client, Error, Options};

use crate::books::{self, Batch, Books, ClientBooks, Read};
use crate::signal;
use crate::trouble::Trouble;

/// One request in so many is a read.
const READ_EVERY: u64 = 8;
/// How long a call may take before its fate counts as unknown.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for the first calls, while replicas are still starting.
const PATIENCE_FIRST: Duration = Duration::from_secs(60);
/// The same for a captive: it is mostly not answered at all.
const PATIENCE_CAPTIVE: Duration = Duration::from_secs(3);
/// A client that has sent so many batches stops: some hours, and 200 MB of books.
const BATCHES_MAX: usize = 5_000_000;

/// Clients that load what is to be there before, and the size of their batches: the largest.
pub(crate) const PRELOADERS: u32 = 2;
const PRELOAD_BATCH: u64 = 8000;

/// How much load, and where to.
#[derive(Clone, Debug)]
pub(crate) struct LoadOptions {
    pub(crate) cluster: Options,
    pub(crate) clients: u32,
    pub(crate) batch: u32,
    /// Transfers that are on disk before the load begins, in full batches.
    pub(crate) preload: u64,
    /// Clients that the story has beside these; they find accounts, too.
    pub(crate) guests: u32,
}

/// What clients tell each other and the scene while they work.
#[derive(Debug)]
struct Shared {
    clock: Clock,
    stop: AtomicBool,
    sums: Vec<Sums>,
    registered: AtomicU32,
    acknowledged: AtomicU64,
    view: AtomicU32,
    troubles: Mutex<Vec<String>>,
}

/// Amounts that one client has sent and been acknowledged.
#[derive(Debug, Default)]
struct Sums {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// Sending time of the latest request for transfers that was acknowledged.
    newest: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<ClientBooks>>,
    preloaded: Vec<ClientBooks>,
}

impl Load {
    /// Creates the accounts, loads what is to be there before, and begins.
    pub(crate) fn start(options: &LoadOptions, clock: Clock) -> Result<Self, Trouble> {
        let mut client = connect(&options.cluster, PATIENCE_FIRST)?;
        let clients = options.clients + PRELOADERS + options.guests;
        create_accounts(&mut client, clients)?;
        let preloaded = preload(options, clock)?;
        let shared = Arc::new(Shared {
            clock,
            stop: AtomicBool::new(false),
            sums: (0..options.clients).map(|_| Sums::default()).collect(),
            registered: AtomicU32::new(0),
            acknowledged: AtomicU64::new(0),
            view: AtomicU32::new(0),
            troubles: Mutex::new(Vec::new()),
        });
        let threads = (0..options.clients).map(|index| {
            let (shared, cluster) = (Arc::clone(&shared), options.cluster.clone());
            let batch = options.batch.into();
            std::thread::spawn(move || Worker::new(index, batch, &shared).work(cluster))
        });
        Ok(Self {
            threads: threads.collect(),
            shared,
            preloaded,
        })
    }

    /// Whether every client has its session.
    pub(crate) fn is_up(&self) -> bool {
        self.shared.registered.load(Ordering::Acquire) as usize == self.threads.len()
    }

    /// Batches acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether a request has been acknowledged that was sent at `instant` or later.
    pub(crate) fn serves_since(&self, instant: Nanos) -> bool {
        let newest = |sums: &Sums| sums.newest.load(Ordering::Acquire);
        self.shared.sums.iter().any(|sums| newest(sums) >= instant)
    }

    /// The same of every client.
    pub(crate) fn serves_all_since(&self, instant: Nanos) -> bool {
        let newest = |sums: &Sums| sums.newest.load(Ordering::Acquire);
        self.shared.sums.iter().all(|sums| newest(sums) >= instant)
    }

    /// The highest view that clients have heard of.
    pub(crate) fn view(&self) -> u32 {
        self.shared.view.load(Ordering::Relaxed)
    }

    /// What clients could not make sense of.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let troubles = self.shared.troubles.lock();
        troubles.expect("clients do not panic").clone()
    }

    /// Ends the load; clients wait for the answers that they are owed.
    pub(crate) fn finish(self) -> Books {
        self.shared.stop.store(true, Ordering::Relaxed);
        let clients = self.threads.into_iter();
        let clients = clients.map(|thread| thread.join().expect("clients do not panic"));
        Books {
            clients: clients.chain(self.preloaded).collect(),
            captives: Vec::new(),
        }
    }
}

/// A client that reads when it is told to, and for as long as it takes to be answered.
#[derive(Debug)]
pub(crate) struct Captive {
    order: SyncSender<()>,
    thread: JoinHandle<Result<ClientBooks, String>>,
}

impl Load {
    /// A registered client that reaches the cluster by `options` only.
    pub(crate) fn captive(&self, mut options: Options) -> Result<Captive, Trouble> {
        let shared = Arc::clone(&self.shared);
        options.deadline = Some(PATIENCE_CAPTIVE);
        let mut client = Client::connect(options)
            .map_err(|error| Trouble::failed(format!("a captive cannot register: {error}")))?;
        let (order, orders) = sync_channel::<()>(1);
        let thread = std::thread::spawn(move || {
            let mut worker = Worker::new(0, 0, &shared);
            for () in orders {
                match worker.read(&mut client) {
                    // No answer is a good answer: the replica does not lead, and whoever does cannot
                    // be reached from here.
                    Ok(()) | Err(Error::Timeout(_)) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(worker.books)
        });
        Ok(Captive { order, thread })
    }
}

impl Captive {
    /// Asks for the accounts of all clients, as they are at this instant or later.
    pub(crate) fn read(&self) {
        // The channel is full or closed if an earlier read has not been answered or has failed.
        let _ = self.order.try_send(());
    }

    /// Waits for the last answer, but not for ever.
    pub(crate) fn finish(self) -> Result<ClientBooks, Trouble> {
        drop(self.order);
        let books = self.thread.join().expect("captives do not panic");
        books.map_err(|error| Trouble::failed(format!("the captive client: {error}")))
    }
}

/// A client for the drill itself.
pub(crate) fn connect(cluster: &Options, deadline: Duration) -> Result<Client, Trouble> {
    let mut options = cluster.clone();
    options.deadline = Some(deadline);
    Client::connect(options)
        .map_err(|error| Trouble::failed(format!("a client cannot register: {error}")))
}

fn create_accounts(client: &mut Client, clients: u32) -> Result<(), Trouble> {
    let results = client
        .create_accounts(&books::accounts(clients))
        .map_err(|error| Trouble::failed(format!("accounts cannot be created: {error}")))?;
    match results.iter().find(|result| !result.is_created()) {
        None => Ok(()),
        Some(result) => Err(Trouble::failed(format!(
            "an account was not created: {result:?}"
        ))),
    }
}

/// Creates transfers in full batches, by clients of their own whose numbers follow the others'.
fn preload(options: &LoadOptions, clock: Clock) -> Result<Vec<ClientBooks>, Trouble> {
    let batches = options.preload.div_ceil(PRELOAD_BATCH);
    let threads = (0..PRELOADERS).map(|index| {
        let cluster = options.cluster.clone();
        let client = options.clients + index;
        let share = (batches + u64::from(index)) / u64::from(PRELOADERS);
        std::thread::spawn(move || preload_share(&cluster, client, share, clock))
    });
    let threads: Vec<_> = threads.collect();
    let shares = threads.into_iter();
    shares
        .map(|thread| thread.join().expect("clients do not panic"))
        .collect()
}

fn preload_share(
    cluster: &Options,
    client: u32,
    batches: u64,
    clock: Clock,
) -> Result<ClientBooks, Trouble> {
    let mut connection = connect(cluster, PATIENCE_FIRST)?;
    let mut books = ClientBooks {
        batch: PRELOAD_BATCH,
        ..ClientBooks::default()
    };
    for first in (0..batches).map(|index| index * PRELOAD_BATCH) {
        signal::check()?;
        let transfers: Vec<Transfer> = (first..first + PRELOAD_BATCH)
            .map(|number| books::transfer(client, number))
            .collect();
        let sent = clock.now();
        let results = connection
            .create_transfers(&transfers)
            .map_err(|error| Trouble::failed(format!("a batch before the load: {error}")))?;
        if let Some(result) = results.iter().find(|result| !result.is_created()) {
            return Err(Trouble::failed(format!(
                "a transfer was not created before the load: {result:?}"
            )));
        }
        let answered = Some(clock.now());
        books.batches.push(Batch {
            first,
            sent,
            answered,
        });
    }
    Ok(books)
}

/// One client's thread.
struct Worker<'a> {
    index: u32,
    batch: u64,
    shared: &'a Shared,
    books: ClientBooks,
    /// Transfers made so far.
    number: u64,
}

impl<'a> Worker<'a> {
    fn new(index: u32, batch: u64, shared: &'a Shared) -> Self {
        Self {
            index,
            batch,
            shared,
            books: ClientBooks {
                batch,
                ..ClientBooks::default()
            },
            number: 0,
        }
    }

    fn work(mut self, mut options: Options) -> ClientBooks {
        options.deadline = Some(PATIENCE);
        let mut client = loop {
            if self.stopped() {
                return self.books;
            }
            match Client::connect(options.clone()) {
                Ok(client) => break client,
                Err(Error::Timeout(_)) => {}
                Err(error) => {
                    self.complain(&error.to_string());
                    return self.books;
                }
            }
        };
        self.shared.registered.fetch_add(1, Ordering::Release);
        let mut requests = 0;
        while !self.stopped() && self.books.batches.len() < BATCHES_MAX {
            requests += 1;
            let result = if requests % READ_EVERY == 0 {
                self.read(&mut client)
            } else {
                self.write(&mut client)
            };
            match result {
                // The session stays as it is: the next call first waits for the answer to this one.
                Ok(()) | Err(Error::Timeout(_)) => {}
                Err(error) => {
                    self.complain(&error.to_string());
                    break;
                }
            }
            let view = client.session().view();
            self.shared.view.fetch_max(view, Ordering::Relaxed);
        }
        self.books
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn complain(&self, text: &str) {
        let mut troubles = self.shared.troubles.lock().expect("clients do not panic");
        troubles.push(format!("client {}: {text}", self.index));
    }

    fn write(&mut self, client: &mut Client) -> Result<(), Error> {
        let first = self.number;
        self.number += self.batch;
        let transfers: Vec<Transfer> = (first..self.number)
            .map(|number| books::transfer(self.index, number))
            .collect();
        let amount = (first..self.number).map(books::amount_of).sum();
        let sums = &self.shared.sums[self.index as usize];
        sums.sent.fetch_add(amount, Ordering::Release);
        let sent = self.shared.clock.now();
        let result = client.create_transfers(&transfers);
        let answered = result.is_ok().then(|| self.shared.clock.now());
        self.books.batches.push(Batch {
            first,
            sent,
            answered,
        });
        for result in result? {
            if result.is_created() {
                continue;
            }
            if result.status == CreateTransferStatus::Exists.code() {
                self.books.repeated += 1;
            } else {
                self.complain(&format!("a transfer was not created: {result:?}"));
            }
        }
        sums.acknowledged.fetch_add(amount, Ordering::Release);
        sums.newest.store(sent, Ordering::Release);
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn read(&mut self, client: &mut Client) -> Result<(), Error> {
        let sums = &self.shared.sums;
        let all: Vec<u128> = (0..sums.len())
            .map(|index| books::account_of(u32::try_from(index).expect("few clients")))
            .collect();
        let least: Vec<u64> = sums
            .iter()
            .map(|sums| sums.acknowledged.load(Ordering::Acquire))
            .collect();
        let sent = self.shared.clock.now();
        let accounts = client.lookup_accounts(&all)?;
        let answered = self.shared.clock.now();
        let most: Vec<u64> = sums
            .iter()
            .map(|sums| sums.sent.load(Ordering::Acquire))
            .collect();
        self.books.reads.push(Read { sent, answered });
        match judge_read(&accounts, &least, &most) {
            Ok(()) => {}
            Err(Wrong::Stale) => self.books.stale += 1,
            Err(Wrong::Invented) => self.books.invented += 1,
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Less than had been acknowledged before the read was sent.
    Stale,
    /// More than had been sent when the read was answered.
    Invented,
}

/// Compares what a read was told with what it may have been told.
pub(crate) fn judge_read(accounts: &[Account], least: &[u64], most: &[u64]) -> Result<(), Wrong> {
    if accounts.len() != least.len() {
        return Err(Wrong::Stale);
    }
    for (account, (least, most)) in accounts.iter().zip(least.iter().zip(most)) {
        if account.debits_posted < u128::from(*least) {
            return Err(Wrong::Stale);
        }
        if account.debits_posted > u128::from(*most) {
            return Err(Wrong::Invented);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_held_between_what_was_acknowledged_and_what_was_sent() {
        let account = |debits_posted| Account {
            debits_posted,
            ..Account::default()
        };
        let judge = |a, b| judge_read(&[account(a), account(b)], &[5, 10], &[7, 10]);
        assert_eq!(judge(5, 10), Ok(()));
        assert_eq!(judge(7, 10), Ok(()));
        assert_eq!(judge(4, 10), Err(Wrong::Stale));
        assert_eq!(judge(5, 9), Err(Wrong::Stale));
        assert_eq!(judge(8, 10), Err(Wrong::Invented));
        assert_eq!(
            judge_read(&[account(5)], &[5, 10], &[7, 10]),
            Err(Wrong::Stale)
        );
    }
}
