//! What the run believes to be true of the server: what was accepted, and how to work it out again.
//!
//! While the clock runs only sums are kept, and for each stream of events the sizes of its batches and
//! the places of events that were not created. Afterwards the streams are generated again from their
//! seed and give the balances that every single account must have: the exact check costs nothing on
//! the path that is measured.
//!
//! Some accepted transfers are kept as samples, to be looked up one by one.

use stampede_client::wire::record::transfer_flags as flags;
use stampede_client::wire::{CreateResult, CreateTransferStatus, Transfer};

use crate::args::Settings;
use crate::random::Random;
use crate::workload::accounts::Picker;
use crate::workload::events::{Effect, Generator};
use crate::workload::ids::{Ids, Run};

/// Transfers to look up afterwards: a full request.
pub const SAMPLES_MAX: usize = 8189;
/// Samples taken from one batch.
const SAMPLES_PER_BATCH: u64 = 16;
/// Events that were not created and are remembered one by one; beyond it only sums are checked.
const REJECTED_MAX: usize = 1_000_000;

/// What one account should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub debits_pending: u64,
    pub debits_posted: u64,
    pub credits_pending: u64,
    pub credits_posted: u64,
}

/// One client's events so far.
#[derive(Clone, Debug)]
struct Stream {
    generator: Generator,
    /// Sizes of the answered batches in order: size, and how many of it.
    sizes: Vec<(u32, u64)>,
    events: u64,
    /// Places (in the stream) of the events that were not created, ascending.
    rejected: Vec<u64>,
    /// Effects of the batches in the two buffers if all their events are created.
    expected: [Effect; 2],
}

/// The outcome of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub created: u64,
    pub rejected: u64,
}

#[derive(Clone, Debug)]
pub struct Books {
    run: Run,
    ids: Ids,
    initial: Vec<Generator>,
    streams: Vec<Stream>,
    accounts: u32,
    effect: Effect,
    created: u64,
    samples: Vec<Transfer>,
    /// Transfers that were candidates for the samples.
    candidates: u64,
    random: Random,
    exact: bool,
}

impl Books {
    /// One stream for each client and a last one for single transfers outside the load.
    pub fn new(settings: &Settings, run: Run) -> Books {
        let picker = Picker::new(
            settings.workload,
            settings.accounts,
            settings.zipf_theta,
            settings.hot_share,
            settings.seed,
        );
        let initial: Vec<Generator> = (0..=settings.clients)
            .map(|stream| {
                let batch = if stream == settings.clients {
                    1
                } else {
                    settings.batch
                };
                let picker = picker.clone();
                Generator::new(settings.workload, picker, run, settings.seed, stream, batch)
            })
            .collect();
        let streams = initial
            .iter()
            .map(|generator| Stream {
                generator: generator.clone(),
                sizes: Vec::with_capacity(8),
                events: 0,
                rejected: Vec::new(),
                expected: [Effect::default(); 2],
            })
            .collect();
        Books {
            run,
            ids: Ids::new(settings.ids, run, settings.seed),
            initial,
            streams,
            accounts: settings.accounts,
            effect: Effect::default(),
            created: 0,
            samples: Vec::with_capacity(SAMPLES_MAX),
            candidates: 0,
            random: Random::new(settings.seed ^ run.0, 0x5a),
            exact: true,
        }
    }

    pub fn run(&self) -> Run {
        self.run
    }

    pub fn accounts(&self) -> u32 {
        self.accounts
    }

    /// The stream of single transfers, which no client's load draws from.
    pub fn single_stream(&self) -> usize {
        self.streams.len() - 1
    }

    pub fn created(&self) -> u64 {
        self.created
    }

    pub fn effect(&self) -> Effect {
        self.effect
    }

    pub fn samples(&self) -> &[Transfer] {
        &self.samples
    }

    /// Writes a stream's next events; `side` (0 or 1) says which of its two buffers this is.
    pub fn fill(&mut self, stream: usize, side: usize, batch: &mut [Transfer], unix_ms: u64) {
        self.ids.start_batch(unix_ms);
        let stream = &mut self.streams[stream];
        stream.expected[side] = stream.generator.fill(batch, &mut self.ids);
    }

    /// Takes in the answer to a batch; `reject` is told the status of each event not created.
    pub fn on_answered(
        &mut self,
        stream: usize,
        side: usize,
        batch: &[Transfer],
        results: &[CreateResult],
        mut reject: impl FnMut(u32),
    ) -> Outcome {
        assert_eq!(batch.len(), results.len());
        let created = CreateTransferStatus::Created.code();
        // One pass without branches in the usual case that everything was created.
        let all = results
            .iter()
            .fold(0, |differ, result| differ | (result.status ^ created))
            == 0;
        let books = &mut self.streams[stream];
        let mut rejected = 0;
        if all {
            self.effect.add(books.expected[side]);
        } else {
            for (place, (transfer, result)) in (books.events..).zip(batch.iter().zip(results)) {
                if result.status == created {
                    self.effect.add(Effect::of(transfer));
                    continue;
                }
                rejected += 1;
                reject(result.status);
                if books.rejected.len() < REJECTED_MAX {
                    books.rejected.push(place);
                } else {
                    self.exact = false;
                }
            }
        }
        books.events += batch.len() as u64;
        let size = u32::try_from(batch.len()).expect("a batch has at most 8189 events");
        match books.sizes.last_mut() {
            Some((last, count)) if *last == size => *count += 1,
            _ => books.sizes.push((size, 1)),
        }
        self.created += batch.len() as u64 - rejected;
        self.sample(batch, results);
        Outcome {
            created: batch.len() as u64 - rejected,
            rejected,
        }
    }

