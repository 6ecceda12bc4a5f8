//! When to dial another replica again: quickly at first, then with patience.
//!
//! The wait doubles from 20 ms to 1 s, and each is shortened by a random part of up to a half, so
//! that replicas that lost each other at the same instant do not dial in step for ever. A connection
//! that has held for a second starts from 20 ms again.

/// The first wait.
pub(super) const BACKOFF_NS_MIN: u64 = 20_000_000;
/// The longest wait.
pub(super) const BACKOFF_NS_MAX: u64 = 1_000_000_000;
/// A connection that lasted this long was a good one.
const GOOD_AFTER_NS: u64 = 1_000_000_000;

/// The wait before the next attempt.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    wait: u64,
    random: u64,
}

impl Backoff {
    /// `seed` should differ between replicas and starts.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            wait: BACKOFF_NS_MIN,
            // Xorshift needs a state that is not zero.
            random: seed | 1,
        }
    }

    /// An attempt failed, or the connection was lost after `lasted`: how long to wait.
    pub(super) fn next(&mut self, lasted: u64) -> u64 {
        if lasted >= GOOD_AFTER_NS {
            self.wait = BACKOFF_NS_MIN;
        }
        let wait = self.wait;
        self.wait = (self.wait * 2).min(BACKOFF_NS_MAX);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        wait - self.random % (wait / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_start_again_after_a_good_connection() {
        let mut backoff = Backoff::new(42);
        let waits: Vec<u64> = (0..10).map(|_| backoff.next(0)).collect();
        for (index, wait) in waits.iter().enumerate() {
            let full = (BACKOFF_NS_MIN << index).min(BACKOFF_NS_MAX);
            assert!((full / 2..=full).contains(wait), "{index}: {wait}");
        }
        assert!(backoff.next(GOOD_AFTER_NS) <= BACKOFF_NS_MIN);
    }

    #[test]
    fn two_replicas_do_not_wait_in_step() {
        let (mut a, mut b) = (Backoff::new(1), Backoff::new(3));
        let equal = (0..20).filter(|_| a.next(0) == b.next(0)).count();
        assert!(equal < 3);
    }
}
