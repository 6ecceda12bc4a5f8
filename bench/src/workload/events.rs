//! Fills batches with transfers, and says what they will do to the books.
//!
//! ```text
//!   uniform, zipfian, hot   T T T T T T T T
//!   linked                  T─T─T─T T─T─T─T        chains of four; a batch ends its last chain
//!   two-phase               P T P T  ...  P R P R  pendings; once a batch's worth of them is waiting,
//!                                                  every second event posts or voids the oldest
//! ```
//!
//! Resolutions name accounts and amount explicitly, so that each record says by itself what it moves:
//! verification adds up records and needs no memory of pendings. What a client resolves it has created
//! itself in an earlier event, so the order in which the server takes the clients does not matter.

use std::collections::VecDeque;

use stampede_client::wire::Transfer;
use stampede_client::wire::record::transfer_flags as flags;

use super::accounts::{Pair, Picker};
use super::ids::{Ids, Run};
use crate::args::WorkloadKind;
use crate::random::Random;

/// Ledger and code of everything a run creates.
pub const LEDGER: u32 = 1;
pub const CODE: u16 = 1;
/// Amounts are 1 to this.
pub const AMOUNT_MAX: u32 = 1000;
/// Transfers in a chain of the linked workload.
pub const CHAIN: usize = 4;
/// One resolution of so many is a void, the others post.
const VOID_EVERY: u64 = 8;

/// What created transfers did to all accounts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Amount that arrived in posted balances, counted once (debits and credits have it each).
    pub posted: u64,
    /// Amount reserved in pending balances.
    pub pended: u64,
    /// Amount released from pending balances.
    pub released: u64,
}

impl Effect {
    /// What one record does if it is created.
    #[inline]
    pub fn of(transfer: &Transfer) -> Effect {
        let amount = u64::try_from(transfer.amount).expect("amounts are at most AMOUNT_MAX");
        let mut effect = Effect::default();
        if transfer.flags & flags::PENDING != 0 {
            effect.pended = amount;
        } else if transfer.flags & flags::VOID_PENDING_TRANSFER != 0 {
            effect.released = amount;
        } else {
            effect.posted = amount;
            if transfer.flags & flags::POST_PENDING_TRANSFER != 0 {
                effect.released = amount;
            }
        }
        effect
    }

    #[inline]
    pub fn add(&mut self, other: Effect) {
        self.posted += other.posted;
        self.pended += other.pended;
        self.released += other.released;
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: u128,
    pair: Pair,
    amount: u32,
}

/// One client's stream of events.
#[derive(Clone, Debug)]
pub struct Generator {
    kind: WorkloadKind,
    picker: Picker,
    run: Run,
    random: Random,
    /// Pendings that no event has resolved, oldest first (two-phase only).
    waiting: VecDeque<Waiting>,
    waiting_target: usize,
    events: u64,
    resolutions: u64,
}

impl Generator {
    /// `batch` is the largest slice that `fill` will be given.
    pub fn new(
        kind: WorkloadKind,
        picker: Picker,
        run: Run,
        seed: u64,
        client: u32,
        batch: u32,
    ) -> Generator {
        // Half a batch: a batch of two-phase events is half pendings, so one batch's pendings are
        // resolved by the next one.
        let waiting_target = (batch as usize).div_ceil(2);
        let capacity = if kind == WorkloadKind::TwoPhase {
            waiting_target + 2
        } else {
            0
        };
        Generator {
            kind,
            picker,
            run,
            random: Random::new(seed, 0x1_0000 + u64::from(client)),
            waiting: VecDeque::with_capacity(capacity),
            waiting_target,
            events: 0,
            resolutions: 0,
        }
    }

    /// Overwrites `batch` with the next events and returns what they do if all are created.
    pub fn fill(&mut self, batch: &mut [Transfer], ids: &mut Ids) -> Effect {
        match self.kind {
            WorkloadKind::Uniform | WorkloadKind::Zipfian | WorkloadKind::Hot => {
                self.fill_plain(batch, ids, |_| 0)
            }
            WorkloadKind::Linked => {
                let last = batch.len().saturating_sub(1);
                self.fill_plain(batch, ids, |index| {
                    if index % CHAIN == CHAIN - 1 || index == last {
                        0
                    } else {
                        flags::LINKED
                    }
                })
            }
            WorkloadKind::TwoPhase => self.fill_two_phase(batch, ids),
        }
    }