    /// Keeps every accepted transfer's chance of being a sample about equal (reservoir sampling over
    /// a few candidates of each batch).
    #[expect(
        clippy::cast_possible_truncation,
        reason = "indexes below a batch and a request"
    )]
    fn sample(&mut self, batch: &[Transfer], results: &[CreateResult]) {
        for _ in 0..SAMPLES_PER_BATCH.min(batch.len() as u64) {
            let index = self.random.below(batch.len() as u64) as usize;
            if !results[index].is_created() {
                continue;
            }
            self.candidates += 1;
            if self.samples.len() < SAMPLES_MAX {
                self.samples.push(batch[index]);
            } else {
                let place = self.random.below(self.candidates) as usize;
                if let Some(slot) = self.samples.get_mut(place) {
                    *slot = batch[index];
                }
            }
        }
    }

    /// The balances of all accounts, by replaying every stream; `None` if too many events were
    /// rejected to remember which.
    pub fn balances(&self) -> Option<Vec<Balance>> {
        if !self.exact {
            return None;
        }
        let mut balances = vec![Balance::default(); self.accounts as usize];
        let mut batch = vec![Transfer::default(); SAMPLES_MAX];
        for (stream, initial) in self.streams.iter().zip(&self.initial) {
            let mut generator = initial.clone();
            let mut ids = self.ids.clone();
            let mut rejected = stream.rejected.iter().copied().peekable();
            let mut place = 0;
            for &(size, count) in &stream.sizes {
                for _ in 0..count {
                    let batch = &mut batch[..size as usize];
                    generator.fill(batch, &mut ids);
                    for transfer in batch {
                        if rejected.next_if_eq(&place).is_none() {
                            self.apply(transfer, &mut balances);
                        }
                        place += 1;
                    }
                }
            }
        }
        Some(balances)
    }

    fn apply(&self, transfer: &Transfer, balances: &mut [Balance]) {
        let index = |id| self.run.account_index(id).expect("the run's own account") as usize;
        let (debit, credit) = (
            index(transfer.debit_account_id),
            index(transfer.credit_account_id),
        );
        let Effect {
            posted,
            pended,
            released,
        } = Effect::of(transfer);
        balances[debit].debits_posted += posted;
        balances[debit].debits_pending += pended;
        balances[credit].credits_posted += posted;
        balances[credit].credits_pending += pended;
        if transfer.flags & (flags::POST_PENDING_TRANSFER | flags::VOID_PENDING_TRANSFER) != 0 {
            balances[debit].debits_pending -= released;
            balances[credit].credits_pending -= released;
        }
    }
}

#[cfg(test)]
mod tests {
    use stampede_client::wire::CreateTransferStatus;

    use super::*;
    use crate::args::{IdOrder, WorkloadKind};

    fn settings(workload: WorkloadKind) -> Settings {
        Settings {
            accounts: 20,
            clients: 2,
            batch: 64,
            workload,
            ids: IdOrder::Random,
            ..Settings::example()
        }
    }

    fn results(count: usize, rejected: &[usize]) -> Vec<CreateResult> {
        (0..count)
            .map(|index| {
                let status = if rejected.contains(&index) {
                    CreateTransferStatus::ExceedsCredits
                } else {
                    CreateTransferStatus::Created
                };
                CreateResult::transfer(1, status)
            })
            .collect()
    }

    /// Sends batches and keeps the balances the slow way.
    fn run(workload: WorkloadKind, rejected: &[usize]) -> (Books, Vec<Balance>) {
        let mut books = Books::new(&settings(workload), Run(7));
        let mut slow = vec![Balance::default(); 20];
        for (stream, size) in [(0, 64), (1, 64), (1, 64), (0, 30), (2, 1), (0, 64), (2, 1)] {
            let mut batch = vec![Transfer::default(); size];
            books.fill(stream, 1, &mut batch, 5);
            let mut told = 0;
            let outcome =
                books.on_answered(stream, 1, &batch, &results(size, rejected), |status| {
                    assert_eq!(status, 54);
                    told += 1;
                });
            assert_eq!(outcome.rejected, told);
            assert_eq!(outcome.created + outcome.rejected, size as u64);
            for (index, transfer) in batch.iter().enumerate() {
                if !rejected.contains(&index) {
                    books.apply(transfer, &mut slow);
                }
            }
        }
        (books, slow)
    }

    #[test]
    fn a_replay_gives_the_balances() {
        for workload in [
            WorkloadKind::Uniform,
            WorkloadKind::TwoPhase,
            WorkloadKind::Linked,
        ] {
            let (books, slow) = run(workload, &[]);
            assert_eq!(books.balances().unwrap(), slow);
            let posted: u64 = slow.iter().map(|balance| balance.debits_posted).sum();
            let pending: u64 = slow.iter().map(|balance| balance.credits_pending).sum();
            let effect = books.effect();
            assert_eq!(
                (effect.posted, effect.pended - effect.released),
                (posted, pending)
            );
            assert_eq!(books.created(), 288);
        }
    }

    #[test]
    fn rejected_events_are_left_out() {
        // Index 0 is also the only event of the single batches.
        let (books, slow) = run(WorkloadKind::Uniform, &[0, 3, 63]);
        assert_eq!(books.balances().unwrap(), slow);
        assert_eq!(books.created(), 288 - (4 * 3 + 2 + 2));
        let posted: u64 = slow.iter().map(|balance| balance.credits_posted).sum();
        assert_eq!(books.effect().posted, posted);
    }

    #[test]
    fn samples_are_accepted_transfers() {
        let (books, _) = run(WorkloadKind::Uniform, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(books.samples().len() > 30);
        for transfer in books.samples() {
            assert!(transfer.id != 0 && transfer.amount > 0);
        }
    }
}
