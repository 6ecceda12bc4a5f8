//! Transfer and account ids: unique within a run and, by the run's number, across runs.
//!
//! ```text
//!   account    run (64 bits) | index + 1
//!   time       milliseconds (48) | random (80), counted up within a millisecond
//!   random     128 random bits
//!   reversed   run (64 bits) | counting down from 2^64 - 2
//! ```
//!
//! The order of ids matters to a server: ascending ids are cheap to tell from known ones, random and
//! descending ones are not. The run's number (the wall clock in nanoseconds) lets the same seed run
//! twice on one cluster without being told that everything exists.

use crate::args::IdOrder;
use crate::random::Random;

/// Number of a run; account ids and some transfer ids carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run(pub u64);

impl Run {
    /// Id of the account with this index.
    #[inline]
    pub fn account(self, index: u32) -> u128 {
        self.base() + u128::from(index) + 1
    }

    /// Index of the account with this id, if it is one of the run's.
    #[inline]
    pub fn account_index(self, id: u128) -> Option<u32> {
        u32::try_from(id.checked_sub(self.base() + 1)?).ok()
    }

    fn base(self) -> u128 {
        u128::from(self.0) << 64
    }
}

/// Hands out transfer ids, shared by all clients of a run.
#[derive(Clone, Debug)]
pub struct Ids {
    order: IdOrder,
    random: Random,
    /// The id handed out last (time, reversed).
    last: u128,
}

impl Ids {
    pub fn new(order: IdOrder, run: Run, seed: u64) -> Ids {
        let last = match order {
            IdOrder::Time | IdOrder::Random => 0,
            IdOrder::Reversed => run.base() | u128::from(u64::MAX),
        };
        Ids {
            order,
            random: Random::new(seed ^ run.0, 0x1d),
            last,
        }
    }

    /// To be called before a batch; `unix_ms` is the wall clock.
    pub fn start_batch(&mut self, unix_ms: u64) {
        if self.order == IdOrder::Time && u128::from(unix_ms) > self.last >> 80 {
            let tail = self.random.next_u128() >> 48;
            self.last = (u128::from(unix_ms) << 80) | tail;
        }
    }

    #[inline]
    pub fn next_id(&mut self) -> u128 {
        match self.order {
            IdOrder::Time => {
                self.last += 1;
                self.last
            }
            IdOrder::Reversed => {
                self.last -= 1;
                self.last
            }
            IdOrder::Random => loop {
                let id = self.random.next_u128();
                if id != 0 && id != u128::MAX {
                    return id;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    fn ids(order: IdOrder, run: u64) -> Vec<u128> {
        let mut ids = Ids::new(order, Run(run), 42);
        let mut all = Vec::new();
        // Batches within one millisecond, a clock step forwards, and one backwards.
        for unix_ms in [NOW_MS, NOW_MS, NOW_MS + 5, NOW_MS + 1, NOW_MS + 6] {
            ids.start_batch(unix_ms);
            all.extend((0..2000).map(|_| ids.next_id()));
        }
        all
    }

    #[test]
    fn ids_are_unique_and_valid() {
        for order in [IdOrder::Time, IdOrder::Random, IdOrder::Reversed] {
            let all = ids(order, 77);
            let set: BTreeSet<_> = all.iter().copied().collect();
            assert_eq!(set.len(), all.len());
            assert!(!set.contains(&0) && !set.contains(&u128::MAX));
        }
    }

    #[test]
    fn orders_are_what_their_names_say() {
        assert!(ids(IdOrder::Time, 77).is_sorted());
        assert!(ids(IdOrder::Reversed, 77).is_sorted_by(|a, b| a > b));
        let random = ids(IdOrder::Random, 77);
        let ascents = random.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((4_700..5_300).contains(&ascents), "{ascents}");
    }

    #[test]
    fn time_ids_carry_the_clock() {
        let all = ids(IdOrder::Time, 77);
        assert_eq!(all[0] >> 80, u128::from(NOW_MS));
        assert_eq!(all[4_000] >> 80, u128::from(NOW_MS + 5));
        // A clock that went back changes nothing: the ids go on where they were.
        assert_eq!(all[6_000] >> 80, u128::from(NOW_MS + 5));
    }

    #[test]
    fn two_runs_share_no_ids() {
        for order in [IdOrder::Time, IdOrder::Random, IdOrder::Reversed] {
            let first: BTreeSet<_> = ids(order, 77).into_iter().collect();
            assert!(
                ids(order, 78).iter().all(|id| !first.contains(id)),
                "{order:?}"
            );
        }
    }

    #[test]
    fn account_ids_go_both_ways() {
        let run = Run(1_790_000_000_123_456_789);
        for index in [0, 1, 9_999, u32::MAX - 1] {
            assert_eq!(run.account_index(run.account(index)), Some(index));
        }
        assert_eq!(run.account_index(0), None);
        assert_eq!(run.account_index(Run(run.0 + 1).account(0)), None);
    }
}