    fn fill_plain(
        &mut self,
        batch: &mut [Transfer],
        ids: &mut Ids,
        flags: impl Fn(usize) -> u16,
    ) -> Effect {
        let mut effect = Effect::default();
        for (index, slot) in batch.iter_mut().enumerate() {
            let (pair, amount) = self.movement();
            *slot = self.record(ids.next_id(), pair, amount, flags(index));
            effect.posted += u64::from(amount);
        }
        self.events += batch.len() as u64;
        effect
    }

    fn fill_two_phase(&mut self, batch: &mut [Transfer], ids: &mut Ids) -> Effect {
        let mut effect = Effect::default();
        for slot in batch {
            let id = ids.next_id();
            let due = self.events % 2 == 1 && self.waiting.len() >= self.waiting_target;
            let oldest = if due { self.waiting.pop_front() } else { None };
            *slot = match oldest {
                Some(oldest) => {
                    self.resolutions += 1;
                    let void = self.resolutions.is_multiple_of(VOID_EVERY);
                    let flag = if void {
                        flags::VOID_PENDING_TRANSFER
                    } else {
                        flags::POST_PENDING_TRANSFER
                    };
                    let mut record = self.record(id, oldest.pair, oldest.amount, flag);
                    record.pending_id = oldest.id;
                    record
                }
                None => {
                    let (pair, amount) = self.movement();
                    self.waiting.push_back(Waiting { id, pair, amount });
                    self.record(id, pair, amount, flags::PENDING)
                }
            };
            self.events += 1;
            effect.add(Effect::of(slot));
        }
        effect
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "amounts are at most AMOUNT_MAX"
    )]
    fn movement(&mut self) -> (Pair, u32) {
        let pair = self.picker.pair(&mut self.random);
        (pair, 1 + self.random.below(u64::from(AMOUNT_MAX)) as u32)
    }

    #[inline]
    fn record(&self, id: u128, pair: Pair, amount: u32, flags: u16) -> Transfer {
        Transfer {
            id,
            debit_account_id: self.run.account(pair.debit),
            credit_account_id: self.run.account(pair.credit),
            amount: u128::from(amount),
            pending_id: 0,
            user_data_128: 0,
            user_data_64: 0,
            user_data_32: 0,
            timeout: 0,
            ledger: LEDGER,
            code: CODE,
            flags,
            timestamp: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::args::IdOrder;

    const RUN: Run = Run(99);

    fn generator(kind: WorkloadKind, batch: u32) -> (Generator, Ids) {
        let picker = Picker::new(kind, 50, 0.99, 0.5, 42);
        (
            Generator::new(kind, picker, RUN, 42, 0, batch),
            Ids::new(IdOrder::Time, RUN, 42),
        )
    }

    fn batches(kind: WorkloadKind, sizes: &[usize]) -> Vec<Vec<Transfer>> {
        let largest = u32::try_from(*sizes.iter().max().unwrap()).unwrap();
        let (mut generator, mut ids) = generator(kind, largest);
        sizes
            .iter()
            .map(|&size| {
                let mut batch = vec![Transfer::default(); size];
                ids.start_batch(5);
                let effect = generator.fill(&mut batch, &mut ids);
                let mut sum = Effect::default();
                batch
                    .iter()
                    .for_each(|transfer| sum.add(Effect::of(transfer)));
                assert_eq!(effect, sum);
                batch
            })
            .collect()
    }

    #[test]
    fn plain_transfers_are_valid() {
        for kind in [
            WorkloadKind::Uniform,
            WorkloadKind::Zipfian,
            WorkloadKind::Hot,
        ] {
            for transfer in batches(kind, &[100, 1, 37]).into_iter().flatten() {
                let debit = RUN.account_index(transfer.debit_account_id).unwrap();
                let credit = RUN.account_index(transfer.credit_account_id).unwrap();
                assert!(debit < 50 && credit < 50 && debit != credit);
                assert!((1..=u128::from(AMOUNT_MAX)).contains(&transfer.amount));
                assert_eq!((transfer.ledger, transfer.code), (LEDGER, CODE));
                assert_eq!(
                    (transfer.flags, transfer.pending_id, transfer.timestamp),
                    (0, 0, 0)
                );
            }
        }
    }

    #[test]
    fn chains_have_four_links_and_end_with_the_batch() {
        let all = batches(WorkloadKind::Linked, &[10, 4, 1]);
        let linked = |batch: &[Transfer]| -> Vec<bool> {
            batch
                .iter()
                .map(|transfer| transfer.flags & flags::LINKED != 0)
                .collect()
        };
        let t = true;
        let f = false;
        assert_eq!(linked(&all[0]), [t, t, t, f, t, t, t, f, t, f]);
        assert_eq!(linked(&all[1]), [t, t, t, f]);
        assert_eq!(linked(&all[2]), [f]);
    }

    #[test]
    fn every_resolution_fits_an_earlier_pending() {
        for sizes in [
            &[100, 100, 100, 33, 100][..],
            &[1; 50],
            &[2, 2, 2, 2, 1, 2],
            &[3; 9],
        ] {
            let mut pending = BTreeMap::new();
            let (mut posts, mut voids) = (0, 0);
            for transfer in batches(WorkloadKind::TwoPhase, sizes).into_iter().flatten() {
                if transfer.flags == flags::PENDING {
                    pending.insert(transfer.id, transfer);
                    continue;
                }
                let first = pending.remove(&transfer.pending_id).expect("resolved once");
                assert_eq!(first.debit_account_id, transfer.debit_account_id);
                assert_eq!(first.credit_account_id, transfer.credit_account_id);
                assert_eq!(first.amount, transfer.amount);
                match transfer.flags {
                    flags::POST_PENDING_TRANSFER => posts += 1,
                    flags::VOID_PENDING_TRANSFER => voids += 1,
                    other => panic!("flags {other}"),
                }
            }
            let events: usize = sizes.iter().sum();
            let batch = *sizes.iter().max().unwrap();
            assert!(
                posts + voids > events / 2 - batch,
                "{sizes:?}: {posts} posts, {voids} voids"
            );
            assert_eq!(voids, (posts + voids) / 8);
            assert!(pending.len() <= batch + 1);
        }
    }

    #[test]
    fn the_same_seed_replays_everything_but_ids() {
        let strip = |mut transfer: Transfer| {
            (transfer.id, transfer.pending_id) = (0, 0);
            transfer
        };
        for kind in [
            WorkloadKind::Zipfian,
            WorkloadKind::TwoPhase,
            WorkloadKind::Linked,
        ] {
            let (mut first, mut first_ids) = generator(kind, 64);
            let (mut second, _) = generator(kind, 64);
            let mut other_ids = Ids::new(IdOrder::Random, RUN, 1);
            let mut left = vec![Transfer::default(); 64];
            let mut right = left.clone();
            for size in [64, 64, 7, 64] {
                first.fill(&mut left[..size], &mut first_ids);
                second.fill(&mut right[..size], &mut other_ids);
                assert!(left.iter().zip(&right).all(|(l, r)| strip(*l) == strip(*r)));
            }
        }
    }

    #[test]
    fn clients_have_different_streams() {
        let picker = Picker::new(WorkloadKind::Uniform, 1000, 0.0, 0.0, 42);
        let mut ids = Ids::new(IdOrder::Time, RUN, 42);
        let mut all: Vec<Vec<Transfer>> = Vec::new();
        for client in 0..2 {
            let mut generator =
                Generator::new(WorkloadKind::Uniform, picker.clone(), RUN, 42, client, 8);
            let mut batch = vec![Transfer::default(); 8];
            generator.fill(&mut batch, &mut ids);
            all.push(batch);
        }
        let accounts = |batch: &[Transfer]| -> Vec<u128> {
            batch
                .iter()
                .map(|transfer| transfer.debit_account_id)
                .collect()
        };
        assert_ne!(accounts(&all[0]), accounts(&all[1]));
    }
}
